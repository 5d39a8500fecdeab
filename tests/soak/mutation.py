"""Small faults of the code: a comparison, operator, number or condition changed in one place, and samples of them."""

import ast
import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = (
    "spfde/methods/*.py", "spfde/freezing/*.py", "spfde/sieving/*.py", "spfde/cost/*.py", "spfde/sparsity/masks.py",
    "spfde/data/loader.py", "spfde/data/streaming.py", "spfde/results/hypotheses.py", "spfde/results/verdicts.py",
    "spfde/results/evidence.py", "spfde/results/statistics.py", "spfde/training/checkpoint.py",
    "spfde/training/trust.py", "spfde/training/loop.py", "spfde/training/run.py", "spfde/training/summary.py",
)  # fmt: skip
# Mutants that mean the same as the code: (module, line of the code without its indentation, what was put there).
EQUAL: dict[tuple[str, str, str], str] = {
    (
        "spfde/training/trust.py",
        'return {*NEEDED} <= names and bool({"layers.csv", "layers.csv.gz"} & names)',
        "<= becomes <",
    ): "the trace, which is asked for beside, is a further name",
    (
        "spfde/training/trust.py",
        'if not diverged and not math.isclose(float(rows[-1]["test_accuracy"]), told, rel_tol=1e-9, abs_tol=1e-9):',
        "1e-09 becomes 2e-09",
    ): "both are far above the rounding of a printed number and far below one image",
    (
        "spfde/methods/gse_mass.py",
        'def even(cls, layer: SparseLayer, groups: int = 1, value: float = 1.0) -> "Mass":',
        "1.0 becomes 2.0",
    ): "positions are drawn by shares of the whole mass",
    (
        "spfde/cost/memory.py",
        "ledger = {part: np.concatenate([moment[part] for moment in moments]) for part in moments[0]}",
        "0 becomes 1",
    ): "both moments have the same parts",
    (
        "spfde/freezing/schedule.py",
        "def grid_of(settings: FreezingSettings, ledger: Ledger, seed: int = 0) -> Grid:",
        "0 becomes 1",
    ): "each caller gives its own",
    ("spfde/sparsity/masks.py", "self.changes += 1", "1 becomes 2"): "it is only asked whether it is another number",
    ("spfde/cost/operations.py", "inputs: int = 0", "0 becomes 1"): "only the difference of two passes is used",
    (
        "spfde/cost/graph.py",
        "earlier, _ = self._saved.get(storage._cdata, (-1, 0))",
        "0 becomes 1",
    ): "the bytes of the default are not used",
    (
        "spfde/methods/rigl_itop.py",
        "return density + (1 - density) * self.mask_updates(0, steps) / max(1, len(steps))",
        "0 becomes 1",
    ): "the updates of these steps are the same in any epoch",
    ("spfde/training/summary.py", "if TYPE_CHECKING:", "condition negated"): "it is for the type checker",
    (
        "spfde/methods/lottery.py",
        "return math.ceil(math.log(self.density) / math.log(1 - self.options.drop_fraction) - 1e-9)",
        "1e-09 becomes 2e-09",
    ): "both are far above rounding and far below a round",
    ("spfde/methods/base.py", "classes: int = 1", "1 becomes 2"): "what is made without its classes takes no samples",
    (
        "spfde/freezing/frozen_block.py",
        "last[module] = max(next(inside, len(blocks)), last.get(module, -1))",
        "1 becomes 2",
    ): "any number below that of the first block, 0, does",
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
