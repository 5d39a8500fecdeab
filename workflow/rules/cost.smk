COSTS = f"{RESULTS}/costs.csv"
# What plans and costs follow from: the settings, and all code below training.
PLANNER = [
    str(path)
    for folder in ("", "cost", "methods", "models", "sparsity")
    for path in sorted(Path("spfde", folder).glob("*.py"))
]


# All plans by one process: starting one takes longer than planning an experiment.
rule plan:
    input:
        sorted({f"config/scales/{scale_of(experiment, config['scale'])}.yaml" for experiment in EXPERIMENTS}),
        [f"config/experiments/{experiment}.yaml" for experiment in EXPERIMENTS],
        PLANNER,
    output:
        [f"{RESULTS}/plans/{experiment}.json" for experiment in EXPERIMENTS],
    log:
        f"{RESULTS}/logs/plan.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        scale=config["scale"],
        experiments=EXPERIMENTS,
        out=lambda wildcards, output: Path(output[0]).parent,
    shell:
        "python -m spfde plans {params.experiments} --scale {params.scale} --out {params.out} > {log} 2>&1"


# FLOPs and memory of all records, fresh and published, by the present code: what follows takes them from here, so that a
# corrected ledger trains nothing. One process and one file: starting one takes longer than accounting for an experiment.
# So that `snakemake table2` does not train everything, only records that are asked for are waited for.
rule account:
    input:
        records_to_account,  # a function: when rules are read, targets are not known yet
        PLANNER,
        "spfde/results/account.py",
    output:
        COSTS,
    log:
        f"{RESULTS}/logs/account.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        scale=config["scale"],
    shell:
        "python -m spfde cost --scale {params.scale} --results results --out {output} > {log} 2>&1"
