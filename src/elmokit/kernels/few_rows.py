"""The recurrence for a few sentences: one call of compiled code for a layer.

With few rows a step is reading weights from memory, and calling a dozen operations. Here the products of x are computed
before the steps, many rows at a time, so that a step reads the weights of h and of the projection alone, and no step
calls anything.

A sentence has the same vectors in any batch to the last bit, so these products add up in oneDNN's order: within a block
of consecutive terms one after the other, then the sums of the blocks. How long a block is oneDNN does not tell; it is
found by comparing (`block_of`), and where no length gives the same numbers, `in_place` is what runs.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from ctypes import c_int64
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from elmokit.errors import MismatchError
from elmokit.kernels import compiled
from elmokit.kernels.compiled import pointer
from elmokit.kernels.plain import Weights
from elmokit.kernels.product import kept, multiply

# Rows times cells; beyond that `in_place` is as fast, at two threads or one: 256 rows of the published small model, 64
# of the original. With more threads, which were not measured, from fewer rows on.
_MOST_CELLS = 1 << 18
# Bytes that a step of all directions may read again for each direction to have a thread of its own: such weights are
# soon read, and threads that share a step lose more by waiting for one that the system has taken off its processor.
_MOST_APART = 1 << 24
# Columns of a panel.
_PANEL = 64
_GATES = 4
_BLOCKS = (64, 128, 256, 384, 512, 768, 1024, 2048)
# Rows of x whose products are kept until their steps come.
_ROWS_AHEAD = 64
# Which pointers of `Run` are to other values than those of the weights' type.
_TYPES = {"rows": torch.int64, **dict.fromkeys(("sums", "bias", "c"), torch.float32)}


class _Run(ctypes.Structure):
    """`Run` of few_rows.c."""

    _fields_ = [
        *((name, c_int64) for name in ("directions", "steps", "B", "I", "P", "D")),
        *((name, c_int64) for name in ("block", "projection_block", "ahead", "all", "apart")),
        *((name, ctypes.c_float) for name in ("cell_clip", "proj_clip")),
        *((name, ctypes.c_void_p) for name in ("rows", "sums", "m", "x_panels", "h_panels", "projection_panels")),
        *((name, ctypes.c_void_p) for name in ("bias", "x", "h", "c", "y")),
    ]


def can_run(weights: Weights, x_TZBI: Tensor, h_ZBP: Tensor, c_ZBD: Tensor) -> bool:
    """Say whether `lstmp_few_rows` computes this: few rows, weights that do not learn, an order of addition known."""
    kernel_ZKG, projection_ZDP = weights.kernel_ZKG, weights.projection_ZDP
    T, _, _, I = x_TZBI.shape  # noqa: E741
    (K, G), dtype = kernel_ZKG.shape[1:], kernel_ZKG.dtype
    used = [a for a in (kernel_ZKG, weights.bias_ZG, projection_ZDP, x_TZBI, h_ZBP, c_ZBD) if a is not None]
    if not 0 < c_ZBD[0].numel() <= min(_MOST_CELLS, 2 * _MOST_CELLS // torch.get_num_threads()) or not T or not I:
        return False
    if x_TZBI.dtype != dtype or c_ZBD.dtype != torch.float32 or not compiled.computes(dtype, *used):
        return False
    if kernel_ZKG.requires_grad or (projection_ZDP is not None and projection_ZDP.requires_grad):
        return False
    block = block_of(K, G, dtype) if G % (4 * compiled.LANES) == 0 else None
    if block is None or I % 2 or (I % block and block < K):
        return False
    return projection_ZDP is None or block_of(*projection_ZDP.shape[1:], dtype) is not None


def lstmp_few_rows(
    weights: Weights, x_TZBI: Tensor, h_ZBP: Tensor, c_ZBD: Tensor, rows: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one layer; arguments and results as `kernels.lstmp`, which are not changed.

    Raises `MismatchError` for arrays that do not go together.
    """
    (T, Z, B, I), dtype = x_TZBI.shape, x_TZBI.dtype  # noqa: E741
    P, D = h_ZBP.shape[2], c_ZBD.shape[2]
    _check(weights, x_TZBI, h_ZBP, c_ZBD, rows)
    h_ZBP = h_ZBP.to(dtype, copy=True, memory_format=torch.contiguous_format)
    c_ZBD = c_ZBD.clone(memory_format=torch.contiguous_format)
    y_ZTBP, ahead = x_TZBI.new_empty(Z, T, B, P), max(_ROWS_AHEAD, B)
    x_panels, h_panels = kept(
        [weights.kernel_ZKG], f"panels of {I}",
        lambda: [panels(part_ZKG, _GATES) for part_ZKG in weights.kernel_ZKG.detach().split([I, P], dim=1)],
    )  # fmt: skip
    projection_panels = _projection_panels(weights)
    threads, apart = _threads(Z, P, [h_panels, projection_panels])
    copies = Z if apart else 1
    arrays = {
        "rows": torch.tensor(rows, dtype=torch.int64, device="cpu"), "sums": c_ZBD.new_empty(copies, ahead, 4 * D),
        "m": x_TZBI.new_empty(copies, B, D), "x_panels": x_panels, "h_panels": h_panels,
        "projection_panels": projection_panels, "bias": weights.bias_ZG.float().contiguous(),
        "x": _rows_left(x_TZBI, rows), "h": h_ZBP, "c": c_ZBD, "y": y_ZTBP,
    }  # fmt: skip
    run = _Run(
        Z, T, B, I, P, D, block_of(I + P, 4 * D, dtype), _projection_block(weights), ahead, sum(rows), apart,
        *_clips(weights), *(pointer(array, _TYPES.get(name, dtype)) for name, array in arrays.items()),
    )  # fmt: skip
    compiled.function("steps", dtype)(ctypes.byref(run), c_int64(threads))
    return y_ZTBP.transpose(0, 1), h_ZBP, c_ZBD


