"""SWAT's forward and backward against dense autograd with the same top-k applied by hand."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from spfde.sparsity.masks import SparseLayer
from spfde.sparsity.schemes import scheme
from spfde.sparsity.topk import TopKForward


def top_k(values: Tensor, density: float) -> Tensor:
    """Keeps the ceil(density x size) largest magnitudes: a full sort, no threshold of the code under test."""
    count = math.ceil(round(density * values.numel(), 6))
    least = values.detach().abs().flatten().sort(descending=True).values[count - 1]
    return values * (values.detach().abs() >= least)


def sparse_layer(module: nn.Module, density: float) -> SparseLayer:
    layer = SparseLayer("l", module.weight, density, 0, scheme("unstructured"), dense_master=True)
    layer.set_mask(top_k(module.weight.detach(), density) != 0, None)
    return layer


def attach(module: nn.Module, layer: SparseLayer) -> TopKForward:
    return TopKForward(module, layer, int(layer.count), layer.density)


def by_hand(module: nn.Module, x: Tensor, density: float) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Output, and gradients of input, weight and bias for the loss sum(output^2) / 2, each from dense autograd.

    One pass has dense activations and sparse weights (output and input gradient); another the sparse activations
    too, fed with the same output gradient (weight gradient, which must not be masked).
    """
    weight = top_k(module.weight.detach(), density).requires_grad_()
    plain = copy.deepcopy(module)
    plain.weight = nn.Parameter(weight)
    x = x.detach().clone().requires_grad_()
    output = plain(x)
    (grad_x,) = torch.autograd.grad(output, x, output.detach())
    again = plain(top_k(x.detach(), density))  # ceil((1 - s) size), whatever the whole number of weights is
    grads = torch.autograd.grad(again, list(plain.parameters()), output.detach())
    return output, grad_x, grads[0], grads[1] if len(grads) > 1 else None


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(7, 5), (6, 7)),
    "linear without bias over tokens": (lambda: nn.Linear(7, 5, bias=False), (3, 4, 7)),
    "convolution": (lambda: nn.Conv2d(4, 6, 3, padding=1, bias=False), (2, 4, 5, 5)),
    "stride, groups, dilation, bias": (
        lambda: nn.Conv2d(4, 6, 3, stride=2, padding=(2, 1), dilation=2, groups=2),
        (2, 4, 9, 8),
    ),
    "one dimension": (lambda: nn.Conv1d(3, 4, 3), (2, 3, 9)),
    "same": (lambda: nn.Conv2d(3, 4, 4, padding="same"), (2, 3, 6, 5)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, output_padding=1), (2, 3, 4, 4)),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("density", [0.1, 0.5])
def test_gradients_are_those_of_dense_autograd_with_the_same_top_k(name: str, density: float) -> None:
    torch.manual_seed(0)
    make, shape = MODULES[name]
    module = make().double()
    x = torch.randn(shape, dtype=torch.double)
    expected = by_hand(module, x, density)
    forward = attach(module, sparse_layer(module, density))
    x.requires_grad_()
    output = module(x)
    output.backward(output.detach())
    found = (output, x.grad, module.weight.grad, None if module.bias is None else module.bias.grad)
    for mine, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, wanted)
    assert (module.weight.grad != 0).float().mean() > density  # the weight gradient is dense
    forward.detach()
    torch.testing.assert_close(module(x), type(module).forward(module, x))


def test_circular_padding_selects_among_the_input() -> None:
    """Two inputs of the padded convolution may be copies of one; the threshold is the input's own."""
    torch.manual_seed(0)
    module = nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular", bias=False).double()
    x = torch.randn(2, 2, 5, 5, dtype=torch.double)
    expected = by_hand(module, x, 0.3)
    attach(module, sparse_layer(module, 0.3))
    x.requires_grad_()
    output = module(x)
    output.backward(output.detach())
    for mine, wanted in zip((output, x.grad, module.weight.grad), expected, strict=False):
        torch.testing.assert_close(mine, wanted)


