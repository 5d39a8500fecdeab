"""Mutation testing: small faults are put into the code one at a time, and the tests near it have to notice.

    python -m tests.soak.mutants --count 300

A mutant differs from the code in one place: another comparison, another operator, another number, or a condition
negated. The sample is drawn from a fixed seed, as many of each module as of any other. Each mutant is written into a
copy of the project in a temporary folder and tried against the tests of its module (`TESTS`), which stop at the first
failure; one that runs into an endless loop is killed by its time limit. A mutant that no test notices survives: either
a test is missing, or the change means the same. `EQUAL` lists those that were looked at and mean the same, with the
reason. Printed at the end: the share that was killed, with its 95 % interval (Wilson), and every survivor.

Hours of work can be stopped and taken up again: `--log FILE` keeps what became of each mutant, and a mutant of the same
text is not tried again. Several processes can share the log, each with a part of the sample (`--part 1/2`).
"""

import argparse
import compileall
import contextlib
import json
import math
import os
import py_compile
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

os.environ["OMP_NUM_THREADS"] = "1"  # before anything reads it
import pandas  # noqa: F401  imported here so that the children that try the mutants need not
import pytest
import torchvision  # noqa: F401
from hypothesis.configuration import set_hypothesis_home_dir

from tests.soak.mutation import ROOT, Mutant, sample

LIMIT = 600.0  # seconds of the tests of one mutant

# Which tests are near a module. The first pattern that the module's path begins with counts.
OF_METHODS = (
    "tests/cli/test_methods.py",
    "tests/test_recipes.py",
)  # what methods say of themselves, and how they start
TESTS: dict[str, tuple[str, ...]] = {
    "spfde/methods/gse": ("tests/methods/test_gse.py", "tests/methods/test_mask_updates.py", *OF_METHODS),
    "spfde/methods/swat.py": (
        "tests/methods/test_swat.py",
        "tests/methods/test_swat_runs.py",
        "tests/methods/test_authors.py",
        *OF_METHODS,
    ),
    "spfde/methods/dsr.py": ("tests/methods/test_dsr.py", "tests/methods/test_mask_updates.py", *OF_METHODS),
    "spfde/methods/deepr.py": ("tests/methods/test_deepr.py", "tests/methods/test_mask_updates.py", *OF_METHODS),
    "spfde/methods/lottery.py": (
        "tests/methods/test_lottery.py", "tests/methods/test_before_training.py", *OF_METHODS
    ),
    "spfde/methods/small_dense.py": ("tests/methods/test_small_dense.py", *OF_METHODS),
    "spfde/methods": (
        "tests/methods/test_before_training.py",
        "tests/methods/test_dynamic.py",
        "tests/methods/test_authors.py",
        "tests/methods/test_itop.py",
        "tests/methods/test_mask_updates.py",
        "tests/methods/test_presets.py",
        "tests/methods/test_data_efficient.py",
        *OF_METHODS,
    ),
    "spfde/freezing": ("tests/freezing",),
    "spfde/sieving": ("tests/sieving",),
    "spfde/cost": ("tests/cost",),
    "spfde/sparsity/masks.py": ("tests/sparsity/test_masks.py", "tests/methods/test_mask_updates.py"),
    "spfde/data/loader.py": ("tests/data/test_loader.py",),
    "spfde/data/streaming.py": ("tests/data/test_imagefolder.py", "tests/training/test_interruptions.py"),
    "spfde/results": (
        "tests/results/test_statistics.py",
        "tests/results/test_situations.py",
        "tests/results/test_reduced.py",
        "tests/results/test_power.py",
        "tests/results/test_images.py",
        "tests/results/test_claims.py",
        "tests/results/test_verdict_texts.py",
        "tests/results/test_claim_evidence.py",
    ),
    "spfde/training/checkpoint.py": (
        "tests/training/test_interruptions.py",
        "tests/training/test_loop.py",
        "tests/training/test_bad_checkpoints.py",
        "tests/training/test_layout.py",
    ),
    "spfde/training/trust.py": ("tests/training/test_trust.py",),
    "spfde/training": (
        "tests/training/test_epochs.py",
        "tests/training/test_divergence.py",
        "tests/training/test_loop.py",
    ),
}  # fmt: skip


def tests_of(module: str) -> list[str]:
    """The tests near a module, those that are there."""
    near = next(tests for start, tests in TESTS.items() if module.startswith(start))
    return [path for path in near if (ROOT / path).exists()]


