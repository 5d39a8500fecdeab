"""Shorter runs of an experiment, tiers of a scale, and the comparators of the training budget."""

import hashlib
from pathlib import Path

import pytest

from spfde.errors import SpfdeError
from spfde.experiments.files import protocol_of, read_scale
from spfde.experiments.resolve import expand
from spfde.plans import describe, plan_settings

SCALE = """
settings: {data: {name: digits}, model: {name: resnet8}, training: {epochs: 20}, sparsity: {interval: 2}}
seeds: [1, 2]
sparsities: [0.9]
"""
SHORT = "experiments: {around: {settings: {training.epochs: 6}, seeds: [3]}, mest: {methods: {dense: {seeds: [1]}}}}\n"
TIERS = """
tiers:
  - {name: A, rows: [around/dense, around/set-s90], seeds: [1]}
  - {name: B, rows: [around/dense], seeds: [2, 1]}
"""


@pytest.fixture
def scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def write(text: str) -> None:
        (tmp_path / "config/scales").mkdir(parents=True, exist_ok=True)
        (tmp_path / "config/scales/mine.yaml").write_text(SCALE + text)

    monkeypatch.chdir(tmp_path)
    return write


def test_an_experiment_can_have_shorter_runs_than_its_scale(scale) -> None:
    scale(SHORT)
    assert {(run.training.epochs, run.seed) for run in expand("mine", "around")} == {(6, 3)}
    assert {run.training.epochs for run in expand("mine", "mest")} == {20}


def test_a_limit_on_a_method_keeps_the_settings_of_its_experiment(scale) -> None:
    limits = "{settings: {training.epochs: 6}, methods: {dense: {seeds: [1]}, set: {settings: {training.epochs: 8}}}}"
    scale(f"experiments: {{around: {limits}}}\n")
    epochs = {run.sparsity.method: run.training.epochs for run in expand("mine", "around")}
    assert epochs == {"dense": 6, "set": 8, "rigl": 6}


def test_an_experiment_can_have_another_sparsity_than_its_rows_name(scale) -> None:
    scale("experiments: {tableA10: {instead: {0.9: 0.8}, levels: [0.2]}}\n")
    assert {run.sparsity.target for run in expand("mine", "tableA10")} == {0.6, 0.8}
    assert {run.row for run in expand("mine", "tableA10")} >= {"spfde-s80", "spfde-s80-f20", "spfde-s60"}
    assert 0.8 not in {run.sparsity.target for run in expand("mine", "table2")}


def test_tiers_name_the_rows_and_seeds_of_a_scale(scale) -> None:
    scale(TIERS)
    found = [(run.row, run.seed) for run in expand("mine", "around")]
    assert found == [("dense", 1), ("dense", 2), ("set-s90", 1)]
    assert not expand("mine", "mest")
    # A seed that is asked for, e.g. of a pilot, takes the place of the tiers' seeds in their rows alone.
    assert [(run.row, run.seed) for run in expand("mine", "around", [101])] == [("dense", 101), ("set-s90", 101)]


COMPARATORS = {
    "cifar100-short": {
        "spfde-s80-f25-d25": "spfde-s80-e18",
        "spfde-s80-f20-d20": "spfde-s80-e21",
        "spfde-s80-f25-d25-t16": "spfde-s80-t16short",
        "spfde-s80-f25-d25-t64": "spfde-s80-t64short",
        "spfde-s80-f25-d25-wide": "spfde-s80-wide18",
        "spfde-s80-d20": "spfde-s80-d37.6-once",
    },
    "digits": {
        "spfde-s95-f25-d25": "spfde-s95-e33",
        "spfde-s95-f20-d20": "spfde-s95-e38",
        "spfde-s95-f15-d15": "spfde-s95-e43",
        "spfde-s95-f10-d10": "spfde-s95-e48",
    },
}


@pytest.mark.parametrize("scale", COMPARATORS)
def test_comparators_of_the_training_budget_never_have_fewer_flops(scale: str) -> None:
    """The next number of epochs above SpFDE's FLOPs, and not the one after that."""
    at = read_scale(scale)
    runs = {run.row: run for run in reversed(expand(scale, "budget"))}

    def flops(row: str, epochs: int = 0) -> float:
        run = runs[row]
        training = run.training.model_copy(update={"epochs": epochs or run.training.epochs})
        return float(describe(plan_settings(run.model_copy(update={"training": training})))["flops"]["paper"])

    for row, comparator in COMPARATORS[scale].items():
        assert not at.tiers or any(f"budget/{row}" in tier.rows for tier in at.tiers), row
        assert flops(row) <= flops(comparator), row
        if comparator != "spfde-s80-d37.6-once":
            assert flops(comparator, runs[comparator].training.epochs - 1) < flops(row), row
    if scale == "cifar100-short":
        assert flops("spfde-s80-d37.6-once") == pytest.approx(flops("spfde-s80-d20"), rel=0.002)


def test_a_run_that_several_experiments_show_is_one_run() -> None:
    """Tiers name its row under each of them, with the same seeds, and nothing is trained twice."""
    tiers = read_scale("cifar100-short").tiers
    experiments = {name.split("/")[0] for tier in tiers for name in tier.rows}
    found: dict[str, dict[str, set[str]]] = {}
    for experiment in experiments:
        for run in expand("cifar100-short", experiment):
            found.setdefault(run.row, {}).setdefault(experiment, set()).add(run.run_id)
    shared = {row: runs for row, runs in found.items() if len(runs) > 1}
    assert {"spfde-s80", "spfde-s80-f20-d20", "spfde-s80-f25-d25", "mest-ems-s80"} <= set(shared)
    for row, runs in shared.items():
        assert len(set(map(frozenset, runs.values()))) == 1, row
    assert {"table2", "budget", "tableA10"} == set(shared["spfde-s80"])


def test_the_scale_names_the_protocol_that_is_written() -> None:
    """Records carry this digest, so a changed page is another protocol."""
    page = Path(__file__).parents[2] / "docs/protocol.md"
    assert protocol_of("cifar100-short") == hashlib.sha256(page.read_bytes()).hexdigest()[:16]
    assert protocol_of("digits") is None and protocol_of("custom") is None


def test_rigl_keeps_its_steps_at_the_reduced_scale() -> None:
    (run,) = {
        run.row_digest: run for run in expand("cifar100-short", "table2") if run.sparsity.method == "rigl"
    }.values()
    plan = plan_settings(run)
    updates = sum(plan.method.mask_updates(epoch, range(782 * epoch, 782 * (epoch + 1))) for epoch in range(32))
    assert updates == pytest.approx(0.75 * 32 * 782 / 101, abs=1)  # each update takes the place of a step


def test_a_sparsity_that_the_scale_does_not_have_is_refused(scale) -> None:
    scale("experiments: {around: {at: {0.5: {seeds: [1]}}}}\n")
    with pytest.raises(SpfdeError, match=r"limits around at sparsity 0\.5"):
        expand("mine", "around")
