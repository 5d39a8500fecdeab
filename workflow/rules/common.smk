"""What is wanted: the runs of each chosen experiment, where their records lie, and what shows them."""

import os
import re
import signal
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

from spfde.errors import SpfdeError, nearest
from spfde.experiments.resolve import expand
from spfde.results.analyses import analysed_runs, analysis_path
from spfde.experiments.files import experiment_names, read_scale, scale_of

validate(config, "../schemas/config.schema.yaml")

# Jobs use the Python that runs Snakemake, also where its environment is not activated.
os.environ.update(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")

# SLURM's warning before a job's time limit reaches all its processes. It is for training, which writes a checkpoint and
# stops; Snakemake and its shells would die of it, and training with them.
signal.signal(signal.SIGUSR1, signal.SIG_IGN)

RESULTS = f"results/{config['scale']}"
PUBLISHED = f"results/published/{config['scale']}"


def listed(value):
    """A configuration value that is one thing, several separated by commas, or a list."""
    return value if isinstance(value, list) else str(value).split(",")


def chosen_experiments():
    known = experiment_names()
    if config["experiments"] == "all":
        return known
    for name in listed(config["experiments"]):
        if name not in known:
            raise SpfdeError(f'unknown experiment "{name}"', nearest(name, known))
    return list(dict.fromkeys(listed(config["experiments"])))


KNOWN = {}  # runs and their records by the runs' identity: a run id is a hash, and is asked for thousands of times


def record(run):
    """The file that says a run is done: the fresh record's, or else a published one's. A published record has no
    snapshots, so it does not count where they have to be analysed."""
    if id(run) not in KNOWN:
        published = f"{PUBLISHED}/{run.run_id}/summary.json"
        fresh = f"{RESULTS}/runs/{run.run_id}/summary.json"
        counts = Path(published).is_file() and not Path(fresh).is_file() and run.run_id not in NEED_SNAPSHOTS
        KNOWN[id(run)] = run, published if counts else fresh
    return KNOWN[id(run)][1]


def records(*experiments):
    return list({record(run): None for name in experiments for run in RUNS[name]})


def rows_to_train():
    """The runs of each job, by (experiment, row). A run that several experiments share is trained for the largest one,
    which has its other seeds too."""
    jobs, seen = {}, set()
    for experiment, runs in sorted(RUNS.items(), key=lambda item: len(item[1]), reverse=True):
        for run in runs:
            if run.run_id not in seen and not record(run).startswith(PUBLISHED):
                jobs.setdefault((experiment, run.row), []).append(run)
            seen.add(run.run_id)
    return jobs


def jobs_to_train():
    """The rows of each process, as {(experiment, row): runs}: those of the same seeds are packed, where the scale asks
    for it."""
    most, packs = read_scale(config["scale"]).runs_per_job, {}
    for key, runs in rows_to_train().items():
        alike = runs[0].data.name, runs[0].threads, *(run.seed for run in runs)
        open_packs = packs.setdefault(alike, [{}])
        if sum(map(len, open_packs[-1].values())) + len(runs) > most:
            open_packs.append({})
        open_packs[-1][key] = runs
    return [pack for open_packs in packs.values() for pack in open_packs if pack]


def in_slot(command, gpus=1):
    """A command on so many GPUs, which it waits for where jobs share those of this machine."""
    if config["gpus"] is None:
        return command
    slots = f"--gpus {','.join(map(str, listed(config['gpus'])))} --jobs-per-gpu {config['jobs_per_gpu']}"
    return f"python workflow/scripts/gpu_slot.py {slots} --count {gpus} -- {command}"


def trainer():
    """The command that trains, with torchrun where a run has several GPUs."""
    several = config["gpus_per_run"]
    launcher = f"torchrun --standalone --nproc-per-node {several}" if several > 1 else "python"
    return in_slot(f"{launcher} -m spfde train", max(1, several))


def renderers(kind):
    """The tables or figures of the chosen experiments: modules that say `EXPERIMENT = "name"`. Read, not imported."""
    found = {}
    for path in sorted(Path("spfde/results", kind).glob("*.py")):
        said = re.search(r'^EXPERIMENT = "(\w+)"', path.read_text(), re.MULTILINE)
        if said and said[1] in EXPERIMENTS:
            found[path.stem] = said[1]
    return found


def shown_analyses(figure):
    """The analyses that a figure shows, which its module lists: `ANALYSES = ["experiment.kind"]`. Read, not imported."""
    said = re.search(r"^ANALYSES = \[(.+)\]", Path(f"spfde/results/figures/{figure}.py").read_text(), re.MULTILINE)
    return re.findall(r'"([\w.]+)"', said[1]) if said else []


def with_snapshots(experiment):
    """Ids of the experiment's runs that keep snapshots."""
    return {run.run_id for run in RUNS[experiment] if run.training.snapshots}


def published_whole(experiment):
    """Whether the analyses of an experiment are published, all of them and of all its runs: a run is in one of them at
    least, and need not be in each, as a dense run has no structure to analyse."""
    names = {name for figure in FIGURES for name in shown_analyses(figure) if name.split(".")[0] == experiment}
    paths = [Path(f"{PUBLISHED}/analysis/{name}.csv") for name in names]
    if not all(path.is_file() for path in paths):
        return False
    return with_snapshots(experiment) <= set().union(*map(analysed_runs, paths))


def analysis(name):
    """The file of an analysis: a fresh one, made where it is missing, unless one of all runs is published."""
    if name.split(".")[0] in TO_ANALYSE:
        return f"{RESULTS}/analysis/{name}.csv"
    return str(analysis_path(name, config["scale"], Path("results")))


def analyses(figure):
    return [analysis(name) for name in shown_analyses(figure)]


def analysable():
    """The experiments whose snapshots are all here or will be: published records have none."""
    return [
        name
        for name, runs in RUNS.items()
        if not any(run.training.snapshots and record(run).startswith(PUBLISHED) for run in runs)
    ]


def timings(table):
    """The benchmark's file, for tables that show measured times."""
    source = Path(f"spfde/results/tables/{table}.py").read_text()
    return [f"{RESULTS}/bench.csv"] if "import timings" in source else []


def artefacts(*experiments):
    """The files that show these experiments."""
    tables = [f"{RESULTS}/tables/{name}.html" for name, experiment in TABLES.items() if experiment in experiments]
    figures = [f"{RESULTS}/figures/{name}.svg" for name, experiment in FIGURES.items() if experiment in experiments]
    return tables + figures


def stems(experiment):
    """What an experiment's targets are called, without suffix."""
    return {Path(path).with_suffix("") for path in [experiment, *artefacts(experiment)]}


def asked_experiments():
    """The experiments that the targets of this call name, themselves or by an artefact; all where a target needs all."""
    asked = set()
    for target in workflow.dag_settings.targets:
        path = Path(target).with_suffix("")
        named = {name for name in EXPERIMENTS if path in stems(name)}
        if not named:
            return EXPERIMENTS
        asked |= named
    return [name for name in EXPERIMENTS if name in asked] or EXPERIMENTS


def records_to_account(wildcards):
    """The chosen experiments' records, where all are there or all will be made; else those of the asked experiments."""
    everything = records(*EXPERIMENTS)
    return everything if all(Path(path).is_file() for path in everything) else records(*asked_experiments())


try:
    EXPERIMENTS = chosen_experiments()
    SEEDS = None if config["seeds"] is None else [int(seed) for seed in listed(config["seeds"])]
    RUNS = {name: expand(config["scale"], name, SEEDS) for name in EXPERIMENTS}
except SpfdeError as error:
    raise WorkflowError(str(error))

TABLES = renderers("tables")
FIGURES = renderers("figures")
TO_ANALYSE = {name.split(".")[0] for figure in FIGURES for name in shown_analyses(figure)}
TO_ANALYSE = {experiment for experiment in TO_ANALYSE if not published_whole(experiment)}
NEED_SNAPSHOTS = set().union(*map(with_snapshots, TO_ANALYSE))
