"""HDF5 as `allennlp elmo` writes it: one array for each line, and an index from sentences to lines.

Each array is a contiguous dataset under its line number "0", "1", ...; `sentence_to_index`, shape (1,), variable-length
UTF-8, is a JSON object {sentence: number as a string}, the last number where a sentence comes twice. An empty line,
which AllenNLP refuses, keeps its number and holds an array with T = 0.
"""

from __future__ import annotations

import errno
import json
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5o, h5p, h5s, h5t
from numpy.typing import NDArray

from elmokit.errors import OutputError
from elmokit.sinks.spec import Array, SentenceKeys, Spec, finished

INDEX = "sentence_to_index"
JSON_LIMIT = 2**32 - 1  # HDF5 counts the bytes of a variable-length string in 32 bits
MARGIN = 2**20  # more than HDF5 adds to a file around one dataset: headers and the nodes of its group trees
STEP = 2**22
NO_WAY_TO_TAKE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


class Hdf5Sink:
    """One HDF5 file, being written.

    Memory: with an index, the sentences of this file until `close`. Joining files takes 40 bytes for each sentence
    instead, but then the index, a JSON text that HDF5 takes only in one piece, about three times (here, in h5py and in
    HDF5). Without an index, little more than one array.
    """

    def __init__(self, path: Path, spec: Spec) -> None:
        """Begin the file, in place of any that is there."""
        self._spec = spec
        self._room = _Room(path)
        self._indexed = not (spec.sentence_keys or spec.forget_sentences)
        self._index: dict[str, str] = {}
        self._parts: list[Path] = []
        self._keys = SentenceKeys()
        self._type = h5t.py_create(np.dtype(spec.dtype))
        self._layout = h5p.create(h5p.DATASET_CREATE)
        self._layout.set_obj_track_times(False)  # equal input, equal file
        self._links = h5p.create(h5p.LINK_CREATE)
        self._links.set_create_intermediate_group(True)  # for a '/' in a sentence

    def write(self, number: int, tokens: Sequence[str], array: Array) -> None:
        """Add the array of one sentence under its number, or under the sentence itself."""
        array = self._spec.fit(array, number=number)
        key = self._keys.claim(number, tokens) if self._spec.sentence_keys else str(number)
        name = key.encode()
        self._room.make(array.nbytes, names=len(name))
        place = h5s.create_simple(array.shape)
        dataset = h5d.create(self._room.file.id, name, self._type, place, self._layout, self._links)
        if array.size:
            dataset.write(h5s.ALL, h5s.ALL, array)
        if self._indexed:
            self._index[" ".join(tokens)] = key

    def add_file(self, part: Path) -> None:
        """Add the datasets of another file, one at a time; it is read once more by `close`, for the index."""
        self._parts.append(part)
        with h5py.File(part) as source:
            nested = self._spec.sentence_keys
            for key in _nested_keys(source) if nested else sorted(source.keys() - {INDEX}, key=int):
                name = key.encode()
                self._room.make(h5d.open(source.id, name).get_storage_size(), names=len(name))
                h5o.copy(source.id, name, self._room.file.id, name, lcpl=self._links)

    def close(self) -> None:
        """Write the index and end the file."""
        if self._indexed:
            index = _merge_index(self._parts) if self._parts else json.dumps(self._index).encode()
            _write_index(self._room, index)
        self._room.close()

    def abandon(self) -> None:
        """Let go of the file without ending it."""
        with suppress(OSError, RuntimeError):
            self._room.close()


@contextmanager
def whole_file(path: Path, spec: Spec) -> Iterator[Hdf5Sink]:
    """Write a file beside its place and move it there when it is whole; what was there stays until then."""
    unfinished = path.with_name(f"{path.name}.part")
    try:
        sink = Hdf5Sink(unfinished, spec)
        with finished(sink):
            yield sink
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


