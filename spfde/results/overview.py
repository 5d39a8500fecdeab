"""The first page of the report: what was run and on what, the verdicts on the claims, headline table and figures."""

import base64
import html
import json
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from spfde.errors import SpfdeError
from spfde.experiments.files import settings_of
from spfde.files import write_text
from spfde.results import artefacts, load
from spfde.results.differences import differences, sentence
from spfde.results.labels import label, levels, percent
from spfde.results.material import Material, gather, standing
from spfde.results.tables.render import document, fragment
from spfde.results.tables.table import NOT_RUN, ON_MASK, Column, Table, plus_minus
from spfde.results.verdicts import tally

HEADLINE = ("dense", "static", "set", "rigl", "mest-em", "mest-ems", "spfde")  # the paper's own comparison
STYLE = """
h2 { font-size: 1rem; font-weight: 600; margin: 1.6rem 0 .5rem; }
p, dl { max-width: 60rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0; }
dt { color: #555; }
dd { margin: 0; overflow-wrap: anywhere; }
.verdicts { display: flex; flex-wrap: wrap; gap: .6rem; }
.verdicts div { border: 1px solid #d5d5d5; border-radius: 4px; padding: .35rem .8rem; min-width: 6.5rem; }
.verdicts strong { display: block; font-size: 1.5rem; font-weight: 600; font-variant-numeric: tabular-nums; }
img { width: 60rem; max-width: none; }
@media (max-width: 40rem) {
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .45rem; }
  img { width: 44rem; }
}
"""


def write(scale: str, results: Path) -> Path:
    """Writes results/<scale>/overview.html, one file that loads nothing; returns its path.

    Raises:
        SpfdeError: no such scale, a broken record, plan or claims file.
    """
    path = results / scale / "overview.html"
    write_text(path, page(scale, results))
    return path


def page(scale: str, results: Path) -> str:
    """The overview as HTML. What is not there (claims, Table 2, its figure) says so or is left out."""
    runs = load(scale, results)
    parts = [
        _part("What was run", _facts(_run(scale, results, runs))),
        _part("On what", _facts(_machine(runs))),
        _part("Claims of the papers", _claims(results / scale / "claims.json")),
    ]
    if (results / scale / "plans" / f"{artefacts.FIRST_TABLE}.json").is_file():
        gathered = gather(scale, results, artefacts.FIRST_TABLE)
        table = headline(gathered)
        parts.append(_part(table.title, fragment(table)))
        shown = differences(gathered, table.values["row"]) if len(table.values) else None
        if shown is not None and shown.values.get("n", pd.Series(dtype=int)).any():
            parts.append(_part(shown.title, f"<p>{html.escape(sentence(gathered, shown))}</p>\n{fragment(shown)}"))
    parts += _figures(scale, results)
    return document(f"SpFDE: overview of scale {scale}", "\n".join(parts), STYLE)


def headline(material: Material) -> Table:
    """The paper's own comparison at one sparsity: accuracy beside the cost, as a share of dense training.

    It is shown at the sparsity with the most runs, the lowest of these, since a comparison needs seeds.
    """
    compared = [row for row in material.plan if row["method"] in HEADLINE]
    runs: dict[float, int] = defaultdict(int)
    for row in compared:
        runs[row["sparsity"]] += material.accuracy(row).n
    sparsity = max((found for found in runs if found), key=lambda found: (runs[found], -found), default=0.0)
    rows = [row for row in compared if row["sparsity"] in (0, sparsity)]
    dense = next((material.costs(row) for row in rows if row["method"] == "dense"), None)
    share = "of dense" if dense else "not available"

    def values(row: dict[str, Any]) -> dict[str, Any]:
        accuracy = material.accuracy(row)
        costs = material.costs(row)
        name = f"{label(row)} {levels(row)}" if row["freezing"] or row["sieving"] else label(row)
        ratios = {key: costs[key] / dense[key] if dense else float("nan") for key in costs}
        told = {"status": material.absent(row), "runs": material.count(row)}
        return {"row": row["row"], "method": name, "group": row["method"], **told, **accuracy._asdict(), **ratios}

    def ratio(name: str) -> Column:
        titles = {"flops.paper": "paper", "flops.executed": "executed", "memory.paper_avg": "average"}
        group = f"{'FLOPs' if name.startswith('flops') else 'Memory'} {share}"
        return Column(titles[name], lambda row: _percent(row[name]) if dense else "–", group)

    return Table(
        name="overview",
        title=f"Table 2 at {percent(sparsity)} sparsity",
        values=pd.DataFrame([values(row) for row in rows]),
        columns=[
            Column("Method", lambda row: row["method"], numeric=False),
            Column("Accuracy (%)", lambda row: plus_minus(row["mean"], row["std"]) if row["n"] else row["status"]),
            Column("n", lambda row: row["runs"]),
            *map(ratio, ("flops.paper", "flops.executed", "memory.paper_avg")),
        ],
        seeds=material.runs,
        notes=[
            *material.cautions,
            "Accuracy: test set, after the last epoch, mean ± standard deviation over n seeds. *paper* counts FLOPs "
            "and memory as the papers do; *executed* is what the hardware ran: freezing and sieving always "
            "save it, zeros where kernels skipped them. SpFDE x%+y%: training FLOPs removed by freezing + training "
            "data removed by sieving.",
        ],
        parted_by="group",
    )


