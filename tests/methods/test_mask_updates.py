"""The trace has every mask update that a run makes, and planning knows them before."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from spfde.data import load
from spfde.experiments.resolve import resolve
from spfde.methods import METHODS, MethodPlan, make
from spfde.plans import plan_settings
from spfde.settings import RunSettings, parse
from spfde.sparsity.masks import SparseLayer
from spfde.training.clock import Clock
from spfde.training.loop import step
from spfde.training.run import Training

FIXED = {"dense", "small-dense", "static", "lottery", "snip", "grasp"}
SETTINGS = {
    "sparsity.target": 0.8,
    "training.epochs": 10,
    "data.train_limit": 320,
    "training.batch_size": 16,
    "freezing.flops_reduction": 0.1,
}


@pytest.mark.parametrize("name", sorted(set(METHODS) - FIXED))
def test_the_trace_counts_the_changes_of_each_mask(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = resolve("smoke", {"sparsity.method": name, **SETTINGS})
    run = Training(settings, load(settings.data, None, None), torch.device("cpu"), Clock())
    places = {layer.name: place for place, layer in enumerate(run.sparse.plan.profile.layers)}
    changed = np.zeros((10, len(places)), int)
    real = SparseLayer.set_mask

    def count(layer: SparseLayer, mask: Tensor, *rest: object) -> None:
        changed[run.sparse.epoch, places[layer.name]] += 1
        real(layer, mask, *rest)

    monkeypatch.setattr(SparseLayer, "set_mask", count)
    start = SparseLayer.start

    def begin(layer: SparseLayer, mask: Tensor) -> None:
        start(layer, mask)
        changed[0, places[layer.name]] -= 1  # the first mask replaces none

    monkeypatch.setattr(SparseLayer, "start", begin)
    for epoch in range(10):
        run.begin(epoch)
        for batch in run.batches():
            step(run, *batch)
    trace = run.sparse.trace()
    found = trace["mask_updates"].to_numpy().reshape(changed.shape)
    frozen = trace["frozen"].to_numpy().reshape(changed.shape)
    assert frozen.any() and not found[frozen].any()
    # a frozen layer was pruned for the last time as it froze; SWAT's choice after an epoch's last step may be made
    # in the next one's first
    near = 1 if name.startswith("swat") else 0
    assert found[~frozen].any() and np.abs(found - changed)[~frozen].max() <= near
    assert (run.sparse.plan.trace()["mask_updates"] == trace["mask_updates"]).all()
    flops = run.sparse.plan.costs(trace)[0]
    still = run.sparse.plan.costs(trace.assign(mask_updates=0))[0]
    assert flops["full"] > still["full"] and flops["paper"] == still["paper"] and flops["extra"] == still["extra"]


@pytest.mark.parametrize("name", sorted(FIXED))
def test_a_mask_that_stays_has_none(name: str) -> None:
    settings = resolve("smoke", {"sparsity.method": name, **({} if name == "dense" else {"sparsity.target": 0.8})})
    run = Training(settings, load(settings.data, None, None), torch.device("cpu"), Clock())
    assert not run.sparse.plan.trace()["mask_updates"].any()


def test_updates_end_where_the_method_says() -> None:
    """SET stops at 75 % of training, DeepR's rewiring at 95 %, on the paper's scale."""
    for name, updates in (
        ("set", 23),
        ("deepr", 118864),
        ("mest", 32),
    ):  # 120 / 5, none before training; 0.95 x 160 x 782; 160 / 5
        trace = plan_settings(resolve("cifar100", {"sparsity.method": name, "sparsity.target": 0.9})).trace()
        assert trace.groupby("layer")["mask_updates"].sum().max() == updates
        assert trace[trace["layer"] == "conv1"]["mask_updates"].sum() == 0  # dense


@given(st.integers(0, 1200), st.integers(1, 300), st.integers(400, 1100))
def test_updates_are_counted_wherever_an_epoch_lies(start: int, count: int, steps: int) -> None:
    """The closed forms against the question that training asks at every step."""
    epoch = range(start, start + count)
    itop, deepr = (
        make(MethodPlan(parse(RunSettings, {"sparsity": {"method": name}}), {}, steps=steps))
        for name in ("set-itop", "deepr")
    )
    assert itop.mask_updates(0, epoch) == sum(map(itop.is_update, epoch))
    assert deepr.mask_updates(0, epoch) == sum(step < deepr.options.end * steps for step in epoch)
