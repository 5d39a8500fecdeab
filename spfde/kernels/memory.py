"""Memory of activations: lent to tensors, and back in the pool when the last tensor that uses it is gone."""

import ctypes
import functools
import math
from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

from spfde.kernels.library import library

_PAGE = 1 << 19  # floats of a huge page
_idle: dict[int, list[int]] = defaultdict(list)  # addresses by size in floats
_owned = _peak = 0  # floats that are lent or idle now, and the most that were seen lent at once


class _Loan(ctypes.Array):
    """The owner of a tensor's storage; torch lets go of it together with the storage."""

    _type_ = ctypes.c_float
    _length_ = 0

    def __del__(self, idle: dict[int, list[int]] = _idle, address_of: Callable[..., int] = ctypes.addressof) -> None:
        idle[self._length_].append(address_of(self))  # bound early: at the interpreter's end no global may be left


@functools.cache
def _loan(size: int) -> type[_Loan]:
    return type("_Loan", (_Loan,), {"_length_": size})


def borrow(*shape: int) -> Tensor:
    """An uninitialised float tensor in memory that is used again afterwards: fresh pages cost more than a pass.

    Any reference keeps it from being lent again: a tensor that autograd saved, a view, a gradient, a user's variable.
    """
    count = math.prod(shape)
    if count < _PAGE // 2:
        return torch.empty(shape)
    size = -(-count // _PAGE) * _PAGE
    try:
        address = _idle[size].pop()
    except IndexError:
        address = _allocate(size)
    return torch.frombuffer(_loan(size).from_address(address), dtype=torch.float32, count=count).view(shape)


def _allocate(size: int) -> int:
    """New memory. Images of many sizes do not add up: what is owned stays within three times what was lent at once."""
    global _owned, _peak
    _peak = max(_peak, _owned + size - _floats_idle())
    _release(_owned + size - 3 * _peak)
    address = library().allocate_floats(size)
    if not address:
        raise MemoryError(f"no memory for {size * 4} bytes of activations")
    _owned += size
    return address


def _floats_idle() -> int:
    return sum(size * len(addresses) for size, addresses in list(_idle.items()))


def _release(floats: float) -> None:
    """Gives at least so much idle memory back to the system, if there is so much; that of the oldest sizes first."""
    global _owned
    for size, addresses in list(_idle.items()):
        while addresses and floats > 0:
            library().free_floats(addresses.pop())
            _owned, floats = _owned - size, floats - size


def release_memory() -> None:
    """Gives the memory that is not lent at the moment back to the system."""
    _release(math.inf)
