"""Freezing and sieving around other methods than SpFDE's own."""

from spfde.results.labels import label
from spfde.results.material import Material
from spfde.results.tables import ablation
from spfde.results.tables.table import Column, Table, cost_text

NOTES = [
    "Every row is compared with the same method without freezing and sieving. *Executed*: FLOPs that were run, "
    "against the same."
]


def build(material: Material) -> Table:
    pairs = ablation.against_first(material, lambda row: (row["method"], row["sparsity"]), label)
    alone = {(row["method"], row["sparsity"]): _executed(material, row) for row in reversed(material.plan)}

    def executed(row: ablation.Row) -> str:
        return cost_text(row["flops.executed"] / alone[row["method"], row["sparsity"]], ".3f")

    more = [Column("executed", executed, "FLOPs of the method alone")]
    return ablation.table("around", "SpFDE around other methods", material, pairs, NOTES, more=more, parted_by="method")


def _executed(material: Material, row: ablation.Row) -> float:
    return material.costs(row)["flops.executed"]
