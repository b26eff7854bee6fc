"""Faster ways through one LSTM layer, each tested against the plain loop in `plain`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from elmokit.kernels.batched_gradient import lstmp_batched_gradient
from elmokit.kernels.plain import LEAST_ROWS as LEAST_ROWS
from elmokit.kernels.plain import lstmp_plain
from elmokit.kernels.plain import with_least_rows as with_least_rows


def lstmp(
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
    """Run the recurrence of one layer by the fastest kernel that can.

    gates_TZBG: the input's share in the gates, biases included; kernel_ZPG: the recurrent weights; rows: how many rows
    are still there at each step. Returns outputs (T, Z, B, P) and the last h and c.
    """
    all_rows = rows[-1] == gates_TZBG.shape[2]
    kernel = lstmp_batched_gradient if torch.is_grad_enabled() and all_rows else lstmp_plain
    return kernel(
        gates_TZBG, kernel_ZPG, projection_ZDP, h_ZBP, c_ZBD, rows=rows, cell_clip=cell_clip, proj_clip=proj_clip
    )
