"""Parquet: a row for each sentence with its number, its tokens and its vectors.

Columns: `sentence` int64, `tokens` list<string>, and `vectors`, or with all layers `layer_0`, `layer_1`, ...: each a
list (one item for each token) of fixed-size lists of D floats, or, pooled, one fixed-size list. Before them, where the
`Spec` names a text, `text` string. The notes of the output (model, options) are in the schema's metadata, under
"elmokit.<name>".
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from elmokit.errors import OutputError
from elmokit.sinks.spec import Array, Spec

GROUP_BYTES = 2**25  # of vectors held in memory before a row group is written


class ParquetSink:
    """One Parquet file, being written. Holds at most one row group: 32 MiB of vectors, or one longer sentence."""

    def __init__(self, path: Path, spec: Spec) -> None:
        """Begin the file, in place of any that is there."""
        self._spec = spec
        self._schema = _schema(spec)
        # No two vectors are alike: a dictionary of them only costs time.
        self._writer = pq.ParquetWriter(path, self._schema, use_dictionary=["text"] if spec.text else False)
        self._begin_group()

    def _begin_group(self) -> None:
        self._numbers: list[int] = []
        self._tokens: list[list[str]] = []
        self._arrays: list[Array] = []
        self._bytes = 0

    def write(self, number: int, tokens: Sequence[str], array: Array) -> None:
        """Add the row of one sentence."""
        array = self._spec.fit(array, number=number)
        self._numbers.append(number)
        self._tokens.append(list(tokens))
        self._arrays.append(array)
        self._bytes += array.nbytes
        if self._bytes >= GROUP_BYTES:
            self._write_group()

    def _write_group(self) -> None:
        columns = [] if self._spec.text is None else [pa.array([self._spec.text] * len(self._numbers), pa.string())]
        columns += [pa.array(self._numbers, pa.int64()), pa.array(self._tokens, self._schema.field("tokens").type)]
        for layer in range(len(self._schema) - len(columns)):
            arrays = self._arrays if self._spec.layers is None else [array[layer] for array in self._arrays]
            columns.append(_vectors(arrays, self._schema.field(len(columns)).type, pooled=self._spec.pooled))
        self._begin_group()
        self._writer.write_table(pa.table(columns, schema=self._schema))

    def add_file(self, part: Path) -> None:
        """Add the row groups of another file, one at a time."""
        with pq.ParquetFile(part) as source:
            for group in range(source.num_row_groups):
                self._writer.write_table(source.read_row_group(group))

    def close(self) -> None:
        """Write the last row group and end the file."""
        if self._numbers:
            self._write_group()
        self._writer.close()

    def abandon(self) -> None:
        """Let go of the file without ending it."""
        self._begin_group()
        with suppress(OSError):
            self._writer.close()


def _schema(spec: Spec) -> pa.Schema:
    vectors = pa.list_(pa.float16() if spec.dtype == "float16" else pa.float32(), spec.width)
    if not spec.pooled:
        vectors = pa.list_(vectors)
    names = ["vectors"] if spec.layers is None else [f"layer_{layer}" for layer in range(spec.layers)]
    text = [] if spec.text is None else [("text", pa.string())]
    return pa.schema(
        [*text, ("sentence", pa.int64()), ("tokens", pa.list_(pa.string())), *((name, vectors) for name in names)],
        metadata={f"elmokit.{name}": note for name, note in spec.notes.items()},
    )


def read_notes(path: Path) -> dict[str, str]:
    """Return the notes of a file that this sink wrote; `OutputError` where it cannot be read."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read ({error}); remove it, and it is made again") from None
    prefix = b"elmokit."
    return {
        key.removeprefix(prefix).decode(): note.decode() for key, note in metadata.items() if key.startswith(prefix)
    }


def _vectors(arrays: Sequence[Array], kind: pa.DataType, *, pooled: bool) -> pa.Array:
    """Return arrays (T, D), or pooled (D,), as one Arrow column of type `kind`."""
    flat = pa.array(np.concatenate([array.ravel() for array in arrays]))
    if pooled:
        return pa.FixedSizeListArray.from_arrays(flat, type=kind)
    offsets = np.cumsum([0, *(len(array) for array in arrays)], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(flat, type=kind.value_type), type=kind)
