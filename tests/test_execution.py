"""Which kernels a training takes: the fake kernels here take the seconds that a test gives them."""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spfde import execution, kernels
from spfde.api import SparseTraining
from spfde.cost.profile import profile
from spfde.errors import SpfdeError
from spfde.execution import Execution
from spfde.experiments.resolve import nested, settings_for
from spfde.kernels.table import Table
from spfde.methods import METHODS
from spfde.models import build
from spfde.settings import RunSettings, parse

BLOCKS = ["layer1.0", "layer2.0", "layer3.0"]
COSTS = profile(build("resnet8", 4, 3, 8, 0.5), (3, 8, 8))


class FakeUnit:
    """A residual block whose times are told; `asked` counts how often they were taken."""

    kind, input_shape = "basic block", (8, 8, 8)

    def __init__(self, name: str, model: nn.Module, seconds: Callable[[str, bool], tuple[float, float]]) -> None:
        block = model.get_submodule(name)
        self.name, self.modules = name, list(block.modules())
        self.layers = [f"{name}.{key}" for key, layer in block.named_modules() if isinstance(layer, nn.Conv2d)]
        self.seconds, self.asked = seconds, 0

    def measure(self, batch: int, repeats: int, frozen: bool) -> tuple[float, float]:
        self.asked += 1
        return self.seconds(self.name, frozen)


