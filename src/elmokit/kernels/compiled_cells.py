"""Gates and cells of training on a processor, in compiled code: each step's in one pass through memory.

As in `fused_cells`, cells are computed in float32 whatever the type of the products, and the gates anew on the way
back, so that of each step only what went into them is kept, as the product gave it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from elmokit.kernels import compiled


def can_run(c: Tensor, dtype: torch.dtype) -> bool:
    """Say whether cells like these (..., D) can be computed here from gates of this type."""
    return c.dtype == torch.float32 and c.shape[-1] % compiled.LANES == 0 and compiled.computes(dtype, c)


def forward_steps(
    c: Tensor, m: Tensor, cell_clip: float | None
) -> tuple[Callable[[int, Sequence[Tensor]], None], list[Tensor]]:
    """Return what `cells.forward_steps` does; kept are the gates before activation, step after step."""
    kept: list[Tensor] = []
    c_parts, m_parts = [step.unbind(0) for step in c.unbind(0)], [part.unbind(0) for part in m.unbind(0)]

    def step(t: int, sums: Sequence[Tensor]) -> None:
        kept.extend(sums)
        for z, sum_BG in enumerate(sums):
            compiled.cells(sum_BG, c_parts[t + 1][z], m_parts[z][t], cell_clip, before_nD=c_parts[t][z])

    return step, kept


def backward_steps(
    kept: Sequence[Tensor], c: Tensor, dgates: Tensor, cell_clip: float | None
) -> Callable[[int, Tensor, Tensor], None]:
    """Return what `cells.backward_steps` does; dc must be without gaps, dm without gaps in each direction."""
    Z = c.shape[1]
    c_parts, dgates_parts = [step.unbind(0) for step in c.unbind(0)], [part.unbind(0) for part in dgates.unbind(0)]

    def step(t: int, dm: Tensor, dc: Tensor) -> None:
        for z, (dm_BD, dc_BD) in enumerate(zip(dm, dc, strict=True)):
            gates, before, after = kept[t * Z + z], c_parts[t][z], c_parts[t + 1][z]
            compiled.cells_backward(gates, before, after, dm_BD, dc_BD, dgates_parts[z][t], cell_clip)

    return step
