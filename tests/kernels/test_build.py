"""The build: what it leaves behind, when it does nothing, and how a failure is told."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spfde import kernels
from spfde.cli import main
from spfde.errors import SpfdeError
from spfde.kernels import build, library


@pytest.fixture(autouse=True)
def fresh():
    """What was loaded is known by the environment variable alone."""
    library._load.cache_clear()
    library.library.cache_clear()
    yield
    library._load.cache_clear()
    library.library.cache_clear()


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A compiler that takes no time: it notes its calls, and fails where it is told to."""
    calls = tmp_path / "calls"
    script = tmp_path / "compiler"
    script.write_text(
        f"""#!{sys.executable}
import pathlib, sys
if "--version" in sys.argv:
    print("compiler 1.0")
elif pathlib.Path({str(tmp_path / "broken")!r}).exists() and "-mavx2" not in sys.argv:
    sys.exit("kernels.cpp:1: fatal error: no more ink")
else:
    with open({str(calls)!r}, "a") as file:
        print("x", file=file)
    pathlib.Path(sys.argv[sys.argv.index("-o") + 1]).touch()
"""
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    return calls


def test_it_compiles_once(compiler, tmp_path):
    first = build.build(tmp_path / "lib")
    assert first["reason"] is None
    assert first["compiler"] == "compiler 1.0"
    assert list(first["built"]) == list(build.targets())
    assert build.build(tmp_path / "lib") == first
    assert len(compiler.read_text()) == 2 * len(build.targets())
    (tmp_path / "lib/generic.so").unlink()
    build.build(tmp_path / "lib")
    assert len(compiler.read_text()) == 4 * len(build.targets())


def test_changed_sources_and_flags_are_compiled_anew(compiler, tmp_path, monkeypatch):
    before = build.build(tmp_path / "lib")
    with monkeypatch.context() as other:
        other.setattr(build, "FLAGS", (*build.FLAGS, "-g"))
        flagged = build.build(tmp_path / "lib")
    assert flagged["digest"] != before["digest"]
    compiled = len(compiler.read_text())
    shutil.copytree(build.SOURCES, tmp_path / "cpp")
    monkeypatch.setattr(build, "SOURCES", tmp_path / "cpp")
    assert build.build(tmp_path / "lib")["digest"] == before["digest"]
    assert build.build(tmp_path / "lib") == build.build(tmp_path / "lib")
    again = len(compiler.read_text())
    header = min((tmp_path / "cpp").glob("*.h"))
    header.write_text(header.read_text() + "// edited\n")
    edited = build.build(tmp_path / "lib")
    assert edited["digest"] not in (before["digest"], flagged["digest"])
    assert again > compiled and len(compiler.read_text()) > again


def test_a_failure_is_kept_and_shown(compiler, tmp_path, monkeypatch, capsys):
    (tmp_path / "broken").touch()
    monkeypatch.setattr(build, "LIBRARIES", tmp_path / "lib")
    made = build.build(tmp_path / "lib")
    assert "no more ink" in str(made["reason"])
    assert "generic" not in made["built"]
    assert json.loads((tmp_path / "lib/build.json").read_text()) == made
    shutil.rmtree(tmp_path / "lib")
    monkeypatch.setattr(build, "targets", lambda: {"generic": ()})
    build.build(tmp_path / "lib")
    assert "no more ink" in str(kernels.status().reason)
    monkeypatch.setattr(sys, "argv", ["spfde", "kernels", "--json"])
    with pytest.raises(SystemExit):
        main()
    assert "no more ink" in json.loads(capsys.readouterr().out)[0]["reason"]


def test_no_compiler_is_a_reason(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(build, "LIBRARIES", tmp_path / "lib")
    assert build.build(tmp_path / "lib")["built"] == []
    found = kernels.status()
    assert not found.available
    assert found.reason == "the compiler no-such-compiler is not there"
    with pytest.raises(SpfdeError, match="no-such-compiler is not there; train with dense kernels"):
        library.library()
    monkeypatch.setattr(sys, "argv", ["spfde", "kernels", "--json"])
    with pytest.raises(SystemExit):
        main()
    assert json.loads(capsys.readouterr().out)[0]["reason"] == found.reason


def test_kernels_of_other_sources_are_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "LIBRARIES", tmp_path)
    assert "were not built" in str(kernels.status().reason)
    record = {"digest": "of older sources", "compiler": "compiler 1.0", "built": ["generic"], "reason": None}
    (tmp_path / "build.json").write_text(json.dumps(record))
    library._load.cache_clear()
    assert "the C++ sources changed" in str(kernels.status().reason)


def test_instruction_sets_can_be_forced(sparse, monkeypatch):
    monkeypatch.setenv("SPFDE_KERNELS_ISA", "generic")
    assert kernels.status().isa == "generic"
    monkeypatch.setenv("SPFDE_KERNELS_ISA", "none")
    assert not kernels.available()
    monkeypatch.setenv("SPFDE_KERNELS_ISA", "mmx")
    with pytest.raises(SpfdeError, match="use one of"):
        kernels.status()


def test_the_package_imports_without_kernels():
    code = "import spfde, spfde.kernels as k; assert not k.available(); import spfde.api"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "SPFDE_KERNELS_ISA": "none"})


@pytest.mark.skipif(
    not (shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64")),
    reason="needs a compiler for aarch64 and its emulator (Debian: g++-aarch64-linux-gnu, qemu-user)",
)
def test_the_kernels_are_right_with_neon(tmp_path: Path) -> None:
    program = tmp_path / "aarch64"
    source = Path(__file__).parent / "aarch64.cpp"
    flags = [flag for flag in build.FLAGS if flag not in ("-shared", "-fPIC")]
    subprocess.run(["aarch64-linux-gnu-g++", *flags, "-static", str(source), "-o", str(program)], check=True)
    done = subprocess.run(["qemu-aarch64", str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert len(done.stdout.splitlines()) == 12
