"""Names of rows, and where the controls of data sieving stand."""

from typing import Any

import pytest

from spfde.experiments.files import experiment_names
from spfde.experiments.resolve import expand
from spfde.results.labels import is_control, with_controls_beside


def planned(row: str, freezing: float = 0.0, sieving: float = 0.0, method: str = "spfde") -> dict[str, Any]:
    title = {"spfde": "SpFDE", "static": "Static random"}[method]
    shares = {"sparsity": 0.9, "freezing": freezing, "sieving": sieving}
    return {"row": row, "method": method, "title": title, **shares}


BASE = planned("spfde-s90")
TWENTY, CONTROL = planned("spfde-s90-d20", sieving=0.2), planned("spfde-s90-d20-random", sieving=0.2)
ONCE, OF_ONCE = planned("spfde-s90-d20-once", sieving=0.2), planned("spfde-s90-d20-once.random", sieving=0.2)
FREEZING = planned("spfde-s90-f20-random", freezing=0.2)  # blocks that freeze at random epochs


def test_a_control_stands_right_after_the_row_that_it_is_of() -> None:
    rows = [BASE, TWENTY, ONCE, FREEZING, CONTROL, OF_ONCE]
    assert with_controls_beside(rows) == [BASE, TWENTY, CONTROL, ONCE, OF_ONCE, FREEZING]
    assert with_controls_beside([BASE, CONTROL]) == [BASE, CONTROL]  # its row is not there


def test_only_a_random_choice_of_samples_is_a_control_of_sieving() -> None:
    found = [is_control(row) for row in (BASE, TWENTY, CONTROL, ONCE, OF_ONCE, FREEZING)]
    assert found == [False, False, True, False, True, False]


@pytest.mark.parametrize("scale", ["cifar100", "cifar10", "imagenet"])
def test_every_sieving_row_of_the_tables_has_a_random_one_beside_it(scale: str) -> None:
    """Except the readings of the method in `deviations`, which are compared among themselves, and where the setting
    only orders the choice (easy)."""
    names = {"imagenet": ["table3"]}.get(scale, sorted(set(experiment_names()) - {"budget", "figure4", "table3"}))
    for experiment in names:
        rows = {run.row: run for run in expand(scale, experiment, [1])}
        chosen = [
            (name, run.tag)
            for name, run in rows.items()
            if run.sieving.removed and run.sieving.criterion != "random" and run.sparsity.method.startswith("spfde")
        ]
        for name, tag in chosen:
            if tag != "easy" and (not tag or experiment != "deviations"):
                assert f"{name}-random" in rows or f"{name}.random" in rows, (experiment, name)
