"""Structured schemes: hand-written masks, the rules of each scheme checked by loops, and what updates leave behind."""

import itertools
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from spfde.errors import SpfdeError
from spfde.experiments.resolve import resolve
from spfde.methods import make
from spfde.methods.base import MethodPlan
from spfde.plans import plan_settings
from spfde.settings import RunSettings
from spfde.sparsity.masks import Masks, SparseLayer
from spfde.sparsity.pattern import PATTERNS
from spfde.sparsity.schemes import SCHEMES, scheme

SHAPES = [(8, 6), (10, 7), (3, 5), (8, 4, 3, 3), (6, 5, 3, 3), (9, 8, 1, 1), (4, 3, 5, 5)]
NAMES = ["unstructured", "block", "channel", "pattern", "1:2", "2:4", "1:8", "3:5"]


def half_up(value: float) -> int:
    return math.floor(round(value, 6) + 0.5)


def share(name: str, density: float) -> float:
    """A density that the scheme can have: the drawn one, or n/m."""
    if ":" in name:
        n, m = map(int, name.split(":"))
        return n / m
    return density * 4 / 9 if name == "pattern" else density


def expected_weights(name: str, shape: tuple[int, ...], density: float) -> int:
    """Active weights, counted in the scheme's own unit and independently of its code."""
    out, inner, area = shape[0], shape[1], math.prod(shape[2:])
    if name == "block":
        full, rest = out // 4, out % 4
        weights = 4 * half_up(density * full * inner * area)
        weights += rest * half_up(density * inner * area) if rest else 0
        return weights or min(4, out)
    if name == "channel":
        return out * area * max(1, half_up(density * inner))
    if name == "pattern" and shape[2:] == (3, 3):  # as many kernels of every filter
        return 4 * out * min(inner, max(1, half_up(density * 9 / 4 * inner)))
    if name == "pattern":
        return area * out * max(1, half_up(density * inner))
    rest = inner * area % int(name.split(":")[1]) if ":" in name else 0
    return max(1, half_up(density * out * (inner * area - rest)) + half_up(density * out * rest))


def assert_valid(name: str, mask: torch.Tensor, density: float) -> None:
    """The scheme's rule, group by group."""
    rows = mask.flatten(1).tolist()
    if name == "block":
        for first in range(0, len(rows), 4):
            assert all(row == rows[first] for row in rows[first : first + 4])
    elif name == "channel":
        for channel in mask.transpose(0, 1).flatten(1).tolist():
            assert len(set(channel)) == 1
    elif name == "pattern":
        for kernel in mask.flatten(2).flatten(0, 1).tolist() if mask.dim() > 2 else []:
            on = tuple(int(value) for value in kernel)
            patterns = {tuple(itertools.chain(*pattern)) for pattern in PATTERNS}
            assert not any(on) or (on in patterns if tuple(mask.shape[2:]) == (3, 3) else all(on))
    elif ":" in name:
        m = int(name.split(":")[1])
        for row in rows:
            for first in range(0, len(row), m):
                group = row[first : first + m]
                amount = round(density * len(group), 6)
                assert math.floor(amount) <= sum(group) <= math.ceil(amount)


# hand-written masks


def test_two_of_four_keeps_the_two_best_of_each_group() -> None:
    score = torch.tensor([[1.0, 4.0, 3.0, 2.0, 0.1, 0.2, 0.3, 0.4], [9, 8, 7, 6, 1, 9, 9, 1]])
    mask = scheme("2:4").keep(torch.ones(2, 8, dtype=torch.bool), score, 0.5)
    assert mask.int().tolist() == [[0, 1, 1, 0, 0, 0, 1, 1], [1, 1, 0, 0, 0, 1, 1, 0]]


def test_n_of_m_drops_the_worst_anywhere_and_grows_within_the_groups() -> None:
    two_of_four = scheme("2:4")
    mask = torch.tensor([[1, 1, 0, 0, 0, 1, 1, 0]], dtype=torch.bool)
    kept = two_of_four.keep(mask, torch.tensor([[5.0, 1, 9, 9, 9, 3, 2, 9]]), 0.25)
    assert kept.int().tolist() == [[1, 0, 0, 0, 0, 1, 0, 0]]  # one of each group at a density of 1/4
    grown = two_of_four.grow(kept, torch.tensor([[0.0, 1, 2, 3, 7, 9, 6, 5]]), 0.5, ~kept)
    assert grown.int().tolist() == [[1, 0, 0, 1, 1, 1, 0, 0]]
    soft = two_of_four.grow(grown, torch.tensor([[0.0, 1, 2, 0, 0, 0, 6, 5]]), 0.625, ~grown)
    assert soft.int().tolist() == [[1, 0, 0, 1, 1, 1, 1, 0]]  # above the target one group may hold a third


