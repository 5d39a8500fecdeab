"""Notebooks, run on the results: rendered to one HTML page that loads nothing, or kept with their outputs."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from spfde.configuration import config_file
from spfde.errors import SpfdeError, lookup
from spfde.files import write_text
from spfde.results.measured import MEASURED
from spfde.results.tables.render import document

if TYPE_CHECKING:
    from nbformat import NotebookNode

STYLE = """
h2 { font-size: 1rem; font-weight: 600; margin: 1.8rem 0 .4rem; }
p, li { max-width: 60rem; }
.input { max-width: 72rem; }
.input .highlight { background: #f6f8fa; border-left: 3px solid #d5d5d5; margin: .6rem 0; }
.input pre { margin: 0; padding: .5rem .7rem; overflow-x: auto; font-size: 12px; line-height: 1.4; }
.output_area { overflow-x: auto; margin: .5rem 0 1rem; }
.output_area pre { margin: 0; font-size: 12px; }
.output_area img, .output_area svg { min-width: 40rem; max-width: 60rem; width: 100%; height: auto; }
.dataframe th, .dataframe td { border: 0; border-bottom: 1px solid #e4e4e4; text-align: right; }
.dataframe tbody th { font-weight: 400; text-align: left; }
.anchor-link { display: none; }
"""

NOTEBOOKS = Path("notebooks")
LONGEST_SOCKET = 100  # longest path of a socket, in characters, that every system accepts


def render(name: str, scale: str, results: Path, folder: Path = NOTEBOOKS) -> Path:
    """Runs a notebook in a kernel of this Python and writes results/<scale>/notebooks/<name>.html.

    Raises:
        SpfdeError: no such notebook (naming the nearest), or a cell that failed.
    """
    path = results / scale / "notebooks" / f"{name}.html"
    write_text(path, page(_run(name, scale, results, folder)))
    return path


def keep(name: str, scale: str, results: Path, folder: Path = NOTEBOOKS) -> Path:
    """Runs a notebook and writes what it shows into the notebook itself, for those who read it where it lies.

    Its metadata say which scale and, by a digest, which cells and published results the outputs are of.

    Raises:
        SpfdeError: as `render`.
    """
    import nbformat

    notebook, path = _run(name, scale, results, folder), folder / f"{name}.ipynb"
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata["spfde"] = {"scale": scale, "made_of": made_of(notebook, scale, results / "published")}
    write_text(path, nbformat.writes(notebook) + "\n")
    return path


def made_of(notebook: "NotebookNode", scale: str, published: Path) -> str:
    """Digest of what the outputs of a kept notebook follow from.

    It is made of its cells, the published records of the scale, all published measurements, the claims, and the file of
    the scale.
    """
    found = hashlib.sha256()
    for path in (config_file("claims.yaml"), config_file("scales", f"{scale}.yaml")):
        found.update(path.read_bytes())
    for path in sorted(path for name in MEASURED for path in published.glob(f"*/{name}")):
        found.update(path.relative_to(published).as_posix().encode() + path.read_bytes())
    for cell in notebook.cells:
        found.update(f"{cell.cell_type}\0{cell.source}\0".encode())
    for path in sorted((published / scale).glob("*/summary.json")):
        found.update(path.parent.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]


def _run(name: str, scale: str, results: Path, folder: Path) -> "NotebookNode":
    """A notebook with its outputs. What to read it learns from SPFDE_SCALE and SPFDE_RESULTS of its environment."""
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    if not folder.is_dir():
        raise SpfdeError(f"there is no folder {folder} here", "run it in the project's folder, which has the notebooks")
    known = {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
    notebook = nbformat.read(lookup("notebook", name, known), as_version=4)
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(Path.cwd())}}
    )
    # All that a kernel would share with others by name goes into a folder of its own. Its sockets are files, so that
    # nothing listens on the network; Jupyter would number them in the working directory, where kernels that start
    # together take the same numbers. IPython's folder holds the history's data base and the user's start-up files.
    with tempfile.TemporaryDirectory(prefix="spfde-", dir=_short_folder()) as own:
        manager = client.create_kernel_manager()
        manager.kernel_spec_manager = KernelSpecManager(kernel_dirs=[])  # not another Python named "python3"
        manager.connection_file = str(Path(own, "kernel.json"))
        manager.transport, manager.ip = "ipc", str(Path(own, "kernel"))
        variables = {"SPFDE_SCALE": scale, "SPFDE_RESULTS": str(results.resolve()), "IPYTHONDIR": own}
        try:
            client.execute(env={**os.environ, **variables})
        except CellExecutionError as error:
            raise SpfdeError(
                f"the notebook {name} failed: {error.ename}: {error.evalue}",
                f"open {known[name]} and run it cell by cell",
            ) from error
    return notebook


def _short_folder() -> str | None:
    """Where to make the sockets' folder: the usual place for temporary files, unless that path would be too long."""
    return None if len(tempfile.gettempdir()) + len("/spfde-12345678/kernel-1") <= LONGEST_SOCKET else "/tmp"


def page(notebook: "NotebookNode") -> str:
    """An executed notebook as one page; its first line is the title."""
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    first = notebook.cells[0]
    title, _, first.source = first.source.partition("\n")
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    body, _ = exporter.from_notebook_node(notebook)
    return document(title.lstrip("# "), body, f"{STYLE}{HtmlFormatter().get_style_defs('.highlight')}\n")
