# What a plan follows from: the settings, and all code below training.
PLANNER = [
    str(path)
    for folder in ("", "cost", "methods", "models", "sparsity")
    for path in sorted(Path("spfde", folder).glob("*.py"))
]


rule plan:
    input:
        lambda wildcards: f"config/scales/{scale_of(wildcards.experiment, config['scale'])}.yaml",
        "config/experiments/{experiment}.yaml",
        PLANNER,
    output:
        f"{RESULTS}/plans/{{experiment}}.json",
    log:
        f"{RESULTS}/logs/plan/{{experiment}}.log",
    conda:
        "../../environment.yml"
    params:
        scale=lambda wildcards: scale_of(wildcards.experiment, config["scale"]),
    shell:
        "python -m spfde plan --scale {params.scale} --experiment {wildcards.experiment} --json > {output}.part 2> {log}"
        " && mv {output}.part {output}"
