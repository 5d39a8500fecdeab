"""The overview says what was run, on what, and what came out."""

import json
import re
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from spfde.errors import SpfdeError
from spfde.results.material import gather
from spfde.results.overview import headline, page


def facts(text: str) -> dict[str, str]:
    return {name: unescape(value) for name, value in re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", text)}


def test_what_was_run_and_on_what(smoke: Path) -> None:
    said = facts(page("smoke", smoke))
    assert re.match("smoke: digits, resnet8, [0-9]+ epochs; it tests the machinery", said["Scale"])
    assert said["Seeds"] == "1, 2, 3" and said["Sparsities"] == "90%, 95%, 98%"
    summaries = [json.loads(path.read_text()) for path in (smoke / "smoke/runs").glob("*/summary.json")]
    planned = {row["row"] for path in (smoke / "smoke/plans").iterdir() for row in json.loads(path.read_text())}
    missing = planned - {summary["row"] for summary in summaries}
    assert said["Runs"] == f"n = {len(summaries)}, of which 0 are published records"
    assert "rigl-s98" in missing
    assert said["Rows"] == (f"{len(planned - missing)} of {len(planned)} planned rows were run; {len(missing)} not run")
    assert said["Device"] == "cpu" and said["torch"] == "2" and "c0de" in said["spfde"]
    assert said["Time"] == f"{len(summaries) * 3.5 / 60:.1f} minutes of training, summed over the runs"


def test_published_records_of_the_papers_scale(cifar100: Path) -> None:
    said = facts(page("cifar100", cifar100))
    assert "machinery" not in said["Scale"]
    count = len(list((cifar100 / "published/cifar100").iterdir()))
    assert said["Runs"] == f"n = {count}, of which {count} are published records"


def test_headline_is_relative_to_dense(smoke: Path) -> None:
    cells = {row[0]: row[1:] for row in headline(gather("smoke", smoke, "table2")).cells}
    assert list(cells) == [
        *("Dense", "static", "SET", "RigL", "mest-em", "MEST+EM&S"),
        *(f"SpFDE {level}%+{level}%" for level in (10, 15, 20, 25)),
    ]
    assert cells["Dense"][2:] == ["100.0%", "100.0%", "100.0%"]
    assert cells["SET"][1:4] == ["3", "10.0%", "100.0%"]
    assert cells["SpFDE 20%+20%"][2:4] == [f"{100 * 0.1 * 1.32 * 0.64:.1f}%", "64.0%"]


def test_headline_is_at_the_sparsity_with_the_most_runs(fakes: SimpleNamespace, tmp_path: Path) -> None:
    runs = [run for run in fakes.rows("smoke") if run.sparsity.method in ("dense", "set")]
    fakes.write_plan(tmp_path, "smoke", runs)
    for run in runs:
        for seed in (1, 2) if run.sparsity.target == 0.95 else (1,):
            fakes.write_record(run.model_copy(update={"seed": seed}), tmp_path / "smoke/runs")
    table = headline(gather("smoke", tmp_path, "table2"))
    assert table.title == "Table 2 at 95% sparsity" and table.values["row"].tolist() == ["dense", "set-s95"]


def test_verdicts_are_counted(smoke: Path, tmp_path: Path) -> None:
    shutil.copytree(smoke, tmp_path / "results")
    assert "not run</p>" in page("smoke", tmp_path / "results")  # no claims yet
    verdicts = ["reproduced"] * 3 + ["contradicted"] + ["by construction"] * 4 + ["not run"] * 2
    path = tmp_path / "results/smoke/claims.json"
    entries = [{"verdict": each, "claim": f"{each} < 1", "evidence": {"error_rate": 0.05}} for each in verdicts]
    path.write_text(json.dumps(entries))
    text = page("smoke", tmp_path / "results")
    assert "<li>contradicted &lt; 1</li>" in text and "reproduced &lt; 1" not in text
    counts = {name: count for count, name in re.findall(r"<div><strong>(\d+)</strong>(.*?)</div>", text)}
    assert counts == {
        "reproduced": "3", "smaller than claimed": "0", "undecided": "0", "undecided (interim)": "0",
        "contradicted": "1", "by construction": "4", "not run": "2",
    }  # fmt: skip
    assert "10 claims: 4 decided (3 reproduced, 1 contradicted)" in text
    assert "at most 0.2 false ones are to be expected" in text
    path.write_text("[{")
    with pytest.raises(SpfdeError, match=r"claims\.json cannot be read"):
        page("smoke", tmp_path / "results")


def test_one_file_that_loads_nothing(smoke: Path, tmp_path: Path) -> None:
    shutil.copytree(smoke, tmp_path / "results")
    figures = tmp_path / "results/smoke/figures"
    figures.mkdir(exist_ok=True)  # another test may have drawn some
    (figures / "tradeoff.svg").write_text("<svg/>")
    sources: list[str | None] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            sources.extend(value for name, value in attributes if name in ("src", "href"))

    text = page("smoke", tmp_path / "results")
    Reader().feed(text)
    assert len(sources) == 1 and str(sources[0]).startswith("data:image/svg+xml;base64,")
    assert "url(" not in text and "@import" not in text


def test_nothing_was_run(tmp_path: Path, fakes: SimpleNamespace) -> None:
    fakes.write_plan(tmp_path, "smoke", fakes.rows("smoke"))
    text = page("smoke", tmp_path)
    said = facts(text)
    assert said["Rows"] == "0 of 28 planned rows were run; 28 not run"
    assert said["Device"] == "not run" and "unknown" in said["Seeds"]
    assert text.count("not run</span>") == 10
