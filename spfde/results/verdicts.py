"""The verdicts as files: JSON for programs, Markdown and HTML for people."""

from pathlib import Path
from typing import Any

import pandas as pd

from spfde.files import write_json, write_text
from spfde.results.claims import VERDICTS
from spfde.results.tables.render import markdown, page
from spfde.results.tables.table import Column, Table

SHOWN = ("contradicted", "within noise", "reproduced", "not run")
NOTES = [
    "*reproduced*: the 95 % interval of the effect lies inside the published range widened by the tolerance; "
    "*contradicted*: apart from it; *within noise*: both are possible; *not run*: there is nothing to decide it with.",
    "Effects on accuracy are paired by seed and come from runs at the paper's scale alone. Costs and memory are "
    "computed from the planned trace of the paper's scale, so that they have no interval. Acceleration is the "
    "benchmark's. Of several comparisons the one that stands worst with the claim is shown; all must hold.",
    "Standing: how sure we are that the number is the paper's; no verdict rests on an unverified one.",
]


def write(verdicts: list[dict[str, Any]], scale: str, folder: Path) -> list[Path]:
    """Writes claims.json, claims.md and claims.html into `folder`, each whole; returns their paths."""
    shown = table(verdicts, scale)
    paths = [folder / f"claims.{suffix}" for suffix in ("json", "md", "html")]
    write_json(paths[0], verdicts)
    write_text(paths[1], markdown(shown))
    write_text(paths[2], page(shown))
    return paths


def table(verdicts: list[dict[str, Any]], scale: str) -> Table:
    """A row a claim: what is decided first, and what speaks against the paper before that."""
    ordered = sorted(verdicts, key=lambda row: SHOWN.index(row["verdict"]))
    counted = ", ".join(f"{sum(row['verdict'] == verdict for row in verdicts)} {verdict}" for verdict in VERDICTS)
    columns = [
        Column("Claim", lambda row: row["id"], numeric=False),
        Column("Verdict", lambda row: row["verdict"], numeric=False),
        Column("What the paper says", lambda row: row["claim"], numeric=False, wraps=True),
        Column("Published", _published),
        Column("Effect [95 %]", _effect),
        Column("n", lambda row: str(row["evidence"]["n"])),
        Column("Standing", lambda row: row["published"]["standing"], numeric=False),
        Column("From", _origin, numeric=False, wraps=True),
        Column("Source", lambda row: row["source"], numeric=False, wraps=True),
    ]
    frame = pd.DataFrame({"claim": ordered})
    return Table(
        "claims",
        f"{len(verdicts)} claims: {counted} (scale {scale})",
        pd.DataFrame(ordered),
        columns,
        frame,
        NOTES,
        parted_by="verdict",
    )


def _published(row: dict[str, Any]) -> str:
    low, high, tolerance = (row["published"][key] for key in ("low", "high", "tolerance"))
    if low is None or high is None:
        text = f"≤ {high:.4g}" if low is None else f"≥ {low:.4g}"
    else:
        text = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
    return f"{text} (± {tolerance:.2g})" if tolerance else text


def _effect(row: dict[str, Any]) -> str:
    evidence = row["evidence"]
    if evidence["effect"] is None:
        return "–"
    interval = " [{:.4g}, {:.4g}]".format(*evidence["interval"]) if evidence["interval"] else ""
    return f"{evidence['effect']:.4g}{interval}"


def _origin(row: dict[str, Any]) -> str:
    reason = row["evidence"]["reason"]
    return f"{row['evidence']['from']}: {reason}" if reason else row["evidence"]["from"]
