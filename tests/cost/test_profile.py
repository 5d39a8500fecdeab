import copy
from collections import defaultdict

import pytest
import torch
from torch import nn

from spfde.cost import profile
from spfde.cost.graph import _saved_tensors as saved_tensors
from spfde.cost.profile import LayerProfile
from spfde.cost.profile import _set_training as set_training
from spfde.errors import SpfdeError
from spfde.models import Block, blocks, build
from spfde.sparsity.layers import layers


class Branching(nn.Module):
    """Blocks a, b, c, where b reads the network's input, c reads a and b, and a gate reads a past b."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.b = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU())
        self.c = nn.Conv2d(8, 4, 3, padding=1)
        self.gate = nn.Conv2d(4, 4, 1)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        c = self.c(torch.cat([a, b], dim=1)).sigmoid() * self.gate(a)
        return self.out(c.mean(dim=(2, 3)))


def inputs_that_need_gradients(model, shape):
    found, handles = {}, []
    for name, layer in layers(model).items():
        hook = layer.register_forward_pre_hook(lambda _, args, name=name: found.update({name: args[0].requires_grad}))
        handles.append(hook)
    model(torch.randn(2, *shape))
    for handle in handles:
        handle.remove()
    return found


def saved_bytes(model, shape):
    """What autograd hands to be saved for backward, in bytes a sample: an independent measurement."""

    def measure(batch):
        kept = {}

        def keep(tensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor.detach()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = model(torch.randn(batch, *shape))
        for tensor in [*model.parameters(), *model.buffers()]:
            kept.pop(tensor.untyped_storage().data_ptr(), None)
        del output
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())

    return (measure(5) - measure(3)) / 2


def test_counts_of_resnet32(resnet32_profile):
    found = {layer.name: layer for layer in resnet32_profile.layers}
    assert resnet32_profile.parameters == 1_872_132
    assert resnet32_profile.blocks == 15
    assert sum(layer.macs for layer in found.values() if layer.kind == "conv") == 275_611_648
    assert [layer for layer in found.values() if layer.kind == "linear"] == [
        LayerProfile("classifier", "linear", 12_800, 12_800, 100, 128, block=15, input_block=14)
    ]
    assert found["conv1"] == LayerProfile("conv1", "conv", 884_736, 864, 32_768, 3_072, block=0, input_block=-1)
    assert found["layer2.0.shortcut.0"].macs == 524_288
    assert (found["layer2.0.shortcut.0"].block, found["layer2.0.shortcut.0"].input_block) == (5, 4)
    assert (found["layer2.0.conv2"].block, found["layer2.0.conv2"].input_block) == (5, 5)
    assert sum(layer.output_elements for layer in found.values()) == 630_884


BRANCHES = [Block("a", ("a",)), Block("b", ("b",)), Block("c", ("c", "gate"))]


@pytest.mark.parametrize(
    ("model", "shape", "found"),
    [
        (Branching(), (2, 6, 6), BRANCHES),
        (Branching(), (2, 6, 6), BRANCHES[1:]),
        (build("resnet8", 10, 1, 8), (1, 8, 8), None),
        (build("vgg19", 10, 3, 16, width=0.1), (3, 16, 16), None),
        (build("vgg16-small", 10, 3, 32, width=0.2), (3, 32, 32), None),
        (build("simple-vit-tiny", 10, 3, 8, width=0.2), (3, 8, 8), None),
    ],
)
def test_freezing_as_autograd_does_it(freeze, model, shape, found):
    """Input gradients, trained parameters and saved bytes against a real model with 0, 1, ... blocks frozen."""
    profiled = profile(model, shape, found)
    found = blocks(model) if found is None else found
    for count in range(len(found) + 1):
        frozen = copy.deepcopy(model)
        freeze(frozen, found, count)
        expected = inputs_that_need_gradients(frozen, shape)
        assert {layer.name: layer.input_block >= count for layer in profiled.layers} == expected
        trains = {name: any(p.requires_grad for p in layer.parameters()) for name, layer in layers(frozen).items()}
        assert {layer.name: layer.block >= count for layer in profiled.layers} == trains
        assert profiled.trainable[count] == sum(p.numel() for p in frozen.parameters() if p.requires_grad)
        assert profiled.saved_bytes[count] == saved_bytes(frozen, shape)


@pytest.mark.parametrize("count", [0, 5, 10, 15])
def test_saved_bytes_of_resnet32(freeze, resnet32, resnet32_profile, count):
    model = copy.deepcopy(resnet32)
    freeze(model, blocks(model), count)
    assert resnet32_profile.saved_bytes[count] == saved_bytes(model, (3, 32, 32))


class Shared(nn.Module):
    """Two layers on the image, one of them also on a tensor that ReLU keeps, and two on what a third one gave."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(4, 5)
        self.left, self.right = nn.Linear(5, 3), nn.Linear(5, 3, bias=False)

    def forward(self, x):
        middle = self.third(torch.relu(self.first(x) + self.second(x)))
        return self.left(middle) + self.right(middle)


