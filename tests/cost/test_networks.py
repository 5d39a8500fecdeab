"""Networks of many kinds: forward, backward and saved bytes at every freezing depth are what torch itself sees."""

import copy

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from spfde.cost import profile
from spfde.models import blocks
from tests.cost.networks import NETWORKS
from tests.cost.test_profile import saved_bytes

BACKWARD = torch.ops.aten.convolution_backward


def conv_backward(grad_out, x, weight, bias, stride, padding, dilation, transposed, output_padding, groups, mask, **kw):
    """torch's count, but that of grouped weight gradients, where it counts every pair of channels."""
    same = (grad_out, x, weight, bias, stride, padding, dilation, transposed, output_padding, groups)
    shapes = kw["out_shape"]
    count = BACKWARD_RULE(*same, [mask[0], False, False], out_val=tuple(map(meta, shapes)))
    return count + BACKWARD_RULE(*same, [False, mask[1], False], out_val=tuple(map(meta, shapes))) // groups


def meta(shape):
    return None if shape is None else torch.empty(shape, device="meta")


BACKWARD_RULE = flop_registry[BACKWARD]


def torch_macs(model, size, backward):
    """Multiply-accumulates a sample, from what a larger batch adds; attention as the products that it is."""

    def count(batch):
        counter = FlopCounterMode(display=False, custom_mapping={BACKWARD: conv_backward})
        with counter, sdpa_kernel(SDPBackend.MATH):
            outputs = [leaf for leaf in tree_leaves(model(torch.randn(batch, 3, size, size))) if leaf.requires_grad]
            if backward:
                torch.autograd.backward([output.sum() for output in outputs])
        return counter.get_total_flops()

    return (count(4) - count(2)) / 4


@pytest.mark.parametrize("name", NETWORKS)
def test_costs_are_what_torch_sees(freeze, name):
    make, size = NETWORKS[name]
    torch.manual_seed(0)
    model = make()
    found, parts = profile(model, (3, size, size)), blocks(model)
    assert not found.against_order and not found.unused
    assert torch_macs(model, size, backward=False) == found.macs.sum()
    rows = found.rows
    for frozen in range(len(parts) + 1) if len(parts) < 6 else (0, 1, len(parts) // 2, len(parts)):
        held = copy.deepcopy(model)
        freeze(held, parts, frozen)
        expected = sum(row.macs * (1 + (row.input_block >= frozen) + (row.block >= frozen)) for row in rows)
        assert torch_macs(held, size, backward=True) == expected
        assert found.saved_bytes[frozen] == saved_bytes(held, (3, size, size))


@pytest.mark.parametrize("name", NETWORKS)
def test_what_a_user_has_frozen_costs_what_torch_sees(freeze, name):
    """Of every second parameter and of the first third of them the owner wants no gradient; then blocks freeze too."""
    make, size = NETWORKS[name]
    torch.manual_seed(0)
    model = make()
    parameters, parts = list(model.parameters()), blocks(model)
    for parameter in parameters[: len(parameters) // 3] + parameters[::2]:
        parameter.requires_grad_(False)
    found = profile(model, (3, size, size))
    for frozen in (0, len(parts) // 2):
        held = copy.deepcopy(model)
        freeze(held, parts, frozen)
        # Frozen attention may take a fused path that torch does not count, so the forward pass is taken off.
        passes = [torch_macs(held, size, backward) for backward in (True, False)]
        expected = sum(row.macs * (int(row.input_block >= frozen) + (row.block >= frozen)) for row in found.rows)
        assert passes[0] - passes[1] == expected
        assert found.saved_bytes[frozen] == saved_bytes(held, (3, size, size))
        assert found.trainable[frozen] == sum(p.numel() for p in held.parameters() if p.requires_grad)
