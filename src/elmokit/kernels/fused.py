"""The recurrence for embedding on a GPU: two kernels a step, in Triton, where products meet what follows them.

The first multiplies h with the recurrent weights of all four gates, and goes on to cells and clip where the sums are;
the second projects the cells and clips. So gates are never in memory but for the share of the input, of which one large
product is made for many steps. Rows that have ended are left as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from elmokit.kernels.fused_cells import activated, clipped, tanh
from elmokit.kernels.plain import Weights
from elmokit.kernels.rows import ended, last_outputs

# Values of gates of the input that are computed in one product.
_VALUES_TOGETHER = 1 << 28
# What one program computes: so many cells, or values of h, of some rows.
_CELLS, _VALUES = 32, 64
_MOST_ROWS = 128
# Bytes of each row and column of a product's factors that are at hand at a time. Three such pieces are on their way: 96
# KiB with the most rows, which GPUs have that copy while they compute (compute capability 8.0 and above).
_BYTES_DEEP = 128


def lstmp_fused(
    weights: Weights, x_TZBI: Tensor, h_ZBP: Tensor, c_ZBD: Tensor, rows: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one layer; arguments and results as `kernels.lstmp`, which are not changed."""
    T, Z, B, I = x_TZBI.shape  # noqa: E741
    of_input, recurrent_ZPG = weights.kernel_ZKG[:, :I], weights.kernel_ZKG[:, I:]
    h, c = h_ZBP.to(x_TZBI.dtype).contiguous(), c_ZBD.clone(memory_format=torch.contiguous_format)
    y_TZBP, m = x_TZBI.new_empty(T, *h_ZBP.shape), torch.empty_like(c, dtype=x_TZBI.dtype)
    how = {"PRECISION": precision_of(x_TZBI.dtype), "DEPTH": depth_of(x_TZBI.dtype)}
    together = max(1, _VALUES_TOGETHER // (Z * B * of_input.shape[-1]))
    with torch.cuda.device_of(x_TZBI):  # where Triton launches, whatever the device of the tensors is
        for t, left in enumerate(rows):
            if t % together == 0:
                part_ZNI = x_TZBI[t : t + together].transpose(0, 1).flatten(1, 2)
                gates_ZNG = torch.baddbmm(weights.bias_ZG.unsqueeze(1), part_ZNI, of_input)
                gates_ZtBG = gates_ZNG.view(Z, -1, B, gates_ZNG.shape[-1])
            m_ZBD = y_TZBP[t] if weights.projection_ZDP is None else m
            update_cells(h, recurrent_ZPG, gates_ZtBG[:, t % together], c, m_ZBD, left, weights.cell_clip, how)
            if weights.projection_ZDP is not None:
                project(m, weights.projection_ZDP, y_TZBP[t], left, weights.proj_clip, how)
            h = y_TZBP[t]
    return y_TZBP, last_outputs(y_TZBP, h_ZBP.to(y_TZBP.dtype), ended(rows, B)), c


def update_cells(
    h_ZBP: Tensor,
    weight_ZPG: Tensor,
    gates_ZBG: Tensor,
    c_ZBD: Tensor,
    m_ZBD: Tensor,
    left: int,
    clip: float | None,
    how: Mapping[str, Any],
) -> None:
    """Take one step of the first `left` rows: update the cells in place, write what goes to the projection to `m_ZBD`.

    gates_ZBG: what the input and the bias add to the gates, in the order i, j, f, o. All but `weight_ZPG` and the first
    axis of `gates_ZBG` must be without gaps. how: precision and depth of the products.
    """
    Z, B, D = c_ZBD.shape
    rows = _rows_together(left)
    _update_cells[triton.cdiv(left, rows), triton.cdiv(D, _CELLS), Z](
        h_ZBP, weight_ZPG, gates_ZBG, c_ZBD, m_ZBD, *weight_ZPG.stride(), gates_ZBG.stride(0),
        B, left, D, h_ZBP.shape[2], clip or 0.0, CLIPS=clip is not None, ROWS=rows, CELLS=_CELLS, **how,
    )  # fmt: skip


def project(
    m_ZBD: Tensor, weight_ZDP: Tensor, h_ZBP: Tensor, left: int, clip: float | None, how: Mapping[str, Any]
) -> None:
    """Write the clipped projection of the first `left` rows to `h_ZBP`; it and `m_ZBD` must be without gaps."""
    Z, B, P = h_ZBP.shape
    rows = _rows_together(left)
    _project[triton.cdiv(left, rows), triton.cdiv(P, _VALUES), Z](
        m_ZBD, weight_ZDP, h_ZBP, *weight_ZDP.stride(),
        B, left, m_ZBD.shape[2], P, clip or 0.0, CLIPS=clip is not None, ROWS=rows, VALUES=_VALUES, **how,
    )  # fmt: skip


def _rows_together(left: int) -> int:
    """Return the rows of one program: a power of 2 that is enough, 16 at least, as the GPU's products ask."""
    return min(_MOST_ROWS, max(16, triton.next_power_of_2(left)))


def depth_of(dtype: torch.dtype) -> int:
    """Return how many values of a row are read at a time."""
    return _BYTES_DEEP // dtype.itemsize


def precision_of(dtype: torch.dtype) -> str:
    """Return how products are computed: those of float32 as torch is told to compute its own."""
    if dtype != torch.float32:
        return "ieee"
    matmul = torch.backends.cuda.matmul  # of torch before 2.9 without the setting for each library
    told = getattr(matmul, "fp32_precision", None) or ("tf32" if matmul.allow_tf32 else "ieee")
    return "tf32" if told == "tf32" else "ieee"


# The sizes that change from step to step are not compiled in.
@triton.jit(do_not_specialize=["B", "left"])  # type: ignore[untyped-decorator]  # triton carries no types
def _update_cells(  # type: ignore[no-untyped-def]
    h, weight, gates, c, m, weight_z, weight_p, weight_g, gates_z, B, left, D, P, clip,
    CLIPS: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, CELLS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    z = tl.program_id(2).to(tl.int64)
    row, cell = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1) * CELLS + tl.arange(0, CELLS)
    here = (row[:, None] < left) & (cell[None, :] < D)
    gate = gates + z * gates_z + row[:, None] * (4 * D) + cell[None, :]
    i, j = tl.load(gate, mask=here).to(tl.float32), tl.load(gate + D, mask=here).to(tl.float32)
    f, o = tl.load(gate + 2 * D, mask=here).to(tl.float32), tl.load(gate + 3 * D, mask=here).to(tl.float32)
    for first in range(0, P, DEPTH):
        depth = first + tl.arange(0, DEPTH)
        x = tl.load(
            h + z * B * P + row[:, None] * P + depth[None, :],
            mask=(row[:, None] < left) & (depth[None, :] < P), other=0.0,
        )  # fmt: skip
        w = weight + z * weight_z + depth[:, None] * weight_p + cell[None, :] * weight_g
        there = (depth[:, None] < P) & (cell[None, :] < D)
        i = tl.dot(x, tl.load(w, mask=there, other=0.0), i, input_precision=PRECISION)
        j = tl.dot(x, tl.load(w + D * weight_g, mask=there, other=0.0), j, input_precision=PRECISION)
        f = tl.dot(x, tl.load(w + 2 * D * weight_g, mask=there, other=0.0), f, input_precision=PRECISION)
        o = tl.dot(x, tl.load(w + 3 * D * weight_g, mask=there, other=0.0), o, input_precision=PRECISION)
    i, j, f, o = activated(i, j, f, o)
    place = z * B * D + row[:, None] * D + cell[None, :]
    new = clipped(f * tl.load(c + place, mask=here) + i * j, clip, CLIPS)
    tl.store(c + place, new, mask=here)
    tl.store(m + place, (o * tanh(new)).to(m.dtype.element_ty), mask=here)


@triton.jit(do_not_specialize=["B", "left"])  # type: ignore[untyped-decorator]
def _project(  # type: ignore[no-untyped-def]
    m, weight, h, weight_z, weight_d, weight_p, B, left, D, P, clip,
    CLIPS: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, VALUES: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    z = tl.program_id(2).to(tl.int64)
    row, value = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1) * VALUES + tl.arange(0, VALUES)
    total = tl.zeros((ROWS, VALUES), tl.float32)
    for first in range(0, D, DEPTH):
        depth = first + tl.arange(0, DEPTH)
        x = tl.load(
            m + z * B * D + row[:, None] * D + depth[None, :],
            mask=(row[:, None] < left) & (depth[None, :] < D), other=0.0,
        )  # fmt: skip
        w = tl.load(
            weight + z * weight_z + depth[:, None] * weight_d + value[None, :] * weight_p,
            mask=(depth[:, None] < D) & (value[None, :] < P), other=0.0,
        )  # fmt: skip
        total = tl.dot(x, w, total, input_precision=PRECISION)
    place = z * B * P + row[:, None] * P + value[None, :]
    here = (row[:, None] < left) & (value[None, :] < P)
    tl.store(h + place, clipped(total, clip, CLIPS).to(h.dtype.element_ty), mask=here)
