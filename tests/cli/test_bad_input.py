"""Bad input, each with one clear line and exit code 2: settings, data, checkpoint, device, disk."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spfde.cli import main
from spfde.experiments.resolve import resolve
from spfde.training import checkpoint


def spfde(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Runs the command, which must fail with exit code 2; gives the last line of stderr."""
    monkeypatch.setattr(sys, "argv", ["spfde", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr()
    assert stop.value.code == 2 and said.out == "" and "Traceback" not in said.err
    return said.err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--set", "sparsity.metod=set"], 'error: unknown setting "sparsity.metod"; did you mean "method"?'),
        (
            ["--set", "sparsity.target=1.2"],
            "error: setting sparsity.target = 1.2 is not valid; input should be less than 1",
        ),
        (
            ["--set", "freezing.flops_reduction=0.9"],
            "error: freezing.flops_reduction = 0.9 is more than freezing can save",
        ),
        (["--set", "sparsity.method=sett"], 'error: unknown method "sett"; did you mean "set"?'),
        (["--set", "model.name=resnet9"], 'error: unknown model "resnet9"; did you mean "resnet'),
        (["--set", "sparsity.scheme=blok"], 'error: unknown scheme "blok"; did you mean "block"?'),
        (["--set", "sparsity.method=set", "--set", "sparsity.options={zetta: 1}"], "error: unknown setting"),
        (
            ["--set", "sparsity.method=set", "--set", "sparsity.interval=99"],
            "error: sparsity.interval = 99 is not shorter",
        ),
        (["--set", "sparsity"], 'error: "sparsity" is no setting; write --set key=value'),
        (["--set", "sparsity={"], "error: "),
        (["--device", "tpu"], 'error: unknown device "tpu"'),
        (["--experiment", "tabel2"], 'error: unknown experiment "tabel2"; did you mean "table2"?'),
        (["--scale", "smok"], 'error: unknown scale "smok"; did you mean "smoke"?'),
        (
            ["--row", "dense"],
            "error: --row dense is a row of an experiment, and no experiment is named; add",
        ),
        (["--set", "scale=../x"], "error: setting scale = '../x' is not valid; string should match pattern"),
        (["--set", "tag=$(x)"], "error: setting tag = '$(x)' is not valid; string should match pattern"),
        (["--set", "training.epochs=1000000000000"], "error: setting training.epochs = 1000000000000 is not valid"),
        (["--set", "tag={a: &a [*a]}"], 'error: "{a: &a [*a]}", the value of tag, has an alias to nothing'),
        (["--experiment", "../table2"], 'error: unknown experiment "../table2"'),
    ],
)
def test_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], line: str
) -> None:
    said = spfde(monkeypatch, capsys, "train", "--scale", "smoke", "--out", str(tmp_path), *words)
    assert said.startswith(line) and "; " in said
    assert not list(tmp_path.iterdir())


def test_a_row_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = spfde(
        monkeypatch, capsys, "train", "--scale", "smoke", "--experiment", "table2", "--row", "spfde-s90-f20-d21"
    )
    assert said.endswith('did you mean "spfde-s90-f20-d20"?')


def test_a_data_root_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["train", "--scale", "cifar100", "--data-root", str(tmp_path / "none"), "--cache", str(tmp_path / "cache")]
    assert "does not exist; name another one" in spfde(monkeypatch, capsys, *words)


