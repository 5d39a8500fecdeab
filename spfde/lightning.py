"""`SparseTraining` as a callback of Lightning; needs the extra `lightning`.

    sparse = SparseCallback(settings, input_shape=(3, 32, 32), samples=len(train_set))
    loader = DataLoader(Indexed(train_set), batch_size=64, sampler=sparse.sampler)
    Trainer(max_epochs=settings.training.epochs, callbacks=[sparse]).fit(module, loader)

`training_step` gets batches of (indices, images, labels) and returns {"loss": loss, "logits": logits}.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from spfde.api import SparseTraining
from spfde.errors import SpfdeError
from spfde.models import Block
from spfde.settings import RunSettings
from spfde.sieving import samples_by_epoch
from spfde.sieving.sampler import PartialSetSampler


class SparseCallback(Callback):
    """Trains a LightningModule's network sparse, frozen and sieved, in one process.

    Its state travels in Lightning's checkpoints. Training resumed from one that was written at the end of an epoch,
    or after its last step, goes on as if nothing had happened; Lightning itself draws an epoch's batches anew where it
    was cut in the middle.

    Args:
        settings: the run's settings; the trainer's `max_epochs` are theirs.
        input_shape: shape of one input, (channels, height, width).
        samples: size of the training set.
        network: attribute of the LightningModule that holds the network.
        blocks: freezing blocks in forward order, as in `SparseTraining`.
        dense: names of layers that stay dense, as in `SparseTraining`.
        fetch: gives images and labels at positions of the training set, as in `SparseTraining`.
        learning_rates: as in `SparseTraining`; "own" where `configure_optimizers` returns a scheduler.

    Attributes:
        training: the SparseTraining, from the start of `fit` on.
    """

    def __init__(
        self,
        settings: RunSettings,
        *,
        input_shape: tuple[int, ...],
        samples: int,
        network: str = "model",
        blocks: list[Block] | None = None,
        dense: Collection[str] = (),
        fetch: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
        learning_rates: Literal["cosine", "own"] = "cosine",
    ) -> None:
        self.settings = settings
        self.network = network
        self.samples = samples
        self._rest: dict[str, Any] = {
            "input_shape": input_shape,
            "blocks": blocks,
            "dense": dense,
            "fetch": fetch,
            "learning_rates": learning_rates,
        }
        self.training: SparseTraining | None = None
        self._state: dict[str, Tensor] = {}  # of the checkpoint that training resumes from

    @property
    def sampler(self) -> PartialSetSampler:
        """Shuffled indices of the partial set, for the DataLoader of training."""
        settings = self.settings
        if settings.sieving.equal_flops:
            cause = "sieving.equal_flops = true follows from the network's costs, and the sampler is made before these"
            raise SpfdeError(
                cause, "set sieving.removed to the share that `spfde plan` gives, and leave equal_flops out"
            )
        counts = samples_by_epoch(settings.sieving, settings.sparsity.interval, settings.training.epochs, self.samples)
        return PartialSetSampler(counts, lambda: self.training)

    def seen(self, outputs: Any, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Positions, logits and labels of a step's samples; to be overridden for batches of another form.

        Args:
            outputs: what `training_step` returned.
            batch: what it got.
        """
        if not isinstance(outputs, dict) or "logits" not in outputs:
            raise SpfdeError("training_step returns no logits", 'return {"loss": loss, "logits": logits}')
        if not isinstance(batch, Sequence) or len(batch) != 3:
            cause = "a batch is not (indices, images, labels)"
            raise SpfdeError(cause, "wrap the training set in spfde.data.Indexed, or override SparseCallback.seen")
        return batch[0], outputs["logits"], batch[2]

    # what Lightning calls

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network = getattr(pl_module, self.network, None)
        if not isinstance(network, nn.Module):
            cause = f'the LightningModule has no network "{self.network}"'
            raise SpfdeError(cause, 'name the attribute that holds it: SparseCallback(..., network="...")')
        if trainer.world_size > 1:
            cause = f"the callback trains in one process, and the trainer has {trainer.world_size}"
            raise SpfdeError(cause, "set Trainer(devices=1)")
        if len(trainer.optimizers) != 1:
            cause = f"the callback masks one optimizer's steps, and the module has {len(trainer.optimizers)}"
            raise SpfdeError(cause, "train the network with one optimizer")
        if self.training:  # of a fit that was interrupted
            self.training.detach()
        self.training = SparseTraining(
            network, trainer.optimizers[0], self.settings, samples=self.samples, **self._rest
        )
        if trainer.max_epochs != self.training.epochs:
            cause = f"settings plan {self.training.epochs} epochs, the trainer max_epochs={trainer.max_epochs}"
            raise SpfdeError(cause, "make them equal")
        if self._state:
            self.training.load_state_dict(self._state)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Resuming from the last step of an epoch, Lightning trains the next one without calling on_train_epoch_start.
        if self._state and trainer.current_epoch < self._running().epochs:
            self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        sparse = self._running()
        if trainer.current_epoch < sparse.begun:  # it began before the interruption, or in on_train_start
            return
        sparse.begin_epoch(trainer.current_epoch)
        fetcher = trainer.fit_loop._data_fetcher
        if self._state and fetcher is not None:  # Lightning drew the samples of a resumed epoch before it began
            self._state = {}
            iter(fetcher)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        with torch.no_grad():
            self._running().observe(*self.seen(outputs, batch))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._running().finish()

    def state_dict(self) -> dict[str, Any]:
        return dict(self.training.state_dict()) if self.training else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = state_dict

    def _running(self) -> SparseTraining:
        assert self.training is not None  # on_fit_start comes first
        return self.training