class _Room:
    """An HDF5 file whose space on the disk is taken before HDF5 writes there.

    A full disk that HDF5 itself finds costs the process its life: in h5py 3.16 (HDF5 2.0) closing the file, or leaving
    Python, ends in a segmentation fault. Found beforehand it is an OSError like any other, and the file can still be
    closed. Where the system cannot take space (no posix_fallocate) this does nothing.
    """

    def __init__(self, path: Path) -> None:
        """Begin the file, in place of any that is there."""
        self.path = path
        self._taken = 0
        self._names = 0
        with path.open("wb") as stream:  # HDF5 writes to a new file at once, so there must be room even before
            self._take(stream.fileno(), MARGIN)
        self.file = h5py.File(path, "w", libver="earliest")  # as old readers expect; all that is needed is in it
        self._taken = 0  # HDF5 has emptied the file
        try:
            self.make(0)
        except OSError:
            self.file.close()
            raise

    def make(self, size: int, *, names: int = 0) -> None:
        """Take space for `size` bytes more of data and `names` bytes more of names; OSError if the disk has none."""
        self._names += names
        # A group keeps its names in one piece, which moves to a place of twice the size when it is full.
        wanted = self.file.id.get_filesize() + size + 2 * self._names + MARGIN
        if wanted > self._taken:
            self._take(self.file.id.get_vfd_handle(), wanted + STEP)

    def _take(self, handle: int, wanted: int) -> None:
        if not hasattr(os, "posix_fallocate"):
            return
        try:
            os.posix_fallocate(handle, self._taken, wanted - self._taken)
        except OSError as error:
            if error.errno not in NO_WAY_TO_TAKE:
                raise
        self._taken = wanted

    def close(self) -> None:
        """Close the file and give back the space it did not use."""
        if self.file.id.valid:
            self.file.close()
            with self.path.open("rb") as stream:
                (end,) = struct.unpack_from("<Q", stream.read(48), 40)  # end of file, in a superblock of version 0
            os.truncate(self.path, end)


def _nested_keys(source: h5py.File) -> list[str]:
    keys: list[str] = []
    source.visititems(lambda key, item: keys.append(key) if isinstance(item, h5py.Dataset) else None)
    return keys


# ---------------------------------------------------------------- the index


def _write_index(room: _Room, text: bytes) -> None:
    if len(text) > JSON_LIMIT:
        raise OutputError(
            f"the index of sentences would be {len(text):,} bytes, and HDF5 holds at most {JSON_LIMIT:,}: "
            "leave it out (--forget-sentences)"
        )
    room.make(2 * len(text))
    room.file.create_dataset(INDEX, (1,), dtype=h5py.string_dtype())[0] = text


def _merge_index(parts: Sequence[Path]) -> bytes:
    """Return the index of all parts, written as `json.dumps` writes the dict that gets their entries one by one."""
    numbers = _last_numbers(parts)
    pieces: list[bytes] = []
    for part in parts:
        index = _read_index(part)
        known = zip(index, numbers[: len(index)].tolist(), strict=True)
        pieces.extend(f'{json.dumps(sentence)}: "{number}"'.encode() for sentence, number in known if number >= 0)
        numbers = numbers[len(index) :]
    return b"{" + b", ".join(pieces) + b"}"


def _last_numbers(parts: Sequence[Path]) -> NDArray[np.int64]:
    """Return for each entry of the parts' indices its sentence's last number, or -1 if an earlier entry has it."""
    digests, numbers = bytearray(), []
    for part in parts:
        index = _read_index(part)
        for sentence in index:
            digests += blake2b(sentence.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        numbers.append(np.array(list(index.values()), np.int64))
    low, high = np.frombuffer(digests, np.uint64).reshape(-1, 2).T
    order = np.lexsort((high, low))  # stable: the entries of one sentence stay in the order of the text
    starts = np.ones(len(order), bool)
    starts[1:] = (low[order][1:] != low[order][:-1]) | (high[order][1:] != high[order][:-1])
    result = np.full(len(order), -1, np.int64)
    result[order[starts]] = np.concatenate(numbers)[order[np.append(starts[1:], True)]]
    return result


def _read_index(part: Path) -> dict[str, str]:
    with h5py.File(part) as file:
        index: dict[str, str] = json.loads(file[INDEX][0])
    return index
