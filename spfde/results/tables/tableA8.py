"""Table A8 of the SpFDE paper: layer freezing alone."""

from spfde.results.material import Material
from spfde.results.tables import ablation
from spfde.results.tables.table import Table

EXPERIMENT = "tableA8"


def build(material: Material) -> Table:
    """Every row beside the one of its sparsity that neither freezes nor sieves."""
    pairs = ablation.against_first(material, lambda row: row["sparsity"], ablation.untouched)
    return ablation.table(
        "tableA8",
        "Layer freezing alone",
        material,
        pairs,
        ["Freezing begins on the grid of the update interval, so that it saves at least what is wanted."],
        ablation.Quantities(difference="accuracy_delta"),
        parted_by="sparsity",
    )
