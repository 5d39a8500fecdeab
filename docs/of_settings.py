"""What the documentation says of settings, in Markdown, from the settings themselves: every key, option and recipe."""

import json
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from markdown_table import table
from of_measured import measured
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from spfde.data.described import Description
from spfde.experiments.files import Experiment, Limit, Row, Scale
from spfde.experiments.recipes import RECIPES
from spfde.methods import Method
from spfde.settings import RunSettings

FILES: dict[str, type[BaseModel]] = {
    "A scale, `scales/<name>.yaml`": Scale,
    "What a scale takes of an experiment or method": Limit,
    "An experiment, `experiments/<name>.yaml`": Experiment,
    "A row of an experiment": Row,
    "A data set of your own, `data/<name>.yaml`": Description,
}


def settings_table() -> str:
    rows = [(f"`{key}`", values(field), default(field), field.description or "") for key, field in fields(RunSettings)]
    return table(("Setting", "Values", "Default", "Meaning"), rows)


def recipes() -> str:
    """The training recipes, each with its source."""
    rows = [(f"`{name}`", recipe.source) for name, recipe in RECIPES.items()]
    said = (
        "\n## Recipes\n\nA recipe lies over the values of the scale and under those of the row: `--set recipe=gse`, or "
        "`recipe: gse` in a row's\n`set`. A published accuracy stands beside a row of its own recipe; beside another "
        "row its recipe is named.\n\n"
    )
    return said + table(("Recipe", "What it is, and where it is published"), rows)


def files() -> str:
    """The keys of the files in config."""
    text = "\n## Keys of the files\n"
    for title, shape in FILES.items():
        rows = [
            (f"`{key}`", values(field), default(field), field.description or "")
            for key, field in shape.model_fields.items()
        ]
        text += f"\n### {title}\n\n{table(('Key', 'Values', 'Default', 'Meaning'), rows)}"
    return text


def facts(method: type[Method]) -> str:
    """What `spfde methods` says of a method, and its options."""
    source = method.paper if method.year is None else f"{method.paper} {method.year}"
    rows = [
        ("Source", source),
        ("Kind", method.kind),
        (
            "Weights compete",
            {"none": "not at all", "layer": "within a layer", "global": "over all layers"}[method.scope],
        ),
        ("Dense gradient", "needed" if method.needs_dense_gradient else "not needed"),
        ("Schemes", "all" if method.structured else "unstructured" if method.sparse else "none"),
        ("Measured here", measured(method.name)),
    ]
    for key, value in flat(method.defaults):
        rows.append((f"`{key}`", f"`{json.dumps(value)}` by default"))
    text = table(("", ""), rows)
    options = [
        (f"`{key}`", values(field), default(field), field.description or "") for key, field in fields(method.Options)
    ]
    if not options:
        return f"{text}\nNo options.\n"
    head = ("Option", "Values", "Default", "Meaning")
    return f"{text}\nOptions, as `sparsity.options.<name>`:\n\n{table(head, options)}"


def fields(shape: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting by dotted name."""
    for name, field in shape.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from fields(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def values(field: FieldInfo) -> str:
    """The values a setting can have: its choices, or its type with its bounds."""
    names = {
        int: "whole number",
        float: "number",
        str: "text",
        bool: "true, false",
        type(None): "null",
        dict: "mapping",
        list: "list",
    }
    parts = []
    for kind in get_args(field.annotation) if not is_plain(field.annotation) else (field.annotation,):
        if get_origin(kind) is Literal:
            parts += [f"`{choice}`" for choice in get_args(kind)]
        else:
            parts.append(names.get(get_origin(kind) or kind, str(kind)))
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {getattr(rule, key):g}" for rule in field.metadata for key, sign in signs.items() if hasattr(rule, key)
    ]
    return ", ".join([f"{parts[0]} {' and '.join(bounds)}", *parts[1:]] if bounds else parts)


def is_plain(annotation: Any) -> bool:
    """Whether an annotation is one type, and no union of several."""
    return isinstance(annotation, type) or get_origin(annotation) in (Literal, dict, list)


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, float):
        return f"`{value:.6g}`"
    return f"`{json.dumps(value)}`" if value not in ("", {}) else "none"
