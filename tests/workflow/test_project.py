"""The files around the code agree with each other."""

import ast
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import spfde
from spfde.cli import OF_WORKFLOW

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins() -> dict[str, str]:
    lines = [line.strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    return {canonicalize_name(line.split("==")[0]): line for line in lines if line and not line.startswith("#")}


def direct(requirements: list[str]) -> set[str]:
    """Names of these requirements; an extra of the project stands for what it brings."""
    found = set()
    for requirement in map(Requirement, requirements):
        if requirement.name == "spfde":
            for extra in requirement.extras:
                found |= direct(PROJECT["project"]["optional-dependencies"][extra])
        else:
            found.add(canonicalize_name(requirement.name))
    return found


def needed() -> set[str]:
    return direct([*PROJECT["project"]["dependencies"], "spfde[dev]"])


def test_one_version() -> None:
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "spfde.__version__"}
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == spfde.__version__


def test_constraints_are_exact_pins_and_name_no_host() -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line) for line in pins().values())
    assert needed() <= set(pins())


def test_every_dependency_has_a_floor_and_the_pins_are_not_below_it() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    for requirement in map(Requirement, [*PROJECT["project"]["dependencies"], *itertools.chain(*extras.values())]):
        if requirement.name != "spfde":
            assert any(part.operator == ">=" for part in requirement.specifier), f"{requirement} has no floor"
            assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)].partition("==")[2])


def test_ci_tests_the_supported_pythons_and_the_smallest_scale() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    listed = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["project"]["classifiers"]))
    assert jobs["test"]["strategy"]["matrix"]["python"] == listed
    assert PROJECT["project"]["requires-python"] == f">={listed[0]}"
    steps = {name: " ".join(step.get("run", "") for step in job["steps"]) for name, job in jobs.items()}
    assert "--resolution lowest-direct" in steps["lowest"] and "scale=smoke" in steps["pipeline"]


def test_conda_has_the_same_packages() -> None:
    *_, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert sorted(pip["pip"]) == sorted(pins()[name] for name in needed())


def test_every_import_is_a_dependency() -> None:
    """What the library imports is declared, not brought along by chance."""
    imported = set()
    for path in (ROOT / "spfde").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    distributions = {"sklearn": "scikit-learn", "yaml": "pyyaml", "PIL": "pillow"}
    third_party = imported - set(sys.stdlib_module_names) - {"spfde"}
    assert {canonicalize_name(distributions.get(name, name)) for name in third_party} <= needed()


def test_only_the_extras_own_modules_need_extras() -> None:
    """What is imported outside of functions, and all that training needs, is among the package's own dependencies."""
    base = direct(PROJECT["project"]["dependencies"])
    workflow = direct(["spfde[workflow]"])
    assert {canonicalize_name(name) for name in OF_WORKFLOW} == workflow - {"snakemake"}
    distributions = {"sklearn": "scikit-learn", "yaml": "pyyaml", "PIL": "pillow"}
    for path in (ROOT / "spfde").rglob("*.py"):
        module = path.relative_to(ROOT / "spfde")
        if module.name == "lightning.py":  # itself of an extra
            continue
        tree = ast.parse(path.read_text())
        typing = [
            node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        ]
        unread = {id(inner) for node in typing for inner in ast.walk(node)}
        late = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for inner in ast.walk(node)}
        for node in ast.walk(tree):
            if id(node) in unread or not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for name in {name.partition(".")[0] for name in named} - set(sys.stdlib_module_names) - {"spfde"}:
                needs = canonicalize_name(distributions.get(name, name))
                lent = workflow if id(node) in late and module.parts[0] in ("results", "cli") else set()
                assert needs in base | lent, f"{module} imports {name}"


def test_ci_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)


# Its `-m venv .venv` takes no time.
PYTHON = """#!{}
import os, runpy, shutil, sys
if sys.argv[1] == "-m":
    os.makedirs(".venv/bin", exist_ok=True)
    shutil.copy("pip", ".venv/bin/pip")
    os.symlink("/bin/true", ".venv/bin/python")
else:
    sys.executable, sys.argv = "./python", sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project whose `make` finds a pip that writes down its calls, and fails while there is a file `broken`."""
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    (tmp_path / "workflow").symlink_to(ROOT / "workflow")
    pip = tmp_path / "pip"
    said = (
        "Collecting torch>=2\\n  Downloading torch-2.11.0-cp311.whl (532.6 MB)\\nInstalling collected packages: torch"
    )
    pip.write_text(f'#!/bin/sh\necho "$@" >> pip.log\nsleep 0.3\nprintf "{said}\\n"\n[ ! -e broken ]\n')
    python = tmp_path / "python"
    python.write_text(PYTHON.format(sys.executable))
    for path in (pip, python):
        path.chmod(0o755)
    for name in ("pyproject.toml", "setup.py"):
        (tmp_path / name).touch()
    (tmp_path / "constraints.txt").write_text("numpy==2.0\ntorch==2.11.0\n")
    return tmp_path


