"""TensorFlow checkpoints made in memory: whole ones, and such as no TensorFlow would write."""

from __future__ import annotations

import io
import tracemalloc
from contextlib import contextmanager

import numpy as np

from elmokit.errors import FormatError
from elmokit.formats.crc32c import crc32c
from elmokit.formats.files import Files

FLOAT32, STRING, BFLOAT16 = 1, 7, 14
DTYPES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "int64": 9, "bool": 10,
          "uint16": 17, "float16": 19, "uint32": 22, "uint64": 23}  # fmt: skip
MAGIC = bytes.fromhex("57fb808b247547db")


class Memory(Files):
    """The files of a dictionary, name -> bytes."""

    def __init__(self, contents):
        super().__init__("memory")
        self.contents = contents

    @property
    def sizes(self):
        return {name: len(content) for name, content in self.contents.items()}

    @contextmanager
    def open(self, name):
        yield io.BytesIO(self.contents[name])


def masked(checksum):
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


# ---------------------------------------------------------------- protobuf


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number, value, *, fixed=False):
    """One field of a message: bytes, a number, or a number of four fixed bytes."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3 | 5) + value.to_bytes(4, "little") if fixed else varint(number << 3) + varint(value)


def header(*, n_shards=1, big=False, reader=0):
    return field(1, n_shards) + field(2, int(big)) + field(3, field(1, 1) + field(2, reader))


def entry(*, dtype=FLOAT32, shape=(), shard=0, offset=0, size=0, checksum=0, slices=()):
    axes = b"".join(field(2, field(1, axis)) for axis in shape)
    parts = b"".join(field(7, b"".join(field(1, extent(*pair)) for pair in part)) for part in slices)
    numbers = field(1, dtype) + field(2, axes) + field(3, shard) + field(4, offset) + field(5, size)
    return numbers + field(6, masked(checksum), fixed=True) + parts


def extent(start, length):
    return b"" if length is None else field(1, start) + field(2, length)


def slice_key(name, extents):
    """As TensorFlow codes it, for small numbers."""
    numbers = [n for start, length in extents for n in (start, -1 if length is None else length)]
    return b"\0" + name.encode() + b"\0\1\1" + bytes([len(extents)]) + bytes([0x80 ^ n & 0xFF for n in numbers])


# ---------------------------------------------------------------- the table


def block(entries, *, interval=16):
    out, restarts, last = bytearray(), [], b""
    for i, (key, value) in enumerate(entries):
        shared = 0
        if i % interval == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return bytes(out) + b"".join(n.to_bytes(4, "little") for n in [*(restarts or [0]), len(restarts) or 1])


def stored(content, *, compression=0):
    """A block with its trailer."""
    content += bytes([compression])
    return content + masked(crc32c(content)).to_bytes(4, "little")


def footer(index, *, notes=(0, 0)):
    places = b"".join(map(varint, (*notes, *index)))
    return places.ljust(40, b"\0") + MAGIC


def table(entries, *, per_block=8, interval=16):
    out, places = b"", []
    for start in range(0, len(entries), per_block):
        content = block(entries[start : start + per_block], interval=interval)
        places.append((entries[min(start + per_block, len(entries)) - 1][0], varint(len(out)) + varint(len(content))))
        out += stored(content)
    content = block(places, interval=1)
    return out + stored(content) + footer((len(out), len(content)))


# ---------------------------------------------------------------- the bundle


def strings(array, *, order="<"):
    """Content and checksum of a tensor of bytes objects."""
    words = list(array.flat)
    lengths = np.array([len(word) for word in words], f"{order}u4").tobytes()
    tail = masked(crc32c(lengths)).to_bytes(4, "little" if order == "<" else "big") + b"".join(words)
    return b"".join(varint(len(word)) for word in words) + tail, crc32c(lengths + tail)


def entries_and_shards(arrays, *, n_shards=1, big=False, slices=None):
    """Return the sorted entries of an index and the content of the data files.

    `slices`: name -> extents of the slices in which that array is stored.
    """
    order, shards, entries = ">" if big else "<", [b""] * n_shards, {}

    def store(key, array):
        if array.dtype == object:
            dtype, (content, checksum) = STRING, strings(array, order=order)
        else:
            dtype = DTYPES[array.dtype.name]
            content = array.astype(array.dtype.newbyteorder(order)).tobytes()
            checksum = crc32c(content)
        shard = len(entries) % n_shards
        place = {"shard": shard, "offset": len(shards[shard]), "size": len(content), "checksum": checksum}
        entries[key] = entry(dtype=dtype, shape=array.shape, **place)
        shards[shard] += content

    for name, array in arrays.items():
        if extents := (slices or {}).get(name):
            for part in extents:
                place = tuple(slice(start, None if n is None else start + n) for start, n in part)
                store(slice_key(name, part), array[place])
            entries[name.encode()] = entry(dtype=DTYPES[array.dtype.name], shape=array.shape, slices=extents)
        else:
            store(name.encode(), array)
    return [(b"", header(n_shards=n_shards, big=big)), *sorted(entries.items())], shards


def files_of(entries, shards, *, prefix="model.ckpt-7", **layout):
    data = {f"{prefix}.data-{i:05d}-of-{len(shards):05d}": content for i, content in enumerate(shards)}
    return {f"{prefix}.index": table(entries, **layout), **data}


def bundle(arrays, *, prefix="model.ckpt-7", n_shards=1, big=False, slices=None, **layout):
    """A whole checkpoint, as name -> bytes."""
    entries, shards = entries_and_shards(arrays, n_shards=n_shards, big=big, slices=slices)
    return files_of(entries, shards, prefix=prefix, **layout)


# ---------------------------------------------------------------- reading what may be broken


def refused(read):
    """What is read, or None where that is refused, as it may be, in one line."""
    try:
        return read()
    except FormatError as error:
        assert "\n" not in str(error)  # noqa: PT017 - whichever error it is
        return None


def within(n_bytes, function):
    """What a function returns; fails where it takes more memory than this at once."""
    peaks = []
    while len(peaks) < 2:  # the interpreter's own tables grow now and then, but not twice
        tracemalloc.start()
        try:
            result = function()
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        if peaks[-1] <= n_bytes:
            return result
    raise AssertionError(f"took {peaks} bytes at once, expected at most {n_bytes}")


# ---------------------------------------------------------------- damage


def damaged_bytes(content, random):
    """The bytes with something done to them that a disk, a network or a stranger may do."""
    at = random.randrange(len(content) + 1)
    some = random.randbytes(random.randrange(1, 9))
    huge = varint(random.choice([2**63, 2**64 - 1, 2**40, 2**31, 0])) if random.random() < 0.9 else b"\xff" * 12
    return random.choice(
        [
            lambda: content[:at],
            lambda: content[at:],
            lambda: content[:at] + some + content[at:],
            lambda: content[:at] + some + content[at + len(some) :],
            lambda: content[:at] + huge + content[at + len(huge) :],
            lambda: content[:at] + huge + content[at + 1 :],
            lambda: content[:at] + content[at + len(some) :],
            lambda: (
                content[:at] + bytes([content[at] ^ 1 << random.randrange(8)]) + content[at + 1 :]
                if at < len(content)
                else b""
            ),
            lambda: content * 2,
        ]
    )()


def damaged_files(contents, random, *, among):
    """The files with one of `among` damaged, or missing."""
    name = random.choice(among)
    if random.random() < 0.03:
        return {other: content for other, content in contents.items() if other != name}
    return {**contents, name: damaged_bytes(contents[name], random)}


def damaged_entries(entries, shards, random, *, prefix="model.ckpt-7"):
    """A bundle whose checksums are right and whose index is not: what only someone with a purpose writes."""
    entries = list(entries)
    for _ in range(random.randrange(1, 4)):
        i = random.randrange(len(entries))
        key, value = entries[i]
        change = random.randrange(10)
        if change < 6:
            entries[i] = key, damaged_bytes(value, random)
        elif change < 8:
            entries[i] = damaged_bytes(key, random)[:2000], value
        elif change == 8:
            entries[i] = key, random.choice(entries)[1]
        else:
            entries.insert(i, random.choice(entries))
    if random.random() < 0.7:
        entries.sort()
    layout = {"per_block": random.randrange(1, 12), "interval": random.randrange(1, 20)}
    contents = files_of(entries, shards, prefix=prefix, **layout)
    if random.random() < 0.2:
        contents[f"{prefix}.index"] = damaged_blocks(entries, random)
    return contents


def damaged_blocks(entries, random):
    """A table whose blocks have the right checksums and wrong insides or places."""
    content = damaged_bytes(block(entries), random)
    places = block([(random.choice(entries)[0], varint(random.choice([0, len(content)])) + varint(len(content)))])
    places = damaged_bytes(places, random) if random.random() < 0.5 else places
    first = stored(content, compression=random.choice([0, 0, 0, 1, 2]))
    return first + stored(places) + footer((len(first), len(places)))
