"""SNIP and GraSP against autograd and an explicit Hessian on a two-layer network."""

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.utils.flop_counter import FlopCounterMode

from spfde import settings_for
from spfde.api import SparseTraining
from spfde.cost.profile import profile
from spfde.errors import SpfdeWarning
from spfde.experiments.resolve import expand, nested, resolve
from spfde.methods import make
from spfde.methods.base import MethodPlan
from spfde.methods.grasp import hessian_gradient
from spfde.methods.ranked import best, gradient, warn_of_empty
from spfde.models import build
from spfde.plans import plan_settings
from spfde.settings import RunSettings, parse

SAMPLES, CLASSES, FEATURES = 60, 3, 6


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, CLASSES))


def data() -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(4)
    images = torch.randn(SAMPLES, 1, 2, 3, generator=draws)
    return images, torch.randint(CLASSES, (SAMPLES,), generator=draws)


def prepared(
    method: str, target: float = 0.7, removed: float = 0.0, **options: object
) -> tuple[SparseTraining, list[Tensor]]:
    """A run before its first epoch, and a list that gathers the positions it will fetch."""
    dotted = {"sparsity.method": method, "sparsity.target": target, "sparsity.dense_layers": "none"}
    dotted |= {"sieving.removed": removed, "sparsity.interval": 1}
    settings = parse(RunSettings, nested({**dotted, "sparsity.options": options, "training.epochs": 2}))
    model, (images, labels) = network(), data()
    fetched: list[Tensor] = []

    def fetch(indices: Tensor) -> tuple[Tensor, Tensor]:
        fetched.append(indices)
        return images[indices], labels[indices]

    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return SparseTraining(model, optimizer, settings, input_shape=(1, 2, 3), samples=SAMPLES, fetch=fetch), fetched


def started(method: str, target: float = 0.7, **options: object) -> tuple[SparseTraining, dict[str, Tensor], Tensor]:
    """A run whose masks are in place, the state that the network had before, and the positions that were fetched."""
    run, fetched = prepared(method, target, **options)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.begin_epoch(0)
    return run, before, torch.cat(fetched)


def highest(scores: list[Tensor], count: int) -> list[Tensor]:
    """Masks of the highest entries of all tensors together, by sorting."""
    everything = sorted(value for score in scores for value in score.flatten().tolist())
    return [score >= everything[-count] for score in scores]


@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_snip_keeps_the_largest_sensitivities(mode: str) -> None:
    run, before, fetched = started("snip", samples=20, batch_norm=mode)
    images, labels = data()
    model = network()
    model.load_state_dict(before)
    model.train(mode == "training")
    F.cross_entropy(model(images[fetched]), labels[fetched]).backward()
    weights: list[Any] = [model[1].weight, model[4].weight]
    expected = highest([(w * w.grad).abs() for w in weights], round(0.3 * sum(w.numel() for w in weights)))
    for layer, mask in zip(run.masks, expected, strict=True):
        assert torch.equal(layer.active, mask)
    assert len(fetched) == len(set(fetched.tolist())) == 20


@pytest.mark.parametrize(("method", "options"), [("snip", {"samples": 1000}), ("grasp", {"per_class": 1000})])
def test_what_is_scored_is_in_the_partial_set(method: str, options: dict[str, int]) -> None:
    run, fetched = prepared(method, removed=0.5, **options)
    run.begin_epoch(0)
    scored = torch.cat(fetched)
    assert run.partial_set is not None and run.partial_set[scored].all()
    assert len(scored) == len(set(scored.tolist())) == SAMPLES // 2
    counted = run.trace().query("epoch == 0").scored_samples.max()
    assert counted == SAMPLES // 2  # GraSP: half of them in each part, twice


