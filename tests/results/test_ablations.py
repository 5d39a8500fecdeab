from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pandas as pd
import pytest

from spfde.experiments.files import experiment_names
from spfde.experiments.resolve import expand
from spfde.methods import METHODS, Method
from spfde.methods.static import Static
from spfde.results.material import gather
from spfde.results.tables import appendix_b, make
from spfde.results.tables.table1 import features
from spfde.settings import RunSettings

BUDGET = 110


def only_freezing(fakes: SimpleNamespace, scale: str, level: float, seed: int = 1) -> RunSettings:
    run = fakes.settings(scale, "spfde", 0.9, level, seed)
    return run.model_copy(update={"sieving": run.sieving.model_copy(update={"removed": 0.0})})


def values(results: Path, scale: str, name: str) -> pd.DataFrame:
    make(name, scale, results)
    return pd.read_csv(results / scale / "tables" / f"{name}.csv")


def test_table_a8_by_hand(fakes: SimpleNamespace, tmp_path: Path) -> None:
    runs = [only_freezing(fakes, "cifar100", level) for level in (0.0, 0.1, 0.2)]
    fakes.write_plan(tmp_path, "cifar100", runs, "tableA8")
    for level in (0.0, 0.2):
        for seed in (1, 2):
            fakes.write_record(only_freezing(fakes, "cifar100", level, seed), tmp_path / "cifar100" / "runs")
    table = values(tmp_path, "cifar100", "tableA8").set_index("row")
    differences = [
        fakes.accuracy(only_freezing(fakes, "cifar100", 0.2, seed))
        - fakes.accuracy(only_freezing(fakes, "cifar100", 0.0, seed))
        for seed in (1, 2)
    ]
    half = 12.7062 * abs(differences[0] - differences[1]) / 2  # t of one degree of freedom x std / sqrt(2)
    row = table.loc["spfde-s90-f20"]
    assert row["difference.mean"] == pytest.approx(sum(differences) / 2)
    assert row["difference.high"] - row["difference.mean"] == pytest.approx(half, rel=1e-4)
    assert row["flops.ratio"] == pytest.approx(0.8) and row["against"] == "spfde-s90"
    assert (row["reference.difference.value"], row["reference.difference.standing"]) == (-0.01, "found")
    assert table.loc["spfde-s90-f10", "status"] == "not run" and table.loc["spfde-s90-f10", "difference.n"] == 0
    assert pd.isna(table.loc["spfde-s90", "against"])


def test_smoke_shows_no_published_difference(fakes: SimpleNamespace, tmp_path: Path) -> None:
    fakes.write_plan(tmp_path, "smoke", [only_freezing(fakes, "smoke", level) for level in (0.0, 0.2)], "tableA8")
    make("tableA8", "smoke", tmp_path)
    sieved = [only_freezing(fakes, "smoke", 0.0)]
    sieved += [run.model_copy(update={"sieving": run.sieving.model_copy(update={"removed": 0.2})}) for run in sieved]
    fakes.write_plan(tmp_path, "smoke", sieved, "tableA9")
    make("tableA9", "smoke", tmp_path)
    notes = [(tmp_path / "smoke" / "tables" / f"{name}.md").read_text() for name in ("tableA8", "tableA9")]
    assert ["Freezing begins" in note for note in notes] == [
        True,
        False,
    ]  # where nothing freezes, nothing is said of it
    assert ["Sieving removes" in note for note in notes] == [False, True]
    text = (tmp_path / "smoke" / "tables" / "tableA8.md").read_text()
    assert "-0.01" not in text and "not run" in text and "tests the machinery" in text


def test_deviations_stand_beside_their_own_default(fakes: SimpleNamespace, tmp_path: Path) -> None:
    plain = [fakes.settings("smoke", method, 0.9) for method in ("set", "rigl")]
    signed, erk = (run.model_copy(update={"tag": tag}) for run, tag in zip(plain, ("signed", "erk"), strict=True))
    fakes.write_plan(tmp_path, "smoke", [*plain, signed, erk], "deviations")
    table = values(tmp_path, "smoke", "deviations")
    assert table["name"].tolist() == ["SET", "SET: signed", "RigL", "RigL: erk"]
    assert table["against"].fillna("").tolist() == ["", "set-s90", "", "rigl-s90"]


