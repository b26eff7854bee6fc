"""Unpack files of strangers, .gz, .bz2 and .xz: block after block, and in little memory whatever the file says."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

_BLOCK = 1 << 20
# Bytes that unpacking .xz may take, which the file itself says; what `xz -9` makes takes 65 MiB.
_MAX_XZ_MEMORY = 1 << 27


def unpacked(path: Path, start: bytes) -> Iterator[bytes] | None:
    """Return the blocks that a file unpacks to, told by its first bytes `start`; None for one that is not packed.

    Going through them raises `OSError`, `EOFError`, `zlib.error` or `lzma.LZMAError` where the file is broken.
    """
    unpack = next((unpack for mark, unpack in _PACKERS.items() if start.startswith(mark)), None)
    return unpack(path) if unpack else None


def is_packed(start: bytes) -> bool:
    """Tell by its first bytes whether a file is packed."""
    return start.startswith(tuple(_PACKERS))


def _read(opener: Callable[[Path], Any], path: Path) -> Iterator[bytes]:
    with opener(path) as packed:
        while block := packed.read(_BLOCK):
            yield block


def _read_xz(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        held = file.read(_BLOCK)
        while held:  # one stream behind the other
            stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_XZ_MEMORY)
            while not stream.eof:
                yield stream.decompress(held, max_length=_BLOCK)
                held = file.read(_BLOCK) if stream.needs_input else b""
                if stream.needs_input and not held:
                    raise EOFError("it ends too early")
            held = stream.unused_data.lstrip(b"\0") or file.read(_BLOCK).lstrip(b"\0")


_PACKERS: dict[bytes, Callable[[Path], Iterator[bytes]]] = {
    b"\x1f\x8b": partial(_read, gzip.open),
    b"BZh": partial(_read, bz2.open),
    b"\xfd7zXZ": _read_xz,
}
