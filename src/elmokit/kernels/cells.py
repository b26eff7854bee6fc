"""Gates and cells of training, forward and backward, in torch's operations: what stands between a step's products.

Steps are taken as views made all at once: making one at a time costs as much as computing with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from elmokit.kernels.plain import tanh


def forward_steps(
    c: Tensor, m: Tensor, cell_clip: float | None
) -> tuple[Callable[[int, Sequence[Tensor]], None], tuple[Tensor, ...]]:
    """Return a function that takes a step, and what `backward_steps` needs of all steps.

    Called with t and the gates of each direction before their activation, (B, 4 D) in the order i, j, f, o, it writes
    c[t + 1] of c (T + 1, Z, B, D), which holds c[t], and m[:, t], for the projection, of m (Z, T, B, D).
    """
    tanh_c = torch.empty_like(c[1:])
    activated = c.new_empty(*tanh_c.shape[:-1], 4 * c.shape[-1])
    activated_parts = [step.unbind(0) for step in activated.unbind(0)]
    i, j, f, o = (gate.unbind(0) for gate in activated.chunk(4, dim=-1))
    activated_steps, c_steps, tanh_steps, m_steps = activated.unbind(0), c.unbind(0), tanh_c.unbind(0), m.unbind(1)

    def step(t: int, sums: Sequence[Tensor]) -> None:
        for part, sum_BG in zip(activated_parts[t], sums, strict=True):
            part.copy_(sum_BG)
        j[t].mul_(2)
        activated_steps[t].sigmoid_()
        j[t].mul_(2).sub_(1)  # its tanh, as in `tanh`: one sigmoid serves all four
        torch.mul(f[t], c_steps[t], out=c_steps[t + 1]).addcmul_(i[t], j[t])
        if cell_clip is not None:
            c_steps[t + 1].clamp_(-cell_clip, cell_clip)
        torch.mul(o[t], tanh(c_steps[t + 1], out=tanh_steps[t]), out=m_steps[t])

    return step, (activated, tanh_c)


def backward_steps(
    kept: Sequence[Tensor], c: Tensor, dgates: Tensor, cell_clip: float | None
) -> Callable[[int, Tensor, Tensor], None]:
    """Return a function that takes a step back.

    Called with t and the gradients dm and dc, (Z, B, D), of what step t gave, it writes those of its gates into
    dgates[:, t] of dgates (Z, T, B, 4 D) and makes dc, in place, that of the step before.
    """
    activated, tanh_c = kept
    slopes, do_slope, dc_slope, staying = (a.unbind(0) for a in _slopes(activated, tanh_c, c, cell_clip))
    dgates_steps = dgates.unflatten(-1, (4, c.shape[-1])).unbind(1)

    def step(t: int, dm: Tensor, dc: Tensor) -> None:
        dc.addcmul_(dm, dc_slope[t])
        torch.mul(dc.unsqueeze(-2), slopes[t], out=dgates_steps[t][..., :3, :])
        torch.mul(dm, do_slope[t], out=dgates_steps[t][..., 3, :])
        dc.mul_(staying[t])

    return step


def inside(x: Tensor, clip: float) -> Tensor | None:
    """Return where x was not clipped, for a clipped value does not move; None where nothing was."""
    size = x.abs()
    return None if size.amax() < clip else (size < clip).to(x.dtype)


def _slopes(activated: Tensor, tanh_c: Tensor, c: Tensor, cell_clip: float | None) -> tuple[Tensor, ...]:
    """Return all factors of the backward loop, computed for every step at once.

    What dc is multiplied with to give the gradients of the gates i, j and f, (T, Z, B, 3, D); what dm is, for those of
    o, and for what is added to dc; the share of dc that goes on to the step before. The clip is in them: a clipped cell
    does not move with what was clipped.
    """
    i, j, f, o = activated.chunk(4, dim=-1)
    unclipped = None if cell_clip is None else inside(c[1:], cell_clip)
    slopes = activated.new_empty(*i.shape[:-1], 3, i.shape[-1])
    of_i, of_j, of_f = slopes.unbind(-2)
    torch.addcmul(i, i, i, value=-1, out=of_i).mul_(j)
    torch.addcmul(j.new_ones(()), j, j, value=-1, out=of_j).mul_(i)
    torch.addcmul(f, f, f, value=-1, out=of_f).mul_(c[:-1])
    staying = f
    if unclipped is not None:
        slopes.mul_(unclipped.unsqueeze(-2))
        staying = f * unclipped
    dc_slope = torch.addcmul(o, o * tanh_c, tanh_c, value=-1)
    do_slope = torch.addcmul(o, o, o, value=-1).mul_(tanh_c)
    return slopes, do_slope, dc_slope, staying
