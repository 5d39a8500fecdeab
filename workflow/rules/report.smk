# Notebook -> the experiments it reads.
NOTEBOOKS = {"results": ["table2"], "freezing_sieving": ["table2"], "cost": ["table2", "figure4"]}
NOTEBOOKS = {name: needs for name, needs in NOTEBOOKS.items() if set(needs) <= set(EXPERIMENTS)}


rule overview:
    input:
        f"{RESULTS}/runs.csv",
        [f"{RESULTS}/plans/{experiment}.json" for experiment in EXPERIMENTS],
        f"{RESULTS}/claims.json",
        [path for path in artefacts(*EXPERIMENTS) if path.endswith("figures/tradeoff.svg")],
        GATHERING,
        "spfde/results/tables/render.py",
        "spfde/results/tables/table.py",
        "spfde/results/overview.py",
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
        scale=config["scale"],
    shell:
        "python -m spfde overview --scale {params.scale} --results results > {log} 2>&1"


for notebook, needs in NOTEBOOKS.items():

    rule:
        name:
            f"notebook_{notebook}"
        input:
            f"{RESULTS}/runs.csv",
            f"{RESULTS}/claims.json",
            [f"{RESULTS}/plans/{experiment}.json" for experiment in needs],
            "spfde/results/notebooks.py",
            "spfde/results/show.py",
            f"notebooks/{notebook}.ipynb",
        output:
            report(
                f"{RESULTS}/notebooks/{notebook}.html",
                caption=f"../report/notebook_{notebook}.rst",
                category="Notebooks",
                labels={"notebook": notebook.replace("_", " and ")},
            ),
        log:
            f"{RESULTS}/logs/notebooks/{notebook}.log",
        localrule: True
        conda:
            "../../environment.yml"
        params:
            scale=config["scale"],
            notebook=lambda wildcards, output: Path(output[0]).stem,
        shell:
            "python -m spfde notebook {params.notebook} --scale {params.scale} --results results > {log} 2>&1"


rule artefacts:
    input:
        f"{RESULTS}/runs.csv",
        artefacts(*EXPERIMENTS),
        rules.claims.output,
        rules.overview.output,
        [f"{RESULTS}/notebooks/{notebook}.html" for notebook in NOTEBOOKS],


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
        scale=config["scale"],
        experiments=",".join(EXPERIMENTS),
        seeds=f"seeds={','.join(map(str, SEEDS))}" if SEEDS else "",
    shell:
        "snakemake artefacts --report {output} --nolock"
        " --report-stylesheet workflow/report/style.css --report-metadata workflow/report/about.yaml"
        " --config scale={params.scale} experiments={params.experiments} {params.seeds} > {log} 2>&1"
