"""Costs that no plan knows: of methods whose layer densities depend on weights and data."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from spfde.cli import app
from spfde.data import load
from spfde.experiments.resolve import expand, resolve
from spfde.methods import METHODS
from spfde.plans import describe, plan_settings
from spfde.results.claims import read as read_claims
from spfde.results.evidence import Evidence
from spfde.training.clock import Clock
from spfde.training.run import Training

UNKNOWN = {"lottery", "snip", "grasp", "dsr", "swat-m", "gse-uniform", "gse-grabo", "gse-graest"}


def test_their_costs_are_null_and_all_others_are_numbers() -> None:
    for name in METHODS:
        found = describe(plan_settings(resolve("smoke", {"sparsity.method": name, "training.epochs": 10})))
        values = [*found["flops"].values(), *found["memory"].values()]
        assert len(values) == 7
        assert all((value is None) == (name in UNKNOWN) for value in values), name
    moving = {"sparsity.method": "deepr", "sparsity.options": {"scope": "global"}}
    assert describe(plan_settings(resolve("smoke", moving)))["flops"]["paper"] is None


def test_a_mask_of_snip_costs_other_than_a_uniform_one() -> None:
    """Why no plan says it: what a uniform plan would count is not what the mask that SNIP finds costs."""
    settings = resolve("smoke", {"sparsity.method": "snip", "sparsity.target": 0.9, "data.train_limit": 128})
    run = Training(settings, load(settings.data, None, None), torch.device("cpu"), Clock())
    run.sparse.begin_epoch(0)
    macs = np.array([layer.macs for layer in run.sparse.plan.profile.layers], dtype=float)
    density = {layer.name: float(layer.mask.mean()) for layer in run.sparse.masks}
    real = np.array([density.get(layer.name, 1.0) for layer in run.sparse.plan.profile.layers])
    assert abs(real @ macs / (run.sparse.plan.forward[0] @ macs) - 1) > 0.1


def test_spfde_plan_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    app(["plan", "--scale", "smoke", "--set", "sparsity.method=snip"], standalone_mode=False)
    assert "snip-s90                         costs depend on the mask; a record has them\n" in capsys.readouterr().out
    app(["plan", "--scale", "smoke", "--set", "sparsity.method=snip", "--json"], standalone_mode=False)
    (row,) = json.loads(capsys.readouterr().out)
    assert row["flops"] == dict.fromkeys(["paper", "full", "executed", "extra"])


def test_no_verdict_rests_on_one(tmp_path: Path) -> None:
    """But on the bytes of all weights or gradients together: their number is the target's, whatever the mask is."""
    evidence = Evidence("smoke", tmp_path)
    seen = 0
    for claim in read_claims().claims:
        if claim.kind in ("cost", "memory") and ".breakdown." not in claim.metric and claim.comparisons:
            rows = {run.row: run.sparsity.method for run in expand(claim.scale, claim.experiment)}
            named = {rows.get(row) for pair in claim.comparisons for row in pair.rows}
            if named & UNKNOWN:
                assert evidence.decide(claim)["verdict"] == "not run", claim.id
                seen += 1
    assert seen


def test_a_table_says_what_it_does_not_know() -> None:
    from spfde.plans import describe_rows
    from spfde.results.collect import collect
    from spfde.results.material import Material, comparable
    from spfde.results.tables import costs

    plan = describe_rows(expand("smoke", "table2", [1]))
    table = costs.table("table2", "Table 2", Material("smoke", collect([]), plan, comparable("smoke")))
    titles = [column.title for column in table.columns]
    for cells, row in zip(table.cells, plan, strict=True):
        unknown = [title for title, cell in zip(titles, cells, strict=True) if cell == "depends on the mask"]
        if row["method"] in UNKNOWN:
            assert unknown == ["paper", "full", "executed", "paper, min", "paper, avg", "full, peak"]
        else:
            assert not unknown
