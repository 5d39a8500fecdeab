"""Compiles the kernels, once for each instruction set: `python spfde/kernels/build.py`.

`pip install` runs this too (setup.py). It needs nothing but Python and a C++ compiler, and never fails the
installation: without a compiler everything runs on dense kernels, and build.json says why.
"""

import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).parent / "cpp"
LIBRARIES = Path(os.environ.get("SPFDE_KERNELS_DIR") or Path(__file__).parent / "lib")
FLAGS = (
    *("-O3", "-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-pthread"),
    *shlex.split(os.environ.get("SPFDE_KERNELS_FLAGS", "")),  # for sanitizers
)
X86_FLAGS = {
    "avx512": ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma"),
    "avx2": ("-mavx2", "-mfma"),
    "generic": (),
}


def targets() -> dict[str, tuple[str, ...]]:
    """The instruction sets that there are kernels for on this kind of machine, best first, with their flags."""
    return X86_FLAGS if platform.machine().lower() in ("x86_64", "amd64") else {"generic": ()}


def digest() -> str:
    """Of the C++ sources and the flags: libraries of another digest are not used."""
    found = hashlib.sha256(repr((FLAGS, targets())).encode())
    for path in sorted(SOURCES.iterdir()):
        if path.suffix in (".h", ".cpp"):
            found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


def find_compiler() -> list[str] | None:
    """The compiler of the environment variable CXX, or the first of the usual ones."""
    named = shlex.split(os.environ.get("CXX", ""))
    for command in [named] if named else [["g++"], ["clang++"], ["c++"]]:
        if shutil.which(command[0]):
            return command
    return None


def build(libraries: Path = LIBRARIES) -> dict[str, object]:
    """Compiles what is not up to date.

    Returns:
        What build.json holds: digest, compiler, built (instruction sets), reason (of a failure, else none).
    """
    record = libraries / "build.json"
    compiler = find_compiler()
    version = None
    if compiler:
        shown = subprocess.run([*compiler, "--version"], capture_output=True, text=True)
        version = next(iter(shown.stdout.splitlines()), compiler[0])
    wanted = {"digest": digest(), "compiler": version}
    try:
        present = json.loads(record.read_text())
        names = [libraries / f"{name}.so" for name in present["built"]]
        if present["reason"] is None and wanted.items() <= present.items() and all(map(Path.exists, names)):
            return present
    except (OSError, ValueError, KeyError):
        pass
    libraries.mkdir(parents=True, exist_ok=True)
    built, reason = [], None
    if compiler is None:
        named = os.environ.get("CXX")
        reason = f"the compiler {named} is not there" if named else "there is no C++ compiler (g++, clang++, c++)"
    else:
        for name, flags in targets().items():
            unfinished = libraries / f"{name}.so.{os.getpid()}"
            command = [*compiler, *FLAGS, *flags, str(SOURCES / "kernels.cpp"), "-o", str(unfinished)]
            made = subprocess.run(command, capture_output=True, text=True)
            if made.returncode:
                unfinished.unlink(missing_ok=True)
                lines = [line for line in made.stderr.splitlines() if "error" in line] or made.stderr.splitlines()
                reason = f"{name}: {shlex.join(compiler)} failed: {next(iter(lines), f'exit {made.returncode}')}"
            else:
                unfinished.replace(libraries / f"{name}.so")
                built.append(name)
    result: dict[str, object] = {**wanted, "built": built, "reason": reason}
    unfinished = record.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(result, indent=1) + "\n")
    unfinished.replace(record)
    return result


def main() -> None:
    result = build()
    if result["reason"]:
        print(f"warning: no sparse kernels: {result['reason']}; dense kernels will be used", file=sys.stderr)


if __name__ == "__main__":
    main()
