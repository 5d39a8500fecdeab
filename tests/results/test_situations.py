"""Synthetic records with known effects, and the verdict that a statistician expects of each.

Every situation makes runs whose means and standard deviations are exactly these, and holds a claim against them. At the
paper's scale three seeds are planned and the tests have a one-sided level of 5 %.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from spfde.results.hypotheses import judge, make
from spfde.results.statistics import contrast
from tests.results.situations import BASE, NO_WORSE, STATIC, SUPERIOR, VALUE, A, B, Row, claim, frame, magnitude

C, D, MEST = "deepr-s90", "dsr-s90", "mest-ems-s90"
SIMILAR = {"test": "equivalence", "comparisons": [[A, MEST]], "margin": 0.5, "control": [BASE, STATIC]}
THREE = {"test": "superiority", "comparisons": [[A, B], [A, C], [A, D]]}
CONTROL: dict[str, Row] = {BASE: (71, 0.2, 8), STATIC: (68, 0.2, 8)}

SITUATIONS: dict[str, tuple[dict[str, Any], dict[str, Row], str]] = {
    "the published gain, clearly seen": (SUPERIOR, {A: (71.0, 0.3, 3), B: (69.6, 0.3, 3)}, "reproduced"),
    "no gain, and a spread that would show half of it": (SUPERIOR, {A: (70, 0.2, 5), B: (70, 0.2, 5)}, "contradicted"),
    "a gain above 0 and below half of what is published": (
        SUPERIOR,
        {A: (70.3, 0.1, 8), B: (70, 0.1, 8)},
        "smaller than claimed",
    ),
    "the published gain, lost in the spread": (SUPERIOR, {A: (71.3, 1.5, 3), B: (70, 1.5, 3)}, "undecided"),
    "a gain where nobody published a number, above 0.2 points": (
        {"test": "superiority", "comparisons": [[A, B]]},
        {A: (70.5, 0.2, 5), B: (70, 0.2, 5)},
        "reproduced",
    ),
    "a loss where a gain is claimed": (SUPERIOR, {A: (69, 0.3, 3), B: (70, 0.3, 3)}, "contradicted"),
    "no difference, at a spread that shows it": (
        SIMILAR,
        {A: (71, 0.2, 8), MEST: (71, 0.2, 8), **CONTROL},
        "reproduced",
    ),
    "no difference, but the experiment shows none anywhere": (
        SIMILAR,
        {A: (71, 0.2, 8), MEST: (71, 0.2, 8), BASE: (71, 0.2, 8), STATIC: (71, 0.2, 8)},
        "undecided",
    ),
    "no difference, but the control was not run": (
        SIMILAR,
        {A: (71, 0.2, 8), MEST: (71, 0.2, 8)},
        "undecided (interim)",
    ),
    "no difference, at a spread that would hide one": (
        SIMILAR,
        {A: (71, 0.6, 3), MEST: (71, 0.6, 3), **CONTROL},
        "undecided",
    ),
    "worse by far more than the margin": (SIMILAR, {A: (69, 0.3, 5), MEST: (71, 0.3, 5), **CONTROL}, "contradicted"),
    "better by far more than the margin: not similar, and no contradiction": (
        SIMILAR,
        {A: (73, 0.3, 5), MEST: (71, 0.3, 5), **CONTROL},
        "undecided",
    ),
    "a loss inside the margin": (NO_WORSE, {A: (70.95, 0.1, 8), **CONTROL, BASE: (71, 0.1, 8)}, "reproduced"),
    "a gain where no loss is claimed": (NO_WORSE, {A: (72, 0.3, 3), **CONTROL}, "reproduced"),
    "a loss beyond the margin, without the control": (
        NO_WORSE,
        {A: (69, 0.2, 5), BASE: (71, 0.2, 5)},
        "contradicted",
    ),
    "two of three comparisons hold": (
        THREE,
        {A: (71, 0.3, 5), B: (70, 0.3, 5), C: (69, 0.3, 5), D: (70.9, 0.3, 5)},
        "undecided",
    ),
    "all three hold": (THREE, {A: (71, 0.3, 5), B: (70, 0.3, 5), C: (69, 0.3, 5), D: (70, 0.3, 5)}, "reproduced"),
    "one is contradicted and another was not run": (
        THREE,
        {A: (70, 0.2, 5), B: (72, 0.2, 5), D: (69, 0.2, 5)},
        "contradicted",
    ),
    "two hold and one was not run": (THREE, {A: (71, 0.3, 5), B: (70, 0.3, 5), D: (70, 0.3, 5)}, "not run"),
    "one of three looks contradicted at 5 %, not so at a third of it": (
        THREE,  # 0.11 below the bound of 0.2, P = 0.03: enough for one comparison, not for one of three
        {A: (70, 0.2, 8), B: (70.03, 0.25, 8), C: (68, 0.2, 8), D: (68, 0.2, 8)},
        "undecided",
    ),
    "nothing was run": (SUPERIOR, {}, "not run"),
    "two of three planned seeds": (SUPERIOR, {A: (71.4, 0.1, 2), B: (70, 0.1, 2)}, "undecided (interim)"),
    "all accuracies are equal: no spread is known": (SUPERIOR, {A: (72, 0, 5), B: (70, 0, 5)}, "undecided"),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_situation(decide: Any, name: str) -> None:
    told, rows, expected = SITUATIONS[name]
    assert decide(claim(**told), frame(rows))["verdict"] == expected


def test_a_control_that_diverged_or_is_not_complete_shows_nothing(decide: Any) -> None:
    """With the accuracy of chance in place of the run that diverged, dynamic is not shown above static."""
    runs = frame(
        {A: (71, 0.2, 8), MEST: (71, 0.2, 8), **{row: (mean, std, 3) for row, (mean, std, _) in CONTROL.items()}}
    )
    assert decide(claim(**SIMILAR), runs)["verdict"] == "reproduced"
    lost = (runs["row"] == STATIC) & (runs["seed"] == 2)
    diverged = runs.assign(status=runs["status"].mask(lost, "diverged"), **{VALUE: runs[VALUE].mask(lost)})
    found = decide(claim(**SIMILAR), diverged)
    assert found["verdict"] == "undecided" and "would be undecided" in found["evidence"]["reason"]
    found = decide(claim(**SIMILAR), runs[~lost])
    assert found["verdict"] == "undecided (interim)" and found["evidence"]["reason"].startswith("2 of the 3 seeds")


def test_the_same_difference_alone_is_contradicted(decide: Any) -> None:
    """The situation above without the two comparisons that Holm's correction counts."""
    rows = SITUATIONS["one of three looks contradicted at 5 %, not so at a third of it"][1]
    alone = decide(claim(**{**THREE, "comparisons": [[A, B]]}), frame(rows))
    assert alone["verdict"] == "contradicted"
    p_value = alone["evidence"]["comparisons"][0]["p_against"]
    assert 0.05 / 3 < p_value < 0.05
    told = stats.ttest_ind_from_stats(70, 0.2, 8, 70.03 + 0.2, 0.25, 8, equal_var=False, alternative="less").pvalue
    assert p_value == pytest.approx(told)


