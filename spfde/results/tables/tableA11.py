"""Table A11 of the SpFDE paper: measured epoch time under freezing against the training FLOPs saved."""

from spfde.results.material import Material
from spfde.results.tables import timings
from spfde.results.tables.table import Table

EXPERIMENT = "tableA11"


def build(material: Material) -> Table:
    return timings.table("tableA11", "Measured epoch time under freezing", material, "freezing")
