"""Whole runs with a scheme: the saved weights are masks of the scheme, with the exact count."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spfde.data import load
from spfde.experiments.resolve import resolve
from spfde.sparsity.schemes import scheme
from spfde.training.loop import train

TARGETS = {"2:4": 0.5, "1:8": 0.875, "block": 0.9, "pattern": 0.9, "channel": 0.75}


def in_groups_of(mask: torch.Tensor, m: int) -> torch.Tensor:
    """(filters, groups, m) of the full groups."""
    flat = mask.flatten(1)
    return flat[:, : flat.shape[1] // m * m].unflatten(1, (-1, m))


def assert_valid(name: str, mask: torch.Tensor) -> None:
    if ":" in name:
        n, m = map(int, name.split(":"))
        assert (in_groups_of(mask, m).sum(dim=2) == n).all()
    elif name == "block":
        full = mask[: len(mask) // 4 * 4].unflatten(0, (-1, 4))
        assert (full == full[:, :1]).all()
    elif name == "channel":
        assert (mask == mask[:1, :, *[slice(0, 1)] * (mask.dim() - 2)]).all()
    elif mask.shape[2:] == (3, 3):
        kernels = mask.flatten(2)
        assert set(kernels.sum(dim=2).unique().tolist()) <= {0, 4}
        assert len(set(kernels.any(dim=2).sum(dim=1).tolist())) == 1  # as many of every filter


@pytest.mark.parametrize("method", ["set", "rigl", "mest-ems", "spfde"])
@pytest.mark.parametrize("name", TARGETS)
def test_a_run_ends_with_a_mask_of_its_scheme(tmp_path: Path, name: str, method: str) -> None:
    values = {
        "sparsity.method": method,
        "sparsity.scheme": name,
        "sparsity.target": TARGETS[name],
        "sparsity.interval": 1,
        "training.epochs": 3,
        "training.batch_size": 16,
        "data.train_limit": 200,
    }
    if method == "spfde":
        values["freezing.flops_reduction"] = 0.05
    settings = resolve("smoke", values)
    folder = train(settings, load(settings.data, None, None), tmp_path)
    weights, state = load_file(folder / "model.safetensors"), load_file(folder / "state.safetensors")
    masks = {key.removeprefix("mask."): value for key, value in state.items() if key.startswith("mask.")}
    assert len(masks) > 5
    for layer, mask in masks.items():
        assert not weights[f"{layer}.weight"][~mask].any()
        assert int(mask.sum()) == scheme(name).weight_count(mask.shape, 1 - TARGETS[name])
        assert_valid(name, mask)
