"""What happened in the epochs of a round: steps, samples, active weights and activations, how far the masks moved.

Everything about masks stays on the device until the trace is asked for, so counting never waits for the device.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from spfde.cost.trace import OVERLAPS
from spfde.planning import Plan
from spfde.sparsity.masks import Masks


class History:
    """Counts what happens in one round, epoch by epoch.

    Args:
        epochs: epochs of the round.
        masks: the masks that it is about.

    Attributes:
        samples: samples seen in each epoch, shape (epochs,).
        steps: optimizer steps of each epoch, shape (epochs,).
        activations: what `Method.take_activations` counted in each epoch, shape (epochs, layers, 2); where several
            processes share the batches, of this process's share.
    """

    def __init__(self, epochs: int, masks: Masks) -> None:
        device = masks.counts.device
        self.masks = masks
        self.samples = np.zeros(epochs, dtype=np.int64)
        self.steps = np.zeros(epochs, dtype=np.int64)
        self.activations = np.zeros((epochs, len(masks), 2), dtype=np.int64)
        self._active = torch.zeros(epochs, len(masks), dtype=torch.int64, device=device)  # summed over steps
        self._executed = torch.zeros_like(self._active)  # weights that kernels multiplied by, likewise
        self._moves = torch.zeros(epochs, len(masks), 5, dtype=torch.int64, device=device)  # `Masks.moves`, at the end
        self._closed = 0
        self._sizes = torch.from_numpy(masks.sizes).to(device)

    def step(self, epoch: int, sparse: Tensor | None = None, activations: np.ndarray | None = None) -> None:
        """Counts a step, and the weights that it trained.

        Args:
            epoch: the epoch of the step.
            sparse: which layers skipped their zeros in it, (layers,) booleans; none of them by default.
            activations: what `Method.take_activations` counted in it.
        """
        self._active[epoch] += self.masks.counts
        self._executed[epoch] += self._sizes if sparse is None else torch.where(sparse, self.masks.counts, self._sizes)
        if activations is not None:
            self.activations[epoch] += activations
        self.steps[epoch] += 1

    def close(self, epoch: int) -> None:
        """Closes the account of an epoch, before the masks change for the next one."""
        self._moves[epoch] = self.masks.moves()
        self._closed = epoch + 1

    def trace(self, plan: Plan) -> pd.DataFrame:
        """The trace: what happened where steps were done, else what is planned (columns: `spfde.cost.trace`)."""
        sparse = np.array([layer.name in self.masks.layers for layer in plan.profile.rows])
        done = self.steps > 0
        forward = plan.densities
        mean = self._active.cpu().numpy()[done] / self.steps[done, None]
        forward[done[:, None] & sparse] = (mean / self.masks.sizes).ravel()
        overlaps = {name: np.full(forward.shape, np.nan) for name in OVERLAPS}
        for name, values in zip(OVERLAPS, self._shares(), strict=True):
            overlaps[name][: self._closed] = 1.0  # dense layers
            overlaps[name][: self._closed, sparse] = values
        executed = np.full(forward.shape, np.nan)
        executed[done] = 1.0  # dense layers
        executed[:, sparse] = self.executed()
        used = np.full(forward.shape, np.nan)
        kept, seen = self.activations[..., 0], self.activations[..., 1]
        used[:, sparse] = np.divide(kept, seen, out=np.full(kept.shape, np.nan), where=seen > 0)
        return plan.trace(forward, np.where(done, self.samples, plan.samples), overlaps, executed, used)

    def executed(self) -> np.ndarray:
        """Share of each dense pass that was run, by epoch and masked layer; not a number in epochs without steps."""
        ran = np.full(self._executed.shape, np.nan)
        done = self.steps > 0
        ran[done] = self._executed.cpu().numpy()[done] / self.steps[done, None] / self.masks.sizes
        return ran

    def _shares(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The columns `OVERLAPS` of the epochs that are over, each (epochs, layers)."""
        moves = self._moves[: self._closed].cpu().numpy()
        ever, first, both = moves[..., 0], moves[..., 1], moves[..., 2]
        before, stayed = np.diff(moves[..., 3:], axis=0, prepend=0).transpose(2, 0, 1)  # in each epoch alone
        return ever / self.masks.sizes, _share(both, first), _share(stayed, before)

    # resuming

    def state_dict(self) -> dict[str, Tensor]:
        return {
            "samples": torch.from_numpy(self.samples.copy()),
            "steps": torch.from_numpy(self.steps.copy()),
            "activations": torch.from_numpy(self.activations.copy()),
            "active": self._active.clone(),
            "executed": self._executed.clone(),
            "moves": self._moves.clone(),
            "closed": torch.tensor(self._closed),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.samples = state["samples"].cpu().numpy().copy()
        self.steps = state["steps"].cpu().numpy().copy()
        if "activations" in state:  # not in the state of an earlier version; the trace then has what is planned
            self.activations = state["activations"].cpu().numpy().copy()
        self._active.copy_(state["active"])
        self._executed.copy_(state["executed"])
        self._moves.copy_(state["moves"])
        self._closed = int(state["closed"])


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, or 1 where the whole is 0."""
    return np.divide(part, whole, out=np.ones(part.shape), where=whole > 0)
