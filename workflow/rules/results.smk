rule collect:
    input:
        PIPELINE.collect_inputs(),
    output:
        f"{RESULTS}/runs.csv",
    log:
        f"{RESULTS}/logs/collect.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        results=ON_RESULTS,
    shell:
        "python -m spfde collect {params.results:q} --out {output:q} > {log:q} 2>&1"


# The source files that make an artefact are among its inputs: an edit renders it again, and trains nothing.
for artefact in PIPELINE.artefacts:
    page, others = PIPELINE.outputs(artefact)

    rule:
        name:
            artefact.rule
        input:
            PIPELINE.inputs(artefact),
        output:
            others,
            report(
                page,
                caption=f"../report/{artefact.caption}.rst",
                category=f"{artefact.kind.title()}s",
                labels={artefact.kind: artefact.label},
            ),
        log:
            f"{RESULTS}/logs/{artefact.kind}s/{artefact.name}.log",
        localrule: True
        conda:
            "../../environment.yml"
        params:
            what=[artefact.kind, artefact.name],
            results=ON_RESULTS,
        shell:
            "python -m spfde {params.what:q} {params.results:q} > {log:q} 2>&1"


# Costs and measured times are those of the papers' scales, whatever scale runs; what holds for every run is looked up in
# its records.
rule claims:
    input:
        PIPELINE.claims_inputs(),
    output:
        multiext(f"{RESULTS}/claims", ".json", ".md"),
        report(
            f"{RESULTS}/claims.html",
            caption="../report/claims.rst",
            category="Claims",
            labels={"page": "verdicts"},
        ),
    log:
        f"{RESULTS}/logs/claims.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        results=ON_RESULTS,
    shell:
        "python -m spfde claims {params.results:q} > {log:q} 2>&1"


# Each experiment is a target of its own name: `snakemake table2` trains, plans and renders it. Where the scale packs rows, a
# process brings along what shares it; `--config experiments=table2` takes the experiment alone.
for experiment in EXPERIMENTS:

    rule:
        name:
            experiment
        input:
            PIPELINE.records(experiment),
            PIPELINE.shown(experiment),
