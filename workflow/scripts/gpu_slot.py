"""Runs a command on free GPUs of this machine, waiting until there are some.

    python workflow/scripts/gpu_slot.py --gpus 0,1 --jobs-per-gpu 2 -- python -m spfde train ...

A GPU has as many slots as jobs may share it; a slot is a locked file. The command takes this process's place and keeps
the locks, so whatever way it ends, killed included, the kernel frees its slots. With --alone it takes all slots of its
GPUs, as what is timed has to. Locks lie in a local temporary folder: GPUs belong to one machine, and locks on a network
file system are not to be relied on.
"""

import argparse
import fcntl
import os
import sys
import tempfile
import time
from pathlib import Path

POLL = 0.5  # seconds between looks at slots that are all taken


def take(folder: Path, gpus: list[str], jobs_per_gpu: int, count: int = 1, alone: bool = False) -> list[str]:
    """Waits for slots on so many different GPUs, and holds them until this process or what it becomes ends.

    One process at a time gathers slots, so one that needs several GPUs, or all slots of one, is not overtaken for ever
    by those that need one slot. What it gathered of a GPU that it does not take after all, it gives back.

    Returns:
        The GPUs, the least shared ones first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    gate = os.open(folder / "gate", os.O_RDWR | os.O_CREAT)
    fcntl.flock(gate, fcntl.LOCK_EX)
    needed = jobs_per_gpu if alone else 1
    held: dict[str, dict[int, int]] = {gpu: {} for gpu in gpus}  # the files of the slots that are locked
    taken: list[str] = []
    while True:
        for slot in range(jobs_per_gpu):
            for gpu in gpus:
                if gpu in taken or slot in held[gpu] or (file := _lock(folder / f"gpu-{gpu}.{slot}")) is None:
                    continue
                held[gpu][slot] = file
                if len(held[gpu]) == needed:
                    taken.append(gpu)
                if len(taken) == count:
                    for file in (gate, *(file for gpu in gpus if gpu not in taken for file in held[gpu].values())):
                        os.close(file)
                    return taken
        time.sleep(POLL)


def _lock(path: Path) -> int | None:
    """Locks a file for as long as this process or what it becomes lives; none where another holds it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    os.set_inheritable(file, True)
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a command on free GPUs of this machine.")
    parser.add_argument("--gpus", required=True, help="ids of the GPUs that may be used, e.g. 0,1")
    parser.add_argument("--jobs-per-gpu", type=int, default=1, help="commands that may share a GPU")
    parser.add_argument("--count", type=int, default=1, help="GPUs that the command uses")
    parser.add_argument("--alone", action="store_true", help="share the GPUs with no other command")
    default = Path(tempfile.gettempdir()) / f"spfde-gpu-slots-{os.getuid()}"
    parser.add_argument("--folder", type=Path, default=default, help="folder of the locks, on this machine")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    gpus = list(dict.fromkeys(arguments.gpus.split(",")))
    if not 1 <= arguments.count <= len(gpus) or arguments.jobs_per_gpu < 1:
        sys.exit(f"error: {arguments.count} GPUs of {arguments.gpus} cannot be had; name more, or ask for fewer")
    try:
        taken = take(arguments.folder, gpus, arguments.jobs_per_gpu, arguments.count, arguments.alone)
    except OSError as error:  # in a folder for all users, another one may have taken the name
        sys.exit(
            f"error: cannot lock {error.filename or arguments.folder} ({error.strerror}); set TMPDIR to another folder"
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
    os.execvp(arguments.command[0], arguments.command)


if __name__ == "__main__":
    main()
