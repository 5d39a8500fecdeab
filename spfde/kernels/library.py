"""The compiled kernels: which of them this machine runs, and how Python calls them."""

import ctypes
import functools
import json
import os
from ctypes import POINTER, Structure, c_char_p, c_double, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spfde.errors import SpfdeError
from spfde.kernels import build

LANES = 16


class Shape(Structure):
    _fields_ = [
        (name, c_int32)
        for name in ("batch", "inputs", "height", "width", "outputs", "kernel", "stride", "threads")
    ]  # fmt: skip


class Rows(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("start", "offset", "value", "index")),
        *((name, c_int32) for name in ("rows", "blocks", "classes", "entries")),
    ]


class Source(Structure):
    """An operand of a convolution: `p`, or what the mode makes of it while it is packed (cpp/pack.h).

    `keep` holds what the addresses point to for as long as the source is there.
    """

    _fields_ = [("mode", c_int32), *((name, c_void_p) for name in ("p", "q", "a", "b", "d"))]
    keep: Any = None


class Epilogue(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("sums", "other", "z", "second", "a", "b", "mean", "second_mean")),
        ("relu", c_int32),
    ]


class Forward(Structure):
    _fields_ = [
        ("shape", Shape), ("rows", Rows), ("x", Source), ("y", c_void_p), ("epilogue", Epilogue), ("finish", c_int32)
    ]  # fmt: skip


class Backward(Structure):
    _fields_ = [
        ("shape", Shape), ("transposed", Rows), ("positions", Rows), ("x", Source), ("dy", Source), ("dx", c_void_p),
        ("dw", c_void_p), ("epilogue", Epilogue), ("finish", c_int32),
    ]  # fmt: skip


class Norm(Structure):
    _fields_ = [
        ("channels", c_int32), ("training", c_int32), ("eps", c_double), ("momentum", c_double),
        *((name, c_void_p) for name in ("weight", "bias", "running_mean", "running_var", "mean", "inverse", "a", "b")),
    ]  # fmt: skip


class Activation(Structure):
    _fields_ = [(name, c_int32) for name in ("batch", "height", "channels", "width", "threads")]


class Strided(Structure):
    _fields_ = [(name, c_int64) for name in ("image", "channel", "row", "column")]


PLAIN, AFFINE_RELU, GRADIENT, SCALED = range(4)  # SourceMode
STORE, STATISTICS, APPLY, ADD, MASK, END = range(6)  # Finish

_SIGNATURES = {
    "use_team": (None, [c_void_p]),
    "allocate_floats": (c_void_p, [c_int64]),
    "free_floats": (None, [c_void_p]),
    "conv_records": (c_int32, [POINTER(Shape)]),
    "conv_rows": (None, [POINTER(Shape), c_void_p, c_int32, c_void_p, c_int32, *[c_void_p] * 3]),
    "conv_transposed": (None, [POINTER(Shape), c_void_p, c_int32, c_void_p, c_int32, *[c_void_p] * 3]),
    "gather_values": (None, [POINTER(Rows), c_void_p]),
    "conv_forward": (None, [POINTER(Forward)]),
    "conv_backward": (None, [POINTER(Backward)]),
    "batch_norm": (None, [POINTER(Norm), POINTER(Shape), c_void_p]),
    "batch_norm_backward": (
        None, [POINTER(Norm), c_void_p, c_int32, c_int32, c_double, c_void_p]
    ),
    "residual_end": (None, [POINTER(Activation), *[c_void_p] * 7]),
    "residual_end_backward": (None, [POINTER(Activation), *[c_void_p] * 8]),
    "blocks_from": (None, [POINTER(Activation), c_void_p, POINTER(Strided), c_void_p]),
    "mean_of_pixels": (None, [POINTER(Activation), c_void_p, c_void_p]),
    "mean_of_pixels_backward": (None, [POINTER(Activation), c_void_p, c_void_p]),
    "max_of_pixels": (None, [POINTER(Activation), c_void_p, c_void_p, c_int32, c_int32]),
    "max_of_pixels_backward": (None, [POINTER(Activation), *[c_void_p] * 4, c_int32, c_int32]),
    "blocks_from_rows": (None, [POINTER(Activation), c_void_p, c_int64, c_void_p]),
    "blocks_to_rows": (None, [POINTER(Activation), c_void_p, c_void_p, c_int64]),
    "blocks_to": (None, [POINTER(Activation), c_void_p, c_void_p, POINTER(Strided)]),
}  # fmt: skip


