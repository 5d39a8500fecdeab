"""What docs/measure.py takes of a scale's records for the method cards."""

import importlib.util
from pathlib import Path

import pytest

from spfde.experiments.resolve import expand

ROOT = Path(__file__).parents[2]


def test_a_method_is_shown_by_the_papers_comparison_beside_a_dense_network_trained_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = importlib.util.spec_from_file_location("measure", ROOT / "docs/measure.py")
    assert spec and spec.loader
    measure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(measure)
    runs = {
        (name, run.row, run.seed): run
        for name in ("table2", "swat", "deviations", "mest")
        for run in expand("digits", name)
    }
    told = {
        ("table2", "dense", 1): 99.0,
        ("table2", "dense", 2): 97.0,
        ("table2", "snip-s95", 1): 94.0,
        ("deviations", "snip-s90", 1): 92.0,  # 30 epochs on 384 images, as the two below
        ("swat", "dense", 1): 95.0,
        ("swat", "swat-u-s90", 1): 75.0,
        ("mest", "mest-s90-mest", 1): 90.0,  # with a tag, and the method's only one
        ("mest", "mest-em-s90-mest", 1): 91.0,
        ("table2", "mest-em-s95", 1): 84.0,
    }
    records = {runs[key].run_id: {"status": "finished", "accuracy": {"test_last": last}} for key, last in told.items()}
    monkeypatch.setattr(measure, "record_folders", lambda scale, results: [results / name for name in records])
    monkeypatch.setattr(measure, "read_json", lambda path, *_: records[path.parent.name])
    found = measure.methods("digits", Path("results")).set_index("method")
    shown = found[["row", "epochs", "mean", "n", "dense_mean", "dense_n"]].to_dict("index")
    names = ("row", "epochs", "mean", "n", "dense_mean", "dense_n")
    assert shown == {
        "dense": dict(zip(names, ("dense", 60, 98.0, 2, 98.0, 2), strict=True)),
        "snip": dict(zip(names, ("snip-s95", 60, 94.0, 1, 98.0, 2), strict=True)),
        "swat-u": dict(zip(names, ("swat-u-s90", 30, 75.0, 1, 95.0, 1), strict=True)),
        "mest-em": dict(zip(names, ("mest-em-s95", 60, 84.0, 1, 98.0, 2), strict=True)),
        "mest": dict(zip(names, ("mest-s90-mest", 30, 90.0, 1, 95.0, 1), strict=True)),
    }
