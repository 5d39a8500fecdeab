import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from spfde.errors import SpfdeError
from spfde.experiments.files import read_scale
from spfde.experiments.resolve import expand
from spfde.plans import plan_settings
from spfde.results import reference, sources
from spfde.results.claims import Claim, Claims, read
from spfde.results.evidence import Evidence, decide_all
from spfde.results.hypotheses import conclude, judge
from spfde.results.hypotheses import make as bounds
from spfde.results.images import FILE
from spfde.results.statistics import UNKNOWN, Effect, exact, one_sample
from spfde.results.verdicts import tally, write
from spfde.settings import parse
from spfde.training.trust import seal
from tests.results.made import BASE, COST, make, ranged

PAPERS = {"SpFDE", "MEST", "SWAT", "GSE", "ITOP", "RigL", "Chase"}  # Chase's README quotes tables of others


def verdict(claim: Claim, *effects: Effect) -> str:
    tests = [claim.test_of()] * len(effects)
    return conclude([each.word for each in judge(tests, effects)])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([0.4, 0.5, 0.6], "reproduced"),  # 0.5 +- 0.169 (90 %)
        ([0.0, 0.5, 1.0], "undecided"),  # 0.5 +- 0.84
        ([2.0, 2.1, 2.2], "contradicted"),
        ([-3.0, -3.1, -3.0], "contradicted"),
        ([1.0, 1.1, 1.2], "undecided"),  # the bound lies inside its interval
        ([0.5], "not run"),  # one value has no interval
        ([], "not run"),
    ],
)
def test_a_range_is_decided_by_where_the_interval_lies(values: list[float], says: str) -> None:
    assert verdict(ranged(), one_sample(values)) == says


def test_the_margin_widens_the_range_and_an_open_bound_has_no_end() -> None:
    high = one_sample([2.0, 2.05, 2.1])
    assert verdict(ranged(), high) == "contradicted"
    assert verdict(ranged(margin=1.5), high) == "reproduced"
    assert verdict(ranged(expected={"low": 0, "standing": "F"}), high) == "reproduced"
    assert verdict(ranged(expected={"high": 0, "standing": "F"}), high) == "contradicted"


def test_better_than_claimed_is_no_contradiction() -> None:
    cheap, dear = exact(-1.0), exact(2.0)
    assert (verdict(ranged(), cheap), verdict(ranged(better="lower"), cheap)) == ("contradicted", "undecided")
    assert (verdict(ranged(), dear), verdict(ranged(better="higher"), dear)) == ("contradicted", "undecided")
    assert verdict(ranged(better="lower"), dear) == verdict(ranged(better="higher"), cheap) == "contradicted"


def test_all_comparisons_must_hold() -> None:
    good, noisy, bad = exact(0.5), one_sample([0.0, 0.5, 1.0]), exact(7.0)
    assert verdict(ranged(), good, good) == "reproduced"
    assert verdict(ranged(), good, noisy) == "undecided"
    assert verdict(ranged(), good, noisy, bad) == "contradicted"
    assert verdict(ranged(), good, bad, UNKNOWN) == "contradicted"
    assert verdict(ranged(), good, UNKNOWN) == "not run" and verdict(ranged()) == "not run"


def test_the_bounds_of_each_test() -> None:
    assert bounds("equivalence", 0.5)[:3] == (-0.5, 0.5, -0.5)
    assert bounds("superiority", smallest=0.68) == (0.0, float("inf"), 0.68, float("inf"))
    assert bounds("non-inferiority", 0.3, -0.21) == (-0.51, float("inf"), -0.51, float("inf"))
    assert bounds("magnitude", 0.5, 1.36, 4.24) == pytest.approx((0.86, 4.74, 0.86, float("inf")))
    assert bounds("range", low=1.0, high=2.0)[:2] == (1.0, 2.0)  # no margin unless one is given
    assert bounds("range", 0.03, 0.73, 0.73, better="lower") == pytest.approx((0.7, 0.76, float("-inf"), 0.76))


def test_the_smallest_effect_of_interest_is_half_the_published_one_or_a_fifth_of_a_point() -> None:
    assert make(expected={"low": 1.36, "standing": "F"}).smallest_of() == 0.68
    assert make(expected=None).smallest_of() == make(expected={"low": 0, "standing": "2nd"}).smallest_of() == 0.2
    assert make(smallest=0.5).smallest_of() == 0.5


