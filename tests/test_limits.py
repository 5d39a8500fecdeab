"""What a scale takes of an experiment: less than all, and less still of single methods' rows."""

from collections import Counter
from pathlib import Path

import pytest
import yaml

from spfde.errors import SpfdeError
from spfde.experiments.files import experiment_names
from spfde.experiments.resolve import expand, select


def put(values: dict[str, object], limit: dict[str, object]) -> None:
    """A scale `s` with that limit and an experiment `e` with these rows, in the working folder."""
    for kind in ("scales", "experiments"):
        Path("config", kind).mkdir(parents=True, exist_ok=True)
    scale = {"settings": {"data": {"name": "digits"}}, "seeds": [1, 2], "sparsities": [0.8, 0.9]}
    Path("config/scales/s.yaml").write_text(yaml.safe_dump({**scale, "experiments": {"e": limit}}))
    Path("config/experiments/e.yaml").write_text(yaml.safe_dump(values))


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


def test_a_method_can_have_less_at_a_sparsity() -> None:
    rows = {"rows": [{"method": "static"}, {"method": "spfde", "levels": [0.1, 0.2]}]}
    put(rows, {"methods": {"spfde": {"at": {0.8: {"levels": [0.2], "seeds": [1]}}}}})
    found = cells()
    assert {cell for cell in found if cell[0].startswith("spfde-s80")} == {("spfde-s80-f20-d20", 1)}
    assert sum(row.startswith("spfde-s90") for row, _ in found) == 4 and len(found) == 4 + 5


def test_the_smoke_scale_is_110_runs_with_every_row_of_the_papers_comparison() -> None:
    runs = {run.run_id: run for name in experiment_names() for run in expand("smoke", name)}
    assert 50 <= len(runs) <= 110
    seeds = Counter(run.row for run in expand("smoke", "table2"))
    compared = [f"{name}-s90" for name in ("static", "set", "rigl", "mest-em", "mest-ems")]
    levels = [f"spfde-s90-f{level}-d{level}" for level in (10, 15, 20, 25)]
    for row in ["dense", *compared, *levels]:
        assert seeds[row] == 2, row  # so that there are deviations and paired differences
    for row in ("static-s95", "rigl-s98", "spfde-s95-f20-d20", "spfde-s98-f20-d20", "lottery-s90"):
        assert seeds[row] == 1, row


def test_the_digits_scale_has_five_seeds_of_the_papers_comparison_at_95_percent() -> None:
    runs = {run.run_id: run for name in experiment_names() for run in expand("digits", name)}
    seeds = Counter(run.row for run in expand("digits", "table2"))
    compared = [f"{name}-s95" for name in ("static", "set", "rigl", "mest-em", "mest-ems")]
    levels = [f"spfde-s95-f{level}-d{level}" for level in (10, 15, 20, 25)]
    for row in ["dense", *compared, "spfde-s95", *levels]:
        assert seeds[row] == 5, row
    long = [run for run in runs.values() if run.training.epochs == 60 and run.data.train_limit is None]
    assert {run.row for run in long} == set(seeds)  # everything else keeps short runs


def test_rows_of_several_experiments_are_named_together() -> None:
    runs = select("smoke", ["table2", "appendix_c"], ["dense", "spfde-s90-d20-once"], [1])
    assert [run.row for run in runs] == ["dense", "spfde-s90-d20-once"]
    twice = select("imagenet", ["swat", "table3"], ["table3/rigl-s90"], [1])  # both have a rigl-s90, of other recipes
    assert [run.sparsity.distribution for run in twice] == ["erk"]
    assert len(select("imagenet", ["swat", "table3"], ["rigl-s90"], [1])) == 2
    with pytest.raises(SpfdeError, match='experiment table2 or gse has no row "spfde-s90-d20-once"'):
        select("smoke", ["table2", "gse"], ["spfde-s90-d20-once"])


def test_a_row_can_belong_to_some_scales_alone() -> None:
    rows = [{"method": "static"}, {"method": "set", "scales": ["t"]}, {"method": "rigl", "scales": ["s", "t"]}]
    put({"rows": rows}, {"seeds": [1], "sparsities": [0.9]})
    Path("config/scales/t.yaml").write_text("seeds: [1]")
    assert cells() == {("static-s90", 1), ("rigl-s90", 1)}


@pytest.mark.parametrize("wrong", ["smok", "../smoke"])
def test_rows_of_an_unknown_scale_are_refused(wrong: str) -> None:
    """They would be trained nowhere."""
    put({"rows": [{"method": "set", "scales": ["s", wrong]}]}, {})
    with pytest.raises(SpfdeError, match=f'experiment e has rows of an unknown scale "{wrong}"; did you mean "smoke"'):
        cells()
    put({"rows": [{"method": "set"}], "scale": wrong}, {})
    with pytest.raises(SpfdeError, match=f'experiment e has rows of an unknown scale "{wrong}"; did you mean "smoke"'):
        cells()


def test_a_limit_of_an_unknown_experiment_is_refused() -> None:
    put(ROWS, {"seeds": [1]})
    path = Path("config/scales/s.yaml")
    path.write_text(path.read_text().replace("e:", "tabel2:"))
    with pytest.raises(SpfdeError, match='scale s limits an unknown experiment "tabel2"; did you mean "table2"'):
        cells()


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"seeds": []}, "seeds"),
        ({"methods": {"set": {"seeds": []}}}, "seeds"),
        ({"at": {0.9: {"methods": {"set": {"seeds": [1]}}}}}, r"at\.0\.9 cannot have methods"),
        ({"at": {0.9: {"sparsities": [0.9]}}}, r"at\.0\.9 cannot have sparsities"),
        ({"at": {0.9: {"at": {0.8: {"seeds": [1]}}}}}, r"at\.0\.9 cannot have at"),
        ({"methods": {"set": {"methods": {"rigl": {"seeds": [1]}}}}}, r"methods\.set cannot have methods"),
        ({"methods": {"set": {"at": {0.9: {"at": {}}}}}}, r"at\.0\.9 cannot have at"),
    ],
)
def test_a_limit_that_would_do_nothing_is_refused(limit: dict[str, object], message: str) -> None:
    put(ROWS, limit)
    with pytest.raises(SpfdeError, match=message):
        cells()


def test_a_limit_at_a_sparsity_that_the_scale_has_not_is_said() -> None:
    put(ROWS, {"methods": {"set": {"at": {0.95: {"seeds": [1]}}}}})
    with pytest.raises(SpfdeError, match=r"at sparsity 0\.95, which it does not have; name one of 0\.8, 0\.9"):
        cells()
