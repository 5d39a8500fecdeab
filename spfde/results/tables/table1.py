"""Table 1 of the SpFDE paper: features of the methods, computed for every registered method, none typed by hand."""

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from spfde.results.artefacts import TABLES
from spfde.results.labels import percent
from spfde.results.material import Material
from spfde.results.tables.table import Column, Table, cost_text

if TYPE_CHECKING:
    from spfde.planning import Plan

(SCALE,) = TABLES["table1"].scales  # the scale at which the features are computed, whatever scale is shown
SPARSITY = 0.9
NOTES = [
    f"Worked out from each method's plan at scale {SCALE}, {SPARSITY:.0%} sparsity, with the method's own defaults.",
    "Dense gradient: when all weights' gradients are needed. Peak weights: the most weights of the sparse layers that "
    "a step trains, over those at the end; *dense* where all of them are there at some time. FLOPs: of training, over "
    "those of the dense model, in the *full* column, which counts scoring and earlier rounds too.",
    "Freezing and sieving work around every method; the columns say what the method brings itself. The paper's own "
    "table is not available.",
]


def build(material: Material) -> Table:
    """One row for each registered method, in the order of registration."""
    values = features()
    columns = [
        Column("Method", lambda row: row["title"], numeric=False),
        Column("Source", lambda row: row["source"], numeric=False),
        Column("Kind", lambda row: row["kind"], numeric=False),
        Column("Scope", lambda row: row["scope"], numeric=False),
        Column("Dense gradient", lambda row: row["dense_gradient"], numeric=False),
        Column("Peak weights", lambda row: _times(row["peak"])),
        Column("FLOPs / dense", lambda row: cost_text(row["flops"], ".3f")),
        Column("Layer freezing", lambda row: percent(row["freezing"], "–")),
        Column("Data sieving", lambda row: row["sieving"], numeric=False),
        Column("Structured", lambda row: "yes" if row["structured"] else "–", numeric=False),
    ]
    return Table("table1", "Features of the methods", values, columns, values[["method"]], NOTES)


def features() -> pd.DataFrame:
    """The features of every registered method; `peak` is NaN where all weights are dense at some time."""
    from spfde.methods import METHODS

    found = pd.DataFrame([_feature(_plan(name)) for name in METHODS])
    return found.assign(flops=found["flops"] / _flops(_plan("dense")))


def _feature(plan: "Plan") -> dict[str, Any]:
    method, trace, settings = plan.method, plan.trace(), plan.settings
    beyond = trace["weight_grad_density"] > trace["forward_density"] + 1e-9
    if not method.sparse or method.dense_masters:
        when = "every step"
    elif method.rounds > 1:
        when = "in the first round"
    elif beyond.any():
        when = "at updates"
    else:
        when = "at the start" if method.needs_dense_gradient else "never"
    sieving = settings.sieving
    return {
        "method": method.name,
        "title": method.title,
        "source": " ".join(str(part) for part in (method.paper, method.year) if part not in (None, "", "-")),
        "kind": method.kind,
        "scope": method.scope,
        "dense_gradient": when,
        "peak": float("nan") if when in ("every step", "in the first round", "at the start") else _peak(plan),
        "flops": _flops(plan),
        "freezing": settings.freezing.flops_reduction,
        "sieving": f"{sieving.schedule}, {percent(sieving.removed)}" if sieving.removed else "–",
        "structured": method.structured,
    }


def _plan(name: str) -> "Plan":
    from spfde.experiments.resolve import resolve
    from spfde.plans import plan_settings

    return plan_settings(resolve(SCALE, {"sparsity.method": name, "sparsity.target": SPARSITY}))


def _flops(plan: "Plan") -> float:
    return math.nan if plan.method.unplannable else plan.costs(plan.trace())[0]["full"]


def _peak(plan: "Plan") -> float:
    """The most weights that the sparse layers train at a time, over those at the end of training."""
    weights = [layer.weights if layer.name in plan.shapes else 0 for layer in plan.profile.rows]
    return float((plan.forward @ weights).max() / (plan.settled @ weights))


def _times(peak: float) -> str:
    return "dense" if pd.isna(peak) else f"{peak:.2f}×"
