"""The recurrence for embedding on a processor: one direction after the other, no gradients, little memory touched.

A step is one product of [x, h] with the whole kernel, so that the gates are never stored for more than a step, and
everything after it happens in place. The weights are packed once, which counts where few rows are computed. The cells
stay in float32 where the weights are bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from elmokit.kernels import compiled
from elmokit.kernels.plain import Weights, tanh
from elmokit.kernels.product import packed, whole_rows


def lstmp_in_place(
    weights: Weights, x_TZBI: Tensor, h_ZBP: Tensor, c_ZBD: Tensor, rows: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one layer; arguments and results as `kernels.lstmp`, which are not changed."""
    y_TZBP = x_TZBI.new_empty(len(rows), *h_ZBP.shape)
    h_ZBP = h_ZBP.to(x_TZBI.dtype, copy=True, memory_format=torch.contiguous_format)
    c_ZBD = c_ZBD.clone(memory_format=torch.contiguous_format)
    for z in range(len(weights.kernel_ZKG)):
        _one_direction(weights, z, x_TZBI[:, z], h_ZBP[z], c_ZBD[z], y_TZBP[:, z], rows)
    return y_TZBP, h_ZBP, c_ZBD


def _one_direction(
    weights: Weights, z: int, x_TBI: Tensor, h_BP: Tensor, c_BD: Tensor, y_TBP: Tensor, rows: Sequence[int]
) -> None:
    """Run all steps of direction z; write the outputs into `y_TBP`, the last state of each row into `h_BP`, `c_BD`."""
    gates = partial(packed(weights.kernel_ZKG)[z], bias_O=weights.bias_ZG[z])
    project = None if weights.projection_ZDP is None else packed(weights.projection_ZDP)[z]
    T, B, I = x_TBI.shape  # noqa: E741
    most, P, D = whole_rows(B, weights.kernel_ZKG), h_BP.shape[1], c_BD.shape[1]
    xh_TnK = x_TBI.new_zeros(T + 1, most, I + P)  # what each step reads; its output is part of what the next reads
    xh_TnK[:T, :B, :I], xh_TnK[0, :B, I:] = x_TBI, h_BP
    c, m = nn.functional.pad(c_BD, (0, 0, 0, most - B)), x_TBI.new_empty(most, D)
    by_library = D % compiled.LANES == 0 and c.dtype == torch.float32 and compiled.computes(m.dtype, x_TBI, c)
    cells = compiled.cells if by_library else _cells
    clip = math.inf if project is None or weights.proj_clip is None else weights.proj_clip
    for t, left in enumerate(rows):
        n = whole_rows(left, weights.kernel_ZKG)
        m_nD = cells(gates(xh_TnK[t, :n]), c[:n], m[:n], weights.cell_clip)
        y_nP = xh_TnK[t + 1, :n, I:]
        torch.clamp(project(m_nD) if project else m_nD, -clip, clip, out=y_nP)
        staying = rows[t + 1] if t + 1 < T else 0
        if staying < left:
            h_BP[staying:left], c_BD[staying:left] = y_nP[staying:left], c[staying:left]
    y_TBP.copy_(xh_TnK[1:, :B, I:])


def _cells(gates_nG: Tensor, c_nD: Tensor, m_nD: Tensor, cell_clip: float | None) -> Tensor:
    """Compute as `compiled.cells`, in torch's operations."""
    gates_nG = gates_nG.to(c_nD.dtype)
    i, j, f, o = gates_nG.chunk(4, dim=-1)
    j.mul_(2)
    gates_nG.sigmoid_()
    c_nD.mul_(f).sub_(i).addcmul_(i, j, value=2)  # f c + i (2 j - 1)
    if cell_clip is not None:
        c_nD.clamp_(-cell_clip, cell_clip)
    tanh_nD = tanh(c_nD, out=i)
    return m_nD.copy_(tanh_nD.mul_(o)) if m_nD.dtype != c_nD.dtype else torch.mul(tanh_nD, o, out=m_nD)
