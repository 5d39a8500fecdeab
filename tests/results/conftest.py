"""Plausible records and plans on disk, made of closed forms: no training.

The fixture `fakes` hands the makers to a test; `smoke` and `cifar100` are whole results folders. `decide` holds claims
against records that are on no disk.
"""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from spfde.experiments.recipes import recipe_of
from spfde.settings import RunSettings, parse
from spfde.training.trust import seal
from tests.results.situations import holder

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {
        "settings": {
            "data": {"name": "digits", "flip": False},
            "model": {"name": "resnet8"},
            "sparsity": {"interval": 2},
            "training": {"epochs": 30},
        },
        "dense": 1.9e12,
        "samples": 1437,
        "blocks": 3,
        "activations": 2.1e6,
        "weights": 78_000,
        "top": 97.5,
    },
    "cifar100": {
        "settings": {},
        "dense": 13.23e15,
        "samples": 50_000,
        "blocks": 15,
        "activations": 161.5e6,
        "weights": 1_872_132,
        "top": 75.0,
    },
}
SPARSITIES = (0.9, 0.95, 0.98)
LEVELS = (0.1, 0.15, 0.2, 0.25)
METHODS = ("static", "set", "rigl", "mest-em", "mest-ems")
TITLES = {"dense": "Dense", "set": "SET", "rigl": "RigL", "mest-ems": "MEST+EM&S", "spfde": "SpFDE"}
FREEZING = {"wanted": "freezing", "achieved": "freezing_achieved", "t_frz": "t_frz"}
BONUS = {"static": -2.5, "set": -1.5, "rigl": -0.8, "mest-em": -1.0, "mest-ems": -0.3, "spfde": -0.4, "dense": 0.0}


def settings(scale: str, method: str, sparsity: float = 0.0, level: float = 0.0, seed: int = 1) -> RunSettings:
    values: dict[str, Any] = {key: dict(part) for key, part in SCALES[scale]["settings"].items()}
    values |= {"scale": scale, "seed": seed, "sparsity": {**values.get("sparsity", {}), "method": method}}
    values["sparsity"]["target"] = sparsity
    values |= {"freezing": {"flops_reduction": level}, "sieving": {"removed": level}}
    return parse(RunSettings, values)


def rows(scale: str) -> list[RunSettings]:
    """The rows of Table 2, at seed 1."""
    kinds = [("dense", 0.0, 0.0)]
    kinds += [(method, sparsity, 0.0) for method in METHODS for sparsity in SPARSITIES]
    kinds += [("spfde", sparsity, level) for sparsity in SPARSITIES for level in LEVELS]
    return [settings(scale, *kind) for kind in kinds]


def costs(run: RunSettings) -> dict[str, dict[str, float]]:
    """FLOPs and memory by the paper's simple arithmetic."""
    fact = SCALES[run.scale]
    density = 1 - run.sparsity.target
    upper = density * {"mest-ems": 1.15, "spfde": 1.32}.get(run.sparsity.method, 1.0)
    kept = (1 - run.freezing.flops_reduction) * (1 - run.sieving.removed)
    dense, activations, weights = fact["dense"], fact["activations"], 4 * fact["weights"]
    frozen = 2.05 * run.freezing.flops_reduction
    return {
        "flops": {
            "paper": dense * upper * kept,
            "full": dense * (upper * 1.02 + 0.001) * kept,
            "executed": dense * kept,
        },
        "memory": {
            "paper_min": activations * (1.145 if frozen else 2) + 2 * weights * density,
            "paper_avg": activations * (2 - frozen) + 2 * weights * upper,
            "full_peak": activations * 2.4 + 4 * weights,
        },
    }


def planned(run: RunSettings) -> dict[str, Any]:
    """The object `spfde plan --json` prints for a row."""
    level = run.freezing.flops_reduction
    return {
        "row": run.row,
        "row_digest": run.row_digest,
        "recipe": recipe_of(run),
        "method": run.sparsity.method,
        "title": TITLES.get(run.sparsity.method, run.sparsity.method),
        "sparsity": run.sparsity.target,
        "sparsity_scheme": run.sparsity.scheme,
        "freezing": level,
        "sieving": run.sieving.removed,
        "sieving_updates": 31 if run.sieving.removed else 0,
        "turnover": 1 - run.sieving.removed if run.sieving.removed else 0.0,
        "dense_layers": run.sparsity.dense_layers,
        "t_frz": round(0.5 * run.training.epochs) if level else None,
        "freezing_achieved": 1.04 * level,
        "freezing_scheme": run.freezing.scheme,
        "blocks": SCALES[run.scale]["blocks"],
        "frozen_blocks": [2 * (level > 0 and 2 * epoch >= run.training.epochs) for epoch in range(run.training.epochs)],
        **costs(run),
    }