def test_the_comparison_that_stands_worst_is_the_one_shown(decide: Any) -> None:
    evidence = decide(claim(**THREE), frame(SITUATIONS["two of three comparisons hold"][1]))["evidence"]
    assert evidence["rows"] == [A, D] and evidence["effect"] == pytest.approx(0.1)
    assert [line["rows"][1] for line in evidence["comparisons"]] == [B, C, D]


def test_each_comparison_has_its_own_published_effect(decide: Any) -> None:
    """Half of 1.36 and of 4.24 points: a gain of 2 points is enough over the one and too little over the other."""
    gains = [
        {"rows": [A, B], "expected": {"low": 1.36, "high": 1.36, "standing": "F"}},
        {"rows": [A, C], "expected": {"low": 4.24, "high": 4.24, "standing": "F"}},
    ]
    rows = {A: (72.0, 0.05, 5), B: (70, 0.05, 5), C: (70, 0.05, 5)}
    found = decide(claim(test="superiority", comparisons=gains), frame(rows))
    assert found["published"]["smallest"] == pytest.approx([0.68, 2.12])
    assert [line["verdict"] for line in found["evidence"]["comparisons"]] == ["reproduced", "smaller than claimed"]
    assert found["verdict"] == "smaller than claimed"


def test_the_uncertainty_of_a_published_mean_counts(decide: Any) -> None:
    near = frame({A: (71.56, 0.1, 8), B: (70, 0.1, 8)})
    vague = decide(magnitude(standing="F"), near)
    assert vague["verdict"] == "undecided" and vague["evidence"]["power"]["seeds_needed"] is None
    said = vague["evidence"]["published_uncertainty"][0]
    assert said["assumed"] and said["std"] == pytest.approx([0.29, 0.29])  # the median of the deviations of Table 2
    assert said["error"] == pytest.approx(0.29 * math.sqrt(2 / 3))
    sure = decide(magnitude(standing="F", std=0.05), near)
    assert sure["verdict"] == "reproduced" and not sure["evidence"]["published_uncertainty"][0]["assumed"]
    half = sure["evidence"]["interval"][1] - 1.56
    error = math.sqrt(2 * (0.1**2 / 8 + 0.05**2 / 3))
    assert half > stats.norm.ppf(0.95) * error and half < stats.t.ppf(0.95, 2) * error


