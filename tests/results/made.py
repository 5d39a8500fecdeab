"""Claims that tests are made of."""

from typing import Any

from spfde.results.claims import Claim
from spfde.settings import parse

BASE: dict[str, Any] = {
    "id": "some-claim",
    "claim": "It is better.",
    "source": "introduction",
    "standing": "F",
    "kind": "accuracy",
    "test": "superiority",
    "comparisons": [["spfde-s90-f20-d20", "mest-ems-s90"]],
}
COST: dict[str, Any] = {"kind": "cost", "test": "range", "metric": "flops.paper", "relation": "value"}


def make(**changes: Any) -> Claim:
    return parse(Claim, {**BASE, **changes})


def ranged(**changes: Any) -> Claim:
    """A claim on a cost between 0 and 1."""
    expected = {"low": 0, "high": 1, "standing": "F"}
    return make(**{**COST, "comparisons": [["dense"]], "expected": expected, **changes})
