"""What the documentation says of measured results, in Markdown, from docs/measured/ and results/published/.

`docs/measure.py` fills docs/measured/: values, and digests of the settings that they are of. Where the settings have
changed since, the pages say so until they are measured again. Measured epochs are the published ones.
"""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markdown_table import table

from spfde.experiments.files import experiment_names
from spfde.experiments.resolve import expand
from spfde.methods import METHODS
from spfde.results.statistics import Effect, Variance, combined

ROOT = Path(__file__).parent.parent
MEASURED = ROOT / "docs/measured"
EPOCHS = ROOT / "results/published/cifar100/bench.csv"
STUDY = ROOT / "results/published/cifar100-short"
FIGURE = "budget"


def measured(method: str) -> str:
    """One accuracy of a method from the records at hand, beside that of a dense network trained alike, or "not run"."""
    values = pd.read_csv(MEASURED / "methods.csv").set_index("method")
    if method not in values.index:
        return "not run"
    row = values.loc[method].to_dict()
    text = f"{accuracy(row)} % test accuracy"
    if row["sparsity"]:
        text += f" at {percent(row['sparsity'])} sparsity"
    text += f" after {row['epochs']} epochs"
    if not math.isnan(row["images"]):
        text += f" on {row['images']:.0f} images"
    earlier = "" if current(row) else ", earlier settings"
    text += f" (scale {row['scale']}, row `{row['row']}`, n = {row['n']}{earlier})"
    if row["sparsity"] and not math.isnan(row["dense_mean"]):
        dense = {key: row[f"dense_{key}"] for key in ("mean", "std")}
        text += f"; a dense network trained alike has {accuracy(dense)} % (n = {row['dense_n']:.0f})"
    return text


def current(row: Mapping[Any, Any]) -> bool:
    """Whether a measured row is of the present settings of its scale."""
    return (row["row"], row["row_digest"]) in planned_digests(row["scale"])


@functools.cache
def planned_digests(scale: str) -> frozenset[tuple[str, str]]:
    return frozenset((run.row, run.row_digest) for name in experiment_names() for run in expand(scale, name))


def first_result() -> str:
    """The table of the first pages: what the default scale measured."""
    rows = pd.read_csv(MEASURED / "headline.csv").to_dict("records")
    of, sparsity = rows[0], percent(max(row["sparsity"] for row in rows))
    cells = [
        (
            row["method"],
            accuracy(row) if row["n"] else "not run",
            str(row["n"]),
            f"{significant(100 * row['flops.paper'])} %",
            f"{significant(100 * row['flops.executed'])} %",
        )
        for row in rows
    ]
    head = ("Method", "Accuracy (%)", "n", "FLOPs (paper)", "FLOPs (executed)")
    caption = (
        f"Scale `{of['scale']}` at {sparsity} sparsity: {of['data']}, {of['model']}, {of['epochs']} epochs. "
        "Accuracy on the test set after the last epoch, mean ± standard deviation over n seeds. "
        "FLOPs of the whole training, as a share of dense training: *paper* counts as the papers do, *executed* is "
        "what the hardware ran. SpFDE alone is its masks with neither freezing nor sieving; SpFDE x%+y% removes at "
        "least x % of the training FLOPs by freezing and y % of the training data by sieving. Trained on a "
        f"{of['device'].replace('cpu: ', 'CPU (')}, {of['instructions']}), one thread, with torch {of['torch']} and "
        f"kernels `{of['kernels']}`, which are chosen by times measured there. Another machine, version or choice of "
        "kernels adds the same numbers in another order, so its runs are other draws of the same distribution."
    )
    if not all(map(current, rows)):
        caption += " The settings of this scale have changed since: these numbers are of the earlier ones."
    return f"{table(head, cells, numbers=4)}\n{caption}\n{below_static(rows)}"


def below_static(rows: Sequence[Mapping[Any, Any]]) -> str:
    """Sentences on the masks that move and are below one that stays on average; empty if there are none."""
    static = next((row for row in rows if row["group"] == "static"), None)
    if static is None:
        return ""
    below = [row for row in rows if METHODS[row["group"]].kind == "dynamic" and row["mean"] < static["mean"]]
    if not below:
        return ""
    names = " and ".join(f"{row['method']} ({row['mean']:.1f})" for row in below)
    effects = [difference(row, static) for row in below]
    shown = " and ".join(
        f"{effect.mean:+.1f} [{low:+.1f}, {high:+.1f}]" for effect in effects for low, high in [effect.interval()]
    )
    return (
        f"\n{names} {'is' if len(below) == 1 else 'are'} below the static random mask ({static['mean']:.1f}) on "
        f"average here. In points, with 95 % intervals (Welch): {shown}. An interval that contains 0 "
        "shows no difference.\n"
    )


