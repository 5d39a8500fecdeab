import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import matplotlib.image
import pandas as pd
import pytest

from spfde.errors import SpfdeError
from spfde.results import figures, tables
from spfde.results.figures import FIGURES, figure1, figure4, make, style, tradeoff
from spfde.results.material import SECONDS, gather

DRAWN = sorted({*FIGURES} - {"budget"})  # which has rows at its own scales alone: test_budget.py


@pytest.mark.parametrize("name", DRAWN)
def test_figures_are_whole_and_the_same_each_time(name: str, smoke: Path) -> None:
    folder = smoke / "smoke" / "figures"
    paths = make(name, "smoke", smoke)
    assert paths == [folder / f"{name}.{suffix}" for suffix in ("png", "svg", "csv")]
    first = [path.read_bytes() for path in paths]
    height, width = matplotlib.image.imread(paths[0]).shape[:2]
    assert width >= 200 * style.DOUBLE and height >= 200 * 3
    assert first[1].rstrip().endswith(b"</svg>") and b"<dc:date>" not in first[1]
    assert [path.read_bytes() for path in make(name, "smoke", smoke)] == first
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("name", DRAWN)
def test_figures_draw_published_records_and_rows_that_were_not_run(name: str, cifar100: Path) -> None:
    assert all(path.stat().st_size for path in make(name, "cifar100", cifar100))


def said(name: str, results: Path) -> str:
    """What stands in the place of a figure that cannot be drawn."""
    with style.publication(name):
        return "\n".join(text.get_text() for text in figures.draw(name, "smoke", results).figure.texts)


def test_what_was_not_run_or_has_no_rows_is_said_in_the_place_of_a_figure_or_table(smoke: Path, tmp_path: Path) -> None:
    shutil.copytree(smoke / "smoke/plans", tmp_path / "smoke/plans")
    (tmp_path / "smoke/plans/figure4.json").write_text("[]")
    for name, state in {"timeline": "not run", "figure3": "not run", "figure4": "not at this scale"}.items():
        _, svg, points = make(name, "smoke", tmp_path)
        assert points.read_text() == "row,seed\n"
        assert state in said(name, tmp_path).splitlines()
        assert svg.stat().st_size > 0
    (tmp_path / "smoke/plans/gse.json").write_text("[]")
    text = tables.make("gse", "smoke", tmp_path)[0].read_text()
    assert "| not at this scale |" in text and "No row of experiment gse belongs to scale smoke." in text


def test_tradeoff_draws_means_and_published_points_apart(cifar100: Path, fakes: SimpleNamespace) -> None:
    with style.publication("tradeoff"):
        drawing = tradeoff.draw(gather("cifar100", cifar100, "table2"))
    lines = [line for line in drawing.figure.axes[0].lines if line.get_marker() == "D"]
    (hollow,) = [line for line in lines if line.get_markerfacecolor() == "white"]
    assert (hollow.get_xdata()[0], hollow.get_ydata()[0]) == pytest.approx((0.96, 71.02))
    means = {line.get_ydata()[0] for line in lines if line is not hollow}
    by_hand = [fakes.accuracy(fakes.settings("cifar100", "spfde", 0.9, 0.25, seed)) for seed in (1, 2, 3)]
    assert any(mean == pytest.approx(sum(by_hand) / 3) for mean in means) and len(means) == 4


def test_spfde_without_freezing_and_sieving_is_told_from_its_levels(fakes: SimpleNamespace, tmp_path: Path) -> None:
    runs = [fakes.settings("cifar100", *values) for values in (("set", 0.9), ("spfde", 0.9), ("spfde", 0.9, 0.2))]
    fakes.write_plan(tmp_path, "cifar100", runs)
    for run in runs:
        fakes.write_record(run, tmp_path / "cifar100/runs")
    with style.publication("tradeoff"):
        figure = tradeoff.draw(gather("cifar100", tmp_path, "table2")).figure
    assert {text.get_text() for text in figure.axes[0].texts} >= {"0%+0%", "20%+20%"}


def test_points_behind_the_figures(smoke: Path, fakes: SimpleNamespace) -> None:
    for name in DRAWN:
        make(name, "smoke", smoke)
    folder = smoke / "smoke" / "figures"
    tradeoff_points = pd.read_csv(folder / "tradeoff.csv").set_index(["row", "seed"])
    run = fakes.settings("smoke", "set", 0.95, seed=2)
    assert tradeoff_points.loc[(run.row, 2), "accuracy.test_last"] == fakes.accuracy(run)
    memory = pd.read_csv(folder / "figure4.csv").set_index("row")
    assert pd.isna(memory.loc["rigl-s98", "seed"])  # not run: the plan's, without a seed
    assert (
        memory.loc["rigl-s98", "paper_min"] == fakes.costs(fakes.settings("smoke", "rigl", 0.98))["memory"]["paper_min"]
    )
    timeline = pd.read_csv(folder / "timeline.csv")
    assert timeline["run_id"].unique().tolist() == [fakes.settings("smoke", "spfde", 0.9, 0.25).run_id]
    assert timeline["frozen_layers"].iloc[-1] == 5 / 8  # stem and two blocks of two layers, of eight


def test_smoke_figures_show_no_published_point(smoke: Path) -> None:
    with style.publication("tradeoff"):
        drawing = tradeoff.draw(gather("smoke", smoke, "table2"))
    faces = {line.get_markerfacecolor() for axes in drawing.figure.axes for line in axes.lines}
    assert "white" not in faces
    assert "reference" not in [text.get_text() for text in drawing.figure.legends[0].get_texts()]


