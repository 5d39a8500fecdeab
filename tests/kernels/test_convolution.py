"""Each kernel against torch in double precision, over shapes, strides, ragged batches, threads and densities."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from spfde.kernels import supports
from spfde.kernels.blocked import block, unblock
from spfde.kernels.convolution import Convolution, plain
from spfde.kernels.library import LANES, SCALED, Source
from spfde.kernels.norm import Affine
from spfde.kernels.pool import halve, mean
from spfde.kernels.structure import Structure

shapes = st.fixed_dictionaries(
    {
        "batch": st.sampled_from([1, 5, 16, 17, 40]),
        "inputs": st.integers(1, 40),
        "outputs": st.integers(1, 40),
        "height": st.integers(1, 10),
        "width": st.integers(1, 10),
        "kernel": st.sampled_from([1, 3]),
        "stride": st.sampled_from([1, 2]),
        "threads": st.sampled_from([1, 2, 3]),
        "density": st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]),
        "seed": st.integers(0, 10),
    }
)
cases = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def close(found, wanted, tolerance=1e-4):
    assert found.shape == wanted.shape
    assert (found.double() - wanted).norm() <= tolerance * wanted.norm() + 1e-12


class Case:
    """A convolution with random operands; density 0 stands for a single weight."""

    def __init__(self, batch, inputs, outputs, height, width, kernel, stride, threads, density, seed):
        torch.manual_seed(seed)
        self.batch, self.threads, self.stride = batch, threads, stride
        self.mask = torch.rand(outputs, inputs, kernel, kernel) < density
        self.mask.view(-1)[torch.randint(self.mask.numel(), (1,))] = True
        self.weight = torch.randn(self.mask.shape) * self.mask
        self.x = torch.randn(batch, inputs, height, width)
        self.structure = Structure(self.weight, stride, self.mask)
        self.z = block(self.x, threads)
        self.conv = Convolution(self.structure, batch, self.z.shape, threads)
        self.exact = self.x.double().requires_grad_(), self.weight.double().requires_grad_()
        self.y = functional.conv2d(*self.exact, stride=stride, padding=kernel // 2)
        self.dy = torch.randn(self.y.shape)

    def gradients(self):
        return torch.autograd.grad(self.y, self.exact, self.dy.double(), retain_graph=True)

    def open(self, z):
        assert not z[-1].movedim(-1, 0)[self.batch % LANES or LANES :].any(), "dead lanes hold 0"
        return unblock(z, self.batch, self.threads)


@cases
@given(shapes)
def test_forward_pass(isa, shape):
    case = Case(**shape)
    y, sums = case.conv.forward(plain(case.z), case.weight)
    assert sums is None
    close(case.open(y), case.y)


@cases
@given(shapes)
def test_gradients(isa, shape):
    case = Case(**shape)
    wanted_dx, wanted_dw = case.gradients()
    dy, dx = block(case.dy, case.threads), torch.full_like(case.z, float("nan"))
    dw, _ = case.conv.backward(plain(case.z), plain(dy), case.weight, case.structure, dx)
    close(case.open(dx), wanted_dx)
    close(dw, wanted_dw * case.mask)
    assert not dw[~case.mask].any()
    again, _ = case.conv.backward(plain(case.z), plain(dy), case.weight, case.structure, dx, add=True)
    close(case.open(dx), 2 * wanted_dx)
    assert torch.equal(again, dw), "the same bits every time"


@cases
@given(shapes)
def test_gradient_at_other_positions(isa, shape):
    case = Case(**shape)
    extra = case.mask | (torch.rand(case.mask.shape) < 0.2)
    positions = Structure(case.weight, case.stride, extra)
    dw, _ = case.conv.backward(plain(case.z), plain(block(case.dy, case.threads)), case.weight, positions, None)
    close(dw, case.gradients()[1] * extra)
    assert not dw[~extra].any()


@cases
@given(shapes)
def test_sums_for_batch_norm(isa, shape):
    case = Case(**shape)
    bn = nn.BatchNorm2d(shape["outputs"])
    if case.conv.count == 1:
        return
    nn.init.uniform_(bn.weight, 0.5, 1.5)
    nn.init.normal_(bn.bias)
    exact = nn.BatchNorm2d(shape["outputs"]).double()
    exact.load_state_dict({name: value.double() for name, value in bn.state_dict().items()})
    wanted = exact(case.y)
    y, sums = case.conv.forward(plain(case.z), case.weight, sums=True)
    norm = Affine(bn, case.conv.shape, sums, case.conv.count)
    a, b = norm.buffer[2:, :, None, None]
    close(a * case.open(y) + b, wanted.detach())
    close(bn.running_mean, exact.running_mean)
    close(bn.running_var, exact.running_var)


@cases
@given(shapes)
def test_batch_norm_of_known_statistics_residual_and_relu(isa, shape):
    case = Case(**shape)
    bn = nn.BatchNorm2d(shape["outputs"]).eval()
    for tensor in (bn.weight, bn.bias, bn.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(bn.running_var, 0.5, 2)
    r = torch.randn(case.y.shape)
    norm = Affine(bn, case.conv.shape, None, 0)
    z = case.conv.apply(plain(case.z), case.weight, norm, relu=True, residual=block(r, case.threads))
    wanted = functional.relu(
        functional.batch_norm(
            case.y, *(t.detach().double() for t in (bn.running_mean, bn.running_var, bn.weight, bn.bias))
        )
        + r
    )
    close(case.open(z), wanted)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_values_that_are_no_numbers_go_where_torch_sends_them(isa, kernel, stride):
    """All weights active, so that a NaN reaches what it reaches in torch: in values, input and weight gradients."""
    case = Case(3, 4, 5, 7, 6, kernel, stride, 2, 1.0, 0)
    x = case.x.clone()
    x[1, 2, 2, 4], x[2, 0, 0, 0] = float("nan"), float("inf")
    z, dy = block(x, 2), case.dy.clone()
    y, _ = case.conv.forward(plain(z), case.weight)
    exact = x.requires_grad_(), case.weight.clone().requires_grad_()
    wanted = functional.conv2d(*exact, stride=stride, padding=kernel // 2)
    torch.testing.assert_close(case.open(y), wanted.detach(), equal_nan=True, rtol=1e-4, atol=1e-5)
    dy[0, 3, 1, 1] = float("nan")
    dx = torch.empty_like(z)
    dw, _ = case.conv.backward(plain(z), plain(block(dy, 2)), case.weight, case.structure, dx)
    for found, gradient in zip((case.open(dx), dw), torch.autograd.grad(wanted, exact, dy), strict=True):
        assert torch.equal(found.isnan(), gradient.isnan())


def test_scaled_gradient_is_that_of_statistics_that_are_constants(isa):
    case = Case(5, 6, 7, 5, 5, 3, 1, 1, 0.3, 0)
    scale = torch.rand(7)
    dy = block(case.dy, 1)
    source = Source(SCALED, dy.data_ptr(), None, scale.data_ptr())
    dw, _ = case.conv.backward(plain(case.z), source, case.weight, case.structure, None)
    wanted = torch.autograd.grad(case.y, case.exact[1], (case.dy * scale[:, None, None]).double())[0]
    close(dw, wanted * case.mask)


def test_weights_in_channels_last(isa):
    case = Case(5, 6, 7, 5, 5, 3, 1, 1, 0.3, 0)
    weight = case.weight.contiguous(memory_format=torch.channels_last)
    structure = Structure(weight, 1, case.mask)
    conv = Convolution(structure, 5, case.z.shape, 1)
    assert not case.structure.fits(weight)
    close(case.open(conv.forward(plain(case.z), weight)[0]), case.y)
    dx = torch.empty_like(case.z)
    dw, _ = conv.backward(plain(case.z), plain(block(case.dy, 1)), weight, structure, dx)
    assert dw.stride() == weight.stride()
    close(dw, case.gradients()[1] * case.mask)
    close(case.open(dx), case.gradients()[0])


def test_layouts_at_the_borders(isa):
    for batch in (1, 16, 35):
        x = torch.randn(batch, 3, 5, 4, dtype=torch.float32)
        for given_ in (
            x,
            x.contiguous(memory_format=torch.channels_last),
            x.transpose(2, 3).contiguous().transpose(2, 3),
        ):
            leaf = given_.requires_grad_()
            z = block(leaf, 2)
            assert torch.equal(z[-1, :, :, :, (batch - 1) % 16], x[-1].transpose(0, 1))
            back = unblock(z, batch, 2)
            assert torch.equal(back, x)
            torch.testing.assert_close(mean(z, batch, 2), x.mean((2, 3)))
            g = torch.randn(x.shape)
            assert torch.equal(torch.autograd.grad(back, leaf, g)[0], g)


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (2, 2)])
def test_maximum_over_squares(isa, size):
    """With ties, which the first of four wins, an odd border, and a NaN that wins over all."""
    x = torch.randint(0, 3, (18, 5, *size)).float()
    x[3, 2, 0, 1] = float("nan")
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    found = unblock(halve(block(mine, 2), 18, 2), 18, 2)
    wanted = functional.max_pool2d(theirs, 2)
    assert found.shape == wanted.shape
    assert torch.equal(found.nan_to_num(-7), wanted.nan_to_num(-7))
    g = torch.randn(wanted.shape)
    found.backward(g)
    wanted.backward(g)
    assert torch.equal(mine.grad, theirs.grad)


def test_convolutions_without_kernels_are_told_apart():
    assert supports(nn.Conv2d(3, 4, 3, padding=1))
    assert supports(nn.Conv2d(3, 4, 1, 2))
    for refused in (
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(3, 4, 5, padding=2),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(3, 4, 3, padding=2, dilation=2),
        nn.Conv2d(3, 4, 3, 3, padding=1),
        nn.Conv2d(3, 4, (3, 1), padding=(1, 0)),
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(3, 4, 3, padding=1).double(),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3, padding=1)),
        nn.Conv1d(3, 4, 3, padding=1),
        nn.Linear(3, 4),
    ):
        assert not supports(refused)
