"""Models of somebody else: what sparse training cannot do right is refused at once, by name and with a way out."""

import warnings
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models import SwinTransformer

from spfde import SparseTraining, settings_for
from spfde.errors import SpfdeError
from spfde.models import Block
from tests.test_own_model import sgd


def wrap(model: nn.Module, method: str = "set", shape: tuple[int, ...] = (3, 8, 8), **more: Any) -> SparseTraining:
    told = {key: more.pop(key) for key in list(more) if key in ("freezing", "sieving", "sparsity__dense_layers")}
    settings = settings_for(method, epochs=6, batch_size=4, interval=2, sparsity=0.75, **told)
    optimizer = more.pop("optimizer", None) or sgd(model)
    with warnings.catch_warnings(action="ignore"):
        return SparseTraining(model, optimizer, settings, input_shape=shape, samples=8, **more)


# how weights are used


def test_a_computed_weight_is_refused_unless_it_stays_dense() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), timm.layers.StdConv2d(8, 4, 3), nn.Flatten(), nn.Linear(144, 4))
    message = (
        r"layer 1 computes its weight \(weight norm, weight standardisation or the like\); let its parameter `weight` "
        r'be what it multiplies by, or keep it dense: SparseTraining\(\.\.\., dense=\["1"\]\)'
    )
    with pytest.raises(SpfdeError, match=message):
        wrap(model)
    assert list(wrap(model, dense=["1"]).masks.layers) == ["3"]
    with pytest.raises(SpfdeError, match=r'no layer is called "4" or is in a module of that name'):
        wrap(model, dense=["4"])


def swin() -> nn.Module:
    return SwinTransformer([4, 4], 16, [1, 1], [1, 2], [2, 2], num_classes=4)


def test_layers_used_by_their_weight_are_sparse_and_swat_refuses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model = swin()
    sparse = wrap(model, "static", shape=(3, 32, 32))
    sparse.begin_epoch(0)
    seen: dict[str, float] = {}
    plain, names = F.linear, {layer.weight: layer.name for layer in sparse.masks}

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if isinstance(weight, nn.Parameter):
            seen[names[weight]] = float((weight == 0).float().mean())
        return plain(x, weight, bias)

    with monkeypatch.context() as patch:
        patch.setattr(F, "linear", linear)
        model(torch.randn(2, 3, 32, 32))
    assert {name for name in seen if "qkv" in name} and set(seen.values()) == {0.75}
    sparse.detach()
    qkv = "features.1.0.attn.qkv"
    for method in ("swat-u", "gse-grabo"):
        message = (
            f"method {method} acts in the calls of layers, and layer {qkv} is used by its weight alone; use a method"
        )
        with pytest.raises(SpfdeError, match=message):
            wrap(swin(), method, (3, 32, 32))
    attention = [name for name, module in model.named_modules() if name.endswith(".attn")]
    assert not any("attn" in layer for layer in wrap(swin(), "swat-u", (3, 32, 32), dense=attention).masks.layers)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.embed, self.encoder = nn.Linear(6, 8), nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x)).mean(1))


def test_the_fused_encoder_runs_the_sparse_network() -> None:
    """Without gradients torch hands a whole layer to one operation, which never calls its modules."""
    torch.manual_seed(0)
    model, x = Encoder(), torch.randn(3, 5, 6)
    sparse = wrap(model, "static", shape=(5, 6))
    sparse.begin_epoch(0)
    model.eval()
    expected = model(x)  # gradients are on: module by module
    with torch.no_grad():
        assert torch.allclose(model(x), expected.detach(), atol=1e-6)
    zeros = [float((layer.weight == 0).float().mean()) for layer in sparse.masks]
    assert len(zeros) == 7 and zeros == pytest.approx([0.75] * 7)
    with pytest.raises(SpfdeError, match=r"layer encoder\.layers\.0\.self_attn\.out_proj is used by its weight alone"):
        wrap(Encoder(), "swat-u", (5, 6))
    rest = [f"encoder.layers.{index}.self_attn" for index in range(2)]
    with pytest.raises(SpfdeError, match=r"layer encoder\.layers\.0\.linear1 is used by its weight alone"):
        wrap(Encoder(), "swat-u", (5, 6), dense=rest)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.fc = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0][:, -1])


