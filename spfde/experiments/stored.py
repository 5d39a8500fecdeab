"""Settings of a run as a file: a record's settings.yaml, or what `spfde plan --write` chose."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from spfde.errors import SpfdeError, lookup
from spfde.experiments.resolve import layered, nested
from spfde.files import read_yaml, write_text
from spfde.settings import RunSettings, parse


def read_settings(
    path: Path, seeds: Iterable[int] = (), overrides: Mapping[str, Any] | None = None
) -> list[RunSettings]:
    """The run that a file describes, once for each seed.

    Args:
        path: a YAML file, nested as RunSettings; what it leaves out has its default.
        seeds: root seeds; by default the file's own.
        overrides: values by dotted name; they win.

    Raises:
        SpfdeError: the file cannot be read, or does not hold settings of a run.
    """
    from spfde.data import source
    from spfde.models import MODELS

    remedy = "give a record's settings.yaml, or a file that `spfde plan --write` wrote"
    values = read_yaml(path, "settings file", remedy)
    if not isinstance(values, dict):
        raise SpfdeError(f"{path} holds no settings of a run", remedy)
    settings = layered(values, {}, nested(overrides or {}))
    source(settings.data.name)
    lookup("model", settings.model.name, MODELS)
    return [parse(RunSettings, {**settings.model_dump(), "seed": seed}) for seed in seeds] or [settings]


def write_settings(path: Path, settings: RunSettings) -> None:
    """Writes resolved settings; `read_settings` gives the same run, with the same run id."""
    write_text(path, yaml.safe_dump(settings.model_dump(), sort_keys=False))
