"""GSE's table (Heddes et al., 2024): where growth looks for gradients, beside other methods."""

from spfde.results.labels import percent
from spfde.results.material import Material
from spfde.results.published import STANDINGS
from spfde.results.tables import costs
from spfde.results.tables.table import Table, plus_minus

EXPERIMENT = "gse"
NOTE = (
    "Parentheses: how GSE draws the positions whose gradients it looks at. *Full* counts these gradients, *paper* "
    "does not. GSE starts from an Erdős–Rényi mask of its own, so at equal sparsity its FLOPs differ from the others'."
)


def build(material: Material) -> Table:
    return costs.table(
        "gse",
        "GSE: guided stochastic exploration",
        material,
        [NOTE, *_published(material)],
        quantities=["accuracy"],
    )


def _published(material: Material) -> list[str]:
    """What is published for GSE without the way it draws, so that it stands beside no row."""
    found = material.reference[(material.reference["method"] == "gse") & (material.reference["quantity"] == "accuracy")]
    values = [
        f"{plus_minus(row['low'], row['std'])} at {percent(row['sparsity'])} ({STANDINGS[row['standing']]})"
        for row in found.to_dict("records")
    ]
    return [f"Published accuracy (%) of GSE, the way of drawing not stated: {', '.join(values)}."] if values else []
