"""Training steps on a GPU, recorded once per epoch and replayed (CUDA graphs).

A step of a small network is hundreds of kernels of a few microseconds each, and starting them from Python takes longer
than running them. Within an epoch all steps of whole batches are alike, but for those that change masks: the same
kernels on the same tensors at the same learning rates. So the first step of an epoch runs as it is written, the second
one is recorded, and the others replay the recording, with their samples put where the recorded step read its own. A
replay computes the same numbers as the step that it replaces, bit for bit. What a step counts on the host is counted
beside the replay: the optimizer's hooks and `spfde.guards` see only the steps that are not replayed, and steps and
samples of the others come from `SparseTraining.count_replayed`. What the guards note on the device (the samples that an
epoch has seen) is in the recording.
"""

import contextlib
import os
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from spfde.errors import SpfdeError
from spfde.training.run import Training

Step = Callable[[Training, Tensor, Tensor, Tensor], None]


class Steps:
    """The steps of a run: recorded and replayed on a GPU where they are alike, else one by one.

    Several processes that train together send messages within a step; their steps are not recorded. On a GPU the run
    has to be made and trained on a stream of its own (`own_stream`), because the default stream cannot be recorded.
    Nothing is recorded either where the environment variable SPFDE_RECORD is 0.

    Args:
        run: the run.
        step: one step, from the indices, images and labels of its batch on.
    """

    def __init__(self, run: Training, step: Step) -> None:
        self.run, self.step = run, step
        wanted = os.environ.get("SPFDE_RECORD", "1") != "0"
        self._able = wanted and run.device.type == "cuda" and run.team.size == 1
        self._last: tuple[int, int] | None = None  # epoch and samples of the last step that could have been recorded
        self._recorded: tuple[int, int] | None = None  # the same of the recording
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []

    def __call__(self, indices: Tensor, images: Tensor, labels: Tensor) -> None:
        """Makes the step of a batch; arguments as in `spfde.training.loop.step`.

        Raises:
            SpfdeError: the step cannot be recorded, e.g. because the network waits for the device.
        """
        run, batch = self.run, (indices, images, labels)
        if not self._able or not run.sparse.steps_alike:
            return self.step(run, *batch)
        like = run.epoch, len(indices)
        if self._recorded == like:
            self._replay(batch)
            run.sparse.count_replayed(len(indices))
            run.done += 1
        elif self._last == like:
            self._record(batch)
            self._recorded = like
            self._replay(batch)  # recording runs no kernel, and counts the step on the host
        else:
            # The first step of an epoch makes what is made once: momentum of weights that begin to train, workspaces.
            self._last = like
            self.step(run, *batch)

    def forget(self) -> None:
        """Gives back the memory of the recording, which holds all activations of a step; called after an epoch."""
        self._graph, self._inputs, self._recorded, self._last = None, [], None, None

    def _record(self, batch: tuple[Tensor, ...]) -> None:
        self._inputs = [values.clone() for values in batch]
        self._graph = torch.cuda.CUDAGraph()
        # Only this thread must not make calls that a recording cannot hold: another one, which pins the memory of
        # batches from disk, makes such calls at any moment.
        stream = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
                self.step(self.run, *self._inputs)
        except RuntimeError as error:
            why = str(error).partition("\n")[0]
            cause = f"a step of {self.run.settings.run_id} could not be recorded ({why})"
            remedy = "set the environment variable SPFDE_RECORD=0, so that all steps run one by one"
            raise SpfdeError(cause, remedy) from error

    def _replay(self, batch: tuple[Tensor, ...]) -> None:
        assert self._graph is not None
        for place, values in zip(self._inputs, batch, strict=True):
            place.copy_(values)
        self._graph.replay()


@contextlib.contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """On a GPU, a context with a stream other than the default one."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        torch.cuda.current_stream(device).wait_stream(stream)
