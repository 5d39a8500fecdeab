"""`spfde methods`: what every method is, for people and for programs."""

import json
import sys

import pytest

from spfde import cli
from spfde.methods import METHODS, Method, Options, register

FIELDS = ["name", "title", "paper", "year", "kind", "scope", "needs_dense_gradient", "options"]


@pytest.fixture
def described(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    return listed(capsys, monkeypatch)


def listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    return json.loads(shown(capsys, monkeypatch, "--json"))


def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["spfde", "methods", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    assert not stop.value.code and not err
    return out


def test_one_array_with_all_fields_of_all_methods(described: list[dict]) -> None:
    assert [method["name"] for method in described] == list(METHODS)
    for method in described:
        assert list(method) == FIELDS
        assert method["title"] and method["kind"] and method["scope"] in ("none", "layer", "global")
        assert isinstance(method["needs_dense_gradient"], bool)
        assert method["year"] is None or 2015 < method["year"] < 2030
        for option in method["options"].values():
            assert list(option) == ["default", "description"] and option["description"]


def test_the_order_is_that_of_the_tables(described: list[dict]) -> None:
    names = [method["name"] for method in described]
    assert names[:7] == ["dense", "small-dense", "static", "lottery", "snip", "grasp", "set"]
    assert names.index("set") < names.index("rigl") < names.index("mest") < names.index("spfde")


def test_methods_and_options_are_what_their_papers_say(described: list[dict]) -> None:
    known = {method["name"]: method for method in described}
    defaults = {
        "snip": {"samples": 100, "batch_norm": "training"},
        "grasp": {"per_class": 10, "temperature": 200.0, "parts": 2},
        "lottery": {"drop_fraction": 0.2},
        "dense": {},
        "small-dense": {},
        "static": {},
    }
    for name, options in defaults.items():
        assert {key: option["default"] for key, option in known[name]["options"].items()} == options
    assert {name: known[name]["scope"] for name in defaults} == {
        "dense": "none",
        "small-dense": "none",
        "static": "layer",
        "lottery": "global",
        "snip": "global",
        "grasp": "global",
    }
    dense_gradient = {name for name in defaults if known[name]["needs_dense_gradient"]}
    assert dense_gradient == {"snip", "grasp"} and known["rigl"]["needs_dense_gradient"]


def test_a_new_method_appears(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "toy", Method)  # removed again after the test

    @register
    class Toy(Method):
        name = "toy"
        title = "Toy"
        paper = "none"
        kind = "static"
        Options = Options

    assert listed(capsys, monkeypatch)[-1]["name"] == "toy"
    assert "\ntoy " in shown(capsys, monkeypatch)


def test_people_get_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(capsys, monkeypatch)
    assert all(f"\n{name} " in text for name in METHODS)
    assert "Frankle and Carbin, ICLR 2019" in text and 'batch_norm="training": ' in text
