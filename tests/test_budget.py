"""The planner of budgets: what it lists, in which order, and what it says where nothing meets the budget."""

import json
from pathlib import Path

import pandas as pd
import pytest

from spfde.budget import Budget, Combination, combinations
from spfde.cli.plan import plan as plan_command
from spfde.errors import SpfdeError
from spfde.experiments.resolve import resolve
from spfde.experiments.stored import read_settings
from spfde.plans import describe, plan_settings
from spfde.settings import RunSettings

SHARES = (0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35)


def settings_of(found: list[Combination]) -> list[RunSettings]:
    return [one.plan.settings for one in found]


def rows(found: list[Combination]) -> list[str]:
    return [settings.row for settings in settings_of(found)]


@pytest.fixture(scope="module")
def by_hand() -> dict[str, dict[str, object]]:
    """The plans of all combinations at 90 %, each made by itself."""
    plans = {}
    for frozen in SHARES:
        for removed in SHARES:
            told = {"sparsity.method": "spfde", "freezing.flops_reduction": frozen, "sieving.removed": removed}
            try:
                plan = describe(plan_settings(resolve("smoke", told)))
            except SpfdeError:
                continue  # more than freezing can save
            plans[plan["row"]] = plan
    assert len(plans) >= 35
    return plans


@pytest.mark.parametrize("kind", ["flops", "memory"])
def test_listed_is_what_meets_the_budget_and_nothing_else(by_hand: dict[str, dict], kind: str) -> None:
    """The limit is what one of the combinations takes, which meets it."""
    takes = {
        row: plan["flops"]["paper"] if kind == "flops" else plan["memory"]["paper_avg"] for row, plan in by_hand.items()
    }
    limit = takes["spfde-s90-f20-d20"]
    found = combinations("smoke", Budget(**{kind: limit}), {"sparsity.target": 0.9})
    assert set(rows(found)) == {row for row, taken in takes.items() if taken <= limit * (1 + 1e-12)}
    assert "spfde-s90-f20-d20" in rows(found) and len(found) < len(by_hand)
    for one in found:
        assert one.takes[kind] == pytest.approx(takes[one.plan.settings.row], rel=1e-12)


def test_a_listed_plan_is_the_plan_of_its_settings(by_hand: dict[str, dict]) -> None:
    for one in combinations("smoke", Budget(flops=1e30), {"sparsity.target": 0.9})[::6]:
        expected = by_hand[one.plan.settings.row]
        assert json.loads(json.dumps(describe(one.plan))) == json.loads(json.dumps(expected))


def test_the_best_come_first() -> None:
    found = settings_of(combinations("smoke", Budget(flops=1e30)))
    keys = [(s.sparsity.target, s.freezing.flops_reduction, s.sieving.removed) for s in found]
    assert keys == sorted(keys, key=lambda key: (key[0], max(key[1:]), key[1], key[2]))
    assert keys[0] == (0.5, 0.0, 0.0) and {key[0] for key in keys} == {0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98}
    assert len(set(keys)) == len(keys)


def test_a_told_share_takes_the_place_of_the_grids() -> None:
    found = settings_of(combinations("smoke", Budget(flops=1e30), {"sparsity.target": 0.93, "sieving.removed": 0.17}))
    assert {(s.sparsity.target, s.sieving.removed) for s in found} == {(0.93, 0.17)}
    assert len({s.freezing.flops_reduction for s in found}) == len(found) > 4


def test_a_budget_out_of_reach_names_the_least() -> None:
    everything = combinations("smoke", Budget(flops=1e30))
    least = min(everything, key=lambda one: one.takes["flops"])
    with pytest.raises(SpfdeError, match=rf"the least is .* \({least.plan.settings.row}\); raise it"):
        combinations("smoke", Budget(flops=least.takes["flops"] * 0.99))
    found = combinations("smoke", Budget(flops=least.takes["flops"]))
    assert least.plan.settings.row in rows(found) and {one.takes["flops"] for one in found} == {least.takes["flops"]}


