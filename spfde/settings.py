"""The shapes of a run's settings, and the run id.

Settings are frozen and are the only input of a run. An unknown key or a value out of range is an error that names the
key, the value and a remedy. Names that a registry knows (data, model, method, ...) are checked where the registry is:
`spfde.experiments`. The descriptions below become the JSON schema and the table in config/README.md.
"""

import hashlib
import json
import warnings
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spfde.errors import SpfdeError, nearest

# What settings mean, as a number. It is a part of every run id, and it is raised when a default changes or when a run
# of the same settings comes out otherwise than before: a record of an older schema is a record of other settings.
# 2: methods as their authors have them (ERK without dense layers, schemes ranked by the L2 norm, MEST's patterns, SET's
#    first update after the first interval, RigL-ITOP's order, SWAT's activations, RigL's updates on ImageNet).
SCHEMA = 2
# The largest numbers that a run can have: one digit too many shall be an error, not a machine without memory.
LONG, MANY = 100_000, 1_000_000_000  # epochs; samples
NO_RESULT = {"scale", "tag", "recipe", "threads"}  # settings that change no result


S = TypeVar("S", bound=BaseModel)


class SettingRenamed(FutureWarning):
    """A setting was given under the name that it had before; a later version will not know that one."""


class Section(BaseModel):
    """A group of settings.

    `renamed` has the former names of keys, each with the present one. A value under a former name counts as if it had
    the present one, with a warning that names both, so that files of the version before keep working.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    renamed: ClassVar[dict[str, str]] = {}


class DataSettings(Section):
    name: str = Field("cifar100", description="data set: digits, cifar10, cifar100, imagenet or one of your own")
    digest: str | None = Field(
        None,
        description="digest of its file in config/data, filled in when settings are resolved; none if it is built in",
    )
    train_limit: int | None = Field(None, ge=1, le=MANY, description="use only the first so many training samples")
    validation: float = Field(0.0, ge=0, le=0.5, description="share of the training set held out for validation")
    padding: int = Field(4, ge=0, le=512, description="pixels of zero padding before the random crop; 0: no crop")
    flip: bool = Field(True, description="random horizontal flips")


class ModelSettings(Section):
    name: str = Field("resnet32_2x", description="network")
    width: float = Field(1.0, gt=0, le=16, description="factor on the channels of every hidden layer")
    weights: str | None = Field(None, description="safetensors file with the weights to start from")
    weights_digest: str | None = Field(None, description="sha256 of that file, filled in when settings are resolved")


class SparsitySettings(Section):
    method: str = Field("dense", description="method; `spfde methods` lists them")
    options: dict[str, Any] = Field({}, description="options of the method; its card lists them")
    target: float = Field(0.9, ge=0, lt=1, description="share of zeros of the sparse layers at the end of training")
    distribution: str = Field(
        "uniform",
        description="how sparsity is spread over the layers: uniform; erk (Erdős–Rényi kernel: density in proportion "
        "to (in + out + kernel height + kernel width) / (in × out × kernel height × kernel width)); er (Erdős–Rényi: "
        "to (in + out) / (in × out), where in counts channels × kernel)",
    )
    scheme: str = Field("unstructured", description="shape of the sparsity")
    dense_layers: Literal["first", "first+classifier", "first+shortcut+classifier", "none"] = Field(
        "first", description="layers that stay dense"
    )
    interval: int = Field(5, ge=1, le=LONG, description="update interval in epochs")
    initialization: Literal["model", "fan-in"] = Field(
        "model",
        description="initial weights of sparse layers: the model's own, or uniform by the fan-in under the first mask "
        "(GSE's code)",
    )


class FreezingSettings(Section):
    flops_reduction: float = Field(
        0.0, ge=0, lt=1, description="share of the training FLOPs (paper column) that freezing removes; 0: no freezing"
    )
    share: float = Field(2 / 3, gt=0, le=1, description="share of the residual blocks that get frozen")
    scheme: Literal["single-shot", "single-shot-resume", "periodic", "delayed-periodic", "random", "adaptive"] = Field(
        "single-shot",
        description="when blocks are frozen, all at the same FLOPs. single-shot: one after another, until the end. "
        "single-shot-resume: the same earlier, and all train again at the end. periodic: the first blocks train one "
        "epoch in four, the next one in two, the last always. delayed-periodic: the same, after all have trained for a "
        "while. random and adaptive are controls: the blocks of single-shot at random epochs, or at those that "
        "gradient norms choose",
    )
    batch_norm: Literal["evaluation", "training"] = Field(
        "evaluation",
        description="mode of BatchNorm in a frozen block: its statistics stay as they are, or follow the batches",
    )
    resume: float = Field(
        0.1, gt=0, lt=1, description="share of training at the end in which single-shot-resume trains all blocks again"
    )


class SievingSettings(Section):
    removed: float = Field(0.0, ge=0, lt=1, description="share of the training set in the removed queue; 0: no sieving")
    equal_flops: bool = Field(
        False,
        description="true: the removed share is computed, and not given, so that this run costs as many FLOPs as one "
        "with freezing alone that saves as much as freezing and sieving together would",
    )
    schedule: Literal["circular", "once"] = Field(
        "circular", description="exchange samples at every update, or train on all of them first and remove some once"
    )
    start: float = Field(70 / 160, gt=0, lt=1, description="share of training before the removal of `schedule: once`")
    interval: int | None = Field(None, ge=1, le=LONG, description="epochs between exchanges; none: the update interval")
    criterion: Literal["forgetting", "random"] = Field(
        "forgetting", description="what leaves: the least forgotten samples, or random ones (a control)"
    )
    never_learned: Literal["hard", "easy"] = Field(
        "hard", description="samples never correct within an interval count as"
    )
    exchange: Literal["partial", "total"] = Field(
        "partial", description="how many move: a share of the partial set or of all"
    )
    returns: Literal["head", "random"] = Field("head", description="which samples come back from the queue")


class TrainingSettings(Section):
    epochs: int = Field(160, ge=1, le=LONG, description="epochs")
    batch_size: int = Field(64, ge=1, le=MANY, description="samples per step; a short last batch is trained on")
    lr: float = Field(0.1, gt=0, description="learning rate at the start")
    schedule: Literal["cosine", "steps"] = Field(
        "cosine",
        description="how the learning rate falls: by a cosine to `lr_min`, or at each milestone to `gamma` of itself; "
        "a block that freezes goes through all of it while it is active",
    )
    lr_min: float = Field(4e-8, ge=0, description="learning rate at the end of the cosine")
    milestones: list[int] = Field([], description="epochs at which the rate falls, with `schedule: steps`")
    gamma: float = Field(0.1, gt=0, lt=1, description="factor on the rate at each milestone")
    warmup_epochs: int = Field(0, ge=0, le=LONG, description="epochs of linear warm-up")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD momentum")
    nesterov: bool = Field(False, description="Nesterov momentum")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay, on all parameters")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing")
    snapshots: int = Field(0, ge=0, le=LONG, description="keep the weights every so many epochs for analysis; 0: none")


class RunSettings(Section):
    scale: str = Field(
        "custom",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$",
        max_length=64,
        description="scale the run belongs to; names its folder, does not change the result",
    )
    tag: str = Field(
        "",
        pattern=r"^[a-z0-9.+_]*$",
        max_length=64,
        description="tells rows of an experiment apart; part of their names",
    )
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    sparsity: SparsitySettings = SparsitySettings()
    freezing: FreezingSettings = FreezingSettings()
    sieving: SievingSettings = SievingSettings()
    training: TrainingSettings = TrainingSettings()
    precision: Literal["fp32", "tf32", "bf16"] = Field("fp32", description="arithmetic of the training step")
    recipe: str = Field(
        "",
        description="training recipe of a paper whose values lie over the scale's and under what a row says itself: "
        "paper, gse, gse-vit, swat, itop or baselines; the values make the run, the name does not",
    )
    threads: int = Field(1, ge=1, le=4096, description="CPU threads of a run")
    seed: int = Field(1, ge=0, lt=2**63, description="root seed")

    @property
    def row(self) -> str:
        """The run id without scale, model, seed and hash, e.g. `spfde-s90-f20-d20`."""
        parts = [self.sparsity.method]
        for letter, share in (
            ("s", self.sparsity.target),
            ("f", self.freezing.flops_reduction),
            ("d", self.sieving.removed),
        ):
            parts += [f"{letter}{100 * share:.4g}"] if share else []
        return "-".join(parts + [self.tag] * bool(self.tag))

    @property
    def run_id(self) -> str:
        """Names the record's folder, e.g. `cifar100-resnet32_2x-spfde-s90-f20-d20-seed1-1a2b3c4d`."""
        return f"{self.scale}-{self.model.name}-{self.row}-seed{self.seed}-{self.digest}"

    @property
    def digest(self) -> str:
        """Eight hex digits over what changes the result: the values that differ from the defaults."""
        return self._hashed(NO_RESULT)

    @property
    def row_digest(self) -> str:
        """Eight hex digits over what the seeds of a row share: the digest of everything but the seed."""
        return self._hashed(NO_RESULT | {"seed"})

    @property
    def identity(self) -> str:
        """What changes the result, as JSON: every value that the digest is over, defaults too."""
        return self.model_dump_json(exclude=NO_RESULT)

    def _hashed(self, without: set[str]) -> str:
        values = self.model_dump(exclude_defaults=True, exclude=without)
        values.get("model", {}).pop("weights", None)  # the digest of the weights counts, not the path of their file
        text = json.dumps({"schema": SCHEMA, **values}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def parse(shape: type[S], values: dict[str, Any], where: str = "") -> S:
    """Checks values against a shape.

    Raises:
        SpfdeError: an unknown key (naming the nearest known one), a value of the wrong type or out of range, or one
            setting under its present and its former name.
    """
    try:
        return shape.model_validate(_present_names(shape, values, where))
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"]]
        key = ".".join([where, *path] if where else path)
        if first["type"] == "extra_forbidden":
            raise SpfdeError(f'unknown setting "{key}"', _nearest_key(shape, path)) from None
        cause = f"setting {key} = {first['input']!r} is not valid"
        raise SpfdeError(cause, f"{first['msg'][:1].lower()}{first['msg'][1:]}") from None


def _present_names(shape: type[BaseModel], values: Any, where: str) -> Any:
    """The values with every former name of a key replaced by the present one, and a warning for each."""
    if not (isinstance(values, dict) and issubclass(shape, Section)):
        return values
    named: dict[str, Any] = {}
    for key, value in values.items():
        present = shape.renamed.get(str(key), str(key))
        path = f"{where}.{present}" if where else present
        if present != key:
            former = f"{where}.{key}" if where else key
            if present in values:
                raise SpfdeError(f"setting {path} is given twice, also under its former name {former}", f"keep {path}")
            warnings.warn(
                f"setting {former} is called {path} now; rename it, the next version will not know it",
                SettingRenamed,
                stacklevel=4,
            )
        field = shape.model_fields.get(present)
        inner = field.annotation if field else None
        if isinstance(inner, type) and issubclass(inner, Section):
            value = _present_names(inner, value, path)
        named[present] = value
    return named


def _nearest_key(shape: type[BaseModel], path: list[str]) -> str:
    for part in path[:-1]:
        inner = shape.model_fields[part].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        shape = inner
    return nearest(path[-1], shape.model_fields)
