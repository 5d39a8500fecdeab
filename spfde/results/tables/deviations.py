"""Readings on which published sources disagree, each a setting here, compared with the default."""

from typing import Any

from spfde.results.material import Material
from spfde.results.tables import ablation
from spfde.results.tables.table import Table

NOTES = [
    "*classifier*, *shortcut*, *all*: the classifier is dense too, the shortcuts and the classifier are, or no layer "
    "is. *flops*, *scripts*: upper bounds of the soft memory bound that give the FLOPs of MEST's rows, or those of its "
    "scripts. *batchnorm*: BatchNorm of frozen blocks in training mode, where the default is evaluation mode. "
    "*random*: random samples leave, the control of sieving. *magnitude*: the first mask keeps the largest weights. "
    "*keep*, *exclude*, *zero*: a weight dropped and regrown in one update keeps its value, is no candidate, or starts "
    "at 0. *lambda*: importance with the gradient. *easy*, *total*, *any*: readings of data sieving. "
    "*signed*: smallest positive and negative weights drop apart. *erk*: layer densities. *global*, *layer*: what is "
    "constant, the number of connections of the network or of each layer. *evaluation*: BatchNorm while SNIP scores.",
]


def build(material: Material) -> Table:
    """Every tagged row beside the untagged one of its method, sparsity and levels, which the experiment names first."""
    pairs = ablation.against_first(material, _group, ablation.tagged)
    pairs.sort(key=lambda pair: [_group(other) for other in material.plan].index(_group(pair.row)))
    return ablation.table("deviations", "Readings of the method", material, pairs, NOTES, parted_by="method")


def _group(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["method"], row["sparsity"], row["freezing"], row["sieving"]
