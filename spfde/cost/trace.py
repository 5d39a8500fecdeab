"""The trace of a run: what each layer did in each epoch, as planned or as it happened.

A trace is a data frame with one row per epoch and layer, epochs from 0 and layers in profile order, dense layers too:

    epoch               epoch, from 0
    layer               qualified name of the convolution or linear module
    samples             training samples that the epoch saw
    forward_density     density of the weights of the forward pass, mean over the epoch's steps
    input_grad_density  the same where the input gradient is computed, else 0
    weight_grad_density share of the weight positions whose gradient is needed (more than the density where a method
                        needs dense gradients), 0 for a frozen layer
    activation_density  share of the saved activations that the weight gradient uses (1 but for SWAT, whose trace has
                        what was counted; for a frozen layer, and in a plan, it is the density)
    frozen              whether the layer is frozen
    peak_density        density of weights and gradients at their most, earlier rounds included
    extra_macs          multiply-accumulates outside ordinary steps (scoring, repeated rounds, sampled gradients)
    executed_extra_macs the same as the hardware ran them
    mask_updates        mask updates of the layer, none once it is frozen
    scored_samples      samples whose activations scoring the dense network keeps at once; twice as many where it also
                        keeps the activations' gradients
    explored            share of the weights that were active at any time until the epoch's end: R_s of ITOP
    overlap_first       share of the first mask's weights that are active at the epoch's end
    overlap_updates     share of the active weights that a mask change left active, over the epoch's changes; 1 if none
    executed_forward    share of the dense forward pass's multiply-accumulates that was run, mean over the epoch's steps
    executed_input_grad the same of the input gradient: 0 where none is computed
    executed_weight_grad the same of the weight gradient: 0 where none is computed

The last six columns say what happened; in a plan they are empty. `explored` and the two overlaps are 1 for a dense
layer. The three `executed_` columns are 1 where dense kernels multiply by masks, and the density where kernels skip the
zeros. Where they are empty, as in records from before these columns existed, dense kernels are assumed.

The costs are pure functions of a profile and a trace, so the same code predicts a cost, solves for the epoch at which
freezing begins, and accounts for what happened.
"""

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from spfde.cost.profile import Profile
from spfde.errors import SpfdeError
from spfde.files import check_file, writing

DTYPES = {
    "epoch": "int64",
    "layer": "str",
    "samples": "int64",
    "forward_density": "float64",
    "input_grad_density": "float64",
    "weight_grad_density": "float64",
    "activation_density": "float64",
    "frozen": "bool",
    "peak_density": "float64",
    "extra_macs": "float64",
    "executed_extra_macs": "float64",
    "mask_updates": "int64",
    "scored_samples": "int64",
    "explored": "float64",
    "overlap_first": "float64",
    "overlap_updates": "float64",
    "executed_forward": "float64",
    "executed_input_grad": "float64",
    "executed_weight_grad": "float64",
}
OVERLAPS = ["explored", "overlap_first", "overlap_updates"]
EXECUTED = ["executed_forward", "executed_input_grad", "executed_weight_grad"]
HAPPENED = [*OVERLAPS, *EXECUTED]  # columns that are empty in a plan
DENSITIES = [column for column in DTYPES if column.endswith("_density")]
AMOUNTS = ["samples", "extra_macs", "executed_extra_macs", "mask_updates", "scored_samples"]


def build_trace(layers: Sequence[str], **columns: ArrayLike) -> pd.DataFrame:
    """A trace from arrays.

    Args:
        layers: the layers' names in profile order.
        columns: every other column but `epoch`: an array (epochs, layers), an array (epochs,) for what all layers
            share, or a number. At least one is an array; what is in `HAPPENED` can be left out.
    """
    arrays = {name: np.asarray(column) for name, column in {**dict.fromkeys(HAPPENED, np.nan), **columns}.items()}
    epochs = max(len(array) for array in arrays.values() if array.ndim)
    shape = (epochs, len(layers))
    columns = {
        "epoch": np.repeat(np.arange(epochs), len(layers)),
        "layer": np.tile(np.array(layers, dtype=object), epochs),
    }
    for name, array in arrays.items():
        columns[name] = np.broadcast_to(array[:, None] if array.ndim == 1 else array, shape).ravel()
    return pd.DataFrame({name: columns[name] for name in DTYPES}).astype(DTYPES)


