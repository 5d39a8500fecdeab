"""The Lightning callback in short runs on the CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from spfde import settings_for
from spfde.data import Indexed
from spfde.errors import SpfdeError

pytest.importorskip("lightning", reason="the extra `lightning` is not installed")

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from spfde.lightning import SparseCallback

pytestmark = pytest.mark.filterwarnings("ignore")
EPOCHS, SAMPLES = 6, 40


def network() -> nn.Module:
    torch.manual_seed(0)
    stages = [nn.Sequential(nn.Conv2d(i, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()) for i in (1, 6, 6)]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))


class Module(LightningModule):
    def __init__(self, scheduler: bool = False) -> None:
        super().__init__()
        self.model = network()
        self.scheduler = scheduler
        self.seen: list[int] = []
        self.rates: list[list[float]] = []

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], _: int) -> dict[str, Tensor]:
        indices, images, labels = batch
        self.seen += indices.tolist()
        logits = self.model(images)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    def on_train_batch_start(self, _: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.rates.append([group["lr"] for group in self.trainer.optimizers[0].param_groups])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
        return ([optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2)]) if self.scheduler else optimizer


def fit(
    folder: Path,
    module: LightningModule | None = None,
    method: str = "spfde",
    resume: Path | None = None,
    workers: int = 0,
    trainer: dict[str, Any] | None = None,
    also: list[Any] | None = None,
    **told: Any,
) -> tuple[Any, SparseCallback]:
    chosen = {"freezing": 0.1, "sieving": 0.25, "interval": 2, "sparsity": 0.5}
    settings = settings_for(method, epochs=EPOCHS, batch_size=10, seed=3, **chosen)
    callback = SparseCallback(settings, input_shape=(1, 6, 6), samples=SAMPLES, **told)
    draws = torch.Generator().manual_seed(1)
    data = TensorDataset(torch.randn(SAMPLES, 1, 6, 6, generator=draws), torch.arange(SAMPLES) % 4)
    loader = DataLoader(Indexed(data), batch_size=10, sampler=callback.sampler, num_workers=workers)
    module = module or Module()
    keep = ModelCheckpoint(folder, "{epoch}", save_top_k=-1)
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    run = Trainer(**{**quiet, "max_epochs": EPOCHS, "callbacks": [callback, keep, *(also or [])], **(trainer or {})})
    run.fit(module, loader, ckpt_path=resume)
    return module, callback


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_is_sparse_frozen_and_sieved_and_resumes_bit_for_bit(tmp_path: Path, workers: int) -> None:
    module, callback = fit(tmp_path)
    sparse = callback.training
    assert sparse is not None and sparse.begun == EPOCHS
    assert sparse.plan.schedule.counts[-1] == 2 and sparse.frozen_blocks == 0  # thawed at the end
    assert sparse.history.samples.tolist() == [30] * EPOCHS and sparse.sieve.updates == 2
    assert all(int(layer.weight.count_nonzero()) == round(layer.weight.numel() / 2) for layer in sparse.masks)
    assert all(set(module.seen[30 * epoch : 30 * epoch + 30]).__len__() == 30 for epoch in range(EPOCHS))
    network().load_state_dict(module.model.state_dict())

    again, second = fit(tmp_path / "again", resume=tmp_path / "epoch=2.ckpt", workers=workers)
    if not workers:  # what a worker is given is not seen here
        assert again.seen == module.seen[90:]
    expected = module.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in again.model.state_dict().items())
    assert second.training.trace().equals(sparse.trace())


def test_a_checkpoint_of_an_epochs_last_step_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Lightning then trains the next epoch without calling on_train_epoch_start."""
    every = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=3)  # 30 of 40 samples, batches of 10
    whole, callback = fit(tmp_path / "ends", also=[every])
    assert len(list(tmp_path.glob("step=*.ckpt"))) == EPOCHS
    for epoch in (0, 2, 4, 5):
        again, second = fit(tmp_path / f"{epoch}", resume=tmp_path / f"step={3 * epoch + 3}.ckpt")
        assert again.seen == whole.seen[30 * (epoch + 1) :]
        assert second.training.history.samples.tolist() == [30] * EPOCHS
        assert second.training.trace().equals(callback.training.trace())
        weights = whole.model.state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in again.model.state_dict().items())


