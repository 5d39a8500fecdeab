"""Kernels that skip the zeros: training on a CPU as fast as the masks are sparse.

`attach` puts them under a model, `status` says what this machine has. Without a compiler there are none, and everything
runs on torch's dense kernels.
"""

from spfde.kernels.attach import Handle, attach
from spfde.kernels.library import Status, available, status
from spfde.kernels.memory import release_memory
from spfde.kernels.structure import supports

__all__ = ["Handle", "Status", "attach", "available", "release_memory", "status", "supports"]
