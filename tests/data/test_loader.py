"""The loader against torchvision's recipe sample by sample, and the pairing of reduced runs."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as vision

from spfde.data.loader import Batch, Loader
from spfde.data.split import DataInfo, Split
from spfde.rng import generator
from spfde.settings import DataSettings


def make_info(channels: int = 3, size: int = 6) -> DataInfo:
    return DataInfo("x", 10, channels, size, 50, 50, mean=(0.5, 0.4, 0.3)[:channels], std=(0.2, 0.3, 0.4)[:channels])


def make_split(samples: int = 50, channels: int = 3, size: int = 6) -> Split:
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (samples, channels, size, size), generator=draws, dtype=torch.uint8)
    return Split(images, torch.arange(samples) % 10)


def make_loader(
    channels: int = 3, seed: int = 1, train: bool = True, device: str = "cpu", **settings: object
) -> Loader:
    data = DataSettings.model_validate({"padding": 2, **settings})
    return Loader(make_split(channels=channels), data, make_info(channels), 8, seed, device, train)


def joined(batches: list[Batch]) -> Batch:
    indices, images, labels = zip(*batches, strict=True)
    return torch.cat(indices), torch.cat(images), torch.cat(labels)


def every_version(image: Tensor, padding: int, flip: bool, info: DataInfo) -> list[Tensor]:
    """All that Pad, RandomCrop, RandomHorizontalFlip, ToTensor and Normalize can make of an image, made one by one."""
    padded = vision.pad(image, [padding])
    shifts = range(2 * padding + 1)
    crops = [vision.crop(padded, top, left, info.size, info.size) for top in shifts for left in shifts]
    crops += [vision.hflip(crop) for crop in crops] * flip
    return [vision.normalize(crop.float() / 255, info.mean, info.std) for crop in crops]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("flip", [False, True])
def test_images_are_those_of_the_reference_recipe(channels: int, padding: int, flip: bool) -> None:
    loader = make_loader(channels, padding=padding, flip=flip)
    split, info = make_split(channels=channels), make_info(channels)
    seen = set()
    for epoch in range(3):
        for indices, images, labels in loader.epoch(epoch):
            assert torch.equal(labels, split.labels[indices])
            for index, image in zip(indices.tolist(), images, strict=True):
                versions = every_version(split.images[index], padding, flip, info)
                matches = [number for number, version in enumerate(versions) if torch.equal(version, image)]
                assert len(matches) == 1
                seen.add(matches[0])
    # 150 draws over at most 50 versions: nearly all occur, both mirrored and not
    assert len(seen) > 0.8 * len(versions)


def test_draws_are_the_named_streams() -> None:
    """The order and the shifts of a sample depend on the seed and the epoch in the documented way."""
    loader, split, info = make_loader(seed=4), make_split(), make_info()
    indices, images, _ = joined(list(loader.epoch(7)))
    assert torch.equal(indices, torch.randperm(50, generator=generator(4, "order", 7)))
    draws = generator(4, "augmentation", 7)
    down, right = torch.randint(5, (2, 50), generator=draws)
    mirror = torch.rand(50, generator=draws) < 0.5
    for index, image in zip(indices.tolist(), images, strict=True):
        crop = vision.crop(vision.pad(split.images[index], [2]), int(down[index]), int(right[index]), 6, 6)
        crop = vision.hflip(crop) if mirror[index] else crop
        assert torch.equal(image, vision.normalize(crop.float() / 255, info.mean, info.std))


def test_shifts_and_flips_are_uniform() -> None:
    split = Split(torch.zeros(4000, 1, 3, 3, dtype=torch.uint8), torch.zeros(4000, dtype=torch.long))
    split.images[:, 0, 1, 0] = 255  # a point left of the centre: shows the shift and the side
    ((_, images, _),) = Loader(split, DataSettings(padding=1), make_info(1, 3), 4000, 0, "cpu").epoch(0)
    shares = (images[:, 0] > 0).float().mean(0)
    # Down, the point goes to each row alike; right, to the left column, the middle or outside, and half is mirrored.
    expected = torch.tensor([1 / 3] * 3).outer(torch.tensor([1 / 6, 1 / 3, 1 / 6]))
    assert torch.allclose(shares, expected, atol=0.025)  # more than five standard deviations of the mean


def test_a_reduced_run_sees_a_subsequence() -> None:
    members = torch.rand(50, generator=torch.Generator().manual_seed(3)) < 0.6
    for epoch in range(3):
        indices, images, labels = joined(list(make_loader().epoch(epoch)))
        kept = members[indices]
        reduced = list(make_loader().epoch(epoch, members))
        assert [len(batch[0]) for batch in reduced[:-1]] == [8] * (len(reduced) - 1)
        few = joined(reduced)
        assert torch.equal(few[0], indices[kept])
        assert torch.equal(few[1], images[kept])
        assert torch.equal(few[2], labels[kept])


def test_order_and_augmentation_do_not_depend_on_each_other() -> None:
    plain, augmented = make_loader(padding=0, flip=False), make_loader()
    assert torch.equal(joined(list(plain.epoch(2)))[0], joined(list(augmented.epoch(2)))[0])


def test_epochs_and_seeds_differ_and_repeat() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return joined(list(make_loader(seed=seed).epoch(epoch)))[0].tolist()

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4
    assert sorted(order(1, 0)) == list(range(50))


@pytest.mark.parametrize("skip", [0, 1, 6, 7, 9])
def test_skip_leaves_out_exactly_the_leading_batches(skip: int) -> None:
    whole, rest = list(make_loader().epoch(3)), list(make_loader().epoch(3, skip=skip))
    assert len(rest) == max(0, 7 - skip)
    for batch, again in zip(whole[skip:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, again, strict=True))


def test_the_short_last_batch_is_kept() -> None:
    loader = make_loader()
    sizes = [len(indices) for indices, _, _ in loader.epoch(0)]
    assert sizes == [8] * 6 + [2]
    assert len(loader) == 50 and loader.steps(50) == 7 and loader.steps(48) == 6 and loader.steps(0) == 0


def test_nobody_is_no_batch() -> None:
    assert list(make_loader().epoch(0, torch.zeros(50, dtype=torch.bool))) == []


def test_evaluation_is_in_order_and_plain() -> None:
    indices, images, labels = joined(list(make_loader(train=False).epoch(0)))
    split, info = make_split(), make_info()
    assert torch.equal(indices, torch.arange(50)) and torch.equal(labels, split.labels)
    assert torch.equal(images, vision.normalize(split.images.float() / 255, info.mean, info.std))


def test_padding_is_black_before_normalisation() -> None:
    white = Split(torch.full((50, 3, 6, 6), 255, dtype=torch.uint8), torch.zeros(50, dtype=torch.long))
    loader = Loader(white, DataSettings(padding=2), make_info(), 50, 0, "cpu")
    ((_, images, _),) = loader.epoch(0)
    black = (-torch.tensor([0.5, 0.4, 0.3]) / torch.tensor([0.2, 0.3, 0.4])).view(3, 1)
    for channel in range(3):
        values = images[:, channel].unique()
        assert len(values) == 2 and torch.isclose(values[0], black[channel])


def test_the_split_is_left_alone_and_the_global_stream_too() -> None:
    split = make_split()
    before, state = split.images.clone(), torch.random.get_rng_state()
    list(Loader(split, DataSettings(), make_info(), 8, 1, "cpu").epoch(0))
    list(Loader(split, DataSettings(), make_info(), 8, 1, "cpu", train=False).epoch(0))
    assert torch.equal(split.images, before) and torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_the_gpu_as_on_the_cpu_and_without_a_sync() -> None:
    here = joined(list(make_loader().epoch(2)))
    batches = make_loader(device="cuda").epoch(2)
    there = [next(batches)]
    torch.cuda.set_sync_debug_mode("error")
    there += list(batches)
    torch.cuda.set_sync_debug_mode("default")
    for a, b in zip(here, joined(there), strict=True):
        assert torch.allclose(a.float(), b.cpu().float(), atol=1e-6)
