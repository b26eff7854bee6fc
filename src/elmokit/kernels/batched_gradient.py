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

from elmokit.kernels.product import multiply, product, products


def lstmp_batched_gradient(
    x_TZBI: Tensor,
    kernel_ZKG: Tensor,
    bias_ZG: Tensor,
    projection_ZDP: Tensor | None,
    h_ZBP: Tensor,
    c_ZBD: Tensor,
    *,
    rows: Sequence[int],
    cell_clip: float | None,
    proj_clip: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one layer in which no row ends early; arguments and results as `kernels.lstmp`."""
    B, I = x_TZBI.shape[2:]  # noqa: E741
    assert rows[-1] == B, "every row must last to the end"
    directions = zip(x_TZBI.unbind(1), kernel_ZKG[:, :I], bias_ZG, strict=True)
    gates_TZBG = torch.stack([product(*direction) for direction in directions]).transpose(0, 1)
    dtype = gates_TZBG.dtype
    projection_ZDP = None if projection_ZDP is None else projection_ZDP.to(dtype)
    y_TZBP, c_last = _Lstmp.apply(
        gates_TZBG, kernel_ZKG[:, I:].to(dtype), projection_ZDP, h_ZBP.to(dtype), c_ZBD, cell_clip, proj_clip
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
        D, P = G // 4, h_ZBP.shape[-1]
        activated = _directions_apart(c_ZBD, T, Z, B, G)
        h, c = gates_TZBG.new_empty(T + 1, Z, B, P), c_ZBD.new_empty(T + 1, Z, B, D)
        m, tanh_c = _directions_apart(gates_TZBG, T, Z, B, D), c_ZBD.new_empty(T, Z, B, D)
        h[0], c[0] = h_ZBP, c_ZBD
        for t in range(T):
            for z in range(Z):
                torch.add(gates_TZBG[t, z], multiply(h[t, z], kernel[z]), out=activated[t, z])
            _activate(activated[t])
            i, j, f, o = activated[t].chunk(4, dim=-1)
            torch.mul(f, c[t], out=c[t + 1]).addcmul_(i, j)
            if cell_clip is not None:
                c[t + 1].clamp_(-cell_clip, cell_clip)
            torch.mul(c[t + 1], 2, out=tanh_c[t]).sigmoid_().mul_(2).sub_(1)  # the tanh, see in_place
            torch.mul(o, tanh_c[t], out=m[t])
            if projection is None:
                h[t + 1] = m[t]
                continue
            for z in range(Z):
                h[t + 1, z] = multiply(m[t, z], projection[z])
            if proj_clip is not None:
                h[t + 1].clamp_(-proj_clip, proj_clip)
        ctx.save_for_backward(activated, kernel, projection, h, c, m, tanh_c)
        ctx.clips = cell_clip, None if projection is None else proj_clip
        return h[1:].to(c.dtype, copy=True), c[-1].clone()

    @staticmethod
    def backward(ctx: Any, dy_TZBP: Tensor, dc_last: Tensor) -> tuple[Tensor | None, ...]:
        activated, kernel, projection, h, c, m, tanh_c = ctx.saved_tensors
        cell_clip, proj_clip = ctx.clips
        T, Z, B, G = activated.shape
        slopes, do_slope, dc_slope, kept = _slopes(activated, c, tanh_c, cell_clip)
        inside = None if proj_clip is None else h[1:].abs() < proj_clip  # a clipped value does not move
        dgates, dprojected = (_directions_apart(h, T, Z, B, width) for width in (G, h.shape[-1]))
        dh, dc = torch.zeros_like(h[0]), dc_last.clone()
        back, back_projection = kernel.mT, None if projection is None else projection.mT
        for t in reversed(range(T)):
            torch.add(dy_TZBP[t], dh, out=dprojected[t])
            if inside is not None:
                dprojected[t].mul_(inside[t])
            dm = dprojected[t] if back_projection is None else products(dprojected[t], back_projection)
            dc.addcmul_(dm, dc_slope[t])
            torch.mul(dc.unsqueeze(-2), slopes[t], out=dgates[t, ..., : 3 * G // 4].unflatten(-1, (3, G // 4)))
            torch.mul(dm, do_slope[t], out=dgates[t, ..., 3 * G // 4 :])
            dc.mul_(kept[t])
            dh = products(dgates[t], back)
        dkernel = _summed_product(h[:-1], dgates)
        dprojection = None if projection is None else _summed_product(m, dprojected)
        return dgates, dkernel, dprojection, dh, dc, None, None


def _slopes(activated: Tensor, c: Tensor, tanh_c: Tensor, cell_clip: float | None) -> tuple[Tensor, ...]:
    """Return all factors of the backward loop, computed for every step at once.

    What dc is multiplied with to give the gradients of the gates i, j and f, (T, Z, B, 3, D); what dm is, for those of
    o, and for what is added to dc; the share of dc that goes on to the step before. The clip is in them: a clipped cell
    does not move with what was clipped.
    """
    i, j, f, o = activated.chunk(4, dim=-1)
    inside = 1.0 if cell_clip is None else (c[1:].abs() < cell_clip).to(c.dtype)
    kept = f * inside
    slopes = torch.stack([i * (1 - i) * j * inside, i * (1 - j.square()) * inside, kept * (1 - f) * c[:-1]], dim=-2)
    return slopes, o * (1 - o) * tanh_c, o * (1 - tanh_c.square()), kept


def _directions_apart(like: Tensor, T: int, Z: int, B: int, width: int) -> Tensor:
    """Return an empty (T, Z, B, width) in which each direction's steps lie one after the other.

    So the products over all steps of a direction need no copy.
    """
    return like.new_empty(Z, T, B, width).transpose(0, 1)


def _activate(gates_ZBG: Tensor) -> None:
    """Apply tanh (see in_place) to the second quarter of the gates and the sigmoid to the others, in place."""
    j = gates_ZBG.chunk(4, dim=-1)[1]
    j.mul_(2)
    gates_ZBG.sigmoid_()
    j.mul_(2).sub_(1)


def _summed_product(a_TZBI: Tensor, b_TZBO: Tensor) -> Tensor:
    """Return sum over t and b of a^T b, (Z, I, O), as one product a direction."""
    a_ZNI, b_ZNO = (x.transpose(0, 1).flatten(1, 2) for x in (a_TZBI, b_TZBO))
    return products(a_ZNI.mT, b_ZNO)
