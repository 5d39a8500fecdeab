"""Sparse kernels under a model: copies, hooks, masks that change, steps that must be dense, buffers."""

import copy
import multiprocessing
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import BasicBlock as TorchvisionBlock
from torchvision.models.resnet import ResNet

from spfde import kernels
from spfde.errors import SpfdeError
from spfde.kernels import memory
from spfde.models.resnet import BasicBlock, CifarResNet
from tests.kernels.test_block import prepared

pytestmark = pytest.mark.usefixtures("sparse")


@pytest.fixture
def model():
    return prepared(CifarResNet(10, 3, (8, 8, 16), 1))


@pytest.fixture
def attached(model):
    module, masks = model
    handle = kernels.attach(module, masks)
    yield module, masks, handle
    handle.detach()


def gradients(module, x, dense=None):
    module.zero_grad()
    module(x).square().sum().backward()
    return {name: p.grad.clone() for name, p in module.named_parameters()}


def test_copies_are_plain(attached):
    module, _, handle = attached
    keys, x = list(module.state_dict()), torch.rand(4, 3, 8, 8)
    assert isinstance(module, CifarResNet)
    assert [unit.name for unit in handle.units] == ["conv1", "layer1.0", "layer2.0", "layer3.0"]
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(copied) is CifarResNet
        assert list(copied.state_dict()) == keys
        torch.testing.assert_close(copied(x), module(x))
    averaged = torch.optim.swa_utils.AveragedModel(module)
    averaged.update_parameters(module)
    assert type(averaged.module) is CifarResNet
    handle.detach()
    assert type(module) is CifarResNet
    assert list(module.state_dict()) == keys


def test_hooks_of_the_model_itself_work(attached):
    module, _, handle = attached
    seen = []
    module.register_forward_hook(lambda *_: seen.append(1))
    module(torch.rand(4, 3, 8, 8))
    assert seen == [1]
    assert handle.executed == {name for unit in handle.units for name in unit.layers}


def test_what_needs_dense_kernels_gets_them_and_says_so_once(attached):
    module, _, handle = attached
    x = torch.rand(4, 3, 8, 8)
    wanted = module(x)
    hook = module.layer2[0].conv1.register_forward_hook(lambda *_: None)
    with pytest.warns(UserWarning, match="a layer inside has a hook"):
        torch.testing.assert_close(module(x), wanted)
    assert handle.executed == set()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module(x)
        hook.remove()
        module(x)
        assert handle.executed
    with pytest.warns(UserWarning, match="autocast"), torch.autocast("cpu", torch.bfloat16):
        module(x)
    with pytest.warns(UserWarning, match="torch.float64"):
        module.double()(x.double())
    module.float()
    module.layer1[0].conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    with pytest.warns(UserWarning, match="was replaced"):
        module(x)


def test_traced_and_transformed_models_run_dense(attached):
    module, _, _ = attached
    module.eval()
    x = torch.rand(4, 3, 8, 8)
    with pytest.warns(UserWarning, match="traced"):
        traced = torch.jit.trace(module, x)
    torch.testing.assert_close(traced(x), module(x))
    with pytest.warns(UserWarning, match=r"torch\.func"):
        torch.func.jvp(module, (x,), (torch.ones_like(x),))


def test_compiled_models_run_dense(attached):
    module, _, handle = attached
    wanted = module(torch.ones(4, 3, 8, 8))
    compiled = torch.compile(module, backend="eager")
    torch.testing.assert_close(compiled(torch.ones(4, 3, 8, 8)), wanted)
    assert handle.executed == set()