def _run(scale: str, results: Path, runs: pd.DataFrame) -> dict[str, str]:
    settings = settings_of(scale)
    plans = sorted((results / scale / "plans").glob("*.json"))
    planned = {row["row"] for plan in plans for row in _json(plan)}
    done = planned & set(runs["row"])
    return {
        "Scale": f"{scale}: {settings.data.name}, {settings.model.name}, {settings.training.epochs} epochs"
        + (f"; {said}" if (said := standing(scale)) else ""),
        "Experiments": ", ".join(plan.stem for plan in plans) or "none planned",
        "Rows": f"{len(done)} of {len(planned)} planned rows were run"
        + (f"; {len(planned - done)} not run" if planned - done else ""),
        "Runs": f"n = {len(runs)}, of which {int(runs['published'].sum())} are published records",
        "Seeds": _listed(runs["seed"]),
        "Sparsities": ", ".join(percent(value) for value in sorted(set(runs.get("sparsity.target", [])) - {0.0}))
        or "none",
    }


def _machine(runs: pd.DataFrame) -> dict[str, str]:
    names = {"device": "Device", "torch": "torch", "python": "Python", "platform": "Platform", "commit": "Commit"}
    facts = {title: _listed(runs[f"environment.{key}"]) for key, title in names.items() if f"environment.{key}" in runs}
    if "environment.spfde" in runs:
        digests = _listed(digest[:12] for digest in runs["environment.code"].dropna())
        facts["spfde"] = f"{_listed(runs['environment.spfde'])} (digest of the code {digests})"
    if "time.total" in runs:
        seconds = float(runs["time.total"].sum())
        facts["Time"] = f"{seconds / 3600:.1f} hours" if seconds >= 7200 else f"{seconds / 60:.1f} minutes"
        facts["Time"] += " of training, summed over the runs"
    return facts or {"Device": NOT_RUN}


def _claims(path: Path) -> str:
    if not path.is_file():
        return f'<p class="muted">{NOT_RUN}</p>'
    claims = _json(path)
    found = tally(claims)
    boxes = (f"<div><strong>{count}</strong>{verdict}</div>" for verdict, count in found.counts.items())
    said = html.escape(" ".join([*found.sentences, "Evidence: claims.md."]))
    against = [f"<li>{html.escape(claim['claim'])}</li>" for claim in claims if claim["verdict"] == "contradicted"]
    listed = f"<p>Contradicted:</p>\n<ul>{''.join(against)}</ul>" if against else ""
    return f'<div class="verdicts">{"".join(boxes)}</div>\n<p>{said}</p>{listed}'


def _figures(scale: str, results: Path) -> list[str]:
    """The figures that are there; one whose experiment has no rows at this scale shows nothing, and is left out."""
    parts = []
    for name, title in artefacts.FIRST_PAGE.items():
        path = results / scale / "figures" / f"{name}.svg"
        plan = results / scale / "plans" / f"{artefacts.FIGURES[name].experiment}.json"
        if path.is_file() and not (plan.is_file() and not _json(plan)):
            data = base64.b64encode(path.read_bytes()).decode("ascii")
            image = f'<img alt="{title}" src="data:image/svg+xml;base64,{data}">'
            parts.append(_part(title, f'<div class="wide">{image}</div>'))
    return parts


def _json(path: Path) -> list[dict[str, Any]]:
    try:
        values: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SpfdeError(f"{path} cannot be read", "remove it and make it again") from error
    return values


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in sorted({value for value in values if pd.notna(value)})) or "unknown"


def _facts(facts: dict[str, str]) -> str:
    inner = (f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in facts.items())
    return f"<dl>\n{chr(10).join(inner)}\n</dl>"


def _part(title: str, body: str) -> str:
    return f"<h2>{html.escape(title)}</h2>\n{body}"


def _percent(share: float) -> str:
    return ON_MASK if math.isnan(share) else f"{100 * share:.1f}%"
