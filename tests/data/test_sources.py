"""The registry, the bundled digits, and the command."""

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from typer import Typer
from typer.testing import CliRunner

from spfde.cli.data import data
from spfde.data.loader import Loader
from spfde.data.sources import DIGITS, SOURCES, info, load, open_loader, prepare
from spfde.data.split import Split
from spfde.errors import SpfdeError
from spfde.settings import DataSettings


def digits(**settings: object) -> tuple[Split, Split | None, Split]:
    splits = load(DataSettings.model_validate({"name": "digits", **settings}), None, None)
    assert isinstance(splits.train, Split) and isinstance(splits.test, Split)
    assert splits.validation is None or isinstance(splits.validation, Split)
    return splits.train, splits.validation, splits.test


def test_digits_are_all_there_once() -> None:
    train, validation, test = digits()
    assert validation is None and (len(train), len(test)) == (1437, 360)
    assert train.images.shape == (1437, 1, 8, 8) and train.images.dtype == torch.uint8
    originals = torch.from_numpy(load_digits().images)
    mine = torch.cat([train.images, test.images])[:, 0]
    assert mine.max() == 255 and mine.min() == 0
    restored = (mine.double() * 16 / 255).round()
    assert sorted(map(tuple, restored.flatten(1).tolist())) == sorted(map(tuple, originals.flatten(1).tolist()))
    share = test.labels.bincount() / (train.labels.bincount() + test.labels.bincount())
    assert (share - 360 / 1797).abs().max() < 0.006


def test_digits_keep_their_labels() -> None:
    bundle = load_digits()
    known = {image.tobytes(): label for image, label in zip(bundle.images, bundle.target, strict=True)}
    train, _, test = digits()
    for split in (train, test):
        pixels = (split.images[:, 0].double() * 16 / 255).round().numpy()
        assert [known[image.tobytes()] for image in pixels] == split.labels.tolist()


def test_digits_statistics() -> None:
    train, _, _ = digits()
    pixels = train.images.double() / 255
    assert DIGITS.mean == pytest.approx([pixels.mean().item()], abs=1e-7)
    assert DIGITS.std == pytest.approx([pixels.std(correction=0).item()], abs=1e-7)


def test_digits_from_the_cache(tmp_path: Path) -> None:
    path = prepare("digits", None, tmp_path)
    assert path.parent == tmp_path
    splits = load(DataSettings(name="digits"), None, tmp_path)
    assert isinstance(splits.train, Split) and torch.equal(splits.train.images, digits()[0].images)


def test_limit_and_validation() -> None:
    train, validation, test = digits(train_limit=500, validation=0.1)
    assert validation is not None and (len(train), len(validation), len(test)) == (450, 50, 360)
    everything = digits()[0]
    first = set(map(bytes, everything.images[:500].flatten(1).numpy()))
    assert set(map(bytes, torch.cat([train.images, validation.images]).flatten(1).numpy())) == first
    settings = DataSettings(name="digits", train_limit=500, validation=0.1)
    assert info("digits").training_samples(settings) == 450


def test_a_decoded_split_gets_the_loader_on_the_device() -> None:
    train, _, _ = digits()
    loader = open_loader(train, DataSettings(name="digits", padding=1, flip=False), DIGITS, 64, 1, "cpu")
    assert isinstance(loader, Loader)
    _, images, _ = next(loader.epoch(0))
    assert images.shape == (64, 1, 8, 8)


def test_what_is_known_without_data() -> None:
    assert {"digits", "cifar10", "cifar100", "imagenet"} <= SOURCES.keys()
    assert (info("cifar100").classes, info("imagenet").size, info("imagenet").train_samples) == (100, 224, 1_281_167)
    for source in SOURCES.values():
        assert len(source.info.mean) == len(source.info.std) == source.info.channels


def test_an_unknown_data_set() -> None:
    with pytest.raises(SpfdeError, match=r'unknown data set "cifar1000"; did you mean "cifar100"\?'):
        load(DataSettings(name="cifar1000"), None, None)


def test_the_command(tmp_path: Path) -> None:
    app = Typer()
    app.command()(data)
    arguments = ["digits", "--data-root", str(tmp_path / "data"), "--cache", str(tmp_path / "cache")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    (path,) = (tmp_path / "cache").iterdir()
    assert result.output.replace("\n", "").endswith(str(path))
