"""TensorFlow's checkpoints (TensorBundle, version 2), read without TensorFlow.

PREFIX.index is a table of names (`sstable`) whose values are protobuf messages (tensor_bundle.proto of TensorFlow, and
the files it names); PREFIX.data-00000-of-00002 and so on hold the bytes. A tensor in slices has an entry of its own,
which lists them, and one for each slice, under a binary key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from elmokit.checkpoint import Shape
from elmokit.errors import FormatError
from elmokit.formats.crc32c import crc32c, unmasked
from elmokit.formats.files import Files
from elmokit.formats.sstable import read_table, varint

# How TensorFlow numbers types (types.proto). Bfloat16 is the upper half of a float32; NumPy has none.
_STORED = {1: "f4", 2: "f8", 3: "i4", 4: "u1", 5: "i2", 6: "i1", 9: "i8", 10: "?", 14: "u2", 17: "u2", 19: "f2",
           22: "u4", 23: "u8"}  # fmt: skip
_BFLOAT16, _STRING, _FLOATS = 14, 7, frozenset((1, 2, 14, 19))

# An index takes some tens of bytes a tensor; beyond these it is no model's.
_MAX_INDEX, _MAX_AXES, _MAX_ELEMENTS = 1 << 22, 16, 1 << 48
# Strings are notes: nothing of a model's network is kept in them.
_MAX_STRINGS, _MAX_STRING_BYTES = 1 << 16, 1 << 26
_CHUNK = 1 << 20

Array = NDArray[Any]
# Start and length for each axis; the length None is the whole axis.
Slice: TypeAlias = tuple[tuple[int, int | None], ...]


@dataclass(frozen=True)
class Entry:
    """What the index says of a tensor: its type as TensorFlow numbers it, and where its bytes or slices are."""

    dtype: int
    shape: Shape
    shard: int
    offset: int
    size: int
    checksum: int
    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class Index:
    """The entries of a bundle by key, and what its header says."""

    entries: dict[bytes, Entry]
    n_shards: int
    order: Literal["<", ">"]

    @property
    def shapes(self) -> dict[str, Shape]:
        """Name -> shape of every tensor."""
        return {key.decode(): entry.shape for key, entry in self.entries.items() if not _is_slice(key)}


@dataclass(frozen=True)
class Bundle:
    """An open bundle. `shards`: the data files by number; `where` names the index in errors."""

    index: Index
    shards: Mapping[int, BinaryIO]
    where: str

    def read(self, name: str) -> Array:
        """Read one tensor whole: bfloat16 as float32, strings as an array of `bytes` objects."""
        entry, where = self._entry(name)
        return self._joined(name, entry, where) if entry.slices else self._whole(entry, where)

    def read_float32(self, name: str) -> NDArray[np.float32]:
        """Read one tensor as float32; raises `FormatError` for one that holds no floating-point numbers."""
        entry, where = self._entry(name)
        if entry.dtype not in _FLOATS:
            raise FormatError(f"{where}: expected floating-point numbers, found {_type_name(entry.dtype)}")
        return np.asarray(self.read(name), np.float32)

    def _entry(self, name: str) -> tuple[Entry, str]:
        where = f"{self.where}: tensor {name!r}"
        if name.encode() not in self.index.entries:
            raise FormatError(f"{where} is missing")
        return self.index.entries[name.encode()], where

    def _whole(self, entry: Entry, where: str) -> Array:
        """Read one tensor, or one slice, that is stored in one piece."""
        if entry.dtype not in (*_STORED, _STRING):
            raise FormatError(f"{where}: expected numbers or strings, found {_type_name(entry.dtype)}")
        octets = _octets(self.shards[entry.shard], entry, where)
        if entry.dtype == _STRING:
            return _strings(octets, entry, order=self.index.order, where=where)
        _check_sum(octets, entry, where)
        stored = octets.view(np.dtype(_STORED[entry.dtype]).newbyteorder(self.index.order)).reshape(entry.shape)
        if entry.dtype == _BFLOAT16:
            wide = stored.astype(np.uint32)
            wide <<= 16
            return wide.view(np.float32)
        return stored.astype(_STORED[entry.dtype], copy=False)

    def _joined(self, name: str, entry: Entry, where: str) -> Array:
        """Read a tensor that is stored in slices, which must cover it without overlapping."""
        # Each slice has its own bytes, so that together they are no larger than the data files; one named over and
        # over would be as large as the index cares to say.
        if len(set(entry.slices)) < len(entry.slices):
            raise FormatError(f"{where}: its slices overlap; copy or fetch the file again")
        parts = [_locate(name, entry, extents, entries=self.index.entries, where=where) for extents in entry.slices]
        if sum(math.prod(part.shape) for _, part in parts) != math.prod(entry.shape):
            raise FormatError(f"{where}: its slices together are not as large as its shape {_short(entry.shape)}")
        whole = np.empty(entry.shape, "f4" if entry.dtype == _BFLOAT16 else _STORED[entry.dtype])
        filled = np.zeros(entry.shape, bool)
        for place, part in parts:
            whole[place], filled[place] = self._whole(part, where), True
        if not filled.all():
            raise FormatError(f"{where}: its slices overlap; copy or fetch the file again")
        return whole


# ---------------------------------------------------------------- opening


def find_indexes(files: Files) -> list[str]:
    """Return the names of the indexes that have data files beside them."""
    beside = {match[1] for name in files.sizes if (match := re.fullmatch(r"(.*)\.data-\d{5}-of-\d{5}", name))}
    return [name for name in files.find("*.index") if name.removesuffix(".index") in beside]


@contextmanager
def open_bundle(files: Files, index: str) -> Iterator[Bundle]:
    """Open a bundle by the name of its index. What the index says is checked; no tensor is read yet."""
    read = read_index(files, index)
    numbers = {entry.shard for entry in read.entries.values() if not entry.slices}
    with ExitStack() as stack:
        shards = {n: stack.enter_context(files.open(_shard(index, n, read.n_shards))) for n in sorted(numbers)}
        yield Bundle(read, shards, files.named(index))


def read_index(files: Files, index: str) -> Index:
    """Read what a bundle holds. Raises `FormatError` unless all of it can lie within the data files that are there."""
    where = files.named(index)
    try:
        table = read_table(files.read(index, limit=_MAX_INDEX))
        n_shards, order = _parse_header(*next(table, (b"", b"")))
        entries = {key: _parse_entry(key, value) for key, value in table}
    except (ValueError, IndexError) as error:
        if isinstance(error, FormatError):
            raise
        reason = "it ends too early" if isinstance(error, IndexError) else str(error)[:160]
        raise FormatError(f"{where} is not a whole index of a TensorFlow checkpoint: {reason}") from None
    pieces = {key: entry for key, entry in entries.items() if not entry.slices}
    sizes = {n: files.sizes.get(_shard(index, n, n_shards), -1) for n in {entry.shard for entry in pieces.values()}}
    for key, entry in pieces.items():
        _check_place(entry, sizes[entry.shard], where=f"{where}: tensor {_short(key.decode(errors='replace'))}")
    if (claimed := sum(entry.size for entry in pieces.values())) > (held := sum(sizes.values())):
        raise FormatError(
            f"{where}: its tensors claim {claimed:,} bytes, the data files hold {held:,}; it is not whole"
        )
    return Index(entries, n_shards, order)


def _shard(index: str, number: int, n_shards: int) -> str:
    return f"{index.removesuffix('.index')}.data-{number:05d}-of-{n_shards:05d}"


def _check_place(entry: Entry, held: int, *, where: str) -> None:
    """Raise `FormatError` unless a data file of `held` bytes, -1 where there is none, has the bytes of an entry."""
    if held < 0:
        raise FormatError(f"{where} is in data file {entry.shard}, which is not there; put all files of the model here")
    if (end := entry.offset + entry.size) > held:
        file = f"data file {entry.shard}, which has {held:,}"
        raise FormatError(f"{where} ends at byte {end:,} of {file}; the file is not whole, copy or fetch it again")
    if entry.dtype in _STORED and entry.size != math.prod(entry.shape) * np.dtype(_STORED[entry.dtype]).itemsize:
        needs = f"shape {_short(entry.shape)} of {_type_name(entry.dtype)}"
        raise FormatError(f"{where} claims {entry.size:,} bytes, which is not what {needs} takes; it is not whole")


# ---------------------------------------------------------------- what the index says


def _parse_header(key: bytes, value: bytes) -> tuple[int, Literal["<", ">"]]:
    """Return the number of data files and the order of bytes in them."""
    if key or not value:
        raise ValueError("it does not start with a header")
    numbers, parts = _message(value)
    oldest_reader = _message(parts[3][-1])[0].get(2, 0) if 3 in parts else 0
    if oldest_reader > 1:
        raise ValueError(f"it is of version {oldest_reader}, expected 1")
    return numbers.get(1, 0), ">" if numbers.get(2, 0) else "<"


def _parse_entry(key: bytes, value: bytes) -> Entry:
    numbers, parts = _message(value)
    if not _is_slice(key):
        key.decode()  # a name that is not text is a ValueError
    shape = _parse_shape(parts[2][-1]) if 2 in parts else ()
    slices = tuple(_parse_slice(part) for part in parts.get(7, []))
    dtype, shard, offset, size, checksum = (numbers.get(i, 0) for i in (1, 3, 4, 5, 6))
    return Entry(dtype, shape, shard, offset, size, checksum, slices)


def _parse_shape(value: bytes) -> Shape:
    numbers, parts = _message(value)
    if numbers.get(3, 0) or len(parts.get(2, [])) > _MAX_AXES:
        raise ValueError(f"a tensor has a shape that is not known or has more than {_MAX_AXES} axes")
    shape = tuple(_message(axis)[0].get(1, 0) for axis in parts.get(2, []))
    if math.prod(max(1, axis) for axis in shape) > _MAX_ELEMENTS:
        raise ValueError(f"a tensor claims the shape {_short(shape)}")
    return shape


def _parse_slice(value: bytes) -> Slice:
    axes = [_message(axis)[0] for axis in _message(value)[1].get(1, [])]
    return tuple((axis.get(1, 0), axis.get(2)) for axis in axes)


def _message(data: bytes) -> tuple[dict[int, int], dict[int, list[bytes]]]:
    """Parse one protobuf message: field -> its last number, and field -> its pieces of bytes."""
    numbers: dict[int, int] = {}
    parts: dict[int, list[bytes]] = {}
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        field, kind = tag >> 3, tag & 7
        if kind == 0:
            numbers[field], at = varint(data, at)
            continue
        length, at = varint(data, at) if kind == 2 else (_FIXED.get(kind, len(data)), at)
        if at + length > len(data):
            raise ValueError("a message in it is cut off or not understood")
        part, at = data[at : at + length], at + length
        if kind == 2:
            parts.setdefault(field, []).append(part)
        else:
            numbers[field] = int.from_bytes(part, "little")
    return numbers, parts


_FIXED = {1: 8, 5: 4}  # bytes of the numbers of fixed length


# ---------------------------------------------------------------- slices


def _is_slice(key: bytes) -> bool:
    return key.startswith(b"\0")


def _locate(
    name: str, entry: Entry, extents: Slice, *, entries: Mapping[bytes, Entry], where: str
) -> tuple[tuple[slice, ...], Entry]:
    """Return the place of a slice in its tensor, and its own entry."""
    if entry.dtype not in _STORED or len(extents) != len(entry.shape):
        raise FormatError(f"{where}: expected slices of numbers with {len(entry.shape)} axes")
    part = entries.get(_slice_key(name, extents))
    if part is None or part.slices or part.dtype != entry.dtype:
        raise FormatError(f"{where}: the slice {_short(extents)} is missing or of another type")
    pairs = zip(extents, entry.shape, strict=True)
    place = tuple(slice(start, start + (axis if length is None else length)) for (start, length), axis in pairs)
    lengths = tuple(part.stop - part.start for part in place)
    if lengths != part.shape or any(part.stop > axis for part, axis in zip(place, entry.shape, strict=True)):
        raise FormatError(f"{where}: the slice {_short(extents)} does not fit its shape {_short(entry.shape)}")
    return place, part


def _slice_key(name: str, extents: Slice) -> bytes:
    """Return the key of a slice: 0, name, number of axes, start and length of each (-1: all), so coded as to sort."""
    text = name.encode().replace(b"\0", b"\0\xff").replace(b"\xff", b"\xff\0")
    numbers = [number for start, length in extents for number in (start, -1 if length is None else length)]
    return b"\0" + text + b"\0\1" + bytes((1, len(extents))) + b"".join(map(_sortable, numbers))


def _sortable(number: int) -> bytes:
    """Code a number of up to 64 bits: as many leading ones as it takes bytes, then itself, highest bits first."""
    n_bytes = (number if number >= 0 else ~number).bit_length() // 7 + 1
    ones = (1 << n_bytes) - 1
    return ((number & (1 << 8 * n_bytes) - 1) ^ ones << 7 * n_bytes).to_bytes(n_bytes, "big")


# ---------------------------------------------------------------- what the data files hold


def _octets(file: BinaryIO, entry: Entry, where: str) -> NDArray[np.uint8]:
    octets = np.empty(entry.size, np.uint8)
    file.seek(entry.offset)
    for start in range(0, entry.size, _CHUNK):
        part = file.read(min(_CHUNK, entry.size - start))
        if len(part) != min(_CHUNK, entry.size - start):
            raise FormatError(f"{where}: its data file ends before it; copy or fetch it again")
        octets[start : start + len(part)] = np.frombuffer(part, np.uint8)
    return octets


def _check_sum(content: bytes | NDArray[np.uint8], entry: Entry, where: str) -> None:
    if crc32c(content) != unmasked(entry.checksum):
        raise FormatError(f"{where} does not have the checksum stored with it; copy or fetch the data file again")


def _strings(octets: NDArray[np.uint8], entry: Entry, *, order: str, where: str) -> Array:
    """Parse a tensor of strings: their lengths, a checksum of these, and the strings one behind the other."""
    content, n = octets.tobytes(), math.prod(entry.shape)
    if n > _MAX_STRINGS or entry.size > _MAX_STRING_BYTES:
        raise FormatError(f"{where}: {n:,} strings in {entry.size:,} bytes are too many; no model has them")
    lengths, at = [], 0
    try:
        for _ in range(n):
            length, at = varint(content, at)
            lengths.append(length)
    except (ValueError, IndexError):
        lengths = [-1]
    if len(content) != at + bool(content) * 4 + sum(lengths):
        raise FormatError(f"{where}: the lengths of its strings are not those of its bytes; copy or fetch it again")
    # The checksum is not of the lengths as stored but of these in four bytes each.
    _check_sum(np.array(lengths, f"{order}u4").tobytes() + content[at:], entry, where)
    ends = np.cumsum([at + 4, *lengths]).tolist()
    found = np.empty(n, object)
    found[:] = [content[start:end] for start, end in pairwise(ends)]
    return found.reshape(entry.shape)


def _type_name(dtype: int) -> str:
    names = {_STRING: "strings", _BFLOAT16: "bfloat16"}
    return names.get(dtype) or (np.dtype(_STORED[dtype]).name if dtype in _STORED else f"TensorFlow's type {dtype}")


def _short(found: object) -> str:
    return repr(found)[:80]