@pytest.mark.parametrize(
    "changes",
    [
        {"comparisons": []},
        {"comparisons": [["one"]]},
        {"relation": "value"},
        {"expected": {"standing": "F"}},
        {"test": "range"},
        {"kind": "cost"},
        {"test": "magnitude"},
        {"test": "equivalence", "margin": 0.5},
        {"test": "non-inferiority", "control": ["mest-ems-s90", "static-s90"], "expected": {"low": 0, "standing": "F"}},
        {"by_construction": {"by": "luck", "reason": "?"}},
        {"expected": {"low": 2, "high": 1, "standing": "F"}},
        {"expected": {"low": 0, "standing": "sure"}},
        {"kind": "opinion"},
        {"margin": -1},
        {"standing": None},
        {"standing": None, "missing": "no row"},
        {"standing": "sure"},
        {"verdict": "reproduced"},
    ],
)
def test_a_claim_that_cannot_be_checked_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SpfdeError):
        make(**changes)
    with pytest.raises(SpfdeError):
        parse(Claims, {"claims": [BASE, BASE]})


def test_the_file_has_every_kind_and_names_rows_that_exist() -> None:
    claims = read().claims
    assert len(claims) >= 80
    assert {claim.kind for claim in claims} == {
        "accuracy", "analysis", "cost", "memory", "invariance", "acceleration",
    }  # fmt: skip
    known = {
        (claim.scale, claim.experiment): {run.row for run in expand(claim.scale, claim.experiment)} for claim in claims
    }
    for claim in claims:
        named = {row for comparison in claim.comparisons for row in comparison.rows} | set(claim.control)
        if claim.kind != "acceleration":
            assert named <= known[claim.scale, claim.experiment], claim.id
        if claim.kind == "accuracy":
            assert claim.metric == "accuracy.test_last" and claim.scale not in ("smoke", "digits")


def test_every_source_begins_with_the_paper_and_every_paper_has_claims() -> None:
    claims = read().claims
    assert {claim.source.split(",")[0] for claim in claims} == PAPERS
    named = " ".join(claim.id for claim in claims)
    for words in (
        *("flops-below-mest-98", "flops-vgg19", "no-slowdown-in-layer-25", "freezing-accelerates-at-each-level"),
        *("mest-ems-above-em-90", "mest-em-above-vanilla-90", "mest-data-efficient", "mest-block", "mest-pattern"),
        *("swat-flops", "swat-activation-memory", "swat-weight-memory", "swat-top-k-period", "swat-accuracy"),
        *("gse-linear-in-width", "gse-always-sparse", "gse-longer-training", "gse-uniform-suffices"),
        *("itop-above-dense", "itop-exploration-helps", "rigl-above-static"),
    ):
        assert words in named


def test_no_sentence_counts_as_found_that_was_not_read_in_its_source() -> None:
    """MEST's abstract does not compare its variants, ITOP was not read, and what Chase quotes has it as its source."""
    claims = {claim.id: claim for claim in read().claims}
    for name in ("mest-em-above-vanilla", "mest-ems-above-em"):
        assert {claims[f"{name}-{sparsity}"].stands for sparsity in (90, 95, 98)} == {"2nd"}
    assert not [claim.id for claim in claims.values() if claim.source.startswith("ITOP") and claim.stands == "F"]
    values = reference.read()
    shares = values[(values["artefact"] == "table3") & (values["quantity"] == "training_flops_vs_dense")]
    known = {(row.method, row.sparsity): (row.low, row.standing) for row in shares.itertuples()}
    for claim in (claims[f"imagenet-{name}"] for name in ("mest-80", "mest-90", "rigl-80", "rigl-90")):
        method, sparsity = "mest-em" if "mest" in claim.id else "rigl", int(claim.id[-2:]) / 100
        assert claim.expected and (claim.expected.low, claim.expected.standing) == known[method, sparsity]
    quoted = {name for name, claim in claims.items() if claim.source.startswith("Chase, README, quoting")}
    assert quoted == {"imagenet-mest-80", "imagenet-mest-90", "imagenet-rigl-90", "itop-imagenet"}
    assert claims["itop-imagenet"].stands == "D"  # differences of what is quoted
    assert not [claim.id for claim in claims.values() if "Sec." in claim.source]  # its numbers are not certain


