# A renderer's source is among its inputs: an edit renders its artefact again, and trains nothing.
TABLE_PARTS = [f"spfde/results/tables/{name}.py" for name in ("ablation", "costs", "render", "table", "timings")]
GATHERING = [
    f"spfde/results/{name}.py" for name in ("analyses", "collect", "labels", "material", "reference", "statistics")
]


rule collect:
    input:
        records(*EXPERIMENTS),
        COSTS,
        "spfde/results/collect.py",
    output:
        f"{RESULTS}/runs.csv",
    log:
        f"{RESULTS}/logs/collect.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        scale=config["scale"],
    shell:
        "python -m spfde collect --scale {params.scale} --results results --out {output} > {log} 2>&1"


for table, experiment in TABLES.items():

    rule:
        name:
            f"table_{table}"
        input:
            records(experiment),
            COSTS,
            f"{RESULTS}/plans/{experiment}.json",
            f"config/scales/{config['scale']}.yaml",
            "config/reference.csv",
            GATHERING,
            TABLE_PARTS,
            timings(table),
            f"spfde/results/tables/{table}.py",
        output:
            multiext(f"{RESULTS}/tables/{table}", ".md", ".csv", ".tex", ".seeds.csv"),
            report(
                f"{RESULTS}/tables/{table}.html",
                caption=f"../report/{table}.rst",
                category="Tables",
                labels={"table": table},
            ),
        log:
            f"{RESULTS}/logs/tables/{table}.log",
        localrule: True
        conda:
            "../../environment.yml"
        params:
            scale=config["scale"],
            table=table,
        shell:
            "python -m spfde table {params.table} --scale {params.scale} --results results > {log} 2>&1"


for figure, experiment in FIGURES.items():

    rule:
        name:
            f"figure_{figure}"
        input:
            records(experiment),
            COSTS,
            analyses(figure),
            f"{RESULTS}/plans/{experiment}.json",
            f"config/scales/{config['scale']}.yaml",
            "config/reference.csv",
            GATHERING,
            "spfde/results/tables/table.py",
            "spfde/results/figures/style.py",
            f"spfde/results/figures/{figure}.py",
        output:
            multiext(f"{RESULTS}/figures/{figure}", ".png", ".csv"),
            report(
                f"{RESULTS}/figures/{figure}.svg",
                caption=f"../report/{figure}.rst",
                category="Figures",
                labels={"figure": figure},
            ),
        log:
            f"{RESULTS}/logs/figures/{figure}.log",
        localrule: True
        conda:
            "../../environment.yml"
        params:
            scale=config["scale"],
            figure=figure,
        shell:
            "python -m spfde figure {params.figure} --scale {params.scale} --results results > {log} 2>&1"


# Costs are those of the papers' scales, whatever scale runs; what holds for every run is looked up in its records.
rule claims:
    input:
        records(*EXPERIMENTS),
        COSTS,
        [f"{RESULTS}/bench.csv"] * any(map(timings, TABLES)),
        [analyses(figure) for figure in FIGURES],
        PLANNER,
        GATHERING,
        [f"spfde/results/{name}.py" for name in ("checks", "claims", "evidence", "verdicts")],
        sorted(str(path) for path in Path("config").glob("*/*.yaml")),
        claims="config/claims.yaml",
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
        scale=config["scale"],
    shell:
        "python -m spfde claims --scale {params.scale} --results results > {log} 2>&1"


# Each experiment is a target of its own name: `snakemake table2` trains, plans and renders it. Where the scale packs rows, a
# process brings along what shares it; `--config experiments=table2` takes the experiment alone.
for experiment in EXPERIMENTS:

    rule:
        name:
            experiment
        input:
            records(experiment),
            artefacts(experiment),