def test_a_second_derivative_is_an_error(attached):
    module, _, _ = attached
    loss = module(torch.rand(4, 3, 8, 8)).sum()
    first = torch.autograd.grad(loss, module.layer1[0].conv1.weight, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_masks_that_change(attached):
    module, masks, handle = attached
    x = torch.rand(4, 3, 8, 8)
    plain = copy.deepcopy(module)
    name = "layer2.0.conv2"
    masks[name].copy_(torch.rand(masks[name].shape) < 0.5)
    for one in (module, plain):
        with torch.no_grad():
            weight = one.get_submodule(name).weight
            weight.copy_(torch.linspace(-1, 1, weight.numel()).view_as(weight) * masks[name])
    handle.rebuild([name, "a layer that has no kernels"])
    torch.testing.assert_close(module(x), plain(x))
    found, wanted = gradients(module, x), gradients(plain, x)
    torch.testing.assert_close(found[f"{name}.weight"], wanted[f"{name}.weight"] * masks[name], rtol=1e-4, atol=1e-4)


def test_dense_steps(attached):
    module, masks, handle = attached
    x = torch.rand(4, 3, 8, 8)
    plain = gradients(copy.deepcopy(module), x)
    sparse = gradients(module, x)
    with handle.dense_step():
        module.zero_grad()
        loss = module(x).square().sum()
    loss.backward()
    for name, p in module.named_parameters():
        assert torch.equal(p.grad, plain[name])
    name = "layer1.0.conv1"
    assert sparse[f"{name}.weight"][~masks[name]].count_nonzero() == 0
    assert plain[f"{name}.weight"][~masks[name]].count_nonzero() > 0


def test_gradients_at_sampled_positions(attached):
    module, masks, handle = attached
    x = torch.rand(4, 3, 8, 8)
    plain = gradients(copy.deepcopy(module), x)
    flat = torch.tensor([0, 5, 77])
    boolean = torch.rand(masks["layer2.0.conv1"].shape) < 0.1
    with handle.sample({"layer1.0.conv1": flat, "layer2.0.conv1": boolean, "classifier": flat}):
        found = gradients(module, x)
    first = masks["layer1.0.conv1"].clone()
    first.view(-1)[flat] = True
    for name, where in {"layer1.0.conv1": first, "layer2.0.conv1": masks["layer2.0.conv1"] | boolean}.items():
        wanted = plain[f"{name}.weight"] * where
        torch.testing.assert_close(found[f"{name}.weight"], wanted, rtol=1e-4, atol=1e-4)
    after = gradients(module, x)
    assert after["layer1.0.conv1.weight"].view(-1)[flat][~masks["layer1.0.conv1"].view(-1)[flat]].count_nonzero() == 0


def test_units_that_run_dense_between_sparse_ones(attached):
    module, masks, handle = attached
    x = torch.rand(20, 3, 8, 8)
    wanted = gradients(copy.deepcopy(module), x)
    handle.choose({"layer2.0": "dense", "conv1": "dense"})
    found = gradients(module, x)
    assert not any(name.startswith(("layer2", "conv1")) for name in handle.executed)
    for name, gradient in wanted.items():
        layer = name.removesuffix(".weight")
        mask = masks[layer] if layer in handle.executed and layer in masks else torch.ones(())
        torch.testing.assert_close(found[name], gradient * mask, rtol=1e-3, atol=1e-3)
    with pytest.raises(SpfdeError, match=r"layer2\.0"):
        handle.choose({"layer2": "dense"})
    with pytest.raises(SpfdeError, match="cannot run"):
        handle.choose({"layer2.0": "fast"})


def test_a_mask_of_no_layer_is_an_error(model):
    with pytest.raises(SpfdeError, match=r"layer1\.0\.conv1"):
        kernels.attach(model[0], {"layer1.0.konv1": torch.ones(1)})


def test_same_bits_twice(attached):
    module, _, _ = attached
    x = torch.rand(20, 3, 8, 8)
    for threads in (1, 2, 3):
        attached[2].threads = threads
        first, second = gradients(module, x), gradients(module, x)
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_two_forwards_before_a_backward(attached):
    """Shared blocks, SAM, two losses, evaluation in between: no forward pass overwrites what another has kept."""
    module, _, _ = attached
    one, two = torch.rand(64, 3, 16, 16), torch.rand(64, 3, 16, 16)
    apart = [gradients(module, x) for x in (one, two)]
    module.zero_grad()
    first = module(one)
    kept = first.clone()
    second = module(two)
    with torch.no_grad():
        module(one)
    (first.square().sum() + second.square().sum()).backward()
    assert torch.equal(first, kept)
    for name, p in module.named_parameters():
        torch.testing.assert_close(p.grad, apart[0][name] + apart[1][name], rtol=1e-4, atol=1e-3)


def test_activation_checkpoints(model):
    module, masks = model
    handle = kernels.attach(
        module.layer1, {name.removeprefix("layer1."): m for name, m in masks.items() if "layer1" in name}
    )
    x = torch.rand(20, 8, 8, 8, requires_grad=True)
    module.layer1(x).square().sum().backward()
    wanted, x.grad = x.grad, None
    checkpoint(module.layer1, x, use_reentrant=False).square().sum().backward()
    assert torch.equal(x.grad, wanted)
    handle.detach()


def test_a_block_used_twice(sparse):
    block, masks = prepared(BasicBlock(8, 8, 1, False))
    plain = copy.deepcopy(block)
    handle = kernels.attach(block, masks)
    x = torch.rand(20, 8, 6, 6)
    functional.mse_loss(block(block(x)), x).backward()
    functional.mse_loss(plain(plain(x)), x).backward()
    found, wanted = block.conv1.weight.grad, plain.conv1.weight.grad * masks["conv1"]
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)
    handle.detach()


