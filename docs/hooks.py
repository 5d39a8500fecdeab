"""Pages of the documentation site that are made from the project itself, so that they cannot grow stale.

MkDocs calls the functions of this file (`hooks` in mkdocs.yml). They add a list of the methods, the notebooks, the
settings of config/README.md, the claims of config/claims.yaml, the changelog, and a page of the API reference for each
package.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

from spfde.methods import METHODS
from spfde.results import claims

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LATER = ("evidence.md", "protocol.md", "speed.md", "refusals.md")  # in the navigation from the day they are written
# Where pages link to what lies in the repository, beside them or above them -> the page of the site that is made of it.
ON_THE_SITE = {"methods": "methods/index.md", "../config/README.md": "settings.md", "../spfde": "api/index.md"}
CLAIMS = """# Claims

The sentences of the papers that can be checked. `spfde claims` decides them from the records of a scale, and
`results/<scale>/claims.md` says on what evidence. *Standing* says how sure we are of the published value.
"""
STANDINGS = {
    "F": "found in a source",
    "D": "derived from found numbers",
    "R": "recalled, not verified",
    "2nd": "second-hand",
    "NF": "not found",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fills the empty sections of the navigation."""
    for page in LATER:
        if not (ROOT / "docs" / page).exists():
            _without(config.nav, page)
    _section(config.nav, "Notebooks").extend(f"notebooks/{path.stem}.md" for path in NOTEBOOKS)
    _section(config.nav, "Methods").extend(["methods/index.md", *(f"methods/{name}.md" for name in METHODS)])
    _section(config.nav, "API").extend(["api/index.md", *(f"api/{name}.md" for name in _packages())])
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links of a page are those that lead somewhere in the repository; on the site they lead to its own pages."""
    for there, here in ON_THE_SITE.items():
        markdown = markdown.replace(f"]({there})", f"]({here})")
    return markdown


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    pages: dict[str, str | bytes] = {
        "methods/index.md": _methods(),
        "settings.md": _settings(),
        "claims.md": _claims(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "api/index.md": _api(),
        **{f"api/{name}.md": _reference(name) for name in _packages()},
    }
    for notebook in NOTEBOOKS:
        pages |= _notebook(notebook)
    for path, text in pages.items():
        if written := files.get_file_from_path(path):
            files.remove(written)
        files.append(File.generated(config, path, content=text))
    return files


def _packages() -> list[str]:
    """Packages and modules in the order of the import contract's layers, which names all of them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    names = [name.strip() for layer in layers for name in layer.split("|")]
    return [name for name in names if name not in ("__main__", "cli")]


def _section(nav: Any, title: str) -> list[Any]:
    """The (empty) list of pages of a section, wherever it is in the navigation."""
    for entry in nav:
        for name, value in entry.items() if isinstance(entry, dict) else ():
            if name == title:
                found: list[Any] = value
                return found
            if isinstance(value, list) and (deeper := _section(value, title)) is not None:
                return deeper
    return None  # type: ignore[return-value]


def _without(nav: Any, page: str) -> None:
    nav[:] = [entry for entry in nav if not (isinstance(entry, dict) and page in entry.values())]
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else ():
            if isinstance(value, list):
                _without(value, page)


def _methods() -> str:
    lines = [
        "# Methods",
        "",
        "Each method has a card: what it does, when to use it, its options, what it costs, and where published sources",
        "disagree. `spfde methods` prints the same facts.",
        "",
        "| Method | Source | Kind | Dense gradient |",
        "| --- | --- | --- | --- |",
    ]
    for name, method in METHODS.items():
        source = method.paper if method.year is None else f"{method.paper} {method.year}"
        needed = "needed" if method.needs_dense_gradient else "not needed"
        lines.append(f"| [{method.title}]({name}.md) | {source} | {method.kind} | {needed} |")
    return "\n".join(lines) + "\n"


def _settings() -> str:
    text = (ROOT / "config/README.md").read_text(encoding="utf-8")
    return text.replace("# Configuration", "# Settings", 1)


def _notebook(path: Path) -> dict[str, str | bytes]:
    """The page of a notebook with the outputs that are kept in it, and its figures."""
    notebook = nbformat.read(path, as_version=4)
    exporter = MarkdownExporter()
    told: dict[str, Any] = {"unique_key": path.stem, "output_files_dir": ""}
    text, made = exporter.from_notebook_node(notebook, resources=told)
    first, _, rest = text.partition("\n\n")
    scale = notebook.metadata.get("spfde", {}).get("scale", "no scale")
    note = f"Run on the published records of the scale `{scale}`; the notebook is `notebooks/{path.name}`."
    figures = {f"notebooks/{Path(name).name}": data for name, data in made.get("outputs", {}).items()}
    return {f"notebooks/{path.stem}.md": f"{first}\n\n{note}\n\n{rest}", **figures}


def _claims() -> str:
    """docs/claims.md, which says how claims are decided, and below it every claim: source, test, standing."""
    path = ROOT / "docs/claims.md"
    text = path.read_text(encoding="utf-8") if path.exists() else CLAIMS
    lines = ["", "## The claims", "", "| Claim | Source | Of | Test | Standing |", "| --- | --- | --- | --- | --- |"]
    for claim in claims.read().claims:
        test = f"by construction ({claim.by_construction.by})" if claim.by_construction else claim.test
        cells = (claim.claim, claim.source, claim.kind, test, STANDINGS[claim.stands])
        lines.append(f"| {' | '.join(cell.strip().replace('|', chr(92) + '|') for cell in cells)} |")
    return text + "\n".join(lines) + "\n"


def _api() -> str:
    lines = [
        "# API",
        "",
        "What most people need is in [spfde.api](api.md) and in the guide [Your own model](../own_model.md).",
        "",
    ]
    lines += [f"* [`spfde.{name}`]({name}.md): {_first_line(name)}" for name in _packages()]
    return "\n".join(lines) + "\n"


def _reference(name: str) -> str:
    """A directive for each module of a package, in the order of the alphabet; the package itself comes first."""
    return f"# spfde.{name}\n\n" + "\n".join(f"::: {module}\n" for module in _modules(name))


def _modules(name: str) -> Iterator[str]:
    yield f"spfde.{name}"
    folder = ROOT / "spfde" / name
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if not parts[-1].startswith("_"):
            yield ".".join(parts)


def _first_line(name: str) -> str:
    """The first sentence of a module's docstring."""
    path = ROOT / "spfde" / name / "__init__.py"
    text = (path if path.is_file() else ROOT / f"spfde/{name}.py").read_text(encoding="utf-8")
    found = re.match(r'\s*(?:r?)"""(.*?)(?:\.\s|\n\n|""")', text, re.DOTALL)
    return " ".join(found[1].split()).rstrip(".") + "." if found else ""