class FakeHandle:
    def __init__(self, model: nn.Module, masks: dict[str, Tensor], seconds: Any) -> None:
        self.units = [FakeUnit(name, model, seconds) for name in BLOCKS]
        self.choices = dict.fromkeys(BLOCKS, "sparse")
        self.executed: set[str] = set()
        self.dense, self.attached = False, True
        self.rebuilt: list[list[str]] = []

    def rebuild(self, layers: list[str]) -> None:
        self.rebuilt.append(list(layers))

    def choose(self, choices: dict[str, str]) -> None:
        self.choices.update(choices)

    def trace_shapes(self, x: Tensor) -> None:
        pass

    def detach(self) -> None:
        self.attached = False

    def problems(self) -> list[str]:
        return []

    def intact(self) -> bool:
        return True


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Kernels whose units take `seconds(name, frozen)` -> (sparse, dense), and whole networks `whole` likewise."""
    found = SimpleNamespace(handles=[], seconds=lambda name, frozen: (1.0, 2.0), whole=(1.0, 2.0))

    def attach(model: nn.Module, masks: dict[str, Tensor]) -> FakeHandle:
        found.handles.append(FakeHandle(model, masks, lambda *told: found.seconds(*told)))
        return found.handles[-1]

    @contextmanager
    def trial(*_: Any) -> Iterator[None]:
        yield

    monkeypatch.setattr(kernels, "attach", attach)
    monkeypatch.setattr(kernels, "available", lambda: True)
    monkeypatch.setattr(execution, "_trial", trial)
    monkeypatch.setattr(execution, "_seconds", lambda run, kind, images: found.whole[kind == "dense"])
    monkeypatch.setattr(execution, "_said", set())
    monkeypatch.delenv("SPFDE_KERNELS", raising=False)
    return found


def training(method: str = "static", table: Path | None = None, wanted: str = "auto", **dotted: Any) -> SparseTraining:
    torch.manual_seed(0)
    model = build("resnet8", 4, 3, 8, 0.5)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    values = {"sparsity.method": method, "sparsity.target": 0.75, "training.epochs": 8, "training.batch_size": 8}
    values |= {"sparsity.interval": 2} | {key.replace("__", "."): value for key, value in dotted.items()}
    settings = parse(RunSettings, nested(values))
    fetch = lambda indices: (torch.randn(len(indices), 3, 8, 8), indices % 4)  # noqa: E731
    told = {"input_shape": (3, 8, 8), "samples": 32, "costs": COSTS, "fetch": fetch, "kernels": wanted}
    sparse = SparseTraining(model, optimizer, settings, **told)
    if table:
        sparse.execution._table = Table({"machine": "fake"}, table)
    return sparse


def step(sparse: SparseTraining) -> None:
    images, labels = torch.randn(8, 3, 8, 8), torch.arange(8) % 4
    F.cross_entropy(sparse.model(images), labels).backward()
    sparse.optimizer.step()
    sparse.optimizer.zero_grad()
    sparse.observe(torch.arange(8), sparse.model(images), labels)


def test_each_block_gets_what_is_faster_there(fake: SimpleNamespace, tmp_path: Path) -> None:
    fake.seconds = lambda name, frozen: (1.0, 2.0 if name != "layer3.0" else 0.5)
    sparse = training(table=tmp_path)
    sparse.begin_epoch(0)
    expected = {"layer1.0": "sparse", "layer2.0": "sparse", "layer3.0": "dense"}
    assert sparse.execution.choices == fake.handles[0].choices == expected


def test_a_mixture_that_is_slower_than_dense_kernels_is_not_taken(fake: SimpleNamespace, tmp_path: Path) -> None:
    fake.whole = (2.0, 1.9)  # the changes of layout eat up what the blocks save
    sparse = training(table=tmp_path)
    sparse.begin_epoch(0)
    assert set(sparse.execution.choices.values()) == {"dense"}


def test_times_are_taken_once_a_machine_and_density(fake: SimpleNamespace, tmp_path: Path) -> None:
    first = training(table=tmp_path)
    first.begin_epoch(0)
    assert all(unit.asked for unit in fake.handles[0].units)
    fake.seconds = lambda name, frozen: pytest.fail("timed again")
    again = training(table=tmp_path)
    again.begin_epoch(0)
    assert set(again.execution.choices.values()) == {"sparse"}
    fake.seconds = lambda name, frozen: (2.0, 1.0)
    denser = training(table=tmp_path, sparsity__target=0.3)
    denser.begin_epoch(0)
    assert set(denser.execution.choices.values()) == {"dense"}


def test_times_that_never_settle_mean_dense_kernels_and_are_not_kept(fake: SimpleNamespace, tmp_path: Path) -> None:
    turns = iter(range(10**6))
    fake.seconds = lambda name, frozen: (1.0, (0.1, 9.0)[next(turns) % 2])
    sparse = training(table=tmp_path)
    sparse.begin_epoch(0)
    assert set(sparse.execution.choices.values()) == {"dense"} and not list(tmp_path.rglob("*.json"))
    fake.seconds = lambda name, frozen: (1.0, 2.0)
    again = training(table=tmp_path)
    again.begin_epoch(0)
    assert set(again.execution.choices.values()) == {"sparse"}


def test_frozen_blocks_are_chosen_by_their_own_times(fake: SimpleNamespace, tmp_path: Path) -> None:
    fake.seconds = lambda name, frozen: (1.0, 0.5 if frozen else 2.0)
    sparse = training("spfde", tmp_path, freezing__flops_reduction=0.2)
    frozen = sparse.plan.schedule.counts
    for epoch in range(8):
        sparse.begin_epoch(epoch)
        expected = ["dense" if block < frozen[epoch] else "sparse" for block in range(3)]
        assert list(sparse.execution.choices.values()) == expected
        step(sparse)
    assert max(frozen) > 0


def test_only_masks_that_moved_are_rebuilt(fake: SimpleNamespace) -> None:
    """Every second epoch begins with a mask update of what trains; what freezes is pruned once more."""
    sparse = training("spfde", wanted="sparse", freezing__flops_reduction=0.2)
    sparse.begin_epoch(0)
    (handle,) = fake.handles
    for epoch in range(1, 8):
        step(sparse)
        handle.rebuilt.clear()
        before = sparse.frozen_blocks
        sparse.begin_epoch(epoch)
        moved = {layer.name for layer in sparse.masks if layer.block >= before and epoch % 2 == 0}
        settled = {layer.name for layer in sparse.masks if before <= layer.block < sparse.frozen_blocks}
        assert {name for names in handle.rebuilt for name in names} == moved | settled
    assert sparse.frozen_blocks > 0


def test_steps_that_need_the_dense_gradient_run_dense(fake: SimpleNamespace) -> None:
    sparse = training("rigl", wanted="sparse")
    # ten steps; the eleventh is an update
    dense = []
    for epoch in range(6):
        sparse.begin_epoch(epoch)
        for _ in range(4):
            for _ in range(2):  # two forward passes of an accumulated step
                dense.append(fake.handles[0].dense)
            step(sparse)
    assert dense == [number // 2 in (10, 21) for number in range(48)]
    assert fake.handles[0].rebuilt[1:]  # and the new masks are there for the step after it


def test_the_choice_of_a_checkpoint_is_gone_on_with(fake: SimpleNamespace, tmp_path: Path) -> None:
    fake.seconds = lambda name, frozen: (1.0, 2.0 if name == "layer1.0" else 0.5)
    sparse = training(table=tmp_path / "one")
    sparse.begin_epoch(0)
    step(sparse)
    state = copy.deepcopy(sparse.state_dict())
    fake.seconds = lambda name, frozen: (1.0, 9.0)  # another machine, whose table says otherwise
    again = training(table=tmp_path / "two")
    again.load_state_dict(state)
    assert again.execution.choices == sparse.execution.choices
    forced = training(table=tmp_path / "two", wanted="sparse")
    forced.load_state_dict(state)
    assert set(forced.execution.choices.values()) == {"sparse"}


def test_the_trace_has_what_was_run(fake: SimpleNamespace) -> None:
    """Two steps with sparse kernels in the first block, two with dense ones; then a dense layer, always 1."""
    sparse = training(wanted="sparse")
    sparse.begin_epoch(0)
    for executed in ({"layer1.0.conv1"}, {"layer1.0.conv1"}, set(), set()):
        fake.handles[0].executed = executed
        step(sparse)
    rows = sparse.trace().query("epoch == 0").set_index("layer")
    assert rows.executed_forward["layer1.0.conv1"] == pytest.approx((0.25 + 1) / 2)
    assert rows.executed_weight_grad["layer1.0.conv1"] == pytest.approx((0.25 + 1) / 2)
    assert rows.executed_forward["layer1.0.conv2"] == 1 and rows.executed_forward["conv1"] == 1
    assert rows.executed_input_grad["conv1"] == 0
    assert sparse.trace().query("epoch == 1").executed_forward.isna().all()  # planned


@pytest.mark.parametrize("method", ["swat-u", "grasp"])
def test_methods_that_need_dense_kernels_say_so_once(fake: SimpleNamespace, method: str) -> None:
    assert METHODS[method].dense_kernels
    with pytest.warns(UserWarning, match=f"dense kernels: {method} needs dense ones") as said:
        for _ in range(2):
            training(method).begin_epoch(0)
    assert len(said) == 1 and not fake.handles


def test_a_gpu_falls_back_and_says_so_once(fake: SimpleNamespace) -> None:
    sparse = training()
    model = nn.Linear(2, 2, device="meta")
    other = Execution(model, sparse.masks, sparse.method, "sparse", 8, (2,))
    with pytest.warns(UserWarning, match="sparse kernels are for CPUs, and the model is on meta"):
        other.begin(0)
    with warnings.catch_warnings(action="error"):
        other.begin(0)
    assert other.executed is None and not other.choices


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("wanted", ["auto", "sparse"])
def test_models_of_other_precisions_train_on_dense_kernels_and_say_so_once(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, wanted: str
) -> None:
    if not kernels.available():
        pytest.skip("no sparse kernels")
    monkeypatch.setattr(execution, "_said", set())
    monkeypatch.delenv("SPFDE_KERNELS", raising=False)
    model = build("resnet8", 4, 3, 8, 0.5).to(dtype)
    settings = settings_for("set", sparsity=0.75, epochs=2, batch_size=8, interval=1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    told: Any = {"input_shape": (3, 8, 8), "samples": 8, "costs": COSTS, "kernels": wanted}
    sparse = SparseTraining(model, optimizer, settings, **told)
    with pytest.warns(UserWarning, match=f"sparse kernels are for torch.float32, and the model has .* {dtype}") as said:
        for epoch in range(2):
            sparse.begin_epoch(epoch)
            F.cross_entropy(model(torch.randn(8, 3, 8, 8, dtype=dtype)), torch.arange(8) % 4).backward()
            optimizer.step()
            optimizer.zero_grad()
            sparse.count(torch.arange(8))
    sparse.finish()
    assert len(said) == 1 and sparse.masks.sparsity == pytest.approx(0.75, abs=0.01)


def test_finishing_gives_the_plain_modules_back(fake: SimpleNamespace) -> None:
    sparse = training(wanted="sparse")
    sparse.begin_epoch(0)
    step(sparse)
    sparse.finish()
    assert not fake.handles[0].attached and sparse.execution.describe()["sparse"] == 3


def test_replaced_modules_get_kernels_anew(fake: SimpleNamespace) -> None:
    sparse = training(wanted="sparse")
    sparse.begin_epoch(0)
    step(sparse)
    sparse.model.layer2[0] = copy.deepcopy(sparse.model.layer2[0])
    sparse.begin_epoch(1)
    assert len(fake.handles) == 2 and not fake.handles[0].attached


def test_bad_input(fake: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpfdeError, match='unknown kernels "spars"; did you mean "sparse"'):
        training(wanted="spars")
    monkeypatch.setattr(kernels, "available", lambda: False)
    with pytest.raises(SpfdeError, match="sparse kernels are wanted, and there are none here"):
        training(wanted="sparse")
    quiet = training()
    with warnings.catch_warnings(action="error"):
        quiet.begin_epoch(0)
    assert not quiet.execution.choices


@pytest.mark.parametrize("method", ["static", "rigl"])
def test_who_clips_gradients_sees_masked_ones(method: str) -> None:
    """Before the optimizer's step, on dense kernels; the update steps of RigL need what is outside."""
    sparse = training(method, wanted="dense")
    sparse.begin_epoch(0)
    for number in range(11):
        if number in (4, 8):
            sparse.begin_epoch(number // 4)
        F.cross_entropy(sparse.model(torch.randn(8, 3, 8, 8)), torch.arange(8) % 4).backward()
        outside = any(bool(cast(Tensor, layer.weight.grad)[~layer.active].any()) for layer in sparse.masks)
        assert outside == (method == "rigl" and number == 10)
        sparse.optimizer.step()
        sparse.optimizer.zero_grad()
        sparse.count(torch.arange(8))