MAKE = ["make", ".venv/.ready", "PYTHON=./python"]


def test_a_half_made_environment_is_made_anew(folder: Path) -> None:
    """`make` removes an environment that says it is unfinished, and keeps one that is ready."""
    (folder / "broken").touch()
    failed = subprocess.run(MAKE, cwd=folder, capture_output=True, text=True)
    assert failed.returncode != 0 and "Collecting torch" in failed.stderr  # what pip said last
    (folder / "broken").unlink()
    (folder / ".venv" / "rubble").touch()
    made = subprocess.run(MAKE, cwd=folder, capture_output=True, text=True, check=True)
    assert "1 of 2 packages, torch has 533 MB" in made.stdout and "the environment is ready" in made.stdout
    assert not (folder / ".venv" / "rubble").exists()
    assert len((folder / "pip.log").read_text().splitlines()) == 2
    subprocess.run(MAKE, cwd=folder, capture_output=True, check=True)
    assert len((folder / "pip.log").read_text().splitlines()) == 2
    compiles = folder / "spfde/kernels/build.py"
    compiles.parent.mkdir(parents=True)
    compiles.touch()
    subprocess.run(MAKE, cwd=folder, capture_output=True, check=True)
    assert len((folder / "pip.log").read_text().splitlines()) == 3


def test_two_that_make_the_environment_at_once_make_one(folder: Path) -> None:
    both = [subprocess.Popen(MAKE, cwd=folder, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert len((folder / "pip.log").read_text().splitlines()) == 1
    assert sum("waiting for the one" in text for text in said) == 1


def test_what_was_removed_is_not_installed_from_an_older_build(tmp_path: Path) -> None:
    """`pip install PATH` builds in PATH/build, which stays."""
    left_out = shutil.ignore_patterns("__pycache__", "lib")
    for name in ("spfde", "config"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=left_out)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    stale = [tmp_path / "build/lib/spfde" / name for name in ("removed.py", "config/experiments/removed.yaml")]
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    command = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", "build/lib"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert not any(path.exists() for path in stale)
    assert all((tmp_path / "build/lib/spfde" / name).is_file() for name in ("api.py", "config/config.yaml"))


def test_make_alone_prints_every_target() -> None:
    text = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"^  make (\S+)  +\S", text, re.MULTILINE) == phony.split()


def made(folder: Path, *words: str) -> list[list[str]]:
    """The words of each command that `make` starts with these words, in a folder whose name has a space."""
    home = folder / "my project"
    (home / ".venv/bin").mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "Makefile", home)
    for name in ("pyproject.toml", "constraints.txt", "setup.py", ".venv/.ready"):
        (home / name).touch()
    for name in ("python", "spfde", "snakemake"):
        stub = home / ".venv/bin" / name
        stub.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(['{name}', *sys.argv[1:]]))\n")
        stub.chmod(0o755)
    command = ["make", "--silent", "PYTHON=python", *words]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_make_passes_on_paths_with_spaces(tmp_path: Path) -> None:
    (words,) = made(tmp_path, "campaign", "DATA_ROOT=/my data")
    assert words[words.index("--data-root") + 1] == "/my data" and "--folder" not in words
    (words,) = made(tmp_path, "campaign", "CAMPAIGN=/else where")
    assert words[words.index("--folder") + 1] == "/else where"
    (words,) = made(tmp_path, "publish")
    assert words[words.index("--results") + 1] == f"{tmp_path}/my project-campaign/results"
    (words,) = made(tmp_path, "publish", "CAMPAIGN=/else where")
    assert words[words.index("--results") + 1] == "/else where/results"


def test_make_shows_the_scale_that_it_made(tmp_path: Path) -> None:
    for words in (["SCALE=smoke"], ["CONFIG=scale=smoke train=never"], ["SCALE=digits", "CONFIG=scale=smoke"]):
        ran, shown = made(tmp_path, "reproduce", *words)
        assert "scale=smoke" in ran and shown == ["spfde", "show", "--scale", "smoke"]
    assert made(tmp_path, "reproduce", "CONFIG=train=never")[1] == ["spfde", "show"]


def test_make_bench_measures_what_the_page_on_speed_says(tmp_path: Path) -> None:
    assert made(tmp_path, "bench") == [["spfde", "bench", "speed"]]
