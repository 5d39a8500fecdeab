"""The cells of the claims' table, and the tally in words."""

from typing import Any

import pytest

from spfde.results.verdicts import Tally, table, tally

SUPPORTED = {
    "verdict": "supported",
    "scale": "short",
    "rows": {},
    "n": 5,
    "effect": 1.2,
    "low": 0.4,
    "high": 2.0,
    "error_rate": 0.03,
    "pooled_interval": None,
    "new_images": None,
    "reason": "",
    "trend": None,
    "evidence": {"diverged": 0, "runs": 10},
}


def entry(**changed: Any) -> dict[str, Any]:
    """An entry of claims.json; parts are changed by name, a key inside of a part as part__key."""
    made: dict[str, Any] = {
        "id": "one",
        "verdict": "reproduced",
        "claim": "What is said.",
        "test": "superiority",
        "published": {"low": 1.0, "high": 2.0, "margin": None, "comparisons": [], "standing": "verified"},
        "evidence": {
            "effect": 1.5,
            "interval": [0.5, 2.5],
            "n": 3,
            "from": "records",
            "reason": "",
            "error_rate": 0.05,
            "power": {"at_n": 0.7, "seeds_needed": 4, "std_from": "records"},
        },
        "source": "SpFDE, Table 2",
        "reduced": None,
    }
    for name, value in changed.items():
        part, _, key = name.partition("__")
        made[part] = {**made[part], key: value} if key else value
    return made


def cell(title: str, **changed: Any) -> str:
    shown = table([entry(**changed)], "cifar100")
    return shown.cells[0][[column.title for column in shown.columns].index(title)]


@pytest.mark.parametrize(
    ("low", "high", "margin", "text"),
    [
        (1.0, 2.0, None, "1 to 2"),
        (1.5, 1.5, None, "1.5"),
        (None, 2.0, None, "≤ 2"),
        (1.0, None, None, "≥ 1"),
        (0.0, None, 0.25, "≥ 0 (± 0.25)"),
        (None, None, None, "–"),
    ],
)
def test_what_is_published(low: float | None, high: float | None, margin: float | None, text: str) -> None:
    assert cell("Published", published__low=low, published__high=high, published__margin=margin) == text


def test_comparisons_of_their_own_are_shown_by_their_range() -> None:
    each = [{"low": 4.24, "high": None}, None, {"low": 1.36, "high": 2.0}]
    nothing: dict[str, Any] = {"published__low": None, "published__high": None}
    assert cell("Published", **nothing, published__comparisons=each) == "1.36 to 4.24"
    assert cell("Published", **nothing, published__comparisons=each[:1]) == "4.24"


def test_effects() -> None:
    assert cell("Effect [interval]") == "1.5 [0.5, 2.5]"
    assert cell("Effect [interval]", evidence__interval=None) == "1.5"
    assert cell("Effect [interval]", evidence__effect=None) == "–"
    lost = {"evidence__diverged": 1, "evidence__runs": 6}
    assert cell("Effect [interval]", **lost) == "1.5 [0.5, 2.5]; 1 of 6 diverged"


def test_seeds() -> None:
    power = {"at_n": 0.7, "seeds_needed": 4, "std_from": "records"}
    assert cell("Seeds") == "4"
    assert cell("Seeds", evidence__power={**power, "std_from": "published"}) == "4†"
    assert cell("Seeds", evidence__power={**power, "seeds_needed": None}) == "> 200"
    assert cell("Seeds", evidence__power={**power, "at_n": None}) == cell("Seeds", evidence__power=None) == "–"


def test_reduced_verdicts_have_a_column_where_there_is_one() -> None:
    found = SUPPORTED
    title = "At reduced scale"
    assert cell(title, reduced=found) == "supported at reduced scale (short, n = 5): +1.20 [+0.40, +2.00]"
    assert cell(title, reduced={**found, "low": None}) == "supported at reduced scale (short, n = 5): +1.20"
    other = cell(title, reduced={**found, "rows": {"s90": "s80"}})
    assert other == "supported at reduced scale (short, 80 % sparsity for 90 %, n = 5): +1.20 [+0.40, +2.00]"
    more = {**found, "pooled_interval": [0.5, 1.9], "new_images": [-0.1, 2.5], "reason": "a reason"}
    told = cell(title, reduced={**more, "evidence": {"diverged": 1, "runs": 10}})
    assert told.endswith("+2.00]; pooled [+0.50, +1.90]; for new images [-0.10, +2.50]; 1 of 10 diverged; a reason")
    none = cell(title, reduced={**found, "effect": None, "low": None, "n": 0})
    assert none == "supported at reduced scale (short, n = 0)"
    others = [entry(), entry(reduced={**found, "verdict": "not run"}), entry(reduced=found)]
    shown = table(others, "cifar100")
    column = [column.title for column in shown.columns].index(title)
    assert [row[column] for row in shown.cells][:2] == ["–", "not run"]
    assert title not in [column.title for column in table(others[:1], "cifar100").columns]


def test_where_it_comes_from() -> None:
    assert cell("From") == "records"
    assert cell("From", evidence__reason="two rows") == "records: two rows"
    assert cell("From", note="a note") == "records; a note"


def test_the_tally_counts_what_can_be_false() -> None:
    entries = [
        entry(),
        entry(verdict="contradicted", evidence__error_rate=0.05, reduced=SUPPORTED),
        entry(verdict="undecided", evidence__error_rate=0.05, reduced={**SUPPORTED, "verdict": "undecided (interim)"}),
        entry(verdict="undecided (interim)"),
        entry(verdict="by construction", evidence__error_rate=None),
        entry(verdict="not run", evidence__error_rate=None),
        entry(verdict="reproduced", evidence__error_rate=None),  # a computed cost
    ]
    found = tally(entries)
    assert found.decided == 3 and found.tested == 3 and found.false == pytest.approx(0.15)
    assert found.reduced_tested == 1 and found.reduced_false == pytest.approx(0.03)
    said = found.sentences
    assert said[0].startswith(
        "7 claims: 3 decided (2 reproduced, 1 contradicted), 2 undecided, 1 by construction, 1 not"
    )
    assert said[1].startswith("3 verdicts rest on measurements that vary by chance; at most 0.15 false ones")
    assert (
        "1 supported, 1 undecided (interim); at most 0.03 false ones are to be expected among the 1 tested" in said[2]
    )
    none = Tally(dict.fromkeys(found.counts, 0), dict.fromkeys(found.reduced, 0), 0, 0.0, 0, 0.0).sentences
    assert (
        none[0].startswith("0 claims: 0 decided, 0 undecided") and none[1].startswith("No verdict") and len(none) == 2
    )


def test_what_contradicts_stands_first() -> None:
    kinds = ["not run", "by construction", "reproduced", "undecided", "smaller than claimed", "contradicted"]
    shown = table([entry(verdict=kind) for kind in kinds], "cifar100")
    assert [row[1] for row in shown.cells] == kinds[::-1] and shown.parts == [False] + [True] * 5


def test_no_false_ones_are_expected_where_nothing_was_tested_at_reduced_scale() -> None:
    interim = tally([entry(reduced={**SUPPORTED, "verdict": "undecided (interim)"})])
    said = "At reduced scale, which decides nothing of the paper: 1 undecided (interim)."
    assert interim.sentences[-1] == said
