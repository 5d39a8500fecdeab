"""Bad input of every kind, for some seconds each: what comes of it is a result or one clear line, never another error.

SPFDE_FUZZ_SECONDS sets the seconds of each kind: 10 unless given, 600 in `make soak`. The cases are drawn from fixed
seeds, so that a longer run begins with those of a shorter one; the last line of a failure names the case.
"""

import io
import json
import os
import random
import shutil
import sys
import tarfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from spfde.analysis.snapshots import Snapshots
from spfde.configuration import config_file, config_files
from spfde.cost.trace import read_trace
from spfde.data import load
from spfde.data.cifar import Cifar
from spfde.data.described import described
from spfde.data.imagefolder import ImageFolder, StreamedFolder
from spfde.data.sources import open_loader
from spfde.data.split import DataInfo
from spfde.errors import SpfdeError, Stopped
from spfde.experiments.files import experiment_names, read_experiment, read_scale
from spfde.experiments.resolve import expand, parse_assignments, resolve
from spfde.experiments.stored import read_settings
from spfde.models import build
from spfde.plans import describe, plan_settings
from spfde.results import claims, reference
from spfde.results import load as load_results
from spfde.results.account import account
from spfde.results.analyses import analysed_runs
from spfde.results.collect import record_folders
from spfde.results.material import gather
from spfde.settings import DataSettings, RunSettings
from spfde.training import checkpoint
from spfde.training.clock import Clock
from spfde.training.loop import train
from spfde.training.record import ending
from spfde.training.run import Training
from spfde.training.trust import is_whole, seal
from spfde.training.weights import load_weights
from tests.fuzzing.changes import VALUES, WORDS, any_value, spoil_bytes, spoil_file, spoil_tree, spoil_yaml

SECONDS = float(os.environ.get("SPFDE_FUZZ_SECONDS", "10"))
LONGEST = 20.0  # seconds of one case, of this process alone: other processes may keep the machine busy
TOLD: dict[str, Any] = {
    "sparsity.method": "spfde",
    "freezing.flops_reduction": 0.1,
    "training.epochs": 4,
    "training.snapshots": 2,
    "data.train_limit": 128,
}


