"""Where the files of config/ lie: in the working folder's own `config/`, or else among those that come with spfde."""

import re
from pathlib import Path

HERE = Path(__file__).parent
# An installed package holds a copy; in a checkout, and so in an editable installation, the folder stands beside it.
SHIPPED = HERE / "config" if (HERE / "config").is_dir() else HERE.parent / "config"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")  # of a file without suffix: it becomes part of paths and commands


def config_file(*parts: str) -> Path:
    """The path of a file of config/: in the working folder if the file is there, else in what came with spfde.

    The file need not exist; the caller has to check.
    """
    local = Path("config", *parts)
    return local if local.is_file() else SHIPPED.joinpath(*parts)


def config_files(*folders: str) -> list[Path]:
    """All YAML files in these folders of config/ (all where none is named), each as `config_file` finds it."""
    found = {
        path.relative_to(root).parts
        for root in (SHIPPED, Path("config"))
        for pattern in ([f"{folder}/*.yaml" for folder in folders] or ["*.yaml", "*/*.yaml"])
        for path in root.glob(pattern)
        if NAME.fullmatch(path.stem)
    }
    return [config_file(*parts) for parts in sorted(found)]
