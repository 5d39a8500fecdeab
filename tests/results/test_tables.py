import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from spfde.cli import app
from spfde.errors import SpfdeError
from spfde.results import reference
from spfde.results.labels import label, tag
from spfde.results.material import comparable, gather
from spfde.results.tables import make
from spfde.results.tables.render import markdown, page, tex
from spfde.results.tables.table import Column, Table, exponent, times_ten


@pytest.fixture(scope="module")
def paper(cifar100: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in make("table2", "cifar100", cifar100)}


@pytest.fixture(scope="module")
def digits(smoke: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in make("table2", "smoke", smoke)}


def cells(text: str, *first: str) -> list[str]:
    """The cells of the one Markdown row that begins with these."""
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    (found,) = [row for row in rows if row[: len(first)] == list(first)]
    return found


def test_means_equal_those_by_hand(smoke: Path, digits: dict[str, str], fakes: SimpleNamespace) -> None:
    a, b, c = (fakes.accuracy(fakes.settings("smoke", "spfde", 0.95, 0.2, seed)) for seed in (1, 2, 3))
    mean = (a + b + c) / 3
    std = (((a - mean) ** 2 + (b - mean) ** 2 + (c - mean) ** 2) / 2) ** 0.5
    row = cells(digits["table2.md"], "SpFDE", "95%", "20%", "20%")
    assert row[4:6] == [f"{mean:.2f} ± {std:.2f}", "3"]
    values = pd.read_csv(smoke / "smoke" / "tables" / "table2.csv").set_index("row").loc["spfde-s95-f20-d20"]
    assert values["accuracy.mean"] == pytest.approx(mean)
    assert values["accuracy.std"] == pytest.approx(std)
    flops = fakes.costs(fakes.settings("smoke", "spfde", 0.95, 0.2))["flops"]["paper"]
    assert values["flops.paper"] == pytest.approx(flops)
    assert row[6] == f"{flops / 1e12:.3f}"


def test_rows_stand_in_the_order_of_the_plan(smoke: Path, digits: dict[str, str], fakes: SimpleNamespace) -> None:
    rows = pd.read_csv(smoke / "smoke" / "tables" / "table2.csv")["row"]
    assert rows.tolist() == [run.row for run in fakes.rows("smoke")]


def test_not_run_is_said_and_has_the_costs_of_the_plan(digits: dict[str, str], fakes: SimpleNamespace) -> None:
    row = cells(digits["table2.md"], "RigL", "98%")
    assert row[4:6] == ["not run", "0"]
    planned = fakes.costs(fakes.settings("smoke", "rigl", 0.98))["flops"]["paper"]
    assert row[6] == f"{planned / 1e12:.3f}"
    assert "not run" in digits["table2.html"] and "not run" in digits["table2.tex"]


def test_values_a_seed_stand_behind_the_table(smoke: Path, digits: dict[str, str]) -> None:
    seeds = pd.read_csv(smoke / "smoke" / "tables" / "table2.seeds.csv")
    assert seeds.groupby("row").size().eq(3).all()
    table = pd.read_csv(smoke / "smoke" / "tables" / "table2.csv").set_index("row")
    means = seeds.groupby("row")["accuracy.test_last"].mean()
    assert table.loc[means.index, "accuracy.mean"].to_numpy() == pytest.approx(means.to_numpy())


def test_published_values_never_stand_on_the_smoke_scale(digits: dict[str, str]) -> None:
    for text in digits.values():
        assert "71.02" not in text and "70.36" not in text and "unverified" not in text
        assert "71.3" not in text.replace("71.30 ±", "")
    assert "published" not in digits["table2.csv"]
    assert "tests the machinery" in digits["table2.md"]


def test_published_values_carry_their_standing(paper: dict[str, str]) -> None:
    assert cells(paper["table2.md"], "MEST+EM&S", "90%")[6] == "71.30 ± 0.31 (unverified)"
    assert cells(paper["table2.md"], "MEST+EM&S", "95%")[10] == "0.96 (found)"
    assert cells(paper["table2.md"], "MEST+EM&S", "90%")[10] == "1.54 (unverified)"
    assert cells(paper["table2.md"], "SpFDE", "90%", "25%", "25%")[6] == "71.02 (derived)"
    assert cells(paper["table2.md"], "SpFDE", "90%", "10%", "10%")[6] == "not available"
    assert cells(paper["table2.md"], "SET", "98%")[10] == "0.26 (derived)"


def test_the_difference_to_the_published_flops_is_explained(paper: dict[str, str], fakes: SimpleNamespace) -> None:
    note = next(line for line in paper["table2.md"].splitlines() if "0.73 (found)" in line)
    for level, expected in ((0.2, 0.73 * 1.54), (0.25, 0.96)):
        cost = fakes.costs(fakes.settings("cifar100", "spfde", 0.9, level))["flops"]["paper"] / 1e15
        assert f"costs {cost:.4g}" in note
        assert f"{100 * (cost / expected - 1):+.1f}%" in note
    assert "freezing removes 20.8% of the FLOPs where 20% are wanted" in note
    assert "1.54 (unverified)" in note


def test_a_deviating_row_has_no_published_value(cifar100: Path) -> None:
    material = gather("cifar100", cifar100, "table2")
    row = next(row for row in material.plan if row["row"] == "mest-ems-s90")
    assert material.reference_value(row, "accuracy") is not None
    deviating = {**row, "row": "mest-ems-s90-readme"}
    assert tag(deviating) == "readme"
    assert material.reference_value(deviating, "accuracy") is None


