"""The CIFAR tables of MEST (Yuan et al., NeurIPS 2021): its variants, and structured sparsity beside unstructured."""

from spfde.results.labels import tag
from spfde.results.material import Material
from spfde.results.tables import costs
from spfde.results.tables.costs import Row
from spfde.results.tables.table import Column, Table

OWN_LAYERS = "mest"  # the tag of unstructured rows with the dense layers of MEST's code, as its published rows have
NOTES = [
    "As in MEST's code the first convolution, the shortcuts and the classifier are dense. Block: 4 neighbouring "
    "filters share a mask; pattern: 3x3 kernels of four weights, and whole kernels off; channel: input channels of a "
    "layer; N:M: N of M consecutive weights are kept, which fixes the sparsity.",
    "*scripts*: with the upper bounds of MEST's scripts, as data-efficient training, which is compared with it.",
]


def build(material: Material) -> Table:
    return costs.table(
        "mest",
        "MEST: variants and sparsity schemes",
        material,
        NOTES,
        own=lambda row: {"method": _method(row), "scheme": row["sparsity_scheme"] if row["sparsity"] else ""},
        more=[Column("Scheme", lambda row: row["scheme"] or "–", numeric=False)],
        plain=_plain,
        quantities=["accuracy"],
    )


def _method(row: Row) -> str:
    """Its title; the scheme has a column of its own, and what else tells a row apart stands in parentheses."""
    _, _, other = tag(row).partition(f"{OWN_LAYERS}.")
    return f"{row['title']} ({other})" if other else str(row["title"])


def _plain(row: Row) -> Row:
    """A row with MEST's own layers under the name it has without the tag."""
    return {**row, "row": row["row"].removesuffix(f"-{OWN_LAYERS}")} if tag(row) == OWN_LAYERS else row