def test_an_interrupted_fit_does_not_stand_in_the_way_of_the_next(tmp_path: Path) -> None:
    class Interrupted(Module):
        stop = True

        def training_step(self, batch: tuple[Tensor, Tensor, Tensor], number: int) -> dict[str, Tensor]:
            if self.stop and self.current_epoch == 3:
                raise RuntimeError("interrupted")
            return super().training_step(batch, number)

    module = Interrupted()
    settings = settings_for("set", epochs=EPOCHS, batch_size=10, sparsity=0.5, interval=2)
    callback = SparseCallback(settings, input_shape=(1, 6, 6), samples=SAMPLES)
    data = TensorDataset(torch.randn(SAMPLES, 1, 6, 6), torch.arange(SAMPLES) % 4)
    loader = DataLoader(Indexed(data), batch_size=10, sampler=callback.sampler)
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"max_epochs": EPOCHS, "callbacks": [callback], "enable_checkpointing": False}
    with pytest.raises(RuntimeError, match="interrupted"):
        Trainer(**quiet).fit(module, loader)
    module.stop = False
    Trainer(**quiet).fit(module, loader)
    assert callback.training is not None and callback.training.finished and callback.training.begun == EPOCHS


def test_a_loop_that_goes_wrong_is_told_by_the_next_epoch(tmp_path: Path) -> None:
    class Manual(Module):
        """Steps an optimizer that is not the trainer's."""

        automatic_optimization = False

        def training_step(self, batch: tuple[Tensor, Tensor, Tensor], number: int) -> dict[str, Tensor]:
            given = super().training_step(batch, number)
            self.manual_backward(given["loss"])
            torch.optim.SGD(self.parameters(), lr=0.1).step()
            return given

    with pytest.raises(SpfdeError, match="no optimizer step was seen in epoch 0"):
        fit(tmp_path, Manual())


def test_rates_are_the_callbacks_or_the_modules_own(tmp_path: Path) -> None:
    module, callback = fit(tmp_path)
    rates = callback.training.plan.schedule.learning_rates(3, 0.1, 4e-8)
    assert [given == pytest.approx(rates[epoch].tolist()) for epoch, given in enumerate(module.rates)] == [True] * 6
    module, _ = fit(tmp_path / "own", Module(scheduler=True), learning_rates="own")
    assert [rate for [rate] in module.rates] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    with pytest.raises(SpfdeError, match=r'scheduler.*learning_rates="own"'):
        fit(tmp_path / "both", Module(scheduler=True))


def test_the_gradients_of_a_closure_are_masked(tmp_path: Path) -> None:
    """Lightning computes gradients inside the optimizer's step: momentum may not gather outside the masks."""
    momentum: list[float] = []

    class Watched(Module):
        def on_train_batch_end(self, *_: Any) -> None:
            [callback] = [c for c in self.trainer.callbacks if isinstance(c, SparseCallback)]
            state = self.trainer.optimizers[0].state
            for layer in callback.training.masks.trained:
                buffer = state[layer.weight]["momentum_buffer"]
                momentum.append(float(buffer[~layer.active].abs().sum()))

    fit(tmp_path, Watched())
    assert momentum and not any(momentum)


def test_rigl_grows_by_gradient_with_accumulation_and_clipping(tmp_path: Path) -> None:
    _, callback = fit(tmp_path, method="rigl", trainer={"accumulate_grad_batches": 3, "gradient_clip_val": 1.0})
    assert callback.training.step == EPOCHS
    _, callback = fit(tmp_path / "b", method="rigl", trainer={"gradient_clip_val": 1.0})
    assert callback.training.step == 3 * EPOCHS and callback.training.masks.overlap_first() < 1


def test_what_the_callback_cannot_do_is_said(tmp_path: Path) -> None:
    with pytest.raises(SpfdeError, match=r"6 epochs, the trainer max_epochs=4; make them equal"):
        fit(tmp_path, trainer={"max_epochs": 4})
    with pytest.raises(SpfdeError, match='no network "net"'):
        fit(tmp_path, network="net")

    class Silent(Module):
        def training_step(self, batch: tuple[Tensor, Tensor, Tensor], _: int) -> Any:
            return super().training_step(batch, _)["loss"]

    with pytest.raises(SpfdeError, match="training_step returns no logits"):
        fit(tmp_path, Silent())
