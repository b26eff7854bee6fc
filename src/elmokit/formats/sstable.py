"""Tables of sorted keys in LevelDB's format, as TensorFlow writes them (tensorflow/core/lib/io/format.h, table_format).

A table ends in 48 bytes: where a block of notes and where a block of places is, and a magic number. The block of places
says where each block of entries is. In a block an entry is three numbers, the end of its key, and its value; the start
of its key is that of the key before. A block is followed by a byte for its compression and by a checksum of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import takewhile

from elmokit.formats.crc32c import crc32c, masked, unmasked

_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER, _TRAILER = 48, 5

# Keys share their starts, so short entries could unfold to far more than the file has.
_MAX_ENTRIES, _MAX_KEY = 10_000, 1024


def read_table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values, sorted. Raises `ValueError` or `IndexError` for what is not a whole table."""
    if len(content) < _FOOTER or content[-len(_MAGIC) :] != _MAGIC:
        raise ValueError("its last bytes are not those of a table")
    _, _, at = _place(content, len(content) - _FOOTER)
    offset, size, _ = _place(content, at)
    end, last, n_entries = 0, None, 0
    for _, place in _entries(_block(content, offset, size)):
        offset, size, _ = _place(place, 0)
        if offset < end:
            raise ValueError("its blocks are not one behind the other")
        end = offset + size + _TRAILER
        for key, value in _entries(_block(content, offset, size)):
            n_entries += 1
            if n_entries > _MAX_ENTRIES:
                raise ValueError(f"it has more than {_MAX_ENTRIES:,} entries")
            if last is not None and key <= last:
                raise ValueError("its keys are not sorted")
            last = key
            yield key, value


def _place(data: bytes, at: int) -> tuple[int, int, int]:
    """Return the offset and size of a block that are stated at `at`, and where the statement ends."""
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return offset, size, at


def _block(content: bytes, offset: int, size: int) -> bytes:
    end = offset + size
    if end + _TRAILER > len(content):
        raise ValueError(f"a block ends at byte {end + _TRAILER:,} of {len(content):,}")
    if unmasked(int.from_bytes(content[end + 1 : end + _TRAILER], "little")) != crc32c(content[offset : end + 1]):
        raise ValueError("a block does not have the checksum stored with it")
    if compression := content[end]:
        # Only TensorFlow 1.1 wrote such tables, if any did.
        name = "snappy" if compression == 1 else f"method {compression}"
        raise ValueError(f"a block is compressed by {name}, expected none; save it again with TensorFlow 1.2 or later")
    return content[offset:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values. A block ends in the places where keys start anew, which reading in order does not need."""
    if len(block) < 4:
        raise ValueError(f"a block has {len(block)} bytes")
    end = len(block) - 4 * (1 + int.from_bytes(block[-4:], "little"))
    if end < 0:
        raise ValueError("a block is larger than stated")
    at, key = 0, b""
    while at < end:
        shared, at = varint(block, at)
        n_more, at = varint(block, at)
        n_value, at = varint(block, at)
        if shared > len(key) or shared + n_more > _MAX_KEY or at + n_more + n_value > end:
            raise ValueError("an entry is larger than its block")
        key, at = key[:shared] + block[at : at + n_more], at + n_more
        yield key, block[at : at + n_value]
        at += n_value


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number stated at `at`, seven bits a byte and the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise ValueError("a number takes more than ten bytes")


# ---------------------------------------------------------------- writing


def write_table(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a table of sorted keys and values, in one block: a model has few entries."""
    found = list(entries)
    content, places = _stored(_written_block(found)), []
    places.append((found[-1][0], _written_place(0, len(content) - _TRAILER)))
    parts = [content, _stored(_written_block([])), _stored(_written_block(places))]
    starts = [0, len(parts[0]), len(parts[0]) + len(parts[1])]
    notes, index = (_written_place(starts[i], len(parts[i]) - _TRAILER) for i in (1, 2))
    return b"".join(parts) + (notes + index).ljust(_FOOTER - len(_MAGIC), b"\0") + _MAGIC


# A key is written whole again after so many.
_INTERVAL = 16


def _written_block(entries: list[tuple[bytes, bytes]]) -> bytes:
    block, anew, last = bytearray(), [0], b""
    for number, (key, value) in enumerate(entries):
        if number % _INTERVAL == 0 and number:
            anew.append(len(block))
            last = b""
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(last, key, strict=False)))
        block += written_varint(shared) + written_varint(len(key) - shared) + written_varint(len(value))
        block += key[shared:] + value
        last = key
    return bytes(block) + b"".join(n.to_bytes(4, "little") for n in (*anew, len(anew)))


def _stored(block: bytes) -> bytes:
    """Add what follows a block: that it is not compressed, and its checksum."""
    block += b"\0"
    return block + masked(crc32c(block)).to_bytes(4, "little")


def _written_place(offset: int, size: int) -> bytes:
    return written_varint(offset) + written_varint(size)


def written_varint(number: int) -> bytes:
    """Return a number as `varint` reads it."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