def feed(kind: str, case: Callable[[random.Random], object]) -> None:
    """Runs case after case until the time is over, each with draws of its own."""
    until, number, refused = time.monotonic() + SECONDS, 0, 0
    while time.monotonic() < until or number < 20:
        begun = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                case(random.Random(f"{kind} {number}"))
        except SpfdeError as error:
            refused += 1
            assert error.cause and error.remedy is not None and error.cause.replace("\n", "").isprintable(), (
                f"{kind} {number}"
            )
        except Exception as error:
            traceback.print_exc()
            pytest.fail(f"{kind} {number}: {error.__class__.__name__}: {error}"[:500])
        took = time.process_time() - begun
        assert took < LONGEST, f"{kind} {number} took {took:.0f} s"
        number += 1
    print(f"{kind}: {number} cases in {SECONDS:g} s, {refused} refused", file=sys.stderr)  # shown by pytest -s
    assert refused


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results with one record, which has snapshots, its costs and the plan of an experiment."""
    home = tmp_path_factory.mktemp("results")
    settings = resolve("smoke", TOLD)
    train(settings, load(settings.data, None, None), home / "smoke" / "runs")
    return home


def test_settings(tmp_path: Path) -> None:
    path, keys = tmp_path / "settings.yaml", leaves(RunSettings().model_dump())
    text = yaml.safe_dump(resolve("smoke", TOLD).model_dump(), sort_keys=False)

    def case(draws: random.Random) -> None:
        how = draws.randrange(3)
        if how == 0:
            chosen = draws.choices(keys, k=draws.choice((1, 1, 2, 3)))
            words = [f"{key}={draws.choice([*map(str, VALUES), *WORDS])}" for key in chosen]
            run = resolve("smoke", parse_assignments(words))
        elif how == 1:
            run = resolve("smoke", {key: any_value(draws) for key in draws.choices([*keys, "x", "a.b"], k=2)})
        else:
            path.write_bytes(spoil_yaml(draws, text))
            (run,) = read_settings(path)
        assert run.run_id and "/" not in run.run_id
        if run.training.epochs <= 200 and run.model.width <= 2 and draws.random() < 0.3:
            plan_settings(run)

    feed("settings", case)


def leaves(values: dict[str, Any], prefix: str = "") -> list[str]:
    """The dotted names of settings."""
    found = []
    for key, value in values.items():
        found += leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [f"{prefix}{key}"]
    return found


def test_files_of_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {path.name if path.parent.name == "config" else f"{path.parent.name}/{path.name}": path.read_bytes()
               for path in config_files()}  # fmt: skip
    sources["reference.csv"] = config_file("reference.csv").read_bytes()
    sources["data/flowers.yaml"] = b"classes: 5\nsize: 64\ntrain_samples: 30\ntest_samples: 6\nmean: [0.5, 0.5, 0.5]\n"
    monkeypatch.chdir(tmp_path)

    def case(draws: random.Random) -> None:
        shutil.rmtree("config", ignore_errors=True)
        name = draws.choice([*sources, "scales/smoke.yaml", "claims.yaml", "data/flowers.yaml", "reference.csv"])
        path = Path("config", name)
        path.parent.mkdir(parents=True)
        path.write_bytes(spoil_file(draws, name, sources[name]))
        if name.startswith("scales/"):
            read_scale(path.stem)
            expand(path.stem, draws.choice(experiment_names()))
        elif name.startswith("experiments/"):
            read_experiment(path.stem)
            expand("smoke", path.stem)
        elif name.startswith("data/"):
            described(path.stem)
        elif name == "claims.yaml":
            claims.read()
        elif name == "reference.csv":
            reference.read()

    feed("files of config", case)


def test_data(tmp_path: Path) -> None:
    info = DataInfo("tiny", 2, 3, 8, 6, 2, (0.5,) * 3, (0.25,) * 3)
    draw = np.random.default_rng(0)

    def picture(kind: str) -> bytes:
        out = io.BytesIO()
        Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(out, kind)
        return out.getvalue()

    files: dict[str, bytes] = {}
    for part, count in (("train", 3), ("val", 1)):
        for label in "ab":
            for number in range(count):
                kind = "png" if number else "jpeg"
                files[f"{part}/{label}/{number}.{kind}"] = picture(kind)
    for part, count in (("train", 6), ("test", 2)):
        rows = [{"img": {"bytes": picture("png"), "path": None}, "label": row % 2} for row in range(count)]
        out = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), out)
        files[f"{part}-00000-of-00001.parquet"] = out.getvalue()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, count in (("train.bin", 6), ("test.bin", 2)):
            data = b"".join(bytes([row % 2]) + draw.bytes(192) for row in range(count))
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    files["tiny.tar.gz"] = out.getvalue()
    cifar = Cifar(info, "https://example.org/tiny.tar.gz", "", 1, ("train.bin",), ("test.bin",))
    home, cache = tmp_path / "tiny", tmp_path / "cache"

    def write(names: list[str]) -> None:
        shutil.rmtree(home, ignore_errors=True)
        for name in names:
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_bytes(files[name])

    def case(draws: random.Random) -> None:
        group = draws.choice(("folder", "stream", "parquet", "archive", "cache"))
        folder, packed = [name for name in files if "/" in name], [name for name in files if "parquet" in name]
        names = {"folder": folder, "stream": folder, "archive": ["tiny.tar.gz"]}.get(group, packed)
        write(names)
        broken = home / draws.choice(names)
        if group == "cache":
            shutil.rmtree(cache, ignore_errors=True)
            cifar.open(tmp_path, cache)
            (broken,) = cache.iterdir()
        if draws.random() < 0.05:
            broken.unlink()
            draws.choice((os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)))(broken)
        else:
            broken.write_bytes(spoil_bytes(draws, broken.read_bytes()))
        if group == "archive":  # as if it had been published so
            cifar.md5 = _md5(broken)
        if group == "folder":
            ImageFolder(info).open(tmp_path, None)
        elif group == "stream":
            train_split, _ = StreamedFolder(info).open(tmp_path, None)
            loader = open_loader(train_split, DataSettings(name="tiny"), info, 4, 0, "cpu")
            loader.fetch(torch.arange(6))
        else:
            cifar.open(tmp_path, cache if group == "cache" else None)

    feed("data", case)


def _md5(path: Path) -> str:
    import hashlib

    return hashlib.md5(path.read_bytes()).hexdigest() if path.is_file() and path.stat().st_size else ""


def test_records(results: Path, tmp_path: Path) -> None:
    (folder,) = record_folders("smoke", results)
    plan = [describe(plan_settings(run)) for run in read_settings(folder / "settings.yaml")]
    others = {
        "smoke/plans/table2.json": json.dumps(plan).encode(),
        "smoke/costs.csv": f"run_id,flops.paper\n{folder.name},1e9\n".encode(),
        "smoke/analysis/figure1.cka.csv": f"run_id,row,seed,cka\n{folder.name},x,1,0.5\n".encode(),
    }
    names = [path.name for path in folder.iterdir() if path.is_file() and path.name != ".summary.json"]

    def case(draws: random.Random) -> None:
        home = tmp_path / "results"
        shutil.rmtree(home, ignore_errors=True)
        copy = Path(shutil.copytree(folder, home / "smoke" / "runs" / folder.name))
        for name, data in others.items():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_bytes(spoil_file(draws, name, data) if draws.random() < 0.2 else data)
        name = draws.choice(names)
        (copy / name).write_bytes(spoil_file(draws, name, (copy / name).read_bytes()))
        if draws.random() < 0.6:  # a damage that knows how to write digests
            try:
                values = json.loads((copy / "summary.json").read_bytes())
            except ValueError:
                values = None
            if isinstance(values, dict):
                if draws.random() < 0.3:
                    values = spoil_tree(draws, values)
                with _nothing_odd():
                    seal(copy, {str(key): value for key, value in values.items()})
        reads: list[Callable[[], object]] = [
            lambda: load_results("smoke", home),
            lambda: account(copy),
            lambda: read_trace(copy / "layers.csv"),
            lambda: gather("smoke", home, "table2"),
            lambda: analysed_runs(home / "smoke/analysis/figure1.cka.csv"),
            lambda: Snapshots.of(copy).final,
            lambda: ending(copy),
            lambda: is_whole(copy),
        ]
        draws.choice(reads)()

    feed("records", case)


class _nothing_odd:
    """Values that no JSON has cannot be sealed in the first place."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, ValueError | TypeError | OverflowError)


