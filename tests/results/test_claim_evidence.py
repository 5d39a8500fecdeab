"""What claims on costs, on movement, on speed and on convergence are decided by: plans, records and the benchmark."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from spfde.errors import SpfdeError
from spfde.experiments.files import default_scale
from spfde.results.checks import frozen_masks_move, misses_target, partial_set_changes
from spfde.results.claims import read
from spfde.results.evidence import Evidence, converged
from spfde.results.speed import at_share, overhead, per_share
from spfde.training.trust import seal
from tests.results.made import COST, make, ranged


def test_costs_are_those_of_the_papers_scale(tmp_path: Path) -> None:
    dense = {**COST, "comparisons": [["dense"]]}
    flops = 2 * 3 * (275_611_648 + 12_800) * 160 * 50_000
    claim = make(**dense, expected={"low": flops, "high": flops, "standing": "D"}, margin=1e-9 * flops)
    found = Evidence("smoke", tmp_path).decide(claim)
    assert found["verdict"] == "reproduced" and found["evidence"]["interval"] is None
    other = make(**dense, expected={"low": 1.5e16, "high": 1.5e16, "standing": "F"})
    assert Evidence("smoke", tmp_path).decide(other)["verdict"] == "contradicted"
    wrong = ranged(comparisons=[["no-such-row"]])
    for claim in (wrong, make(comparisons=[["no-such-row", "mest-ems-s90"]])):
        with pytest.raises(SpfdeError, match="no-such-row"):
            Evidence("smoke", tmp_path).decide(claim)


def test_checks_find_what_moves(fakes: SimpleNamespace, tmp_path: Path) -> None:
    folder = fakes.write_record(fakes.settings("smoke", "spfde", 0.9, 0.2), tmp_path / "smoke" / "runs")
    invariant: dict[str, Any] = {"kind": "invariance", "test": "range", "relation": "value", "comparisons": []}
    invariant |= {"expected": {"high": 0, "standing": "F"}}
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
    linear: dict[str, Any] = {"kind": "acceleration", "test": "range", "relation": "value", "metric": "freezing"}
    linear |= {"expected": {"low": 1, "high": 1, "standing": "F"}, "margin": 0.2}
    claim = make(**linear, comparisons=[])
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
    assert at_share(frame, "freezing", 0.1).mean == pytest.approx(1.0) and not at_share(frame, "freezing", 0.15).known
    each = Evidence("smoke", tmp_path).decide(make(**linear, comparisons=[["10"], ["20"]]))
    assert each["verdict"] == "reproduced"
    assert Evidence("smoke", tmp_path).decide(make(**linear, comparisons=[["10"], ["15"]]))["verdict"] == "not run"


def time_epochs(folder: Path, freezing: float, device: str) -> Path:
    """Measured epochs in a folder of results: 10 s of masks alone, and so many where a tenth of the FLOPs is frozen."""
    folder.mkdir(parents=True)
    (folder / "bench.csv").touch()  # the means, which no claim reads
    times = [("masks", 0.0, 10.0), ("freezing", 0.1, freezing)]
    frame = pd.DataFrame(
        [(kind, level, repeat, seconds, device) for repeat in range(2) for kind, level, seconds in times],
        columns=["kind", "flops_reduction", "repeat", "seconds_per_epoch", "device"],
    )
    frame.to_csv(folder / "bench.repeats.csv", index=False)
    return folder


ACCELERATION: dict[str, Any] = {
    "kind": "acceleration",
    "test": "range",
    "relation": "value",
    "metric": "freezing",
    "comparisons": [],
    "expected": {"low": 1, "high": 1, "standing": "F"},
    "margin": 0.2,
}


def test_acceleration_is_that_of_the_claims_scale_whatever_is_shown(tmp_path: Path) -> None:
    """Fresh before published before that of the scale that is shown; each case is told apart by its effect."""
    claim = make(**ACCELERATION)
    assert claim.scale == "cifar100"

    def found(scale: str) -> tuple[str, Any, str]:
        entry = Evidence(scale, tmp_path).decide(claim)
        return entry["verdict"], pytest.approx(entry["evidence"]["effect"]), entry["evidence"]["from"]

    time_epochs(tmp_path / "digits", 10.0, "cpu: short")
    assert found("digits") == ("contradicted", 0.0, "benchmark at scale digits on cpu: short")
    assert Evidence("smoke", tmp_path).decide(claim)["verdict"] == "not run"  # it has none of its own
    time_epochs(tmp_path / "published/cifar100", 9.0, "cpu: published")
    for scale in ("digits", "smoke", "cifar100"):
        assert found(scale) == ("reproduced", 1.0, "benchmark at scale cifar100 on cpu: published")
    fresh = time_epochs(tmp_path / "cifar100", 9.1, "cpu: fresh")
    for scale in ("digits", "smoke", "cifar100"):
        assert found(scale) == ("reproduced", 0.9, "benchmark at scale cifar100 on cpu: fresh")
    other = make(**ACCELERATION, scale="imagenet")  # of which nobody measured anything
    assert Evidence("digits", tmp_path).decide(other)["evidence"]["from"].startswith("benchmark at scale digits")
    (fresh / "bench.repeats.csv").write_text("")
    with pytest.raises(SpfdeError, match=r"timings .*cifar100/bench.repeats.csv cannot be read"):
        found("digits")


def test_the_published_times_decide_the_claims_on_acceleration_at_the_default_scale(tmp_path: Path) -> None:
    """As they do at the paper's: nothing was run here, and the default scale's short benchmark would not be taken."""
    (tmp_path / "published").symlink_to(Path(__file__).parents[2] / "results/published")
    time_epochs(tmp_path / default_scale(), 10.0, "cpu: short")
    claims = [claim for claim in read().claims if claim.kind == "acceleration"]
    for claim in claims:
        shown, paper = (Evidence(scale, tmp_path).decide(claim) for scale in (default_scale(), claim.scale))
        assert shown == paper and shown["evidence"]["from"].startswith(f"benchmark at scale {claim.scale} on ")
    assert len(claims) == 6 and default_scale() not in {claim.scale for claim in claims}


def test_overhead_is_what_freezing_adds_to_a_linear_saving_and_sieving_to_the_same_steps(tmp_path: Path) -> None:
    """Masks: 10 x 1.1 + 1 s. Sieving: 8 x 1.2 + 1 + 0.15 s, not 8 x 1.1 + 1; 5 x 1.3 + 1 + 1, not 6.5. Freezing: 10 x
    1.0 + 1 s, not 0.8 x 12; 10 x 0.6 + 1, not 0.5 x 12."""
    by_hand = {
        "freezing": ((11 / 9.6 - 1) + (7 / 6 - 1)) / 2,
        "sieving": ((10.75 / 9.8 - 1) + (8.5 / 6.5 - 1)) / 2,
    }
    parts = [("dense", 0.0, 10, 1.0, 0.0, 0.0), ("masks", 0.0, 10, 1.1, 1.0, 0.0)]
    parts += [("freezing", 0.2, 10, 1.0, 1.0, 0.0), ("freezing", 0.5, 10, 0.6, 1.0, 0.0)]
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
        assert (found.mean, found.error, found.n) == (pytest.approx(share), pytest.approx(0, abs=1e-9), 2)
        asked = {
            "kind": "acceleration",
            "test": "range",
            "relation": "value",
            "comparisons": [],
            "expected": {"high": 0, "standing": "2nd"},
        }
        claim = make(**asked, metric=f"overhead.{kind}", margin=share + 0.01)
        folder = tmp_path / kind / "smoke"
        assert Evidence("smoke", folder.parent).decide(claim)["verdict"] == "not run"
        folder.mkdir(parents=True)
        for columns_there, says in (
            (["steps"], "not run"),
            ([], "reproduced"),
        ):  # times without their parts say nothing
            frame.assign(device="cpu").drop(columns=columns_there).to_csv(folder / "bench.repeats.csv", index=False)
            assert Evidence("smoke", folder.parent).decide(claim)["verdict"] == says
        strict = make(**asked, metric=f"overhead.{kind}", margin=share - 0.01)
        assert Evidence("smoke", folder.parent).decide(strict)["verdict"] == "undecided"  # "2nd": no sentence of theirs


def test_the_overhead_is_claimed_of_what_the_paper_says_it_of() -> None:
    """Of freezing and of sieving, in operations and in time; not of masks, whose acceleration it calls limited."""
    claims = {claim.id: claim for claim in read().claims}
    said = claims["overhead-in-operations"]
    assert said.kind == "invariance" and "layer freezing and data sieving" in said.claim
    for kind in ("freezing", "sieving"):
        claim = claims[f"{kind}-overhead-in-time"]
        assert (claim.kind, claim.metric) == ("acceleration", f"overhead.{kind}") and claim.why
    assert not [claim.id for claim in claims.values() if "overhead" in claim.id and "mask" in claim.claim]


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
    asked = {
        "kind": "analysis",
        "test": "range",
        "experiment": "figure1",
        "expected": {"low": 5, "high": 5, "standing": "F"},
    }
    first = make(**asked, metric="similarity.first", relation="value", comparisons=[["mest"]])
    assert Evidence("smoke", tmp_path).decide(first)["verdict"] == "reproduced"
    # Of seven layers that converge at epochs 1 to 7, the last two do five epochs after the first two.
    course = [
        ("seven", seed, k, epoch, float(epoch >= k)) for seed in (1, 2) for k in range(1, 8) for epoch in range(1, 8)
    ]
    frame = pd.concat([frame, pd.DataFrame(course, columns=frame.columns)], ignore_index=True)
    frame.to_csv(path, index=False)
    ends = make(**asked, metric="similarity.back-front", relation="value", comparisons=[["seven"]])
    assert Evidence("smoke", tmp_path).decide(ends)["evidence"]["effect"] == 5
    both = pd.concat([frame, frame.assign(row="dense", similarity=1.0)], ignore_index=True)
    both.rename(columns={"similarity": "cka"}).to_csv(path.parent / "figure1.cka.csv", index=False)
    for number, later in ((2, 4), (5, 9)):  # dense is there from epoch 1 on
        layer = make(**asked, metric=f"cka.{number}", comparisons=[["mest", "dense"]])
        assert Evidence("smoke", tmp_path).decide(layer)["evidence"]["effect"] == later
