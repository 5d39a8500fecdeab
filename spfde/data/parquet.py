"""Image data sets as parquet files, in the layout that dataset hubs use.

Columns: `img` or `image`, a struct whose `bytes` are an encoded image; `fine_label` or `label`, an integer. Other
columns are ignored.
"""

import io
from pathlib import Path

import torch

from spfde.data.images import decode_images
from spfde.data.split import DataInfo, Split
from spfde.errors import SpfdeError

INTACT = "replace it by an intact copy"


def parquet_files(folder: Path) -> dict[str, list[Path]]:
    """The `train-*.parquet` and `test-*.parquet` files of a folder by name; empty if it has no parquet files.

    Raises:
        SpfdeError: files of one of the two are missing.
    """
    found = {split: sorted(folder.glob(f"{split}-*.parquet")) for split in ("train", "test")}
    if not any(found.values()):
        return {}
    for split, paths in found.items():
        if not paths:
            raise SpfdeError(f"{folder} has no {split}-*.parquet", "add the missing files, or remove all parquet files")
    return found


def read_parquet(info: DataInfo, paths: list[Path]) -> Split:
    """The samples of these files, in order.

    Raises:
        SpfdeError: a file is damaged, lacks a column, or holds images that cannot be decoded or have the wrong size.
    """
    parts = [_read_file(info, path) for path in paths]
    return Split(torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts]))


def _read_file(info: DataInfo, path: Path) -> Split:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            image_column = _column(path, names, ("img", "image"))
            label_column = _column(path, names, ("fine_label", "label"))
            table = file.read(columns=[image_column, label_column])
        encoded = table[image_column].combine_chunks().field("bytes").to_pylist()
        labels = torch.from_numpy(table[label_column].to_numpy().astype("int64", casting="safe"))
    except (pyarrow.ArrowException, OSError) as error:
        raise SpfdeError(f"{path} cannot be read as parquet ({error})", INTACT) from None
    except (AttributeError, KeyError, TypeError) as error:
        cause = f"{path} has columns of another type ({error})"
        raise SpfdeError(cause, "images must be a struct with the encoded `bytes`, labels integers") from None
    if None in encoded:
        raise SpfdeError(f"{path} has rows without image bytes", "use files that contain the images themselves")
    return Split(decode_images(info, [io.BytesIO(image) for image in encoded], None, str(path)), labels)


def _column(path: Path, names: list[str], candidates: tuple[str, str]) -> str:
    for name in candidates:
        if name in names:
            return name
    cause = f'{path} has neither a column "{candidates[0]}" nor "{candidates[1]}" (it has {", ".join(names)})'
    raise SpfdeError(cause, "rename the column")
