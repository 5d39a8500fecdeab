"""The verdicts as files: JSON for programs, Markdown and HTML for people; and how many there are of each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from spfde.files import write_json, write_text
from spfde.results.claims import DECIDED, VERDICTS
from spfde.results.tables.render import markdown, page
from spfde.results.tables.table import Column, Table
from spfde.results.trend import told

SHOWN = (
    "contradicted",
    "smaller than claimed",
    "undecided",
    "undecided (interim)",
    "reproduced",
    "by construction",
    "not run",
)
REDUCED = ("supported", "not supported", "undecided", "undecided (interim)")
NOTES = [
    "*Similar* is an equivalence test (two one-sided tests at 5 %), *more accurate* a test of superiority, *costs no "
    "more than* one of non-inferiority; a better result than claimed never contradicts. *Reproduced*: the effect is "
    "shown to lie where the sentence says. *Contradicted*: it is shown not to; for superiority, to be below the "
    "smallest effect of interest (half the published effect, else 0.2 points). *Smaller than claimed*: above 0, and "
    "below that. *Undecided*: neither is shown; *interim*: fewer seeds than were declared. *Not run*: there is nothing "
    "to decide it with. All comparisons of a claim must hold, and one that is contradicted is enough against it "
    "(Holm); only sentences of the paper itself are called contradicted.",
    "*By construction*: it follows from a definition, from a solver that was asked for it or from a preset that was "
    "chosen for it, so that no run could have come out otherwise. It is no evidence, and is counted apart.",
    "Effects on accuracy (points) come from runs at the paper's scale alone, by Welch's test; the interval has the "
    "level of the tests. Claims of no difference also need a positive control: dynamic above static sparsity in the "
    "same experiment. Costs and memory are computed from the planned trace of the paper's scale, so that they have no "
    "interval. Acceleration is that of the benchmark at the paper's scale, fresh or published; where there is none, "
    "that of the scale that ran. Of several comparisons the one that stands worst with the claim is shown.",
    "Seeds: how many each row needs for the claim to be shown with a probability of 80 % where it is true, at the "
    "spread between the runs at hand, or the median of the published ones (†) where there are none; > 200 includes "
    "where no number is enough, because the published mean is too uncertain.",
    "*At reduced scale*: what runs of a shortened schedule say, by margins and looks that were declared before them. "
    "These are never the paper's verdicts.",
    "Standing: how sure we are that the number is the paper's; no verdict rests on an unverified one.",
]


class Tally(NamedTuple):
    """How many verdicts there are of each, and how many of the tested ones chance alone may have made wrong.

    Attributes:
        counts: claims by verdict.
        reduced: claims by their words at reduced scale.
        tested: verdicts that rest on measured effects.
        false: at most how many of those are expected to be wrong by chance.
        reduced_tested: the same at reduced scale.
        reduced_false: the same at reduced scale.
    """

    counts: dict[str, int]
    reduced: dict[str, int]
    tested: int
    false: float
    reduced_tested: int
    reduced_false: float

    @property
    def decided(self) -> int:
        return sum(self.counts[verdict] for verdict in DECIDED)

    @property
    def sentences(self) -> list[str]:
        """The tally in words: what is decided, what holds by construction, and the false ones to expect."""
        counts, total = self.counts, sum(self.counts.values())
        kinds = ", ".join(f"{counts[verdict]} {verdict}" for verdict in DECIDED if counts[verdict])
        open_ones = counts["undecided"] + counts["undecided (interim)"]
        said = [
            f"{total} claims: {self.decided} decided{f' ({kinds})' if kinds else ''}, {open_ones} undecided, "
            f"{counts['by construction']} by construction, {counts['not run']} not run.",
            f"{self.tested} verdicts rest on measurements that vary by chance; at most {self.false:.2g} false ones are "
            "to be expected among them."
            if self.tested
            else "No verdict rests on measurements that vary by chance, so that no false ones are to be expected.",
        ]
        if any(self.reduced.values()):
            words = ", ".join(f"{count} {word}" for word, count in self.reduced.items() if count)
            tested, wrong = self.reduced_tested, f"{self.reduced_false:.2g}"
            false = f"; at most {wrong} false ones are to be expected among the {tested} tested" if tested else ""
            said.append(f"At reduced scale, which decides nothing of the paper: {words}{false}.")
        return said


def tally(verdicts: Sequence[Mapping[str, Any]]) -> Tally:
    """Counts the entries of claims.json."""
    counts: dict[str, int] = {verdict: sum(entry["verdict"] == verdict for entry in verdicts) for verdict in VERDICTS}
    tested = [
        entry["evidence"]["error_rate"]
        for entry in verdicts
        if entry["verdict"] in (*DECIDED, "undecided") and entry.get("evidence", {}).get("error_rate")
    ]
    found = [entry["reduced"] for entry in verdicts if entry.get("reduced")]
    reduced = {word: sum(each["verdict"] == word for each in found) for word in REDUCED}
    rates = [each["error_rate"] for each in found if each["verdict"] in REDUCED[:3]]
    return Tally(counts, reduced, len(tested), sum(tested), len(rates), sum(rates))


def write(verdicts: list[dict[str, Any]], scale: str, folder: Path) -> list[Path]:
    """Writes claims.json, claims.md and claims.html into `folder`, each whole; returns their paths."""
    shown = table(verdicts, scale)
    paths = [folder / f"claims.{suffix}" for suffix in ("json", "md", "html")]
    write_json(paths[0], verdicts)
    write_text(paths[1], markdown(shown))
    write_text(paths[2], page(shown))
    return paths


def table(verdicts: list[dict[str, Any]], scale: str) -> Table:
    """One row for each claim. Decided claims come first, and among them those that contradict the paper."""
    ordered = sorted(verdicts, key=lambda row: SHOWN.index(row["verdict"]))
    found = tally(verdicts)
    columns = [
        Column("Claim", lambda row: row["id"], numeric=False),
        Column("Verdict", lambda row: row["verdict"], numeric=False),
        Column("What the paper says", lambda row: row["claim"], numeric=False, wraps=True),
        Column("Test", lambda row: row["test"], numeric=False),
        Column("Published", _published),
        Column("Effect [interval]", _effect),
        Column("n", lambda row: str(row["evidence"]["n"])),
        Column("Seeds", _seeds),
        *([Column("At reduced scale", _reduced, numeric=False, wraps=True)] if any(found.reduced.values()) else []),
        Column("Standing", lambda row: row["published"]["standing"], numeric=False),
        Column("From", _origin, numeric=False, wraps=True),
        Column("Source", lambda row: row["source"], numeric=False, wraps=True),
    ]
    return Table(
        "claims",
        f"{found.sentences[0].removesuffix('.')} (scale {scale})",
        pd.DataFrame(ordered),
        columns,
        pd.DataFrame({"claim": ordered}),
        [" ".join(found.sentences[1:]), *NOTES, *_trend(ordered)],
        parted_by="verdict",
    )


def _trend(verdicts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the trend of a reduced scale says, beside which its claims of no loss stand."""
    found = (entry["reduced"] for entry in verdicts if entry.get("reduced"))
    return list(dict.fromkeys(told(each["trend"]) for each in found if each["trend"]))


