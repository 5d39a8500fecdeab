"""The registry of artefacts: every table, figure and notebook, what makes it, and what it depends on.

An artefact with an entry here is known to the command line, the workflow, the report and the notebooks: its rule, its
inputs and its files follow from the entry. Nothing is imported until an artefact is built.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

Kind = Literal["table", "figure", "notebook"]


class Files(NamedTuple):
    """The files of a kind of artefact in results/<scale>/<folder>/: the one that the report shows, and the others."""

    folder: str
    shown: str
    others: tuple[str, ...] = ()


FILES: dict[Kind, Files] = {
    "table": Files("tables", ".html", (".md", ".csv", ".tex", ".seeds.csv")),
    "figure": Files("figures", ".svg", (".png", ".csv")),
    "notebook": Files("notebooks", ".html"),
}


@dataclass(frozen=True)
class Artefact:
    """
    Args:
        name: its files' name without suffix.
        kind: table, figure or notebook.
        experiment: the experiment whose rows it shows.
        builder: module and function that make it, as "module:function". A table's or figure's function takes the
            `Material` of the experiment and the options; it returns a `Table` or a `Drawing`.
        options: keyword arguments of the builder, where one module makes several artefacts.
        analyses: analyses of snapshots that it reads, as "experiment.kind".
        timings: whether it reads what `spfde bench epochs` measured.
        by_hand: files of measured times (`spfde.results.measured`) that it reads where somebody wrote them.
        scales: scales that it is computed at, beside the one that is shown.
        shows: other artefacts that it contains, by their rules' names.
        plans: experiments whose plans it reads, beside its own.
        claims: whether it reads config/claims.yaml, for the protocol of a reduced scale.
        published: whether it reads the published records of every scale.
    """

    name: str
    kind: Kind
    experiment: str
    builder: str
    options: Mapping[str, Any] = field(default_factory=dict)
    analyses: tuple[str, ...] = ()
    timings: bool = False
    by_hand: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()
    shows: tuple[str, ...] = ()
    plans: tuple[str, ...] = ()
    claims: bool = False
    published: bool = False

    @property
    def rule(self) -> str:
        """The name of the rule that makes it, e.g. table_table2."""
        return f"{self.kind}_{self.name}"

    @property
    def caption(self) -> str:
        """The name of its caption in workflow/report/."""
        return self.rule if self.kind == "notebook" else self.name

    @property
    def label(self) -> str:
        """Its name in the report's menu."""
        return self.name.replace("_", " and ") if self.kind == "notebook" else self.name

    @property
    def module(self) -> str:
        return self.builder.partition(":")[0]

    @property
    def experiments(self) -> tuple[str, ...]:
        """All experiments that it reads, its own first."""
        shown = (experiment for name in self.shows for experiment in ARTEFACTS[name].experiments)
        return tuple(dict.fromkeys([self.experiment, *self.plans, *shown]))

    def load(self) -> Callable[..., Any]:
        """The builder, with its options."""
        module, _, function = self.builder.partition(":")
        return partial(getattr(importlib.import_module(module), function), **self.options)


def _table(name: str, builder: str = "", experiment: str = "", **more: Any) -> Artefact:
    return Artefact(name, "table", experiment or name, f"spfde.results.tables.{builder or f'{name}:build'}", **more)


def _figure(name: str, experiment: str = "", **more: Any) -> Artefact:
    return Artefact(name, "figure", experiment or name, f"spfde.results.figures.{name}:draw", **more)


def _notebook(name: str, experiment: str, **more: Any) -> Artefact:
    return Artefact(name, "notebook", experiment, "spfde.results.notebooks:render", **more)


def _levels(name: str, title: str) -> Artefact:
    return _table(name, "levels:build", options={"name": name, "title": title})


def _times(name: str, title: str, saving: str) -> Artefact:
    options = {"name": name, "title": title, "kind": saving}
    return _table(name, "timings:build", options=options, timings=True)


TABLES = {
    entry.name: entry
    for entry in (
        _table("table1", scales=("cifar100",)),
        _table("table2"),
        _table("table3"),
        _levels("tableA8", "Layer freezing alone"),
        _levels("tableA9", "Data sieving alone"),
        _levels("tableA10", "Freezing, sieving and both at equal reductions of training FLOPs"),
        _times("tableA11", "Measured epoch time under freezing", "freezing"),
        _times("tableA12", "Measured epoch time under sieving", "sieving"),
        _table("appendix_b"),
        _table("appendix_c"),
        _table("appendix_d"),
        _table("mest"),
        _table("swat"),
        _table("gse"),
        _table("around"),
        _table("deviations"),
        _table("budget"),
        _table("pilot"),
        _table("study", experiment="budget", plans=("table2", "appendix_b"), scales=("cifar100",), claims=True),
    )
}
FIGURES = {
    entry.name: entry
    for entry in (
        _figure("figure1", analyses=("figure1.similarity", "figure1.cka")),
        _figure("figure3", analyses=("figure3.gradients",)),
        _figure("figure4"),
        _figure("appendix_b"),
        _figure("budget", scales=("cifar100",), claims=True),
        _figure("tradeoff", "table2"),
        _figure("timeline", "table2"),
        _figure("scaling", by_hand=("scaling.csv",)),
    )
}
NOTEBOOKS = {
    entry.name: entry
    for entry in (
        _notebook("results", "table2", shows=("table_table2", "figure_budget", "figure_tradeoff"), published=True),
        _notebook("freezing_sieving", "table2", shows=("figure_timeline",)),
        _notebook("cost", "table2", shows=("figure_figure4",)),
    )
}
ARTEFACTS = {entry.rule: entry for entries in (TABLES, FIGURES, NOTEBOOKS) for entry in entries.values()}
FIRST_TABLE = "table2"  # the experiment of the overview's table
# The figures of the overview, by their titles there, the first one first.
FIRST_PAGE = {
    "budget": "Is SpFDE better than training shorter?",
    "tradeoff": "Accuracy against training FLOPs",
}
