"""Scales and experiments: the files of config/scales and config/experiments, and their shapes."""

import copy
import functools
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, model_validator

from spfde.configuration import NAME, config_file, config_files
from spfde.errors import SpfdeError, nearest
from spfde.files import parse_yaml, read_text, read_yaml
from spfde.settings import RunSettings, Section, parse

S = TypeVar("S", bound=BaseModel)


class Limit(Section):
    """What a scale takes of an experiment, if it takes less than all of it."""

    seeds: list[int] | None = Field(None, min_length=1, description="seeds; by default the scale's")
    sparsities: list[float] | None = Field(None, description="of a row's only these; the first if it has none")
    instead: dict[float, float] = Field({}, description="sparsities trained in place of those that the rows name")
    levels: list[float] | None = Field(None, description="of a row's only these; the first if it has none")
    methods: dict[str, "Limit"] = Field({}, description="what it takes of a method's rows, where less than of others")
    at: dict[float, "Limit"] = Field({}, description="what it takes at a sparsity, where less than at others")
    settings: dict[str, Any] = Field(
        {}, description="settings by dotted name in place of the scale's, e.g. for shorter runs; the rows' own win"
    )

    @model_validator(mode="after")
    def _no_deeper(self) -> "Limit":
        """Refuses what would be read by nobody: a limit of a method within that of another one, and the like."""
        for where, limits, nothing in (
            ("methods", self.methods, ("methods",)),
            ("at", self.at, ("methods", "at", "sparsities")),
        ):
            for key, limit in limits.items():
                if wrong := [name for name in nothing if name in limit.model_fields_set]:
                    raise ValueError(f"{where}.{key} cannot have {wrong[0]}")
        return self

    def narrowed(self, own: "Limit | None") -> "Limit":
        """This limit, further restricted by that of a method or of a sparsity."""
        return self.model_copy(update={key: getattr(own, key) for key in own.model_fields_set}) if own else self


class Tier(Section):
    """A part of a scale's runs that is trained before the next one, seed by seed, so that each stop is balanced."""

    name: str = Field(description="what it is called")
    rows: list[str] = Field(min_length=1, description="rows as experiment/row, in order of importance")
    seeds: list[int] = Field(min_length=1, description="root seeds of each of them")


class Scale(Section):
    """A file in config/scales: settings that its runs share, and what the experiments are run over."""

    settings: dict[str, Any] = Field({}, description="values that the scale's runs share, nested as in RunSettings")
    seeds: list[int] = Field([1], min_length=1, description="root seeds of every row")
    sparsities: list[float] = Field([0.9], description="sparsities that rows run over unless they name their own")
    levels: list[float] = Field([0.2], description="shares of FLOPs frozen and of data removed, where rows ask")
    runs_per_job: int = Field(
        1, ge=1, description="rows share a process up to so many runs: starting one takes seconds"
    )
    protocol: str | None = Field(
        None, description="digest of the page that says what the scale's runs decide; their records carry it"
    )
    paper: bool = Field(False, description="results are comparable with the paper's")
    experiments: dict[str, Limit] = Field({}, description="what the scale takes of an experiment, where less than all")
    tiers: list[Tier] = Field(
        [], description="where given, the scale has these rows and seeds alone, and trains them in this order"
    )

    def tier_seeds(self, experiment: str, row: str) -> list[int]:
        """The seeds that the tiers give to a row of an experiment, each once; empty if no tier names the row."""
        named = [tier for tier in self.tiers if f"{experiment}/{row}" in tier.rows]
        return list(dict.fromkeys(seed for tier in named for seed in tier.seeds))


class Row(Section):
    """A group of rows of an experiment: one method at several sparsities and levels of freezing and sieving."""

    method: str = Field(description="a method that `spfde methods` lists")
    sparsities: list[float] | Literal["scale"] = Field("scale", description="one row for each")
    levels: list[float] | Literal["scale", "none"] = Field(
        "none", description="one row for each: share of FLOPs frozen and of data removed, both"
    )
    tag: str = Field("", description="tells rows apart that differ in `set`; the end of their names")
    set: dict[str, Any] = Field({}, description="settings by dotted name")
    scales: list[str] | None = Field(None, description="the scales that have the rows, where not all do")


class Experiment(Section):
    """A file in config/experiments: the rows of one artefact."""

    scale: str | None = Field(None, description="the scale its rows belong to, where only one; others train none of it")
    rows: list[Row] = Field(description="its rows")


def default_scale() -> str:
    """The scale that is meant where none is named: that of config/config.yaml.

    Raises:
        SpfdeError: the file names none, perhaps because it is another project's, or cannot be read.
    """
    path = config_file("config.yaml")
    values = read_yaml(path, "configuration", "mend the file, or pass --scale")
    name = values.get("scale") if isinstance(values, dict) else None
    if not isinstance(name, str):
        raise SpfdeError(
            f"{path} names no scale", f"add `scale:`, one of {', '.join(_names('scales'))}, or pass --scale"
        )
    return name


def scale_names() -> list[str]:
    return _names("scales")


def experiment_names() -> list[str]:
    return _names("experiments")


def read_scale(name: str) -> Scale:
    return _read("scales", name, Scale)


def settings_of(scale: str) -> RunSettings:
    """The settings of a scale, before those of any row."""
    return parse(RunSettings, read_scale(scale).settings)


def read_experiment(name: str) -> Experiment:
    return _read("experiments", name, Experiment)


def protocol_of(scale: str) -> str | None:
    """The protocol that a scale's runs follow; none where the scale has none or is no file."""
    return read_scale(scale).protocol if scale in _names("scales") else None


def scale_of(experiment: str, scale: str) -> str:
    """The scale at which an experiment's rows are planned and trained when `scale` is asked for."""
    return read_experiment(experiment).scale or scale


def _names(kind: str) -> list[str]:
    return sorted(path.stem for path in config_files(kind))


def _read(kind: str, name: str, shape: type[S]) -> S:
    path = config_file(kind, f"{name}.yaml")
    if not NAME.fullmatch(name) or not path.exists():
        raise SpfdeError(f'unknown {kind[:-1]} "{name}"', nearest(name, _names(kind)))
    text = read_text(path, kind[:-1], "mend the file")
    return parse(shape, copy.deepcopy(_values(text, path)), path.name)


@functools.cache  # hundreds of runs of one scale are resolved, and reading YAML takes milliseconds
def _values(text: str, path: Path) -> Any:
    return parse_yaml(text, str(path), "mend the file") or {}