def test_limits_hold_together() -> None:
    """Little memory takes much freezing, which a run of few FLOPs need not have."""
    fixed = {"sparsity.target": 0.9}
    everything = combinations("smoke", Budget(flops=1e30, memory=1e30), fixed)
    middle = sorted(one.takes["memory"] for one in everything)[len(everything) // 2]
    half = sorted(one.takes["flops"] for one in everything)[len(everything) // 2]
    flops, memory = Budget(flops=half), Budget(memory=middle)
    both = rows(combinations("smoke", Budget(flops=half, memory=middle), fixed))
    assert set(both) == set(rows(combinations("smoke", flops, fixed))) & set(rows(combinations("smoke", memory, fixed)))
    assert 0 < len(both) < len(everything)


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """Epochs of half the samples in 5 s, less 1 s by freezing and 1.5 s by sieving a fifth."""
    told = {"scale": "smoke", "model": "resnet8", "batch_size": resolve("smoke", {}).training.batch_size}
    told["samples"] = 192  # half of the training set
    kinds = [("masks", 0.0, 5.0), ("freezing", 0.2, 4.0), ("sieving", 0.2, 3.5), ("both", 0.2, 2.8)]
    frame = pd.DataFrame([{"kind": k, "flops_reduction": f, "seconds_per_epoch": s, **told} for k, f, s in kinds])
    frame.to_csv(tmp_path / "bench.csv", index=False)
    return tmp_path / "bench.csv"


def test_time_is_epochs_times_measured_seconds(bench: Path) -> None:
    fixed = {"sparsity.target": 0.9, "training.epochs": 30}
    found = combinations("smoke", Budget(time=1e9), fixed, bench=bench)
    seconds = {one.plan.settings.row: one.takes["time"] for one in found}
    assert seconds == pytest.approx(
        {"spfde-s90": 300, "spfde-s90-f20": 240, "spfde-s90-d20": 210, "spfde-s90-f20-d20": 168}
    )
    assert rows(combinations("smoke", Budget(time=210), fixed, bench=bench)) == ["spfde-s90-d20", "spfde-s90-f20-d20"]
    with pytest.raises(SpfdeError, match=r"--budget-time 100: the least is 168 \(spfde-s90-f20-d20\)"):
        combinations("smoke", Budget(time=100), fixed, bench=bench)


def test_time_needs_measurements_of_the_same_network(bench: Path, tmp_path: Path) -> None:
    with pytest.raises(SpfdeError, match=r"no measured step times in .*; run `spfde bench"):
        combinations("smoke", Budget(time=1), bench=tmp_path / "none.csv")
    with pytest.raises(
        SpfdeError, match=r"measured at scale smoke, model resnet8, batch size [0-9]+, not .* batch size 64"
    ):
        combinations("smoke", Budget(time=1), {"training.batch_size": 64}, bench=bench)
    with pytest.raises(SpfdeError, match=r"no step time was measured at a sieving share of 0.3; choose one of 0, 0.2"):
        combinations("smoke", Budget(time=1), {"sieving.removed": 0.3}, bench=bench)


def test_another_method_is_refused() -> None:
    with pytest.raises(SpfdeError, match="a budget is planned for method spfde"):
        combinations("smoke", Budget(flops=1), {"sparsity.method": "rigl"})


def test_the_chosen_settings_are_written_and_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "chosen.yaml"
    plan_command("smoke", assignments=["sparsity.target=0.9"], budget_flops=1e30, write=path)
    assert "best first: lowest sparsity" in capsys.readouterr().out
    (best,) = read_settings(path)
    assert best.row == "spfde-s90"
    plan_command(
        "smoke", assignments=["sparsity.target=0.9"], budget_flops=1e30, write=path, rows=["spfde-s90-f20-d20"]
    )
    (chosen,) = read_settings(path)
    assert chosen.run_id == resolve("smoke", {"sparsity.method": "spfde"}).run_id
    other = read_settings(path, [3, 4], {"training.epochs": 7})
    assert [run.seed for run in other] == [3, 4] and other[0].training.epochs == 7
    assert [run.run_id for run in read_settings(path, [2])] == [
        resolve("smoke", {"sparsity.method": "spfde"}, 2).run_id
    ]

    capsys.readouterr()
    plan_command("smoke", settings=path, as_json=True)
    (planned,) = json.loads(capsys.readouterr().out)
    plan_command("smoke", budget_flops=1e30, rows=["spfde-s90-f20-d20"], as_json=True)
    assert json.loads(capsys.readouterr().out) == [planned]


@pytest.mark.parametrize("text", ["[1, 2]", "{", "sparsity: {metod: set}"])
def test_a_file_that_holds_no_settings_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(SpfdeError, match=r"holds no settings|cannot be read|is not YAML|did you mean"):
        read_settings(path)
    with pytest.raises(SpfdeError, match="cannot be read"):
        read_settings(tmp_path / "none.yaml")
