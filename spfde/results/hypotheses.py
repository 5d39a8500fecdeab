"""What a claim must show: the tests behind the verdicts, and how several of them make one verdict.

A comparison is decided by two one-sided P values. One is for the claim: the effect lies where the claim says, shown
against the worst case of it not lying there. The other is against it: the effect is apart from what the claim says.
Of several comparisons all must be shown, which needs no correction (intersection-union test; Berger, Technometrics 24,
1982). One that is contradicted is enough against the claim, so those P values are Holm's.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from spfde.results.statistics import Effect, holm

Kind = Literal["equivalence", "superiority", "non-inferiority", "magnitude", "range"]
Better = Literal["higher", "lower"]
Word = Literal["reproduced", "smaller than claimed", "undecided", "contradicted", "not run"]
LEVEL = 0.05  # one-sided


class Test(NamedTuple):
    """Where the effect must be shown to lie for the claim, and from where on it is against it.

    Attributes:
        above: the effect must be shown to be above this bound,
        below: and below this one.
        against_below: the claim is contradicted by an effect shown to be below this bound,
        against_above: or above this one.
    """

    above: float = -math.inf
    below: float = math.inf
    against_below: float = -math.inf
    against_above: float = math.inf

    def p_for(self, effect: Effect) -> float:
        """The P value for the claim: two one-sided tests where it has two bounds."""
        return max(effect.p_above(self.above), effect.p_below(self.below))

    def p_against(self, effect: Effect) -> float:
        """The P value against the claim."""
        return min(effect.p_below(self.against_below), effect.p_above(self.against_above))


def make(
    kind: Kind,
    margin: float = 0.0,
    low: float | None = None,
    high: float | None = None,
    smallest: float = 0.0,
    better: Better | None = "higher",
) -> Test:
    """The test of a claim; a better result than claimed never contradicts.

    Args:
        kind: equivalence ("similar"): the effect is within the margin of 0. Superiority ("more accurate"): it is above
            0, and contradicted below the smallest effect of interest. Non-inferiority ("costs no more than"): it is not
            below `low` by more than the margin. Magnitude and range: it is between `low` and `high`, each widened by
            the margin.
        margin: in the unit of the effect.
        low: least effect that the claim names; None: it names none.
        high: greatest effect that the claim names.
        smallest: the smallest effect of interest, for superiority.
        better: which effects are better than claimed; None: neither are.
    """
    if kind == "equivalence":
        low, high = 0.0, 0.0
    if kind == "superiority":
        # The worst case of the claim is an effect of 0; the worst case of its denial is the smallest one of interest.
        return Test(above=0.0, against_below=smallest)
    least = -math.inf if low is None else low - margin
    most = math.inf if high is None or kind == "non-inferiority" else high + margin
    return Test(
        above=least,
        below=most,
        against_below=-math.inf if better == "lower" else least,
        against_above=math.inf if better == "higher" else most,
    )


class Judged(NamedTuple):
    """A comparison's word with the P values behind it; they are NaN where there is nothing to test."""

    word: Word
    p_for: float
    p_against: float
    reason: str = ""


UNTESTED = Judged("not run", math.nan, math.nan)


def judge(tests: Sequence[Test], effects: Sequence[Effect], level: float = LEVEL) -> list[Judged]:
    """The word on each comparison of a claim; those without a known effect are not run.

    Args:
        tests: one for each comparison.
        effects: as many.
        level: of each one-sided test.
    """
    known = [index for index, effect in enumerate(effects) if effect.known]
    against = holm([tests[index].p_against(effects[index]) for index in known], len(tests))
    found = [UNTESTED] * len(tests)
    for p_against, index in zip(against, known, strict=True):
        p_for = tests[index].p_for(effects[index])
        found[index] = Judged(_word(tests[index], p_for <= level, p_against <= level), p_for, p_against)
    return found


def _word(test: Test, holds: bool, against: bool) -> Word:
    if holds and against and test.against_below > test.above:
        return "smaller than claimed"  # shown to be above 0, and below the smallest effect of interest
    return "reproduced" if holds else "contradicted" if against else "undecided"


def conclude(words: Sequence[Word]) -> Word:
    """The verdict of all comparisons of a claim together.

    One contradiction is enough, even where another comparison was not run; otherwise all must have been run, and all
    must hold.
    """
    said = set(words)
    if "contradicted" in said:
        return "contradicted"
    if not said or "not run" in said:
        return "not run"
    if "undecided" in said:
        return "undecided"
    return "smaller than claimed" if "smaller than claimed" in said else "reproduced"
