"""The scaling experiment: powers at the wide end and the break-even point by hand, and that its cases run."""

import numpy as np
import pandas as pd
import pytest

from spfde.training.bench import scaling


def frame(power: float = 2.0, seconds: tuple[float, ...] = (12.0, 11.0, 8.0)) -> pd.DataFrame:
    """Dense work grows by that power, RigL's by 1.5, GSE's linearly; seconds of three sparsities against 10 dense."""
    powers = {"dense": power, "rigl": 1.5, "gse-uniform": 1.0}
    rows = [
        ("width", method, width, 0.5, turn, width**one * (1 + 0.1 * turn), 100.0 * width**one)
        for method, one in powers.items()
        for width in (1, 2, 4)
        for turn in range(3)
    ]
    rows.append(("sparsity", "dense", 1, 0.0, 0, 10.0, np.nan))
    for sparsity, one in zip((0.5, 0.7, 0.9), seconds, strict=True):
        rows.append(("sparsity", "sparse", 1, sparsity, 0, one, np.nan))
    return pd.DataFrame(rows, columns=[*scaling.KEYS, "turn", "seconds", "bytes"])


def test_the_power_of_the_width_is_that_of_the_widest_networks() -> None:
    for column in ("seconds", "bytes"):
        found = scaling.growth(frame(), column)
        assert {method: one.power for method, one in found.items()} == pytest.approx(
            {"dense": 2.0, "rigl": 1.5, "gse-uniform": 1.0}
        )
    assert "from 2 to 4, seconds: dense 2.00, rigl 1.50, gse-uniform 1.00" in scaling.summary(frame())


def test_time_that_does_not_grow_with_the_width_does_not_flatten_the_power() -> None:
    """Starting up takes 50 times the work at width 1; the work grows with the square of the width."""
    widths = (1, 2, 4, 8, 16, 32, 64)
    rows = [
        ("width", method, width, 0.5, turn, 50 + width**2 * (1 + 0.1 * turn * (width > 32)), np.nan)
        for method in scaling.METHODS
        for width in widths
        for turn in range(2)
    ]
    found = scaling.growth(pd.DataFrame(rows, columns=[*scaling.KEYS, "turn", "seconds", "bytes"]), "seconds")["dense"]
    turns = [np.log2((50 + 4096 * more) / (50 + 1024)) for more in (1.0, 1.1)]
    assert (found.low, found.high) == pytest.approx(turns)
    assert found.low < found.power < found.high
    assert f"({turns[0]:.2f} to {turns[1]:.2f})" in str(found)


def test_break_even_lies_where_both_take_the_same_time() -> None:
    ratios = 10 / 11, 10 / 8  # at 70 and 90 %: 1 is at 0.7 + 0.2 (1 - 10/11) / (10/8 - 10/11)
    expected = 0.7 + 0.2 * (1 - ratios[0]) / (ratios[1] - ratios[0])
    assert scaling.break_even(frame()) == pytest.approx(expected)
    assert scaling.break_even(frame(seconds=(9.0, 8.0, 7.0))) == 0.5
    assert scaling.break_even(frame(seconds=(13.0, 12.0, 11.0))) is None


@pytest.mark.parametrize("method", ["rigl", "gse-uniform"])
def test_an_update_is_an_update(method: str) -> None:
    """Active weights stay as many; masks move, and the step after it is an ordinary one."""
    sparse = scaling._training(method, 1)
    step = scaling.masked_stepper(sparse, scaling._images(), scaling.CLASSES)
    step()
    before = [layer.active.clone() for layer in sparse.masks]
    step()
    assert all(bool((old == layer.active).all()) for old, layer in zip(before, sparse.masks, strict=True))
    scaling._update(sparse, step)()
    assert any(bool((old != layer.active).any()) for old, layer in zip(before, sparse.masks, strict=True))
    assert sum(int(old.sum()) for old in before) == int(sparse.masks.counts.sum())
    assert not sparse.method.needs_dense_gradient_at(sparse.step)
