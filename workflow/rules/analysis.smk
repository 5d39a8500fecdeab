# What the snapshots of an experiment's runs say; figures read it and compute nothing.
rule analyse:
    input:
        lambda wildcards: PIPELINE.analyse_inputs(wildcards.experiment),
        lambda wildcards: [ancient(path) for path in PIPELINE.data(wildcards.experiment)],
    output:
        f"{RESULTS}/analysis/{{experiment}}.{{kind}}.csv",
    log:
        f"{RESULTS}/logs/analysis/{{experiment}}.{{kind}}.log",
    wildcard_constraints:
        kind="|".join(ANALYSES),
        experiment="|".join(PIPELINE.analysable()) or "(?!)",  # which nothing matches
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        gpu=min(1, config["gpus_per_run"]),
    params:
        analyse=launched("analyse", GPUS, config["jobs_per_gpu"]),
        results=ON_RESULTS,
        seeds=[word for seed in SEEDS or () for word in ("--seed", str(seed))],
        on_data=ON_DATA,
    shell:
        "{params.analyse:q} {wildcards.kind:q} --experiment {wildcards.experiment:q} {params.results:q} {params.seeds:q}"
        " {params.on_data:q} > {log:q} 2>&1"