def test_grasp_removes_the_highest_scores() -> None:
    """-w (H g) with the Hessian written out, over two halves sorted by class, logits divided by the temperature."""
    run, before, fetched = started("grasp", per_class=5, temperature=2.0)
    images, labels = data()
    chosen: list[int] = []
    for index in fetched.tolist():
        if sum(int(labels[other]) == int(labels[index]) for other in chosen) < 5:
            chosen.append(index)
    chosen.sort(key=lambda index: int(labels[index]))  # stable: drawn order within a class
    halves = [chosen[: len(chosen) // 2 + len(chosen) % 2], chosen[len(chosen) // 2 + len(chosen) % 2 :]]
    assert len(chosen) == 5 * CLASSES
    shapes = [(8, FEATURES), (CLASSES, 8)]

    def loss(flat: Tensor) -> Tensor:
        first, second = (part.view(shape) for part, shape in zip(flat.split([48, 24]), shapes, strict=True))
        total = torch.zeros(())
        for half in halves:
            hidden = images[half].flatten(1) @ first.T + before["1.bias"]
            hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
            logits = hidden.tanh() @ second.T + before["4.bias"]
            total = total + F.cross_entropy(logits / 2.0, labels[half])
        return total

    flat = torch.cat([before["1.weight"].flatten(), before["4.weight"].flatten()]).requires_grad_()
    gradients = torch.autograd.grad(loss(flat), flat)[0]
    removal = -flat.detach() * (hessian(loss, flat.detach()) @ gradients)
    kept = removal.argsort()[: round(0.3 * flat.numel())]
    expected = torch.zeros(flat.numel(), dtype=torch.bool)
    expected[kept] = True
    assert torch.equal(torch.cat([layer.active.flatten() for layer in run.masks]), expected)


def test_hessian_gradient_product_is_that_of_the_explicit_hessian() -> None:
    draws = torch.Generator().manual_seed(0)
    weights = [torch.randn(4, 3, generator=draws, dtype=torch.float64).requires_grad_() for _ in range(2)]
    parts = [torch.randn(5, 3, generator=draws, dtype=torch.float64) for _ in range(3)]

    def loss(part: Tensor, first: Tensor = weights[0], second: Tensor = weights[1]) -> Tensor:
        return ((part @ first.T).tanh() @ second).exp().mean()

    def whole(flat: Tensor) -> Tensor:
        first, second = flat.view(2, 4, 3)
        return torch.stack([loss(part, first, second) for part in parts]).sum()

    flat = torch.stack([weight.detach() for weight in weights]).flatten().requires_grad_()
    expected = hessian(whole, flat.detach()) @ torch.autograd.grad(whole(flat), flat)[0]
    product = hessian_gradient(loss, parts, weights)
    torch.testing.assert_close(torch.cat([part.flatten() for part in product]), expected)


def test_more_equal_parts_rank_the_weights_alike() -> None:
    """Without BatchNorm k parts have k times the gradient and k times the Hessian of the loss over all samples."""
    draws = torch.Generator().manual_seed(0)
    weights = [torch.randn(4, 3, generator=draws, dtype=torch.float64).requires_grad_() for _ in range(2)]
    samples = torch.randn(60, 3, generator=draws, dtype=torch.float64)

    def loss(part: Tensor) -> Tensor:
        return ((part @ weights[0].T).tanh() @ weights[1]).exp().mean()

    whole = hessian_gradient(loss, [samples], weights)
    for count in (2, 6, 20):
        for found, expected in zip(hessian_gradient(loss, samples.tensor_split(count), weights), whole, strict=True):
            torch.testing.assert_close(found, count**2 * expected)


def test_scoring_on_imagenet_takes_less_memory_than_training() -> None:
    """Ten images of each of 1,000 classes; the graph of a part keeps the activations' gradients too."""
    rows = [run for name in ("table2", "table3") for run in expand("imagenet", name) if run.sparsity.method == "grasp"]
    runs = list({run.row_digest: run for run in rows}.values())
    assert [run.row for run in runs] == ["grasp-s80", "grasp-s90"]  # the same ones in both
    plan = plan_settings(runs[0])
    trace = plan.trace()
    assert trace.scored_samples.max() == 2 * 200
    training = plan.costs(trace.assign(scored_samples=0))[1]["full_peak"]
    assert plan.costs(trace)[1]["full_peak"] == training
    halves = trace.assign(scored_samples=2 * 5000)
    assert plan.costs(halves)[1]["full_peak"] > 4 * training
    assert 400 * plan.profile.saved_bytes[0] + 8 * plan.profile.parameters < 40e9  # on one GPU, in fp32


def test_parts_of_far_more_than_a_batch_are_warned_of() -> None:
    with pytest.warns(
        SpfdeWarning, match="parts of 5000; .*memory of 10000 in training, where a batch has 2048; .*parts=10 or more"
    ):
        resolve("imagenet", {"sparsity.method": "grasp"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resolve("imagenet", {"sparsity.method": "grasp", "sparsity.options": {"parts": 10}})
        for scale in ("smoke", "digits", "cifar10", "cifar100", "cifar100-short"):
            resolve(scale, {"sparsity.method": "grasp"})


@pytest.mark.parametrize("method", ["snip", "grasp"])
@pytest.mark.parametrize("target", [0.5, 0.71, 0.9])
def test_the_total_is_exact_and_densities_differ(method: str, target: float) -> None:
    run, _, _ = started(method, target)
    sizes, counts = [48, 24], [int(layer.active.sum()) for layer in run.masks]
    assert sum(counts) == int((1 - target) * 72 + 0.5)
    assert counts != [int((1 - target) * size + 0.5) for size in sizes]


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_scoring_leaves_nothing_behind(method: str) -> None:
    """What trains are the scored weights: only masked; no gradient, no BatchNorm statistics, no random draw."""
    run, _ = prepared(method)
    run.model.append(nn.Dropout(0.5))
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    draws = torch.get_rng_state()
    run.begin_epoch(0)
    assert torch.equal(torch.get_rng_state(), draws)
    masks = {f"{layer.name}.weight": layer.mask for layer in run.masks}
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, before[name] * masks[name] if name in masks else before[name])
    assert all(parameter.grad is None for parameter in run.model.parameters())
    assert all(module.training for module in run.model.modules())


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_a_layer_that_freezes_keeps_its_own_density(method: str) -> None:
    run, _, _ = started(method)
    before = [layer.active for layer in run.masks]
    for layer in run.masks:
        run.method.settle(run, layer)
    assert all(torch.equal(layer.active, mask) for layer, mask in zip(run.masks, before, strict=True))


LINEAR = (nn.Flatten, lambda: nn.Linear(48, 9), nn.Tanh, lambda: nn.Linear(9, 7), nn.Tanh, lambda: nn.Linear(7, 5))
CONVOLUTIONS = (
    lambda: nn.Conv2d(3, 6, 3, padding=1),
    lambda: nn.BatchNorm2d(6),
    nn.Tanh,
    lambda: nn.Conv2d(6, 5, 3, padding=1),
    nn.Tanh,
    nn.Flatten,
    lambda: nn.Linear(80, 5),
)


@pytest.mark.parametrize("modules", [LINEAR, CONVOLUTIONS], ids=["linear", "convolutions"])
@pytest.mark.parametrize("name", ["snip", "grasp"])
def test_costs_of_scoring_are_those_that_are_counted(modules: tuple, name: str) -> None:
    """Matrix products of a SNIP pass and of GraSP's two, as torch's own counter sees them."""
    torch.manual_seed(0)
    model = nn.Sequential(*(module() for module in modules))
    layers = profile(model, (3, 4, 4)).layers
    images, labels = torch.randn(50, 3, 4, 4), torch.arange(5).repeat(10)
    weights = [model.get_parameter(f"{layer.name}.weight") for layer in layers]

    def loss(part: slice) -> Tensor:
        return F.cross_entropy(model(images[part]), labels[part])

    cases: dict[str, Callable[[], object]] = {
        "snip": lambda: gradient(loss(slice(0, 50)), weights),
        "grasp": lambda: hessian_gradient(loss, [slice(0, 25), slice(25, 50)], weights),
    }
    settings = nested({"sparsity.method": name, "sparsity.options": {"samples": 50} if name == "snip" else {}})
    method = make(MethodPlan(parse(RunSettings, settings), {}, classes=5))
    with FlopCounterMode(display=False) as counter:
        cases[name]()
    macs, executed = method.extra_macs(0, layers, samples=1000), method.executed_extra_macs(0, layers, samples=1000)
    # torch's double backward of a convolution also computes the gradient of an input that needs none (and of a strided
    # one, positions that it then cuts away: no strided one here)
    needless = 50 * layers[0].macs if layers[0].kind == "conv" and name == "grasp" else 0
    assert counter.get_total_flops() == 2 * executed.sum() == 2 * (macs.sum() + needless)
    assert not method.executed_extra_macs(1, layers, samples=1000).any()
    assert not method.extra_macs(1, layers, samples=1000).any()


def test_the_record_counts_scoring_as_extra_work() -> None:
    run, _, fetched = started("snip", samples=20)
    flops, _ = run.plan.costs(run.trace())
    first, second = 48, 24
    assert flops["extra"] == 2 * len(fetched) * (2 * first + 3 * second)


@pytest.mark.parametrize(("name", "held"), [("snip", 100), ("grasp", 50)])
def test_the_peak_holds_the_dense_network_while_it_is_scored(name: str, held: int) -> None:
    """100 samples at once, or parts of 50 digits, with their activations' gradients at GraSP, before any step."""
    plan = plan_settings(resolve("smoke", {"sparsity.method": name, "sparsity.target": 0.9, "training.batch_size": 8}))
    peak = plan.costs(plan.trace())[1]
    sets = 2 if name == "grasp" else 1
    assert peak["breakdown"]["weights"] == peak["breakdown"]["gradients"] == 4 * plan.profile.parameters
    assert peak["breakdown"]["activations"] == sets * held * plan.profile.saved_bytes[0]
    assert peak["breakdown"]["momentum"] == 0


def test_the_graph_of_a_gradient_keeps_two_sets_of_activations() -> None:
    """What GraSP's double backward holds at once, by autograd's own hooks: distinct storages beside parameters."""
    model = build("resnet8", 10, 1, 8)
    known = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    weights = [model.get_parameter(f"{layer.name}.weight") for layer in profile(model, (1, 8, 8)).layers]

    def held(samples: int) -> int:
        kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.detach()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = F.cross_entropy(model(torch.randn(samples, 1, 8, 8)), torch.arange(samples) % 10)
            own = gradient(loss, weights, create_graph=True)
        del own
        return sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in known)

    assert (held(8) - held(4)) / 4 == pytest.approx(2 * profile(model, (1, 8, 8)).saved_bytes[0], rel=0.05)


def test_best_takes_exactly_so_many_even_of_equals() -> None:
    masks = best([torch.zeros(3, 5), torch.zeros(7)], 0.25)
    assert [mask.shape for mask in masks] == [(3, 5), (7,)]
    assert sum(int(mask.sum()) for mask in masks) == 6  # 5.5, half up
    assert np.array_equal(best([torch.tensor([3.0, 1.0]), torch.tensor([2.0, 0.0])], 0.5)[1], [True, False])


class Blocked(nn.Module):
    """Its middle layer is multiplied by zero: no gradient ever reaches it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        return self.last(hidden + 0 * self.middle(hidden))


def test_a_layer_that_a_ranking_empties_is_warned_of_by_name() -> None:
    model = Blocked()
    settings = settings_for("snip", sparsity=0.9, epochs=4, batch_size=8, sparsity__dense_layers="none")
    data, labels = torch.randn(16, 6), torch.arange(16) % 3
    sparse = SparseTraining(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        settings,
        input_shape=(6,),
        samples=16,
        fetch=lambda indices: (data[indices], labels[indices]),
    )
    with pytest.warns(SpfdeWarning, match="method snip leaves no weight in middle: nothing is learned there"):
        sparse.begin_epoch(0)
    assert not sparse.masks["middle"].active.any()


@pytest.mark.parametrize(("empty", "named"), [(2, "l0, l1:"), (3, "l0, l1, l2:"), (4, "l0, l1, l2 and 1 more:")])
def test_no_more_than_three_empty_layers_are_named(empty: int, named: str) -> None:
    layers = [SimpleNamespace(name=f"l{index}", mask=torch.tensor([index >= empty])) for index in range(5)]
    with pytest.warns(SpfdeWarning, match=f"method snip leaves no weight in {named}"):
        warn_of_empty("snip", layers)
