"""The tables of SWAT (Raihan and Aamodt, NeurIPS 2020): sparse weights and activations, and the FLOPs they save."""

from spfde.methods import METHODS, Method
from spfde.results.labels import percent, tag
from spfde.results.material import Material
from spfde.results.tables import costs
from spfde.results.tables.costs import Row
from spfde.results.tables.table import Column, Table, cost_text

REDUCTION = "training_flops_reduction"
NOTES = [
    "Activations: share of the activations that the weight gradient leaves out, in each layer that of its weights. "
    "FLOPs saved: of training (*paper* column), against the dense row of the same network.",
]


def build(material: Material) -> Table:
    dense = {tag(row): material.costs(row)["flops.paper"] for row in material.plan if row["method"] == "dense"}

    def own(row: Row) -> Row:
        sparse = METHODS[row["method"]].activation_density is not Method.activation_density
        return {
            "activation_sparsity": row["sparsity"] if sparse else 0.0,
            "flops.reduction": 100 * (1 - material.costs(row)["flops.paper"] / dense[tag(row)]),
        }

    saved = "FLOPs saved (%)"
    columns = [
        Column("Activations", lambda row: percent(row["activation_sparsity"], none="–")),
        Column("paper", lambda row: cost_text(row["flops.reduction"], ".1f"), saved),
    ]
    if material.comparable:
        columns.append(Column("reference", lambda row: costs.reference_text(row, REDUCTION), saved))
    return costs.table(
        "swat",
        "SWAT: sparse weights and activations",
        material,
        NOTES,
        own,
        columns,
        quantities=["accuracy", REDUCTION],
    )
