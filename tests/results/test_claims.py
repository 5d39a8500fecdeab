import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from spfde.errors import SpfdeError
from spfde.experiments.resolve import expand
from spfde.results.checks import frozen_masks_move, misses_target, partial_set_changes
from spfde.results.claims import Claim, Claims, conclude, exact, findings, read, worst
from spfde.results.evidence import Evidence, converged, counts, overhead, per_share
from spfde.results.statistics import Estimate, estimate
from spfde.results.verdicts import write
from spfde.settings import parse
from spfde.training.trust import seal

BASE: dict[str, Any] = {
    "id": "some-claim",
    "claim": "It is better.",
    "source": "Sec. 1",
    "kind": "accuracy",
    "comparisons": [["spfde-s90-f20-d20", "mest-ems-s90"]],
    "expected": {"low": 0, "high": 1, "standing": "F"},
}


def make(**changes: Any) -> Claim:
    return parse(Claim, {**BASE, **changes})


def verdict(claim: Claim, *effects: Estimate) -> str:
    return conclude(claim, findings(claim, [([], effect) for effect in effects]))[0]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([0.5, 0.5, 0.5], "reproduced"),
        ([0.4, 0.5, 0.6], "reproduced"),  # 0.5 +- 0.248
        ([0.0, 0.5, 1.0], "within noise"),  # 0.5 +- 1.24
        ([2.0, 2.1, 2.2], "contradicted"),
        ([-3.0, -3.1, -3.0], "contradicted"),
        ([1.0, 1.1, 1.2], "within noise"),  # the bound lies inside its interval
        ([0.5], "not run"),  # one seed has no interval
        ([], "not run"),
    ],
)
def test_a_verdict_is_where_the_interval_lies(values: list[float], says: str) -> None:
    assert verdict(make(), estimate(values)) == says


def test_the_tolerance_widens_the_range_and_an_open_bound_has_no_end() -> None:
    high = estimate([2.0, 2.05, 2.1])
    assert verdict(make(), high) == "contradicted"
    assert verdict(make(tolerance=1.5), high) == "reproduced"
    assert verdict(make(expected={"low": 0, "standing": "F"}), high) == "reproduced"
    assert verdict(make(expected={"high": 0, "standing": "F"}), high) == "contradicted"


def test_all_comparisons_must_hold() -> None:
    good, noisy, bad = estimate([0.5] * 3), estimate([0.0, 0.5, 1.0]), exact(7.0)
    assert verdict(make(), good, good) == "reproduced"
    assert verdict(make(), good, noisy) == "within noise"
    assert verdict(make(), good, noisy, bad) == "contradicted"
    assert verdict(make(), good, bad, estimate([])) == "not run"
    shown = worst(make(), findings(make(), [(["a"], good), (["b"], bad)]))
    assert shown and shown.rows == ["b"]


@pytest.mark.parametrize("standing", ["R", "NF"])
@pytest.mark.parametrize("effect", [exact(0.5), exact(9.0)])
def test_an_unverified_number_decides_nothing(standing: str, effect: Estimate) -> None:
    claim = make(expected={"low": 0, "high": 1, "standing": standing})
    said, reason = conclude(claim, findings(claim, [([], effect)]))
    assert said == "not run" and "unverified" in reason


@pytest.mark.parametrize(
    "changes",
    [
        {"comparisons": []},
        {"comparisons": [["one"]]},
        {"relation": "value"},
        {"expected": {"standing": "F"}},
        {"expected": {"low": 2, "high": 1, "standing": "F"}},
        {"expected": {"low": 0, "standing": "sure"}},
        {"kind": "opinion"},
        {"tolerance": -1},
        {"verdict": "reproduced"},
    ],
)
def test_a_claim_that_cannot_be_checked_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SpfdeError):
        make(**changes)
    with pytest.raises(SpfdeError):
        parse(Claims, {"claims": [BASE, BASE]})


def test_the_file_has_every_kind_and_names_rows_that_exist() -> None:
    claims = read()
    assert len(claims) >= 20
    assert {claim.kind for claim in claims} == {
        "accuracy", "analysis", "cost", "memory", "invariance", "acceleration",
    }  # fmt: skip
    known = {
        (claim.scale, claim.experiment): {run.row for run in expand(claim.scale, claim.experiment)} for claim in claims
    }
    for claim in claims:
        named = {row for comparison in claim.comparisons for row in comparison}
        assert named <= known[claim.scale, claim.experiment], claim.id
        if claim.kind == "accuracy":
            assert claim.metric == "accuracy.test_last" and claim.scale != "smoke"


