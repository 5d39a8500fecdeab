"""How the workflow starts what uses a GPU: in a slot of this machine's GPUs, by torchrun where a run has several."""

from collections.abc import Sequence

SLOT = "workflow/scripts/gpu_slot.py"


def launched(
    command: str,
    gpus: Sequence[str] | None = None,
    jobs_per_gpu: int = 1,
    gpus_per_run: int = 0,
    alone: bool = False,
) -> list[str]:
    """The words of a command line that runs `spfde <command>`.

    Args:
        command: the command of spfde, e.g. train.
        gpus: ids of this machine's GPUs that jobs share; with None the command does not wait for GPUs.
        jobs_per_gpu: jobs that share a GPU.
        gpus_per_run: GPUs that it uses; from 2 on torchrun starts a process on each.
        alone: whether it shares its GPUs with no other job, because it is timed.

    >>> launched("bench")
    ['python', '-m', 'spfde', 'bench']
    >>> " ".join(launched("train", ["0", "1"], gpus_per_run=2))  # doctest: +ELLIPSIS
    'python workflow/scripts/gpu_slot.py --gpus 0,1 --jobs-per-gpu 1 --count 2 -- torchrun --standalone ...'
    """
    slot: list[str] = []
    if gpus is not None:
        shared = ["--gpus", ",".join(gpus), "--jobs-per-gpu", str(jobs_per_gpu), "--count", str(max(1, gpus_per_run))]
        slot = ["python", SLOT, *shared, *["--alone"] * alone, "--"]
    launcher = ["torchrun", "--standalone", "--nproc-per-node", str(gpus_per_run)] if gpus_per_run > 1 else ["python"]
    return [*slot, *launcher, "-m", "spfde", command]
