"""Files that spfde wrote, and that are missing, damaged, or of something else."""

import contextlib
from pathlib import Path

import torch
from safetensors.torch import save_file

from spfde.analysis import structure
from spfde.cost.trace import read_trace
from spfde.experiments.resolve import resolve
from spfde.experiments.stored import read_settings, write_settings
from spfde.models import build
from spfde.results.account import account
from spfde.results.material import gather
from spfde.results.publish import publish
from spfde.training import checkpoint
from spfde.training.weights import load_weights
from tests.refusals.table import refusal


@refusal("a checkpoint of another run")
def foreign_checkpoint(folder: Path) -> None:
    checkpoint.save(folder / "one.checkpoint", "one", {}, {})
    checkpoint.load(folder / "one.checkpoint", "two")


@refusal("a checkpoint that something else wrote")
def unknown_checkpoint(folder: Path) -> None:
    save_file({"a": torch.zeros(1)}, folder / "one.checkpoint")
    checkpoint.load(folder / "one.checkpoint", "one")


@refusal("a damaged checkpoint")
def damaged_checkpoint(folder: Path) -> None:
    path = folder / "one.checkpoint"
    checkpoint.save(path, "one", {"a": torch.zeros(4)}, {})
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + b"\1\1\1\1")
    checkpoint.load(path, "one")


@refusal("a checkpoint that is a folder")
def folder_for_checkpoint(folder: Path) -> None:
    (folder / "one.checkpoint").mkdir()
    checkpoint.load(folder / "one.checkpoint", "one")


@refusal("`model.weights` that are not there")
def no_weights(folder: Path) -> None:
    resolve("smoke", {"model.weights": str(folder / "model.safetensors")})


@refusal("`model.weights` of another model")
def other_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file({name: value for name, value in build("resnet8", 10).state_dict().items() if "classifier" in name}, path)
    load_weights(torch.nn.Linear(2, 2), str(path))


@refusal("a trace that is not there")
def no_trace(folder: Path) -> None:
    read_trace(folder / "layers.csv")


@refusal("a CSV file that is no trace")
def other_table(folder: Path) -> None:
    (folder / "layers.csv").write_text("epoch,layer\n0,conv1\n")
    read_trace(folder / "layers.csv")


@refusal("settings that are none")
def no_settings(folder: Path) -> None:
    (folder / "settings.yaml").write_text("[1, 2]")
    read_settings(folder / "settings.yaml", [])


@refusal("settings that are not YAML")
def broken_yaml(folder: Path) -> None:
    (folder / "settings.yaml").write_text("a: [1")
    read_settings(folder / "settings.yaml", [])


@refusal("settings of an unknown key")
def unknown_key(folder: Path) -> None:
    (folder / "settings.yaml").write_text("sparsety: {target: 0.9}")
    read_settings(folder / "settings.yaml", [])


@refusal("counting the costs of a record of before a data set's description had a digest")
def unknown_description(folder: Path) -> None:
    (folder / "config/data").mkdir(parents=True)
    sizes = "classes: 3\nsize: 8\ntrain_samples: 9\ntest_samples: 3\n"
    (folder / "config/data/tiny.yaml").write_text(sizes)
    with contextlib.chdir(folder):
        settings = resolve("smoke", {"data.name": "tiny"})
        write_settings(
            folder / "settings.yaml",
            settings.model_copy(update={"data": settings.data.model_copy(update={"digest": None})}),
        )
        account(folder)


@refusal("analysing a folder that is no record")
def no_record(folder: Path) -> None:
    structure(folder / "run")


@refusal("a table without its plan")
def no_plan(folder: Path) -> None:
    gather("smoke", folder, "table2")


@refusal("publishing where nothing was trained")
def nothing_to_publish(folder: Path) -> None:
    publish("smoke", folder)
