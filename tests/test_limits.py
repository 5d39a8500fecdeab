"""What a scale takes of an experiment: less than all, and less still of single methods' rows."""

from collections import Counter
from pathlib import Path

import pytest
import yaml

from spfde.errors import SpfdeError
from spfde.experiments import expand


def put(values: dict[str, object], limit: dict[str, object]) -> None:
    """A scale `s` with that limit and an experiment `e` with these rows, in the working folder."""
    for kind in ("scales", "experiments"):
        Path("config", kind).mkdir(parents=True, exist_ok=True)
    scale = {"settings": {"data": {"name": "digits"}}, "seeds": [1, 2], "sparsities": [0.8, 0.9]}
    Path("config/scales/s.yaml").write_text(yaml.safe_dump({**scale, "experiments": {"e": limit}}))
    Path("config/experiments/e.yaml").write_text(yaml.safe_dump({"title": "E", **values}))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


ROWS = {"rows": [{"method": "static"}, {"method": "set"}, {"method": "rigl"}]}


def cells(seeds: list[int] | None = None) -> set[tuple[str, int]]:
    return {(run.row, run.seed) for run in expand("s", "e", seeds)}


def test_a_method_can_be_limited_alone() -> None:
    put(ROWS, {"methods": {"set": {"seeds": [1], "sparsities": [0.9]}}})
    counts = Counter(row.split("-")[0] for row, _ in cells())
    assert counts == {"static": 4, "set": 1, "rigl": 4}
    assert ("set-s90", 1) in cells()


def test_a_methods_limit_stands_on_the_experiments() -> None:
    put(ROWS, {"seeds": [2], "methods": {"set": {"sparsities": [0.8]}}})
    assert cells() == {("static-s80", 2), ("static-s90", 2), ("set-s80", 2), ("rigl-s80", 2), ("rigl-s90", 2)}


def test_told_seeds_win() -> None:
    put(ROWS, {"methods": {"set": {"seeds": [1]}}})
    assert {seed for _, seed in cells([7])} == {7}


def test_a_limit_of_an_unknown_method_is_said() -> None:
    put(ROWS, {"methods": {"sett": {"seeds": [1]}}})
    with pytest.raises(SpfdeError, match='unknown method "sett"; did you mean "set"'):
        cells()
