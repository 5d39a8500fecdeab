# All plans by one process: starting one takes longer than planning an experiment.
rule plan:
    input:
        PIPELINE.plan_inputs(),
    output:
        PIPELINE.plans(EXPERIMENTS),
    log:
        f"{RESULTS}/logs/plan.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        scale=SCALE,
        experiments=EXPERIMENTS,
        out=["--out", f"{RESULTS}/plans"],
    shell:
        "python -m spfde plans {params.experiments:q} --scale {params.scale:q} {params.out:q} > {log:q} 2>&1"


# FLOPs and memory of all records, fresh and published, by the present code: what follows takes them from here, so that a
# corrected ledger trains nothing. One process and one file: starting one takes longer than accounting for an experiment.
# So that `snakemake table2` does not train everything, only records that are asked for are waited for.
rule account:
    input:
        # A function: when rules are read, targets are not known yet.
        lambda wildcards: PIPELINE.account_inputs(workflow.dag_settings.targets),
    output:
        PIPELINE.costs,
    log:
        f"{RESULTS}/logs/account.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        results=ON_RESULTS,
    shell:
        "python -m spfde cost {params.results:q} --out {output:q} > {log:q} 2>&1"
