"""Schemes and masks: hand-written masks, exact counts, and what a mask change leaves in weights and momentum."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spfde.rounding import count_of
from spfde.sparsity.masks import Masks, SparseLayer
from spfde.sparsity.schemes import scheme

UNSTRUCTURED = scheme("unstructured")


def boolean(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.bool)


def test_keep_takes_the_highest_scores_of_the_mask_alone() -> None:
    mask = boolean(1, 1, 1, 0, 1, 0, 0, 0)
    score = torch.tensor([0.5, 3.0, 1.0, 9.0, 2.0, 9.0, 9.0, 9.0])
    assert UNSTRUCTURED.keep(mask, score, 2 / 8).tolist() == boolean(0, 1, 0, 0, 1, 0, 0, 0).tolist()


def test_grow_adds_the_highest_scored_candidates() -> None:
    mask = boolean(0, 1, 0, 0, 1, 0, 0, 0)
    candidates = boolean(1, 0, 1, 0, 0, 1, 1, 1)
    score = torch.tensor([5.0, 9.0, 1.0, 9.0, 9.0, 2.0, 3.0, 0.0])
    grown = UNSTRUCTURED.grow(mask, score, 4 / 8, candidates)
    assert grown.tolist() == boolean(1, 1, 0, 0, 1, 0, 1, 0).tolist()


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 1), st.integers(0, 2**31))
def test_random_masks_have_the_exact_count(out: int, inner: int, density: float, seed: int) -> None:
    """Rounded half up, and at least one weight at any density above 0."""
    mask = UNSTRUCTURED.random((out, inner), density, torch.Generator().manual_seed(seed))
    assert mask.shape == (out, inner) and int(mask.sum()) == max(int(density > 0), count_of(density, out * inner))


def layer_of(values: list[float]) -> SparseLayer:
    return SparseLayer("l", nn.Parameter(torch.tensor(values)), 0.5, 0, UNSTRUCTURED)


def test_a_mask_change_zeroes_dropped_and_grown_weights_and_their_momentum() -> None:
    layer = layer_of([1.0, 2.0, 3.0, 4.0])
    masks = Masks([layer])
    optimizer = torch.optim.SGD([layer.weight], lr=0.1, momentum=0.9)
    layer.start(boolean(1, 1, 0, 0))
    assert layer.weight.tolist() == [1.0, 2.0, 0.0, 0.0]
    layer.weight.grad = torch.ones(4)
    masks.mask_gradients()
    optimizer.step()
    buffer = optimizer.state[layer.weight]["momentum_buffer"]
    assert buffer.tolist() == [1.0, 1.0, 0.0, 0.0]
    layer.set_mask(boolean(1, 0, 1, 0), boolean(1, 0, 0, 0), optimizer)
    assert buffer.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert layer.weight.detach().nonzero().flatten().tolist() == [0]


def test_without_sparse_layers_nothing_is_sparse() -> None:
    assert Masks([]).sparsity == 0.0


def test_gradients_are_masked_as_they_arrive_where_that_is_wanted() -> None:
    """And no more once the hooks are removed; a gradient that is not kept is none of their business."""
    layer = layer_of([1.0, 2.0, 3.0, 4.0])
    masks, wanted = Masks([layer]), [True]
    layer.start(boolean(1, 0, 1, 0))
    (hook,) = masks.mask_on_arrival(lambda: wanted[0])

    def gradient() -> list[float]:
        layer.weight.grad = None
        (layer.weight * torch.tensor([5.0, 6.0, torch.inf, torch.inf])).sum().backward()
        return layer.weight.grad.tolist()

    assert gradient() == [5.0, 0.0, torch.inf, 0.0]
    wanted[0] = False
    assert gradient() == [5.0, 6.0, torch.inf, torch.inf]
    wanted[0] = True
    hook.remove()
    assert gradient() == [5.0, 6.0, torch.inf, torch.inf]


def test_explored_share_is_the_union_and_overlap_is_with_the_first() -> None:
    layer = layer_of([1.0, 2.0, 3.0, 4.0])
    masks = Masks([layer])
    layer.start(boolean(1, 1, 0, 0))
    layer.set_mask(boolean(1, 0, 1, 0), None)
    layer.set_mask(boolean(1, 1, 0, 0), None)
    assert masks.explored() == 0.75
    assert masks.overlap_first() == 1.0
    layer.set_mask(boolean(0, 1, 1, 0), None)
    assert masks.overlap_first() == 0.5
    assert masks.sparsity == 0.5


def test_overlap_between_updates_is_of_each_change_with_the_mask_before_it() -> None:
    first, second = layer_of([1.0] * 4), layer_of([1.0] * 4)
    second.name = "m"
    masks = Masks([first, second])
    for layer in masks:
        layer.start(boolean(1, 1, 1, 0))
    assert masks.overlap_updates() == 1  # nothing has changed
    first.set_mask(boolean(1, 0, 1, 1), None)  # 2 of 3 stay
    first.set_mask(boolean(1, 0, 0, 0), None)  # 1 of 3
    first.set_mask(boolean(0, 1, 0, 0), None)  # 0 of 1
    assert masks.overlap_updates() == 3 / 7
    second.set_mask(boolean(1, 1, 1, 1), None)  # 3 of 3
    assert masks.overlap_updates() == 6 / 10
    # explored, in the first mask, in the first and this one, active before changes, stayed
    assert masks.moves().tolist() == [[4, 3, 1, 7, 3], [4, 3, 3, 3, 3]]


def test_frozen_layers_are_left_alone_by_the_step() -> None:
    frozen, active = layer_of([1.0, 1.0]), layer_of([1.0, 1.0])
    frozen.name, active.name, active.block = "a", "b", 1
    masks = Masks([frozen, active])
    for layer in masks:
        layer.start(boolean(1, 0))
    masks.select(1)
    with torch.no_grad():
        for layer in masks:
            layer.weight.fill_(5.0)
    masks.mask_weights()
    assert frozen.weight.tolist() == [5.0, 5.0] and active.weight.tolist() == [5.0, 0.0]


def test_state_goes_round() -> None:
    first, second = Masks([layer_of([1.0, 2.0, 3.0])]), Masks([layer_of([1.0, 2.0, 3.0])])
    first["l"].start(boolean(1, 1, 0))
    first["l"].set_mask(boolean(0, 1, 1), None)
    second.load_state_dict(first.state_dict())
    assert second.explored() == 1.0 and second.overlap_first() == 0.5 and second.sparsity == first.sparsity
    assert second.moves().tolist() == first.moves().tolist() == [[3, 2, 1, 2, 1]]
