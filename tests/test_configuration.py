"""The files of config/: those of the working folder win one by one, and those of spfde are there everywhere."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from spfde.configuration import SHIPPED, config_file, config_files
from spfde.errors import SpfdeError
from spfde.experiments.files import default_scale, experiment_names, read_scale

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(name: str, values: object) -> Path:
    path = Path("config", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_file_of_the_working_folder_wins_and_the_others_stay() -> None:
    assert SHIPPED == ROOT / "config"  # in a checkout
    before = experiment_names()
    own = put("scales/cifar100.yaml", {"settings": {"training": {"epochs": 3}}, "seeds": [9]})
    extra = put("experiments/mine.yaml", {"rows": []})
    assert config_file("scales", "cifar100.yaml") == own and read_scale("cifar100").seeds == [9]
    assert config_file("scales", "smoke.yaml") == SHIPPED / "scales/smoke.yaml"
    assert experiment_names() == sorted([*before, "mine"])
    assert extra in config_files("experiments") and own in config_files()


def test_the_default_scale_is_that_of_the_configuration() -> None:
    assert default_scale() == yaml.safe_load((ROOT / "config/config.yaml").read_text())["scale"]
    path = put("config.yaml", {"scale": "cifar100"})
    assert default_scale() == "cifar100"
    for strange, said in (
        (b"experiments: all\n", "names no scale"),
        (b"- of another project\n", "names no scale"),
        (b"words\n", "names no scale"),
        (b"scale: [digits]\n", "names no scale"),
        (b"scale: digits # \xff\n", "cannot be read"),
        (b"scale: [", "is not YAML"),
    ):
        path.write_bytes(strange)
        with pytest.raises(SpfdeError, match=rf"config/config\.yaml {said}.*pass --scale"):
            default_scale()


@pytest.mark.slow
def test_an_installed_package_works_in_an_empty_folder(folder: Path) -> None:
    """Not the editable installation of a checkout: what `pip install .` puts into site-packages."""
    copy, site, empty = folder / "copy", folder / "site", folder / "empty"
    for name in ("spfde", "config"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "lib"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, copy)
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--target", str(site)]
    environment = {**os.environ, "CXX": "false"}  # the kernels, which take a minute, have tests of their own
    environment.pop("PYTHONPATH", None)
    subprocess.run([*install, str(copy)], check=True, capture_output=True, env=environment)
    shutil.rmtree(copy)
    empty.mkdir()

    def spfde(*words: str) -> str:
        command = [sys.executable, "-m", "spfde", *words]
        done = subprocess.run(
            command, cwd=empty, env={**environment, "PYTHONPATH": str(site)}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    (planned,) = json.loads(spfde("plan", "--scale", "cifar100", "--experiment", "table2", "--row", "dense", "--json"))
    assert planned["flops"]["paper"] == pytest.approx(13.23e15, rel=0.01)
    spfde("train", "--scale", "smoke", "--set", "training.epochs=2", "--set", "sparsity.method=static")
    assert len(list((empty / "runs").glob("smoke-*"))) == 1
    assert "not run" in spfde("claims", "--scale", "smoke")
