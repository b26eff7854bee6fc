"""The recurrence for embedding on a GPU: two products and one fused kernel a step, written in Triton.

The kernel does all that stands between the two products of a step: gates, cells, clip. Rows that ended are computed
on with the others, so that every step has the same shape; their last state is kept where they end.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from elmokit.kernels.plain import Weights

# Values of gates of the input that are computed in one product.
_VALUES_TOGETHER = 1 << 28
_BLOCK = 1024


def lstmp_fused(
    weights: Weights, x_TZBI: Tensor, h_ZBP: Tensor, c_ZBD: Tensor, rows: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one layer; arguments and results as `kernels.lstmp`, which are not changed."""
    T, Z, B, I = x_TZBI.shape  # noqa: E741
    h_last, c_last = torch.empty_like(h_ZBP), torch.empty_like(c_ZBD)
    h, c = h_ZBP.to(x_TZBI.dtype), c_ZBD.clone()
    y_TZBP = x_TZBI.new_empty(T, *h_ZBP.shape)
    of_input, recurrent, projection_ZDP = weights.kernel_ZKG[:, :I], weights.kernel_ZKG[:, I:], weights.projection_ZDP
    together = max(1, _VALUES_TOGETHER // (Z * B * of_input.shape[-1]))
    for t, left in enumerate(rows):
        if t % together == 0:
            part_ZNI = x_TZBI[t : t + together].transpose(0, 1).flatten(1, 2)
            gates_ZNG = torch.baddbmm(weights.bias_ZG.unsqueeze(1), part_ZNI, of_input)
            gates_ZtBG = gates_ZNG.view(Z, -1, B, gates_ZNG.shape[-1])
        m = cells(torch.baddbmm(gates_ZtBG[:, t % together], h, recurrent), c, weights.cell_clip)
        h = m if projection_ZDP is None else torch.bmm(m, projection_ZDP)
        if projection_ZDP is not None and weights.proj_clip is not None:
            h.clamp_(-weights.proj_clip, weights.proj_clip)
        y_TZBP[t] = h
        ended = slice(rows[t + 1] if t + 1 < T else 0, left)
        h_last[:, ended], c_last[:, ended] = h[:, ended], c[:, ended]
    return y_TZBP, h_last, c_last


def cells(sums_ZBG: Tensor, c_ZBD: Tensor, cell_clip: float | None) -> Tensor:
    """Update the cells in place; return what they give to the projection, (Z, B, D), in the type of the sums.

    sums_ZBG: gates before their activation, in the order i, j, f, o, without gaps; c_ZBD: likewise without gaps.
    """
    m_ZBD = torch.empty_like(c_ZBD, dtype=sums_ZBG.dtype)
    n, D = c_ZBD.numel(), c_ZBD.shape[-1]
    grid = (triton.cdiv(n, _BLOCK),)
    _cells[grid](sums_ZBG, c_ZBD, m_ZBD, D, n, cell_clip or 0.0, CLIPS=cell_clip is not None, BLOCK=_BLOCK)
    return m_ZBD


@triton.jit  # type: ignore[untyped-decorator]  # triton carries no types
def _cells(sums, c, m, D, n, clip, CLIPS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < n
    gate = sums + (place // D) * 4 * D + place % D
    i = tl.sigmoid(tl.load(gate, mask=inside).to(tl.float32))
    j = 2 * tl.sigmoid(2 * tl.load(gate + D, mask=inside).to(tl.float32)) - 1
    f = tl.sigmoid(tl.load(gate + 2 * D, mask=inside).to(tl.float32))
    o = tl.sigmoid(tl.load(gate + 3 * D, mask=inside).to(tl.float32))
    cell = f * tl.load(c + place, mask=inside) + i * j
    if CLIPS:
        cell = tl.minimum(tl.maximum(cell, -clip), clip)
    tl.store(c + place, cell, mask=inside)
    tl.store(m + place, (o * (2 * tl.sigmoid(2 * cell) - 1)).to(m.dtype.element_ty), mask=inside)
