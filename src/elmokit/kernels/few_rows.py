"""The recurrence for a few sentences: one call of compiled code for a layer's direction, the directions side by side.

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
from functools import lru_cache, partial

import torch
from torch import Tensor

from elmokit.kernels import compiled
from elmokit.kernels.compiled import pointer
from elmokit.kernels.plain import Weights
from elmokit.kernels.product import kept, multiply

# With more rows `in_place` is faster, at two threads or one; with more threads from fewer rows on, as it shares out its
# products among all of them and this only its directions (2 threads were measured, more were not).
_MOST_ROWS = 32
_FEW_ENOUGH = 64  # rows times threads
# Columns of a panel.
_PANEL = 64
_BLOCKS = (64, 128, 256, 384, 512, 768, 1024, 2048)
# Rows of x whose products are kept until their steps come.
_ROWS_AHEAD = 64


class _Run(ctypes.Structure):
    """`Run` of few_rows.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("steps", "B", "I", "P", "D", "block", "projection_block")),
        *((name, ctypes.c_void_p) for name in ("x_panels", "h_panels", "projection_panels", "bias")),
        *((name, ctypes.c_float) for name in ("cell_clip", "proj_clip")),
        *((name, ctypes.c_void_p) for name in ("rows", "x", "h", "c", "y", "sums", "gates", "m", "projected")),
        ("chunk", ctypes.c_int64),
    ]


