# The seeds of a row share a process, and small rows do, because importing torch takes longer than a small run.
for job in jobs_to_train():
    (experiment, first), runs = next(iter(job)), sum(job.values(), [])

    rule:
        name:
            f"train_{experiment}_{first}"
        input:
            ancient(f"{RESULTS}/data/{runs[0].data.name}.ready"),
        output:
            [record(run) for run in runs],
        log:
            f"{RESULTS}/logs/train/{experiment}/{first}.log",
        benchmark:
            f"{RESULTS}/benchmarks/train/{experiment}/{first}.tsv"
        conda:
            "../../environment.yml"
        threads: runs[0].threads
        resources:
            mem_mb=4000,
            gpu=config["gpus_per_run"],
        params:
            trainer=trainer(),
            scale=config["scale"],
            experiments=[f"--experiment {name}" for name in dict.fromkeys(name for name, _ in job)],
            rows=[f"--row {name}/{row}" for name, row in job],
            seeds=[f"--seed {seed}" for seed in sorted({run.seed for run in runs})],
            data_root=config["data_root"],
            cache=config["cache"],
            time_limit=f"--time-limit {config['time_limit']}" if config["time_limit"] else "",
            out=lambda wildcards, output: Path(output[0]).parent.parent,
            # Not outputs, which a failed job loses: an interrupted run goes on from here.
            checkpoints=[f"{RESULTS}/runs/.checkpoints/{run.run_id}.safetensors" for run in runs],
        shell:
            "{params.trainer} --scale {params.scale} {params.experiments} {params.rows} {params.seeds}"
            " --data-root {params.data_root:q} --cache {params.cache:q} --out {params.out} {params.time_limit} > {log} 2>&1"
