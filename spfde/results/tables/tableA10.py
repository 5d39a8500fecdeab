"""Table A10 of the SpFDE paper: freezing, sieving and both at equal reductions of training FLOPs."""

from spfde.results.material import Material
from spfde.results.tables import ablation
from spfde.results.tables.table import Table

EXPERIMENT = "tableA10"


def build(material: Material) -> Table:
    """Every row beside the one of its sparsity that neither freezes nor sieves."""
    pairs = ablation.against_first(material, lambda row: row["sparsity"], ablation.untouched)
    return ablation.table(
        "tableA10",
        "Freezing, sieving and both at equal reductions of training FLOPs",
        material,
        pairs,
        ["Freezing begins on the grid of the update interval, so that it saves at least what is wanted."],
        ablation.Quantities(difference="accuracy_delta"),
        parted_by="sparsity",
    )
