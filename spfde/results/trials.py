"""Verdicts on accuracies: from the runs of several rows to a word, at the looks that were declared before.

A look is a set of seeds at which a claim may be decided, and the level of its tests. Once decided at a look, a claim
stays decided; between looks it is "undecided (interim)", whatever the runs at hand say, so that nobody can stop adding
seeds when the result pleases. Only runs on the same hardware are compared, and only those count towards a look. Runs
that diverged are left out of means; in a second analysis they count with the accuracy of chance, and where the two
disagree the claim is undecided.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    """The seeds at which claims are decided.

    Attributes:
        seeds: how many every row needs.
        level: of each one-sided test.
        named: which seeds these are, where that was declared before: another one never takes the place of one that is
            missing. Empty: any seeds, and those beyond their number count too.
    """

    seeds: int
    level: float = LEVEL
    named: tuple[int, ...] = ()

    def of(self, runs: Iterable[Run]) -> list[Run]:
        """Those of the runs that count at this look."""
        return [run for run in runs if not self.named or run.seed in self.named]


class Hypothesis(NamedTuple):
    """A comparison of rows and its test.

    Attributes:
        rows: names of the rows.
        weights: what the means of the rows are multiplied with.
        test: what their sum must show.
        published: variance of the published number in the test, where it is an uncertain one.
        refuted: what is said where the test speaks against the claim, if the rows alone do not tell it.
    """

    rows: tuple[str, ...]
    weights: tuple[float, ...]
    test: Test
    published: Variance = NO_VARIANCE
    refuted: str = ""


class Finding(NamedTuple):
    """A comparison with its effect, by Welch's test and with a pooled variance, and the word on it."""

    rows: tuple[str, ...]
    effect: Effect
    pooled: Effect
    judged: Judged


@dataclass(frozen=True)
class Outcome:
    """A verdict with what it rests on.

    Args:
        verdict: the word.
        findings: of each comparison.
        reason: why nothing is decided, or what it was decided by where the comparisons do not tell it.
        level: of each one-sided test.
        control: the positive control, where the claim has one.
        cut: the runs of each row that the verdict rests on, those that diverged among them.
    """

    verdict: Verdict
    findings: list[Finding]
    reason: str = ""
    level: float = LEVEL
    control: Effect | None = None
    cut: Mapping[str, Sequence[Run]] = field(default_factory=dict)

    @property
    def runs(self) -> int:
        return sum(map(len, self.cut.values()))

    @property
    def diverged(self) -> int:
        return sum(run.diverged for runs in self.cut.values() for run in runs)


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
        waiting, reason = None, ""
        for look in self.looks:
            found = self._at(look)
            if found.verdict in DECIDED:
                return found
            if waiting is None and not self._all_reached(look):
                waiting = look
            elif waiting is None:
                reason = f"; at {look.seeds} seeds: {found.reason}" if found.reason else ""
        return self._pending(waiting, reason) if waiting else found

    def fewest(self) -> int:
        """Runs, on hardware that can be compared, of the row that has the fewest at the last look."""
        cut = self._cut(self.looks[-1])
        return min(comparable([cut[row] for row in hypothesis.rows]) for hypothesis in self.hypotheses)

    def effect(self, rows: Sequence[str]) -> Effect:
        """The first row minus the second, over the runs of the last look that did not diverge."""
        return self._effect(rows, (1.0, -1.0), self._cut(self.looks[-1]), measured)

    def _cut(self, look: Look) -> dict[str, list[Run]]:
        return {row: look.of(runs) for row, runs in self._ordered.items()}

    def _reached(self, rows: Sequence[str], look: Look) -> bool:
        return comparable([look.of(self._ordered[row]) for row in rows]) >= look.seeds

    def _all_reached(self, look: Look) -> bool:
        together = [hypothesis.rows for hypothesis in self.hypotheses] + [tuple(self.control)] * bool(self.control)
        return all(self._reached(rows, look) for rows in together)

    def _at(self, look: Look) -> Outcome:
        """The outcome of both analyses at a look; comparisons that have not reached it are not run."""
        cut = self._cut(look)
        first = self._analysis(look, cut, measured)
        if not first.diverged:
            return first
        second = self._analysis(look, cut, lambda runs: _values(runs, self.chance))
        if first.verdict == second.verdict:
            return first
        reason = (
            f"{first.diverged} of {first.runs} runs diverged; counted with the accuracy of chance, it would be "
            f"{second.verdict}"
        )
        return replace(first, verdict="undecided", reason=reason)

    def _analysis(
        self, look: Look, cut: Mapping[str, Sequence[Run]], values: Callable[[Sequence[Run]], Runs]
    ) -> Outcome:
        found = self._findings(cut, values)
        reached = [self._reached(hypothesis.rows, look) for hypothesis in self.hypotheses]
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
        reason = self._reason(verdict, findings)
        control = self._effect(self.control, (1.0, -1.0), cut, values) if self.control else None
        shown = control is None or (
            self._reached(self.control, look)
            and control.known
            and control.error > 0
            and control.p_above(0.0) <= look.level
        )
        if verdict == "reproduced" and not shown:
            verdict = "undecided"
            reason = f"the positive control ({' above '.join(self.control)}) is not shown: no difference means little"
        return Outcome(verdict, findings, reason, look.level, control, cut)

    def _reason(self, verdict: Verdict, findings: Sequence[Finding]) -> str:
        """Why nothing is decided; or what speaks against the claim where it is none of its own comparisons."""
        if verdict == "undecided":
            return next((finding.judged.reason for finding in findings if finding.judged.reason), "")
        against = [
            hypothesis.refuted
            for hypothesis, finding in zip(self.hypotheses, findings, strict=True)
            if finding.judged.word == "contradicted"
        ]
        return next(iter(against), "") if all(against) else ""

    def _pending(self, look: Look, before: str) -> Outcome:
        """What the runs show where no look decided: nothing, or an interim state before this look.

        Args:
            look: the next one, which not every comparison has reached.
            before: why the look before it decided nothing.
        """
        cut = self._cut(look)
        findings = self._findings(cut, measured)
        own = [hypothesis for hypothesis in self.hypotheses if not hypothesis.refuted]  # the claim's comparisons alone
        named = dict.fromkeys(row for hypothesis in own for row in hypothesis.rows)
        if not all(cut[row] for row in named):
            return Outcome("not run", findings, _lacking(cut, named), look.level, None, cut)
        fewest = min(map(len, cut.values()))
        waits = f"{fewest} of the {look.seeds} seeds of the next look" if fewest else _lacking(cut, cut)
        if fewest and fewest < max(len(cut[row]) for row in named):  # the control's, or one row's of several
            waits += f" ({', '.join(sorted(row for row, runs in cut.items() if len(runs) == fewest))})"
        if fewest >= look.seeds:
            waits = "the rows were run on different hardware, and only runs on the same hardware are compared"
        return Outcome("undecided (interim)", findings, waits + before, look.level, None, cut)

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


def comparable(rows: Sequence[Sequence[Run]]) -> int:
    """How many runs the row with the fewest has on hardware that every row was run on; no others are compared."""
    shared = set.intersection(*({run.hardware for run in runs} for runs in rows))
    return min(sum(run.hardware in shared for run in runs) for runs in rows)


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
