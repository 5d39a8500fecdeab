"""The Python examples of README.md and docs/own_model.md run as they are written."""

import importlib.util
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from spfde.errors import SpfdeWarning
from spfde.sieving import one_shot

ROOT = Path(__file__).parent.parent
OPTIONAL = ("timm", "lightning")


def examples(page: str) -> list[str]:
    """The Python blocks of a page, in order."""
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", ["README.md", "docs/own_model.md"])
def test_examples_run_one_after_the_other(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a folder `photos/train/<class>/`; what needs a package that is not installed is left out, and said."""
    pixels = np.random.default_rng(0)
    for number in range(18):
        path = tmp_path / "photos" / "train" / ("ant", "bee", "cat")[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(path)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, object] = {"__name__": "examples"}
    missing = [package for package in OPTIONAL if importlib.util.find_spec(package) is None]
    left_out = []
    for code in examples(page):
        needs = [package for package in missing if re.search(rf"^(import|from) {package}\b", code, re.MULTILINE)]
        left_out += needs
        if not needs:
            exec(compile(code, page, "exec"), names)
    if left_out:
        pytest.skip(f"not installed: {', '.join(left_out)}; the other examples ran")


@pytest.mark.parametrize("page", ["README.md", "docs/own_model.md"])
def test_the_first_example_freezes_and_sieves_without_a_warning(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPFDE_KERNELS", "dense")  # times nothing
    monkeypatch.setattr(one_shot, "_said", set())  # what is said once per process counts here too
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "examples"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpfdeWarning)
        exec(compile(examples(page)[0], page, "exec"), names)
    plan = names["sparse"].plan
    assert max(plan.schedule.counts) > 0 and plan.samples[0] < len(names["train_set"])


@pytest.mark.parametrize("page", ["README.md", "docs/own_model.md"])
def test_the_first_example_takes_less_than_ten_lines_of_spfde(page: str) -> None:
    code = examples(page)[0]
    ours = [line for line in code.splitlines() if re.search(r"spfde|sparse|settings|Indexed", line)]
    assert len(ours) < 10
