"""A softmax head kept apart from its model: `softmax/W` and `softmax/b` in HDF5, words in a text file (format C)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from elmokit.checkpoint import Checkpoint, check_vocabulary, read_vocabulary
from elmokit.errors import MismatchError
from elmokit.formats.hdf5 import dataset_shapes, open_hdf5, read_float32
from elmokit.formats.rules import Rule, check, to_ours


def attach(checkpoint: Checkpoint, softmax: str | Path, *, vocabulary: str | Path) -> Checkpoint:
    """Return the model with this head, one row for each word of the vocabulary file, instead of any it has.

    Raises `FormatError` for files that are not of this format, `MismatchError` for a model whose words come from a
    table of another vocabulary.
    """
    rows = (None, checkpoint.config.lstm.projection_dim)
    table = [Rule("softmax.weight", ("softmax/W",), rows), Rule("softmax.bias", ("softmax/b",), (None,))]
    with open_hdf5(softmax, where=str(softmax)) as file:
        check(table, dataset_shapes(file, where=str(softmax)), where=str(softmax))
        head = to_ours(table, lambda name: read_float32(file, name))
    words = read_vocabulary(vocabulary)
    for part in head.values():
        check_vocabulary(words, {"softmax.bias": part}, where=str(vocabulary))
    if checkpoint.config.char_cnn is None and checkpoint.vocabulary != words:
        raise MismatchError(f"{vocabulary} is not the vocabulary of the model's words; a head must predict these")
    return replace(checkpoint, arrays={**checkpoint.arrays, **head}, vocabulary=words)
