"""NPZ: an array for each sentence under its number, for `numpy.load`.

The tokens are not in it: without pickle, `numpy.load` would give them back only padded to the longest token, and the
text they come from is at hand. The zip file is written here and not by `zipfile`, which holds some 500 bytes of memory
for each member until the end, and cannot copy members as they stand. Format: PKWARE's APPNOTE 6.3, members stored.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile
from zipfile import ZipFile
from zlib import crc32

from numpy.lib import format as npy

from elmokit.sinks.spec import Array, Spec

BIG = 2**32 - 1  # a size or place that needs more than 32 bits is in an extra field, and this stands in its own
MANY = 2**16 - 1
FIRST_OF_1980 = 33  # a zip file's day 0, as the date of every member: equal input, equal file


class NpzSink:
    """One NPZ file, being written."""

    def __init__(self, path: Path, spec: Spec) -> None:
        """Begin the file, in place of any that is there."""
        self._spec = spec
        self._zip = _Zip(path)

    def write(self, number: int, tokens: Sequence[str], array: Array) -> None:  # noqa: ARG002 - see above
        """Add the array of one sentence as the member "<number>.npy"."""
        member = BytesIO()
        npy.write_array(member, self._spec.fit(array, number=number), allow_pickle=False)
        self._zip.add(f"{number}.npy".encode(), member.getbuffer())

    def add_file(self, part: Path) -> None:
        """Add the members of another file, in one piece."""
        self._zip.add_all(part)

    def close(self) -> None:
        """Write the zip's directory and end the file."""
        self._zip.close()

    def abandon(self) -> None:
        """Let go of the file without ending it."""
        self._zip.abandon()


class _Zip:
    """A zip file of stored members, being written; its directory waits on the disk once it is over 8 MiB."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._directory = SpooledTemporaryFile(max_size=2**23, dir=str(path.parent))  # noqa: SIM115 - closed by `abandon`
        self._count = 0

    def add(self, name: bytes, data: bytes | memoryview) -> None:
        """Add one member."""
        checksum, size = crc32(data), len(data)
        self._list(name, size=size, checksum=checksum, offset=self._file.tell())
        self._file.write(_local_header(name, size=size, checksum=checksum))
        self._file.write(data)

    def add_all(self, path: Path) -> None:
        """Add all members of another file that this class wrote; holds that file's directory in memory."""
        offset = self._file.tell()
        with ZipFile(path) as source:
            end = source.start_dir
            for member in source.infolist():
                name, place = member.filename.encode(), offset + member.header_offset
                self._list(name, size=member.file_size, checksum=member.CRC, offset=place)
        with path.open("rb") as stream:
            shutil.copyfileobj(stream, self._file, 2**20)
        self._file.truncate(offset + end)
        self._file.seek(offset + end)

    def _list(self, name: bytes, *, size: int, checksum: int, offset: int) -> None:
        self._directory.write(_directory_entry(name, size=size, checksum=checksum, offset=offset))
        self._count += 1

    def close(self) -> None:
        """Write the directory and end the file."""
        start, size = self._file.tell(), self._directory.tell()
        self._directory.seek(0)
        shutil.copyfileobj(self._directory, self._file)
        self._file.write(_end(self._count, size=size, start=start))
        self._file.close()
        self._directory.close()

    def abandon(self) -> None:
        """Close what is open; what the disk does not take is lost."""
        for stream in (self._file, self._directory):
            with suppress(OSError):
                stream.close()


def _local_header(name: bytes, *, size: int, checksum: int) -> bytes:
    extra = struct.pack("<2H2Q", 1, 16, size, size) if size >= BIG else b""
    short = min(size, BIG)
    fields = (45 if extra else 20, 0, 0, 0, FIRST_OF_1980, checksum, short, short, len(name), len(extra))
    return struct.pack("<4s5H3L2H", b"PK\3\4", *fields) + name + extra


def _directory_entry(name: bytes, *, size: int, checksum: int, offset: int) -> bytes:
    big = [value for value in (size, size, offset) if value >= BIG]
    extra = struct.pack(f"<2H{len(big)}Q", 1, 8 * len(big), *big) if big else b""
    sizes = (min(size, BIG), min(size, BIG), len(name), len(extra))
    fields = (45, 45 if big else 20, 0, 0, 0, FIRST_OF_1980, checksum, *sizes, 0, 0, 0, 0, min(offset, BIG))
    return struct.pack("<4s6H3L5H2L", b"PK\1\2", *fields) + name + extra


def _end(count: int, *, size: int, start: int) -> bytes:
    large = b""
    if count >= MANY or size >= BIG or start >= BIG:
        large = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
        large += struct.pack("<4sLQL", b"PK\6\7", 0, start + size, 1)
    shown = (min(count, MANY), min(count, MANY), min(size, BIG), min(start, BIG))
    return large + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *shown, 0)
