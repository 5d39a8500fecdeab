"""What a result depends on beside records: the library's own source files and the files of config/."""

import functools
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grimp import ImportGraph


def source_files(*modules: str) -> list[str]:
    """The files of these modules of spfde and of all that they import, directly or not, also inside functions.

    An edit to any of them can change what the modules compute. Imports for type checking alone do not count.

    Raises:
        ValueError: there is no such module.
    """
    graph = _graph()
    if unknown := [module for module in modules if module not in graph.modules]:
        raise ValueError(f"no module {', '.join(unknown)}")
    needed = {*modules}.union(*(graph.find_upstream_modules(module) for module in modules))
    # Importing a module runs the packages around it too, and what those import.
    while missing := {parent for module in needed for parent in _parents(module)} - needed:
        needed |= missing.union(*(graph.find_upstream_modules(module) for module in missing))
    return sorted(source_file(module) for module in needed)


def source_file(module: str) -> str:
    """The file of a module of spfde, without what it imports."""
    return shown(_file(module))


def shown(path: Path) -> str:
    """A path as the workflow names it: relative to the working directory where it lies below, else absolute."""
    here = Path.cwd()
    whole = Path(os.path.abspath(path))  # symbolic links stay as they are
    return str(whole.relative_to(here) if whole.is_relative_to(here) else whole)


@functools.cache  # a tenth of a second
def _graph() -> "ImportGraph":
    from grimp import build_graph

    return build_graph("spfde", cache_dir=None, exclude_type_checking_imports=True)


def _parents(module: str) -> list[str]:
    """The packages around a module; not the whole library's, which holds nothing but names for its users."""
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(2, len(parts))]


def _file(module: str) -> Path:
    spec = importlib.util.find_spec("spfde")
    assert spec and spec.submodule_search_locations
    base = Path(spec.submodule_search_locations[0], *module.split(".")[1:])
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
