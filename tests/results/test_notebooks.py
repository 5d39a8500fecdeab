"""The notebooks run top to bottom on results, are committed without outputs, and render to pages that load nothing."""

import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from spfde.errors import SpfdeError
from spfde.results.notebooks import render

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, fakes: SimpleNamespace) -> Path:
    """Fake records of a few rows of Table 2, and a published one of the paper's scale."""
    folder = tmp_path_factory.mktemp("results")
    runs = [run for run in fakes.rows("smoke") if run.sparsity.target in (0.0, 0.9)]
    for experiment in ("table2", "figure4"):
        fakes.write_plan(folder, "smoke", runs, experiment)
    for run in runs:
        for seed in (1, 2):
            fakes.write_record(run.model_copy(update={"seed": seed}), folder / "smoke/runs")
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
    assert "scale smoke: 20 runs of 10 rows" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(""", page)
    assert page.count('class="output_area"') >= 6
    assert "data:image/svg+xml" in page
    if path.stem == "results":
        assert "cifar100" in page and "no full-scale run is published yet</pre>" not in page


def test_what_fails_is_said(tmp_path: Path, results: Path) -> None:
    with pytest.raises(SpfdeError, match='did you mean "cost"'):
        render("costs", "smoke", results, NOTEBOOKS[0].parent)
    broken = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    nbformat.write(broken, tmp_path / "broken.ipynb")
    with pytest.raises(SpfdeError, match="the notebook broken failed: ZeroDivisionError"):
        render("broken", "smoke", results, tmp_path)
    assert not (results / "smoke/notebooks/broken.html").exists()
