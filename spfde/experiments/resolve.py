"""From names to run settings: scale + experiment + overrides -> one `RunSettings` per run.

Values are layered: built-in defaults < the method's own defaults < the scale < a recipe < the experiment's row <
overrides. What
comes out is resolved and checked; the check that needs the model (can freezing save that much?) is in
`spfde.planning`.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from spfde.errors import OtherData, SpfdeError, lookup, nearest
from spfde.experiments.files import (
    Limit,
    Row,
    Scale,
    experiment_names,
    read_experiment,
    read_scale,
    scale_names,
    scale_of,
)
from spfde.experiments.recipes import values_of
from spfde.files import check_file, parse_yaml
from spfde.settings import RunSettings, TrainingSettings, parse

LEVEL = ("freezing.flops_reduction", "sieving.removed")  # the settings that a level of a row sets


def expand(
    scale: str, experiment: str, seeds: Iterable[int] | None = None, overrides: Mapping[str, Any] | None = None
) -> list[RunSettings]:
    """All runs of an experiment at a scale, row by row, all seeds of a row together; empty if it is of another scale.

    Raises:
        SpfdeError: an unknown scale, experiment or setting, or a combination that cannot run.
    """
    from spfde.methods import METHODS

    at, chosen = read_scale(scale), list(seeds or ())
    _check_names(scale, at, experiment)
    limit = at.experiments.get(experiment, Limit())
    for narrow in (limit, *limit.methods.values()):
        for name in narrow.methods:
            lookup("method", name, METHODS)
        for target in narrow.at:
            if target not in at.sparsities:
                cause = f"scale {scale} limits {experiment} at sparsity {target:g}, which it does not have"
                raise SpfdeError(cause, f"name one of {', '.join(f'{known:g}' for known in at.sparsities)}")
    runs: dict[str, RunSettings] = {}
    for row in read_experiment(experiment).rows:
        if scale not in (row.scales or [scale_of(experiment, scale)]):
            continue
        for values, own in _cells(row, at, limit.narrowed(limit.methods.get(row.method))):
            told = {**own.settings, **values, **(overrides or {})}
            seeds_of_row = own.seeds or at.seeds
            if at.tiers:
                name = resolve(scale, {**own.settings, **values}, tag=row.tag).row
                seeds_of_row = at.tier_seeds(experiment, name)
            for seed in (chosen or seeds_of_row) if seeds_of_row else []:
                run = resolve(scale, told, seed, row.tag)
                runs[run.run_id] = run
    return list(runs.values())


def select(
    scale: str,
    experiments: Iterable[str] = (),
    rows: Iterable[str] = (),
    seeds: Iterable[int] = (),
    overrides: Mapping[str, Any] | None = None,
) -> list[RunSettings]:
    """The runs that a command line names: rows of experiments, or the one run that the overrides describe.

    A row is given by its name, or by `experiment/row` to mean only that of one of the named experiments.
    """
    names = list(experiments)
    if not names:
        first = list(seeds) or read_scale(scale).seeds[:1]
        return [resolve(scale, overrides or {}, seed) for seed in first]
    found = [(name, run) for name in names for run in expand(scale, name, list(seeds) or None, overrides)]
    for name in names:
        if scale_of(name, scale) != scale:
            cause = f"experiment {name} has no rows at scale {scale}"
            raise SpfdeError(cause, f"use --scale {scale_of(name, scale)}")
    known = {run.row for _, run in found} | {f"{name}/{run.row}" for name, run in found}
    for row in rows:
        if row not in known:
            cause = f'experiment {" or ".join(names)} has no row "{row}" at scale {scale}'
            raise SpfdeError(cause, nearest(row, known))
    chosen = {run.run_id: run for name, run in found if not rows or {run.row, f"{name}/{run.row}"} & set(rows)}
    return list(chosen.values())


def resolve(scale: str, overrides: Mapping[str, Any], seed: int = 1, tag: str = "") -> RunSettings:
    """Resolved, checked settings of one run.

    Args:
        scale: name of a scale file.
        overrides: values by dotted name, e.g. {"sparsity.method": "set"}; they win.
        seed: root seed, unless the overrides name one.
        tag: distinguishes rows that differ only in other settings than those in their names.
    """
    from spfde.data import source
    from spfde.methods import METHODS
    from spfde.models import MODELS

    at = {"scale": scale, "seed": seed, "tag": tag}
    settings = layered(read_scale(scale).settings, at, nested(overrides))
    source(settings.data.name)
    lookup("model", settings.model.name, MODELS)
    return METHODS[settings.sparsity.method].adjust(settings)


# Settings that only `spfde train` reads, whose loop, data and optimizer are its own; and where a loop of somebody else
# has them.
OF_THE_COMMAND = {
    "training.lr": "give it to the optimizer, from whose rates SparseTraining starts",
    "training.momentum": "give it to the optimizer",
    "training.nesterov": "give it to the optimizer",
    "training.weight_decay": "give it to the optimizer",
    "training.label_smoothing": "give it to the loss function",
    "training.snapshots": "save the model's weights in the loop",
    "data.padding": "transform the images in the data set",
    "data.flip": "transform the images in the data set",
    "precision": "run the forward pass under torch.autocast",
    "threads": "call torch.set_num_threads",
}


def settings_for(
    method: str = "spfde",
    *,
    epochs: int,
    batch_size: int,
    sparsity: float | None = None,
    freezing: float | None = None,
    sieving: float | None = None,
    interval: int | None = None,
    seed: int = 1,
    options: Mapping[str, Any] | None = None,
    **more: Any,
) -> RunSettings:
    """Resolved, checked settings for a model and data of your own, as `spfde.SparseTraining` takes them.

    What is not given has the method's default: sparsity 0.9, an update every 5 epochs, freezing and sieving 0.2 with
    method spfde and none with the others.

    Args:
        method: one that `spfde methods` lists.
        epochs: epochs of the whole training; mask updates, freezing and learning rates are planned over them.
        batch_size: samples per optimizer step, including all accumulated parts.
        sparsity: share of zeros of the sparse layers at the end.
        freezing: share of the training FLOPs that freezing removes.
        sieving: share of the training set that waits in the removed queue.
        interval: epochs between mask updates.
        seed: root seed of masks, order and sieving.
        options: the method's own options.
        more: any other setting, with two underscores for a dot: sparsity__scheme="2:4", training__lr_min=1e-5.

    Raises:
        SpfdeError: an unknown name, a value out of range, a combination that cannot run, or a setting that
            `SparseTraining` does not read (`OF_THE_COMMAND`).
    """
    from spfde.methods import METHODS

    given = {
        "sparsity.target": sparsity,
        "freezing.flops_reduction": freezing,
        "sieving.removed": sieving,
        "sparsity.interval": interval,
        "sparsity.options": options,
    }
    told = {"sparsity.method": method, "training.epochs": epochs, "training.batch_size": batch_size, "seed": seed}
    told |= {key: value for key, value in given.items() if value is not None}
    told |= {key.replace("__", "."): value for key, value in more.items()}
    tree = nested(told)
    settings = layered({}, {"data": {"name": "own"}, "model": {"name": "own"}}, tree)
    for key, remedy in OF_THE_COMMAND.items():
        section, _, name = key.rpartition(".")
        if name in (tree.get(section, {}) if section else tree):
            raise SpfdeError(f"setting {key} is for `spfde train`, and SparseTraining does not read it", remedy)
    if "adjust" in vars(METHODS[settings.sparsity.method]):
        cause = f"method {settings.sparsity.method} makes its own network out of a known one"
        raise SpfdeError(cause, "change your model yourself, and train it with method dense")
    return settings


def layered(scale: Mapping[str, Any], run: Mapping[str, Any], told: Mapping[str, Any]) -> RunSettings:
    """Checked settings from layers of values, the last one wins: the method's defaults, scale, run, overrides.

    A recipe that the scale names lies under the scale's own values; one that an override names lies over them.
    """
    from spfde.methods import METHODS

    values: dict[str, Any] = {}
    for layer in (values_of(scale.get("recipe")), scale, values_of(told.get("recipe")), run, told):
        _merge(values, layer)
    method = lookup("method", parse(RunSettings, values).sparsity.method, METHODS)
    layered: dict[str, Any] = {}
    for layer in (method.defaults, values):
        _merge(layered, layer)
    if not method.uses_target:
        layered.setdefault("sparsity", {})["target"] = 0.0
    settings = parse(RunSettings, layered)
    options = parse(method.Options, settings.sparsity.options, "sparsity.options").model_dump(exclude_defaults=True)
    sparsity = settings.sparsity.model_copy(update={"options": options})
    filled = {"data": _with_description(settings), "model": _with_digest(settings)}
    return check(settings.model_copy(update={"sparsity": sparsity, **filled}))


def check(settings: RunSettings) -> RunSettings:
    """Refuses an unknown distribution, and combinations that cannot run."""
    from spfde.methods import METHODS, check_scheme
    from spfde.sieving import update_epochs
    from spfde.sparsity.distributions import DISTRIBUTIONS

    lookup("distribution", settings.sparsity.distribution, DISTRIBUTIONS)
    check_scheme(settings.sparsity)
    epochs = settings.training.epochs
    events = METHODS[settings.sparsity.method].uses_interval or settings.freezing.flops_reduction
    used = {"sparsity.interval": settings.sparsity.interval} if events else {}
    if settings.sieving.removed:
        key = "sieving.interval" if settings.sieving.interval else "sparsity.interval"
        used[key] = settings.sieving.interval or settings.sparsity.interval
        update_epochs(settings.sieving, settings.sparsity.interval, epochs)  # refuses a removal that is too early
    for key, interval in used.items():
        if interval >= epochs and epochs > 1:
            raise SpfdeError(
                f"{key} = {interval} is not shorter than the run ({epochs} epochs)", "lower it, or train longer"
            )
    METHODS[settings.sparsity.method].warn(settings)
    _check_steps(settings.training)
    if settings.sieving.equal_flops and (not settings.sieving.removed or settings.sieving.schedule == "once"):
        cause = "sieving.equal_flops = true goes with circular sieving of a share of the data"
        raise SpfdeError(cause, "set sieving.removed and sieving.schedule=circular, or leave equal_flops out")
    if settings.sparsity.initialization == "fan-in" and settings.model.weights:
        cause = "sparsity.initialization = fan-in draws the weights that model.weights gives"
        raise SpfdeError(cause, "leave one of the two out")
    if settings.training.warmup_epochs >= epochs > 1:
        cause = (
            f"training.warmup_epochs = {settings.training.warmup_epochs} is not shorter than the run ({epochs} epochs)"
        )
        raise SpfdeError(cause, "lower it, or train longer")
    return settings


def _check_steps(training: TrainingSettings) -> None:
    """Refuses milestones that are no schedule of steps within the training, or that nothing uses."""
    stated = ", ".join(map(str, training.milestones)) or "none"
    if training.schedule == "cosine" and training.milestones:
        cause = f"training.milestones ({stated}) are of a schedule of steps, and training.schedule is cosine"
        raise SpfdeError(cause, "set training.schedule=steps, or leave the milestones out")
    if training.schedule == "steps":
        inside = [0, *training.milestones, training.epochs]
        if len(inside) < 3 or any(second <= first for first, second in itertools.pairwise(inside)):
            cause = f"training.milestones ({stated}) are not epochs in ascending order within {training.epochs}"
            raise SpfdeError(cause, "name at least one, e.g. training.milestones=[80,120] of 160 epochs")


def nested(dotted: Mapping[str, Any]) -> dict[str, Any]:
    """Turns dotted names into nested mappings: {"a.b": 1} becomes {"a": {"b": 1}}."""
    tree: dict[str, Any] = {}
    for key, value in dotted.items():
        *path, last = key.split(".")
        branch: dict[str, Any] = {last: value}
        for part in reversed(path):
            branch = {part: branch}
        _merge(tree, branch)
    return tree


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """`key=value` words of a command line; values are read as YAML.

    Raises:
        SpfdeError: a word is no assignment, its value no YAML, or one word names a part of what another one sets.
    """
    values = {}
    for word in assignments:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise SpfdeError(f'"{word}" is no setting', "write --set key=value, e.g. --set sparsity.target=0.95")
        shown = text if len(text) < 80 else f"{text[:60]}..."
        values[key] = parse_yaml(text, f'"{shown}", the value of {key},', "quote it as YAML asks")
    for key, other in itertools.permutations(values, 2):
        if key.startswith(f"{other}.") and not isinstance(values[other], Mapping):
            cause = f"{other}={values[other]} leaves no place for {key}, which is a part of {other}"
            raise SpfdeError(cause, f"leave one of the two out; a whole {other} is written {other}={{...}}")
    return values


def _check_names(scale: str, at: Scale, experiment: str) -> None:
    """Refuses experiments and scales that there are not: a limit of one or rows of one would silently do nothing."""
    if unknown := at.experiments.keys() - (known := experiment_names()):
        name = min(unknown)
        raise SpfdeError(f'scale {scale} limits an unknown experiment "{name}"', nearest(name, known))
    chosen = read_experiment(experiment)
    named = {name for row in chosen.rows for name in row.scales or []} | ({chosen.scale} if chosen.scale else set())
    if unknown := named - set(scales := scale_names() if named else []):
        name = min(unknown)
        raise SpfdeError(f'experiment {experiment} has rows of an unknown scale "{name}"', nearest(name, scales))


def _cells(row: Row, scale: Scale, limit: Limit) -> Iterator[tuple[dict[str, Any], Limit]]:
    """The dotted values of each row that a group stands for, and the limit that holds for it."""
    from spfde.methods import METHODS

    sparsities = _limited(scale.sparsities if row.sparsities == "scale" else row.sparsities, limit.sparsities)
    levels = [] if row.levels == "none" else scale.levels if row.levels == "scale" else row.levels
    for target in sparsities if lookup("method", row.method, METHODS).uses_target else [None]:
        own, values = limit, dict[str, Any]({"sparsity.method": row.method})
        if target is not None:
            own = limit.narrowed(limit.at.get(target))
            values["sparsity.target"] = own.instead.get(target, target)
        for share in [dict.fromkeys(LEVEL, level) for level in _limited(levels, own.levels)] or [{}]:
            yield {**values, **share, **row.set}, own


def _limited(values: list[float], limit: list[float] | None) -> list[float]:
    return values if limit is None else [value for value in values if value in limit] or values[:1]


def _merge(base: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = dict(value) if isinstance(value, Mapping) else value


def _with_description(settings: RunSettings) -> BaseModel:
    """The data section with the digest of the data set's description, where it has one."""
    from spfde.data.sources import digest, source

    name, given = settings.data.name, settings.data.digest
    if given is not None:
        source(name)  # refuses an unknown one
    found = digest(name)
    if given not in (None, found):
        file = f"config/data/{name}.yaml" if found else "the built-in one"
        cause = f"setting data.digest = {given} is of another description of {name} than {file}"
        raise OtherData(cause, "bring that description back, or leave data.digest out to make another run")
    return settings.data.model_copy(update={"digest": found})


def _with_digest(settings: RunSettings) -> BaseModel:
    """The model section with the digest of the weights that training starts from."""
    path = settings.model.weights
    if path is None:
        if settings.model.weights_digest is not None:
            cause = f"model.weights_digest = {settings.model.weights_digest} is the digest of no file"
            raise SpfdeError(cause, "name the file as model.weights, or leave model.weights_digest out")
        return settings.model
    check_file(Path(path), "model.weights =", "name a safetensors file")
    try:
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise SpfdeError(
            f"model.weights = {path} cannot be read ({error.strerror})", "name a safetensors file"
        ) from None
    return settings.model.model_copy(update={"weights_digest": digest})
