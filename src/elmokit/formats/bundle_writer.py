"""TensorFlow's checkpoints (TensorBundle, version 2), written without TensorFlow: float32 tensors in one data file.

What the bytes mean is told in `tensor_bundle`, which reads them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from elmokit.formats.crc32c import crc32c, masked
from elmokit.formats.sstable import write_table, written_varint

_FLOAT32 = 1
_BYTES, _FIXED32 = 2, 5  # kinds of fields of a protobuf message


def write_bundle(arrays: Mapping[str, NDArray[np.float32]], prefix: str) -> dict[str, bytes]:
    """Return the two files of a checkpoint: name -> content, PREFIX.data-00000-of-00001 before PREFIX.index."""
    data, entries = bytearray(), [(b"", _HEADER)]
    for name in sorted(arrays, key=str.encode):
        content = np.ascontiguousarray(arrays[name], "<f4").tobytes()
        entries.append((name.encode(), _entry(arrays[name].shape, len(data), content)))
        data += content
    return {f"{prefix}.data-00000-of-00001": bytes(data), f"{prefix}.index": write_table(entries)}


def _entry(shape: tuple[int, ...], offset: int, content: bytes) -> bytes:
    """Return a BundleEntryProto: type, shape, place and checksum; numbers that are 0 are left out, as protobuf does."""
    axes = b"".join(_field(2, _number(1, axis)) for axis in shape)
    checksum = written_varint(6 << 3 | _FIXED32) + masked(crc32c(content)).to_bytes(4, "little")
    return _number(1, _FLOAT32) + _field(2, axes) + _number(4, offset) + _number(5, len(content)) + checksum


def _number(field: int, value: int) -> bytes:
    return written_varint(field << 3) + written_varint(value) if value else b""


def _field(field: int, message: bytes) -> bytes:
    return written_varint(field << 3 | _BYTES) + written_varint(len(message)) + message


# BundleHeaderProto: one shard, little-endian, and the version of the format's producer.
_HEADER = _number(1, 1) + _field(3, _number(1, 1))