def test_nothing_to_make_sparse_is_an_error() -> None:
    with pytest.raises(SpfdeError, match=r"keeps all 1 of them dense .*; set sparsity\.dense_layers=none, or train"):
        wrap(Recurrent(), shape=(5, 6))
    assert list(wrap(Recurrent(), shape=(5, 6), sparsity__dense_layers="none").masks.layers) == ["fc"]
    assert not len(wrap(Recurrent(), "dense", (5, 6)).masks)


# freezing


class Reversed(nn.Module):
    """Defined from the last block to the first."""

    def __init__(self) -> None:
        super().__init__()
        self.three, self.two, self.one, self.head = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.three(self.two(self.one(x)).relu()).relu())


def test_blocks_against_the_forward_order_are_refused_where_they_freeze() -> None:
    cause = "block three reads what block two gives, which comes after it in the order of freezing"
    with pytest.raises(SpfdeError, match=rf"{cause}; give SparseTraining blocks=\[\.\.\.\] in forward order"):
        wrap(Reversed(), shape=(6,), freezing=0.05)
    order = [Block(name, (name,)) for name in ("one", "two", "three")]
    assert wrap(Reversed(), shape=(6,), freezing=0.05, blocks=order).plan.schedule.counts[-1]
    wrap(Reversed(), shape=(6,))
    with pytest.raises(SpfdeError, match="block three reads what block two gives"):
        wrap(Reversed(), shape=(6,), blocks=[*order[1:][::-1], order[0]])


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.layers, self.reentrant = nn.ModuleList(nn.Linear(6, 6) for _ in range(4)), reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers[0](x)
        for layer in list(self.layers)[1:3]:
            x = checkpoint(layer, x, use_reentrant=self.reentrant).relu()
        return self.layers[3](x)


def test_reentrant_checkpointing_does_not_freeze() -> None:
    with pytest.raises(SpfdeError, match=r"reentrant activation checkpointing .*; use .*use_reentrant=False"):
        wrap(Checkpointed(True), shape=(6,), freezing=0.05)
    wrap(Checkpointed(True), shape=(6,))
    model = Checkpointed(False)
    sparse = wrap(model, shape=(6,), freezing=0.05)
    for epoch in range(6):
        sparse.begin_epoch(epoch)
        logits = model(torch.randn(8, 6))
        F.cross_entropy(logits, torch.arange(8) % 6).backward()
        sparse.optimizer.step()
        sparse.optimizer.zero_grad()
        sparse.count(torch.arange(8))
    assert sparse.frozen_blocks == sparse.plan.schedule.counts[-1] > 0
    sparse.finish()


# heads


@pytest.mark.parametrize("method", ["snip", "grasp", "gse-uniform"])
def test_methods_that_score_by_classes_need_some(method: str) -> None:
    one = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 1))
    with pytest.raises(
        SpfdeError, match=rf"method {method} scores .*, and the network gives an output of shape \(batch, 1\)"
    ):
        wrap(one, method)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = one

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.body(x), self.body(x)

    with pytest.raises(
        SpfdeError, match="the network gives no single tensor; let the network give one logit per class"
    ):
        wrap(Two(), method)


# costs


@pytest.mark.parametrize(
    ("make", "buffers"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1), 0),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 1),
        (torch.optim.RMSprop, 1),
        (lambda p: torch.optim.RMSprop(p, momentum=0.9, centered=True), 3),
        (torch.optim.AdamW, 2),
        (lambda p: torch.optim.Adam(p, amsgrad=True), 3),
        (lambda p: torch.optim.SGD([{"params": list(p)}, {"params": [], "momentum": 0.9}], lr=0.1), 1),
    ],
)
def test_momentum_memory_is_that_of_the_optimizer(make: Any, buffers: int) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
    sparse = wrap(model, shape=(3, 2, 2), optimizer=make(model.parameters()))
    breakdown = sparse.plan.costs(sparse.plan.trace())[1]["breakdown"]
    kept = 12 * 8 + 8 * 4 / 4 + 12
    assert breakdown["momentum"] == 4 * buffers * kept and breakdown["weights"] == 4 * kept
    assert not sparse.optimizer.state
