"""Mutation testing: small faults are put into the code one at a time, and the tests near it have to notice.

    python tests/soak/mutants.py --count 300

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
import ast
import hashlib
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT = 600.0  # seconds of the tests of one mutant

# Which tests are near a module. The first pattern that the module's path begins with counts.
TESTS: dict[str, tuple[str, ...]] = {
    "spfde/methods/gse.py": ("tests/methods/test_gse.py", "tests/methods/test_mask_updates.py"),
    "spfde/methods/swat.py": ("tests/methods/test_swat.py", "tests/methods/test_swat_runs.py"),
    "spfde/methods/dsr.py": ("tests/methods/test_dsr.py", "tests/methods/test_mask_updates.py"),
    "spfde/methods/deepr.py": ("tests/methods/test_deepr.py", "tests/methods/test_mask_updates.py"),
    "spfde/methods/lottery.py": ("tests/methods/test_lottery.py", "tests/methods/test_before_training.py"),
    "spfde/methods/small_dense.py": ("tests/methods/test_small_dense.py",),
    "spfde/methods": (
        "tests/methods/test_before_training.py",
        "tests/methods/test_dynamic.py",
        "tests/methods/test_authors.py",
        "tests/methods/test_itop.py",
        "tests/methods/test_mask_updates.py",
        "tests/methods/test_presets.py",
        "tests/methods/test_data_efficient.py",
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
        "tests/results/test_power.py",
        "tests/results/test_images.py",
        "tests/results/test_claims.py",
        "tests/results/test_claim_evidence.py",
    ),
    "spfde/training/checkpoint.py": ("tests/training/test_interruptions.py", "tests/training/test_loop.py"),
    "spfde/training/trust.py": ("tests/training/test_trust.py",),
    "spfde/training": (
        "tests/training/test_epochs.py",
        "tests/training/test_divergence.py",
        "tests/training/test_loop.py",
    ),
}  # fmt: skip
MODULES = (
    "spfde/methods/*.py", "spfde/freezing/*.py", "spfde/sieving/*.py", "spfde/cost/*.py", "spfde/sparsity/masks.py",
    "spfde/data/loader.py", "spfde/data/streaming.py", "spfde/results/hypotheses.py", "spfde/results/verdicts.py",
    "spfde/results/evidence.py", "spfde/results/statistics.py", "spfde/training/checkpoint.py",
    "spfde/training/trust.py", "spfde/training/loop.py", "spfde/training/run.py", "spfde/training/summary.py",
)  # fmt: skip
# Mutants that mean the same as the code: (module, line of the code without its indentation, what was put there).
EQUAL: dict[tuple[str, str, str], str] = {
    (
        "spfde/sieving/circular.py",
        "moved = max(1, count_of(settings.removed, base))  # at least one, otherwise no sample would ever come back",
        "1 becomes 2",
    ): "where half a sample or less would move, no more than one is removed, and no more than that can move",
    (
        "spfde/training/trust.py",
        'return {*NEEDED} <= names and bool({"layers.csv", "layers.csv.gz"} & names)',
        "<= becomes <",
    ): "the trace, which is asked for beside, is a further name",
}

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr,
}  # fmt: skip
MEANS = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.Is: "is",
    ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in", ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/",
    ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One changed place of a module.

    Attributes:
        module: path of the module.
        number: which of the module's places.
        line: its line number.
        what: what was put in place of what.
        code: the module's whole text with the change.
    """

    module: str
    number: int
    line: int
    what: str
    code: str

    @property
    def text(self) -> str:
        """The line of the code that was changed."""
        return (ROOT / self.module).read_text(encoding="utf-8").splitlines()[self.line - 1].strip()

    @property
    def key(self) -> str:
        """Digest of the module with the change: what a log knows it by."""
        return hashlib.sha256(f"{self.module}\0{self.code}".encode()).hexdigest()[:16]