def _published(row: dict[str, Any]) -> str:
    low, high, margin = (row["published"][key] for key in ("low", "high", "margin"))
    if low is None and high is None:
        own = [each for each in row["published"]["comparisons"] if each]
        ends = sorted({bound for each in own for bound in (each["low"], each["high"]) if bound is not None})
        text = " to ".join(f"{bound:.4g}" for bound in dict.fromkeys((ends[0], ends[-1]))) if ends else "–"
    elif low is None or high is None:
        text = f"≤ {high:.4g}" if low is None else f"≥ {low:.4g}"
    else:
        text = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
    return f"{text} (± {margin:.2g})" if margin else text


def _effect(row: dict[str, Any]) -> str:
    evidence = row["evidence"]
    if evidence["effect"] is None:
        return "–"
    interval = " [{:.4g}, {:.4g}]".format(*evidence["interval"]) if evidence["interval"] else ""
    lost = f"; {evidence['diverged']} of {evidence['runs']} diverged" if evidence.get("diverged") else ""
    return f"{evidence['effect']:.4g}{interval}{lost}"


def _seeds(row: dict[str, Any]) -> str:
    power = row["evidence"].get("power")
    if not power or power["at_n"] is None:
        return "–"
    assumed = "" if power["std_from"] == "records" else "†"
    return f"{power['seeds_needed'] or '> 200'}{assumed}"


def _reduced(row: dict[str, Any]) -> str:
    found = row.get("reduced")
    if not found or found["verdict"] == "not run":
        return "–" if not found else "not run"
    others = (_stands_in(here, there) for there, here in found["rows"].items())
    where = ", ".join([found["scale"], *others, f"n = {found['n']}"])
    return "; ".join([f"{found['verdict']} at reduced scale ({where}){_numbers(found)}", *_remarks(found)])


def _numbers(found: Mapping[str, Any]) -> str:
    """The effect with its interval; nothing where no runs can be compared."""
    if found["effect"] is None:
        return ""
    interval = "" if found["low"] is None else f" [{found['low']:+.2f}, {found['high']:+.2f}]"
    return f": {found['effect']:+.2f}{interval}"


def _remarks(found: Mapping[str, Any]) -> list[str]:
    """The other intervals of the effect, what diverged, and the reason of the word."""
    intervals = {"pooled": found["pooled_interval"], "for new images": found["new_images"]}
    said = [f"{name} [{ends[0]:+.2f}, {ends[1]:+.2f}]" for name, ends in intervals.items() if ends]
    if found["evidence"]["diverged"]:
        said.append(f"{found['evidence']['diverged']} of {found['evidence']['runs']} diverged")
    return [*said, found["reason"]] if found["reason"] else said


def _stands_in(here: str, there: str) -> str:
    """What a part of a row's name says, e.g. "80 % sparsity for 90 %"."""
    of = {"s": "sparsity", "f": "of FLOPs frozen", "d": "of data removed"}.get(here[0])
    return f"{here[1:]} % {of} for {there[1:]} %" if of else f"{here} for {there}"


def _origin(row: dict[str, Any]) -> str:
    said = [f"{row['evidence']['from']}: {row['evidence']['reason']}".removesuffix(": "), row.get("note", "")]
    return "; ".join(part for part in said if part)
