"""The gate of a reduced study: trials of the learning rate on held-out images, and what they decide of its rows."""

import math
from typing import Any

import pandas as pd

from spfde.data import info
from spfde.experiments.files import settings_of
from spfde.results.histories import epochs_of
from spfde.results.labels import tag
from spfde.results.material import Material
from spfde.results.tables.table import NOT_RUN, Column, Table

# docs/protocol.md, Gate: 0+0 above static in points, and its training accuracy over the last epoch in percent.
GAIN, LATE = 1.5, 60.0
BASE, CONTROL = "spfde", "static"
SEED = 101
PER_HOUR = 3600.0


def build(material: Material) -> Table:
    """A row for each learning rate, a column for each method; the second note says what the trials decide."""
    trials = _trials(material)
    methods = list(dict.fromkeys(trials["method"]))
    rates = [_rate_row(trials[trials["rate"] == rate], rate) for rate in sorted(trials["rate"].unique())]
    titles = {row["method"]: row["title"] for row in material.plan}
    titles[BASE] = f"{titles[BASE]} 0+0"
    group = "Held-out accuracy (%)"
    columns = [Column("Learning rate", lambda row: f"{row['rate']:g}")]
    columns += [Column(titles[method], _text(method, ".2f"), group) for method in methods]
    columns += [
        Column("0+0 above static (points)", _text("gain", "+.2f")),
        Column("0+0 in training, last epoch (%)", _text("late", ".2f")),
        Column("CPU hours", _text("hours", ".1f")),
    ]
    notes = [
        "One seed, which no table uses, on 90 % of the training set; accuracies after the last epoch on the other "
        "10 %. Nothing is frozen or sieved. CPU hours are those of the three trials together.",
        outcome(pd.DataFrame(rates)),
    ]
    if (trials["status"] == "diverged").any():
        notes.append("A trial that diverged counts with the accuracy of guessing.")
    seeds = trials.drop(columns=["method"])
    return Table(
        "pilot", "Pilot: learning rates, and the gate of the study", pd.DataFrame(rates), columns, seeds, notes
    )


def outcome(rates: pd.DataFrame) -> str:
    """What the trials decide, by the rule that was written before them: the rate, and whether the sparsity stays.

    Args:
        rates: a row for each learning rate (`rate`): validation accuracies of `static` and `spfde`, percent, the
            difference of the two (`gain`, points) and the training accuracy of `spfde` (`late`, percent); NaN where
            a run is missing.
    """
    if rates[[CONTROL, BASE, "late"]].isna().any(axis=None):
        return "The trials are not complete; they decide nothing yet."
    trials = rates.to_dict("records")
    best, chosen = (max(trials, key=lambda trial: trial[name]) for name in (BASE, CONTROL))
    stays = round(best["gain"], 6) >= GAIN and round(best["late"], 6) >= LATE
    return (
        f"At {best['rate']:g}, the best rate of 0+0, it is {best['gain']:.2f} points above static (at least {GAIN:g} "
        f"are asked for) and {best['late']:.2f} % accurate in training (at least {LATE:g} %): the sparsity "
        f"{'stays' if stays else 'is lowered to 80 %'}. The rate of the study is {chosen['rate']:g}, at which static "
        "is most accurate."
    )


def _trials(material: Material) -> pd.DataFrame:
    """Each trial: its method, rate, validation and training accuracy after the last epoch, and CPU hours.

    One that diverged has the accuracy of guessing.
    """
    guessing = 100 / info(settings_of(material.scale).data.name).classes
    runs = material.runs[material.runs["seed"] == SEED].set_index("row").to_dict("index")
    found = []
    for row in material.plan:
        trial: dict[str, Any] = {"row": row["row"], "method": row["method"], "rate": float(tag(row).removeprefix("r"))}
        if run := runs.get(row["row"]):
            trial |= {"seed": SEED, "status": run["status"], "hours": run["time.cpu"] / PER_HOUR}
            trial |= {"validation": guessing, "training": guessing}
            if run["status"] == "finished":
                last = epochs_of(material, run["run_id"]).iloc[-1]
                trial |= {"validation": last["val_accuracy"], "training": last["train_accuracy"]}
        found.append(trial)
    return pd.DataFrame(found, columns=["row", "method", "rate", "seed", "status", "validation", "training", "hours"])


def _rate_row(trials: pd.DataFrame, rate: float) -> dict[str, Any]:
    by_method = trials.set_index("method")
    row: dict[str, Any] = {"rate": rate, **{str(name): value for name, value in by_method["validation"].items()}}
    row["gain"] = row[BASE] - row[CONTROL]
    row["late"] = by_method["training"][BASE]
    row["hours"] = trials["hours"].sum(skipna=False)
    return row


def _text(name: str, form: str) -> Any:
    def text(row: dict[str, Any]) -> str:
        return NOT_RUN if math.isnan(row[name]) else f"{row[name]:{form}}"

    return text