def test_sign_and_magnitude_are_two_claims_each_with_its_own_numbers() -> None:
    claims = {claim.id: claim for claim in read().claims}
    sign, size = claims["gain-over-dst"], claims["gain-over-dst-size"]
    assert (sign.test, size.test) == ("superiority", "magnitude")
    said = {each.rows[1]: each.expected for each in sign.comparisons}
    assert [each and each.low for each in (said["set-s90"], said["deepr-s90"])] == [1.36, 4.24]
    assert claims["sieving-beats-one-shot-removal"].costs is not None
    compared = {each.rows[1] for each in claims["imagenet-above-mest"].comparisons}
    assert {"mest-em-s80", "set-s80", "dsr-s90", "rigl-s90", "rigl-itop-s80"} <= compared
    at_most = claims["imagenet-above-mest"].costs
    assert at_most is not None and at_most.relation == "at most"


def test_data_efficient_mest_is_compared_with_a_row_that_has_its_bounds_and_all_samples() -> None:
    claim = next(claim for claim in read().claims if claim.id == "mest-data-efficient-is-free")
    (comparison,) = claim.comparisons
    rows = {run.row: run for run in expand(claim.scale, claim.experiment, [1])}
    fewer, all_of_them = (plan_settings(rows[row]) for row in comparison.rows)
    named = {"method": "mest-ems", "options": {"preset": "scripts"}}  # the bounds that the other has by default
    assert fewer.settings.sparsity.model_copy(update=named) == all_of_them.settings.sparsity
    assert fewer.settings.training == all_of_them.settings.training and not all_of_them.settings.sieving.removed
    before = slice(0, 70)  # epochs; then 24 % of the samples go
    densities = [
        plan.trace().pivot(index="epoch", columns="layer", values="forward_density") for plan in (fewer, all_of_them)
    ]
    assert (densities[0] == densities[1]).all(axis=None)
    assert fewer.samples[before].tolist() == all_of_them.samples[before].tolist()
    costs = [plan.costs(plan.trace())[0]["paper"] for plan in (fewer, all_of_them)]
    assert costs[0] < costs[1] and claim.costs is not None and claim.costs.relation == "at most"
    assert claim.control[0] == comparison.rows[1]


def test_nothing_is_reproduced_by_construction_without_records(tmp_path: Path) -> None:
    """Without a record no measured claim has a verdict, and what holds by construction is counted apart."""
    verdicts = {entry["id"]: entry for entry in decide_all(read(), "digits", tmp_path)}
    for claim in read().claims:
        found = verdicts[claim.id]["verdict"]
        if claim.by_construction:
            assert found == "by construction", claim.id  # each of them holds in the plans of its scale
            assert claim.by_construction.reason in verdicts[claim.id]["evidence"]["reason"]
        elif claim.kind in ("accuracy", "analysis", "acceleration") or claim.missing:
            assert found == "not run", claim.id
    assert {name for name, entry in verdicts.items() if entry["verdict"] == "reproduced"} == {"overhead-in-operations"}
    assert verdicts["swat-is-memory-efficient"]["verdict"] == "contradicted"  # by our own ledger
    found = tally(list(verdicts.values()))
    assert (found.tested, found.false, found.decided) == (0, 0, 1 + found.counts["contradicted"])
    assert "no false ones are to be expected" in found.sentences[1]
    for entry in verdicts.values():
        if entry["kind"] == "accuracy" and not entry["evidence"]["reason"].startswith(("no row", "there are no rows")):
            assert entry["evidence"]["power"]["at_n"] is not None, entry["id"]