def test_a_checkpoint_of_another_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stop = ["train", "--scale", "smoke", "--out", str(tmp_path), "--time-limit", "0", "--seed"]
    monkeypatch.setattr(sys, "argv", ["spfde", *stop, "1"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 75  # stopped resumably
    assert "run the same command again" in capsys.readouterr().err
    one, two = (checkpoint.path_of(tmp_path, resolve("smoke", {}, seed).run_id) for seed in (1, 2))
    shutil.copy(one, two)
    said = spfde(monkeypatch, capsys, *stop, "2")
    assert (
        said
        == f"error: checkpoint {two} belongs to {one.stem}, not to {two.stem}; remove {two} to train the run "
        + ("from its start")
    )


def test_a_full_disk(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        words = ["--set", "training.epochs=1", "--set", "data.train_limit=64", "--out", str(small)]
        command = [sys.executable, "-m", "spfde", "train", "--scale", "smoke", *words]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("error: no space left to write") and last.endswith(
            "; free some space or choose another folder"
        )
        assert not [path for path in small.rglob("*") if path.is_file()]
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize(
    ("words", "option", "of"),
    [
        ("steps --row frozen", "--row", "speed"),
        ("steps --device cuda:7", "--device", "epochs"),
        ("epochs --json", "--json", "speed"),
        ("scaling --scale smoke", "--scale", "epochs and steps"),
        ("--scale smoke", "--scale", "epochs and steps"),
        ("speed --samples 3", "--samples", "epochs"),
    ],
)
def test_a_benchmark_refuses_the_options_of_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, option: str, of: str
) -> None:
    kind = words.split()[0] if not words.startswith("--") else "speed"
    line = spfde(monkeypatch, capsys, "bench", *words.split())
    assert line == f"error: bench {kind} does not take {option}; leave it out; it is an option of bench {of}"


@pytest.mark.parametrize("more", [[], ["--seed", "2"], ["--experiment", "table2"], ["--budget-flops", "1e15"]])
def test_a_seed_is_given_in_one_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    line = spfde(monkeypatch, capsys, "plan", "--scale", "smoke", "--seed", "7", "--set", "seed=5", *more)
    assert line.startswith("error: --seed 7 and --set seed=5 both give the root seed; ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("data digits --cache FILE", "a file is where a folder should be"),
        ("data digits --cache FILE/x", "a file is where a folder should be"),
        ("data cifar10 --data-root FILE", "a file is where a folder should be"),
        ("train --out FILE --cache CACHE", "a file is where a folder should be"),
        ("train --out FILE/x --cache CACHE", "a file is where a folder should be"),
        ("train --out LONG --cache CACHE", "its name is too long"),
        ("train --out OUT --cache FILE", "a file is where a folder should be"),
        ("collect --results FILE", "a file is where a folder should be"),
        ("collect --results OUT --out FOLDER", "it is a folder"),
        ("overview --results FILE", "a file is where a folder should be"),
        ("plan --budget-flops 1e15 --write FOLDER", "it is a folder"),
    ],
)
def test_a_path_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, words: str, said: str
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    places = {name.upper(): str(tmp_path / name) for name in ("file", "folder", "out", "cache")}
    places["LONG"] = str(tmp_path / ("x" * 300))
    for name, place in places.items():
        words = words.replace(f" {name}", f" {place}")
    scale = [] if words.startswith("data") else ["--scale", "smoke"]
    line = spfde(monkeypatch, capsys, *words.split(), *scale)
    assert line.startswith("error: cannot write ") and f"({said}); choose another path" in line
    assert (tmp_path / "file").read_text() == "x" and not list((tmp_path / "folder").iterdir())
    assert not list(tmp_path.rglob("*.part"))


def test_nothing_leaves_the_folder_of_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A scale's name is a part of paths, in every command."""
    home = tmp_path / "results"
    home.mkdir()
    for command in (["collect"], ["overview"], ["publish"], ["table", "table2"], ["cost"], ["plan"], ["status"]):
        results = [] if command == ["plan"] else ["--results", str(home)]
        for name in ("../outside", "a/b", ".", "..", "", "-x", "a b", "x;y", "$(x)"):
            said = spfde(monkeypatch, capsys, *command, f"--scale={name}", *results)
            assert said.startswith(f'error: unknown scale "{name}"; '), said
    settings = tmp_path / "settings.yaml"
    settings.write_text("scale: ../outside\n")
    said = spfde(monkeypatch, capsys, "train", "--settings", str(settings), "--out", str(home))
    assert said.startswith("error: setting scale = '../outside' is not valid")
    assert not list(home.iterdir()) and sorted(p.name for p in tmp_path.iterdir()) == ["results", "settings.yaml"]


@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
@pytest.mark.parametrize("option", ["--settings", "--set"])
def test_what_is_no_file_is_one_line_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str, option: str
) -> None:
    path = Path("/dev/zero") if kind == "device" else tmp_path / "it"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    value = str(path) if option == "--settings" else f"model.weights={path}"
    said = spfde(monkeypatch, capsys, "train", "--scale", "smoke", option, value, "--out", str(tmp_path / "out"))
    assert f"{path} cannot be read (it is a {'FIFO' if kind == 'fifo' else kind}" in said
