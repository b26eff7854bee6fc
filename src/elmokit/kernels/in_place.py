"""The recurrence for embedding on a processor: one direction after the other, no gradients, little memory touched.

A step is one product of [x, h] with the whole kernel, so that the gates are never stored for more than a step, and
everything after it happens in place. The weights are packed once, which counts where few rows are computed. The cells
stay in float32 where the weights are bfloat16.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from elmokit.kernels.plain import Weights, tanh, whole_rows
from elmokit.kernels.product import packed


def lstmp_in_place(
    weights: Weights, x_TZBI: Tensor, h_ZBP: Tensor, c_ZBD: Tensor, rows: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one layer; arguments and results as `kernels.lstmp`, which are not changed."""
    y_TZBP = x_TZBI.new_empty(len(rows), *h_ZBP.shape)
    h_ZBP, c_ZBD = h_ZBP.clone(), c_ZBD.clone()
    for z in range(len(weights.kernel_ZKG)):
        _one_direction(weights, z, x_TZBI[:, z], h_ZBP[z], c_ZBD[z], y_TZBP[:, z], rows)
    return y_TZBP, h_ZBP, c_ZBD


def _one_direction(
    weights: Weights, z: int, x_TBI: Tensor, h_BP: Tensor, c_BD: Tensor, y_TBP: Tensor, rows: Sequence[int]
) -> None:
    """Run all steps of direction z; write the outputs into `y_TBP`, the last state of each row into `h_BP`, `c_BD`."""
    gates = partial(packed(weights.kernel_ZKG)[z], bias_O=weights.bias_ZG[z])
    project = None if weights.projection_ZDP is None else packed(weights.projection_ZDP)[z]
    (B, D), P, I = c_BD.shape, h_BP.shape[1], x_TBI.shape[-1]  # noqa: E741
    most = whole_rows(B)
    xh, c, m = x_TBI.new_zeros(most, I + P), c_BD.new_zeros(most, D), x_TBI.new_empty(most, D)
    xh[:B, I:], c[:B] = h_BP, c_BD
    for t, left in enumerate(rows):
        n = whole_rows(left)
        xh[:left, :I] = x_TBI[t, :left]
        m_nD = _cells(gates(xh[:n]).to(c.dtype), c[:n], m[:n], weights.cell_clip)
        y_nP = project(m_nD) if project else m_nD
        if project and weights.proj_clip is not None:
            y_nP.clamp_(-weights.proj_clip, weights.proj_clip)
        xh[:n, I:] = y_nP
        y_TBP[t, :left] = y_nP[:left]
        ended = slice(rows[t + 1] if t + 1 < len(rows) else 0, left)
        h_BP[ended], c_BD[ended] = y_nP[ended], c[ended]


def _cells(gates_nG: Tensor, c_nD: Tensor, m_nD: Tensor, cell_clip: float | None) -> Tensor:
    """Update the cells in place; return what they give to the projection, in `m_nD`."""
    i, j, f, o = gates_nG.chunk(4, dim=-1)
    j.mul_(2)
    gates_nG.sigmoid_()
    c_nD.mul_(f).sub_(i).addcmul_(i, j, value=2)  # f c + i (2 j - 1)
    if cell_clip is not None:
        c_nD.clamp_(-cell_clip, cell_clip)
    tanh_nD = tanh(c_nD, out=i)
    return m_nD.copy_(tanh_nD.mul_(o)) if m_nD.dtype != c_nD.dtype else torch.mul(tanh_nD, o, out=m_nD)