def test_turnover_of_the_removed_set(fakes: SimpleNamespace, tmp_path: Path) -> None:
    run = fakes.settings("smoke", "spfde", 0.9, 0.2)
    fakes.write_plan(tmp_path, "smoke", [run], "appendix_c")
    make("appendix_c", "smoke", tmp_path)
    assert "| 80% | 31 | 24.8× |" in (tmp_path / "smoke" / "tables" / "appendix_c.md").read_text()


def test_measured_times_against_flops(fakes: SimpleNamespace, tmp_path: Path) -> None:
    fakes.write_plan(tmp_path, "smoke", [], "tableA11")
    assert "not run" in make("tableA11", "smoke", tmp_path)[0].read_text()
    rows = [("masks", 0.0, 10.0), ("freezing", 0.2, 8.5), ("freezing", 0.1, 9.0), ("sieving", 0.1, 9.2)]
    frame = pd.DataFrame(rows, columns=["kind", "flops_reduction", "seconds_per_epoch"])
    frame = frame.assign(n=3, std=0.1, speedup=10 / frame.seconds_per_epoch, speedup_std=0.02, device="cpu")
    frame.to_csv(tmp_path / "smoke" / "bench.csv", index=False)
    table = values(tmp_path, "smoke", "tableA11")
    assert table["saved"].tolist() == pytest.approx([0.1, 0.15])
    text = (tmp_path / "smoke" / "tables" / "tableA11.md").read_text()
    assert "| 10% | 9 ± 0.1 | 3 | 1.11 ± 0.02 | 10.0% | cpu |" in text


def test_table_1_is_the_registry() -> None:
    class New(Static):
        name, title, needs_dense_gradient = "new", "A new method", True

    kept: dict[str, type[Method]] = {name: METHODS[name] for name in ("dense", "rigl", "spfde", "lottery")}
    with patch.dict(METHODS, {**kept, "new": New}, clear=True):  # puts everything back in its order
        table = features().set_index("method")
    assert table.index.tolist() == ["dense", "rigl", "spfde", "lottery", "new"]
    assert table.loc["new", "title"] == "A new method"
    when = ["every step", "at updates", "never", "in the first round", "at the start"]
    assert table["dense_gradient"].tolist() == when
    assert table.loc["spfde", "peak"] == pytest.approx(1.5, abs=1e-3)  # trains at 15 %, ends at 10 %
    assert table.loc["rigl", "peak"] == 1 and pd.isna(table.loc["dense", "peak"])
    assert table.loc["dense", "flops"] == 1 and pd.isna(table.loc["lottery", "flops"])  # depends on the mask
    assert table["freezing"].tolist() == [0, 0, 0.2, 0, 0] and table.loc["spfde", "sieving"] == "circular, 20%"


def test_appendix_b_tells_when_blocks_froze_and_the_plan_where_nothing_was_run(smoke: Path) -> None:
    material = gather("smoke", smoke, "appendix_b")
    runs = material.runs.assign(**{"freezing.t_frz": 6 + material.runs["seed"], "freezing.achieved": 0.25})
    table = appendix_b.build(replace(material, runs=runs)).values.set_index("row")
    *ran, missing = material.plan
    assert all((table.loc[row["row"], ["t_frz", "saved"]] == [7, 0.25]).all() for row in ran)
    assert table.loc[missing["row"], "t_frz"] == missing["t_frz"] != 7
    assert table.loc[missing["row"], "saved"] == missing["freezing_achieved"]


def test_smoke_stays_in_its_budget_of_runs() -> None:
    runs = {run.run_id for name in experiment_names() for run in expand("smoke", name)}
    assert len(runs) <= BUDGET


def test_freezing_and_sieving_around_other_methods(fakes: SimpleNamespace, tmp_path: Path) -> None:
    runs = [
        fakes.settings("smoke", name, target, level)
        for name, target in (("dense", 0.0), ("rigl", 0.9))
        for level in (0.0, 0.2)
    ]
    fakes.write_plan(tmp_path, "smoke", runs, "around")
    for run in runs:
        fakes.write_record(run, tmp_path / "smoke" / "runs")
    frame = values(tmp_path, "smoke", "around")
    assert frame["name"].tolist() == ["Dense", "Dense + SpFDE", "RigL", "RigL + SpFDE"]
    assert frame["against"].fillna("").tolist() == ["", runs[0].row, "", runs[2].row]
    assert frame["difference.mean"].dropna().tolist() == pytest.approx(
        [fakes.accuracy(b) - fakes.accuracy(a) for a, b in (runs[:2], runs[2:])]
    )
