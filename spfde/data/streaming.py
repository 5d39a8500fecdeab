"""Batches of a data set that stays on disk: worker processes decode, crop and flip (the ImageNet recipe)."""

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spfde.data.images import cores, open_image
from spfde.data.loader import LoaderBase
from spfde.data.split import DataInfo, FolderSplit
from spfde.errors import SpfdeError
from spfde.rng import derive, generator
from spfde.settings import DataSettings


class StreamedLoader(LoaderBase):
    """Batches of images on disk, with the order, `members` and `skip` of `Loader`.

    In training each image gets a random resized crop (unless `settings.padding` is 0) and, with `settings.flip`, is
    mirrored with probability one half. Both depend on seed, epoch and sample only, not on the worker. In evaluation the
    shorter side is scaled to 256/224 of the size and the middle is cropped.

    Args:
        workers: processes that decode; by default one for each core that this process may use (its share of them under
            torchrun), at most 16; with 0 this process decodes.
    """

    def __init__(
        self,
        split: FolderSplit,
        settings: DataSettings,
        info: DataInfo,
        batch_size: int,
        seed: int,
        device: torch.device | str,
        train: bool = True,
        workers: int | None = None,
    ) -> None:
        super().__init__(split, info, batch_size, seed, device, train)
        self.split, self.settings, self.info = split, settings, info
        self.workers = _workers() if workers is None else workers

    def _plain(self, indices: Tensor) -> Tensor:
        images = _Images(self.split, self.settings, self.info, self.seed, 0, train=False)[indices.cpu()]
        if isinstance(images, str):
            raise SpfdeError(f"an image cannot be decoded: {images}", "replace it by an intact copy")
        return images.to(self.device)

    def _batches(self, epoch: int, batches: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        if self.workers and batches:
            _check_shared_memory(len(batches[0]) * self.info.channels * self.info.size**2)
        stream: DataLoader[Tensor | str] = DataLoader(
            _Images(self.split, self.settings, self.info, self.seed, epoch, self.train),
            batch_size=None,
            sampler=batches,  # each index into the data set below is a whole batch
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            generator=generator(self.seed, "workers", epoch),  # otherwise the global stream would be drawn from
            worker_init_fn=_leave_signals_to_parent,
        )
        for indices, images in zip(batches, _explained(stream), strict=True):
            if isinstance(images, str):
                raise SpfdeError(f"an image cannot be decoded: {images}", "replace it by an intact copy")
            indices = indices.to(self.device, non_blocking=True)
            yield self._normalise(images.to(self.device, non_blocking=True)), self._labels[indices]


def _workers() -> int:
    """Cores that this process may use, shared with the other processes of torchrun on this machine; at most 16."""
    return min(max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))), 16)


def _leave_signals_to_parent(_: int) -> None:
    """A worker goes on when its whole process group is told to stop, and ends when its parent does.

    The parent still needs its batches until it has written its checkpoint, and would take a worker's death for a crash.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _full() -> SpfdeError:
    cause = "no shared memory is left in which workers hand over their batches (/dev/shm is full)"
    return SpfdeError(cause, "enlarge or empty /dev/shm, or lower training.batch_size")


def _check_shared_memory(batch: int) -> None:
    """Refuses to start workers where not even one batch of so many bytes, and their queues, fit into shared memory."""
    with contextlib.suppress(OSError):  # another system, which has none of this name
        free = os.statvfs("/dev/shm")
        if free.f_bavail * free.f_frsize < batch + (64 << 10):
            raise _full()


def _explained(stream: Iterable[Tensor | str]) -> Iterator[Tensor | str]:
    """The batches; where a worker dies, an error that says why it may have.

    Raises:
        SpfdeError: a worker was killed, or there is no shared memory left to hand batches over in.
    """
    try:
        yield from stream
    except (RuntimeError, OSError) as error:
        said = " ".join(str(error).split())
        if any(word in said for word in ("shared memory", "/torch_", "No space left", "Bus error", "shm")):
            raise _full() from None
        if "DataLoader worker" in said:
            cause = f"a worker that decodes images was killed ({said[:160]})"
            raise SpfdeError(cause, "give the run more memory") from None
        raise


class _Images(Dataset[Tensor | str]):
    """A data set whose indices are whole batches, int64 (B,): images uint8 (B, C, size, size), or an error message.

    An error is returned and not raised, because an SpfdeError loses its parts on the way out of a worker.
    """

    def __init__(
        self, split: FolderSplit, settings: DataSettings, info: DataInfo, seed: int, epoch: int, train: bool
    ) -> None:
        from torchvision.transforms import CenterCrop, Compose, RandomHorizontalFlip, RandomResizedCrop, Resize

        self.paths, self.channels, self.size, self.seed, self.epoch = split.paths, info.channels, info.size, seed, epoch
        if train and settings.padding:
            steps = [RandomResizedCrop(info.size)]
        else:
            steps = [Resize(info.size * 256 // 224), CenterCrop(info.size)]
        self.transform = Compose(steps + [RandomHorizontalFlip()] * (train and settings.flip))

    def __getitem__(self, indices: Tensor) -> Tensor | str:
        with torch.random.fork_rng(devices=[]):  # torchvision's transforms draw from the global random stream
            images: list[Tensor] = []
            for index in indices.tolist():
                try:
                    images.append(self._image(index, self.paths[index]))
                except (OSError, SyntaxError, ValueError) as error:
                    return f"{self.paths[index]} ({error})"
        return torch.stack(images) if images else torch.empty(0, self.channels, self.size, self.size, dtype=torch.uint8)

    def _image(self, index: int, path: str) -> Tensor:
        from torchvision.transforms.functional import pil_to_tensor

        torch.default_generator.manual_seed(derive(self.seed, "augmentation", self.epoch, index))
        return pil_to_tensor(self.transform(open_image(path, self.channels)))
