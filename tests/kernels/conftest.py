"""Tests of the kernels run on every instruction set that this machine has, and are skipped where none were built."""

from typing import Any

import pytest

from spfde.kernels import build, library


def runnable() -> list[Any]:
    """The instruction sets to test, or one skipped test where there is none."""
    if not library.available():
        return [pytest.param("", marks=pytest.mark.skip(reason=str(library.status().reason)))]
    names = list(build.targets())
    return names[names.index(library.status().isa) :]


@pytest.fixture(params=runnable())
def isa(request, monkeypatch):
    """One instruction set after the other."""
    monkeypatch.setenv("SPFDE_KERNELS_ISA", request.param)
    library.library.cache_clear()
    yield request.param
    library.library.cache_clear()


@pytest.fixture
def sparse():
    """The best instruction set alone."""
    if not library.available():
        pytest.skip(str(library.status().reason))
