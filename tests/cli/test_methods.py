"""`spfde methods`: what every method is, for people and for programs."""

import json
import sys

import pytest
from pydantic import ValidationError

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
        for option in method["options"].values():
            assert list(option) == ["default", "description"] and option["description"]


def test_masks_of_the_methods_that_drop_and_grow_by_layer_can_be_structured() -> None:
    able = {name for name, method in METHODS.items() if method.structured}
    mest = {"mest", "mest-em", "mest-ems", "mest-data-efficient", "spfde"}
    assert able == {"static", "set", "rigl", "set-itop", "rigl-itop", *mest}


def test_spfde_freezes_and_sieves_by_default_and_what_is_dense() -> None:
    assert METHODS["spfde"].defaults == {"freezing": {"flops_reduction": 0.2}, "sieving": {"removed": 0.2}}
    assert {name for name, method in METHODS.items() if not method.sparse} == {"dense", "small-dense"}
    assert {name for name, method in METHODS.items() if not method.uses_target} == {"dense"}


def test_methods_that_take_the_cross_entropy_of_samples() -> None:
    guided = {name for name, method in METHODS.items() if method.scores_classes}
    assert guided == {"snip", "grasp", "gse-uniform", "gse-grabo", "gse-graest"}


# Of each option, the bounds that it may have itself, and values just beyond those that it may not have.
BOUNDS = {
    "lottery": {"drop_fraction": ([], [0, 1])},
    "snip": {"samples": ([1], [0])},
    "grasp": {"per_class": ([1], [0]), "temperature": ([], [0]), "parts": ([1], [0])},
    "set": {"drop_fraction": ([], [0, 1]), "end": ([1], [0, 1.01])},
    "deepr": {"l1": ([0], [-1e-6]), "end": ([1], [0, 1.01])},
    "dsr": {"threshold": ([], [0]), "drop_fraction": ([], [0, 1]), "tolerance": ([], [0, 1])},
    "rigl": {"drop_fraction": ([], [0, 1]), "interval_steps": ([1], [0]), "end": ([1], [0, 1.01])},
    "set-itop": {
        "drop_fraction": ([], [0, 1]),
        "final_drop_fraction": ([0], [-1e-6, 1]),
        "interval_steps": ([1], [0]),
    },
    "rigl-itop": {"interval_steps": ([1], [0])},
    "mest": {"gradient_weight": ([0], [-1e-6]), "drop_fraction": ([], [0, 1])},
    "mest-ems": {"offset": ([], [0, 1])},
    "swat-u": {"interval_steps": ([1], [0])},
    "gse-uniform": {
        "gamma": ([], [0]),
        "drop_fraction": ([], [0, 1]),
        "interval_steps": ([1], [0]),
        "end": ([1], [0, 1.01]),
        "per_class": ([1], [0]),
    },
}


@pytest.mark.parametrize("name", BOUNDS)
def test_options_take_their_default_and_bounds_and_nothing_beyond(name: str) -> None:
    for option, (taken, refused) in BOUNDS[name].items():
        default = METHODS[name].Options.model_fields[option].default
        for value in [0.5 if default is None else default, *taken]:
            assert getattr(METHODS[name].Options(**{option: value}), option) == value
        for value in refused:
            with pytest.raises(ValidationError):
                METHODS[name].Options(**{option: value})


def test_the_order_is_that_of_the_tables(described: list[dict]) -> None:
    names = [method["name"] for method in described]
    assert names[:7] == ["dense", "small-dense", "static", "lottery", "snip", "grasp", "set"]
    assert names.index("set") < names.index("rigl") < names.index("mest") < names.index("spfde")


def test_methods_and_options_are_what_their_papers_say(described: list[dict]) -> None:
    known = {method["name"]: method for method in described}
    itop = {"regrown": "keep", "drop_fraction": 0.5, "final_drop_fraction": 0.005, "scale_interval": True}
    mest = {"regrown": "zero", "gradient_weight": 0.0, "first_mask": "random"}
    gse = {"scope": "global", "gamma": 1.0, "drop_fraction": 0.2, "interval_steps": 1000, "scale_interval": True}
    gse |= {"end": 0.6, "per_class": 10}
    defaults: dict[str, dict[str, object]] = {
        "snip": {"samples": 100, "batch_norm": "training"},
        "grasp": {"per_class": 10, "temperature": 200.0, "parts": 2},
        "lottery": {"drop_fraction": 0.2},
        "dense": {},
        "small-dense": {},
        "static": {},
        "set": {"regrown": "zero", "drop_fraction": 0.3, "decay": "none", "end": 0.75, "drop": "magnitude"},
        "deepr": {"scope": "layer", "l1": 1e-5, "end": 0.95},
        "dsr": {"threshold": 1e-3, "drop_fraction": 0.1, "tolerance": 0.1, "regrown": "exclude"},
        "rigl": {"regrown": "keep", "drop_fraction": 0.3, "interval_steps": 100, "scale_interval": True, "end": 0.75},
        "set-itop": itop | {"interval_steps": 1500},
        "rigl-itop": itop | {"interval_steps": 4000},
        "mest": mest | {"drop_fraction": 0.2},
        "mest-em": mest,
        "mest-ems": mest | {"preset": "flops", "offset": None},
        "mest-data-efficient": mest | {"preset": "scripts", "offset": None},
        "spfde": mest | {"preset": "scripts", "offset": None},
    }
    defaults |= {name: {"interval_steps": 10, "scale_interval": True} for name in ("swat-u", "swat-erk", "swat-m")}
    defaults |= dict.fromkeys(("gse-uniform", "gse-grabo", "gse-graest"), gse)
    assert set(defaults) == set(METHODS)
    for name, options in defaults.items():
        assert {key: option["default"] for key, option in known[name]["options"].items()} == options
    scopes = dict.fromkeys(("dense", "small-dense"), "none")
    scopes |= {
        name: "global" for name in known if name in ("lottery", "snip", "grasp", "dsr", "swat-m") or name[:3] == "gse"
    }
    assert {name: method["scope"] for name, method in known.items()} == dict.fromkeys(METHODS, "layer") | scopes
    dense_gradient = {name for name, method in known.items() if method["needs_dense_gradient"]}
    assert dense_gradient == {"snip", "grasp", "rigl", "rigl-itop", "swat-u", "swat-erk", "swat-m"}


def test_each_method_names_the_year_of_its_paper(described: list[dict]) -> None:
    years = {
        2018: ("set", "deepr"),
        2019: ("lottery", "snip", "dsr"),
        2020: ("small-dense", "grasp", "rigl", "swat-u", "swat-erk", "swat-m"),
        2021: ("set-itop", "rigl-itop", "mest", "mest-em", "mest-ems", "mest-data-efficient"),
        2022: ("spfde",),
        2024: ("gse-uniform", "gse-grabo", "gse-graest"),
        None: ("dense", "static"),
    }
    assert {method["name"]: method["year"] for method in described} == {
        name: year for year, names in years.items() for name in names
    }


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
