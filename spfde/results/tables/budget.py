"""Is SpFDE better than training shorter? Each row beside plain training for fewer epochs at no fewer FLOPs."""

from typing import Any

from spfde.errors import NotRun
from spfde.results.comparators import comparators, epochs_of, is_plain
from spfde.results.labels import levels, tag
from spfde.results.material import Material
from spfde.results.tables import ablation
from spfde.results.tables.table import Column, Table

NOTE = (
    "Compared with: the same sparse training without freezing and sieving, for fewer epochs: of such rows the one with "
    "the next higher FLOPs. All schedules run to their end, so it is no truncated run. A ratio of 0.97 means that the "
    "row has 3 % fewer FLOPs than the one compared with."
)

KINDS = {
    "random": "",  # the notes of every ablation explain it
    "once": "*once*: the easiest samples are removed once and for good, as MEST does.",
    "every1": "*every1*: samples are exchanged after every epoch.",
    "wide": "*wide*: ResNet-32 with doubled widths, the paper's network.",
}


def build(material: Material) -> Table:
    """A row for each planned row of the experiment, plain ones by their epochs first.

    Raises:
        NotRun: the experiment has no plain row at this scale.
    """
    if not any(map(is_plain, material.plan)):
        raise NotRun("no plain sparse training belongs to this experiment here", "name a scale that has such rows")
    others = comparators(material.plan)
    ordered = sorted(material.plan, key=lambda row: (row["blocks"], not is_plain(row), epochs_of(row)))
    pairs = [ablation.Pair({**row, "part": _part(row)}, _name(row), others.get(row["row"])) for row in ordered]
    against = {row: f"plain, {epochs_of(other)} epochs" for row, other in others.items()}
    columns = [
        Column("Epochs", lambda row: str(len(row["frozen_blocks"]))),
        Column("Compared with", lambda row: against.get(row["row"], "–"), numeric=False),
    ]
    title = "Training budget: SpFDE beside plain training for fewer epochs"
    notes = [NOTE, *(note for kind, note in KINDS.items() if note and kind in map(_kind, material.plan))]
    return ablation.table("budget", title, material, pairs, notes, more=columns, parted_by="part")


def _name(row: dict[str, Any]) -> str:
    """What the row does; its epochs, which most tags tell, have a column of their own."""
    name = "plain" if is_plain(row) else levels(row)
    return f"{name}: {_kind(row)}" if _kind(row) in KINDS else name


def _kind(row: dict[str, Any]) -> str:
    return tag(row).rstrip("0123456789") if tag(row).startswith("wide") else tag(row)


def _part(row: dict[str, Any]) -> str:
    """Rows of one network that are plain, or not."""
    return f"{row['blocks']} {is_plain(row)}"
