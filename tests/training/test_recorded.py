"""Which steps run one by one, which are recorded and replayed, and what is counted; test_cuda.py runs them."""

import contextlib
from collections.abc import Iterator

import pytest
import torch

from spfde.errors import SpfdeError
from spfde.experiments.resolve import resolve
from spfde.methods import METHODS
from spfde.methods import Run as MethodRun
from spfde.methods.spfde import Spfde
from spfde.plans import plan_settings
from spfde.training.recorded import Steps

Log = list[tuple[str, int]]


class Sparse:
    """Counts samples; the steps of these numbers are not like the others."""

    def __init__(self, differ: tuple[int, ...]) -> None:
        self.differ, self.step, self.samples = differ, 0, 0

    @property
    def steps_alike(self) -> bool:
        return self.step not in self.differ

    def count_replayed(self, samples: int) -> None:
        self.step += 1
        self.samples += samples


class Team:
    def __init__(self, size: int) -> None:
        self.size = size


class Run:
    def __init__(self, device: str, size: int, differ: tuple[int, ...]) -> None:
        self.device, self.team, self.sparse = torch.device(device), Team(size), Sparse(differ)
        self.epoch = self.done = 0


class Watched(Steps):
    """Steps of a device that is not there: notes what would happen."""

    def __init__(self, device: str = "cuda", size: int = 1, differ: tuple[int, ...] = ()) -> None:
        self.log: Log = []
        super().__init__(Run(device, size, differ), lambda _, indices, *__: self.count("step", len(indices)))

    def count(self, what: str, samples: int) -> None:
        self.log.append((what, samples))
        self.run.sparse.count_replayed(samples)
        self.run.done += 1

    def _record(self, batch: tuple[torch.Tensor, ...]) -> None:
        self.count("record", len(batch[0]))

    def _replay(self, batch: tuple[torch.Tensor, ...]) -> None:
        self.log.append(("replay", len(batch[0])))

    def go(self, *sizes: int) -> Log:
        self.log.clear()
        for size in sizes:
            self(torch.zeros(size, dtype=torch.long), torch.zeros(size, 1), torch.zeros(size))
        return self.log


def test_an_epoch_runs_one_step_records_the_second_and_replays_the_others() -> None:
    steps = Watched()
    first, recorded, replay, last = ("step", 8), ("record", 8), ("replay", 8), ("step", 3)
    assert steps.go(8, 8, 8, 8, 3) == [first, recorded, replay, replay, replay, last]
    assert steps.run.done == 5 and steps.run.sparse.samples == 35
    steps.run.epoch = 1  # rates, masks and frozen blocks may be others
    assert steps.go(8, 8, 8) == [first, recorded, replay, replay]


def test_steps_that_differ_run_one_by_one_in_between() -> None:
    steps = Watched(differ=(0, 3, 5))
    one, recorded, replay = ("step", 8), ("record", 8), ("replay", 8)
    assert steps.go(*7 * [8]) == [one, one, recorded, replay, one, replay, one, replay]
    assert steps.run.done == 7 and steps.run.sparse.samples == 56


@pytest.mark.parametrize(("device", "size"), [("cpu", 1), ("cuda", 2)])
def test_on_a_cpu_and_in_a_team_all_steps_run_one_by_one(device: str, size: int) -> None:
    assert Watched(device, size).go(8, 8, 8) == 3 * [("step", 8)]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_methods_say_which_steps_are_alike(name: str) -> None:
    method = plan_settings(resolve("smoke", {"sparsity.method": name})).method
    alike = {method.replays(step) for step in range(method.plan.steps)}
    always = {"deepr", "swat-u", "swat-erk", "swat-m"}  # noise, or weights that are selected anew, in every step
    some = {"rigl", "rigl-itop", "set-itop", "gse-uniform", "gse-grabo", "gse-graest"}
    assert alike == ({False} if name in always else {True, False} if name in some else {True})
    for step in range(method.plan.steps) if name in some else ():
        assert method.replays(step) == (method.mask_updates(0, range(step, step + 1)) == 0)


def test_mest_looks_at_the_gradients_of_every_step_if_they_count() -> None:
    weighed = resolve("smoke", {"sparsity.method": "mest", "sparsity.options": {"gradient_weight": 0.5}})
    assert not plan_settings(weighed).method.replays(1)


class Looks(Spfde):
    """A method of somebody's own that does something after each step, and derives from one whose steps are alike."""

    name = "looks"

    def after_step(self, run: MethodRun, step: int) -> None:
        self.seen = step


class LooksSometimes(Looks):
    name = "looks-sometimes"

    def step_is_alike(self, step: int) -> bool:
        return step % 10 != 0


def test_what_somebody_adds_around_steps_is_not_replayed_unless_it_says_so() -> None:
    plan = plan_settings(resolve("smoke", {"sparsity.method": "spfde"})).method
    assert plan.replays(5) and not Looks(plan.plan, plan.options).replays(5)
    sometimes = LooksSometimes(plan.plan, plan.options)
    assert sometimes.replays(5) and not sometimes.replays(10)


def test_a_step_that_cannot_be_recorded_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def recording(*_: object, **__: object) -> Iterator[None]:
        yield

    def waits(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    steps = Watched()
    steps.run.settings = resolve("smoke", {})
    steps.step = waits
    cause = r"smoke-.* could not be recorded \(operation not permitted when stream is capturing\)"
    with pytest.raises(SpfdeError, match=cause + ".*SPFDE_RECORD=0"):
        Steps._record(steps, (torch.zeros(1),))
    monkeypatch.setenv("SPFDE_RECORD", "0")
    assert Watched().go(8, 8, 8) == 3 * [("step", 8)]


def test_after_an_epoch_nothing_is_kept() -> None:
    steps = Watched()
    steps.go(8, 8, 8)
    steps.forget()
    assert not steps._inputs and steps._graph is None
    assert steps.go(8, 8) == [("step", 8), ("record", 8), ("replay", 8)]