@dataclass(frozen=True)
class Status:
    """What this machine has.

    Attributes:
        available: sparse kernels can be used.
        isa: the instruction set in use: avx512, avx2 or generic; none where they cannot.
        reason: why not, or why not the best ones.
        compiler: what they were compiled with.
        digest: of the C++ sources and the flags.
    """

    available: bool
    isa: str | None
    reason: str | None
    compiler: str | None
    digest: str | None


def _open(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _team() -> int | None:
    """Address of `GOMP_parallel` in the OpenMP library that torch runs on, or none: then threads are started anew."""
    folders = (Path(torch.__file__).parent / "lib", Path(torch.__file__).parent.parent / "torch.libs")
    found = [str(path) for folder in folders if folder.is_dir() for path in sorted(folder.glob("lib*omp*.so*"))]
    for name in [*found, None]:  # none: what the process has loaded for all
        try:
            return ctypes.cast(ctypes.CDLL(name).GOMP_parallel, c_void_p).value
        except (OSError, AttributeError):
            continue
    return None


@functools.cache
def _load(forced: str | None) -> tuple[Status, ctypes.CDLL | None]:
    code = build.digest()
    try:
        record = json.loads((build.LIBRARIES / "build.json").read_text())
        built, compiler, reason = record["built"], record["compiler"], record["reason"]
    except (OSError, ValueError, KeyError):
        return Status(False, None, "they were not built: `python spfde/kernels/build.py` builds them", None, code), None
    if forced == "none":
        return Status(False, None, "SPFDE_KERNELS_ISA=none", compiler, code), None
    if record["digest"] != code:
        why = "the C++ sources changed after they were built: run `python spfde/kernels/build.py`"
        return Status(False, None, why, compiler, code), None
    if not built:
        return Status(False, None, reason, compiler, code), None
    library = ctypes.CDLL(str(build.LIBRARIES / f"{built[-1]}.so"))  # the least demanding one tells what can be run
    library.instruction_set.restype = c_char_p
    names = list(build.targets())
    runnable = [name for name in names[names.index(library.instruction_set().decode()) :] if name in built]
    if forced and forced not in runnable:
        cause = f"SPFDE_KERNELS_ISA={forced} cannot be run here"
        raise SpfdeError(cause, f"use one of {', '.join([*runnable, 'none'])}")
    if not runnable:
        return Status(False, None, reason, compiler, code), None
    chosen = _open(build.LIBRARIES / f"{forced or runnable[0]}.so")
    chosen.use_team(_team())
    return Status(True, forced or runnable[0], reason, compiler, code), chosen


def status() -> Status:
    """What this machine has; the environment variable SPFDE_KERNELS_ISA forces one of avx512, avx2, generic, none.

    Raises:
        SpfdeError: the forced one cannot be run.
    """
    return _load(os.environ.get("SPFDE_KERNELS_ISA") or None)[0]


def available() -> bool:
    """Whether sparse kernels can be used."""
    return status().available


@functools.cache
def library() -> ctypes.CDLL:
    """The kernels in use, from the first call on.

    Raises:
        SpfdeError: there are none.
    """
    found, loaded = _load(os.environ.get("SPFDE_KERNELS_ISA") or None)
    if loaded is None:
        raise SpfdeError(f"there are no sparse kernels: {found.reason}", "train with dense kernels")
    return loaded