def runs(weights: Weights, x_TZBI: Tensor, c_ZBD: Tensor) -> bool:
    """Say whether `lstmp_few_rows` computes this: few rows, weights that do not learn, an order of addition known."""
    kernel_ZKG, dtype = weights.kernel_ZKG, weights.kernel_ZKG.dtype
    B, threads = x_TZBI.shape[2], torch.get_num_threads()
    if (
        not 0 < B <= min(_MOST_ROWS, max(1, _FEW_ENOUGH // threads))
        or not len(x_TZBI)
        or x_TZBI.dtype != dtype
        or c_ZBD.dtype != torch.float32
    ):
        return False
    projection_ZDP = weights.projection_ZDP
    if kernel_ZKG.requires_grad or (projection_ZDP is not None and projection_ZDP.requires_grad):
        return False
    (K, G), I = kernel_ZKG.shape[1:], x_TZBI.shape[3]  # noqa: E741
    block = block_of(K, G, dtype) if G % (4 * compiled.LANES) == 0 else None
    if block is None or I % 2 or (I % block and block < K):
        return False
    return projection_ZDP is None or block_of(*projection_ZDP.shape[1:], dtype) is not None


def lstmp_few_rows(
    weights: Weights, x_TZBI: Tensor, h_ZBP: Tensor, c_ZBD: Tensor, rows: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one layer; arguments and results as `kernels.lstmp`, which are not changed."""
    y_ZTBP = x_TZBI.new_empty(len(h_ZBP), len(rows), *h_ZBP.shape[1:])
    h_ZBP, c_ZBD = (a.clone(memory_format=torch.contiguous_format) for a in (h_ZBP, c_ZBD))
    kernels = kept(weights.kernel_ZKG, "panels", partial(_split, x_TZBI.shape[3]))
    projections: list[Tensor | None] = [None] * len(h_ZBP)
    if weights.projection_ZDP is not None:
        projections = kept(weights.projection_ZDP, "panels", lambda p_ZDP: [panels(p_DP) for p_DP in p_ZDP])
    rows_T = torch.tensor(rows)
    runs, alive = (_Run * len(kernels))(), []
    for z, (x_panels, h_panels) in enumerate(kernels):
        arrays = {
            "x_panels": x_panels, "h_panels": h_panels, "projection_panels": projections[z], "rows": rows_T,
            "bias": weights.bias_ZG[z].float().contiguous(), "x": x_TZBI[:, z].contiguous(),
            "h": h_ZBP[z], "c": c_ZBD[z], "y": y_ZTBP[z], **_scratch(x_TZBI[:, z], h_ZBP[z], c_ZBD[z]),
        }  # fmt: skip
        runs[z] = _run(weights, x_TZBI.shape, x_TZBI.dtype, arrays)
        alive.append(arrays)
    compiled.function("steps", x_TZBI.dtype)(runs, c_int64(len(runs)), c_int64(torch.get_num_threads()))
    return y_ZTBP.transpose(0, 1), h_ZBP, c_ZBD


def _scratch(x_TBI: Tensor, h_BP: Tensor, c_BD: Tensor) -> dict[str, Tensor]:
    """Return room for what a direction's steps hand on: float32 sums, and gates and cells for the next product."""
    (T, B, _), P, D = x_TBI.shape, h_BP.shape[1], c_BD.shape[1]
    return {
        "sums": c_BD.new_empty(min(T, _steps_ahead(B)), B, 4 * D), "projected": c_BD.new_empty(B, _whole(P)),
        "gates": x_TBI.new_empty(B, 4 * D), "m": x_TBI.new_empty(B, D),
    }  # fmt: skip


def _run(weights: Weights, shape: Sequence[int], dtype: torch.dtype, arrays: dict[str, Tensor | None]) -> _Run:
    """Return what a direction's steps are called with. shape: (T, Z, B, I)."""
    (T, _, B, I), (K, G), projection_ZDP = shape, weights.kernel_ZKG.shape[1:], weights.projection_ZDP  # noqa: E741
    P, D = K - I, G // 4
    proj_clip = math.inf if projection_ZDP is None or weights.proj_clip is None else weights.proj_clip
    return _Run(
        steps=T, B=B, I=I, P=P, D=D, chunk=_steps_ahead(B), block=block_of(K, G, dtype),
        projection_block=0 if projection_ZDP is None else block_of(D, P, dtype),
        cell_clip=math.inf if weights.cell_clip is None else weights.cell_clip,
        proj_clip=torch.tensor(proj_clip, dtype=dtype).item(),  # as a clamp of this type has it
        **{name: pointer(array) for name, array in arrays.items()},
    )  # fmt: skip


def _steps_ahead(B: int) -> int:
    return max(1, _ROWS_AHEAD // B)


def _split(I: int, kernel_ZKG: Tensor) -> list[tuple[Tensor, Tensor]]:  # noqa: E741
    """Return the panels of x and those of h for each direction."""
    return [(panels(kernel_KG[:I]), panels(kernel_KG[I:])) for kernel_KG in kernel_ZKG]


def panels(weight_KO: Tensor) -> Tensor:
    """Return the weight in panels of 64 columns, as few_rows.c reads it."""
    K, O = weight_KO.shape  # noqa: E741
    weight_KO, found = weight_KO.contiguous(), weight_KO.new_zeros(_whole(O) // _PANEL, K, _PANEL)
    compiled.function("panels", weight_KO.dtype)(pointer(weight_KO), pointer(found), c_int64(K), c_int64(O))
    return found


def product(x_NK: Tensor, weight_KO: Tensor, block: int) -> Tensor:
    """Return x @ weight, (N, O), added up in blocks of so many terms."""
    (N, K), O = x_NK.shape, weight_KO.shape[1]  # noqa: E741
    y_NO, sums, laid_out = x_NK.new_empty(N, O), torch.empty(N, _whole(O)), panels(weight_KO)
    arrays = (pointer(a) for a in (x_NK, laid_out, y_NO, sums))
    compiled.function("product", x_NK.dtype)(*arrays, c_int64(N), c_int64(K), c_int64(O), c_int64(block))
    return y_NO


@lru_cache
def block_of(K: int, O: int, dtype: torch.dtype) -> int | None:  # noqa: E741
    """Return how many terms oneDNN adds up one after the other in a product of weights (K, O), None if it is unknown.

    Each term has its opposite somewhere, so that what is left of a sum is the error of adding up in that order.
    """
    if K % 2 or O % compiled.LANES or not compiled.computes(dtype):
        return None
    chance = torch.Generator().manual_seed(1)
    half, columns = K // 2, min(O, _PANEL)
    x_NK, weight_KO = torch.randn(64, K, generator=chance), torch.randn(K, columns, generator=chance)
    x_NK[:, half:], weight_KO[half:] = x_NK[:, :half], -weight_KO[:half]
    order = torch.randperm(K, generator=chance)
    x_NK, weight_KO = x_NK[:, order].to(dtype), weight_KO[order].to(dtype)
    whole_KO = weight_KO.repeat(1, -(-O // columns))[:, :O].contiguous()
    right = [multiply(x_NK[:n], whole_KO)[:, :columns] for n in (4, len(x_NK))]
    for block in (K, *(block for block in _BLOCKS if block < K)):
        if all(torch.equal(product(x_NK[: len(y)], weight_KO, block), y) for y in right):
            return block
    return None


def _whole(columns: int) -> int:
    return -(-columns // _PANEL) * _PANEL
