localrules:
    artefacts,
    report,


rule artefacts:
    input:
        f"{RESULTS}/runs.csv",
        artefacts(*EXPERIMENTS),


# A second Snakemake, because the report is made of the finished jobs' provenance; it only reads, hence no lock.
rule report:
    input:
        rules.artefacts.input,
        "workflow/report/workflow.rst",
    output:
        f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/report.log",
    conda:
        "../../environment.yml"
    params:
        scale=config["scale"],
        experiments=",".join(EXPERIMENTS),
        seeds=f"seeds={','.join(map(str, SEEDS))}" if SEEDS else "",
    shell:
        "snakemake artefacts --report {output} --nolock"
        " --config scale={params.scale} experiments={params.experiments} {params.seeds} > {log} 2>&1"
