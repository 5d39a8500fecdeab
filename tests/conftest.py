"""What every test runs under: the same examples each time, one thread a process, dense kernels unless told."""

import os

import torch
from hypothesis import settings

settings.register_profile("project", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("project")
torch.set_num_threads(1)
os.environ.setdefault("SPFDE_KERNELS", "dense")