class Mutator(ast.NodeTransformer):
    """Changes the place with this number, in the order of the walk; counts them all."""

    def __init__(self, number: int | None = None) -> None:
        self.number, self.seen = number, 0
        self.line, self.what = 0, ""
        self._silent = 0  # inside of what changes no result: error texts, annotations

    def _chosen(self, node: ast.AST, what: str) -> bool:
        if self._silent:
            return False
        self.seen += 1
        if self.seen - 1 != self.number:
            return False
        self.line, self.what = getattr(node, "lineno", 0), what
        return True

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        for index, operator in enumerate(node.ops):
            other = COMPARISONS.get(type(operator))
            if other and self._chosen(node, f"{MEANS[type(operator)]} becomes {MEANS[other]}"):
                node.ops[index] = other()
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        text = isinstance(node.left, ast.Constant | ast.JoinedStr) and not isinstance(
            getattr(node.left, "value", None), int | float
        )
        other = OPERATORS.get(type(node.op))
        if other and not text and self._chosen(node, f"{MEANS[type(node.op)]} becomes {MEANS[other]}"):
            node.op = other()
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        self.generic_visit(node)
        other = OPERATORS.get(type(node.op))
        if other and self._chosen(node, f"{MEANS[type(node.op)]}= becomes {MEANS[other]}="):
            node.op = other()
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        value = node.value
        if isinstance(value, bool):
            if self._chosen(node, f"{value} becomes {not value}"):
                return ast.copy_location(ast.Constant(not value), node)
        elif isinstance(value, int | float):
            changed = value + 1 if isinstance(value, int) else value * 2 if value else 1.0
            if self._chosen(node, f"{value} becomes {changed}"):
                return ast.copy_location(ast.Constant(changed), node)
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not | ast.USub | ast.Invert):
            sign = {ast.Not: "not", ast.USub: "-", ast.Invert: "~"}[type(node.op)]
            if self._chosen(node, f"without {sign}"):
                return node.operand
        return node

    def _negated(self, node: ast.If | ast.While | ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        if self._chosen(node, "condition negated"):
            node.test = ast.copy_location(ast.UnaryOp(ast.Not(), node.test), node.test)
        return node

    visit_If = visit_While = visit_IfExp = _negated

    def _in_silence(self, node: ast.AST) -> ast.AST:
        self._silent += 1
        self.generic_visit(node)
        self._silent -= 1
        return node

    visit_Raise = visit_JoinedStr = visit_Assert = _in_silence

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        """What only guards (`strict`) or only shows (a column's looks, a description) changes no number."""
        silent = node.arg in ("strict", "numeric", "wraps", "description", "stacklevel", "prefix")
        return self._in_silence(node) if silent else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Errors, caches and prints change no result either."""
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in ("SpfdeError", "lru_cache", "print", "say"):
            return self._in_silence(node)
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        node.defaults = [self.visit(value) for value in node.defaults]
        node.kw_defaults = [self.visit(value) if value else None for value in node.kw_defaults]
        return node


def mutant(module: str, number: int) -> Mutant:
    """The mutant of a module with this number."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    mutator = Mutator(number)
    changed = ast.fix_missing_locations(mutator.visit(tree))
    return Mutant(module, number, mutator.line, mutator.what, ast.unparse(changed))


def places(module: str) -> int:
    """How many mutants a module has."""
    mutator = Mutator()
    mutator.visit(ast.parse((ROOT / module).read_text(encoding="utf-8")))
    return mutator.seen


def sample(count: int, seed: int, chosen: list[str]) -> list[Mutant]:
    """Mutants drawn without repetition, the modules taking turns, until there are enough."""
    draws = random.Random(seed)
    modules = [path.relative_to(ROOT).as_posix() for pattern in MODULES for path in sorted(ROOT.glob(pattern))]
    modules = [module for module in modules if not chosen or any(module.startswith(name) for name in chosen)]
    left = {module: draws.sample(range(places(module)), places(module)) for module in modules}
    found: list[Mutant] = []
    while len(found) < count and any(left.values()):
        for module in [module for module, numbers in left.items() if numbers]:
            one = mutant(module, left[module].pop())
            if (module, one.text, one.what) not in EQUAL:
                found.append(one)
    return found[:count]


def tests_of(module: str) -> list[str]:
    """The tests near a module, those that are there."""
    near = next(tests for start, tests in TESTS.items() if module.startswith(start))
    return [path for path in near if (ROOT / path).exists()]


class Copy:
    """A copy of the project in which mutants are tried one after another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ignored = shutil.ignore_patterns("__pycache__", ".*", "results", "site", "build", "*.egg-info")
        shutil.copytree(ROOT, folder, ignore=ignored)

    def tests(self, paths: list[str]) -> tuple[int, float]:
        """pytest's exit code, and the seconds that it took."""
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", *paths]
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        environment |= {"OMP_NUM_THREADS": "1"}
        begun = time.monotonic()
        process = subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            code = 1
        return code, time.monotonic() - begun

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
