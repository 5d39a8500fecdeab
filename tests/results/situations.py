"""What situations are made of: claims, and frames of records with known effects that they are held against."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from spfde.results.claims import Claim, Claims, read
from spfde.results.evidence import Evidence
from spfde.results.sources import Sources
from spfde.settings import parse

Row = tuple[float, float, int]  # mean, standard deviation, runs
A, B = "spfde-s90-f25-d25", "set-s90"
BASE, STATIC = "spfde-s90", "static-s90"
VALUE = "accuracy.test_last"
SUPERIOR = {"test": "superiority", "comparisons": [[A, B]], "expected": {"low": 1.36, "high": 1.36, "standing": "F"}}
NO_WORSE = {
    "test": "non-inferiority",
    "comparisons": [[A, BASE]],
    "margin": 0.3,
    "control": [BASE, STATIC],
    "expected": {"low": 0, "standing": "F"},
}


def spread(mean: float, std: float, n: int) -> np.ndarray:
    """Values with exactly this mean and standard deviation, in the order that a coin would give."""
    if n < 2:
        return np.full(n, mean)
    scores = np.random.default_rng(n).permutation(stats.norm.ppf((np.arange(n) + 0.5) / n))
    return mean + std * (scores - scores.mean()) / scores.std(ddof=1)


def frame(rows: Mapping[str, Row], scale: str = "cifar100", hardware: str = "cpu: one") -> pd.DataFrame:
    """A frame of records as `spfde.results.collect` makes it."""
    lines = [
        {"row": row, "seed": seed, "scale": scale, "run_id": f"{scale}-{row}-{seed}", "environment.device": hardware}
        | {VALUE: float(value), "status": "finished"}
        for row, (mean, std, n) in rows.items()
        for seed, value in enumerate(spread(mean, std, n), start=1)
    ]
    return pd.DataFrame(lines)


def claim(**changes: Any) -> Claim:
    base = {"id": "some-claim", "claim": "It is better.", "source": "SpFDE", "standing": "F", "kind": "accuracy"}
    return parse(Claim, {**base, **changes})


def magnitude(**expected: Any) -> Claim:
    return claim(test="magnitude", comparisons=[[A, B]], margin=0.5, expected={"low": 1.36, "high": 1.36, **expected})


SHARED = Sources("cifar100", Path("nowhere"))  # its rows and plans are read once for all tests


def holder(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A function that holds a claim against a frame of records, and returns its entry in claims.json."""
    rows, plan_of = Sources.rows, Sources.plan_of

    def of(
        told: Claim,
        runs: pd.DataFrame,
        scale: str = "cifar100",
        reduced: dict[str, Any] | None = None,
        folders: Sequence[Path] = (),
    ) -> Any:
        empty = pd.DataFrame(columns=["row", "scale"])
        of_scale = runs if len(runs) else empty
        monkeypatch.setattr(Sources, "has_records", lambda self, at: bool((of_scale["scale"] == at).any()))
        monkeypatch.setattr(Sources, "runs", lambda self, at, experiment="": of_scale[of_scale["scale"] == at])
        monkeypatch.setattr(Sources, "folders", lambda self, at: list(folders))
        monkeypatch.setattr(Sources, "rows", lambda self, at, experiment: rows(SHARED, at, experiment))
        monkeypatch.setattr(Sources, "plan_of", lambda self, run: plan_of(SHARED, run))
        claims = Claims(claims=[told], reduced=read().reduced if reduced is None else reduced)
        return Evidence(scale, Path("nowhere"), claims).decide(told)

    return of
