"""The notebooks run top to bottom on results, are committed without outputs, and render to pages that load nothing."""

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from spfde.cli.plan import plans
from spfde.data import load
from spfde.errors import SpfdeError
from spfde.experiments.resolve import select
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


def render_at_once(notebooks: Iterable[Path], results: Path) -> dict[str, str]:
    """The pages of notebooks whose kernels start together, in one working directory."""
    notebooks = list(notebooks)
    with ThreadPoolExecutor(len(notebooks)) as pool:
        pages = pool.map(lambda path: render(path.stem, "smoke", results, path.parent).read_text(), notebooks)
        return {path.stem: page for path, page in zip(notebooks, pages, strict=True)}


@pytest.fixture(scope="module")
def pages(results: Path) -> dict[str, str]:
    return render_at_once(NOTEBOOKS, results)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_and_renders(path: Path, results: Path, pages: dict[str, str]) -> None:
    page = pages[path.stem]
    assert "scale smoke: 3 runs of 3 rows" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(""", page)
    assert page.count('class="output_area"') >= 6
    assert "data:image/svg+xml" in page
    runs = load_runs("smoke", results).set_index("row")
    if path.stem == "freezing_sieving":
        assert f"{float(runs.loc['spfde-s90-f20-d20', 'accuracy.test_last']):.4g}" in page
        assert "freezing alone, sieving alone: not run" in page
    if path.stem == "results":
        assert all(f"{accuracy:.4g}" in page for accuracy in runs["accuracy.test_last"])
        assert "not run" in page  # the other rows of the table
        assert "cifar100" in page and "no full-scale run is published yet</pre>" not in page


def test_kernels_that_start_together_share_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three at once, five times: neither sockets in the working directory nor a kernel or start-up file of the user."""
    monkeypatch.chdir(tmp_path)
    foreign = tmp_path / "home/.local/share/jupyter/kernels/python3"
    foreign.mkdir(parents=True)
    (foreign / "kernel.json").write_text('{"argv": ["false"], "display_name": "foreign", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(foreign.parents[1]))
    source = "from IPython.paths import get_ipython_dir\nprint(int('41') + 1, get_ipython_dir())"
    for name in "abc":
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        cells = [nbformat.v4.new_markdown_cell(f"# {name}"), nbformat.v4.new_code_cell(source)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    folders = set()
    for _ in range(5):
        pages = render_at_once(sorted((tmp_path / "notebooks").iterdir()), tmp_path / "results")
        folders |= {re.search(r"42 (\S+)", page)[1] for page in pages.values()}
    assert len(folders) == 15 and not any(Path(folder).exists() for folder in folders)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "notebooks", "results"]


@pytest.mark.slow
def test_the_three_at_once_five_times(results: Path) -> None:
    for _ in range(5):
        assert len(render_at_once(NOTEBOOKS, results)) == 3


def test_what_fails_is_said(tmp_path: Path, results: Path) -> None:
    with pytest.raises(SpfdeError, match='did you mean "cost"'):
        render("costs", "smoke", results, NOTEBOOKS[0].parent)
    broken = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    nbformat.write(broken, tmp_path / "broken.ipynb")
    with pytest.raises(SpfdeError, match="the notebook broken failed: ZeroDivisionError"):
        render("broken", "smoke", results, tmp_path)
    assert not (results / "smoke/notebooks/broken.html").exists()