class Copy:
    """A copy of the project in which mutants are tried one after another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        made = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info")
        made_here = shutil.ignore_patterns("results", "site", "build")  # spfde/results is code

        def ignored(path: str, names: list[str]) -> set[str]:
            return made(path, names) | (made_here(path, names) if Path(path) == ROOT else set())

        shutil.copytree(ROOT, folder, ignore=ignored)
        # Bytecode that is checked by the source's digest: of the unchanged modules it is taken, of a mutant never.
        compileall.compile_dir(folder / "spfde", quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)

    def tests(self, paths: list[str]) -> tuple[int, float]:
        """pytest's exit code, and the seconds that it took."""
        begun, code = time.monotonic(), None
        child = os.fork()  # what takes seconds to import is imported already
        if not child:
            self._become_pytest(paths)
        try:
            while code is None:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    code = os.waitstatus_to_exitcode(status)
                elif time.monotonic() - begun > LIMIT:
                    code = 1
                else:
                    time.sleep(0.05)
        finally:  # also what the tests left running
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)
        return code, time.monotonic() - begun

    def _become_pytest(self, paths: list[str]) -> NoReturn:
        """Turns this process, a child, into pytest in the copy, with a process group of its own."""
        code = 3
        try:
            os.setsid()
            os.chdir(self.folder)
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            os.environ |= {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
            sys.dont_write_bytecode = True
            sys.path.insert(0, str(self.folder))
            set_hypothesis_home_dir(self.folder / ".hypothesis")
            told = ["-q", "-x", "-p", "no:cacheprovider", "--no-header", f"--basetemp={self.folder.parent / 'tmp'}"]
            code = int(pytest.main([*told, *paths]))
        finally:
            os._exit(code)

    def survives(self, one: Mutant) -> bool:
        """Whether all tests near the mutant pass with it."""
        path = self.folder / one.module
        whole = path.read_bytes()
        path.write_text(one.code, encoding="utf-8")
        try:
            return self.tests(tests_of(one.module))[0] == 0
        finally:
            path.write_bytes(whole)


def wilson(killed: int, tried: int) -> tuple[float, float]:
    """The 95 % interval of a share.

    >>> [round(bound, 3) for bound in wilson(95, 100)]
    [0.888, 0.978]
    """
    z, share = 1.959964, killed / tried
    middle, half = share + z * z / (2 * tried), z * math.sqrt(share * (1 - share) / tried + z * z / (4 * tried**2))
    return (middle - half) / (1 + z * z / tried), (middle + half) / (1 + z * z / tried)


class Log:
    """What became of mutants, a line of JSON for each; without a file it forgets.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []
        self.known: dict[str, bool] = {entry["key"]: entry["survives"] for entry in map(json.loads, lines)}

    def keep(self, one: Mutant, survives: bool) -> None:
        if self.path:
            told = {"key": one.key, "module": one.module, "line": one.line, "what": one.what, "survives": survives}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(told) + "\n")


def judged(mutants: list[Mutant], log: Log) -> Iterator[tuple[Mutant, bool]]:
    """Each mutant, and whether it survives. Tests that fail without any mutant would kill all: they are named first."""
    yield from ((one, log.known[one.key]) for one in mutants if one.key in log.known)
    mutants = [one for one in mutants if one.key not in log.known]
    with tempfile.TemporaryDirectory(prefix="mutants-") as home:
        copy = Copy(Path(home, "project"))
        for tests in sorted({tuple(tests_of(one.module)) for one in mutants}):
            code, seconds = copy.tests(list(tests))
            if code:
                sys.exit(f"the tests fail without any mutant: {' '.join(tests)}")
            print(f"{seconds:5.0f} s  {' '.join(tests)}", flush=True)
        for one in mutants:
            survives = copy.survives(one)
            log.keep(one, survives)
            yield one, survives


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=300, help="mutants in all")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--module", action="append", default=[], help="only modules whose path begins so; repeatable")
    parser.add_argument("--log", type=Path, help="file that keeps what became of each mutant")
    parser.add_argument("--part", default="1/1", help="which part of the sample, e.g. 2/3")
    parser.add_argument("--list", action="store_true", help="print the sample, and try nothing")
    told = parser.parse_args()
    part, parts = map(int, told.part.split("/"))
    mutants = sample(told.count, told.seed, told.module)[part - 1 :: parts]
    if told.list:
        for one in mutants:
            print(f"{one.module}:{one.line}: {one.what}: {one.text}")
        return
    survivors, tried, by_module = [], 0, Counter[str]()
    for one, survives in judged(mutants, Log(told.log)):
        tried += 1
        by_module[one.module] += 1
        print(f"{tried:4}/{len(mutants)}  {one.module}:{one.line}", flush=True)
        if survives:
            survivors.append(one)
            print(f"survived  {one.module}:{one.line}: {one.what}: {one.text}", flush=True)
    low, high = wilson(tried - len(survivors), tried)
    print(f"{tried - len(survivors)} of {tried} mutants of {len(by_module)} modules killed: ", end="")
    print(f"{(tried - len(survivors)) / tried:.1%}, 95 % interval {low:.1%} to {high:.1%}")
    for one in survivors:
        print(f"  {one.module}:{one.line}: {one.what}: {one.text}")
    sys.exit((tried - len(survivors)) / tried < 0.95)


if __name__ == "__main__":
    main()
