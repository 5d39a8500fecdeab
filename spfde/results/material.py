"""What a table or figure is made of: the runs of a scale, the plan of its experiment, the reference values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from spfde.errors import NotAtThisScale, NotRun, SpfdeError
from spfde.experiments.files import read_experiment, read_scale, scale_of, settings_of
from spfde.files import read_csv, read_json
from spfde.results import load
from spfde.results.analyses import analysis_path
from spfde.results.collect import NEEDED, mixtures
from spfde.results.labels import tag, with_controls_beside
from spfde.results.reference import ReferenceValue, lookup
from spfde.results.reference import read as read_reference
from spfde.results.statistics import Estimate, estimate

SECONDS = "speed.seconds_per_epoch"
COSTS = [name for name in NEEDED if not name.startswith("accuracy")]


@dataclass(frozen=True)
class Material:
    """
    Args:
        scale: its name.
        runs: one row for each run, as collected.
        plan: one entry for each row of the experiment, in the order of printing: the objects that `spfde plan --json`
            prints.
        reference: the reference values comparable with this scale: same data set and model, and a scale of the papers.
        results: the folder of all results.
    """

    scale: str
    runs: pd.DataFrame
    plan: list[dict[str, Any]]
    reference: pd.DataFrame
    results: Path = Path("results")

    @property
    def comparable(self) -> bool:
        """Whether reference values may be shown beside this scale's."""
        return not self.reference.empty

    @property
    def standing(self) -> str:
        """A note on a scale that is not the papers'."""
        return f"Scale {self.scale}: {standing(self.scale)}. Reference values stand only beside the papers' scales."

    def of(self, row: Mapping[str, Any]) -> pd.DataFrame:
        """The finished runs of a planned row, by seed."""
        return self.runs[(self.runs["row"] == row["row"]) & (self.runs["status"] == "finished")]

    def accuracy(self, row: Mapping[str, Any]) -> Estimate:
        """Test accuracy after the last epoch over the seeds, percent."""
        return estimate(self.of(row)["accuracy.test_last"])

    def diverged(self, row: Mapping[str, Any]) -> str:
        """How many runs of a planned row diverged, e.g. "1 of 3"; empty if none did."""
        runs = self.runs[self.runs["row"] == row["row"]]
        diverged = int((runs["status"] == "diverged").sum())
        return f"{diverged} of {len(runs)}" if diverged else ""

    def count(self, row: Mapping[str, Any]) -> str:
        """The number of runs behind a mean, e.g. "3", or "2 (1 of 3 diverged)"."""
        finished, diverged = len(self.of(row)), self.diverged(row)
        return f"{finished} ({diverged} diverged)" if diverged else str(finished)

    def absent(self, row: Mapping[str, Any]) -> str:
        """The text in place of a mean that does not exist."""
        return "diverged" if self.diverged(row) else "not run"

    @property
    def cautions(self) -> list[str]:
        """What a reader of the numbers must know of the runs behind them: which diverged, and what was not alike."""
        rows = [f"{self.diverged(row)} of {row['row']}" for row in self.plan if self.diverged(row)]
        diverged = [f"Runs that diverged, and are left out of means: {', '.join(rows)}."] if rows else []
        return diverged + mixtures(self.runs[self.runs["row"].isin([row["row"] for row in self.plan])])

    def costs(self, row: Mapping[str, Any]) -> dict[str, float]:
        """FLOPs and bytes, dotted as in the frame: the mean of the records, or the plan where nothing was run.

        NaN where nothing was run and the costs depend on the mask.
        """
        runs = self.of(row)
        if len(runs):
            return {name: float(runs[name].mean()) for name in COSTS}
        planned = {name: name.split(".") for name in COSTS}
        values = {name: row[section][key] for name, (section, key) in planned.items()}
        return {name: math.nan if value is None else float(value) for name, value in values.items()}

    def seconds(self, row: Mapping[str, Any]) -> float:
        """Measured seconds of a mean epoch, over the records of a planned row; NaN where they are not known."""
        return float(self.of(row)[SECONDS].mean()) if SECONDS in self.runs else math.nan

    def reference_value(self, row: Mapping[str, Any], quantity: str) -> ReferenceValue | None:
        """The reference value for a planned row; a row with a tag, which deviates from the paper's, has none.

        Its recipe is named where the row trains under another one.
        """
        found = None if tag(row) else lookup(self.reference, row, quantity)
        return found._replace(recipe="") if found and found.recipe == row.get("recipe", "") else found

    def analysis(self, name: str) -> pd.DataFrame:
        """What `spfde analyse` wrote, fresh or published; the name is an experiment's and a kind's.

        Raises:
            NotRun: it is not there.
        """
        path = analysis_path(name, self.scale, self.results)
        if not path.is_file():
            experiment, kind = name.split(".")
            command = f"spfde analyse {kind} --scale {self.scale} --experiment {experiment}"
            raise NotRun(f"no analysis at {path}", f"write it with `{command}`")
        return read_csv(path, "analysis", "remove it and make it again")


def gather(scale: str, results: Path, experiment: str) -> Material:
    """Reads what an artefact of this experiment needs: records, results/<scale>/plans/<experiment>.json, config/.

    The plan, the records and the reference values are those of the experiment's own scale, where it has one.

    Raises:
        NotAtThisScale: the experiment has no rows there.
        SpfdeError: no plan, no such scale, a broken record.
    """
    at = scale_of(experiment, scale)
    reference = comparable(at)
    rows = planned(scale, results, experiment)
    if not rows and read_experiment(experiment).rows:
        remedy = "name another scale, or give it rows in config/"
        raise NotAtThisScale(f"no row of experiment {experiment} belongs to scale {at}", remedy)
    runs = load(at, results, {row["row"]: row["row_digest"] for row in rows})
    return Material(at, runs, rows, reference, results)


def planned(scale: str, results: Path, experiment: str) -> list[dict[str, Any]]:
    """The rows of results/<scale>/plans/<experiment>.json (`spfde.plans.describe`), controls beside what they are of.

    Raises:
        SpfdeError: there is no plan, or none of this version; it says how to make it.
    """
    plan = results / scale / "plans" / f"{experiment}.json"
    command = f"spfde plans {experiment} --scale {scale} --out {plan.parent}"
    if not plan.is_file():
        raise SpfdeError(f"no plan at {plan}", f"write it with `{command}`")
    rows = read_json(plan, "plan", f"write it again with `{command}`")
    try:
        hash(tuple((row["row"], row["row_digest"]) for row in rows))  # every row has both, as plain values
        return with_controls_beside(rows)
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
        cause = f"{plan} is no plan of this version ({error.__class__.__name__}: {error})"
        raise SpfdeError(cause, f"write it again with `{command}`") from error


def standing(scale: str) -> str:
    """What the numbers of a scale say about the papers; nothing to be said where they are comparable."""
    at = read_scale(scale)
    if at.paper:
        return ""
    if at.protocol:
        return "it is a reduced scale with a protocol of its own, and its verdicts are never the papers'"
    return "it tests the machinery and says nothing about the papers' accuracies"


def comparable(scale: str) -> pd.DataFrame:
    """The reference values of the scale's data set and model; none where its file does not say `paper: true`."""
    at = read_scale(scale)
    values = read_reference()
    if not at.paper:
        return values.iloc[:0]
    settings = settings_of(scale)
    return values[(values["dataset"] == settings.data.name) & (values["model"] == settings.model.name)]
