"""The notebooks run top to bottom on results, are committed without outputs, and render to pages that load nothing."""

import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from spfde.cli.plan import plans
from spfde.data import load
from spfde.errors import SpfdeError
from spfde.experiments import select
from spfde.results import load as load_runs
from spfde.results.notebooks import render
from spfde.training.loop import train

ROWS = ["dense", "mest-ems-s90", "spfde-s90-f20-d20"]
NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, fakes: SimpleNamespace) -> Path:
    """A few rows of the smoke scale's Table 2, trained here, and a fake published record of the paper's scale."""
    folder = tmp_path_factory.mktemp("results")
    plans(["table2", "figure4"], "smoke", folder / "smoke/plans")
    runs = select("smoke", ["table2"], ROWS, [1])
    splits = load(runs[0].data, None, None)
    for run in runs:
        train(run, splits, folder / "smoke/runs")
    fakes.write_record(fakes.settings("cifar100", "dense"), folder / "published/cifar100", published=True)
    return folder


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["cost", "freezing_sieving", "results"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_clean(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_and_renders(path: Path, results: Path) -> None:
    page = render(path.stem, "smoke", results, path.parent).read_text()
    assert "scale smoke: 3 runs of 3 rows" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(""", page)
    assert page.count('class="output_area"') >= 6
    assert "data:image/svg+xml" in page
    runs = load_runs("smoke", results).set_index("row")
    if path.stem == "freezing_sieving":
        assert f"{runs.loc['spfde-s90-f20-d20', 'accuracy.test_last']:.4g}" in page
        assert "freezing alone, sieving alone: not run" in page
    if path.stem == "results":
        assert all(f"{accuracy:.4g}" in page for accuracy in runs["accuracy.test_last"])
        assert "not run" in page  # the other rows of the table
        assert "cifar100" in page and "no full-scale run is published yet</pre>" not in page


def test_what_fails_is_said(tmp_path: Path, results: Path) -> None:
    with pytest.raises(SpfdeError, match='did you mean "cost"'):
        render("costs", "smoke", results, NOTEBOOKS[0].parent)
    broken = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    nbformat.write(broken, tmp_path / "broken.ipynb")
    with pytest.raises(SpfdeError, match="the notebook broken failed: ZeroDivisionError"):
        render("broken", "smoke", results, tmp_path)
    assert not (results / "smoke/notebooks/broken.html").exists()