def records(fakes: SimpleNamespace, results: Path, scale: str, spfde: list[float], mest: list[float]) -> None:
    """Records of SpFDE 20%+20% and MEST+EM&S at 90 %, a seed each of these accuracies."""
    for (method, level), values in {("spfde", 0.2): spfde, ("mest-ems", 0.0): mest}.items():
        for seed, value in enumerate(values, start=1):
            run = next(
                run
                for run in expand(scale, "table2", [seed])
                if run.row == fakes.settings(scale, method, 0.9, level).row
            )
            fakes.write_record(run, results / scale / "runs", last=value)


def test_accuracy_is_decided_by_the_papers_scale_paired_by_seed(fakes: SimpleNamespace, tmp_path: Path) -> None:
    records(fakes, tmp_path, "cifar100", [71.0, 70.0, 72.0], [70.5, 69.5, 71.5])
    for scale in ("cifar100", "smoke"):  # real records decide, whatever scale the report is of
        found = Evidence(scale, tmp_path).decide(make())
        assert found["verdict"] == "reproduced"  # 0.5 each: paired, the seeds' two points do not count
        assert (found["evidence"]["n"], found["evidence"]["effect"]) == (3, pytest.approx(0.5))


def test_smoke_never_decides_an_accuracy(
    fakes: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records(fakes, tmp_path, "smoke", [97.0, 97.1, 97.2], [96.5, 96.6, 96.7])
    found = Evidence("smoke", tmp_path).decide(make())
    assert found["verdict"] == "not run" and found["evidence"]["effect"] is None
    machinery = found["evidence"]["machinery"]
    assert machinery["decides"] is False and machinery["comparisons"][0]["n"] == 3
    assert machinery["comparisons"][0]["verdict"] is None
    asked = Evidence("smoke", tmp_path).decide(make(scale="smoke"))  # not even where a claim asks for it
    assert asked["verdict"] == "not run"
    elsewhere = make(scale="imagenet", experiment="table3", comparisons=[["spfde-s90-f20-d20", "mest-em-s90"]])
    Evidence("smoke", tmp_path).decide(elsewhere)  # has no rows at this scale, and no complaint about their settings
    assert not capsys.readouterr().err


def test_costs_are_those_of_the_papers_scale(tmp_path: Path) -> None:
    dense = {"kind": "cost", "metric": "flops.paper", "relation": "value", "comparisons": [["dense"]]}
    flops = 2 * 3 * (275_611_648 + 12_800) * 160 * 50_000
    claim = make(**dense, expected={"low": flops, "high": flops, "standing": "D"}, tolerance=1e-9 * flops)
    found = Evidence("smoke", tmp_path).decide(claim)
    assert found["verdict"] == "reproduced" and found["evidence"]["interval"] is None
    other = make(**dense, expected={"low": 1.5e16, "high": 1.5e16, "standing": "D"})
    assert Evidence("smoke", tmp_path).decide(other)["verdict"] == "contradicted"
    wrong = make(**{**dense, "comparisons": [["no-such-row"]]})
    with pytest.raises(SpfdeError, match="no-such-row"):
        Evidence("smoke", tmp_path).decide(wrong)


def test_checks_find_what_moves(fakes: SimpleNamespace, tmp_path: Path) -> None:
    folder = fakes.write_record(fakes.settings("smoke", "spfde", 0.9, 0.2), tmp_path / "smoke" / "runs")
    invariant = {"kind": "invariance", "relation": "value", "comparisons": [], "expected": {"high": 0, "standing": "F"}}
    claim = make(**invariant, metric="frozen-masks-move")
    assert list(frozen_masks_move(folder)) == [0.0]
    assert list(partial_set_changes(folder)) == [0.0] and list(misses_target(folder)) == [0.0]
    assert Evidence("smoke", tmp_path).decide(claim)["verdict"] == "reproduced"
    trace = pd.read_csv(folder / "layers.csv")
    last = trace.index == trace.index[trace["frozen"] == 1][-1]
    for column, change in (
        ("forward_density", 0.25),
        ("explored", 0.125),
        ("overlap_first", -0.125),
        ("overlap_updates", -0.5),
    ):
        trace.assign(**{column: trace[column] + change * last}).to_csv(folder / "layers.csv", index=False)
        seal(folder, json.loads((folder / "summary.json").read_text()))
        assert list(frozen_masks_move(folder)) == [pytest.approx(abs(change))]
        assert Evidence("smoke", tmp_path).decide(claim)["verdict"] == "contradicted"
    epochs = pd.read_csv(folder / "epochs.csv")
    epochs["samples"] = epochs["samples"] + 7 * (epochs["epoch"] == 3)
    epochs.to_csv(folder / "epochs.csv", index=False)
    assert list(partial_set_changes(folder)) == [7.0]
    dense = fakes.write_record(fakes.settings("smoke", "dense"), tmp_path)
    assert not [*frozen_masks_move(dense), *partial_set_changes(dense), *misses_target(dense)]
    with pytest.raises(SpfdeError, match="names no known check"):
        Evidence("smoke", tmp_path).decide(make(**invariant, metric="moves"))


def test_a_mask_may_move_before_it_freezes_and_once_it_has_thawed(tmp_path: Path) -> None:
    """Pruned to the target before epoch 1, frozen in 1 and 2, thawed before 3; the other layer never freezes."""
    courses = {
        "forward_density": ([0.2, 0.1, 0.1, 0.3], [0.2, 0.2, 0.1, 0.1]),
        "explored": ([0.2, 0.2, 0.2, 0.4], [0.2, 0.3, 0.4, 0.5]),
        "overlap_first": ([1.0, 0.5, 0.5, 0.4], [1.0, 0.9, 0.8, 0.7]),
        "overlap_updates": ([1.0, 0.5, 1.0, 0.6], [1.0, 0.9, 0.8, 0.7]),
        "frozen": ([False, True, True, False], [False] * 4),
    }
    lines = [
        {"epoch": epoch, "layer": layer, **{name: course[layer][epoch] for name, course in courses.items()}}
        for epoch in range(4)
        for layer in range(2)
    ]
    pd.DataFrame(lines).to_csv(tmp_path / "layers.csv", index=False)
    assert list(frozen_masks_move(tmp_path)) == [0.0]


def test_acceleration_is_the_benchmarks(tmp_path: Path) -> None:
    linear = {"kind": "acceleration", "relation": "value", "comparisons": [], "metric": "freezing"}
    claim = make(**linear, expected={"low": 1, "high": 1, "standing": "F"}, tolerance=0.2)
    assert Evidence("smoke", tmp_path).decide(claim)["verdict"] == "not run"
    times = [("masks", 0.0, 10.0), ("freezing", 0.1, 9.0), ("freezing", 0.2, 8.0), ("sieving", 0.2, 10.0)]
    frame = pd.DataFrame(
        [(kind, level, repeat, seconds) for repeat in range(3) for kind, level, seconds in times],
        columns=["kind", "flops_reduction", "repeat", "seconds_per_epoch"],
    )
    assert per_share(frame, "freezing").mean == pytest.approx(1.0)
    assert per_share(frame, "sieving").mean == pytest.approx(0.0)
    assert per_share(frame, "both").n == 0
    (tmp_path / "smoke").mkdir()
    frame.assign(device="cpu").to_csv(tmp_path / "smoke" / "bench.repeats.csv", index=False)
    found = Evidence("smoke", tmp_path).decide(claim)
    assert found["verdict"] == "reproduced" and "cpu" in found["evidence"]["from"] and found["evidence"]["n"] == 3


def test_overhead_is_what_masks_and_sieving_add_to_the_same_steps(tmp_path: Path) -> None:
    """Masks: 10 x 1.1 + 1 s, not 10 x 1. Sieving: 8 x 1.2 + 1 + 0.15 s, not 8 x 1.1 + 1; 5 x 1.3 + 1 + 1, not 6.5."""
    by_hand = {"masks": 0.2, "sieving": ((10.75 / 9.8 - 1) + (8.5 / 6.5 - 1)) / 2}
    parts = [("dense", 0.0, 10, 1.0, 0.0, 0.0), ("masks", 0.0, 10, 1.1, 1.0, 0.0)]
    parts += [("sieving", 0.2, 8, 1.2, 1.0, 0.15), ("sieving", 0.5, 5, 1.3, 1.0, 1.0)]
    columns = ["kind", "flops_reduction", "steps", "step_seconds", "mask_updates", "sieve_updates"]
    once = pd.DataFrame(parts, columns=columns)
    once["seconds_per_epoch"] = once.steps * once.step_seconds + once.mask_updates + once.sieve_updates
    seconds = ["step_seconds", "mask_updates", "sieve_updates", "seconds_per_epoch"]
    slower = once.assign(
        **{column: 3 * once[column] for column in seconds}
    )  # the machine was busy; shares are the same
    frame = pd.concat([once.assign(repeat=0), slower.assign(repeat=1)])
    for kind, share in by_hand.items():
        found = overhead(frame, kind)
        assert (found.mean, found.std, found.n) == (pytest.approx(share), pytest.approx(0, abs=1e-9), 2)
        asked = {
            "kind": "acceleration",
            "relation": "value",
            "comparisons": [],
            "expected": {"high": 0, "standing": "2nd"},
        }
        claim = make(**asked, metric=f"overhead.{kind}", tolerance=share + 0.01)
        folder = tmp_path / kind / "smoke"
        assert Evidence("smoke", folder.parent).decide(claim)["verdict"] == "not run"
        folder.mkdir(parents=True)
        for columns_there, says in (
            (["steps"], "not run"),
            ([], "reproduced"),
        ):  # times without their parts say nothing
            frame.assign(device="cpu").drop(columns=columns_there).to_csv(folder / "bench.repeats.csv", index=False)
            assert Evidence("smoke", folder.parent).decide(claim)["verdict"] == says
        strict = make(**asked, metric=f"overhead.{kind}", tolerance=share - 0.01)
        assert Evidence("smoke", folder.parent).decide(strict)["verdict"] == "contradicted"


def test_the_overhead_in_time_is_claimed_beside_that_in_operations() -> None:
    claims = {claim.id: claim for claim in read()}
    assert claims["overhead-in-operations"].kind == "invariance"
    for kind in ("masks", "sieving"):
        claim = claims[f"{kind}-overhead-in-time"]
        assert (claim.kind, claim.metric) == ("acceleration", f"overhead.{kind}") and claim.why


def test_epochs_of_convergence(tmp_path: Path) -> None:
    """Layer 2 is at 0.9 for good from epoch 5 on, layer 5 from epoch 10 on, whatever it was at before."""
    values = {2: [0.5, 0.95, 0.97, 1.0], 5: [0.95, 0.6, 0.92, 1.0]}
    rows = [
        ("mest", seed, number, epoch, value)
        for seed in (1, 2)
        for number, course in values.items()
        for epoch, value in zip((1, 5, 10, 15), course, strict=True)
    ]
    frame = pd.DataFrame(rows, columns=["row", "seed", "number", "epoch", "similarity"])
    assert converged(frame, "similarity").set_index(["seed", "number"])["epoch"].to_dict() == {
        (1, 2): 5, (1, 5): 10, (2, 2): 5, (2, 5): 10,
    }  # fmt: skip
    path = tmp_path / "cifar100" / "analysis" / "figure1.similarity.csv"
    path.parent.mkdir(parents=True)
    frame.to_csv(path, index=False)
    asked = {"kind": "analysis", "experiment": "figure1", "relation": "value", "comparisons": [["mest"]]}
    first = make(**asked, metric="similarity.first", expected={"low": 5, "high": 5, "standing": "F"})
    assert Evidence("smoke", tmp_path).decide(first)["verdict"] == "reproduced"


def test_the_files_hold_every_claim(tmp_path: Path) -> None:
    claims = [make(), make(id="other", kind="acceleration", metric="freezing", relation="value", comparisons=[])]
    verdicts = [Evidence("smoke", tmp_path).decide(claim) for claim in claims]
    assert counts(verdicts) == {"reproduced": 0, "within noise": 0, "contradicted": 0, "not run": 2}
    paths = write(verdicts, "smoke", tmp_path / "smoke")
    written = json.loads(paths[0].read_text())
    assert [entry["id"] for entry in written] == ["some-claim", "other"]
    assert all({"id", "claim", "verdict", "evidence"} <= entry.keys() for entry in written)
    for path in paths[1:]:
        assert "not run" in path.read_text() and "It is better." in path.read_text()
    assert not math.isnan(written[0]["evidence"]["n"])
