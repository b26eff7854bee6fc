"""What the network computes with. Of the ways through one LSTM layer `plain` is the reference for all others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from elmokit.kernels.batched_gradient import lstmp_batched_gradient
from elmokit.kernels.convolution import window_maxima as window_maxima
from elmokit.kernels.in_place import lstmp_in_place
from elmokit.kernels.plain import lstmp_plain
from elmokit.kernels.plain import whole_rows as whole_rows
from elmokit.kernels.product import product as product


def lstmp(
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
    """Run one layer by the fastest kernel that can.

    x_TZBI: the layer's input; kernel_ZKG: the weights of input and recurrence, one above the other, so K = I + P;
    bias_ZG: the biases, that of the forget gate with its 1; rows: how many rows are still there at each step.

    Returns outputs (T, Z, B, P), whose rows beyond rows[t] mean nothing, and the last h and c of every row.
    """
    if not torch.is_grad_enabled():
        kernel = lstmp_in_place if x_TZBI.device.type == "cpu" else lstmp_plain
    else:
        kernel = lstmp_batched_gradient if rows[-1] == x_TZBI.shape[2] else lstmp_plain
    return kernel(
        x_TZBI, kernel_ZKG, bias_ZG, projection_ZDP, h_ZBP, c_ZBD,
        rows=rows, cell_clip=cell_clip, proj_clip=proj_clip,
    )  # fmt: skip
