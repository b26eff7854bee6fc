"""The recurrence for training: the gradients of the weights, summed over time, as one product each.

Automatic differentiation of the plain loop adds one small product a step to each weight's gradient; here the steps'
factors are kept and multiplied once. Same values, fewer and larger products.

Products are computed in the type of the gates, which is bfloat16 under autocast; all else, the cells above all, stays
in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def lstmp_batched_gradient(
    gates_TZBG: Tensor,
    kernel_ZPG: Tensor,
    projection_ZDP: Tensor | None,
    h_ZBP: Tensor,
    c_ZBD: Tensor,
    *,
    rows: Sequence[int],
    cell_clip: float | None,
    proj_clip: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the recurrence where no row ends early; arguments and results as `kernels.lstmp`."""
    assert rows[-1] == gates_TZBG.shape[2], "every row must last to the end"
    dtype = gates_TZBG.dtype
    projection_ZDP = None if projection_ZDP is None else projection_ZDP.to(dtype)
    y_TZBP, c_last = _Lstmp.apply(
        gates_TZBG, kernel_ZPG.to(dtype), projection_ZDP, h_ZBP.to(dtype), c_ZBD, cell_clip, proj_clip
    )
    return y_TZBP, y_TZBP[-1], c_last


class _Lstmp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        gates_TZBG: Tensor,
        kernel: Tensor,
        projection: Tensor | None,
        h_ZBP: Tensor,
        c_ZBD: Tensor,
        cell_clip: float | None,
        proj_clip: float | None,
    ) -> tuple[Tensor, Tensor]:
        T, Z, B, G = gates_TZBG.shape
        activated = c_ZBD.new_empty(T, Z, B, G)
        h, c = gates_TZBG.new_empty(T + 1, *h_ZBP.shape), c_ZBD.new_empty(T + 1, *c_ZBD.shape)
        m, tanh_c = gates_TZBG.new_empty(T, Z, B, G // 4), c_ZBD.new_empty(T, Z, B, G // 4)
        h[0], c[0] = h_ZBP, c_ZBD
        sums = None if gates_TZBG.dtype == c_ZBD.dtype else torch.empty_like(gates_TZBG[0])
        for t in range(T):
            if sums is None:
                torch.baddbmm(gates_TZBG[t], h[t], kernel, out=activated[t])
            else:
                activated[t] = torch.baddbmm(gates_TZBG[t], h[t], kernel, out=sums)
            _activate(activated[t])
            i, j, f, o = activated[t].chunk(4, dim=-1)
            torch.mul(f, c[t], out=c[t + 1]).addcmul_(i, j)
            if cell_clip is not None:
                c[t + 1].clamp_(-cell_clip, cell_clip)
            torch.tanh(c[t + 1], out=tanh_c[t])
            m[t] = o * tanh_c[t]
            if projection is None:
                h[t + 1] = m[t]
                continue
            torch.bmm(m[t], projection, out=h[t + 1])
            if proj_clip is not None:
                h[t + 1].clamp_(-proj_clip, proj_clip)
        ctx.save_for_backward(activated, kernel, projection, h, c, m, tanh_c)
        ctx.clips = cell_clip, None if projection is None else proj_clip
        return h[1:].to(c.dtype, copy=True), c[-1].clone()

    @staticmethod
    def backward(ctx: Any, dy_TZBP: Tensor, dc_last: Tensor) -> tuple[Tensor | None, ...]:
        activated, kernel, projection, h, c, m, tanh_c = ctx.saved_tensors
        cell_clip, proj_clip = ctx.clips
        dtype = h.dtype  # of products
        dgates, dprojected = activated.new_empty(activated.shape, dtype=dtype), torch.empty_like(h[1:])
        dh, dc = torch.zeros_like(h[0]), dc_last.clone()
        back, back_projection = kernel.mT, None if projection is None else projection.mT
        for t in reversed(range(len(activated))):
            dprojected[t] = dy_TZBP[t] + dh
            if proj_clip is not None:  # a clipped value does not move with what was clipped
                dprojected[t].mul_(h[t + 1].abs() < proj_clip)
            dm = dprojected[t] if back_projection is None else torch.bmm(dprojected[t], back_projection)
            i, j, f, o = activated[t].chunk(4, dim=-1)
            dc.addcmul_(dm * o, 1 - tanh_c[t].square())
            if cell_clip is not None:
                dc.mul_(c[t + 1].abs() < cell_clip)
            di, dj, df, do = dgates[t].chunk(4, dim=-1)
            di.copy_(dc * j * (i * (1 - i)))
            dj.copy_(dc * i * (1 - j.square()))
            df.copy_(dc * c[t] * (f * (1 - f)))
            do.copy_(dm * tanh_c[t] * (o * (1 - o)))
            dc.mul_(f)
            dh = torch.bmm(dgates[t], back)
        dkernel = _summed_product(h[:-1], dgates)
        dprojection = None if projection is None else _summed_product(m, dprojected)
        return dgates, dkernel, dprojection, dh, dc, None, None


def _activate(gates_ZBG: Tensor) -> None:
    """Apply tanh to the second quarter of the gates and the sigmoid to the others, in place."""
    D = gates_ZBG.shape[-1] // 4
    gates_ZBG[..., :D].sigmoid_()
    gates_ZBG[..., D : 2 * D].tanh_()
    gates_ZBG[..., 2 * D :].sigmoid_()


def _summed_product(a_TZBI: Tensor, b_TZBO: Tensor) -> Tensor:
    """Return sum over t and b of a^T b, (Z, I, O), as one product a direction."""
    a_ZNI, b_ZNO = (x.transpose(0, 1).flatten(1, 2) for x in (a_TZBI, b_TZBO))
    return torch.bmm(a_ZNI.mT, b_ZNO)
