"""Models and optimizers that cannot be trained sparse, or not with what is wanted."""

import warnings
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from torch.nn.utils import parametrizations

from spfde import SparseTraining, settings_for
from spfde.cost import profile
from spfde.models import Block
from tests.refusals.table import refusal
from tests.test_compatibility import Checkpointed, Encoder, Recurrent, Reversed
from tests.test_own_model import Tied, network, settings, sgd

DENSE_DATA = {"freezing": 0.0, "sieving": 0.0}


def wrap(
    model: nn.Module | None = None,
    method: str = "set",
    shape: tuple[int, ...] | None = (1, 6, 6),
    optimizer: Any = None,
    samples: int | None = 40,
    told: dict[str, Any] | None = None,
    **more: Any,
) -> SparseTraining:
    model = network() if model is None else model
    chosen = settings(method, **{**DENSE_DATA, **(told or {})})
    return SparseTraining(model, optimizer or sgd(model), chosen, input_shape=shape, samples=samples, **more)


def normed() -> nn.Module:
    model = network()
    parametrizations.weight_norm(model[1][0])
    return model


@refusal("a convolution with weight norm")
def weight_norm(_: Path) -> None:
    wrap(normed())


@refusal("a convolution that standardises its weight (timm's `StdConv2d`)")
def weight_standardisation(_: Path) -> None:
    wrap(nn.Sequential(nn.Conv2d(1, 8, 3), timm.layers.StdConv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 4)))


@refusal("a sparse weight that two layers share")
def shared_weight(_: Path) -> None:
    wrap(Tied())


@refusal("an optimizer that holds a part of the model")
def weight_not_trained(_: Path) -> None:
    model = network()
    wrap(model, optimizer=sgd(model[2]))


@refusal("a sparse layer with `requires_grad=False`")
def fixed_weight(_: Path) -> None:
    model = network()
    model[1].requires_grad_(False)
    wrap(model)


@refusal("SWAT on layers that attention uses by their weight")
def swat_by_weight(_: Path) -> None:
    wrap(Encoder(), "swat-u", (5, 6))


@refusal("a network whose only layer is the one that stays dense")
def nothing_sparse(_: Path) -> None:
    wrap(Recurrent(), shape=(5, 6))


@refusal("a network without convolutions and linear layers")
def no_layers(_: Path) -> None:
    profile(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4)), (4,))


@refusal("`input_shape` of another network")
def wrong_shape(_: Path) -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = network()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.shape[1] != 1:
                raise ValueError("images of one channel are expected")
            return self.body(x)

    wrap(Picky(), shape=(3, 6, 6))


@refusal("neither `input_shape` nor a known data set")
def unknown_shape(_: Path) -> None:
    model = network()
    SparseTraining(model, sgd(model), settings_for(epochs=9, batch_size=8, data__name="mine"), samples=8)


@refusal("`dense` names no layer")
def unknown_dense(_: Path) -> None:
    wrap(dense=["1.1"])


@refusal("blocks that overlap")
def overlapping_blocks(_: Path) -> None:
    wrap(blocks=[Block("a", ("0", "1")), Block("b", ("1.0", "2"))])


@refusal("a block of modules that are not there")
def unknown_module(_: Path) -> None:
    wrap(blocks=[Block("a", ("layer1",))])


@refusal("freezing blocks against the forward order")
def backward_order(_: Path) -> None:
    wrap(Reversed(), shape=(6,), told={"freezing": 0.05})


@refusal("freezing with reentrant activation checkpointing")
def reentrant_checkpoints(_: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        wrap(Checkpointed(True), shape=(6,), told={"freezing": 0.05})


@refusal("freezing more than can be frozen")
def too_much_freezing(_: Path) -> None:
    wrap(method="spfde", told={"freezing": 0.9})


@refusal("freezing a network that has no freezing block")
def no_blocks(_: Path) -> None:
    layers = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))
    wrap(layers, "spfde", told={"freezing": 0.1, "sparsity__dense_layers": "none"})


@refusal("freezing with blocks that hold the whole network")
def everything_frozen(_: Path) -> None:
    wrap(blocks=[Block("all", tuple("0125"))], told={"freezing": 0.1})


@refusal("SNIP with one logit")
def one_logit_scored(_: Path) -> None:
    wrap(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(64, 1)), "snip")


@refusal("GraSP on a network of several outputs")
def several_outputs_scored(_: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = network()

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.body(x), self.body(x)

    wrap(Two(), "grasp")


@refusal("an optimizer that evaluates the loss several times per step")
def lbfgs(_: Path) -> None:
    model = network()
    wrap(model, optimizer=torch.optim.LBFGS(model.parameters()))


@refusal("an optimizer that is none of torch's")
def other_optimizer(_: Path) -> None:
    wrap(optimizer=object())


@refusal("a wrapper without the `__init__` of torch's optimizers")
def bare_wrapper(_: Path) -> None:
    class Wrapper(torch.optim.Optimizer):
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.param_groups = optimizer.param_groups

    model = network()
    wrap(model, optimizer=Wrapper(sgd(model)))


@refusal("timm's Lookahead in place of what it wraps")
def lookahead(_: Path) -> None:
    model = network()
    wrap(model, optimizer=timm.optim.Lookahead(sgd(model))).begin_epoch(0)


@refusal("SWAT-M with an optimizer without momentum")
def swat_m_without_momentum(_: Path) -> None:
    model = network()
    wrap(model, "swat-m", optimizer=torch.optim.SGD(model.parameters(), lr=0.1))


@refusal("DeepR with a weight decay of one's own on sparse weights")
def deepr_decay(_: Path) -> None:
    wrap(method="deepr", learning_rates="own")


@refusal("DistributedDataParallel that waits for frozen parameters")
def data_parallel(_: Path) -> None:
    class Waiting(nn.parallel.DistributedDataParallel):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.find_unused_parameters = False

    model = network()
    SparseTraining(Waiting(), sgd(model), settings(), input_shape=(1, 6, 6), samples=40)


@refusal("unknown kernels")
def unknown_kernels(_: Path) -> None:
    wrap(kernels="spares")
