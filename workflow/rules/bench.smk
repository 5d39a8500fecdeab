# Timings of the paper's network on random images: no data, and the only source of acceleration claims. Short by default;
# `spfde bench --out results/SCALE/bench.csv` before the workflow, with more steps and repeats, is taken as it is.
rule bench:
    output:
        means=f"{RESULTS}/bench.csv",
        repeats=f"{RESULTS}/bench.repeats.csv",
    log:
        f"{RESULTS}/logs/bench.log",
    conda:
        "../../environment.yml"
    params:
        scale="imagenet" if config["scale"] == "imagenet" else "cifar100",
    shell:
        "python -m spfde bench --scale {params.scale} --batch-size 16 --steps 1 --repeats 5 --out {output.means} > {log} 2>&1"
