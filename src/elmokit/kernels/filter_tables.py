"""Filters over the characters of words without multiplying: what each makes of each character is computed once.

A window is then a sum of as many rows of a table as the filter is wide; a product takes twice as many operations for
each value of a character's embedding. A word has the same values to the last bit whatever the other words are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_int64
from itertools import accumulate

import torch
from torch import Tensor

from elmokit.kernels import compiled
from elmokit.kernels.compiled import pointer

# Bytes of the tables at most: a lexicon of thousands of characters has too many rows for a cache.
_MOST_BYTES = 1 << 26
# Filters of each width are a multiple of it.
_COLUMNS = 32
# With fewer words a thread is not worth waking.
_WORDS_FOR_THREADS = 4


class _Filters(ctypes.Structure):
    """`Filters` of filter_tables.c."""

    _fields_ = [("width", c_int64), ("count", c_int64), ("table", ctypes.c_void_p), ("first", c_int64)]


def can_run(ids_UC: Tensor, symbols_SE: Tensor, filters: Sequence[Tensor]) -> bool:
    """Say whether `FilterTables` can be made of filters (width, E, n) over symbols, and can look up these ids."""
    shapes, S = [(weight.shape[0], weight.shape[2]) for weight in filters], len(symbols_SE)
    if 4 * S * sum(width * n for width, n in shapes) > _MOST_BYTES or any(n % _COLUMNS for _, n in shapes):
        return False
    if not ids_UC.numel() or ids_UC.shape[1] < max(width for width, _ in shapes):
        return False
    if ids_UC.dtype != torch.int64 or not compiled.computes(symbols_SE.dtype, ids_UC, symbols_SE, *filters):
        return False
    lowest, highest = map(int, ids_UC.aminmax())
    return lowest >= 0 and highest < S  # of others torch says what is wrong


class FilterTables:
    """What filters (width, E, n) make of each of the symbols (S, E) at each of their places, in float32.

    `finite`: whether all of it are numbers, which a maximum is only right of.
    """

    def __init__(self, symbols_SE: Tensor, filters: Sequence[Tensor], bias_N: Tensor) -> None:
        self.dtype, self.symbols, self.bias_N = symbols_SE.dtype, len(symbols_SE), bias_N.float().contiguous()
        self.tables = [torch.matmul(symbols_SE.float(), weight.float()) for weight in filters]  # (width, S, n) each
        self.finite = all(bool(table.isfinite().all()) for table in self.tables)
        counts = [table.shape[2] for table in self.tables]
        firsts = [0, *accumulate(counts)]
        self.filters = (_Filters * len(filters))(
            *(
                _Filters(len(table), count, pointer(table, torch.float32), first)
                for table, count, first in zip(self.tables, counts, firsts, strict=False)
            )
        )

    def maxima(self, ids_UC: Tensor, lengths_U: Tensor) -> Tensor:
        """Return what all filters give with their bias, (U, N), the maxima over the windows of each word.

        ids_UC: int64, each below S; lengths_U: the place after a word's last symbol that is no padding, int64.
        """
        y_UN = self.bias_N.new_empty(len(ids_UC), len(self.bias_N), dtype=self.dtype)
        threads = torch.get_num_threads() if len(ids_UC) >= _WORDS_FOR_THREADS else 1
        compiled.function("maxima", self.dtype)(
            self.filters, *(pointer(a, torch.int64) for a in (ids_UC, lengths_U)),
            *map(c_int64, (*ids_UC.shape, self.symbols)), pointer(self.bias_N, torch.float32),
            pointer(y_UN, self.dtype), c_int64(y_UN.shape[1]), c_int64(threads),
        )  # fmt: skip
        return y_UN