class Stop(Clock):
    def due(self) -> bool:
        return True

    @property
    def stopped(self) -> str:
        return "the test"


def test_checkpoints(tmp_path: Path) -> None:
    settings = resolve("smoke", {**TOLD, "training.snapshots": 0})
    splits = load(settings.data, None, None)
    with pytest.raises(Stopped):
        train(settings, splits, tmp_path, clock=Stop())
    path = checkpoint.path_of(tmp_path, settings.run_id)
    whole = path.read_bytes()
    read = checkpoint.load(path, settings.run_id)
    assert read
    tensors, text = read

    def case(draws: random.Random) -> None:
        if draws.random() < 0.8:
            path.write_bytes(spoil_bytes(draws, whole))
            checkpoint.load(path, settings.run_id)
            return
        changed = dict(tensors)  # a checkpoint that is whole, of a version that packs otherwise
        for name in draws.sample(list(changed), draws.choice((0, 1, 2))):
            value = changed.pop(name)
            if draws.random() < 0.7:
                changed[name] = draws.choice(
                    (value.double(), value.reshape(-1)[:1].clone(), value.reshape(-1), torch.zeros(3, 3))
                )
        with _nothing_odd():
            checkpoint.save(path, settings.run_id, changed, spoil_tree(draws, text))
        Training(settings, splits, torch.device("cpu"), Clock()).resume(path)

    feed("checkpoints", case)


def test_weights(tmp_path: Path, results: Path) -> None:
    model = build("resnet8", 10, 1, 8, 0.5)
    state, path = model.state_dict(), tmp_path / "w.safetensors"
    save_file(state, path)
    whole = path.read_bytes()
    (folder,) = record_folders("smoke", results)
    record = Path(shutil.copytree(folder, tmp_path / folder.name))
    snapshot = next((record / "snapshots").iterdir())
    kept = snapshot.read_bytes()

    def case(draws: random.Random) -> None:
        how = draws.random()
        if how < 0.2:
            snapshot.write_bytes(spoil_bytes(draws, kept))
            for _ in Snapshots.of(record).trained():
                pass
            load_file(record / "model.safetensors")
            return
        if how < 0.4:
            changed = dict(state)
            name = draws.choice(list(changed))
            value = changed.pop(name)
            if draws.random() < 0.8:
                changed[name] = draws.choice((value.double(), value.reshape(-1)[:1].clone(), torch.zeros(2, 2)))
            save_file(changed, path)
        else:
            path.write_bytes(spoil_bytes(draws, whole))
        if draws.random() < 0.2:
            resolve("smoke", {"model.weights": str(path)})
        load_weights(build("resnet8", 10, 1, 8, 0.5), str(path))

    feed("weights", case)
