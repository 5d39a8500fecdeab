"""The runs that the options of a command line name."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from spfde.errors import SpfdeError

if TYPE_CHECKING:
    from spfde.settings import RunSettings


def selected(
    settings: Path | None,
    scale: str,
    experiments: list[str] | None,
    rows: list[str] | None,
    assignments: list[str] | None,
    seeds: list[int] | None,
) -> "list[RunSettings]":
    """Runs of a settings file, rows of experiments, or the one run that the settings describe."""
    from spfde.experiments.resolve import parse_assignments, select
    from spfde.experiments.stored import read_settings

    if rows and not experiments:
        cause = f"--row {rows[0]} is a row of an experiment, and no experiment is named"
        raise SpfdeError(cause, "add --experiment NAME")
    told = with_one_seed(parse_assignments(assignments or []), seeds)
    if settings is None:
        return select(scale, experiments or [], rows or [], seeds or [], told)
    if experiments or rows:
        raise SpfdeError("--settings describes one run, and an experiment is named too", "leave one of them out")
    return read_settings(settings, seeds or [], told)


def with_one_seed(told: dict[str, Any], seeds: list[int] | None) -> dict[str, Any]:
    """The assignments, unless they and --seed both give the root seed.

    Raises:
        SpfdeError: they do.
    """
    if seeds and "seed" in told:
        cause = f"--seed {seeds[0]} and --set seed={told['seed']} both give the root seed"
        raise SpfdeError(cause, "leave one of them out; --seed can be repeated")
    return told
