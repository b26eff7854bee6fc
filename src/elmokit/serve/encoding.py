"""Vectors as bytes: NPZ and Arrow as the sinks of `elmo embed` write them, and base64."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elmokit.errors import MissingExtra, require
from elmokit.model import Elmo, Layers, Pool
from elmokit.serve.refusal import Refusal

Array = NDArray[np.float32]
NPZ = "application/x-npz"
ARROW = "application/vnd.apache.arrow.stream"


def base64_of(vectors: Array) -> str:
    """Return little-endian float32 in base64."""
    return base64.b64encode(vectors.astype("<f4").tobytes()).decode()


def npz(vectors: Sequence[Array]) -> bytes:
    """Return an NPZ file: an array for each sentence under its number."""
    file = io.BytesIO()
    np.savez(file, **{str(number): array for number, array in enumerate(vectors)})  # type: ignore[arg-type]
    return file.getvalue()


def arrow(
    sentences: Sequence[Sequence[str]], vectors: Sequence[Array], elmo: Elmo, *, layers: Layers, pool: Pool
) -> bytes:
    """Return a stream of Arrow with the columns of `sinks.parquet`: sentence, tokens, vectors or layer_0 ..."""
    try:
        pa = require("pyarrow", extra="arrow")
    except MissingExtra:
        raise Refusal(422, "this server has no pyarrow and cannot write Arrow; ask for npz or json") from None
    names = [f"layer_{n}" for n in range(elmo.n_layers)] if layers == "all" else ["vectors"]
    stacks = [v if layers == "all" else v[None] for v in vectors]
    columns = [_column(pa, [stack[n] for stack in stacks], elmo.dim, pooled=pool != "none") for n in range(len(names))]
    numbers = pa.array(range(len(sentences)), pa.int64())
    table = pa.table(
        [numbers, pa.array(list(map(list, sentences)), pa.list_(pa.string())), *columns], ["sentence", "tokens", *names]
    )
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


def _column(pa: Any, arrays: Sequence[Array], width: int, *, pooled: bool) -> Any:
    flat = pa.array(np.concatenate([array.ravel() for array in arrays]) if arrays else np.empty(0, np.float32))
    rows = pa.FixedSizeListArray.from_arrays(flat, width)
    if pooled:
        return rows
    return pa.ListArray.from_arrays(np.cumsum([0, *map(len, arrays)], dtype=np.int32), rows)
