"""HDF5 files of strangers: read what is asked for, follow no links, allocate no more than the file can hold."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from elmokit.checkpoint import Shape
from elmokit.errors import FormatError

# A file may be compressed, but weights are noise: more than this is a file that claims what it does not hold.
_MAX_EXPANSION = 4


@contextmanager
def open_hdf5(source: str | Path | BinaryIO, *, where: str) -> Iterator[h5py.File]:
    """Open an HDF5 file; what HDF5 says about a broken one becomes a `FormatError`, while reading too."""
    if isinstance(source, str | Path):
        _check_readable(Path(source), where)
    try:
        with h5py.File(source, "r") as file:
            yield file
    except FormatError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split("(", 1)[-1].rstrip(")'").split())[:120]
        raise FormatError(f"{where} is not a whole HDF5 file ({reason}); copy or fetch it again") from None


def _check_readable(path: Path, where: str) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise FormatError(f"{where} cannot be read ({error.strerror}); check the path") from None


def dataset_shapes(file: h5py.File, *, where: str) -> dict[str, Shape]:
    """Return name -> shape of every dataset; refuse links, data in other files, and numbers that are not floats."""
    shapes = dict(_walk(file, "", where=where, seen=set()))
    size = sum(math.prod(shape) * 4 for shape in shapes.values())
    held = file.id.get_filesize()
    if size > _MAX_EXPANSION * held:
        raise FormatError(f"{where}: its datasets claim {size:,} bytes, the file holds {held:,}; it is not whole")
    return shapes


def _walk(group: h5py.Group, prefix: str, *, where: str, seen: set[h5py.Group]) -> Iterator[tuple[str, Shape]]:
    """Yield name and shape of the datasets in a group; `seen` holds the groups on the way, for a file may be a knot."""
    seen.add(group)
    for key in group:
        name = f"{prefix}{key}"
        node = group[key] if isinstance(group.get(key, getlink=True), h5py.HardLink) else None
        if node is None or node in seen:
            raise FormatError(f"{where}: {name!r} is a link elsewhere, expected a dataset or group; not followed")
        if isinstance(node, h5py.Group):
            yield from _walk(node, name + "/", where=where, seen=seen)
        elif isinstance(node, h5py.Dataset):
            yield name, _shape(node, f"{where}: {name!r}")
        else:
            raise FormatError(f"{where}: {name!r} is a named type, expected a dataset or group")


def _shape(dataset: h5py.Dataset, where: str) -> Shape:
    if dataset.external or dataset.is_virtual:
        raise FormatError(f"{where} keeps its data in another file, expected it inside; not followed")
    if dataset.dtype.kind != "f" or dataset.shape is None:
        raise FormatError(f"{where}: expected floating-point numbers, found {dataset.dtype}")
    return tuple(dataset.shape)


def read_float32(file: h5py.File, name: str) -> NDArray[np.float32]:
    """Read one dataset whole, as float32."""
    return np.asarray(file[name][...], dtype=np.float32)