def test_a_sparsity_without_measured_seconds_says_so(smoke: Path) -> None:
    material = gather("smoke", smoke, "table2")
    known = material.runs["sparsity.target"].map({0.9: 2.0, 0.95: 3.0})  # none at 98 %
    with style.publication("tradeoff"):
        figure = tradeoff.draw(replace(material, runs=material.runs.assign(**{SECONDS: known}))).figure
    said = [[text.get_text() for text in axes.texts] for axes in figure.axes[3:]]
    assert said == [[], [], ["not measured"]] and not len(figure.axes[5].get_xticks())


@pytest.mark.parametrize(("spfde", "others", "below_zero"), [(25.0, 14.0, False), (5.0, 5.0, True)])
def test_the_tradeoffs_axis_makes_room_for_levels_and_is_drawn_from_0_to_100(
    fakes: SimpleNamespace, tmp_path: Path, spfde: float, others: float, below_zero: bool
) -> None:
    runs = [run for run in fakes.rows("smoke") if run.sparsity.target in (0.0, 0.98)]
    fakes.write_plan(tmp_path, "smoke", runs)
    accuracies = {"dense": 99.0, "spfde": spfde}
    for run in runs:
        fakes.write_record(run, tmp_path / "smoke/runs", last=accuracies.get(run.sparsity.method, others))
    with style.publication("tradeoff"):
        figure = tradeoff.draw(gather("smoke", tmp_path, "table2")).figure
        figure.canvas.draw()
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    assert (low < 0) == below_zero and low > -40
    assert axes.spines["left"].get_bounds() == (max(0, low), min(100, high))
    assert all(0 <= tick <= 100 for tick in axes.get_yticks()) and len(axes.get_yticks()) >= 3
    labels = [text for text in axes.texts if text.get_text() == "25%+25%"]
    assert len(labels) == 1
    (_, top) = axes.transData.inverted().transform(labels[0].get_window_extent().max)
    assert top < spfde  # the label ends below its point


def test_the_dst_minimum_is_over_dynamic_methods_alone(fakes: SimpleNamespace, tmp_path: Path) -> None:
    """The static mask needs least of all, and is no dynamic method; the bars stand against the least of the others."""
    needs = {"static": 1e6, "set": 4e6, "rigl": 3e6, "mest-em": 2e6, "mest-ems": 5e6}
    rows = [fakes.planned(run) for run in fakes.rows("smoke") if run.sparsity.target == 0.9]
    for row in rows:
        row["memory"]["paper_min"] = needs.get(row["method"], 1.5e6)
        row["memory"]["paper_avg"] = 3e6
    path = tmp_path / "smoke" / "plans" / "figure4.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(rows))
    with style.publication("figure4"):
        drawn = figure4.draw(gather("smoke", tmp_path, "figure4")).figure
    assert "DST minimum (mest-em)" in [text.get_text() for text in drawn.legends[0].get_texts()]
    labels = [text.get_text() for text in drawn.axes[0].texts]
    assert labels.count("+50.0%") == 4 and "−25.0%" in labels  # averages of 3 and a minimum of 1.5, against 2 MB


def test_a_figure_that_cannot_be_drawn_says_why(
    fakes: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for experiment in ("table2", "figure4"):
        fakes.write_plan(tmp_path, "smoke", fakes.rows("smoke"), experiment)
    assert "finished run of SpFDE" in said("timeline", tmp_path)
    make("timeline", "smoke", tmp_path)
    make("tradeoff", "smoke", tmp_path)  # nothing was run: it says so and stands
    make("figure4", "smoke", tmp_path)
    folder = fakes.write_record(fakes.settings("smoke", "spfde", 0.9, 0.2), tmp_path / "smoke" / "runs")
    (folder / "layers.csv").unlink()
    assert "finished run of SpFDE" in said("timeline", tmp_path)  # a damaged record is named and left out
    assert f"{folder} is left out: layers.csv is missing" in capsys.readouterr().err
    with pytest.raises(SpfdeError, match='did you mean "tradeoff"'):
        make("tradeof", "smoke", tmp_path)


def test_methods_differ_in_marker_not_in_colour_alone() -> None:
    markers = [marker for _, marker in style.METHODS.values()]
    assert len(set(markers)) == len(markers)
    assert style.mark("unheard of") == style.mark("unheard of")


def test_layers_of_another_network_are_at_the_same_relative_depth() -> None:
    assert figure1.places(32) == [1, 3, 10, 18, 25, 32]
    assert figure1.places(8) == [1, 3, 5, 6, 8]


def test_analyses_are_read_and_a_missing_one_is_said(smoke: Path, tmp_path: Path) -> None:
    make("figure1", "smoke", smoke)
    points = pd.read_csv(smoke / "smoke" / "figures" / "figure1.csv")
    assert set(points["quantity"]) == {"similarity", "cka"} and set(points["seed"]) == {1, 2}
    shutil.copytree(smoke / "smoke" / "plans", tmp_path / "smoke" / "plans")
    assert "spfde analyse gradients --scale smoke --experiment figure3" in said("figure3", tmp_path)


def test_appendix_b_has_a_point_a_seed_and_the_plan_where_nothing_was_run(smoke: Path) -> None:
    make("appendix_b", "smoke", smoke)
    points = pd.read_csv(smoke / "smoke" / "figures" / "appendix_b.csv")
    assert points["scheme"].value_counts().to_dict() == {"single-shot": 3, "periodic": 3, "random": 1}
    random = points[points["scheme"] == "random"].iloc[0]
    assert pd.isna(random["seed"]) and random["flops.paper"] > 0
