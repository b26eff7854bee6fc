"""How the C library keeps memory while a model is trained."""

from __future__ import annotations

import ctypes
import sys

# Numbers of glibc's malloc.h; other systems are left alone.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_LARGEST = (1 << 31) - 1


def keep_freed_memory() -> bool:
    """Let this process keep what it frees for its next allocation; return whether that could be told.

    Every update allocates and frees the same large arrays. By default glibc gives each back to the system and asks for
    it again, and the system clears it page by page: that took a quarter of an update where it was measured
    (docs/benchmarks.md). The process then never gets smaller, which a training run does not anyway.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    wishes = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGEST), (_TOP_PAD, 1 << 26))
    return sum(mallopt(which, value) for which, value in wishes) == len(wishes)
