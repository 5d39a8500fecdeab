"""The notebooks run on results, are committed with the outputs of what is published, and render to whole pages."""

import re
import shutil
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
from spfde.results.notebooks import keep, made_of, render
from spfde.training.loop import train

ROWS = ["dense", "mest-ems-s90", "spfde-s90-f20-d20"]
NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, fakes: SimpleNamespace) -> Path:
    """A few rows of the smoke scale's Table 2, trained here, and a fake published record of the paper's scale."""
    folder = tmp_path_factory.mktemp("results")
    plans(["table2", "figure4", "budget"], "smoke", folder / "smoke/plans")
    runs = select("smoke", ["table2"], ROWS, [1])
    splits = load(runs[0].data, None, None)
    for run in runs:
        train(run, splits, folder / "smoke/runs")
    fakes.write_record(fakes.settings("cifar100", "dense"), folder / "published/cifar100", published=True)
    return folder


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["cost", "freezing_sieving", "results"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_with_the_outputs_of_what_is_published(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    kept = notebook.metadata["spfde"]
    now = made_of(notebook, kept["scale"], Path(__file__).parents[2] / "results/published")
    assert kept["made_of"] == now, f"stale: run `spfde notebook {path.stem} --scale {kept['scale']} --in-place`"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count == number for number, cell in enumerate(code, 1))
    assert all(cell.outputs for cell in code)


def test_a_kept_notebook_says_what_its_outputs_are_of(results: Path, tmp_path: Path) -> None:
    shutil.copytree(NOTEBOOKS[0].parent, tmp_path / "notebooks")
    first = keep("cost", "smoke", results, tmp_path / "notebooks").read_bytes()
    notebook = nbformat.read(tmp_path / "notebooks/cost.ipynb", as_version=4)
    assert "scale smoke: 3 runs of 3 rows" in notebook.cells[1].outputs[0].text
    assert "image/svg+xml" in str(notebook.cells) and str(results) not in str(notebook.cells)
    assert notebook.metadata["spfde"]["made_of"] == made_of(notebook, "smoke", results / "published")
    assert made_of(notebook, "cifar100", results / "published") != made_of(notebook, "smoke", results / "published")
    assert keep("cost", "smoke", results, tmp_path / "notebooks").read_bytes() == first
    measured = results / "published/cifar100/bench.csv"
    measured.write_text("other times")
    assert notebook.metadata["spfde"]["made_of"] != made_of(notebook, "smoke", results / "published")
    measured.unlink()
    assert notebook.metadata["spfde"]["made_of"] == made_of(notebook, "smoke", results / "published")
    notebook.cells[0].source += "another word"
    assert notebook.metadata["spfde"]["made_of"] != made_of(notebook, "smoke", results / "published")


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
        assert "cifar100" in page and "no run is published yet</pre>" not in page


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


def test_where_there_are_no_notebooks_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpfdeError, match=r"no folder notebooks here; run it in the project's folder"):
        render("results", "smoke", tmp_path)
    Path("notebooks").mkdir()
    with pytest.raises(SpfdeError, match='unknown notebook "results"; there is none'):
        render("results", "smoke", tmp_path)