def test_no_record_changes_what_holds_by_construction(
    fakes: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Records in which frozen masks move, the partial set changes, the target is missed and every number is absurd."""
    named = [claim for claim in read().claims if claim.by_construction and claim.scale == "cifar100"]
    checked = [claim for claim in named if claim.kind == "invariance"]
    computed = [next(claim for claim in named if claim.kind == kind) for kind in ("cost", "memory")]
    claims = Claims(claims=checked + computed)
    before = [(entry["id"], entry["verdict"]) for entry in decide_all(claims, "smoke", tmp_path)]
    for scale in ("smoke", "cifar100"):
        for seed in (1, 2, 3):
            run = fakes.settings(scale, "spfde", 0.9, 0.2, seed)
            folder = fakes.write_record(run, tmp_path / scale / "runs", last=0.1)
            trace, epochs = pd.read_csv(folder / "layers.csv"), pd.read_csv(folder / "epochs.csv")
            trace["forward_density"] = trace["epoch"] / 200
            epochs["samples"] = trace.groupby("epoch")["samples"].first() + epochs["epoch"]
            trace["samples"] += trace["epoch"]
            trace.to_csv(folder / "layers.csv", index=False)
            epochs.to_csv(folder / "epochs.csv", index=False)
            summary = json.loads((folder / "summary.json").read_text())
            summary["sparsity"]["achieved"] = 0.1
            summary["flops"] = dict.fromkeys(summary["flops"], 1.0)
            summary["memory"] = dict.fromkeys(summary["memory"], 1.0)
            seal(folder, summary)
    after = decide_all(claims, "smoke", tmp_path)
    assert [(entry["id"], entry["verdict"]) for entry in after] == before
    assert {verdict for _, verdict in before} == {"by construction"}
    said, warned = {entry["id"]: entry["evidence"]["reason"] for entry in after}, capsys.readouterr().err
    for name in ("frozen-layers-stay", "partial-set-is-constant", "final-sparsity-is-the-target"):
        assert "records violate it" in said[name]  # a fault of the code that made them, and it is said
        assert f"records violate what holds by construction: {name}" in warned


def test_what_is_declared_by_construction_must_hold_in_the_plan(tmp_path: Path) -> None:
    because = {"by": "definition", "reason": "so it is counted"}
    wrong = make(
        **COST, comparisons=[["dense"]], expected={"low": 1, "high": 2, "standing": "F"}, by_construction=because
    )
    found = Evidence("smoke", tmp_path).decide(wrong)
    assert found["verdict"] == "undecided" and "but the plan says otherwise" in found["evidence"]["reason"]


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


def test_accuracy_is_decided_by_records_of_the_papers_scale(fakes: SimpleNamespace, tmp_path: Path) -> None:
    records(fakes, tmp_path, "cifar100", [71.0, 71.2, 71.4], [69.8, 70.0, 70.2])
    for scale in ("cifar100", "smoke"):  # real records decide, whatever scale the report is of
        found = Evidence(scale, tmp_path).decide(make())
        assert found["verdict"] == "reproduced"
        assert (found["evidence"]["n"], found["evidence"]["effect"]) == (3, pytest.approx(1.2))


@pytest.mark.parametrize("scale", ["smoke", "digits"])
def test_digits_never_decide_an_accuracy(
    fakes: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str], scale: str
) -> None:
    records(fakes, tmp_path, "smoke", [97.0, 97.1, 97.2], [96.5, 96.6, 96.7])
    found = Evidence("smoke", tmp_path, read()).decide(make())
    assert (
        found["verdict"] == "not run"
        and found["evidence"]["effect"] is None
        and found["reduced"]["verdict"] == "not run"
    )
    machinery = found["evidence"]["machinery"]
    assert machinery["decides"] is False and machinery["comparisons"][0]["n"] == 3
    assert machinery["comparisons"][0]["verdict"] is None
    asked = Evidence(scale, tmp_path).decide(make(scale=scale))  # not even where a claim asks for it
    assert asked["verdict"] == "not run"
    elsewhere = make(scale="imagenet", experiment="table3", comparisons=[["spfde-s90-f20-d20", "mest-em-s90"]])
    Evidence("smoke", tmp_path).decide(elsewhere)  # has no rows at this scale, and no complaint about their settings
    assert not capsys.readouterr().err


def test_records_that_others_made_are_merged(fakes: SimpleNamespace, tmp_path: Path) -> None:
    """Ours have seeds 1 to 3, theirs 3 to 5 on another machine: seed 3 counts once, as ours, and nothing is offset."""
    records(fakes, tmp_path / "ours", "cifar100", [71.0, 71.2, 71.4], [69.8, 70.0, 70.2])
    records(fakes, tmp_path / "theirs", "cifar100", [0, 0, 93.2, 93.0, 93.4], [0, 0, 92.2, 92.0, 92.1])
    theirs = tmp_path / "theirs" / "cifar100" / "runs"
    for folder in theirs.iterdir():
        summary = json.loads((folder / "summary.json").read_text())
        summary["environment"]["device"] = "cuda: other"
        seal(folder, summary)
        if "seed1" in folder.name or "seed2" in folder.name:
            (folder / "summary.json").unlink()
    for where in (tmp_path / "theirs", theirs):  # a results folder, or the folder of the records
        found = Evidence("cifar100", tmp_path / "ours", others=[where]).decide(make())
        assert found["verdict"] == "reproduced" and found["evidence"]["n"] == 5
        assert found["evidence"]["hardware"] == {"cpu": 6, "cuda: other": 4}
        inner = (1.2 * 3 * 3 / 6 + 1.15 * 2 * 2 / 4) / (3 * 3 / 6 + 2 * 2 / 4)
        assert found["evidence"]["effect"] == pytest.approx(inner)
    with pytest.raises(SpfdeError, match="no folder"):
        Evidence("cifar100", tmp_path / "ours", others=[tmp_path / "nowhere"]).decide(make())


def test_records_of_another_protocol_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    protocol = read_scale("cifar100-short").protocol
    told = {1: protocol, 2: "another", 3: None}
    frame = pd.DataFrame(
        [{"row": "dense", "seed": seed, "run_id": f"run{seed}", "protocol": it} for seed, it in told.items()]
    )
    monkeypatch.setattr(sources, "load", lambda scale, results, digests: frame)
    assert sources.Sources("digits", Path("nowhere")).runs("cifar100-short")["run_id"].tolist() == ["run1"]
    assert "2 records follow another protocol, e.g. run2; left out" in capsys.readouterr().err
    assert len(sources.Sources("digits", Path("nowhere")).runs("cifar100", "table2")) == 3  # which has none


def test_intervals_for_new_images_where_records_keep_predictions(fakes: SimpleNamespace, tmp_path: Path) -> None:
    """Wider than for this test set: 40 images say little of others."""
    records(fakes, tmp_path, "cifar100", [75.0, 77.5, 80.0], [60.0, 62.5, 65.0])
    decided = Evidence("cifar100", tmp_path).decide(make())["evidence"]["comparisons"][0]
    assert decided["new_images"] is None
    for folder in (tmp_path / "cifar100/runs").iterdir():
        summary = json.loads((folder / "summary.json").read_text())
        right = np.arange(40) < 0.4 * summary["accuracy"]["test_last"]
        save_file({"correct": right.astype(np.uint8)}, folder / FILE)
        seal(folder, summary)
    found = Evidence("cifar100", tmp_path).decide(make())["evidence"]["comparisons"][0]
    low, high = found["new_images"]
    assert (low + high) / 2 == pytest.approx(15.0) and found["interval"] == decided["interval"]
    assert low < found["interval"][0] and high > found["interval"][1]


def test_the_files_hold_every_claim(tmp_path: Path) -> None:
    bench = {"kind": "acceleration", "test": "range", "metric": "freezing", "relation": "value", "comparisons": []}
    claims = [make(), make(id="other", **bench, expected={"low": 1, "standing": "F"}), read().claims[0]]
    claims.append(next(claim for claim in read().claims if claim.id == "flops-dense"))
    verdicts = [Evidence("smoke", tmp_path, read()).decide(claim) for claim in claims]
    paths = write(verdicts, "smoke", tmp_path / "smoke")
    written = json.loads(paths[0].read_text())
    assert [entry["id"] for entry in written] == ["some-claim", "other", "similar-accuracy-20-20", "flops-dense"]
    assert all(
        {"id", "claim", "verdict", "evidence", "reduced", "by_construction"} <= entry.keys() for entry in written
    )
    for path in paths[1:]:
        text = path.read_text()
        assert "4 claims: 0 decided, 0 undecided, 1 by construction, 3 not run" in text
        assert "It is better." in text and "no false ones are to be expected" in text
    assert "27†" in paths[1].read_text()  # seeds that the claim needs at the spread of the published table


def test_the_tally_counts_decided_constructed_and_false_ones_apart() -> None:
    def entry(verdict: str, rate: float = 0.05, reduced: str = "") -> dict[str, Any]:
        own = {"verdict": reduced, "error_rate": 0.04} if reduced else None
        return {"verdict": verdict, "evidence": {"error_rate": rate}, "reduced": own}

    verdicts = [entry("reproduced", reduced="supported")] * 6 + [entry("contradicted", 0.0), entry("undecided")]
    verdicts += [entry("by construction", 0.0)] * 3 + [entry("not run", reduced="undecided (interim)")] * 2
    found = tally(verdicts)
    assert (found.decided, found.tested, found.false) == (7, 7, pytest.approx(0.35))
    assert (found.reduced_tested, found.reduced_false) == (6, pytest.approx(0.24))
    said = found.sentences
    assert said[0] == (
        "13 claims: 7 decided (6 reproduced, 1 contradicted), 1 undecided, 3 by construction, 2 not run."
    )
    assert said[1].startswith("7 verdicts rest on measurements that vary by chance; at most 0.35 false ones")
    assert "decides nothing of the paper: 6 supported, 2 undecided (interim); at most 0.24 false ones" in said[2]