def _check(weights: Weights, x_TZBI: Tensor, h_ZBP: Tensor, c_ZBD: Tensor, rows: Sequence[int]) -> None:
    """Raise `MismatchError` for what C would read or write beyond."""
    (T, Z, B, I), P, D = x_TZBI.shape, h_ZBP.shape[-1], c_ZBD.shape[-1]  # noqa: E741
    projection_ZDP = weights.projection_ZDP
    found = {
        "h": (h_ZBP, (Z, B, P)), "c": (c_ZBD, (Z, B, D)), "kernel": (weights.kernel_ZKG, (Z, I + P, 4 * D)),
        "bias": (weights.bias_ZG, (Z, 4 * D)), "projection": (projection_ZDP, (Z, D, P)),
    }  # fmt: skip
    wrong = [name for name, (a, shape) in found.items() if a is not None and a.shape != shape]
    if projection_ZDP is None and P != D:
        wrong.append("projection")
    if len(rows) != T or [B, *rows, 0] != sorted([B, *rows, 0], reverse=True):
        wrong.append("rows")
    if wrong:
        shapes = {"x": tuple(x_TZBI.shape), **{name: tuple(a.shape) for name, (a, _) in found.items() if a is not None}}
        raise MismatchError(f"{', '.join(wrong)}: do not go together; {shapes}, {len(rows)} rows")


