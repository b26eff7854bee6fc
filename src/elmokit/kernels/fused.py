"""The recurrence for embedding on a GPU: two products and one fused kernel a step.

Rows that ended are computed on with the others, so that every step has the same shape; their last state is kept where
they end.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from elmokit.kernels.fused_cells import cells
from elmokit.kernels.plain import Weights

# Values of gates of the input that are computed in one product.
_VALUES_TOGETHER = 1 << 28


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
