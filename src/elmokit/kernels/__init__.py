"""What the network computes with. Of the ways through one LSTM layer `plain` is the reference for all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from elmokit.kernels import cells, compiled_cells, few_rows
from elmokit.kernels import filter_tables as filter_tables
from elmokit.kernels.batched_gradient import Cells, lstmp_batched_gradient
from elmokit.kernels.convolution import window_maxima as window_maxima
from elmokit.kernels.filter_tables import FilterTables as FilterTables
from elmokit.kernels.in_place import lstmp_in_place
from elmokit.kernels.plain import Weights as Weights
from elmokit.kernels.plain import lstmp_plain
from elmokit.kernels.product import affine as affine
from elmokit.kernels.product import forget_kept as forget_kept
from elmokit.kernels.product import kept as kept
from elmokit.kernels.product import product as product
from elmokit.kernels.product import product_type
from elmokit.kernels.product import recurring_rows as recurring_rows
from elmokit.kernels.product import whole_rows as whole_rows


def lstmp(
    weights: Weights, x_TZBI: Tensor, h_ZBP: Tensor, c_ZBD: Tensor, rows: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one layer by the fastest kernel that can.

    x_TZBI: the layer's input; rows: how many rows are still there at each step.

    Returns outputs (T, Z, B, P), whose rows beyond rows[t] mean nothing, and the last h and c of every row.

    `torch.compile` leaves it as it is: it can follow neither the calls of C nor the products of oneDNN.
    """
    if torch.compiler.is_compiling():  # as a decorator it would load the compiler always
        return torch.compiler.disable(_lstmp)(weights, x_TZBI, h_ZBP, c_ZBD, rows)
    return _lstmp(weights, x_TZBI, h_ZBP, c_ZBD, rows)


def _lstmp(
    weights: Weights, x_TZBI: Tensor, h_ZBP: Tensor, c_ZBD: Tensor, rows: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    for weight in (weights.kernel_ZKG, weights.projection_ZDP):
        if weight is not None:
            forget_kept([weight])
    device = x_TZBI.device.type
    if torch.is_grad_enabled() or torch.is_autocast_enabled(device):  # those for embedding know no autocast
        in_c = compiled_cells.can_run(c_ZBD, product_type(x_TZBI))
        for_training = compiled_cells if in_c else cells_for_training(device, c_ZBD.dtype)
        return lstmp_batched_gradient(weights, x_TZBI, h_ZBP, c_ZBD, rows, cells=for_training)
    if device == "cpu" and few_rows.can_run(weights, x_TZBI, h_ZBP, c_ZBD):
        return few_rows.lstmp_few_rows(weights, x_TZBI, h_ZBP, c_ZBD, rows)
    return for_embedding(device, c_ZBD.dtype)(weights, x_TZBI, h_ZBP, c_ZBD, rows)


def cells_for_training(device: str, dtype: torch.dtype) -> Cells:
    """Return what `lstmp_batched_gradient` computes cells of this type with: fused kernels compute in float32 alone."""
    if dtype == torch.float32 and _has_triton(device):
        from elmokit.kernels import fused_cells  # only here: it is there with CUDA alone

        return fused_cells
    return cells


def for_embedding(device: str, dtype: torch.dtype) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Return the kernel without gradients for cells of this type: the fused one computes them in float32 alone."""
    if device == "cpu":
        return lstmp_in_place
    if dtype == torch.float32 and _has_triton(device):
        from elmokit.kernels.fused import lstmp_fused

        return lstmp_fused
    return lstmp_plain


def _has_triton(device: str) -> bool:
    return device == "cuda" and find_spec("triton") is not None
