"""Takes what the documentation shows of measured results into docs/measured/, from which `docs/generate.py` reads it.

    python docs/measure.py digits           # from results/digits: the first pages' figure and table, a row per method
    python docs/measure.py cifar100-short   # from results/cifar100-short: its pilot, its answers, the training budget
    python docs/measure.py speed            # draws docs/measured/{speed,scaling}.csv, which `spfde bench` wrote

A scale's artefacts have to be there: `make reproduce SCALE=...` first.
"""

import shutil
import sys
from pathlib import Path

import pandas as pd

from spfde.experiments.files import experiment_names, read_scale
from spfde.experiments.resolve import expand
from spfde.files import writing
from spfde.methods import METHODS
from spfde.results import load, overview
from spfde.results.collect import flat
from spfde.results.figures import scaling, style
from spfde.results.figures import speed as speed_figure
from spfde.results.material import gather
from spfde.results.statistics import estimate
from spfde.settings import RunSettings

ROOT = Path(__file__).parent.parent
MEASURED = ROOT / "docs/measured"
FIGURE = "budget"


def draw_speed() -> None:
    """Draws docs/measured/speed.svg and scaling.svg from the CSV files beside them."""
    drawings = {"speed": speed_figure.drawing, "scaling": scaling.drawing}
    for name, drawing in drawings.items():
        with style.publication(name), writing(MEASURED / f"{name}.svg") as temporary:
            figure = drawing(pd.read_csv(MEASURED / f"{name}.csv")).figure
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def measure(scale: str, results: Path) -> None:
    """Fills docs/measured/ from the results of a scale: the headline table, its figure, and one row of each method."""
    names = [overview.EXPERIMENT, *experiment_names()]
    planned = {run.row: run for name in reversed(names) for run in expand(scale, name) if not run.tag}
    headline = overview.headline(gather(scale, results, overview.EXPERIMENT)).values
    shown = {run.row: run for run in expand(scale, overview.EXPERIMENT)}
    settings = [shown[row] for row in headline["row"]]
    headline = headline.assign(
        scale=scale,
        data=[run.data.name for run in settings],
        model=[run.model.name for run in settings],
        epochs=[run.training.epochs for run in settings],
        sparsity=[run.sparsity.target for run in settings],
        row_digest=[run.row_digest for run in settings],
    )
    runs = load(scale, results, {row: run.row_digest for row, run in planned.items()})
    rows = [
        {
            "method": run.sparsity.method,
            "scale": scale,
            "row": row,
            "row_digest": run.row_digest,
            "sparsity": run.sparsity.target,
            **estimate(runs.loc[runs["row"] == row, "accuracy.test_last"])._asdict(),
        }
        for row, run in planned.items()
        if usual(run) and row in set(runs["row"])
    ]
    methods = pd.DataFrame(rows).sort_values(["n", "sparsity"], ascending=[False, True]).drop_duplicates("method")
    for name, frame in (("headline", headline), ("methods", methods.sort_values("method"))):
        with writing(MEASURED / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False, float_format="%.6g")
    shutil.copyfile(results / scale / "figures" / f"{FIGURE}.svg", MEASURED / f"{FIGURE}.svg")


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