def accuracy(run: RunSettings) -> float:
    """A test accuracy, percent: lower with sparsity and level, with noise by seed."""
    sparsity = run.sparsity.target
    lost = 55 * max(0.0, sparsity - 0.85) ** 1.1 + 8 * run.freezing.flops_reduction**2
    noise = np.random.default_rng([run.seed, len(run.row), int(1000 * sparsity)]).normal(0, 0.25)
    return round(SCALES[run.scale]["top"] + BONUS[run.sparsity.method] - lost + noise, 2)


def write_plan(results: Path, scale: str, runs: list[RunSettings], experiment: str = "table2") -> None:
    path = results / scale / "plans" / f"{experiment}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([planned(run) for run in runs]))


def write_record(
    run: RunSettings, parent: Path, published: bool = False, code: str = "c0de", last: float | None = None
) -> Path:
    """Writes settings.yaml, epochs.csv, layers.csv (.gz when published) and summary.json as a run leaves them.

    `last` is the test accuracy after the last epoch in percent; a plausible one unless given.
    """
    folder = parent / run.run_id
    folder.mkdir(parents=True)
    (folder / "settings.yaml").write_text(yaml.safe_dump(run.model_dump()))
    last = accuracy(run) if last is None else last
    epochs, layers = _histories(run, last)
    epochs.to_csv(folder / "epochs.csv", index=False)
    layers.to_csv(folder / f"layers.csv{'.gz' * published}", index=False)
    cost = costs(run)
    summary = {
        "run_id": run.run_id,
        "row": run.row,
        "status": "finished",
        "accuracy": {"test_last": last, "test_at_best_val": None, "best_val_epoch": None},
        "sparsity": {"target": run.sparsity.target, "achieved": run.sparsity.target},
        "freezing": {k: planned(run)[v] for k, v in FREEZING.items()},
        "sieving": {"removed": run.sieving.removed, "exchanges": 12},
        "masks": {"explored": 0.3, "overlap_first": 0.6, "overlap_updates": 0.9},
        "flops": {**cost["flops"], "extra": 0.0},
        "memory": {
            **cost["memory"],
            "measured_peak": None if run.scale == "smoke" else 1.2 * cost["memory"]["full_peak"],
        },
        "time": {"total": 3.5, "train": 3.0, "evaluate": 0.3, "events": 0.1, "checkpoints": 0.1},
        "environment": {"spfde": "0.1.0", "python": "3.11", "torch": "2", "device": "cpu", "threads": 1, "code": code},
        "resumed_from": [],
    }
    seal(folder, summary)
    return folder


