"""Takes what the documentation shows of measured results into docs/measured/, from which `docs/generate.py` reads it.

    python docs/measure.py digits           # from results/digits: the first pages' figure and table, a row per method
    python docs/measure.py cifar100-short   # from results/cifar100-short: its pilot, its answers, the training budget
    python docs/measure.py speed            # draws docs/measured/{speed,scaling}.csv, which `spfde bench` wrote

A scale's artefacts have to be there: `make reproduce SCALE=...` first.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from spfde.experiments.files import experiment_names, read_scale
from spfde.experiments.resolve import expand
from spfde.files import read_json, writing
from spfde.methods import METHODS
from spfde.results import load, overview
from spfde.results.artefacts import FIRST_TABLE
from spfde.results.collect import flat, record_folders
from spfde.results.figures import scaling, style
from spfde.results.figures import speed as speed_figure
from spfde.results.material import gather
from spfde.results.statistics import Estimate, estimate
from spfde.settings import RunSettings

ROOT = Path(__file__).parent.parent
MEASURED = ROOT / "docs/measured"
FIGURE = "budget"
ENVIRONMENT = {"device": "device", "torch": "torch", "kernels": "kernels.wanted", "instructions": "kernels.isa"}


def draw_speed() -> None:
    """Draws docs/measured/speed.svg and scaling.svg from the CSV files beside them."""
    drawings = {"speed": speed_figure.drawing, "scaling": scaling.drawing}
    for name, drawing in drawings.items():
        with style.publication(name), writing(MEASURED / f"{name}.svg") as temporary:
            figure = drawing(pd.read_csv(MEASURED / f"{name}.csv")).figure
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def measure(scale: str, results: Path) -> None:
    """Fills docs/measured/ from the results of a scale: the headline table, its figure, and one row of each method."""
    headline = overview.headline(gather(scale, results, FIRST_TABLE)).values.drop(columns="status")
    shown = {run.row: run for run in expand(scale, FIRST_TABLE)}
    settings = [shown[row] for row in headline["row"]]
    runs = load(scale, results, {row: run.row_digest for row, run in shown.items()})
    runs = runs[runs["row"].isin(headline["row"]) & (runs["sparsity.method"] != "dense")]  # dense has no choice
    headline = headline.assign(
        scale=scale,
        data=[run.data.name for run in settings],
        model=[run.model.name for run in settings],
        epochs=[run.training.epochs for run in settings],
        sparsity=[run.sparsity.target for run in settings],
        row_digest=[run.row_digest for run in settings],
        **{key: all_of(runs, f"environment.{name}") for key, name in ENVIRONMENT.items()},
    )
    for name, frame in (("headline", headline), ("methods", methods(scale, results))):
        with writing(MEASURED / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False, float_format="%.6g")
    shutil.copyfile(results / scale / "figures" / f"{FIGURE}.svg", MEASURED / f"{FIGURE}.svg")


def all_of(runs: pd.DataFrame, column: str) -> str:
    """The values of a column that occur, e.g. "auto, dense"."""
    return ", ".join(sorted(runs[column].dropna().astype(str).unique()))


def methods(scale: str, results: Path) -> pd.DataFrame:
    """One row for each method: one of the paper's own comparison if it has any there, then the one with most seeds.

    A row with a tag, of other settings than the method's usual ones, counts where the method has no other. Beside it
    the dense network that was trained in the same way, on the same data; empty where none was.
    """
    found = {folder.name: read_json(folder / "summary.json", "record", "") for folder in record_folders(scale, results)}
    groups: list[tuple[RunSettings, Estimate]] = []
    tagged: list[tuple[RunSettings, Estimate]] = []
    for name in [FIRST_TABLE, *experiment_names()]:
        planned: dict[str, list[RunSettings]] = {}
        for run in expand(scale, name):
            if usual(run):
                planned.setdefault(run.row, []).append(run)
        means = [(runs[0], estimate(accuracies(runs, found))) for runs in planned.values()]
        means.sort(key=lambda group: (-group[1].n, group[0].sparsity.target))
        groups += [group for group in means if not group[0].tag]
        tagged += [group for group in means if group[0].tag]
    dense = [group for group in groups if group[0].row == "dense"]
    rows: dict[str, dict[str, Any]] = {}
    for run, mean in groups + tagged:
        if not mean.n or run.sparsity.method in rows:
            continue
        beside = next((other._asdict() for one, other in dense if other.n and alike(one, run)), {})
        rows[run.sparsity.method] = {
            "method": run.sparsity.method,
            "scale": scale,
            "row": run.row,
            "row_digest": run.row_digest,
            "sparsity": run.sparsity.target,
            "epochs": run.training.epochs,
            "images": run.data.train_limit,
            **{key: mean._asdict()[key] for key in ("mean", "std", "n")},
            **{f"dense_{key}": beside.get(key) for key in ("mean", "std", "n")},
        }
    return pd.DataFrame(rows.values()).astype({"images": "Int64", "dense_n": "Int64"}).sort_values("method")


def accuracies(runs: list[RunSettings], found: dict[str, Any]) -> pd.Series:
    """Test accuracies after the last epoch of those runs that have a record, percent."""
    records = [found[run.run_id] for run in runs if run.run_id in found]
    return pd.Series([one["accuracy"]["test_last"] for one in records if one["status"] == "finished"], dtype=float)


def alike(run: RunSettings, other: RunSettings) -> bool:
    """Whether two runs are trained in the same way on the same data."""
    return (run.data, run.training) == (other.data, other.training)


def measure_study(scale: str, results: Path) -> None:
    """Fills docs/measured/ from a reduced study: its pilot, its answers, the training budget as far as it was run."""
    for name in ("pilot", "study"):
        shutil.copyfile(results / scale / "tables" / f"{name}.md", MEASURED / f"{name}.md")
    shutil.copyfile(results / scale / "tables" / f"{FIGURE}.md", MEASURED / f"{FIGURE}-study.md")
    shutil.copyfile(results / scale / "figures" / f"{FIGURE}.svg", MEASURED / f"{FIGURE}-study.svg")


def usual(run: RunSettings) -> bool:
    """Whether a run freezes and sieves as its method does by default."""
    defaults = flat(METHODS[run.sparsity.method].defaults)
    shares = {"freezing.flops_reduction": run.freezing.flops_reduction, "sieving.removed": run.sieving.removed}
    return all(share == defaults.get(key, 0.0) for key, share in shares.items())


def main(words: list[str]) -> None:
    if len(words) != 1:
        sys.exit(__doc__)
    if words == ["speed"]:
        draw_speed()
    elif read_scale(words[0]).protocol:
        measure_study(words[0], ROOT / "results")
    else:
        measure(words[0], ROOT / "results")


if __name__ == "__main__":
    main(sys.argv[1:])
