"""The recurrence for a few sentences: one call of compiled code for a layer, its directions side by side.

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

# With more rows `in_place` is faster, at two threads or one; with more threads from fewer rows on, as it shares out its
# products among all of them and this only its directions (2 threads were measured, more were not).
_MOST_ROWS = 32
_FEW_ENOUGH = 64  # rows times threads
# Columns of a panel.
_PANEL = 64
_BLOCKS = (64, 128, 256, 384, 512, 768, 1024, 2048)
# Rows of x whose products are kept until their steps come.
_ROWS_AHEAD = 64


# What is not of the weights' type.
_TYPES = {"rows": torch.int64, **dict.fromkeys(("bias", "c", "sums", "projected"), torch.float32)}


class _Run(ctypes.Structure):
    """`Run` of few_rows.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("steps", "B", "I", "P", "D", "block", "projection_block")),
        *((name, ctypes.c_void_p) for name in ("x_panels", "h_panels", "projection_panels", "bias")),
        *((name, ctypes.c_float) for name in ("cell_clip", "proj_clip")),
        *((name, ctypes.c_void_p) for name in ("rows", "x", "h", "c", "y", "sums", "gates", "m", "projected")),
        ("chunk", ctypes.c_int64),
    ]


def can_run(weights: Weights, x_TZBI: Tensor, h_ZBP: Tensor, c_ZBD: Tensor) -> bool:
    """Say whether `lstmp_few_rows` computes this: few rows, weights that do not learn, an order of addition known."""
    kernel_ZKG, projection_ZDP = weights.kernel_ZKG, weights.projection_ZDP
    T, _, B, I = x_TZBI.shape  # noqa: E741
    (K, G), dtype = kernel_ZKG.shape[1:], kernel_ZKG.dtype
    used = [a for a in (kernel_ZKG, weights.bias_ZG, projection_ZDP, x_TZBI, h_ZBP, c_ZBD) if a is not None]
    if not 0 < B <= min(_MOST_ROWS, max(1, _FEW_ENOUGH // torch.get_num_threads())) or not T or not I:
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
    if (len(rows), *h_ZBP.shape, *c_ZBD.shape) != (T, Z, B, P, Z, B, D) or weights.kernel_ZKG.shape[1:] != (
        I + P,
        4 * D,
    ):
        raise MismatchError(
            f"{len(rows)} steps, x {x_TZBI.shape}, h {h_ZBP.shape} and c {c_ZBD.shape} do not go together"
        )
    y_ZTBP = x_TZBI.new_empty(Z, T, B, P)
    h_ZBP = h_ZBP.to(dtype, copy=True, memory_format=torch.contiguous_format)
    c_ZBD = c_ZBD.clone(memory_format=torch.contiguous_format)
    kernel_ZKG, projection_ZDP = weights.kernel_ZKG, weights.projection_ZDP
    kernels = kept(
        [kernel_ZKG], f"panels of {I}", lambda: [(panels(k[:I]), panels(k[I:])) for k in kernel_ZKG.detach()]
    )
    projections: list[Tensor | None] = [None] * Z
    if projection_ZDP is not None:
        projections = kept([projection_ZDP], "panels", lambda: [panels(p_DP) for p_DP in projection_ZDP.detach()])
    rows_T = torch.tensor(rows, dtype=torch.int64, device="cpu")
    runs, alive = (_Run * Z)(), []
    for z, (x_panels, h_panels) in enumerate(kernels):
        arrays = {
            "x_panels": x_panels, "h_panels": h_panels, "projection_panels": projections[z], "rows": rows_T,
            "bias": weights.bias_ZG[z].float().contiguous(), "x": x_TZBI[:, z].contiguous(),
            "h": h_ZBP[z], "c": c_ZBD[z], "y": y_ZTBP[z], **_scratch(x_TZBI[:, z], h_ZBP[z], c_ZBD[z]),
        }  # fmt: skip
        runs[z] = _run(weights, x_TZBI.shape, dtype, arrays)
        alive.append(arrays)
    compiled.function("steps", dtype)(runs, c_int64(Z), c_int64(torch.get_num_threads()))
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
        proj_clip=torch.tensor(proj_clip, dtype=dtype, device="cpu").item(),  # as a clamp of this type has it
        **{name: pointer(array, _TYPES.get(name, dtype)) for name, array in arrays.items()},
    )  # fmt: skip


def _steps_ahead(B: int) -> int:
    return max(1, _ROWS_AHEAD // B)


def panels(weight_KO: Tensor) -> Tensor:
    """Return the weight in panels of 64 columns, as few_rows.c reads it."""
    (K, O), dtype = weight_KO.shape, weight_KO.dtype  # noqa: E741
    weight_KO, found = weight_KO.contiguous(), weight_KO.new_zeros(_whole(O) // _PANEL, K, _PANEL)
    compiled.function("panels", dtype)(pointer(weight_KO, dtype), pointer(found, dtype), c_int64(K), c_int64(O))
    return found


def product(x_NK: Tensor, weight_KO: Tensor, block: int) -> Tensor:
    """Return x @ weight, (N, O), added up in blocks of so many terms; x is contiguous."""
    (N, K), O, dtype = x_NK.shape, weight_KO.shape[1], x_NK.dtype  # noqa: E741
    y_NO, sums = x_NK.new_empty(N, O), x_NK.new_empty(N, _whole(O), dtype=torch.float32)
    laid_out = panels(weight_KO)
    arrays = (pointer(x_NK, dtype), pointer(laid_out, dtype), pointer(y_NO, dtype), pointer(sums, torch.float32))
    compiled.function("product", dtype)(*arrays, c_int64(N), c_int64(K), c_int64(O), c_int64(block))
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


def _whole(columns: int) -> int:
    return -(-columns // _PANEL) * _PANEL
