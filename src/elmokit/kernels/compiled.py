"""What is compiled of the C files of this folder, where it was when elmokit was installed and the processor can run it.

Without it nothing is missing: `in_place` and `convolution` compute with torch's operations alone.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from ctypes import c_int64
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import _get_current_dispatch_mode

from elmokit.errors import MismatchError

LIBRARY = Path(__file__).with_name("libelmokit.so")
VARIANTS = ("avx2", "avx512", "avx512bf16")
# Values that a vector of the processor holds, at most: cells and outputs of a row are a multiple of it.
LANES = 16
# Fewer cells than these are not worth waking a thread for.
_CELLS_FOR_THREADS = 1 << 14


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    """Return the library; None where there is none, or torch has not loaded an OpenMP that serves GCC's."""
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
    """Return a function of the library for a type, where `computes(dtype)`.

    Of cells.c: `cells`, `cells_backward`; of few_rows.c: `panels`, `product`, `steps`; of filter_tables.c: `maxima`.
    """
    return getattr(_library(), _symbol(name, dtype))


def computes(dtype: torch.dtype, *tensors: Tensor) -> bool:
    """Say whether there are functions for weights of this type, and these tensors have values that C can read.

    Fake tensors have none, and a mode that watches torch's operations would not see what is computed here.
    """
    if not hasattr(_library(), _symbol("cells", dtype)) or _get_current_dispatch_mode() is not None:
        return False
    return all(type(a) in (Tensor, Parameter) and a.device.type == "cpu" for a in tensors)


def _symbol(name: str, dtype: torch.dtype) -> str:
    return f"{name}_{str(dtype).removeprefix('torch.')}_{variant()}"


def cells(
    gates_nG: Tensor, c_nD: Tensor, m_nD: Tensor, cell_clip: float | None, *, before_nD: Tensor | None = None
) -> Tensor:
    """Write float32 cells made from their gates and the cells before; return what they give to the projection, `m_nD`.

    gates_nG: in the order i, j, f, o, the forget gate with its 1; float32 or bfloat16, and `m_nD` the same. before_nD:
    None where `c_nD` holds them. All are contiguous, and D is a multiple of `LANES`.
    """
    float32, dtype = torch.float32, gates_nG.dtype
    before_nD = c_nD if before_nD is None else before_nD
    arrays = (gates_nG, dtype, 4), (before_nD, float32, 1), (c_nD, float32, 1), (m_nD, dtype, 1)
    _call("cells", arrays, c_nD, cell_clip)
    return m_nD


def cells_backward(
    gates_nG: Tensor,
    before_nD: Tensor,
    c_nD: Tensor,
    dm_nD: Tensor,
    dc_nD: Tensor,
    dgates_nG: Tensor,
    cell_clip: float | None,
) -> None:
    """Write the gradient of the gates that `cells` was given, from those of what it gave: `dm_nD` of what it returned,
    and `dc_nD` of its cells, which becomes that of the cells before. Types and shapes as there."""
    float32, dtype = torch.float32, gates_nG.dtype
    given = (gates_nG, dtype, 4), (before_nD, float32, 1), (c_nD, float32, 1), (dm_nD, dtype, 1)
    _call("cells_backward", (*given, (dc_nD, float32, 1), (dgates_nG, dtype, 4)), c_nD, cell_clip)


def _call(name: str, arrays: Sequence[tuple[Tensor, torch.dtype, int]], c_nD: Tensor, cell_clip: float | None) -> None:
    """Call a function of cells.c with arrays, each with its type and its values of a cell; gates first."""
    n, D = c_nD.shape
    if any(array.shape != (n, values * D) for array, _, values in arrays):
        raise MismatchError(f"cells ({n}, {D}) do not go with {[tuple(array.shape) for array, *_ in arrays]}")
    clip = math.inf if cell_clip is None else cell_clip
    threads = torch.get_num_threads() if n * D >= _CELLS_FOR_THREADS else 1
    pointers = [pointer(array, dtype) for array, dtype, _ in arrays]
    function(name, arrays[0][1])(*pointers, c_int64(n), c_int64(D), ctypes.c_float(clip), c_int64(threads))


class Pointer(ctypes.c_void_p):
    """Where the values of a tensor begin; they stay there as long as this does."""

    tensor: Tensor | None


def pointer(a: Tensor | None, dtype: torch.dtype) -> Pointer:
    """Return where the values of a tensor begin, null for none. Raises `MismatchError` for what C would misread."""
    if a is not None and not (a.dtype == dtype and a.is_contiguous() and a.device.type == "cpu"):
        raise MismatchError(f"expected contiguous {dtype} values in memory, found {a.dtype}, strides {a.stride()}")
    found = Pointer(None if a is None else a.data_ptr())
    found.tensor = a
    return found
