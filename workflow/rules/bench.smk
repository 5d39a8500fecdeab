# Timings on random images: no data, and the only source of acceleration claims. At the paper's scales they are of the
# scale's own network and batch size, as `spfde plan --budget-time` asks for; elsewhere, shortly, of the paper's network.
# `spfde bench --out results/SCALE/bench.csv` before the workflow, with more steps and repeats, is taken as it is.
rule bench:
    output:
        means=PIPELINE.bench,
        repeats=f"{RESULTS}/bench.repeats.csv",
    log:
        f"{RESULTS}/logs/bench.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        gpu=min(1, config["gpus_per_run"]),
    params:
        bench=launched("bench", GPUS, config["jobs_per_gpu"]),
        scale=SCALE if AT_PAPER_SCALE else "cifar100",
        size=[] if AT_PAPER_SCALE else "--batch-size 16 --steps 1 --repeats 5".split(),
    shell:
        "{params.bench:q} --scale {params.scale:q} {params.size:q} --out {output.means:q} > {log:q} 2>&1"
