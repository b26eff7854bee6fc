"""What the C library is told about freed memory."""

import resource
import sys
from pathlib import Path

import numpy as np
import pytest

from elmokit import memory


@pytest.mark.skipif(not sys.platform.startswith("linux") or memory._glibc() is None, reason="needs glibc")
def test_holes_are_given_back():
    arrays = [np.ones(12_000) for _ in range(2_000)]  # 96 kB each: of the heap, not mapped one by one
    kept = arrays[::10]
    del arrays
    before = _resident()
    memory.give_back_freed_memory()
    assert _resident() < before - 100e6
    assert all(array.sum() == 12_000 for array in kept)


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    memory.give_back_freed_memory()
    assert not memory.keep_freed_memory()


def _resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
