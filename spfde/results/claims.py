"""Verdicts on the sentences of the papers that can be checked (config/claims.yaml).

Every claim says what is measured, what the paper says it is, how far off it may be, and the one scale whose runs may
decide it. Where its evidence comes from: `spfde.results.evidence`.
"""

import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import Field, model_validator

from spfde.errors import SpfdeError
from spfde.experiments.files import config_file
from spfde.results.statistics import Estimate
from spfde.settings import Section, parse

Verdict = Literal["reproduced", "within noise", "contradicted", "not run"]
VERDICTS: tuple[Verdict, ...] = ("reproduced", "within noise", "contradicted", "not run")
UNVERIFIED = ("R", "NF")


class Expected(Section):
    """What the paper says an effect is: a range, open where a bound is missing, and how sure we are that it does."""

    low: float | None = None
    high: float | None = None
    standing: Literal["F", "D", "R", "2nd", "NF"]

    @model_validator(mode="after")
    def _ordered(self) -> "Expected":
        if self.low is None and self.high is None:
            raise ValueError("give low, high or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("low is above high")
        return self


class Claim(Section):
    """A sentence of a paper and what would make it true."""

    id: str = Field(pattern=r"^[a-z0-9-]+$")
    claim: str = Field(description="the sentence")
    source: str = Field(description="paper and section")
    kind: Literal["accuracy", "analysis", "cost", "memory", "invariance", "acceleration"]
    scale: str = Field("cifar100", description="the scale of the paper: the only one whose accuracies decide")
    experiment: str = Field("table2", description="the experiment of the rows")
    metric: str = Field("accuracy.test_last", description="value of a record or plan, or the name of a check")
    other_metric: str | None = Field(None, description="the metric of the row compared with, where it is another one")
    relation: Literal["value", "difference", "ratio"] = "difference"
    comparisons: list[list[str]] = Field([], description="[row], or [row, row compared with]; all of them must hold")
    expected: Expected
    tolerance: float = Field(0.0, ge=0, description="how far beyond the range still agrees, in the effect's unit")
    why: str = Field("", description="the reason for the tolerance, or how the range follows from the sentence")

    @model_validator(mode="after")
    def _complete(self) -> "Claim":
        rows = 1 if self.relation == "value" else 2
        if any(len(comparison) != rows for comparison in self.comparisons):
            raise ValueError(f"a comparison by {self.relation} names {rows} row{'s' * (rows > 1)}")
        if self.kind in ("accuracy", "cost", "memory") and not self.comparisons:
            raise ValueError(f"a claim on {self.kind} needs comparisons")
        return self

    @property
    def low(self) -> float:
        return -math.inf if self.expected.low is None else self.expected.low - self.tolerance

    @property
    def high(self) -> float:
        return math.inf if self.expected.high is None else self.expected.high + self.tolerance


class Finding(NamedTuple):
    """One comparison: its rows, the effect, and what it says."""

    rows: list[str]
    effect: Estimate
    verdict: Verdict


class Claims(Section):
    claims: list[Claim]

    @model_validator(mode="after")
    def _distinct(self) -> "Claims":
        names = [claim.id for claim in self.claims]
        if len(set(names)) < len(names):
            raise ValueError("two claims have the same id")
        return self


def read() -> list[Claim]:
    """The claims of config/claims.yaml of the working folder, or else of the one that comes with the code.

    Raises:
        SpfdeError: the file is not YAML, or a claim has not the shape of one.
    """
    path = config_file("claims.yaml")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        raise SpfdeError(f"{path} is not YAML", "mend the file") from None
    return parse(Claims, {"claims": values}, path.name).claims


def exact(value: float) -> Estimate:
    """An effect without noise: computed, not measured."""
    return Estimate(value, 0.0, 1, value, value)


def judge(claim: Claim, effect: Estimate) -> Verdict:
    """What an effect says of a claim, by its 95 % interval and the expected range widened by the tolerance.

    Inside: reproduced. Apart from it: contradicted. Both are possible: within noise. Without an interval: not run.
    """
    if math.isnan(effect.low) or math.isnan(effect.high):
        return "not run"
    if claim.low <= effect.low and effect.high <= claim.high:
        return "reproduced"
    return "contradicted" if effect.high < claim.low or effect.low > claim.high else "within noise"


def findings(claim: Claim, effects: Iterable[tuple[list[str], Estimate]]) -> list[Finding]:
    return [Finding(rows, effect, judge(claim, effect)) for rows, effect in effects]


def conclude(claim: Claim, found: list[Finding]) -> tuple[Verdict, str]:
    """The verdict of all comparisons together, and the reason where there is none.

    All must hold; one that contradicts is enough against. A published number that nobody verified decides nothing.
    """
    if claim.expected.standing in UNVERIFIED:
        return "not run", "the published value is unverified, and no verdict rests on one"
    said = [finding.verdict for finding in found]
    if not said:
        return "not run", "there are none"
    if "not run" in said:
        fewest = min(finding.effect.n for finding in found if finding.verdict == "not run")
        return "not run", f"a comparison has {fewest} paired runs and needs two"
    for verdict in ("contradicted", "within noise"):
        if verdict in said:
            return verdict, ""
    return "reproduced", ""


def worst(claim: Claim, found: list[Finding]) -> Finding | None:
    """The comparison that stands worst with the claim: it is the one to print."""

    def margin(finding: Finding) -> float:
        return min(finding.effect.mean - claim.low, claim.high - finding.effect.mean)

    known = [finding for finding in found if not math.isnan(finding.effect.mean)]
    return min(known, key=margin, default=None)


def plain(value: Any) -> Any:
    """JSON has neither NaN nor infinity: None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value
