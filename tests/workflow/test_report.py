"""The report in a browser: one file that opens offline, shows every table and figure, and whose links work."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from spfde.experiments.files import default_scale
from spfde.results import figures, overview, tables

ROOT = Path(__file__).parents[2]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
ROWS = "#app nav tbody tr"  # a line a result
EXPERIMENTS = ("table2", "figure4")
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="60" height="40"><rect width="60" height="40"/></svg>'


def fakes() -> Any:
    """The makers of fake records, which live beside the tests of results."""
    spec = importlib.util.spec_from_file_location("fakes", ROOT / "tests" / "results" / "conftest.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def fake_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report as the workflow makes it, of fake records: nothing is trained, and notebooks are stand-ins."""
    folder = tmp_path_factory.mktemp("report")
    for name in ("config", "notebooks", "profiles", "spfde", "workflow"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(ROOT / name, folder)
    home = folder / "results" / "smoke"
    make = fakes()
    runs = [run for run in make.rows("smoke") if run.sparsity.target in (0.0, 0.9)]
    for experiment in EXPERIMENTS:
        make.write_plan(folder / "results", "smoke", runs, experiment)
    for run in runs:
        make.write_record(run, home / "runs")
    tables.make("table2", "smoke", folder / "results")
    figures.make("tradeoff", "smoke", folder / "results")
    (home / "claims.json").write_text(json.dumps([{"verdict": "reproduced"}, {"verdict": "not run"}]))
    overview.write("smoke", folder / "results")
    target, choice = "results/smoke/report.html", ["--config", "scale=smoke", f"experiments={','.join(EXPERIMENTS)}"]
    for line in snakemake(folder, target, "--summary", *choice).splitlines()[1:]:  # what nobody made above
        path = folder / line.split("\t")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() and path.name != "report.html":
            text = SVG if path.suffix == ".svg" else f"<!doctype html><h1>{path.stem}</h1>"
            path.write_text(text if path.suffix in (".svg", ".html") else "")
    now = time.time()
    for path in home.rglob("*"):
        os.utime(path, (now, now))
    snakemake(folder, target, "--cores", "1", *choice)
    return folder / target


def snakemake(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rule train" not in done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("needs Chromium and its driver (Debian: apt-get install chromium chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    yield started
    started.quit()


def wait(browser: Any, condition: Callable[[Any], Any]) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 20).until(condition)


def count(browser: Any, selector: str) -> int:
    return len(browser.execute_script("return document.querySelectorAll(arguments[0])", selector))


def click(browser: Any, selector: str, text: str = "") -> None:
    """Clicks the first element of that selector that has the text."""

    def clicked(browser: Any) -> bool:
        script = (
            "const found = [...document.querySelectorAll(arguments[0])].find(e => e.textContent.trim() == arguments[1]"
            " || !arguments[1]); if (found) found.click(); return Boolean(found)"
        )
        return bool(browser.execute_script(script, selector, text))

    wait(browser, clicked)


def content(browser: Any) -> str:
    """What stands in the frame on the right, once it is loaded: text of a page, or its size for an image."""
    from selenium.webdriver.common.by import By

    script = (
        "const image = document.querySelector('#app > div > div:last-child img');"
        "return image && image.complete && image.naturalWidth ? 'image ' + image.naturalWidth : ''"
    )
    frames = browser.find_elements(By.CSS_SELECTOR, "#app iframe")
    if not frames:
        return str(wait(browser, lambda browser: browser.execute_script(script)))
    browser.switch_to.frame(frames[0])
    try:
        return str(wait(browser, lambda browser: browser.execute_script("return document.body.innerText.trim()")))
    finally:
        browser.switch_to.default_content()


def check(browser: Any, report: Path) -> None:
    browser.get(report.as_uri())
    wait(browser, lambda browser: count(browser, "#app nav li"))
    categories = browser.execute_script("return categories")
    results = browser.execute_script("return results")
    assert sorted(categories, key=str.casefold)[0].strip() == "Overview"
    assert {"Tables", "Figures", "Notebooks"} <= set(categories)

    click(browser, "#app a", "overview")  # the link in the description
    assert "What was run" in content(browser)

    shown = 0
    for category, parts in sorted(categories.items()):
        for path in [path for paths in parts.values() for path in paths]:
            assert results[path]["caption"], f"{path} has no caption"
            assert results[path]["labels"], f"{path} has no label"
            browser.execute_script("app.setView({navbarMode: 'menu'})")
            click(browser, "#app nav li a", category.strip())
            wait(browser, lambda browser: count(browser, ROWS))
            label = next(iter(results[path]["labels"].values()))
            place = browser.execute_script(
                "return [...document.querySelectorAll(arguments[0])]"
                ".findIndex(row => row.cells[0].textContent == arguments[1])",
                ROWS,
                label,
            )
            assert place >= 0, f"{path} is not in the menu"
            click(browser, f"{ROWS}:nth-child({place + 1}) a")  # the eye
            assert content(browser), f"{path} shows nothing"
            shown += 1
    assert shown == len(results)

    for name in ("Workflow", "Statistics"):
        browser.execute_script("app.setView({navbarMode: 'menu'})")
        click(browser, "#app nav li a", name)
        wait(browser, lambda browser: count(browser, "#app canvas, #app svg.marks"))

    errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not errors
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]
    assert asked and not [url for url in asked if url.startswith(("http", "ws"))]


def test_of_fake_records(browser: Any, fake_report: Path) -> None:
    check(browser, fake_report)


def test_of_the_default_scale(browser: Any) -> None:
    report = ROOT / "results" / default_scale() / "report.html"
    if not report.is_file():
        pytest.skip(f"needs {report}; `make reproduce` writes it")
    check(browser, report)
