"""Table A12 of the SpFDE paper: measured epoch time under sieving against the training FLOPs saved."""

from spfde.results.material import Material
from spfde.results.tables import timings
from spfde.results.tables.table import Table

EXPERIMENT = "tableA12"


def build(material: Material) -> Table:
    return timings.table("tableA12", "Measured epoch time under sieving", material, "sieving")
