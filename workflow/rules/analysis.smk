# What the snapshots of an experiment's runs say; figures read it and compute nothing.
rule analyse:
    input:
        lambda wildcards: records(wildcards.experiment),
        lambda wildcards: [ancient(f"{RESULTS}/data/{RUNS[wildcards.experiment][0].data.name}.ready")],
        sorted(map(str, Path("spfde/analysis").glob("*.py"))),
    output:
        f"{RESULTS}/analysis/{{experiment}}.{{kind}}.csv",
    log:
        f"{RESULTS}/logs/analysis/{{experiment}}.{{kind}}.log",
    wildcard_constraints:
        kind="similarity|cka|gradients",
        experiment="|".join(analysable()) or "(?!)",  # which nothing matches
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        gpu=min(1, config["gpus_per_run"]),
    params:
        analyse=in_slot("python -m spfde analyse"),
        scale=config["scale"],
        seeds=lambda wildcards: [f"--seed {seed}" for seed in SEEDS or []],
        data_root=config["data_root"],
        cache=config["cache"],
    shell:
        "{params.analyse} {wildcards.kind} --scale {params.scale} --experiment {wildcards.experiment} {params.seeds}"
        " --results results --data-root {params.data_root:q} --cache {params.cache:q} > {log} 2>&1"
