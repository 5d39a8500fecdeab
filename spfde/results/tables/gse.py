"""GSE's table (Heddes et al., 2024): where growth looks for gradients, beside other methods."""

from spfde.experiments.files import read_scale
from spfde.results.labels import percent
from spfde.results.material import Material
from spfde.results.reference import STANDINGS, read
from spfde.results.tables import costs
from spfde.results.tables.table import Table, plus_minus

NOTE = (
    "Parentheses: how GSE draws the positions whose gradients it looks at. *Full* counts these gradients, *paper* "
    "does not. GSE starts from an Erdős–Rényi mask of its own, so at equal sparsity its FLOPs differ from the others'."
)


def build(material: Material) -> Table:
    return costs.table(
        "gse",
        "GSE: guided stochastic exploration",
        material,
        [NOTE, *_reference(material)],
        quantities=["accuracy"],
    )


def _reference(material: Material) -> list[str]:
    """Published accuracies of GSE that fit no row: they do not say how GSE draws, and are after longer training."""
    if not material.comparable:
        return []
    values, data = read(), read_scale(material.scale).settings["data"]["name"]
    found = values[(values["dataset"] == data) & (values["method"] == "gse") & (values["quantity"] == "accuracy")]
    said = [
        f"{plus_minus(row['low'], row['std'])} at {percent(row['sparsity'])} with {row['model']} "
        f"({row['note']}; {STANDINGS[row['standing']]})"
        for row in found.to_dict("records")
    ]
    return [f"Published accuracy (%) of GSE, the way of drawing not stated: {', '.join(said)}."] if said else []