def test_a_larger_gain_than_published_contradicts_nothing_and_a_smaller_one_does(decide: Any) -> None:
    sure = magnitude(standing="F", std=0.05)
    assert decide(sure, frame({A: (74, 0.1, 8), B: (70, 0.1, 8)}))["verdict"] == "undecided"
    assert decide(sure, frame({A: (70, 0.1, 8), B: (70, 0.1, 8)}))["verdict"] == "contradicted"


@pytest.mark.parametrize(
    ("standing", "verdict"), [("F", "contradicted"), ("D", "undecided"), ("2nd", "undecided"), ("R", "undecided")]
)
def test_only_sentences_of_the_paper_are_contradicted(decide: Any, standing: str, verdict: str) -> None:
    assert (
        decide(magnitude(standing=standing, std=0.05), frame({A: (69, 0.1, 8), B: (70, 0.1, 8)}))["verdict"] == verdict
    )


def test_nothing_rests_on_an_unverified_number(decide: Any) -> None:
    right = frame({A: (71.36, 0.1, 8), B: (70, 0.1, 8)})
    found = decide(magnitude(standing="R", std=0.05), right)
    assert found["verdict"] == "undecided" and "unverified" in found["evidence"]["reason"]


def test_pairs_count_only_where_they_are_declared(decide: Any) -> None:
    """Seeds that differ by two points, and the same gain of 1.4 in each of them."""
    runs = frame({B: (70, 2, 5)})
    better = runs.assign(row=A, **{VALUE: runs[VALUE] + 1.4 + [0.1, -0.1, 0, 0.1, -0.1]})
    both = pd.concat([runs, better], ignore_index=True)
    assert decide(claim(**SUPERIOR), both)["verdict"] == "undecided"
    assert decide(claim(**SUPERIOR, paired=True), both)["verdict"] == "reproduced"