def test_a_block_is_four_filters_at_one_input_position() -> None:
    score = torch.zeros(6, 3)
    score[:4, 1] = torch.tensor([0.0, 0.0, 0.0, 4.0])  # the L2 norm counts: 4 here, 3.6 there, where the sum is 6
    score[:4, 0] = torch.tensor([3.0, 1.0, 1.0, 1.0])
    score[4:, 2] = 1.0
    mask = scheme("block").keep(torch.ones(6, 3, dtype=torch.bool), score, 1 / 3)
    assert mask.int().tolist() == [[0, 1, 0]] * 4 + [[0, 0, 1]] * 2  # the last group has two filters and its own count


def test_channels_are_whole_and_one_always_stays() -> None:
    score = torch.tensor([[2.5, 0.0, 0.0], [2.5, 3.0, 1.0]])
    everywhere = torch.ones(2, 3, dtype=torch.bool)
    assert scheme("channel").keep(everywhere, score, 1 / 3).int().tolist() == [[1, 0, 0]] * 2
    assert scheme("channel").unit_count((2, 3), 0.01) == 1


def test_patterns_are_the_eight_of_mest() -> None:
    """Four squares, three T shapes, and one without the centre, as positions in a kernel read row by row."""
    flat = {tuple(place for place, on in enumerate(itertools.chain(*pattern)) if on) for pattern in PATTERNS}
    squares = {(0, 1, 3, 4), (1, 2, 4, 5), (3, 4, 6, 7), (4, 5, 7, 8)}
    assert flat == squares | {(3, 4, 5, 7), (1, 3, 4, 7), (1, 4, 5, 7), (5, 6, 7, 8)}


def test_a_kernel_takes_its_best_pattern_and_keeps_it() -> None:
    pattern = scheme("pattern")
    score = torch.zeros(1, 2, 3, 3)
    score[0, 0, 0] = torch.tensor([0.0, 2.0, 2.0])  # favours the square at the top right
    score[0, 1, 2, 1] = 1.0
    mask = pattern.keep(torch.ones(1, 2, 3, 3, dtype=torch.bool), score, 2 / 9)  # one kernel of the filter
    assert mask[0, 0].int().tolist() == [[0, 1, 1], [0, 1, 1], [0, 0, 0]]
    assert not mask[0, 1].any()
    other = torch.zeros_like(score)
    other[0, 0, 2] = 5.0
    assert torch.equal(pattern.keep(mask, other, 2 / 9), mask)  # whatever the score says now
    grown = pattern.grow(mask, score, 4 / 9, ~mask)
    assert torch.equal(grown[0, 0], mask[0, 0]) and int(grown[0, 1].sum()) == 4 and grown[0, 1, 2, 1]


def test_patterns_leave_other_kernels_whole() -> None:
    score = torch.tensor([[1.0, 2.0, 3.0]]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    mask = scheme("pattern").keep(torch.ones(1, 3, 2, 2, dtype=torch.bool), score, 1 / 3)
    assert mask.flatten(2).int().tolist() == [[[0] * 4, [0] * 4, [1] * 4]]


# names and targets


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blok", 'unknown scheme "blok"; did you mean "block"?'),
        ("4:2", 'scheme "4:2" is not n:m; write two whole numbers with 0 < n < m'),
        ("0:4", 'scheme "0:4" is not n:m'),
        ("2:", 'scheme "2:" is not n:m'),
        ("n:m", 'scheme "n:m" is not n:m'),
        ("-1:4", 'scheme "-1:4" is not n:m'),
    ],
)
def test_an_unknown_scheme_says_what_would_do(name: str, message: str) -> None:
    with pytest.raises(SpfdeError) as caught:
        scheme(name)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scheme": "2:4", "target": 0.9}, "set sparsity.target=0.5, or sparsity.scheme=1:10"),
        ({"scheme": "2:4", "target": 0.5, "distribution": "erk"}, "set sparsity.distribution=uniform"),
        ({"scheme": "pattern", "target": 0.5}, "set sparsity.target=0.56 or more"),
        ({"scheme": "pattern", "target": 0.9, "distribution": "erk"}, "set sparsity.distribution=uniform"),
    ],
)
def test_a_target_that_a_scheme_cannot_have_is_refused(values: dict[str, object], message: str) -> None:
    dotted = {"sparsity.method": "set", **{f"sparsity.{key}": value for key, value in values.items()}}
    with pytest.raises(SpfdeError) as caught:
        resolve("smoke", dotted)
    assert message in str(caught.value)


def test_methods_that_choose_single_weights_refuse_schemes() -> None:
    from spfde.methods import METHODS

    refusing = [name for name, method in METHODS.items() if method.sparse and not method.structured]
    for name in refusing:
        with pytest.raises(SpfdeError, match=f"method {name} chooses single weights"):
            resolve("smoke", {"sparsity.method": name, "sparsity.scheme": "block"})
    assert not {"static", "set", "rigl", "mest", "mest-em", "mest-ems", "spfde"} & set(refusing)


