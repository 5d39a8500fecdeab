"""Appendix C of the SpFDE paper: data sieving, its readings and its controls."""

from spfde.results.labels import percent
from spfde.results.material import Material
from spfde.results.tables import ablation
from spfde.results.tables.table import Column, Table

TURNOVER = [
    Column("at an update", lambda row: percent(row["turnover"], "–"), "Turnover of the removed set"),
    Column("updates", lambda row: str(row["sieving_updates"]), "Turnover of the removed set"),
    Column("in all", lambda row: f"{row['turnover'] * row['sieving_updates']:.1f}×", "Turnover of the removed set"),
]
NOTES = [
    "The first row is the default; the others differ from it in one setting. *every1*, *every10*: epochs between "
    "exchanges; *easy*: samples never correct count as easy; *total*: the share is of the whole set; *any*: random "
    "samples come back instead of the queue's head; *once*: one removal as in data-efficient MEST, of as many samples "
    "and of so many that it costs what the default does.",
    "Turnover: share of the removed set that changes at an update, how many updates there are, and how often the whole "
    "set is renewed.",
]


def build(material: Material) -> Table:
    pairs = ablation.with_decided(material, ablation.against_first(material, lambda row: None, ablation.tagged))
    more = [*TURNOVER, ablation.DECIDED_COLUMN]
    return ablation.table("appendix_c", "Data sieving", material, pairs, [*NOTES, ablation.DECIDED_NOTE], more=more)
