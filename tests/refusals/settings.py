"""Settings that are wrong in themselves, or that do not go together."""

from pathlib import Path
from typing import Any

from spfde import settings_for
from spfde.data import DataInfo
from spfde.experiments.resolve import parse_assignments, resolve
from spfde.models import build
from spfde.plans import plan_settings
from spfde.settings import RunSettings
from tests.refusals.table import refusal


def told(method: str = "set", **more: Any) -> RunSettings:
    return settings_for(method, **{"epochs": 20, "batch_size": 8, **more})


def smoke(**dotted: Any) -> RunSettings:
    return resolve("smoke", {key.replace("__", "."): value for key, value in dotted.items()})


@refusal("an unknown setting")
def unknown_setting(_: Path) -> None:
    told(sparsity__schem="2:4")


@refusal("a setting and a part of it, given as one value and beside it")
def part_of_a_value(_: Path) -> None:
    parse_assignments(["data=5", "data.name=digits"])


@refusal("a value out of range")
def out_of_range(_: Path) -> None:
    told(sparsity=1.0)


@refusal("a setting that only `spfde train` reads, for a loop of one's own")
def unread_setting(_: Path) -> None:
    told(training__lr=0.3)


@refusal("a value of another type")
def wrong_type(_: Path) -> None:
    told(epochs="many")


@refusal("an unknown method")
def unknown_method(_: Path) -> None:
    told("spfd")


@refusal("an unknown option of a method")
def unknown_option(_: Path) -> None:
    told(options={"drop_fracton": 0.3})


@refusal("a setting under its former and its present name")
def former_name(_: Path) -> None:
    told(options={"zeta": 0.3, "drop_fraction": 0.3})


@refusal("an unknown model")
def unknown_model(_: Path) -> None:
    smoke(model__name="resnet9")


@refusal("an unknown data set")
def unknown_data(_: Path) -> None:
    smoke(data__name="cifar1000")


@refusal("an unknown distribution")
def unknown_distribution(_: Path) -> None:
    told(sparsity__distribution="erks")


@refusal("an unknown scheme")
def unknown_scheme(_: Path) -> None:
    told(sparsity__scheme="blok")


@refusal("a scheme that is not n:m")
def no_n_of_m(_: Path) -> None:
    told(sparsity__scheme="4:2")


@refusal("n:m with another sparsity")
def other_sparsity(_: Path) -> None:
    told(sparsity=0.9, sparsity__scheme="2:4")


@refusal("patterns below their own sparsity")
def sparse_patterns(_: Path) -> None:
    told(sparsity=0.4, sparsity__scheme="pattern")


@refusal("a structured scheme with a method that chooses single weights")
def unable_scheme(_: Path) -> None:
    told("snip", sparsity__scheme="block")


@refusal("a structured scheme with ERK")
def scheme_and_distribution(_: Path) -> None:
    told(sparsity=0.5, sparsity__scheme="2:4", sparsity__distribution="erk")


@refusal("an update interval as long as the run")
def long_interval(_: Path) -> None:
    told(interval=20)


@refusal("a warm-up as long as the run")
def long_warmup(_: Path) -> None:
    told(training__warmup_epochs=20)


@refusal("a removal before anything is known of the samples")
def early_removal(_: Path) -> None:
    told(sieving=0.2, sieving__schedule="once", sieving__start=0.1)


@refusal("SWAT-M without momentum")
def no_momentum(_: Path) -> None:
    plan_settings(smoke(sparsity__method="swat-m", training__momentum=0))


@refusal("small-dense around a model of one's own")
def small_dense(_: Path) -> None:
    told("small-dense")


@refusal("freezing more than a run can save")
def too_much_frozen(_: Path) -> None:
    plan_settings(smoke(sparsity__method="spfde", freezing__flops_reduction=0.9))


@refusal("a model that cannot take such images")
def small_images(_: Path) -> None:
    build("vgg19", 10, 3, 8)


@refusal("a model of no width")
def no_width(_: Path) -> None:
    build("resnet8", 10, width=0.0)


@refusal("a validation set of no sample")
def no_validation(_: Path) -> None:
    DataInfo("tiny", 2, 1, 8, 10, 2, (0.5,), (0.25,)).training_samples(smoke(data__validation=0.01).data)


@refusal("the digest of a data set's description that is another one now")
def other_description(_: Path) -> None:
    smoke(data__digest="0123456789ab")


@refusal("the digest of initial weights without the weights")
def digest_alone(_: Path) -> None:
    smoke(model__weights_digest="0123456789ab")
