"""From files of `config/` to the settings of runs.

* `files`: the shapes of scales and experiments, and where their files lie.
* `resolve`: scale, experiment and overrides become the checked settings of each run.
* `stored`: the settings of one run as a file.
"""
