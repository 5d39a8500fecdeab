"""Finds mistakes of a user's own training loop that would stay silent, when the next epoch begins, and names them."""

import math
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from spfde.errors import SpfdeError, SpfdeWarning
from spfde.sparsity.masks import Masks


def processes() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def check_alone() -> None:
    """Refuses to count predictions in one of several processes that train together.

    Raises:
        SpfdeError: there are several processes.
    """
    if processes() > 1:
        cause = "sieving counts how every sample fares, and each of several processes sees a part of them"
        remedy = (
            "gather indices and predictions of all and call `count`, set sieving.removed=0, or train in one process"
        )
        raise SpfdeError(cause, remedy)


def check_epoch(epoch: int, begun: int, planned: int, ended: str) -> None:
    """Refuses an epoch that is not the next one of the plan.

    Args:
        epoch: the epoch that is to begin.
        begun: number of epochs that have begun.
        planned: number of epochs of the plan, in all rounds together.
        ended: the call that ended training, if one did.

    Raises:
        SpfdeError: so it is.
    """
    if ended == "detach()":
        cause = f"epoch {epoch} begins after detach(), or after another SparseTraining was made around the same model"
        raise SpfdeError(cause, "train with the one that was made last")
    if ended or epoch >= planned:
        cause = f"epoch {epoch} begins after {ended}" if ended else f"epoch {epoch} is beyond the plan"
        remedy = f"the settings plan epochs 0 to {planned - 1}; make training.epochs as many as the loop has"
        raise SpfdeError(cause, remedy)
    if epoch != begun:
        raise SpfdeError(f"epoch {epoch} where epoch {begun} is next", "begin the epochs in order, each once")


def check_count(begun: int, ended: str) -> None:
    """Refuses samples before the first epoch, and after training has ended by the call `ended`.

    Raises:
        SpfdeError: so it is.
    """
    if ended:
        cause = f"samples are observed after {ended}: nothing masks the weights any more"
        remedy = "observe within the epochs; to train on, make another SparseTraining around model and optimizer"
        raise SpfdeError(cause, remedy)
    if not begun:
        raise SpfdeError("samples are observed before the first epoch began", "call begin_epoch(0) first")


def check_finish(begun: int, ended: str) -> None:
    """Refuses to finish a training that has ended, by the call `ended`, or one that has not begun.

    Raises:
        SpfdeError: so it is.
    """
    if ended or not begun:
        cause = f"{ended} was called before" if ended else "finish() comes before the first epoch"
        raise SpfdeError(cause, "call it once, after the last epoch")


