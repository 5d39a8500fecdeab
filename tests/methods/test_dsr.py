"""DSR against a reference in plain Python."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spfde.methods.dsr import share_out

Build = Callable[..., tuple]


def fill(run, weights: dict[str, list[float]]) -> None:
    """Weights of each layer; those that are not 0 are active."""
    for name, values in weights.items():
        layer = run.masks[name]
        tensor = torch.tensor(values).view_as(layer.weight)
        with torch.no_grad():
            layer.weight.copy_(tensor)
        layer.start(tensor != 0)


def counts(run) -> list[int]:
    return [int(layer.active.sum()) for layer in run.masks]


def test_prunes_below_one_threshold_and_moves_weights_to_the_survivors(build: Build) -> None:
    method, run = build(
        "dsr", [(1, 20), (1, 20)], target=0.5, sparsity__options={"threshold": 1.0, "drop_fraction": 0.5}
    )
    fill(run, {"l0": [5.0] * 6 + [0.1] * 2 + [0.0] * 12, "l1": [-5.0] * 2 + [-0.1] * 6 + [0.0] * 12})
    method.update(run, 0, list(run.masks))
    # 8 of 16 go; survivors 6 and 2 of 8 grow 6 and 2
    assert counts(run) == [12, 4] == run.masks.counts.tolist()
    assert run.masks["l0"].weight[0, :6].tolist() == [5.0] * 6 and not run.masks["l0"].weight[0, 6:].any()
    assert not run.masks["l0"].active[0, 6:8].any() and not run.masks["l1"].active[0, 2:8].any()  # excluded
    assert method.threshold == 1.0  # 8 were wanted


@pytest.mark.parametrize(("small", "threshold"), [(0, 2.0), (8, 2.0), (9, 1.0), (11, 1.0), (12, 0.5), (30, 0.5)])
def test_threshold_follows_what_was_pruned(build: Build, small: int, threshold: float) -> None:
    """N_p = 10 of 100: doubled below 9, halved above 11."""
    method, run = build("dsr", [(1, 300)], target=0.5, sparsity__options={"threshold": 1.0, "drop_fraction": 0.1})
    fill(run, {"l0": [0.1] * small + [5.0] * (100 - small) + [0.0] * 200})
    method.update(run, 0, list(run.masks))
    assert method.threshold == threshold and counts(run) == [100]


def test_every_layer_keeps_a_weight(build: Build) -> None:
    method, run = build("dsr", [(1, 6), (1, 20)], target=0.5, sparsity__options={"threshold": 1.0})
    fill(run, {"l0": [0.1, 0.3, 0.2, 0, 0, 0], "l1": [5.0] * 7 + [0.0] * 13})
    method.update(run, 0, list(run.masks))
    layer = run.masks["l0"]
    assert layer.active[0, 1] and float(layer.weight[0, 1].detach()) == pytest.approx(0.3)
    assert sum(counts(run)) == 10 and counts(run)[0] >= 1


@pytest.mark.parametrize(("regrown", "value"), [("zero", 0.0), ("keep", 0.5), ("exclude", 0.0)])
def test_what_is_dropped_and_regrown(build: Build, regrown: str, value: float) -> None:
    """The only place to grow is the one just pruned, which even `exclude` has to give back then."""
    method, run = build("dsr", [(1, 3)], target=0.0, sparsity__options={"threshold": 1.0, "regrown": regrown})
    fill(run, {"l0": [0.5, 2.0, 3.0]})
    method.update(run, 0, list(run.masks))
    assert run.masks["l0"].weight.tolist() == [[value, 2.0, 3.0]] and counts(run) == [3]


def test_a_full_layer_grows_nothing(build: Build) -> None:
    """Its share goes to the layer with room, so that no weight is lost."""
    options = {"threshold": 1.0, "regrown": "zero"}
    method, run = build("dsr", [(1, 4), (1, 100)], target=0.5, sparsity__options=options)
    fill(run, {"l0": [5.0] * 4, "l1": [5.0] * 30 + [0.1] * 20 + [0.0] * 50})
    method.update(run, 0, list(run.masks))
    assert counts(run) == [4, 50]


def reference(total: int, survivors: list[int], room: list[int]) -> list[set[int]]:
    """What each layer may grow while none is full: its rounded share, or that and the remainder."""
    shares = [math.floor(total * count / sum(survivors)) for count in survivors]
    return [{share, share + total - sum(shares)} for share in shares]


@given(
    layers=st.lists(st.tuples(st.integers(1, 50), st.integers(0, 60)), min_size=1, max_size=6),
    wanted=st.integers(0, 200),
    seed=st.integers(0, 99),
)
def test_growth_is_shared_out_whole(layers: list[tuple[int, int]], wanted: int, seed: int) -> None:
    survivors, room = [list(column) for column in zip(*layers, strict=True)]
    total = min(wanted, sum(room))
    growth = share_out(total, survivors, room, torch.Generator().manual_seed(seed))
    assert sum(growth) == total and all(0 <= g <= most for g, most in zip(growth, room, strict=True))
    allowed = reference(total, survivors, room)
    if all(max(values) <= most for values, most in zip(allowed, room, strict=True)):
        assert all(g in values for g, values in zip(growth, allowed, strict=True))


def test_overflow_goes_to_layers_with_room() -> None:
    growth = share_out(20, [8, 1, 1], [5, 100, 100], torch.Generator().manual_seed(0))
    assert growth[0] == 5 and sum(growth) == 20  # 16 were due, 11 of them are shared out again
    assert min(growth[1:]) >= 2 + 5


def test_threshold_survives_a_checkpoint(build: Build) -> None:
    method, run = build("dsr", [(20, 30)])
    method.update(run, 0, list(run.masks))
    other, _ = build("dsr", [(20, 30)])
    assert other.threshold != method.threshold
    other.load_state_dict(method.state_dict())
    assert other.threshold == method.threshold
