# One job a row: its seeds share a process, because importing torch takes longer than a small run.
for (experiment, row), runs in rows_to_train().items():

    rule:
        name:
            f"train_{experiment}_{row}"
        input:
            ancient(f"{RESULTS}/data/{runs[0].data.name}.ready"),
        output:
            [record(run) for run in runs],
        log:
            f"{RESULTS}/logs/train/{experiment}/{row}.log",
        benchmark:
            f"{RESULTS}/benchmarks/train/{experiment}/{row}.tsv"
        conda:
            "../../environment.yml"
        threads: runs[0].threads
        resources:
            mem_mb=4000,
        params:
            scale=config["scale"],
            experiment=experiment,
            row=row,
            seeds=[f"--seed {run.seed}" for run in runs],
            data_root=config["data_root"],
            cache=config["cache"],
            out=lambda wildcards, output: Path(output[0]).parent.parent,
            # Not outputs, which a failed job loses: an interrupted run goes on from here.
            checkpoints=[f"{RESULTS}/runs/.checkpoints/{run.run_id}.safetensors" for run in runs],
        shell:
            "python -m spfde train --scale {params.scale} --experiment {params.experiment} --row {params.row}"
            " {params.seeds} --data-root {params.data_root:q} --cache {params.cache:q} --out {params.out} > {log} 2>&1"
