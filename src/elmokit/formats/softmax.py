"""A softmax head kept apart from its model: `softmax/W` and `softmax/b` in HDF5, words in a text file (format C)."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import h5py

from elmokit.checkpoint import Arrays, Checkpoint, Config, check_vocabulary
from elmokit.errors import MismatchError
from elmokit.formats.hdf5 import dataset_shapes, open_hdf5, read_float32
from elmokit.formats.rules import Rule, check, to_ours, to_theirs

# Not .hdf5: simple_elmo takes the first file of that ending for the weights of the network.
WEIGHTS = "softmax.h5"


def read(softmax: str | Path | BinaryIO, config: Config, *, where: str) -> Arrays:
    """Read the head in an HDF5 file, named or open, for a model of this configuration.

    Raises `FormatError`, which names `where`, for a file that is not of this format.
    """
    table = _rules(config.lstm.projection_dim)
    with open_hdf5(softmax, where=where) as file:
        check(table, dataset_shapes(file, where=where), where=where)
        return to_ours(table, lambda name: read_float32(file, name))


def attach(checkpoint: Checkpoint, head: Arrays, words: tuple[str, ...], *, where: str) -> Checkpoint:
    """Return the model with a head, one row for each of `words`, in place of any it has.

    Raises `FormatError` for a head that has other rows than there are words, `MismatchError` for a model whose words
    come from a table of others. `where` names the head's file in errors.
    """
    for part in head.values():
        check_vocabulary(words, {"softmax.bias": part}, where=f"the vocabulary of {where}")
    if checkpoint.config.char_cnn is None and checkpoint.vocabulary != words:
        raise MismatchError(f"{where}: its words are not those of the model's table; a head must predict these")
    others = {name: array for name, array in checkpoint.arrays.items() if not name.startswith("softmax.")}
    return replace(checkpoint, arrays={**others, **head}, vocabulary=words)


def packed(checkpoint: Checkpoint) -> bytes:
    """Return the content of the HDF5 file for a model's head."""
    content = BytesIO()
    with h5py.File(content, "w", libver="earliest") as file:
        for name, array in to_theirs(_rules(checkpoint.config.lstm.projection_dim), checkpoint.arrays).items():
            file.create_dataset(name, data=array)
    return content.getvalue()


def _rules(P: int) -> list[Rule]:
    return [Rule("softmax.weight", ("softmax/W",), (None, P)), Rule("softmax.bias", ("softmax/b",), (None,))]
