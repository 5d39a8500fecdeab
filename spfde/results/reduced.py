"""What runs of a shortened schedule say of the claims on accuracy and of a study's own questions.

Its words are never the paper's verdict. Margins, looks and the rest of the protocol are declared in config/claims.yaml
before the runs, and which pairs of rows stand for the protocol's questions before the first look. Published magnitudes
get no reduced verdict, since at another schedule they are other numbers. Claims of no loss must also keep the declared
share of what the control shows (dynamic above static), or a scale at which nothing differs would pass; and they get a
verdict only beside the trend of the gap over the length of training, which says where they point at the paper's.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from spfde.configuration import config_file
from spfde.experiments.files import read_scale, settings_of
from spfde.results.accuracy import evidence_of, power_of, trial_of, worst
from spfde.results.claims import DECIDED, Claim, Comparison, Reduced, read
from spfde.results.hypotheses import Test, make
from spfde.results.power import overall_level
from spfde.results.sources import Sources
from spfde.results.trend import trend
from spfde.results.trials import Hypothesis, Look, Outcome, Trial, in_words

NO_LOSS = ("equivalence", "non-inferiority")
COMPARISON = ("comparisons", "control", "diverged", "runs", "hardware")


class Possible(NamedTuple):
    """The comparisons of a claim that a scale can decide.

    Attributes:
        comparisons: those of rows that its tiers train with enough seeds for a look; where there are none, those with
            rows at all, which show an effect and decide nothing.
        seeds: what is planned for every row of them.
        left: how many comparisons of the claim are not among them.
        enough: whether the seeds suffice for a look.
    """

    comparisons: list[Comparison]
    seeds: tuple[int, ...]
    left: int
    enough: bool


def words(claim: Claim, sources: Sources, scales: Mapping[str, Reduced]) -> dict[str, Any] | None:
    """The words on a claim at the scale that stands in for the paper's, with n, effect, interval and power.

    None where there is no such scale for it, or none of its comparisons has its rows there.
    """
    name = next((scale for scale, how in scales.items() if how.of == claim.scale and _known(scale)), None)
    if claim.test == "magnitude" or name is None or read_scale(name).paper:
        return None
    if settings_of(name).data.name != settings_of(claim.scale).data.name:
        return None  # another data set is no reduced scale of this one
    found = _judged(scales[name].of_claim(claim), scales[name], name, sources)
    return found and {**found, "rows": scales[name].others_in(claim)}


def answers(scale: str, results: Path) -> list[dict[str, Any]]:
    """The questions that a scale's protocol asks, each with what the runs answer, as `words` has it for a claim.

    Returns:
        for each question its `id`, the number of the protocol's question (`asks`), what it `says`, the `pair` of rows,
        the `test`, and the keys of `words`. Empty where the scale has no protocol.
    """
    how = read().reduced.get(scale)
    if how is None or not _known(scale):
        return []
    sources, found = Sources(scale, results), []
    for question in how.questions:
        answer = _judged(question.as_claim(how), how, scale, sources)
        if answer is not None:
            named = {"id": question.id, "asks": question.asks, "says": question.says, "pair": question.rows}
            found.append({**named, "test": question.test, **answer})
    return found


def _judged(claim: Claim, how: Reduced, scale: str, sources: Sources) -> dict[str, Any] | None:
    """What the runs of a scale say of a claim on rows of this scale; None where it has no such rows."""
    possible = _possible(claim, how, scale, sources)
    if possible is None:
        return None
    # Published numbers are those of another schedule: they say nothing here.
    own = claim.model_copy(update={"comparisons": possible.comparisons, "expected": None})
    test = make(claim.test, how.margin, low=0.0, smallest=how.smallest)
    main = [Hypothesis(tuple(each.rows), claim.weights, test) for each in possible.comparisons]
    kept = _retained(own, how.retained)
    trial = trial_of(own, main + kept, sources, scale, _looks(how, possible), True)
    outcome = trial.decide()
    line = trend(how, sources, scale) if claim.test in NO_LOSS else None
    verdict, reason = _said(outcome, line, own, possible, sources, scale)
    shown = worst(outcome.findings[: len(main)], [each.test for each in main])
    low, high = shown.effect.interval(1 - 2 * outcome.level) if shown else (math.nan, math.nan)
    evidence = evidence_of(own, trial, outcome, sources, scale)
    beside = [each for each in evidence["comparisons"] if shown and each["rows"] == list(shown.rows)]
    return {
        "scale": scale,
        "rows": {},
        "verdict": verdict,
        "n": shown.effect.n if shown else 0,
        "effect": shown.effect.mean if shown else math.nan,
        "low": low,
        "high": high,
        "pooled_interval": beside[0]["pooled_interval"] if beside else None,
        "new_images": beside[0]["new_images"] if beside else None,
        **_power(own, trial, main, kept, how, sources, outcome.level),
        "level": outcome.level,
        "error_rate": overall_level({look.seeds: look.level for look in trial.looks}),
        "margin": how.smallest if claim.test == "superiority" else how.margin,
        "reason": reason,
        "trend": line,
        "evidence": {key: evidence[key] for key in COMPARISON},
    }


def _known(scale: str) -> bool:
    return config_file("scales", f"{scale}.yaml").is_file()


def _possible(claim: Claim, how: Reduced, scale: str, sources: Sources) -> Possible | None:
    known, first = set(sources.every_row(scale)), min(how.looks)
    there = [each for each in claim.comparisons if {*each.rows, *claim.control} <= known]
    if not there:
        return None

    def planned(comparisons: Sequence[Comparison]) -> tuple[int, ...]:
        rows = {row for each in comparisons for row in each.rows} | set(claim.control)
        return tuple(sorted(set.intersection(*(sources.seeds(scale, row) for row in rows))))

    enough = [each for each in there if len(planned([each])) >= first]
    chosen = enough or there
    return Possible(chosen, planned(chosen), len(claim.comparisons) - len(chosen), bool(enough))


def _looks(how: Reduced, possible: Possible) -> list[Look]:
    """The declared looks that the planned seeds can reach; the first one where they reach none."""
    looks = [Look(n, level, possible.seeds[:n]) for n, level in sorted(how.looks.items())]
    return [look for look in looks if look.seeds <= len(possible.seeds)] or looks[:1]


def _retained(claim: Claim, share: float) -> list[Hypothesis]:
    """What claims of no loss must show as well: row - static >= share (dynamic - static)."""
    if claim.test not in NO_LOSS:
        return []
    test, weights = Test(above=0.0, against_below=0.0), (1.0, -share, share - 1.0)
    dynamic, static = claim.control
    refuted = f"less than {share:.0%} of what {dynamic} gains over {static} is kept"
    return [
        Hypothesis((each.rows[0], dynamic, static), weights, test, refuted=f"{each.rows[0]}: {refuted}")
        for each in claim.comparisons
    ]


def _power(
    claim: Claim,
    trial: Trial,
    main: Sequence[Hypothesis],
    kept: Sequence[Hypothesis],
    how: Reduced,
    sources: Sources,
    level: float,
) -> dict[str, Any]:
    """The power to show the claim where it is true: the smallest gain of interest, or no loss at all.

    Where nothing is lost, what must be retained of the control's gain is kept whole.
    """
    effect = how.smallest if claim.test == "superiority" else 0.0
    alone = power_of(claim, trial, [(each, effect) for each in main], sources, level)
    found = alone
    gain = trial.effect(claim.control).mean if kept else math.nan
    if not math.isnan(gain):
        both = [(each, effect) for each in main] + [(each, (1 - how.retained) * gain) for each in kept]
        found = power_of(claim, trial, both, sources, level)
    return {"power": found["at_n"], "seeds_needed": found["seeds_needed"], "decides": alone["decides"]}


def _said(
    outcome: Outcome, line: dict[str, Any] | None, claim: Claim, possible: Possible, sources: Sources, scale: str
) -> tuple[str, str]:
    """The word, after what is no part of the test: seeds, parts of the claim, equal costs, the trend beside no loss."""
    made, total = len(possible.comparisons), len(possible.comparisons) + possible.left
    part = f"{made} of {total} comparisons can be decided here" if possible.left else ""
    verdict, reason = in_words(outcome.verdict), outcome.reason
    if not possible.enough and outcome.verdict != "not run":
        verdict, part = "undecided", ""
        reason = f"{len(possible.seeds)} seeds are planned, too few for a look"
    elif outcome.verdict in DECIDED and line is not None and not line["complete"]:
        verdict = "undecided (interim)"
        reason = "the trend over the length of training, which belongs to this claim, has not all of its seeds"
    elif outcome.verdict in DECIDED and claim.costs and (unequal := unequal_costs(claim, sources, scale)):
        verdict, reason = "undecided", unequal
    elif outcome.verdict == "reproduced" and possible.left:
        verdict, reason, part = "undecided", f"{part}, and what can be is shown", ""
    return verdict, "; ".join(filter(None, [reason, part]))


def unequal_costs(claim: Claim, sources: Sources, scale: str = "") -> str:
    """What speaks against the comparisons being those of the sentence, where it names what they may cost.

    Args:
        claim: a claim with `costs`.
        sources: rows, plans and records.
        scale: a reduced scale, with the rows of its tiers; without one, the claim's own scale and experiment.
    """
    assert claim.costs is not None
    known = sources.every_row(scale) if scale else sources.rows(claim.scale, claim.experiment)
    runs = sources.runs(scale) if scale else sources.runs(claim.scale, claim.experiment)
    for each in claim.comparisons:
        own, other = (sources.cost(known[row], runs, claim.costs.metric) for row in each.rows)
        if math.isnan(own) or math.isnan(other):
            return f"what {' or '.join(each.rows)} costs depends on the mask, and is not known without records"
        more = own / other - 1
        if more > claim.costs.tolerance or (claim.costs.relation == "equal" and -more > claim.costs.tolerance):
            against = f" costs {100 * more:+.1f} % against ".join(each.rows)
            return f"{against}: not the comparison that the sentence makes"
    return ""
