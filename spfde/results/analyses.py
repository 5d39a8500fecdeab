"""Where the analyses of snapshots are.

`spfde analyse` writes results/<scale>/analysis/<experiment>.<kind>.csv. Published records have no snapshots to analyse,
so their analyses are published with them, in results/published/<scale>/analysis/.
"""

from pathlib import Path

from spfde.files import read_csv


def analysis_path(name: str, scale: str, results: Path) -> Path:
    """The file of an analysis: the fresh one if there is one, else the published one.

    A fresh analysis of only a part of the runs does not replace a published one of more runs. If there is neither, the
    path is that of the fresh one.

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
    """The ids of the runs that an analysis covers."""
    frame = read_csv(path, "analysis", "remove it and make it again", usecols=["run_id"], dtype="str")
    return frozenset(frame["run_id"])