def _histories(run: RunSettings, last: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    fact, total = SCALES[run.scale], run.training.epochs
    interval, blocks = run.sparsity.interval, fact["blocks"]
    density, extra = 1 - run.sparsity.target, 0.05 if run.sparsity.method == "spfde" else 0.0
    level = run.freezing.flops_reduction
    start = round((1 - 2.9 * level) * total / interval) * interval if level else total
    layers, epochs = [], []
    explored: dict[int, float] = {}  # of each layer, while it trains
    for epoch in range(total):
        frozen = min(max(0, (epoch - start) // interval + 1), round(2 * blocks / 3)) if epoch >= start else 0
        bound = density + extra * (1.0 if epoch < 9 * total // 16 else 0.5 if epoch < 3 * total // 4 else 0.0)
        samples = round(fact["samples"] * (1 - run.sieving.removed))
        progress = 1 - math.exp(-6 * (epoch + 1) / total)
        epochs.append(
            {
                "epoch": epoch,
                "lr_first": 0.1,
                "lr_last": 0.1,
                "train_loss": 4.6 * (1 - progress) + 0.05,
                "train_accuracy": min(99.9, 1.2 * last * progress),
                "val_accuracy": None,
                "test_loss": 4.6 * (1 - progress) + 0.9,
                "test_accuracy": last * progress / (1 - math.exp(-6)),
                "samples": samples,
                "frozen_blocks": frozen,
                "sparsity": 1 - bound + (bound - density) * frozen / (blocks + 0.5),
            }
        )
        for layer in range(2 * blocks + 2):
            block = max(0, layer - 1) // 2
            still = block < frozen and layer <= 2 * blocks
            forward = 1.0 if layer == 0 else density if still else bound
            if not still:
                explored[layer] = min(1.0, forward + 0.01 * epoch)
            layers.append(
                {
                    "epoch": epoch,
                    "layer": "stem" if not layer else f"layer.{block}.conv{(layer - 1) % 2 + 1}",
                    "samples": samples,
                    "forward_density": forward,
                    "input_grad_density": 0.0 if still or not layer else forward,
                    "weight_grad_density": 0.0 if still else forward,
                    "activation_density": 1.0,
                    "frozen": int(still),
                    "extra_macs": 0,
                    "explored": explored[layer],
                    "overlap_first": 1.0 if layer == 0 else 0.6,
                    "overlap_updates": 1.0 if still or layer == 0 else 0.9,
                }
            )
    return pd.DataFrame(epochs), pd.DataFrame(layers)


@pytest.fixture(scope="session")
def fakes() -> SimpleNamespace:
    return SimpleNamespace(
        accuracy=accuracy,
        costs=costs,
        planned=planned,
        rows=rows,
        settings=settings,
        write_plan=write_plan,
        write_record=write_record,
    )


@pytest.fixture
def decide(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Holds a claim against a frame of records, and returns its entry in claims.json."""
    return holder(monkeypatch)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder: Table 2 at smoke scale, three seeds, one row (RigL at 98 %) not run."""
    return _results(tmp_path_factory.mktemp("smoke"), "smoke", skip="rigl-s98")


@pytest.fixture(scope="session")
def cifar100(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder: Table 2 at the paper's scale, published records of some rows, the others not run."""
    return _results(tmp_path_factory.mktemp("cifar100"), "cifar100", skip="98", published=True)


def _schemes(scale: str) -> list[RunSettings]:
    """The rows of Appendix B, at seed 1."""
    base = settings(scale, "spfde", 0.9, 0.25)
    found = []
    for name, tag in {"single-shot": "shot", "periodic": "periodic", "random": "random"}.items():
        freezing = base.freezing.model_copy(update={"scheme": name})
        found.append(base.model_copy(update={"freezing": freezing, "tag": tag}))
    return found


def _write_analyses(folder: Path, runs: list[RunSettings]) -> None:
    """Two seeds of plausible analyses: nearer to the final network with every epoch, later in deeper layers."""
    folder.mkdir(parents=True)
    layers, last = (8, 30) if runs[0].scale == "smoke" else (32, 160)
    rows = []
    for run in runs:
        for seed, epoch, number in itertools.product((1, 2), range(5, last + 1, 5), range(1, layers + 1)):
            value = 1 - 0.3 * (number / layers) * (1 - epoch / last) * (1 + 0.1 * seed)
            known = {"run_id": run.run_id, "row": run.row, "seed": seed, "epoch": epoch, "layer": f"l{number}"}
            rows.append({**known, "number": number, "similarity": value, "cka": value, "norm": 2 - value})
    frame = pd.DataFrame(rows)
    difference = frame.groupby(["row", "seed", "layer"])["norm"].diff()
    keys = ["run_id", "row", "seed", "epoch", "layer", "number"]
    sparse = frame[frame["row"] != "dense"]
    sparse[[*keys, "similarity"]].to_csv(folder / "figure1.similarity.csv", index=False)
    frame[[*keys, "cka"]].to_csv(folder / "figure1.cka.csv", index=False)
    one = frame.assign(difference=difference)[frame["row"] == "mest-ems-s90"]
    one[[*keys, "norm", "difference"]].to_csv(folder / "figure3.gradients.csv", index=False)


def _write_scaling(path: Path) -> None:
    """What `spfde bench scaling` leaves behind: dense work that grows faster than sparse work, in two turns."""
    methods = {"dense": 1.8, "rigl": 1.3, "gse-uniform": 1.1}
    rows = [
        ("width", method, width, 0.5, turn, 0.01 * width**power * (1 + 0.1 * turn), 1e7 * width**power)
        for method, power in methods.items()
        for width in (1, 2, 4)
        for turn in range(2)
    ]
    levels = {0.0: 1.0, 0.5: 1.2, 0.8: 0.5, 0.98: 0.2}
    rows += [
        ("sparsity", "sparse" if level else "dense", 1, level, turn, seconds, float("nan"))
        for level, seconds in levels.items()
        for turn in range(2)
    ]
    columns = ["part", "method", "width", "sparsity", "turn", "seconds", "bytes"]
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)


def _results(results: Path, scale: str, skip: str, published: bool = False) -> Path:
    runs = rows(scale)
    for experiment in ("table2", "figure4"):
        write_plan(results, scale, runs, experiment)
    schemed = _schemes(scale)
    snapshots = [run for run in runs if run.row in ("dense", "mest-ems-s90", "mest-ems-s95")]
    write_plan(results, scale, snapshots, "figure1")
    write_plan(results, scale, [snapshots[1], *schemed], "figure3")
    write_plan(results, scale, schemed, "appendix_b")
    write_plan(results, scale, [], "scaling")
    _write_scaling(results / scale / "scaling.csv")
    _write_analyses(results / scale / "analysis", snapshots)
    runs += schemed[:-1]
    parent = results / "published" / scale if published else results / scale / "runs"
    for run in runs:
        for seed in (1, 2, 3) if skip not in run.row else ():
            again = run.model_copy(update={"seed": seed})
            write_record(again, parent, published)
    return results