@pytest.mark.parametrize("method", ["set", "spfde"])
@pytest.mark.parametrize(("name", "target"), [("block", 0.9), ("channel", 0.75), ("pattern", 0.9), ("2:4", 0.5)])
def test_a_plan_counts_whole_units(method: str, name: str, target: float) -> None:
    values = {"sparsity.method": method, "sparsity.scheme": name, "sparsity.target": target}
    plan = plan_settings(resolve("smoke", values))
    for column, layer in enumerate(plan.profile.layers):
        if layer.name in plan.shapes:
            shape = plan.shapes[layer.name]
            assert plan.settled[column] == expected_weights(name, shape, 1 - target) / math.prod(shape)
            upper = plan.method.densities(0)[layer.name]
            assert plan.forward[0, column] == expected_weights(name, shape, upper) / math.prod(shape)


# properties


@given(
    name=st.sampled_from(NAMES),
    shape=st.sampled_from(SHAPES),
    drawn=st.floats(0.02, 0.98),
    dropped=st.floats(0.02, 0.98),
    seed=st.integers(0, 2**31),
)
def test_counts_are_exact_and_masks_valid(
    name: str, shape: tuple[int, ...], drawn: float, dropped: float, seed: int
) -> None:
    """From random to kept to grown: always valid in the scheme, always the exact count of the density."""
    form, density = scheme(name), share(name, drawn)
    lower, draws = (1 - dropped) * density, torch.Generator().manual_seed(seed)
    first = form.random(shape, density, draws)
    kept = form.keep(first, torch.randn(shape, generator=draws), lower)
    grown = form.grow(kept, torch.randn(shape, generator=draws), density, ~kept)
    for mask, at in ((first, density), (kept, lower), (grown, density)):
        assert_valid(name, mask, at)
        assert int(mask.sum()) == expected_weights(name, shape, at) == form.weight_count(shape, at)
    assert not (kept & ~first).any()
    assert not (kept & ~grown).any()


@given(
    name=st.sampled_from(NAMES),
    shape=st.sampled_from(SHAPES),
    drawn=st.floats(0.05, 0.6),
    above=st.floats(0, 0.3),
    seed=st.integers(0, 2**31),
)
def test_a_soft_bound_ends_exactly_at_the_target(
    name: str, shape: tuple[int, ...], drawn: float, above: float, seed: int
) -> None:
    """What EM&S does: masks above the target, whose part at the target is a mask of the target."""
    form, target = scheme(name), share(name, drawn)
    upper, draws = min(1.0, (1 + above) * target), torch.Generator().manual_seed(seed)
    mask = form.random(shape, upper, draws)
    for _ in range(2):
        kept = form.keep(mask, torch.randn(shape, generator=draws), target)
        assert_valid(name, kept, target)
        assert int(kept.sum()) == expected_weights(name, shape, target)
        mask = form.grow(kept, torch.randn(shape, generator=draws), upper, ~kept)
        assert_valid(name, mask, upper)
        assert int(mask.sum()) == expected_weights(name, shape, upper)


class Run:
    """A method's view of a training of one layer."""

    def __init__(self, layer: SparseLayer) -> None:
        self.masks = Masks([layer])
        self.optimizer = torch.optim.SGD([layer.weight], lr=0.1, momentum=0.9)
        self.draws = 0

    def generator(self, *key: object) -> torch.Generator:
        self.draws += 1
        return torch.Generator().manual_seed(self.draws)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(NAMES),
    shape=st.sampled_from(SHAPES),
    regrown=st.sampled_from(["zero", "keep"]),
    drawn=st.floats(0.1, 0.9),
    seed=st.integers(0, 2**31),
)
def test_an_update_leaves_zeros_outside_the_mask(
    name: str, shape: tuple[int, ...], regrown: str, drawn: float, seed: int
) -> None:
    target = 1 - share(name, drawn)
    values = {"method": "set", "scheme": name, "target": target, "options": {"regrown": regrown, "drop_fraction": 0.4}}
    method = make(MethodPlan(RunSettings.model_validate({"sparsity": values}), {"l": 1 - target}, 10, {"l": shape}))
    draws = torch.Generator().manual_seed(seed)
    layer = SparseLayer("l", nn.Parameter(torch.randn(shape, generator=draws)), 1 - target, 0, scheme(name))
    run = Run(layer)
    method.start(run)
    for epoch in range(3):
        layer.weight.grad = torch.randn(shape, generator=draws)
        run.masks.mask_gradients()
        run.optimizer.step()
        old, before = layer.active, layer.weight.detach().clone()
        kept = layer.scheme.keep(old, before.abs(), 0.6 * layer.density)
        method.drop_and_grow(run, layer, 0.6 * layer.density, layer.density, epoch)
        new, momentum = layer.active, run.optimizer.state[layer.weight]["momentum_buffer"]
        assert_valid(name, new, layer.density)
        assert int(new.sum()) == expected_weights(name, shape, layer.density)
        assert not layer.weight[~new].any() and not momentum[~new].any()
        grown = new & ~old
        assert not layer.weight[grown].any() and not momentum[grown].any()
        assert torch.equal(layer.weight[kept], before[kept])
        dropped = old & ~new
        assert not (dropped & grown).any() and not (dropped & kept).any()


def test_the_registry_has_the_families() -> None:
    assert set(SCHEMES) == {"unstructured", "n:m", "block", "channel", "pattern"}