def test_welch_decides_and_the_pooled_interval_stands_beside_it(decide: Any) -> None:
    """Three runs that vary by 1.2 points beside twelve that hardly do: one variance for all would be far too sure."""
    found = decide(claim(**SUPERIOR), frame({A: (71.2, 1.2, 3), B: (70, 0.1, 12)}))
    line = found["evidence"]["comparisons"][0]
    assert found["verdict"] == "undecided" and line["interval"][0] < 0
    assert line["pooled_interval"][0] > 0
    assert line["interval"] == pytest.approx(
        [1.2 - (half := 2.916 * math.sqrt(1.2**2 / 3 + 0.1**2 / 12)), 1.2 + half], abs=0.01
    )


def test_a_diverged_run_makes_undecided_what_it_would_change(decide: Any) -> None:
    """Left out, the gain stands; as chance (1 % of 100 classes) its row would be 14 points worse."""
    runs = frame({A: (71.4, 0.2, 5), B: (70, 0.2, 5)})
    lost = (runs["row"] == A) & (runs["seed"] == 2)
    runs["status"], runs[VALUE] = lost.map({True: "diverged", False: "finished"}), runs[VALUE].mask(lost)
    found = decide(claim(**SUPERIOR), runs)
    assert found["verdict"] == "undecided" and "1 of 10 runs diverged" in found["evidence"]["reason"]
    assert (found["evidence"]["diverged"], found["evidence"]["runs"]) == (1, 10)
    assert found["evidence"]["n"] == 4 and found["evidence"]["effect"] == pytest.approx(1.4, abs=0.15)
    # Where the row compared with diverges, the gain is no smaller in either analysis, but its spread is.
    both = frame({A: (65, 0.2, 5), B: (70, 0.2, 5)})
    lost = (both["row"] == A) & (both["seed"] < 5)
    both["status"], both[VALUE] = lost.map({True: "diverged", False: "finished"}), both[VALUE].mask(lost)
    assert decide(claim(**SUPERIOR), both)["verdict"] == "undecided"  # one run is left: no spread


def test_rows_that_cost_other_than_the_sentence_says_decide_nothing(decide: Any) -> None:
    """25%+25% costs 3.6 % more than MEST+EM&S at 95 %, which 5 % forgive and 0.2 % do not."""
    rows = frame({A: (71, 0.2, 5), "mest-ems-s95": (70, 0.2, 5)})
    told = {"test": "superiority", "comparisons": [[A, "mest-ems-s95"]]}
    near = {"metric": "flops.paper", "relation": "equal", "tolerance": 0.05}
    assert decide(claim(**told, costs=near), rows)["verdict"] == "reproduced"
    found = decide(claim(**told, costs={**near, "tolerance": 0.002}), rows)
    assert found["verdict"] == "undecided" and "costs +3.6 % against" in found["evidence"]["reason"]
    less = claim(test="superiority", comparisons=[["mest-ems-s95", A]], costs={"relation": "at most"})
    assert decide(less, frame({A: (70, 0.2, 5), "mest-ems-s95": (71, 0.2, 5)}))["verdict"] == "reproduced"


def test_costing_more_is_no_excuse_for_being_less_accurate(decide: Any) -> None:
    """Unless the sentence is about rows that cost the same."""
    rows = frame({A: (69, 0.2, 5), "mest-ems-s95": (70, 0.2, 5)})
    told = {"test": "superiority", "comparisons": [[A, "mest-ems-s95"]]}
    for relation, verdict in (("at most", "contradicted"), ("equal", "undecided")):
        costs = {"metric": "flops.paper", "relation": relation, "tolerance": 0.002}
        assert decide(claim(**told, costs=costs), rows)["verdict"] == verdict