class Guards:
    """Watches the steps of a training, epoch by epoch; never waits for the device inside one.

    Args:
        optimizer: the optimizer whose steps are masked.
        block_of: freezing block of each parameter that is in one.
        names: the names of the blocks; parameters in no block count as one more block, the head.
        idle: parameters that take no part in the forward pass, and need no gradient.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        block_of: Mapping[nn.Parameter, int],
        names: Sequence[str],
        idle: Collection[nn.Parameter] = (),
    ) -> None:
        self._names = [f"block {name}" for name in names] + ["what is in no block (the head)"]
        self._parameters: dict[int, list[nn.Parameter]] = {}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.requires_grad and parameter not in idle:
                    self._parameters.setdefault(block_of.get(parameter, len(names)), []).append(parameter)
        self.begin(0)

    def begin(self, frozen: int) -> None:
        """Starts watching an epoch (also one that goes on after resuming), with `frozen` leading blocks frozen."""
        self._waiting = {block: each for block, each in self._parameters.items() if block >= frozen}
        self._looked = False

    def look(self) -> None:
        """Notes before a step which blocks have gradients; usually all of them have one after the first step."""
        self._looked = True
        if self._waiting:
            self._waiting = {
                block: parameters
                for block, parameters in self._waiting.items()
                if all(parameter.grad is None for parameter in parameters)
            }

    def check(self, epoch: int, steps: int, samples: int, masks: Masks) -> None:
        """Checks the epoch that has ended; waits for the device.

        Args:
            epoch: the epoch that ends.
            steps: optimizer steps seen in it.
            samples: samples observed in it.
            masks: the present masks.

        Raises:
            SpfdeError: there were no steps or no samples, a block that trains got no gradient, or weights outside the
                masks have changed.
        """
        if not steps:
            remedy = (
                "give SparseTraining the optimizer whose step() changes the weights: not one that steps in several "
                "parts (SAM) and not another than the loop's; if a GradScaler skipped every step, "
                "lower its init_scale"
            )
            raise SpfdeError(f"no optimizer step was seen in epoch {epoch}", remedy)
        if not samples:
            cause = f"steps were taken and no sample was observed in epoch {epoch}"
            raise SpfdeError(cause, "call observe(indices, logits, labels) for every batch, or count")
        if self._looked and self._waiting:
            cause = f"{self._names[min(self._waiting)]} trains, and got no gradient in epoch {epoch}"
            remedy = (
                "make the loss depend on it: no torch.no_grad or detach before it, checkpoint(..., "
                "use_reentrant=False); or name your own blocks without what is not used"
            )
            raise SpfdeError(cause, remedy)
        if moved := masks.moved_outside():
            cause = f"weights of layer {moved[0]} outside its mask are not 0 after epoch {epoch}"
            remedy = (
                "let only the given optimizer change them; where weights are loaded or averaged, call "
                "sparse.masks.mask_weights() afterwards"
            )
            raise SpfdeError(cause, remedy)


class Served:
    """Watches which samples a loop trains on, and how many per step; never waits for the device inside an epoch.

    Args:
        batch: samples per optimizer step, as the settings have it.
    """

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._said: set[str] = set()  # what is warned of once
        self.begin(None)

    def begin(self, partial: Tensor | None) -> None:
        """Starts watching an epoch (also one that goes on after resuming).

        Args:
            partial: membership of the partial set, (samples,) booleans; none where data are not sieved.
        """
        self._partial = partial
        self._seen = None if partial is None else torch.zeros_like(partial)
        self._largest = 0  # samples of the largest part
        self._since = 0  # samples since the last step
        self._first: int | None = None  # samples before the first one
        self._sizes: Counter[int] = Counter()  # how many of the others had so many

    def saw(self, indices: Tensor) -> None:
        """Notes the samples of a batch, or of a part of one; where data are sieved, by index, int64 (batch,)."""
        self._largest = max(self._largest, len(indices))
        self._since += len(indices)
        if self._seen is not None:
            self._seen.index_fill_(0, indices, True)

    def step(self) -> None:
        """Notes a step."""
        if self._first is None:
            self._first = self._since
        else:
            self._sizes[self._since] += 1
        self._since = 0

    def check(self, epoch: int, steps: int, samples: int, planned: int) -> None:
        """Checks the epoch that has ended, before the partial set changes; waits for the device.

        Args:
            epoch: the epoch that ends.
            steps: optimizer steps seen in it.
            samples: samples observed in it.
            planned: samples that were to be seen in it.

        Raises:
            SpfdeError: samples outside of the partial set were trained on.
        """
        if self._partial is not None and self._seen is not None:
            outside, members = torch.stack([(self._seen & ~self._partial).sum(), self._partial.sum()]).tolist()
            if outside:
                counted = f"{outside} sample{'s' * (outside > 1)}"
                cause = f"epoch {epoch} trained on {counted} outside of its partial set of {members}"
                remedy = (
                    "give the DataLoader sampler=sparse.sampler in place of shuffle=True, and observe each sample by "
                    "its position in the whole training set"
                )
                raise SpfdeError(cause, remedy)
        together = processes()
        # A distributed sampler pads until all processes have as many samples, another one the last batch.
        if samples - planned >= max(min(self._batch, planned), together):
            text = f"epoch {epoch} trained on {samples} samples where {planned} are planned"
            text += ": the trace counts them, and the plan's costs and steps are of fewer"
            self._warn("samples", f"{text}; serve each sample once an epoch, or plan with as many samples as there are")
        if size := self._other_size(steps, samples):
            sizes = f"training.batch_size is {self._batch}: memory, and what methods plan by steps, are of the latter"
            whole = "batch_size is what one step takes, all accumulated parts and processes together"
            if together > 1:
                text = f"steps of epoch {epoch} count {size} samples in this one of {together} processes, and {sizes}"
                remedy = "in each process call count with the indices of the whole batch"
                self._warn("size", f"{text}; {remedy} ({whole})")
            else:
                text = f"steps of epoch {epoch} train on {size} samples, and {sizes}"
                self._warn("size", f"{text}; make the two agree ({whole})")

    def _other_size(self, steps: int, samples: int) -> int:
        """Samples of most steps, where this is neither what the settings say nor what the number of steps says, else 0.

        In a loop that is right the number of steps may be lower (a scaler skips some), or a size may be odd (a short
        batch at the end, what is left of accumulated parts).
        """
        exact = samples / self._batch
        if steps in (math.floor(exact), math.ceil(exact)):
            return 0
        # A loop may observe a part after the step that it belongs to. What is observed before the first step and after
        # the last one makes a whole step then, and the number of those between is right.
        sizes = self._sizes + Counter([(self._first or 0) + self._since])
        [(size, often)] = sizes.most_common(1)
        if self._largest > self._batch:  # no step that was skipped explains that
            return max(size, self._largest)
        return 0 if sizes[self._batch] == often else size

    def _warn(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            warnings.warn(text, SpfdeWarning, stacklevel=5)  # the line that begins the next epoch, or finishes
