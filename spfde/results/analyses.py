"""Where the analyses of snapshots lie: results/<scale>/analysis/<experiment>.<kind>.csv, as `spfde analyse` writes
them, and results/published/<scale>/analysis/, which go with published records: those have no snapshots to analyse.
"""

from pathlib import Path

from spfde.files import read_csv


def analysis_path(name: str, scale: str, results: Path) -> Path:
    """The file of an analysis: the fresh one where it is there, else the published one.

    A fresh one of a part of the runs that the published one is of does not hide it. Where there is neither, the path is
    that of the fresh one.

    Args:
        name: the experiment's and the kind's, e.g. figure1.cka.
        scale: whose runs were analysed.
        results: the folder of all results.
    """
    fresh = results / scale / "analysis" / f"{name}.csv"
    published = results / "published" / scale / "analysis" / f"{name}.csv"
    if not published.is_file():
        return fresh
    return published if not fresh.is_file() or analysed_runs(fresh) < analysed_runs(published) else fresh


def analysed_runs(path: Path) -> frozenset[str]:
    """The ids of the runs that an analysis is of."""
    frame = read_csv(path, "analysis", "remove it and make it again", usecols=["run_id"], dtype="str")
    return frozenset(frame["run_id"])
