"""Tables, a module each: its name is the table's, `EXPERIMENT` names the experiment of its rows, `build` makes it."""

import importlib
import pkgutil
from pathlib import Path

from spfde.errors import lookup
from spfde.results.material import gather
from spfde.results.tables.render import write

SHARED = ("ablation", "costs", "render", "table", "timings")
TABLES = {module.name: module.name for module in pkgutil.iter_modules(__path__) if module.name not in SHARED}


def make(name: str, scale: str, results: Path) -> list[Path]:
    """Writes a table to results/<scale>/tables/ as Markdown, CSV, TeX, HTML and the values a seed behind it.

    Returns:
        the paths of what was written.

    Raises:
        SpfdeError: no such table (naming the nearest), no plan of its experiment, a broken record.
    """
    module = importlib.import_module(f"{__name__}.{lookup('table', name, TABLES)}")
    table = module.build(gather(scale, results, module.EXPERIMENT))
    return write(table, results / scale / "tables")
