"""Tables A8 to A10 of the SpFDE paper: layer freezing alone, data sieving alone, and both at equal training FLOPs."""

from spfde.results.material import Material
from spfde.results.tables import ablation
from spfde.results.tables.table import Table

FREEZING = "Freezing begins on the grid of the update interval, so that it saves at least what is wanted."
SIEVING = "Sieving removes whole samples: the share of the FLOPs that it saves is the share of the data removed."


def build(material: Material, name: str, title: str) -> Table:
    """Every row beside the one of its sparsity that neither freezes nor sieves."""
    pairs = ablation.against_first(material, lambda row: row["sparsity"], ablation.untouched)
    notes = {"freezing": [FREEZING], "sieving": [SIEVING, ablation.DECIDED_NOTE]}
    true = [note for key, said in notes.items() if any(row[key] for row in material.plan) for note in said]
    more = [ablation.DECIDED_COLUMN] if any(row["sieving"] for row in material.plan) else []
    quantities = ablation.Quantities(difference="accuracy_delta")
    pairs = ablation.with_decided(material, pairs)
    return ablation.table(name, title, material, pairs, true, quantities, more, parted_by="sparsity")
