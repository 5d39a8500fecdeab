"""On digits at 80 % sparsity, every method's record shows what the method is."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spfde.cost.trace import OVERLAPS, read_trace
from spfde.data import load
from spfde.experiments.resolve import resolve
from spfde.methods import METHODS
from spfde.rounding import count_of
from spfde.training.loop import train

FIXED = {"dense", "small-dense", "static", "lottery", "snip", "grasp"}
EXTRA = {"lottery", "snip", "grasp", "rigl", "rigl-itop", "swat-u", "swat-erk", "swat-m"}
EXTRA |= {"gse-uniform", "gse-grabo", "gse-graest"}
EXACT = {"static", "set", "rigl", "mest", "mest-em", "mest-ems", "mest-data-efficient", "spfde", "deepr"}  # per layer


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("runs")
    short = {"sparsity.target": 0.8, "training.epochs": 8, "data.train_limit": 320, "training.batch_size": 32}
    found = {}
    for name in METHODS:
        settings = resolve("smoke", {"sparsity.method": name, **short})
        found[name] = train(settings, load(settings.data, None, None), out)
    return found


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def masks(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for k, v in load_file(folder / "state.safetensors").items() if k.startswith("mask.")}


def test_all_methods_are_here(records: dict[str, Path]) -> None:
    assert len(records) == 23


def test_zeros_in_the_model_are_those_of_the_masks(records: dict[str, Path]) -> None:
    for name, folder in records.items():
        model, zeros, size = load_file(folder / "model.safetensors"), 0, 0
        for key, mask in masks(folder).items():
            weight = model[f"{key.removeprefix('mask.')}.weight"]
            assert not weight[~mask].any(), name
            if name in EXACT:
                assert int(mask.sum()) == count_of(0.2, mask.numel()), name
            zeros, size = zeros + int((~mask).sum()), size + mask.numel()
        if METHODS[name].sparse:
            assert zeros / size == pytest.approx(0.8, abs=2e-3), name
            assert summary(folder)["sparsity"]["achieved"] == pytest.approx(zeros / size, abs=1e-9), name


def test_fixed_masks_stay_and_dynamic_ones_move(records: dict[str, Path]) -> None:
    for name, folder in records.items():
        overlap = summary(folder)["masks"]["overlap_first"]
        assert overlap == 1 if name in FIXED else 0 < overlap < 1, (name, overlap)
        between = summary(folder)["masks"]["overlap_updates"]
        assert between == 1 if name in FIXED else overlap < between < 1, (name, between)


def test_the_trace_follows_the_masks(records: dict[str, Path]) -> None:
    for name, folder in records.items():
        trace, final = read_trace(folder / "layers.csv"), masks(folder)
        sizes = {key.removeprefix("mask."): mask.numel() for key, mask in final.items()}
        by_layer = trace.pivot(index="epoch", columns="layer", values="explored")
        assert (by_layer.diff().dropna() >= 0).all(axis=None), name  # what was explored stays explored
        last = by_layer.iloc[-1]
        explored = sum(last[layer] * size for layer, size in sizes.items()) / sum(sizes.values()) if sizes else 1
        assert explored == pytest.approx(summary(folder)["masks"]["explored"]), name
        assert (trace.loc[~trace["layer"].isin(sizes), OVERLAPS] == 1).all(axis=None), name
        changed = trace.groupby("epoch")["overlap_updates"].min() < 1
        if name in ("set", "mest", "mest-em", "mest-ems"):  # every second epoch, not the last ones
            assert not changed[1::2].any() and changed[2] and not changed.iloc[-1], name
        assert changed.any() == (name not in FIXED), name


def test_extra_work_is_counted_where_it_is_done(records: dict[str, Path]) -> None:
    for name, folder in records.items():
        assert (summary(folder)["flops"]["extra"] > 0) == (name in EXTRA), name


def test_no_two_methods_end_with_the_same_mask(records: dict[str, Path]) -> None:
    found = {
        name: b"".join(mask.numpy().tobytes() for _, mask in sorted(masks(folder).items()))
        for name, folder in records.items()
        if METHODS[name].sparse
    }
    assert len(set(found.values())) == len(found) == 21
