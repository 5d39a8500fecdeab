"""The one place where errors become lines: exit codes, last line of stderr, nothing heavy before it is needed."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import spfde
from spfde import cli
from spfde.errors import SpfdeError, Stopped


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["spfde", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    code = stop.value.code
    assert code is None or isinstance(code, int)
    return code or 0, *capsys.readouterr()


def raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command that raises an error."""

    def fail(error: BaseException) -> tuple[int, str, str]:
        monkeypatch.setattr(cli.app, "registered_commands", list(cli.app.registered_commands))
        cli.app.command("fail")(raising(error))
        return run(monkeypatch, capsys, "fail")

    return fail


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, capsys, "--version") == (0, f"spfde {spfde.__version__}\n", "")


def test_without_a_command_it_helps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(monkeypatch, capsys)
    assert (code, err) == (0, "")
    for command in ("train", "plan", "data", "collect", "table", "figure"):
        assert f"  {command} " in out


def test_seeds_whose_plans_differ_are_planned_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random freezing draws its epochs by the seed; everything else has one plan for all seeds."""
    words = ["plan", "--scale", "smoke", "--set", "sparsity.method=spfde", "--seed", "1", "--seed", "2", "--json"]
    code, out, _ = run(monkeypatch, capsys, *words)
    (alike,) = json.loads(out)
    assert code == 0 and alike["seed"] is None
    words[1:1] = ["--set", "freezing.scheme=random"]
    each = json.loads(run(monkeypatch, capsys, *words)[1])
    assert [row["seed"] for row in each] == [1, 2] and each[0]["frozen_blocks"] != each[1]["frozen_blocks"]
    text = run(monkeypatch, capsys, *words[:-1])[1]
    assert "spfde-s90-f20-d20 seed 1 " in text and "spfde-s90-f20-d20 seed 2 " in text


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trian"], "error: no such command 'trian'; did you mean 'train'?"),
        (["fly"], "error: no such command 'fly'; \"spfde --help\" lists what it takes"),
        (["train", "--fly"], 'error: no such option: --fly; "spfde train --help" lists what it takes'),
        (["data"], "error: missing argument 'name'; \"spfde data --help\" lists what it takes"),
        (["data", "digit"], 'error: unknown data set "digit"; did you mean "digits"?'),
    ],
)
def test_bad_input_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    assert run(monkeypatch, capsys, *words) == (2, "", line + "\n")


def test_bad_value_names_the_option(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(monkeypatch, capsys, "train", "--seed", "one")
    assert (code, out) == (2, "")
    assert err.startswith("error: invalid value for '--seed'") and err.count("\n") == 1 and ";" in err


def test_an_expected_error_says_cause_and_remedy(failing: Callable[..., tuple[int, str, str]]) -> None:
    assert failing(SpfdeError("it\nis broken", "mend it")) == (2, "", "error: it is broken; mend it\n")


def test_a_stopped_run_has_an_exit_code_of_its_own(failing: Callable[..., tuple[int, str, str]]) -> None:
    assert failing(Stopped("time is up", "run it again"))[0] == 75


def test_interrupt(failing: Callable[..., tuple[int, str, str]]) -> None:
    assert failing(KeyboardInterrupt()) == (130, "", "")


def test_an_unexpected_error_stays_one(failing: Callable[..., tuple[int, str, str]]) -> None:
    """A bug is not dressed up as bad input."""
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError())


def test_a_reader_may_leave() -> None:
    done = subprocess.run(
        f"{shlex.quote(sys.executable)} -m spfde --help | true; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
    )
    assert done.stderr == "" and done.returncode in (0, 1)  # as the reader leaves after or before the last line


@pytest.mark.parametrize(
    ("module", "words"),
    [("rocrate", ["crate", "--out", "x.zip", "--scale", "cifar100-short"]), ("nbformat", ["notebook", "cost"])],
)
def test_a_package_of_an_extra_that_is_missing_is_named(
    module: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`pip install spfde` brings neither."""
    monkeypatch.setitem(sys.modules, module, None)
    for name in [name for name in sys.modules if name.startswith(f"{module}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.chdir(Path(__file__).parents[2])
    code, _, said = run(monkeypatch, capsys, *words)
    assert code == 2
    assert (
        said.splitlines()[-1]
        == f"error: the package {module} is not installed; pip install 'spfde[workflow]' brings it"
    )


def test_help_imports_nothing_heavy() -> None:
    heavy = ("torch", "pandas", "numpy", "matplotlib", "sklearn")
    code = f"import sys, spfde.cli; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
