"""Finds mistakes of a user's own training loop that would stay silent, when the next epoch begins, and names them."""

from collections.abc import Collection, Mapping, Sequence

from torch import nn
from torch.optim import Optimizer

from spfde.errors import SpfdeError
from spfde.sparsity.masks import Masks


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