def test_freezing_around_another_method_is_named() -> None:
    row = {
        "row": "rigl-s90-f20-d20",
        "method": "rigl",
        "title": "RigL",
        "sparsity": 0.9,
        "freezing": 0.2,
        "sieving": 0.2,
    }
    assert label(row) == "RigL + SpFDE"
    assert label({**row, "method": "new", "title": "New", "row": "new-s90", "freezing": 0, "sieving": 0}) == "New"
    assert label({**row, "method": "spfde", "title": "SpFDE", "row": "spfde-s90-f20-d20-erk"}) == "SpFDE (erk)"


def awkward() -> Table:
    values = pd.DataFrame({"name": ["a & b_c <i>#|", "100% {x} ~^\\ $"], "n": [1, 2]})
    columns = [
        Column("Name & co", lambda row: row["name"], "One %", False),
        Column("n", lambda row: str(row["n"]), "One %"),
    ]
    return Table("odd", "50% & <b>more</b>", values, columns, values, ["*Note* & <u>5%</u>"])


def test_tex_escapes_what_it_must(paper: dict[str, str]) -> None:
    for text in (tex(awkward()), paper["table2.tex"]):
        body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
        plain = re.sub(r"\\(?:textbackslash|textasciitilde|textasciicircum)\{\}|\\[&%$#_{}]", "", body)
        assert "%" not in plain and "#" not in plain and "~" not in plain
        assert plain.count("{") == plain.count("}")
        assert plain.count("$") % 2 == 0
        assert "_" not in plain.replace("tab:", "") and plain.isascii()
        for environment in ("table*", "tabular"):
            assert body.count(rf"\begin{{{environment}}}") == body.count(rf"\end{{{environment}}}") == 1
    columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", paper["table2.tex"])
    assert columns
    rows = [line for line in paper["table2.tex"].splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns[1])}


def test_html_escapes_and_loads_nothing(paper: dict[str, str]) -> None:
    odd = page(awkward())
    assert "<b>" not in odd and "<i>" not in odd and "<u>" not in odd
    assert "a &amp; b_c &lt;i&gt;#|" in odd and "<em>Note</em>" in odd
    for text in (odd, paper["table2.html"]):
        assert not re.search(r"(src|href)=|@import|url\(", text)
        found = re.search(r"<table>.*</table>", text, re.DOTALL)
        assert found
        tree = ElementTree.fromstring(re.sub(r"=(\w+)>", r'="\1">', found[0]))
        widths = {len(row) for row in tree.iter("tr") if row[0].tag == "td"}
        assert len(widths) == 1


def test_markdown_keeps_its_columns() -> None:
    text = markdown(awkward())
    row = next(line for line in text.splitlines() if "b_c" in line)
    assert r"#\|" in row


def test_exponents_are_those_of_engineers() -> None:
    assert exponent([1.32e16, 2.6e14]) == 15
    assert exponent([999.0]) == 0 and exponent([1000.0]) == 3
    assert exponent([]) == 0
    assert times_ten(15) == "×10¹⁵"


def test_unknown_tables_and_missing_plans_are_named(smoke: Path, tmp_path: Path) -> None:
    with pytest.raises(SpfdeError, match='did you mean "table2"'):
        make("tabel2", "smoke", smoke)
    with pytest.raises(SpfdeError, match="spfde plans table2 --scale smoke --out") as missing:
        make("table2", "smoke", tmp_path)
    command = missing.value.remedy.split("`")[1].split()
    app(command[1:], prog_name="spfde", standalone_mode=False)  # the remedy works
    assert make("table2", "smoke", tmp_path)
    with pytest.raises(SpfdeError, match='unknown scale "smok"; did you mean "smoke"'):
        make("table2", "smok", tmp_path)


def test_every_published_value_has_a_standing_and_a_range() -> None:
    values = reference.read()
    assert set(values["standing"]) <= set(reference.STANDINGS)
    assert (values["low"] <= values["high"]).all()
    keys = ["dataset", "model", "method", "sparsity", "freezing", "sieving", "quantity"]
    assert not values.duplicated(keys).any()


@pytest.mark.parametrize("scale", ["smoke", "cifar100"])
def test_a_scale_without_any_run_still_has_its_table(scale: str, fakes: SimpleNamespace, tmp_path: Path) -> None:
    fakes.write_plan(tmp_path, scale, fakes.rows(scale))
    make("table2", scale, tmp_path)
    values = pd.read_csv(tmp_path / scale / "tables" / "table2.csv")
    assert (values["status"] == "not run").all() and (values["costs_from"] == "plan").all()
    planned = [fakes.costs(run)["flops"]["paper"] for run in fakes.rows(scale)]
    assert values["flops.paper"].tolist() == pytest.approx(planned)


@pytest.mark.parametrize("paper_scale", [True, False])
def test_a_short_scale_on_the_papers_data_is_not_comparable(
    paper_scale: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config" / "scales").mkdir(parents=True)
    text = f"settings: {{training: {{epochs: 10}}}}\npaper: {str(paper_scale).lower()}\n"
    (tmp_path / "config" / "scales" / "quick.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert comparable("quick").empty != paper_scale
