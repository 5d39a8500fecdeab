"""The tables of MEST, SWAT and GSE."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from spfde.experiments.resolve import expand
from spfde.results import reference
from spfde.results.material import gather
from spfde.results.tables import gse, make, swat
from spfde.results.tables.render import markdown
from spfde.settings import RunSettings

LAYERS = "first+shortcut+classifier"


def scheme(run: RunSettings, name: str, tag: str) -> RunSettings:
    sparsity = run.sparsity.model_copy(update={"scheme": name, "dense_layers": LAYERS})
    return run.model_copy(update={"sparsity": sparsity, "tag": tag})


def table(name: str, scale: str, runs: list[RunSettings], results: Path, fakes: SimpleNamespace) -> tuple[str, str]:
    """The Markdown of a table of these rows and the path of its values."""
    fakes.write_plan(results, scale, runs, name)
    make(name, scale, results)
    path = results / scale / "tables" / f"{name}.md"
    return path.read_text(), str(path.with_suffix(".csv"))


def cells(text: str, title: str) -> list[list[str]]:
    """The cells under the columns of this title, column by column."""
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    head = next(row for row in rows if any(cell.endswith(title) for cell in row))
    body = rows[rows.index(head) + 2 :]
    return [[row[index] for row in body] for index, cell in enumerate(head) if cell.endswith(title)]


def mest(fakes: SimpleNamespace, scale: str) -> list[RunSettings]:
    plain = fakes.settings(scale, "mest-ems", 0.9)
    schemes = [("unstructured", "mest"), ("block", "block"), ("channel", "channel")]
    return [fakes.settings(scale, "dense"), *(scheme(plain, *kind) for kind in schemes)]


def test_mest_tells_its_rows_apart_by_scheme(fakes: SimpleNamespace, tmp_path: Path) -> None:
    runs = mest(fakes, "smoke")
    fakes.write_record(runs[2], tmp_path / "smoke" / "runs")
    text, values = table("mest", "smoke", runs, tmp_path, fakes)
    assert cells(text, "Method") == [["Dense", "MEST+EM&S", "MEST+EM&S", "MEST+EM&S"]]
    assert cells(text, "Scheme") == [["–", "unstructured", "block", "channel"]]
    frame = pd.read_csv(values)
    assert frame["status"].tolist() == ["not run", "not run", "run", "not run"]
    assert frame["accuracy.mean"][2] == pytest.approx(fakes.accuracy(runs[2]))
    assert frame["flops.paper"].tolist() == pytest.approx([fakes.costs(run)["flops"]["paper"] for run in runs])
    assert not frame.columns.str.startswith("reference").any()
    assert text.count("not run") >= 3


def test_mest_tells_every_row_apart_by_method_and_scheme(fakes: SimpleNamespace, tmp_path: Path) -> None:
    """The row that data-efficient training is compared with, too: it differs from MEST+EM&S in its bounds."""
    runs = [run for run in expand("cifar100", "mest", [1]) if run.sparsity.target == 0.9]
    text, _ = table("mest", "cifar100", runs, tmp_path, fakes)
    named = list(zip(*cells(text, "Method"), *cells(text, "Scheme"), strict=True))
    assert ("MEST+EM&S (scripts)", "unstructured") in named and "*scripts*" in text
    assert len(set(named)) == len(named)


def test_published_values_of_mest_are_of_its_unstructured_rows(fakes: SimpleNamespace, tmp_path: Path) -> None:
    text, _ = table("mest", "cifar100", mest(fakes, "cifar100"), tmp_path, fakes)
    ((_, *shown),) = cells(text, "reference")
    assert shown == ["71.30 ± 0.31 (unverified)", "not available", "not available"]


def test_swat_saves_flops_against_dense(fakes: SimpleNamespace, tmp_path: Path) -> None:
    runs = [fakes.settings("smoke", "dense"), *(fakes.settings("smoke", name, 0.9) for name in ("set", "swat-u"))]
    text, values = table("swat", "smoke", runs, tmp_path, fakes)
    assert cells(text, "Activations") == [["–", "–", "90%"]]
    assert pd.read_csv(values)["flops.reduction"].tolist() == pytest.approx([0, 90, 90])  # density 0.1 of dense
    assert cells(text, "paper")[0] == ["0.0", "90.0", "90.0"]
    vgg = [fakes.settings("cifar100", *kind).model_copy(update={"tag": "vgg16"}) for kind in (("dense",), ("set", 0.9))]
    fakes.write_plan(tmp_path, "cifar100", [fakes.settings("cifar100", "dense"), *vgg], "swat")
    frame = swat.build(gather("cifar100", tmp_path, "swat")).values
    assert frame["flops.reduction"].tolist() == pytest.approx([0, 0, 90])  # each network against its own dense row
    assert "reference" not in pd.read_csv(values).columns.str.cat()


def against(name: str, published_for: tuple[str, str], runs: list[RunSettings], results: Path, fakes: Any) -> str:
    """The Markdown of a table of these rows, none of them run, beside what is published for a data set and model."""
    fakes.write_plan(results, "cifar100", runs, name)
    values = reference.read()
    values = values[(values["dataset"] == published_for[0]) & (values["model"] == published_for[1])]
    material = dataclasses.replace(gather("cifar100", results, name), reference=values)
    return markdown({"swat": swat, "gse": gse}[name].build(material))


def test_published_savings_of_swat_stand_beside_ours(fakes: SimpleNamespace, tmp_path: Path) -> None:
    kinds = [("dense", 0.0), ("swat-u", 0.8), ("swat-u", 0.9)]
    runs = [fakes.settings("cifar100", *kind) for kind in kinds]
    saved, accuracy = cells(against("swat", ("imagenet", "resnet50"), runs, tmp_path, fakes), "reference")
    assert saved == ["not available", "76.1 (found)", "85.6 (found)"]
    assert accuracy[1:] == ["75.20 ± 0.06 (found; recipe swat-imagenet)", "72.10 ± 0.03 (found; recipe swat-imagenet)"]


def test_gse_says_what_is_published_without_the_way_of_drawing(fakes: SimpleNamespace, tmp_path: Path) -> None:
    runs = [fakes.settings("cifar100", name, 0.98) for name in ("set", "gse-uniform", "gse-graest")]
    text = against("gse", ("cifar100", "resnet56"), runs, tmp_path, fakes)
    assert "54.30 ± 0.50 at 98% with resnet56 (200 epochs; found)" in text
    assert cells(text, "reference") == [["not available"] * 3]
    smoke, _ = table("gse", "smoke", [fakes.settings("smoke", "gse-uniform", 0.98)], tmp_path, fakes)
    assert "54.3" not in smoke and cells(smoke, "mean ± std") == [["not run"]]
