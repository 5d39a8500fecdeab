"""Short runs on digits at 80 % sparsity of the methods with a state or a cost of their own."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from spfde.data import load
from spfde.errors import Stopped
from spfde.experiments.resolve import resolve
from spfde.settings import RunSettings
from spfde.training.clock import Clock
from spfde.training.loop import train

SMALL = {
    "sparsity.target": 0.8,
    "training.epochs": 8,
    "training.batch_size": 64,
    "data.train_limit": 320,
    "freezing.flops_reduction": 0.1,
    "sieving.removed": 0.2,
}
RUNS = {
    "deepr": {"scope": "global"},
    "dsr": {},
    "set-itop": {},
    "rigl-itop": {},
    "gse-uniform": {"scope": "layer"},
    "gse-grabo": {},
    "gse-graest": {},
}


class StopAfter(Clock):
    """A checkpoint after a number of steps, and an end there."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def due(self) -> bool:
        self.left -= 1
        return self.left == 0

    @property
    def stopped(self) -> str:
        return "the test" if self.left <= 0 else ""


def run(settings: RunSettings, out: Path, clock: Clock | None = None) -> Path:
    return train(settings, load(settings.data, None, None), out, clock=clock)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_shows_its_method_and_resumes_bit_for_bit(tmp_path: Path, name: str) -> None:
    settings = resolve("smoke", {**SMALL, "sparsity.method": name, "sparsity.options": RUNS[name]})
    whole = run(settings, tmp_path / "whole")
    with pytest.raises(Stopped):
        run(settings, tmp_path / "stopped", StopAfter(14))  # of 4 steps an epoch: in mid-epoch, masks have changed
    resumed = run(settings, tmp_path / "stopped")
    for file in ("model.safetensors", "state.safetensors", "layers.csv", "epochs.csv"):
        assert (resumed / file).read_bytes() == (whole / file).read_bytes(), file

    summary = json.loads((whole / "summary.json").read_text())
    assert summary["masks"]["overlap_first"] < 1 and summary["masks"]["explored"] > 0.2
    assert (summary["flops"]["extra"] > 0) == (name == "rigl-itop" or name.startswith("gse"))
    model, state = load_file(whole / "model.safetensors"), load_file(whole / "state.safetensors")
    masks = {key.removeprefix("mask."): mask for key, mask in state.items() if key.startswith("mask.")}
    assert all(not model[f"{key}.weight"][~mask].any() for key, mask in masks.items())
    size = sum(mask.numel() for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == pytest.approx(0.2 * size, abs=len(masks))
