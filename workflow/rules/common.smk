"""The configuration, checked, and what it asks for. What follows from it is computed in `spfde.results.pipeline`."""

import os
import signal
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

from spfde.errors import SpfdeError
from spfde.experiments.files import read_scale
from spfde.results.launch import launched
from spfde.results.pipeline import ANALYSES, Pipeline, chosen, listed

validate(config, "../schemas/config.schema.yaml")

# Jobs use the Python that runs Snakemake, also where its environment is not activated.
os.environ.update(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")

# SLURM's warning before a job's time limit reaches all its processes. It is for training, which writes a checkpoint and
# stops; Snakemake and its shells would die of it, and training with them.
signal.signal(signal.SIGUSR1, signal.SIG_IGN)

try:
    SEEDS = None if config["seeds"] is None else tuple(int(seed) for seed in listed(config["seeds"]))
    CHOSEN = chosen(config["experiments"])
    PIPELINE = Pipeline(config["scale"], CHOSEN, SEEDS, config["train"], on_gpu=config["gpus_per_run"] > 0)
    AT_PAPER_SCALE = read_scale(config["scale"]).paper
    PIPELINE.set_damaged_aside()  # unknown names and combinations that cannot run are said here too
except SpfdeError as error:
    raise WorkflowError(str(error))

SCALE = PIPELINE.scale
RESULTS = str(PIPELINE.home)
EXPERIMENTS = list(PIPELINE.experiments)
GPUS = None if config["gpus"] is None else listed(config["gpus"])

# What every command on results is told, and what every command on data is told.
ON_RESULTS = ["--scale", SCALE, "--results", str(PIPELINE.results)]
ON_DATA = ["--data-root", config["data_root"], "--cache", config["cache"]]