@pytest.mark.parametrize(("mode", "share"), [("zeros", 0.5), ("circular", None)])
def test_counts_what_it_keeps_of_what_there_is(mode: str, share: float | None) -> None:
    """Padding adds nothing to keep where it is zeros, and copies where it is circular; evaluation counts nothing."""
    torch.manual_seed(0)
    module = nn.Conv2d(2, 3, 3, padding="same", padding_mode=mode, bias=False)
    forward = attach(module, sparse_layer(module, 0.5))
    x = torch.randn(2, 2, 4, 4)
    for _ in range(2):  # two passes of one step
        module(x)
    kept, seen = forward.take_counts()
    if share:
        assert (kept, seen) == (2 * share * x.numel(), 2 * x.numel())
    else:
        around = nn.functional.pad(x, (1, 1, 1, 1), mode="circular")
        least = x.abs().flatten().sort(descending=True).values[x.numel() // 2 - 1]
        assert (kept, seen) == (2 * int((around.abs() >= least).sum()), 2 * around.numel())
    module.eval()(x)
    assert forward.take_counts() == (0, 0)


def test_works_under_autocast() -> None:
    """In bfloat16, with the gradients of the weights in their own type."""
    torch.manual_seed(0)
    module = nn.Conv2d(4, 6, 3)
    x = torch.randn(2, 4, 6, 6, requires_grad=True)
    half = copy.deepcopy(module).to(torch.bfloat16)
    layer = sparse_layer(module, 0.2)
    half.weight.data *= layer.active  # the same weights: rounding could change a top-k
    attach(module, layer)
    with torch.autocast("cpu", torch.bfloat16):
        output = module(x)
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16 and module.weight.grad.dtype == torch.float32
    wanted = half(x.to(torch.bfloat16))
    torch.testing.assert_close(output, wanted)
    kept = top_k(x.detach().to(torch.bfloat16), layer.density)
    torch.testing.assert_close(
        module.weight.grad,
        torch.nn.grad.conv2d_weight(kept.float(), module.weight.shape, torch.ones_like(output).float()),
        rtol=0.05,
        atol=0.05,
    )


def test_a_copy_of_the_module_runs_on_its_own_weights() -> None:
    module = nn.Conv2d(4, 6, 3)
    attach(module, sparse_layer(module, 0.2))
    x = torch.randn(2, 4, 6, 6)
    output = module(x)
    twin = copy.deepcopy(module)
    nn.init.zeros_(module.weight)
    torch.testing.assert_close(twin.eval()(x), output)


def test_torch_compile_breaks_its_graph_and_goes_on() -> None:
    module = nn.Conv2d(4, 6, 3)
    x = torch.randn(2, 4, 6, 6)
    attach(module, sparse_layer(module, 0.2))
    model = nn.Sequential(module, nn.ReLU())
    expected = torch.autograd.grad(model(x).sum(), module.weight)[0]
    found = torch.autograd.grad(torch.compile(model, backend="eager")(x).sum(), module.weight)[0]
    torch.testing.assert_close(found, expected)


def saved_bytes(module: nn.Module, x: Tensor) -> int:
    """What autograd keeps for backward beside parameters and masks, in bytes."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.shape != module.weight.shape:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = module(x)
    del output
    return sum(kept.values())


@pytest.mark.parametrize("density", [0.1, 0.02])
def test_only_the_sparse_activations_are_saved(density: float) -> None:
    """A value and a position of four bytes each: twice the share that is used."""
    module = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    x = torch.randn(16, 8, 10, 10)
    assert saved_bytes(module, x) == 4 * x.numel()
    attach(module, sparse_layer(module, density))  # 58 and 12 of 576 weights; 1280 and 256 of 12,800 activations
    assert saved_bytes(module, x) == 8 * round(x.numel() * density)


def test_zeros_are_never_saved() -> None:
    """A dense layer's threshold is 0, and after a ReLU half of its input is: no value to keep."""
    module = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    x = torch.randn(16, 8, 10, 10).relu()
    attach(module, sparse_layer(module, 1.0))
    assert saved_bytes(module, x) == 8 * int((x > 0).sum())