def test_who_keeps_the_inputs_of_layers():
    """Four bytes an element; what the third reads is ReLU's output, which ReLU saves too while both blocks train."""
    found = profile(Shared(), (6,), [Block("first", ("first",)), Block("second", ("second",))])
    assert set(found.kept_inputs) == {((0, 1), 0, 4 * 6), ((2,), 2, 4 * 4), ((3, 4), 0, 4 * 5)}
    assert found.saved_bytes[0] == 4 * (6 + 4 + 5)


def test_pooling_leaves_its_output_to_the_layer():
    """As in VGG: pooling saves its input and positions, so its output is the layer's own."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 3, 1))
    assert set(profile(model, (1, 4, 4)).kept_inputs) == {((0,), 0, 4 * 16), ((1,), 0, 4 * 2 * 4)}


def test_blocks_that_read_only_the_input_have_no_input_gradient():
    found = {layer.name: layer.input_block for layer in profile(Branching(), (2, 6, 6), BRANCHES).layers}
    assert found == {"a.0": -1, "b.0": -1, "c": 1, "gate": 0, "out": 2}


def test_parameters_outside_the_blocks_are_always_upstream():
    found = profile(Branching(), (2, 6, 6), [Block("c", ("c",))])
    assert {layer.name: layer.input_block for layer in found.layers} == {
        "a.0": -1,
        "b.0": -1,
        "c": 1,
        "gate": 1,
        "out": 1,
    }
    assert {layer.name: layer.block for layer in found.layers} == {"a.0": 1, "b.0": 1, "c": 0, "gate": 1, "out": 1}


def test_modes_and_hooks_of_the_model_do_not_matter_and_nothing_changes(freeze):
    model = build("resnet8", 10, 1, 8)
    freeze(model, blocks(model), 2)
    expected = profile(model, (1, 8, 8))
    model.train()
    calls: dict[str, int] = defaultdict(int)
    model.conv1.register_forward_hook(lambda *_: calls.update(conv1=1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()], [p.requires_grad for p in model.parameters()]
    random = torch.get_rng_state()
    with torch.no_grad():
        assert profile(model, (1, 8, 8)) == expected
    assert not calls
    assert flags == ([module.training for module in model.modules()], [p.requires_grad for p in model.parameters()])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    model(torch.zeros(2, 1, 8, 8))
    assert calls == {"conv1": 1}


def test_a_function_in_python_saves_what_it_says():
    """Not what else it keeps on its context, which no hook for saved tensors sees."""

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            ctx.more = torch.ones(7)
            return 2 * x

        @staticmethod
        def backward(ctx, gradient):
            return 2 * gradient

    x = torch.ones(3, requires_grad=True)
    (saved,) = saved_tensors(Doubled.apply(x).grad_fn)
    assert saved is x


def test_modes_of_the_passes_that_are_watched():
    """Leaves alone train where a container's own code asks for its mode, as torch's encoder does."""
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Dropout()), nn.ReLU())
    leaves = [model[0][0], model[0][1], model[1]]
    for which, expected in (("all", set(model.modules())), ("leaves", set(leaves)), ("none", set())):
        set_training(model, which)
        assert {module for module in model.modules() if module.training} == expected


def test_grouped_convolution_and_linear_over_tokens():
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.Flatten(2), nn.Linear(16, 5))
    first, second = profile(model, (4, 6, 6)).layers
    assert (first.macs, first.weights) == (6 * 16 * 2 * 9, 6 * 2 * 9)
    assert (second.macs, second.input_elements, second.output_elements) == (6 * 16 * 5, 96, 30)


def test_a_layer_called_twice_counts_twice():
    shared = nn.Linear(4, 4)
    found = profile(nn.Sequential(shared, nn.ReLU(), nn.Sequential(shared), nn.Linear(4, 2)), (4,))
    assert [(layer.name, layer.macs, layer.input_elements) for layer in found.layers] == [("0", 32, 8), ("3", 8, 4)]


def test_the_wrong_shape_is_one_clear_error(resnet32):
    with pytest.raises(
        SpfdeError, match=r"does not run on an input of shape \(1, 32, 32\).*; give the shape of one sample"
    ):
        profile(resnet32, (1, 32, 32))


def test_a_model_without_layers_is_refused():
    with pytest.raises(SpfdeError, match="no convolution or linear layer"):
        profile(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4)), (4,))
