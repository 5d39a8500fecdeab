rule overview:
    input:
        PIPELINE.overview_inputs(),
    output:
        # The menu is in alphabetical order: the space puts the overview first.
        report(
            f"{RESULTS}/overview.html",
            caption="../report/overview.rst",
            category=" Overview",
            labels={"page": "overview"},
        ),
    log:
        f"{RESULTS}/logs/overview.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        results=ON_RESULTS,
    shell:
        "python -m spfde overview {params.results:q} > {log:q} 2>&1"


rule artefacts:
    input:
        f"{RESULTS}/runs.csv",
        [PIPELINE.outputs(artefact)[0] for artefact in PIPELINE.artefacts],
        rules.claims.output,
        rules.overview.output,


# A second Snakemake, because the report is made of the finished jobs' provenance; it only reads, hence no lock.
rule report:
    input:
        rules.artefacts.input,
        captions=sorted(map(str, Path("workflow/report").glob("[!.]*"))),
    output:
        f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/report.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        config=[
            f"scale={SCALE}",
            f"experiments={','.join(EXPERIMENTS)}",
            f"train={config['train']}",
            *([f"seeds={','.join(map(str, SEEDS))}"] if SEEDS else []),
        ],
    shell:
        "snakemake artefacts --report {output:q} --nolock"
        " --report-stylesheet workflow/report/style.css --report-metadata workflow/report/about.yaml"
        " --config {params.config:q} > {log:q} 2>&1"
