"""From settings to report. `snakemake` runs the scale of config/config.yaml; README.md tells what to choose with `--config`."""

from snakemake.utils import min_version

min_version("9.0")


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


# A default target inside an include is ignored: the first rule has to stand here.
rule default:
    input:
        f"{RESULTS}/report.html",


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/bench.smk"
include: "workflow/rules/cost.smk"
include: "workflow/rules/analysis.smk"
include: "workflow/rules/results.smk"
include: "workflow/rules/report.smk"
