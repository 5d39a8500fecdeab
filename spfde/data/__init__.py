"""Data sets by name, their samples, and the loaders that serve them to training."""

from spfde.data.indexed import Indexed
from spfde.data.loader import Loader, LoaderBase
from spfde.data.sources import SOURCES, info, is_known, load, open_loader, prepare, register_source, source
from spfde.data.split import AnySplit, DataInfo, Split, Splits

__all__ = [
    "SOURCES",
    "AnySplit",
    "DataInfo",
    "Indexed",
    "Loader",
    "LoaderBase",
    "Split",
    "Splits",
    "info",
    "is_known",
    "load",
    "open_loader",
    "prepare",
    "register_source",
    "source",
]
