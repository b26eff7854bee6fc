"""What is compiled of `few_rows.c`, where it was when elmokit was installed and the processor can run it.

Without it nothing is missing: `in_place` computes with torch's operations alone.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from ctypes import c_int64
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LIBRARY = Path(__file__).with_name("libfew_rows.so")
VARIANTS = ("avx2", "avx512", "avx512bf16")
# Values that a vector of the processor holds, at most: cells and outputs of a row are a multiple of it.
LANES = 16
# Fewer cells than these are not worth waking a thread for.
_CELLS_FOR_THREADS = 1 << 14


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    """Return the library; None where there is none, or where torch has another OpenMP than GCC's."""
    try:
        return ctypes.CDLL(str(LIBRARY)) if LIBRARY.exists() else None
    except OSError:
        return None


def variant() -> str | None:
    """Return which variant of the library this processor runs, the last one that it can."""
    library = _library()
    level = 0 if library is None else library.elmokit_level()
    return VARIANTS[level - 1] if level else None


def function(name: str, dtype: torch.dtype) -> Callable[..., Any]:
    """Return a function of the library for a type: `cells`, `panels`, `product` or `steps`, where `computes(dtype)`."""
    return getattr(_library(), _symbol(name, dtype))


def computes(dtype: torch.dtype) -> bool:
    """Say whether there are functions for this type."""
    return hasattr(_library(), _symbol("cells", dtype))


def _symbol(name: str, dtype: torch.dtype) -> str:
    return f"{name}_{str(dtype).removeprefix('torch.')}_{variant()}"


def cells(gates_nG: Tensor, c_nD: Tensor, m_nD: Tensor, cell_clip: float | None) -> Tensor:
    """Update float32 cells in place from their gates; return what they give to the projection, in `m_nD`.

    gates_nG: in the order i, j, f, o, the forget gate with its 1; float32 or bfloat16, and `m_nD` the same. All are
    contiguous, and D is a multiple of `LANES`.
    """
    n, D = c_nD.shape
    clip = math.inf if cell_clip is None else cell_clip
    threads = torch.get_num_threads() if n * D >= _CELLS_FOR_THREADS else 1
    arrays = (pointer(a) for a in (gates_nG, c_nD, m_nD))
    function("cells", gates_nG.dtype)(*arrays, c_int64(n), c_int64(D), ctypes.c_float(clip), c_int64(threads))
    return m_nD


def pointer(a: Tensor | None) -> ctypes.c_void_p:
    """Return where the values begin."""
    return ctypes.c_void_p(None if a is None else a.data_ptr())
