"""What is there of a scale's results, whoever made it: claims read it of every scale, and nobody is asked for it."""

from pathlib import Path

from spfde.results.analyses import analysis_path
from spfde.training.trust import SUMMARY, is_whole


def records_there(scale: str, results: Path) -> list[str]:
    """The summaries of a scale's whole records, each run's fresh one before its published one.

    Only summaries are read: digests are compared where the records are used (`spfde.results.collect.record_folders`).

    Args:
        scale: its name.
        results: the folder of all results.
    """
    found: dict[str, str] = {}
    for parent in (results / scale / "runs", results / "published" / scale):
        for path in sorted(parent.glob(f"*/{SUMMARY}")):
            if path.parent.name not in found and is_whole(path.parent):
                found[path.parent.name] = str(path)
    return list(found.values())


def results_there(scale: str, results: Path) -> list[str]:
    """The summaries of a scale's whole records, and the account of their costs where there is one.

    Args:
        scale: its name.
        results: the folder of all results.
    """
    costs = results / scale / "costs.csv"
    return [*records_there(scale, results), *([str(costs)] if costs.is_file() else [])]


def analyses_there(names: list[str], scale: str, results: Path) -> list[str]:
    """The files of these analyses of a scale's snapshots that are there, fresh or published.

    Args:
        names: of analyses, each its experiment's and its kind's.
        scale: whose runs were analysed.
        results: the folder of all results.
    """
    paths = [analysis_path(name, scale, results) for name in names]
    return [str(path) for path in paths if path.is_file()]


def published_scales(results: Path) -> list[str]:
    """The scales of which anything is published."""
    return sorted(path.name for path in (results / "published").glob("*") if path.is_dir())