def make_trace(
    profile: Profile,
    densities: np.ndarray,
    samples: ArrayLike,
    frozen_blocks: ArrayLike = 0,
    weight_grad: ArrayLike | None = None,
    activation_density: ArrayLike = 1.0,
    extra_macs: ArrayLike = 0.0,
    executed_extra_macs: ArrayLike | None = None,
    mask_updates: ArrayLike = 0,
    scored_samples: ArrayLike = 0,
    peak_density: ArrayLike | None = None,
    executed: ArrayLike = np.nan,
) -> pd.DataFrame:
    """The trace that follows from schedules.

    A frozen layer has no weight gradient, and a layer that reads only the frozen prefix has no input gradient.

    Args:
        profile: the network.
        densities: density of the forward weights, shape (epochs, layers).
        samples: samples per epoch, shape (epochs,) or a number.
        frozen_blocks: number of frozen leading blocks, shape (epochs,) or a number.
        weight_grad: weight_grad_density while a layer trains, shape (epochs, layers); by default the densities.
        activation_density: shape (epochs, layers), (epochs,) or a number.
        extra_macs: shape (epochs, layers), (epochs,) or a number.
        executed_extra_macs: the same shapes; by default `extra_macs`.
        mask_updates: updates of a layer that trains, the same shapes.
        scored_samples: shape (epochs,) or a number.
        peak_density: shape (epochs, layers); by default the densities.
        executed: share of each dense pass that was run where it was run at all, shape (epochs, layers) or a number; not
            a number where that is only planned.
    """
    frozen_blocks = np.broadcast_to(frozen_blocks, len(densities))[:, None]
    executed = np.asarray(executed, dtype=float)
    frozen = np.array([layer.block for layer in profile.rows]) < frozen_blocks
    propagates = np.array([layer.input_block for layer in profile.rows]) >= frozen_blocks
    return build_trace(
        [layer.name for layer in profile.rows],
        samples=samples,
        forward_density=densities,
        input_grad_density=np.where(propagates, densities, 0.0),
        weight_grad_density=np.where(frozen, 0.0, densities if weight_grad is None else weight_grad),
        activation_density=activation_density,
        frozen=frozen,
        peak_density=densities if peak_density is None else peak_density,
        extra_macs=extra_macs,
        executed_extra_macs=extra_macs if executed_extra_macs is None else executed_extra_macs,
        mask_updates=np.where(frozen, 0, mask_updates),
        scored_samples=scored_samples,
        executed_forward=executed,
        executed_input_grad=executed * propagates,
        executed_weight_grad=executed * ~frozen,
    )


def validate_trace(frame: pd.DataFrame, source: str = "the trace") -> pd.DataFrame:
    """The frame with the types of a trace, if it is one.

    Raises:
        SpfdeError: missing or foreign columns, values out of range, rows that are not epochs x layers in order.
    """

    def broken(cause: str) -> SpfdeError:
        return SpfdeError(f"{source} is not a layer trace: {cause}", "remove the record and train its run again")

    if list(frame.columns) != list(DTYPES):
        raise broken(f"its columns are {', '.join(map(str, frame.columns))}")
    if not len(frame) or frame.drop(columns=HAPPENED).isna().any(axis=None):
        raise broken("values are missing")
    try:
        given, frame = frame.astype({"layer": "str"}), frame.astype(DTYPES)
    except (TypeError, ValueError) as error:
        raise broken(str(error)) from error
    changed = [column for column in DTYPES if not given[column].equals(frame[column].astype(given[column].dtype))]
    if changed:
        raise broken(f"{changed[0]} holds other things than {DTYPES[changed[0]]}")
    layers = frame["layer"][frame["epoch"] == 0].tolist()
    epochs = len(frame) // max(1, len(layers))
    in_order = len(frame) == epochs * len(layers) and len(set(layers)) == len(layers)
    if not in_order or frame["layer"].tolist() != layers * epochs:
        raise broken("its rows are not the same layers in every epoch")
    if not np.array_equal(frame["epoch"], np.repeat(np.arange(epochs), len(layers))):
        raise broken("its epochs do not count from 0")
    outside = [column for column in DENSITIES if not frame[column].between(0, 1).all()]
    outside += [column for column in HAPPENED if not frame[column].dropna().between(0, 1).all()]
    outside += [column for column in AMOUNTS if not frame[column].between(0, np.inf, "left").all()]
    if outside:
        raise broken(f"{outside[0]} is out of range")
    return frame


def write_trace(frame: pd.DataFrame, path: Path) -> None:
    """Writes a trace as CSV, compressed if the name ends in .gz; equal traces give equal bytes.

    Raises:
        SpfdeError: the frame is no trace, or the file cannot be written.
    """
    data = validate_trace(frame).to_csv(index=False, lineterminator="\n").encode()
    with writing(path) as temporary:
        temporary.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def read_trace(path: Path) -> pd.DataFrame:
    """Reads a trace, every number exactly as it was written.

    Raises:
        SpfdeError: the file is missing, cannot be read, or holds no trace.
    """
    if path.exists():
        check_file(path, "trace", "remove it and train that run again")
    try:
        frame = pd.read_csv(path, dtype="str", keep_default_na=False)
        if frame.columns.intersection(EXECUTED).empty:  # a record older than these columns
            frame[EXECUTED] = ""
        numbers = frame.columns.difference(["layer", "frozen"], sort=False)
        planned = frame.columns.intersection(HAPPENED)
        frame[planned] = frame[planned].replace("", np.nan)
        frame[numbers] = frame[numbers].astype("float64")  # exact; the parser of read_csv alone need not be
    except FileNotFoundError:
        raise SpfdeError(f"there is no trace {path}", "give the path of a record's layers.csv") from None
    except (OSError, EOFError, zlib.error, ValueError) as error:
        cause = f"{path} cannot be read: {error}"
        raise SpfdeError(cause, "remove it and train that run again") from error
    if "frozen" in frame:
        frame["frozen"] = frame["frozen"].map({"True": True, "False": False})
    return validate_trace(frame, str(path))


def matrix(frame: pd.DataFrame, column: str, layers: int) -> np.ndarray:
    """A column of a trace as an array of shape (epochs, layers)."""
    return frame[column].to_numpy().reshape(-1, layers)


def check_layers(profile: Profile, frame: pd.DataFrame) -> None:
    """Raises SpfdeError where a trace is of another network than the profile."""
    names = [layer.name for layer in profile.rows]
    if frame["layer"].tolist() != names * (len(frame) // len(names)):
        raise SpfdeError("trace and profile have different layers", "profile the model that the trace was made with")
