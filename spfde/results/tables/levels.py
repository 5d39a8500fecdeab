"""Tables A8 to A10 of the SpFDE paper: layer freezing alone, data sieving alone, and both at equal training FLOPs."""

from spfde.results.material import Material
from spfde.results.tables import ablation
from spfde.results.tables.table import Table

FREEZING = "Freezing begins on the grid of the update interval, so that it saves at least what is wanted."
EQUAL = (
    "Freezing begins on the grid of the update interval, so that it saves a little more than is wanted; sieving makes "
    "up for the difference, and the rows of a level cost the same."
)
SIEVING = "Sieving removes whole samples: the share of the FLOPs that it saves is the share of the data removed."


def build(material: Material, name: str, title: str) -> Table:
    """Every row beside the one of its sparsity that neither freezes nor sieves."""
    freezes, sieves = (any(row[key] for row in material.plan) for key in ("freezing", "sieving"))
    notes = [EQUAL] if freezes and sieves else [FREEZING] * freezes + [SIEVING] * sieves
    notes += [ablation.DECIDED_NOTE] * sieves
    pairs = ablation.against_first(material, lambda row: row["sparsity"], ablation.untouched)
    pairs = ablation.with_decided(material, pairs)
    more = [ablation.DECIDED_COLUMN] * sieves
    quantities = ablation.Quantities(difference="accuracy_delta")
    return ablation.table(name, title, material, pairs, notes, quantities, more, parted_by="sparsity")
