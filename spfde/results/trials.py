"""Verdicts on accuracies: from the runs of several rows to a word, at the looks that were declared before.

A look is a number of seeds at which a claim may be decided, and the level of its tests. Once decided at a look, a claim
stays decided; between looks it is "undecided (interim)", whatever the runs at hand say, so that nobody can stop adding
seeds when the result pleases. Runs that diverged are left out of means; in a second analysis they count with the
accuracy of chance, and where the two disagree the claim is undecided.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd

from spfde.results.claims import DECIDED, Verdict
from spfde.results.hypotheses import LEVEL, UNTESTED, Judged, Test, Word, conclude, judge
from spfde.results.statistics import (
    UNKNOWN,
    Effect,
    Runs,
    Variance,
    contrast,
    paired_contrast,
    pooled_variance,
)

NO_VARIANCE = Variance(0.0, math.inf)
NO_SPREAD = Judged("undecided", math.nan, math.nan, "the runs at hand show no spread to judge by")


class Run(NamedTuple):
    """A finished run of a row: its value is NaN where it diverged."""

    hardware: str
    seed: int
    value: float
    diverged: bool = False
    run_id: str = ""


class Look(NamedTuple):
    """A number of seeds at which claims are decided.

    Attributes:
        seeds: how many every row needs.
        level: of each one-sided test.
        all: whether seeds beyond that number count too; otherwise the first ones in their order do.
    """

    seeds: int
    level: float = LEVEL
    all: bool = False


class Hypothesis(NamedTuple):
    """A comparison of rows and its test.

    Attributes:
        rows: names of the rows.
        weights: what the means of the rows are multiplied with.
        test: what their sum must show.
        published: variance of the published number in the test, where it is an uncertain one.
    """

    rows: tuple[str, ...]
    weights: tuple[float, ...]
    test: Test
    published: Variance = NO_VARIANCE


class Finding(NamedTuple):
    """A comparison with its effect, by Welch's test and with a pooled variance, and the word on it."""

    rows: tuple[str, ...]
    effect: Effect
    pooled: Effect
    judged: Judged


@dataclass(frozen=True)
class Outcome:
    """A verdict with what it rests on."""

    verdict: Verdict
    findings: list[Finding]
    reason: str = ""
    level: float = LEVEL
    control: Effect | None = None
    diverged: int = 0
    runs: int = 0


