# Timings on random images: no data. At the paper's scales as the paper has them, 50 consecutive epochs of 2,000 samples of
# ResNet-20; elsewhere a few epochs of it, which show that it works: claims on acceleration are decided by the times of the
# paper's scale, where there are any. A file that `spfde bench epochs --out results/SCALE/bench.csv` wrote before the
# workflow is taken as it is. What is timed shares its GPU with no other job; on a CPU no other job runs meanwhile.
rule bench:
    output:
        means=f"{RESULTS}/bench.csv",
        repeats=f"{RESULTS}/bench.repeats.csv",
    log:
        f"{RESULTS}/logs/bench.log",
    conda:
        "../../environment.yml"
    threads: 1 if config["gpus_per_run"] else max(1, workflow.cores or 1)
    resources:
        mem_mb=4000,
        gpu=min(1, config["gpus_per_run"]) * (1 if GPUS is None else config["jobs_per_gpu"]),
    params:
        bench=launched("bench", GPUS, config["jobs_per_gpu"], alone=True),
        scale=SCALE if AT_PAPER_SCALE else "cifar100",
        size=[] if AT_PAPER_SCALE else "--batch-size 8 --samples 24 --epochs 16 --repeats 2".split(),
    shell:
        "{params.bench:q} epochs --scale {params.scale:q} {params.size:q} --out {output.means:q} > {log:q} 2>&1"


# Steps of the scale's own network at several densities and numbers of frozen blocks: from them and the records' traces
# follow the seconds per epoch of every row, which say nothing of what else the machine did: no other job runs meanwhile.
# `spfde bench steps` on an idle machine, before the workflow, gives better ones; they are taken as they are.
rule steps:
    output:
        f"{RESULTS}/steps.csv",
    log:
        f"{RESULTS}/logs/steps.log",
    localrule: True
    conda:
        "../../environment.yml"
    threads: max(1, workflow.cores or 1)
    params:
        scale=SCALE,
        turns=[] if AT_PAPER_SCALE else ["--repeats", "3"],
    shell:
        "OMP_NUM_THREADS=1 python -m spfde bench steps --scale {params.scale:q} {params.turns:q} --out {output:q} > {log:q} 2>&1"