def test_hardware_is_no_difference_between_rows(decide: Any) -> None:
    """On the second machine both rows are 2 points better: within machines the gain of 1.2 is plain."""
    first = frame({A: (71.2, 0.2, 3), B: (70, 0.2, 3)})
    second = frame({A: (73.2, 0.2, 5), B: (72, 0.2, 3)}, hardware="cuda: two")
    second["seed"] += 10
    found = decide(claim(**SUPERIOR), pd.concat([first, second], ignore_index=True))
    assert found["verdict"] == "reproduced" and found["evidence"]["effect"] == pytest.approx(1.2)
    assert found["evidence"]["hardware"] == {"cpu: one": 6, "cuda: two": 8}
    again = pd.concat([first, frame({A: (60, 0.2, 3)}, hardware="cuda: two")], ignore_index=True)
    assert decide(claim(**SUPERIOR), again)["evidence"]["n"] == 3  # a seed that both have counts once, as ours


def test_a_difference_of_differences(decide: Any) -> None:
    rows: dict[str, Row] = {"spfde-s90-f20": (71, 0.1, 8), "spfde-s90": (71, 0.1, 8)}
    rows |= {"spfde-s60-f20": (73, 0.1, 8), "spfde-s60": (73.6, 0.1, 8)}
    told = claim(test="superiority", relation="interaction", experiment="tableA8", comparisons=[list(rows)])
    found = decide(told, frame(rows))
    assert found["evidence"]["effect"] == pytest.approx(0.6) and found["verdict"] == "reproduced"


def test_one_run_is_a_check_of_the_implementation(decide: Any) -> None:
    """Inside or outside of the prediction interval of the published value: 3 runs of a deviation of 0.3 behind it."""
    told = claim(
        test="magnitude", relation="value", comparisons=[[A]], margin=0.5,
        expected={"low": 71.02, "high": 71.02, "standing": "D", "std": 0.3},
    )  # fmt: skip
    half = 4.302652729911275 * 0.3 * math.sqrt(4 / 3)
    for value, inside in ((71.0 + half - 0.1, True), (71.1 + half, False)):
        found = decide(told, frame({A: (value, 0, 1)}))
        assert found["verdict"] == "undecided (interim)"
        assert found["evidence"]["one_run"]["inside"] is inside
        assert found["evidence"]["one_run"]["interval"] == pytest.approx([71.02 - half, 71.02 + half])


def test_every_claim_on_accuracy_says_how_many_seeds_it_needs_and_what_those_at_hand_decide(decide: Any) -> None:
    nothing = decide(claim(**SUPERIOR), frame({}))["evidence"]["power"]
    assert nothing["std"] == pytest.approx(0.29) and nothing["std_from"] == "median of table2" and nothing["n"] == 3
    seen = decide(claim(**SUPERIOR), frame({A: (71, 0.6, 5), B: (70, 0.8, 5)}))["evidence"]["power"]
    assert seen["std"] == pytest.approx(math.sqrt((0.36 + 0.64) / 2)) and seen["std_from"] == "records"
    assert seen["effect"] == 1.36 and seen["n"] == 5
    told = stats.nct.sf(stats.t.ppf(0.95, 8), 8, 1.36 / (seen["std"] * math.sqrt(2 / 5)))
    assert seen["at_n"] == pytest.approx(told, abs=1e-3) and seen["seeds_needed"] <= 5
    assert 0 < seen["decides"] < 1.36


def test_false_verdicts_are_as_rare_as_the_level_says() -> None:
    """At the worst case of each side 5 % of the verdicts are wrong: no gain is reproduced, half of it contradicted."""
    random, times = np.random.default_rng(5), 400
    test, wrong = make("superiority", smallest=0.68), {0.0: 0, 0.68: 0}
    for truth, word in (
        (0.0, ("reproduced", "smaller than claimed")),
        (0.68, ("contradicted", "smaller than claimed")),
    ):
        for _ in range(times):
            rows = [
                {("cpu", seed): value for seed, value in enumerate(random.normal(mean, 0.3, 4))}
                for mean in (truth, 0.0)
            ]
            wrong[truth] += judge([test], [contrast(rows, (1, -1))])[0].word in word
    for count in wrong.values():
        assert count / times == pytest.approx(0.05, abs=0.035)  # three standard errors
