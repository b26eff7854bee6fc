"""Gates and cells of training on a GPU: all that stands between a step's products as one kernel, written in Triton.

Cells are computed in float32 whatever the type of the products. The backward kernel computes the gates anew from what
went into them, so that only this is kept: 8 bytes a cell where products are bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


def forward_steps(
    c: Tensor, m: Tensor, cell_clip: float | None
) -> tuple[Callable[[int, Sequence[Tensor]], None], tuple[Tensor, ...]]:
    """Return what `cells.forward_steps` does; kept are the gates before activation, in the type of the products."""
    T, Z, B, D = c[1:].shape
    sums = m.new_empty(T, Z, B, 4 * D)
    sums_steps, c_steps, m_steps = sums.unbind(0), c.unbind(0), m.unbind(1)

    def step(t: int, sums_of_each: Sequence[Tensor]) -> None:
        torch.stack(list(sums_of_each), out=sums_steps[t])
        _launch(_forward, sums_steps[t], c_steps[t], c_steps[t + 1], m_steps[t], m.stride(0), cell_clip=cell_clip)

    return step, (sums,)


def backward_steps(
    kept: Sequence[Tensor], c: Tensor, dgates: Tensor, cell_clip: float | None
) -> Callable[[int, Tensor, Tensor], None]:
    """Return what `cells.backward_steps` does; dc must be without gaps, dm without gaps in each direction."""
    sums_steps, c_steps, dgates_steps = kept[0].unbind(0), c.unbind(0), dgates.unbind(1)

    def step(t: int, dm: Tensor, dc: Tensor) -> None:
        moving = dm, dm.stride(0), dc, dgates_steps[t], dgates.stride(0)
        _launch(_backward, sums_steps[t], c_steps[t], c_steps[t + 1], *moving, cell_clip=cell_clip)

    return step


def _launch(kernel: Any, sums_ZBG: Tensor, c_ZBD: Tensor, *others: Tensor | int, cell_clip: float | None) -> None:
    """Run a kernel on every cell, in blocks of each direction."""
    Z, B, D = c_ZBD.shape
    clip = {"clip": cell_clip or 0.0, "CLIPS": cell_clip is not None}
    with torch.cuda.device_of(c_ZBD):  # where Triton launches, whatever the device of the tensors is
        kernel[triton.cdiv(B * D, _BLOCK), Z](sums_ZBG, c_ZBD, *others, D=D, n=B * D, **clip, BLOCK=_BLOCK)


@triton.jit  # type: ignore[untyped-decorator]  # triton carries no types
def _forward(sums, c, c_new, m, m_stride, D, n, clip, CLIPS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    z, place = tl.program_id(1).to(tl.int64), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = place < n
    i, j, f, o = _gates(sums + z * 4 * n, place, D, here)
    cell = clipped(f * tl.load(c + z * n + place, mask=here) + i * j, clip, CLIPS)
    tl.store(c_new + z * n + place, cell, mask=here)
    tl.store(m + z * m_stride + place, (o * tanh(cell)).to(m.dtype.element_ty), mask=here)


@triton.jit  # type: ignore[untyped-decorator]
def _backward(  # type: ignore[no-untyped-def]
    sums, c, c_new, dm, dm_stride, dc, dgates, dgates_stride, D, n, clip, CLIPS: tl.constexpr, BLOCK: tl.constexpr
):
    z, place = tl.program_id(1).to(tl.int64), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = place < n
    i, j, f, o = _gates(sums + z * 4 * n, place, D, here)
    before, cell = tl.load(c + z * n + place, mask=here), tl.load(c_new + z * n + place, mask=here)
    of_m, tanh_c = tl.load(dm + z * dm_stride + place, mask=here).to(tl.float32), tanh(cell)
    of_c = tl.load(dc + z * n + place, mask=here) + of_m * o * (1 - tanh_c * tanh_c)
    if CLIPS:
        of_c *= (tl.abs(cell) < clip).to(tl.float32)  # a clipped cell does not move with what was clipped
    tl.store(dc + z * n + place, of_c * f, mask=here)
    gate = dgates + z * dgates_stride + place + place // D * 3 * D
    tl.store(gate, (of_c * j * (i - i * i)).to(dgates.dtype.element_ty), mask=here)
    tl.store(gate + D, (of_c * i * (1 - j * j)).to(dgates.dtype.element_ty), mask=here)
    tl.store(gate + 2 * D, (of_c * before * (f - f * f)).to(dgates.dtype.element_ty), mask=here)
    tl.store(gate + 3 * D, (of_m * tanh_c * (o - o * o)).to(dgates.dtype.element_ty), mask=here)


@triton.jit
def _gates(sums, place, D, here):  # type: ignore[no-untyped-def]
    gate = sums + place + place // D * 3 * D  # a row of gates is four times as long as a row of cells
    i, j = tl.load(gate, mask=here).to(tl.float32), tl.load(gate + D, mask=here).to(tl.float32)
    f, o = tl.load(gate + 2 * D, mask=here).to(tl.float32), tl.load(gate + 3 * D, mask=here).to(tl.float32)
    return activated(i, j, f, o)


@triton.jit
def activated(i, j, f, o):  # type: ignore[no-untyped-def]
    """Return the gates after their activation, of their sums."""
    return tl.sigmoid(i), tanh(j), tl.sigmoid(f), tl.sigmoid(o)


@triton.jit  # type: ignore[untyped-decorator]
def clipped(x, clip, CLIPS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return x between -clip and clip, as it is where it is no number."""
    return tl.clamp(x, -clip, clip, propagate_nan=tl.PropagateNan.ALL) if CLIPS else x


@triton.jit
def tanh(x):  # type: ignore[no-untyped-def]
    """Return tanh(x)."""
    return 2 * tl.sigmoid(2 * x) - 1
