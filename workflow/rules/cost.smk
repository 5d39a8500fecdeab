# What a plan follows from: the settings, and all code below training.
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
    conda:
        "../../environment.yml"
    params:
        scale=config["scale"],
        experiments=EXPERIMENTS,
        out=lambda wildcards, output: Path(output[0]).parent,
    shell:
        "python -m spfde plans {params.experiments} --scale {params.scale} --out {params.out} > {log} 2>&1"
