"""Measurements of speed, on random images of a data set's shape: no data are needed.

* `speed`: steps, loader, updates and start-up, each as a ratio to what it is compared with, with its goal.
* `epochs`: consecutive epochs under freezing and sieving (Tables A11 and A12 of SpFDE).
* `steps`: a step at every density and number of frozen blocks, from which epochs of any schedule are composed.
* `scaling`: GSE's claim, seconds and bytes per step over the width of a network; speed over sparsity.
"""