@dataclass(frozen=True)
class Trial:
    """The comparisons of a claim and the runs of their rows.

    Args:
        hypotheses: the comparisons.
        runs: the runs of each row, by its name.
        looks: when they are decided, in order.
        control: dynamic row and static row; where given, no difference is only claimed where this one is shown.
        paired: compare seed by seed.
        chance: accuracy of guessing, percent.
    """

    hypotheses: Sequence[Hypothesis]
    runs: Mapping[str, Sequence[Run]]
    looks: Sequence[Look]
    control: Sequence[str] = ()
    paired: bool = False
    chance: float = 0.0
    _ordered: dict[str, list[Run]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        names = {row for hypothesis in self.hypotheses for row in hypothesis.rows} | set(self.control)
        self._ordered.update({row: sorted(self.runs.get(row, ()), key=lambda run: run.seed) for row in names})

    def decide(self) -> Outcome:
        """The outcome at the first look that decides, or what the runs at hand show."""
        if not self.hypotheses:
            return Outcome("not run", [], "nothing to compare")
        for look in self.looks:
            found = self._at(look)
            if found.verdict in DECIDED:
                return found
        if all(self._reached(hypothesis, look) for hypothesis in self.hypotheses):
            return found
        return self._pending()

    def fewest(self) -> int:
        """Seeds of the row that has the fewest."""
        return min(len(self._ordered[row]) for hypothesis in self.hypotheses for row in hypothesis.rows)

    def _reached(self, hypothesis: Hypothesis, look: Look) -> bool:
        return all(len(self._ordered[row]) >= look.seeds for row in hypothesis.rows)

    def _at(self, look: Look) -> Outcome:
        """The outcome of both analyses at a look; comparisons that have not reached it are not run."""
        cut = {row: runs if look.all else runs[: look.seeds] for row, runs in self._ordered.items()}
        first = self._analysis(look, cut, measured)
        named = {row for hypothesis in self.hypotheses for row in hypothesis.rows}
        diverged = sum(run.diverged for row in named for run in cut[row])
        total = sum(len(cut[row]) for row in named)
        counted = Outcome(**{**vars(first), "diverged": diverged, "runs": total})
        if not diverged:
            return counted
        second = self._analysis(look, cut, lambda runs: _values(runs, self.chance))
        if first.verdict == second.verdict:
            return counted
        reason = (
            f"{diverged} of {total} runs diverged; counted with the accuracy of chance, it would be {second.verdict}"
        )
        return Outcome(**{**vars(counted), "verdict": "undecided", "reason": reason})

    def _analysis(
        self, look: Look, cut: Mapping[str, Sequence[Run]], values: Callable[[Sequence[Run]], Runs]
    ) -> Outcome:
        found = self._findings(cut, values)
        reached = [self._reached(hypothesis, look) for hypothesis in self.hypotheses]
        # Seeds whose accuracies are all equal say nothing of the spread: they are not tested, and not called exact.
        spread = [finding.effect.known and finding.effect.error > 0 for finding in found]
        tested = [
            finding.effect if there and known else UNKNOWN
            for finding, there, known in zip(found, reached, spread, strict=True)
        ]
        judged = judge([hypothesis.test for hypothesis in self.hypotheses], tested, look.level)
        findings = [
            finding._replace(judged=NO_SPREAD if there and not known else each)
            for finding, each, there, known in zip(found, judged, reached, spread, strict=True)
        ]
        verdict: Verdict = conclude([finding.judged.word for finding in findings])
        reason = next((f.judged.reason for f in findings if f.judged.reason), "") if verdict == "undecided" else ""
        control = self._effect(self.control, (1.0, -1.0), cut, values) if self.control else None
        shown = control is None or (control.known and control.error and control.p_above(0.0) <= look.level)
        if verdict == "reproduced" and not shown:
            verdict = "undecided"
            reason = f"the positive control ({' above '.join(self.control)}) is not shown: no difference means little"
        return Outcome(verdict, findings, reason, look.level, control)

    def _pending(self) -> Outcome:
        """What the runs show where no look decided: nothing, or an interim state."""
        look = self.looks[-1]
        findings = self._findings(self._ordered, measured)
        fewest, named = self.fewest(), {row for hypothesis in self.hypotheses for row in hypothesis.rows}
        runs = [run for row in named for run in self._ordered[row]]
        verdict: Verdict = "undecided (interim)" if fewest else "not run"
        coming = next((look.seeds for look in self.looks if look.seeds > fewest), look.seeds)
        reason = f"{fewest} seeds of the {coming} of the next look" if fewest else _lacking(self._ordered, named)
        diverged = sum(run.diverged for run in runs)
        return Outcome(verdict, findings, reason, look.level, None, diverged, len(runs))

    def _findings(self, cut: Mapping[str, Sequence[Run]], values: Callable[[Sequence[Run]], Runs]) -> list[Finding]:
        names = dict.fromkeys(row for hypothesis in self.hypotheses for row in hypothesis.rows)
        common = pooled_variance([values(cut[row]) for row in names])
        found = []
        for hypothesis in self.hypotheses:
            effect = self._effect(hypothesis.rows, hypothesis.weights, cut, values)
            rows = [values(cut[row]) for row in hypothesis.rows]
            pooled = contrast(rows, hypothesis.weights, common) if common.df > 0 else UNKNOWN
            if hypothesis.published.value:
                effect, pooled = (
                    each.widened(hypothesis.published) if each.known else each for each in (effect, pooled)
                )
            found.append(Finding(hypothesis.rows, effect, pooled, UNTESTED))
        return found

    def _effect(
        self,
        rows: Sequence[str],
        weights: Sequence[float],
        cut: Mapping[str, Sequence[Run]],
        values: Callable[[Sequence[Run]], Runs],
    ) -> Effect:
        make = paired_contrast if self.paired else contrast
        return make([values(cut[row]) for row in rows], weights)


def of_row(frame: pd.DataFrame, row: str, metric: str) -> list[Run]:
    """The runs of a row in the frame of records; a seed that several records have counts once, the first one."""
    runs = frame[frame["row"] == row]
    if runs.empty:
        return []
    runs = runs.drop_duplicates("seed")
    diverged = runs["status"].eq("diverged") if "status" in runs else pd.Series(False, index=runs.index)
    hardware = runs["environment.device"] if "environment.device" in runs else pd.Series("unknown", index=runs.index)
    return [
        Run(str(where), int(seed), math.nan if lost else float(value), bool(lost), str(name))
        for where, seed, value, lost, name in zip(
            hardware, runs["seed"], runs[metric], diverged, runs["run_id"], strict=True
        )
    ]


def in_words(word: Word | Verdict) -> str:
    """A verdict as it is said of a reduced scale."""
    said = {"reproduced": "supported", "contradicted": "not supported", "smaller than claimed": "not supported"}
    return said.get(word, word)


def _values(runs: Iterable[Run], chance: float) -> Runs:
    return {(run.hardware, run.seed): chance if run.diverged else run.value for run in runs}


def measured(runs: Iterable[Run]) -> Runs:
    """The values of the runs that did not diverge."""
    return {(run.hardware, run.seed): run.value for run in runs if not math.isnan(run.value)}


def _lacking(runs: Mapping[str, Sequence[Run]], named: Iterable[str]) -> str:
    empty = sorted(row for row in named if not runs[row])
    return f"no runs of {', '.join(empty[:3])}" + (f" and {len(empty) - 3} more rows" if len(empty) > 3 else "")
