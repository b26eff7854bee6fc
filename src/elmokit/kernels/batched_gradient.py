"""The recurrence for training: the gradients of the weights, summed over time, as one product each.

Automatic differentiation of the plain loop adds one small product a step to each weight's gradient; here the steps'
factors are kept and multiplied once. Same values, fewer and larger products. What stands between the products depends
on the device: `cells`, `compiled_cells` or `fused_cells`.

Products are computed in the type of the gates, which is bfloat16 under autocast; all else, the cells above all, stays
in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from elmokit.kernels.cells import inside
from elmokit.kernels.plain import Weights
from elmokit.kernels.product import in_product_type, multiply, products
from elmokit.kernels.rows import End, ended, last_outputs


class Cells(Protocol):
    """What the modules `cells`, which describes it, `compiled_cells` and `fused_cells` hold."""

    def forward_steps(
        self, c: Tensor, m: Tensor, cell_clip: float | None
    ) -> tuple[Callable[[int, Sequence[Tensor]], None], Sequence[Tensor]]: ...

    def backward_steps(
        self, kept: Sequence[Tensor], c: Tensor, dgates: Tensor, cell_clip: float | None
    ) -> Callable[[int, Tensor, Tensor], None]: ...


def lstmp_batched_gradient(
    weights: Weights, x_TZBI: Tensor, h_ZBP: Tensor, c_ZBD: Tensor, rows: Sequence[int], *, cells: Cells
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one layer; arguments and results as `kernels.lstmp`.

    Rows that have ended are computed on, which leaves the others as they are: it keeps every step one block of memory.

    cells: what computes gates and cells, one of these modules.
    """
    ends = ended(rows, x_TZBI.shape[2])
    x_TZBI, *arrays = in_product_type(x_TZBI, weights.kernel_ZKG, weights.bias_ZG, weights.projection_ZDP, h_ZBP)
    y_TZBP, c_last = _Lstmp.apply(x_TZBI, *arrays, c_ZBD, weights.cell_clip, weights.proj_clip, ends, cells)
    y_TZBP = y_TZBP.to(weights.kernel_ZKG.dtype)  # of a network in half precision the next layer expects that, too
    return y_TZBP, last_outputs(y_TZBP, h_ZBP, ends), c_last


class _Lstmp(torch.autograd.Function):
    """Steps are taken as views made all at once: making one at a time costs as much as computing with it."""

    @staticmethod
    def forward(
        ctx: Any,
        x_TZBI: Tensor,
        kernel: Tensor,
        bias: Tensor,
        projection: Tensor | None,
        h_ZBP: Tensor,
        c_ZBD: Tensor,
        cell_clip: float | None,
        proj_clip: float | None,
        ends: list[End],
        cells: Cells,
    ) -> tuple[Tensor, Tensor]:
        (T, Z, B, I), P, D = x_TZBI.shape, h_ZBP.shape[-1], c_ZBD.shape[-1]  # noqa: E741
        xh = x_TZBI.new_empty(Z, T + 1, B, I + P)
        xh[:, :T, :, :I], xh[:, 0, :, I:] = x_TZBI.transpose(0, 1), h_ZBP
        c, m = c_ZBD.new_empty(T + 1, Z, B, D), x_TZBI.new_empty(Z, T, B, D)
        c[0] = c_ZBD
        gates, project = _times(kernel, bias), None if projection is None else _times(projection)
        update, kept = cells.forward_steps(c, m, cell_clip)
        h_steps, h_parts = xh[..., I:].unbind(1), _parts(xh[..., I:].transpose(0, 1))
        m_steps, m_parts = m.unbind(1), _parts(m.transpose(0, 1))
        xh_parts = _parts(xh.transpose(0, 1))
        for t in range(T):
            update(t, [gates[z](xh_parts[t][z]) for z in range(Z)])
            if project is None:
                h_steps[t + 1].copy_(m_steps[t])
                continue
            for z in range(Z):
                h_parts[t + 1][z].copy_(project[z](m_parts[t][z]))
            if proj_clip is not None:
                h_steps[t + 1].clamp_(-proj_clip, proj_clip)
        ctx.save_for_backward(kernel, projection, xh, c, m, *kept)
        ctx.clips, ctx.ends, ctx.cells = (cell_clip, None if projection is None else proj_clip), ends, cells
        c_last = torch.cat([c[t, :, first:end] for t, first, end in ends], dim=1)
        return xh[:, 1:, :, I:].transpose(0, 1).to(c.dtype, copy=True), c_last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TZBP: Tensor, dc_last: Tensor) -> tuple[Tensor | None, ...]:
        kernel, projection, xh, c, m, *kept = ctx.saved_tensors
        cell_clip, proj_clip = ctx.clips
        (T, Z, B, P), D = dy_TZBP.shape, c.shape[-1]
        I = xh.shape[-1] - P  # noqa: E741
        unclipped = None if proj_clip is None else inside(xh[:, 1:, :, I:], proj_clip)
        dgates, dprojected = xh.new_empty(Z, T, B, 4 * D), xh.new_empty(Z, T, B, P)
        dgates_parts, dprojected_parts = _parts(dgates.transpose(0, 1)), _parts(dprojected.transpose(0, 1))
        dy_steps, dprojected_steps = dy_TZBP.unbind(0), dprojected.unbind(1)
        back, back_projection = _times(kernel[:, I:].mT), None if projection is None else _times(projection.mT)
        update = ctx.cells.backward_steps(kept, c, dgates, cell_clip)
        dh, dc = torch.zeros_like(dprojected_steps[0]), c.new_zeros(Z, B, D)
        ending = {t: slice(first, end) for t, first, end in ctx.ends}
        for t in reversed(range(T)):
            if t + 1 in ending:
                dc[:, ending[t + 1]] += dc_last[:, ending[t + 1]]
            torch.add(dy_steps[t], dh, out=dprojected_steps[t])
            if unclipped is not None:
                dprojected_steps[t].mul_(unclipped[:, t])
            dm = dprojected_steps[t]
            if back_projection is not None:
                dm = torch.stack([back_projection[z](dprojected_parts[t][z]) for z in range(Z)])
            update(t, dm, dc)
            dh = torch.stack([back[z](dgates_parts[t][z]) for z in range(Z)])
        if 0 in ending:
            dc[:, ending[0]] += dc_last[:, ending[0]]
        dgates_ZNG, xh_ZNK = dgates.flatten(1, 2), xh[:, :T].flatten(1, 2)
        dx = products(dgates_ZNG, kernel[:, :I].mT).view(Z, T, B, I).transpose(0, 1)
        dkernel, dbias = products(xh_ZNK.mT, dgates_ZNG), dgates_ZNG.sum(1)
        dprojection = None if projection is None else products(m.flatten(1, 2).mT, dprojected.flatten(1, 2))
        return dx, dkernel, dbias, dprojection, dh, dc, None, None, None, None


def _times(weight_ZIO: Tensor, bias_ZO: Tensor | None = None) -> list[Callable[[Tensor], Tensor]]:
    """Return for each direction the function from x (N, I) to x @ weight + bias."""
    biases = [None] * len(weight_ZIO) if bias_ZO is None else bias_ZO
    return [partial(multiply, b_IO=weight, bias_O=bias) for weight, bias in zip(weight_ZIO, biases, strict=True)]


def _parts(x_TZBW: Tensor) -> list[tuple[Tensor, ...]]:
    """Return views of each step and direction."""
    return [step.unbind(0) for step in x_TZBW.unbind(0)]
