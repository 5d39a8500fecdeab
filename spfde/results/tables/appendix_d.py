"""Appendix D of the SpFDE paper: CIFAR-10 with ResNet-32, and VGG-19 on CIFAR-10 and CIFAR-100."""

from spfde.results.labels import label, tag
from spfde.results.material import Material
from spfde.results.tables import ablation
from spfde.results.tables.table import Table

NOTES = ["Compared with the dense row of the same network and data. The paper's own numbers are not available."]


def build(material: Material) -> Table:
    pairs = ablation.against_first(material, tag, label)
    return ablation.table("appendix_d", "CIFAR-10 and VGG-19", material, pairs, NOTES)
