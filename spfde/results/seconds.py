"""Seconds of a record's mean epoch, from the steps that `spfde bench steps` measured and the record's own trace.

Never the wall time of the run: what else a machine does, and how politely a run was started, says nothing of a method.
Evaluation and what happens between epochs are not in it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spfde.cost.trace import matrix
from spfde.errors import SpfdeError
from spfde.planning import Plan


def device_kind(summary: Mapping[str, Any]) -> str:
    """The kind of the device on which a record was made, e.g. "cpu"; empty where its summary does not say."""
    try:
        return str(summary["environment"]["device"]).partition(":")[0]
    except (KeyError, TypeError):
        return ""


class StepSeconds:
    """Measured steps of one network.

    Args:
        frame: what `spfde bench steps` writes.

    Attributes:
        kind: what they were measured on, "cpu" or "cuda"; runs on another kind have kernels that they say nothing of.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.network = str(frame["model"].iloc[0]), int(frame["macs"].iloc[0]), int(frame["batch_size"].iloc[0])
        self.kind = str(frame["device"].iloc[0]).partition(":")[0]
        self._levels = {
            int(str(frozen)): rows.sort_values("share")[["share", "seconds"]].to_numpy(dtype=float)
            for frozen, rows in frame.groupby("frozen")
        }

    @classmethod
    def read(cls, path: Path) -> "StepSeconds | None":
        """The file's; none where there is no such file.

        Raises:
            SpfdeError: the file is something else.
        """
        if not path.is_file():
            return None
        try:
            return cls(pd.read_csv(path))
        except (KeyError, IndexError, ValueError) as error:
            cause = f"{path} holds no measured steps ({error.__class__.__name__})"
            raise SpfdeError(cause, f"write it anew with `spfde bench steps --out {path}`") from error

    def seconds(self, share: float, frozen: int) -> float:
        """Of a step that runs this share of the dense forward pass with so many blocks frozen.

        Between what was measured it changes evenly; beyond it stays as it is at the end.
        """
        levels = sorted(self._levels)
        at_share = [float(np.interp(share, *self._levels[level].T)) for level in levels]
        return float(np.interp(frozen, levels, at_share))

    def of_epoch(self, plan: Plan, trace: pd.DataFrame) -> float | None:
        """Of a mean epoch of a trace; none where the steps are another network's."""
        settings, profile = plan.settings, plan.profile
        macs = np.array([layer.macs for layer in profile.layers], dtype=float)
        if self.network != (settings.model.name, int(macs.sum()), settings.training.batch_size):
            return None
        layers = len(profile.layers)
        executed = matrix(trace, "executed_forward", layers)
        shares = np.where(np.isnan(executed), 1.0, executed) @ macs / macs.sum()
        blocks = np.array([layer.block for layer in profile.layers])
        frozen = np.where(matrix(trace, "frozen", layers).astype(bool), blocks + 1, 0).max(axis=1)
        steps = -(-matrix(trace, "samples", layers)[:, 0] // settings.training.batch_size)
        each = [self.seconds(share, int(count)) for share, count in zip(shares, frozen, strict=True)]
        return float(steps @ np.array(each) / len(steps))
