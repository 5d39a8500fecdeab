# The seeds of a row share a process, and small rows do, because importing torch takes longer than a small run.
for job in PIPELINE.jobs:

    rule:
        name:
            job.rule
        input:
            ancient(PIPELINE.ready(job.settings)),
        output:
            [PIPELINE.record(run) for run in job.runs],
        log:
            f"{RESULTS}/logs/train/{job.name}.log",
        benchmark:
            f"{RESULTS}/benchmarks/train/{job.name}.tsv"
        priority: job.priority
        conda:
            "../../environment.yml"
        threads: job.cores(config["gpus_per_run"])
        resources:
            mem_mb=job.megabytes(config["gpus_per_run"]),
            gpu=config["gpus_per_run"],
        params:
            train=launched("train", GPUS, config["jobs_per_gpu"], config["gpus_per_run"]),
            scale=SCALE,
            what=job.options,
            on_data=ON_DATA,
            out=["--out", f"{RESULTS}/runs"],
            # Checkpoints, in runs/.checkpoints, are no outputs, which a failed job loses: an interrupted run goes on there.
            time_limit=["--time-limit", str(config["time_limit"])] if config["time_limit"] else [],
        shell:
            "{params.train:q} --scale {params.scale:q} {params.what:q} {params.on_data:q} {params.out:q}"
            " --keep-diverged {params.time_limit:q} > {log:q} 2>&1"


# Records alone, as a campaign makes them: no table, figure or report.
rule trained:
    input:
        PIPELINE.records(*EXPERIMENTS),
