"""How the C library keeps the memory that tensors had. The numbers are of glibc; other systems are left alone."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_LARGEST = (1 << 31) - 1


def keep_freed_memory() -> bool:
    """Let this process keep what it frees for its next allocation; return whether that could be told.

    For training: every update allocates and frees the same large arrays. By default glibc gives each back to the system
    and asks for it again, and the system clears it page by page: that took a quarter of an update where it was measured
    (docs/benchmarks.md). The process then never gets smaller, which a training run does not anyway.
    """
    wishes = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGEST), (_TOP_PAD, 1 << 26))
    libc = _glibc()
    return libc is not None and sum(libc.mallopt(which, value) for which, value in wishes) == len(wishes)


def give_back_freed_memory() -> None:
    """Give the system what lies free between the arrays in use.

    For embedding: batches of ever new sizes leave holes of ever other sizes, and over a long text they added up to more
    than everything in use. Once for some thousand sentences it takes no time that could be measured.
    """
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL("libc.so.6") if sys.platform.startswith("linux") else None
    except OSError:  # another C library
        return None
    return libc if hasattr(libc, "malloc_trim") and hasattr(libc, "mallopt") else None