def _threads(Z: int, P: int, read_again: Sequence[Tensor | None]) -> tuple[int, bool]:
    """Return how many threads there are to be, and whether each direction has one of its own."""
    threads, bytes_read = torch.get_num_threads(), sum(a.nbytes for a in read_again if a is not None)
    if threads > 1 and bytes_read <= _MOST_APART:
        return min(threads, Z), True
    return min(threads, max(Z, P // _PANEL)), False  # each has a panel of the projection


def _rows_left(x_TZBI: Tensor, rows: Sequence[int]) -> Tensor:
    """Return the rows that are left at each step, one step's after the other's: (Z, sum of rows, I)."""
    x_ZTBI, B = x_TZBI.transpose(0, 1), x_TZBI.shape[2]
    if rows[-1] < B:
        left_TB = torch.arange(B, device="cpu") < torch.tensor(rows, device="cpu").unsqueeze(1)
        return x_ZTBI[:, left_TB].contiguous()
    return x_ZTBI.contiguous()


def _projection_panels(weights: Weights) -> Tensor | None:
    projection_ZDP = weights.projection_ZDP
    return None if projection_ZDP is None else kept([projection_ZDP], "panels", lambda: panels(projection_ZDP.detach()))


def _projection_block(weights: Weights) -> int:
    projection_ZDP = weights.projection_ZDP
    return 0 if projection_ZDP is None else block_of(*projection_ZDP.shape[1:], projection_ZDP.dtype) or 0


def _clips(weights: Weights) -> tuple[float, float]:
    """Return the clips of cells and of outputs, infinity for none."""
    cell_clip = math.inf if weights.cell_clip is None else weights.cell_clip
    if weights.projection_ZDP is None or weights.proj_clip is None:
        return cell_clip, math.inf
    of_type = torch.tensor(weights.proj_clip, dtype=weights.kernel_ZKG.dtype, device="cpu")  # as a clamp of it has it
    return cell_clip, of_type.item()


def panels(weight_ZKO: Tensor, groups: int = 1) -> Tensor:
    """Return weights (..., K, O) in panels of 64 columns, as many of each group of them, as few_rows.c reads them."""
    (*parts, K, O), dtype = weight_ZKO.shape, weight_ZKO.dtype  # noqa: E741
    found = weight_ZKO.new_zeros(*parts, -(-O // _PANEL), K, _PANEL)
    for weight_KO, laid_out in zip(weight_ZKO.reshape(-1, K, O), found.view(-1, *found.shape[-3:]), strict=True):
        arrays = [pointer(a, dtype) for a in (weight_KO.contiguous(), laid_out)]
        compiled.function("panels", dtype)(*arrays, *map(c_int64, (K, O, groups)))
    return found


def product(x_NK: Tensor, weight_KO: Tensor, block: int) -> Tensor:
    """Return x @ weight, (N, O), added up in blocks of so many terms; x is contiguous."""
    (N, K), O, dtype = x_NK.shape, weight_KO.shape[1], x_NK.dtype  # noqa: E741
    y_NO, laid_out = x_NK.new_empty(N, O), panels(weight_KO)
    arrays = [pointer(a, dtype) for a in (x_NK, laid_out, y_NO)]
    compiled.function("product", dtype)(*arrays, *map(c_int64, (N, K, O, block)))
    return y_NO


@lru_cache
def block_of(K: int, O: int, dtype: torch.dtype) -> int | None:  # noqa: E741
    """Return how many terms oneDNN adds up one after the other in a product of weights (K, O), None if it is unknown.

    Each term has its opposite somewhere, so that what is left of a sum is the error of adding up in that order.
    """
    if K % 2 or O % compiled.LANES or not compiled.computes(dtype):
        return None
    chance, half, columns = np.random.default_rng(1), K // 2, min(O, _PANEL)
    x, weight = chance.standard_normal((64, K)), chance.standard_normal((K, columns))
    x[:, half:], weight[half:] = x[:, :half], -weight[:half]
    order = chance.permutation(K)
    x_NK, weight_KO = (torch.from_numpy(a).to(dtype) for a in (x[:, order].copy(), weight[order]))
    whole_KO = weight_KO.repeat(1, -(-O // columns))[:, :O].contiguous()
    right = [multiply(x_NK[:n], whole_KO)[:, :columns] for n in (4, len(x_NK))]
    for block in (K, *(block for block in _BLOCKS if block < K)):
        if all(torch.equal(product(x_NK[: len(y)], weight_KO, block), y) for y in right):
            return block
    return None
