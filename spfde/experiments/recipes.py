"""Training recipes: the settings under which the papers trained, by name, each with its source.

A row or a scale names one by `recipe`; it then lies under all that the row says itself, and over the scale's values.
What makes a published number comparable is that the settings of a recipe hold, not that it was named: `recipe_of`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spfde.errors import lookup
from spfde.settings import RunSettings


@dataclass(frozen=True)
class Recipe:
    """A recipe.

    Attributes:
        source: where it is published.
        values: its settings, nested.
    """

    source: str
    values: Mapping[str, Any]


def _steps(epochs: int, milestones: list[int], **more: Any) -> dict[str, Any]:
    """SGD with batches of 128 from a rate of 0.1 that falls to a tenth at each milestone."""
    shared = {"batch_size": 128, "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": False}
    shared |= {"warmup_epochs": 0, "label_smoothing": 0.0}
    return {**shared, "epochs": epochs, "schedule": "steps", "milestones": milestones, "gamma": 0.1, **more}


_COSINE = {"batch_size": 64, "lr": 0.1, "lr_min": 4e-8, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": False}
_GSE_MASKS = {"distribution": "er", "dense_layers": "none", "initialization": "fan-in"}

RECIPES: dict[str, Recipe] = {
    "paper": Recipe(
        "SpFDE, experimental results (arXiv 2209.11204), with the values of MEST's scripts: 160 epochs, batch 64, "
        "cosine",
        {
            "training": {
                **_COSINE,
                **{"epochs": 160, "schedule": "cosine", "warmup_epochs": 0, "label_smoothing": 0.0},
            }
        },
    ),
    "gse": Recipe(
        "GSE, Heddes et al. 2024 (arXiv 2401.06898) and its code: 200 epochs, batch 128, steps at 80 and 120, 5 epochs "
        "of warm-up; all methods from an Erdos-Renyi mask without dense layers, weights by the mask's fan-in",
        {"training": _steps(200, [80, 120], warmup_epochs=5), "sparsity": _GSE_MASKS},
    ),
    "gse-vit": Recipe(
        "GSE's vision transformers: as gse, from a rate of 0.01",
        {"training": _steps(200, [80, 120], warmup_epochs=5, lr=0.01), "sparsity": _GSE_MASKS},
    ),
    "swat": Recipe(
        "SWAT, Raihan and Aamodt, NeurIPS 2020, run configurations of its code (VGG-16, ResNet-18, DenseNet-121): 150 "
        "epochs, batch 128, steps at 50 and 100, weight decay 5e-4",
        {"training": _steps(150, [50, 100], weight_decay=5e-4)},
    ),
    "itop": Recipe(
        "ITOP, Liu et al., ICML 2021, main.py of its code: 250 epochs, batch 128, steps at 125 and 187, Nesterov "
        "momentum, weight decay 5e-4",
        {"training": _steps(250, [125, 187], weight_decay=5e-4, nesterov=True)},
    ),
    "baselines": Recipe(
        "GraSP, Wang et al., ICLR 2020, configs/cifar100/resnet32 of its code; from its table, as far as recalled, the "
        "older baselines' numbers were copied: 160 epochs, batch 128, steps at 80 and 120",
        {"training": _steps(160, [80, 120])},
    ),
}


def values_of(name: object) -> Mapping[str, Any]:
    """The settings of a recipe, nested; none where none is named.

    Raises:
        SpfdeError: an unknown name; it names the nearest.
    """
    if not isinstance(name, str) or not name:
        return {}  # no recipe; what is no name at all is refused with the other settings
    return lookup("recipe", name, RECIPES).values


def recipe_of(settings: RunSettings) -> str:
    """The recipe whose settings these are, named or not; "" where they are no recipe's."""
    given = settings.model_dump()
    for name, recipe in RECIPES.items():
        wanted = ((section, key, value) for section, values in recipe.values.items() for key, value in values.items())
        if all(given[section][key] == value for section, key, value in wanted):
            return name
    return ""