def difference(row: Mapping[Any, Any], other: Mapping[Any, Any]) -> Effect:
    """Of two means over n seeds, by Welch."""
    error = combined([Variance(each["std"] ** 2 / each["n"], each["n"] - 1) for each in (row, other)])
    return Effect(row["mean"] - other["mean"], math.sqrt(error.value), error.df, int(min(row["n"], other["n"])))


def without_title(name: str) -> str:
    """A measured table in Markdown, without its title."""
    return (MEASURED / f"{name}.md").read_text(encoding="utf-8").partition("\n\n")[2]


def study() -> str:
    """The training budget of the study: the figure, and its table without the title."""
    title = "CIFAR-100: test accuracy over the FLOPs of training, SpFDE beside plain sparse training of several lengths"
    return f"![{title}](measured/{FIGURE}-study.svg)\n\n{without_title(f'{FIGURE}-study')}"


def effort() -> str:
    """What the study's published runs took, by row and device: hours of one core, or of a process that used a GPU."""
    found = []
    for path in sorted(STUDY.glob("*/summary.json")):
        summary = json.loads(path.read_text(encoding="utf-8"))
        device, on_gpu = summary["environment"]["device"], summary["environment"]["device"].startswith("cuda")
        hours = summary["time"]["total" if on_gpu else "cpu"] / 3600
        found.append({"row": summary["row"], "device": device.partition(": ")[2], "hours": hours})
    runs = pd.DataFrame(found)
    rows = runs.groupby(["device", "row"], as_index=False).agg(runs=("hours", "size"), hours=("hours", "sum"))
    whole = runs.groupby("device", as_index=False).agg(runs=("hours", "size"), hours=("hours", "sum"))
    cells = [
        (each["device"], f"`{each['row']}`" if "row" in each else "all", str(each["runs"]), f"{each['hours']:.2f}")
        for each in [*rows.to_dict("records"), *whole.to_dict("records")]
    ]
    return table(("Device", "Row", "Runs", "Hours"), cells, numbers=2)


def speed() -> str:
    """The rows that `spfde bench --out docs/measured/speed.csv` wrote."""
    rows = pd.read_csv(MEASURED / "speed.csv")
    cells = [
        (
            str(row["name"]),
            significant(row["ratio"]),
            f"{significant(row['low'])} to {significant(row['high'])}",
            "–" if math.isnan(row["goal"]) else f"{row['goal']:g}",
            "–" if math.isnan(row["goal"]) else "yes" if row["met"] else "no",
            str(row["n"]),
        )
        for row in rows.to_dict("records")
    ]
    return table(("Row", "Ratio", "95 %", "Goal", "Met", "n"), cells, numbers=5)


def epochs(path: Path) -> str:
    """Measured epochs of sparse training that freezes, sieves or does both: the cases of Tables A11 and A12."""
    rows = pd.read_csv(path).to_dict("records")
    base = next(row["seconds_per_epoch"] for row in rows if row["kind"] == "masks")
    names = {"dense": "dense", "masks": "sparse", "freezing": "sparse, frozen", "sieving": "sparse, sieved"}
    cells = [
        (
            names.get(row["kind"], "sparse, both"),
            percent(row["flops_reduction"]) if row["kind"] not in ("dense", "masks") else "–",
            f"{row['seconds_per_epoch']:.3f} ± {row['std']:.3f}",
            f"{base / row['seconds_per_epoch']:.2f}",
            str(row["n"]),
        )
        for row in rows
    ]
    head = ("Training", "Removed by each", "Seconds per epoch", "Times as fast as sparse", "n")
    return table(head, cells, numbers=3)


def accuracy(row: Mapping[Any, Any]) -> str:
    """A mean and, from two seeds on, its standard deviation."""
    return f"{row['mean']:.1f}" if math.isnan(row["std"]) else f"{row['mean']:.1f} ± {row['std']:.1f}"


def percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def significant(value: float) -> str:
    """A number with three digits that count, zeros at the end included: 13.0, 100."""
    return f"{value:#.3g}".rstrip(".")
