"""The sentences of the papers that can be checked (config/claims.yaml): their shape, and the test that each asks for.

A claim says what is measured, what the paper says it is, by which test it is decided, and the one scale whose runs may
decide it. How the test works: `spfde.results.hypotheses`; where its evidence comes from: `spfde.results.evidence`.
"""

import math
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from spfde.configuration import config_file
from spfde.files import read_yaml
from spfde.results.hypotheses import Better, Kind, Test, make
from spfde.settings import Section, parse

Verdict = Literal[
    "reproduced",
    "smaller than claimed",
    "undecided",
    "undecided (interim)",
    "contradicted",
    "by construction",
    "not run",
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
DECIDED = ("reproduced", "smaller than claimed", "contradicted")
Standing = Literal["F", "D", "2nd", "R", "NF"]
FROM_THE_SUREST: tuple[Standing, ...] = get_args(Standing)
UNVERIFIED = ("R", "NF")
SMALLEST = 0.2  # points: the smallest effect of interest where no effect was published
RELATIONS = {
    "value": (1.0,),
    "difference": (1.0, -1.0),
    "ratio": (1.0, -1.0),
    "interaction": (1.0, -1.0, -1.0, 1.0),
}


class Expected(Section):
    """What the paper says an effect is: a range, open where a bound is missing, and how sure we are that it does."""

    low: float | None = None
    high: float | None = None
    standing: Standing
    std: float | None = Field(None, gt=0, description="standard deviation over runs of each mean behind it, if stated")
    runs: int = Field(3, ge=2, description="runs behind each of these means")

    @model_validator(mode="after")
    def _ordered(self) -> "Expected":
        if self.low is None and self.high is None:
            raise ValueError("give low, high or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("low is above high")
        return self


class Comparison(Section):
    """Rows that a claim compares, and what the paper says of these where it says something of each."""

    rows: list[str] = Field(min_length=1)
    expected: Expected | None = None

    @model_validator(mode="before")
    @classmethod
    def _rows_alone(cls, value: Any) -> Any:
        return {"rows": value} if isinstance(value, list) else value


class ByConstruction(Section):
    """Why no run could have come out otherwise."""

    by: Literal["definition", "solver", "preset"] = Field(
        description="a definition taken from the paper, a solver that is asked for it, or a preset chosen for it"
    )
    reason: str


class EqualCosts(Section):
    """What the compared rows may cost, for the comparison to be the one that the sentence speaks of."""

    metric: str = "flops.paper"
    relation: Literal["equal", "at most"] = "at most"
    tolerance: float = Field(0.002, ge=0, description="as a share of the cost of the row compared with")


class Claim(Section):
    """A sentence of a paper and what would make it true."""

    id: str = Field(pattern=r"^[a-z0-9-]+$")
    claim: str = Field(description="the sentence")
    source: str = Field(description="paper and heading; it begins with the paper's name")
    standing: Standing | None = Field(None, description="of the sentence; needed where no number says how sure we are")
    kind: Literal["accuracy", "analysis", "cost", "memory", "invariance", "acceleration"]
    test: Kind = Field("range", description="how it is decided")
    scale: str = Field("cifar100", description="the scale of the paper: the only one whose accuracies decide")
    experiment: str = Field("table2", description="the experiment of the rows")
    metric: str = Field("accuracy.test_last", description="value of a record or plan, or the name of a check")
    other_metric: str | None = Field(None, description="the metric of the row compared with, where it is another one")
    relation: Literal["value", "difference", "ratio", "interaction"] = "difference"
    comparisons: list[Comparison] = Field([], description="the rows of each; all of them must hold")
    expected: Expected | None = Field(None, description="of every comparison that has none of its own")
    margin: float = Field(0.0, ge=0, description="how far beyond the range still agrees, in the effect's unit")
    smallest: float | None = Field(
        None, gt=0, description="smallest effect of interest; by default half the published one, or else 0.2"
    )
    better: Better | None = Field(None, description="effects that are better than claimed never contradict")
    control: list[str] = Field([], description="dynamic row, static row: a difference that the experiment must show")
    paired: bool = Field(False, description="compare seed by seed, in place of Welch's test")
    costs: EqualCosts | None = Field(None, description="what the rows of a comparison may cost")
    by_construction: ByConstruction | None = None
    missing: str = Field("", description="why no row of this project decides it")
    note: str = Field("", description="what our own ledger says beside it")
    why: str = Field("", description="the reason for the margin, or how the range follows from the sentence")

    @model_validator(mode="after")
    def _complete(self) -> "Claim":
        rows = len(RELATIONS[self.relation])
        if any(len(comparison.rows) != rows for comparison in self.comparisons):
            raise ValueError(f"a comparison by {self.relation} names {rows} row{'s' * (rows > 1)}")
        if self.kind in ("accuracy", "cost", "memory") and not self.comparisons and not self.missing:
            raise ValueError(f"a claim on {self.kind} needs comparisons, or says in `missing` why it has none")
        if (self.kind == "accuracy") == (self.test == "range"):
            raise ValueError(f"a claim on {self.kind} cannot be decided by the test {self.test}")
        no_loss = self.test in ("equivalence", "non-inferiority") and not self.missing
        if no_loss and (self.margin <= 0 or len(self.control) != 2):
            raise ValueError(f"a test of {self.test} needs a margin above 0 and a control of two rows")
        needs = self.test not in ("equivalence", "superiority") and not self.missing
        if needs and not self.expected and not all(comparison.expected for comparison in self.comparisons):
            raise ValueError("what the paper says is missing: give `expected`")
        if not (self.standing or self.expected or (self.comparisons and all(it.expected for it in self.comparisons))):
            raise ValueError("give `standing`: no number says how sure we are that the sentence is the paper's")
        return self

    @property
    def weights(self) -> tuple[float, ...]:
        """What the rows' values are multiplied with; a ratio's are those of its logarithm."""
        return RELATIONS[self.relation]

    @property
    def stands(self) -> Standing:
        """The least sure standing among what the paper is said to say: the sentence and its numbers."""
        found = [comparison.expected or self.expected for comparison in self.comparisons] or [self.expected]
        known = [self.standing, *(each.standing for each in found if each)]
        return max((each for each in known if each), key=FROM_THE_SUREST.index)

    @property
    def wanted(self) -> Better | None:
        return self.better or ("higher" if self.kind == "accuracy" else None)

    def said(self, comparison: Comparison | None = None) -> Expected | None:
        """What the paper says of a comparison."""
        return (comparison.expected if comparison else None) or self.expected

    def test_of(self, comparison: Comparison | None = None) -> Test:
        """The test of a comparison at the paper's scale."""
        said = self.said(comparison)
        low, high = (said.low, said.high) if said else (None, None)
        return make(self.test, self.margin, low, high, self.smallest_of(comparison), self.wanted)

    def smallest_of(self, comparison: Comparison | None = None) -> float:
        """The smallest effect of interest: declared, half the published effect, or 0.2 points."""
        said = self.said(comparison)
        published = said.low if said and said.low else 0.0
        return self.smallest or (published / 2 if published > 0 else SMALLEST)

    def assumed(self, comparison: Comparison | None = None) -> float:
        """The effect that power is computed for: the published one; without a number, no difference or the smallest."""
        said = self.said(comparison)
        known = [bound for bound in (said.low, said.high) if bound is not None] if said else []
        if self.test == "superiority":
            return known[0] if known and known[0] > 0 else self.smallest_of(comparison)
        return 0.0 if self.test == "equivalence" or not known else math.fsum(known) / len(known)


class Question(Section):
    """A question of a study's own: a sentence on two rows of its scale, decided at its looks and by its margins."""

    id: str = Field(pattern=r"^[a-z0-9-]+$")
    asks: int = Field(ge=1, description="number of the question in the protocol")
    says: str = Field(description="what the answer yes would say")
    rows: list[str] = Field(min_length=2, max_length=2, description="row, row that it is compared with")
    test: Literal["superiority", "non-inferiority"]
    control: list[str] = Field([], description="for non-inferiority: dynamic row, static row")
    costs: EqualCosts | None = Field(None, description="what the first row may cost")

    def as_claim(self, how: "Reduced") -> Claim:
        """The question in the form of a claim, with the margin of its scale."""
        return Claim(
            id=self.id,
            claim=self.says,
            source="docs/protocol.md",
            kind="accuracy",
            test=self.test,
            scale=how.of,
            comparisons=[Comparison(rows=self.rows)],
            expected=Expected(low=0.0, standing="F"),
            margin=how.margin,
            control=self.control,
            costs=self.costs,
        )


class Reduced(Section):
    """A scale that stands in for a paper's: its margins and looks, declared before its runs."""

    of: str = Field(description="the scale of the paper")
    looks: dict[int, float] = Field(description="number of seeds of each look, and its one-sided level", min_length=1)
    margin: float = Field(gt=0, description="points, for equivalence and non-inferiority")
    retained: float = Field(
        gt=0, lt=1, description="share of the control's difference (dynamic minus static) that must be kept as well"
    )
    smallest: float = Field(gt=0, description="points, the smallest effect of interest for superiority")
    rows: dict[str, str] = Field(
        {}, description="parts of the rows' names that are others here, e.g. s90: s80 where the gate lowered a sparsity"
    )
    trend: dict[int, list[str]] = Field(
        {}, description="row and base row by epochs of training: claims of no loss need their gap over the logarithm"
    )
    questions: list[Question] = Field([], description="those that its protocol asks, beside the claims of the papers")
    full: int = Field(160, ge=1, description="epochs of the paper's schedule, which the trend is extrapolated to")

    def of_claim(self, claim: Claim) -> Claim:
        """The claim with the rows that stand in for the paper's at this scale.

        >>> how = Reduced(of="cifar100", looks={5: 0.03}, margin=1, retained=0.5, smallest=0.3, rows={"s90": "s80"})
        >>> how.row("mest-ems-s90-mest")
        'mest-ems-s80-mest'
        """
        comparisons = [
            each.model_copy(update={"rows": [self.row(row) for row in each.rows]}) for each in claim.comparisons
        ]
        return claim.model_copy(
            update={"comparisons": comparisons, "control": [self.row(row) for row in claim.control]}
        )

    def others_in(self, claim: Claim) -> dict[str, str]:
        """Which parts of the names of a claim's rows are others here, and which they are."""
        rows = [*claim.control, *(row for each in claim.comparisons for row in each.rows)]
        parts = dict.fromkeys(part for row in rows for part in row.split("-"))
        return {part: self.rows[part] for part in parts if part in self.rows}

    def row(self, name: str) -> str:
        """The row that stands in for one of the paper's."""
        return "-".join(self.rows.get(part, part) for part in name.split("-"))


class Claims(Section):
    """The file: the claims, and the scales at which they get a reduced verdict."""

    reduced: dict[str, Reduced] = Field({}, description="by the name of the scale")
    claims: list[Claim]

    @model_validator(mode="before")
    @classmethod
    def _claims_alone(cls, value: Any) -> Any:
        return {"claims": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _distinct(self) -> "Claims":
        names = [claim.id for claim in self.claims]
        if len(set(names)) < len(names):
            raise ValueError("two claims have the same id")
        return self


def read() -> Claims:
    """The claims of config/claims.yaml of the working folder, or else of the one that comes with the code.

    Raises:
        SpfdeError: the file is not YAML, or a claim has not the shape of one.
    """
    path = config_file("claims.yaml")
    values = read_yaml(path, "claims", "mend the file")
    return parse(Claims, values if isinstance(values, dict) else {"claims": values}, path.name)