def test_memory_is_lent_while_a_tensor_uses_it():
    memory.release_memory()
    size = memory._PAGE
    first = memory.borrow(2, size)
    address, view = first.data_ptr(), first[1, 5:7]
    del first
    assert memory.borrow(2, size).data_ptr() != address
    del view
    assert memory.borrow(2, size).data_ptr() in (address, *memory._idle[2 * size])
    again = {memory.borrow(2, size).data_ptr() for _ in range(3)}
    assert len(again) == 1, "given back at once and lent again"
    memory.release_memory()
    assert not any(memory._idle.values())


def test_torchvision_network():
    module, masks = prepared(ResNet(TorchvisionBlock, [1, 1, 1, 1], num_classes=5))
    plain = copy.deepcopy(module)
    handle = kernels.attach(module, masks)
    assert [unit.name for unit in handle.units] == [f"layer{i}.0" for i in range(1, 5)]
    x = torch.rand(4, 3, 64, 64)
    torch.testing.assert_close(module(x), plain(x), rtol=1e-3, atol=1e-4)
    handle.detach()


def test_changed_memory_format_and_assigned_parameters(attached):
    module, _, _ = attached
    x = torch.rand(20, 3, 8, 8)
    wanted = gradients(module, x)
    module.to(memory_format=torch.channels_last)
    module.load_state_dict({name: value.clone() for name, value in module.state_dict().items()}, assign=True)
    found = gradients(module, x.contiguous(memory_format=torch.channels_last))
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-4)


def _after_fork(module, x, wanted, queue):
    with torch.no_grad():
        queue.put(torch.equal(module(x), wanted))


def test_a_forked_process_gives_the_same_bits(attached):
    module, _, handle = attached
    handle.threads = 2
    x = torch.rand(20, 3, 8, 8)
    wanted = module(x).detach()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_after_fork, args=(module, x, wanted, queue))
    process.start()
    assert queue.get(timeout=60)
    process.join()


def test_models_without_anything_to_speed_up():
    model = nn.Sequential(nn.Conv1d(3, 3, 1), nn.ReLU())
    handle = kernels.attach(model, {"0": torch.ones(3, 3, 1)})
    assert handle.units == []
    assert type(model) is nn.Sequential
