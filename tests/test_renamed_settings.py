"""Settings under the names that they had before: they keep working, with a warning, and mean the same run."""

import warnings
from pathlib import Path
from typing import ClassVar

import pytest

from spfde import settings_for
from spfde.errors import SpfdeError
from spfde.experiments.resolve import resolve
from spfde.experiments.stored import read_settings
from spfde.methods import METHODS
from spfde.settings import SCHEMA, RunSettings, Section, SettingRenamed, parse

FORMER = [
    ("set", "zeta", "drop_fraction", 0.4),
    ("rigl", "alpha", "drop_fraction", 0.4),
    ("rigl", "interval", "interval_steps", 50),
    ("mest", "share", "drop_fraction", 0.4),
    ("dsr", "share", "drop_fraction", 0.4),
    ("lottery", "share", "drop_fraction", 0.4),
    ("gse-uniform", "alpha", "drop_fraction", 0.4),
    ("gse-grabo", "interval", "interval_steps", 50),
    ("set-itop", "first", "drop_fraction", 0.4),
    ("rigl-itop", "last", "final_drop_fraction", 0.1),
    ("rigl-itop", "interval", "interval_steps", 50),
    ("swat-u", "period", "interval_steps", 20),
]


@pytest.mark.parametrize(("method", "former", "present", "value"), FORMER)
def test_a_former_name_gives_the_same_run_and_a_warning(
    method: str, former: str, present: str, value: float, tmp_path: Path
) -> None:
    message = f"setting sparsity.options.{former} is called sparsity.options.{present} now; rename it"
    with pytest.warns(SettingRenamed, match=message):
        old = resolve("smoke", {"sparsity.method": method, f"sparsity.options.{former}": value})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new = resolve("smoke", {"sparsity.method": method, f"sparsity.options.{present}": value})
    assert old == new and old.run_id == new.run_id and old.sparsity.options == {present: value}
    path = tmp_path / "settings.yaml"
    path.write_text(f"sparsity: {{method: {method}, options: {{{former}: {value}}}}}\n", encoding="utf-8")
    with pytest.warns(SettingRenamed, match=former):
        assert read_settings(path)[0].sparsity.options == {present: value}


def test_every_former_name_stands_for_a_setting_that_there_is() -> None:
    for name, method in METHODS.items():
        assert set(method.Options.renamed.values()) <= set(method.Options.model_fields), name
        assert not set(method.Options.renamed) & set(method.Options.model_fields), name


def test_both_names_at_once_are_refused() -> None:
    with pytest.raises(SpfdeError, match=r"is given twice, also under its former name sparsity.options.zeta; keep"):
        settings_for("set", epochs=10, batch_size=8, options={"zeta": 0.3, "drop_fraction": 0.3})


def test_sections_inside_sections_know_their_former_names() -> None:
    class Inner(Section):
        renamed: ClassVar[dict[str, str]] = {"old": "new"}
        new: int = 1

    class Outer(Section):
        renamed: ClassVar[dict[str, str]] = {"within": "inner"}
        inner: Inner = Inner()

    with pytest.warns(SettingRenamed) as caught:
        assert parse(Outer, {"within": {"old": 3}}, "here").inner.new == 3
    assert [str(one.message).split(" now")[0] for one in caught] == [
        "setting here.within is called here.inner",
        "setting here.inner.old is called here.inner.new",
    ]
    with pytest.raises(SpfdeError, match=r'unknown setting "inner.olde"; did you mean "new"|use one of new'):
        parse(Outer, {"inner": {"olde": 3}})


def test_equal_settings_have_the_run_id_of_their_schema() -> None:
    """A run id of this schema; whoever changes what the settings mean raises the number and this line with it."""
    assert SCHEMA == 2
    assert RunSettings().digest == "5dfac908"
