"""Table 3 of the SpFDE paper: ResNet-50 on ImageNet; costs are planned, accuracies those of records."""

from spfde.results.labels import label
from spfde.results.material import Material
from spfde.results.tables import ablation
from spfde.results.tables.table import Table

NOTES = [
    "Compared with the dense row. Published rows: RigL with ERK, which our untagged RigL row has too; MEST's variant "
    "is not stated by its source and stands beside EM. SpFDE's own published row is not available.",
]


def build(material: Material) -> Table:
    return ablation.table(
        "table3",
        "ResNet-50 on ImageNet",
        material,
        ablation.against_first(material, lambda row: None, label),
        NOTES,
        ablation.Quantities(ratio="training_flops_vs_dense"),
        parted_by="method",
    )
