"""The recurrence as a plain loop: what every other kernel is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from elmokit.kernels.product import whole_rows


@dataclass(frozen=True)
class Weights:
    """What a layer computes with.

    kernel_ZKG: the weights of input and recurrence, one above the other, so K = I + P; bias_ZG: the biases, that of the
    forget gate with its 1; projection_ZDP and clips: None where there is none.
    """

    kernel_ZKG: Tensor
    bias_ZG: Tensor
    projection_ZDP: Tensor | None
    cell_clip: float | None
    proj_clip: float | None


def tanh(x: Tensor, out: Tensor) -> Tensor:
    """Write tanh(x) = 2 sigmoid(2 x) - 1 to `out` and return it.

    torch's tanh takes four times as long as its sigmoid; the difference is a rounding at 1.
    """
    return torch.mul(x, 2, out=out).sigmoid_().mul_(2).sub_(1)


def lstmp_plain(
    weights: Weights, x_TZBI: Tensor, h_ZBP: Tensor, c_ZBD: Tensor, rows: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one layer step by step; arguments and results as `kernels.lstmp`."""
    outputs, B, projection_ZDP = [], h_ZBP.shape[1], weights.projection_ZDP
    x_TZBI, h_ZBP, c_ZBD = map(_with_whole_rows, (x_TZBI, h_ZBP, c_ZBD))
    for x_ZBI, left in zip(x_TZBI, rows, strict=True):
        n = whole_rows(left)
        xh_ZnK = torch.cat([x_ZBI[:, :n], h_ZBP[:, :n]], dim=-1)
        gates_ZnG = torch.baddbmm(weights.bias_ZG.unsqueeze(1), xh_ZnK, weights.kernel_ZKG).to(c_ZBD.dtype)
        i, j, f, o = gates_ZnG.chunk(4, dim=-1)
        c_ZnD = _clip(torch.sigmoid(f) * c_ZBD[:, :n] + torch.sigmoid(i) * torch.tanh(j), weights.cell_clip)
        m_ZnD = (torch.sigmoid(o) * torch.tanh(c_ZnD)).to(xh_ZnK.dtype)
        h_ZnP = m_ZnD if projection_ZDP is None else _clip(torch.bmm(m_ZnD, projection_ZDP), weights.proj_clip)
        h_ZBP, c_ZBD = _with_rest(h_ZnP[:, :left], h_ZBP), _with_rest(c_ZnD[:, :left], c_ZBD)
        outputs.append(h_ZBP[:, :B])
    return torch.stack(outputs), h_ZBP[:, :B], c_ZBD[:, :B]


def _with_whole_rows(x: Tensor) -> Tensor:
    """Return x (..., n, width) with rows of zeros below, up to `whole_rows(n)`."""
    missing = whole_rows(x.shape[-2]) - x.shape[-2]
    return nn.functional.pad(x, (0, 0, 0, missing)) if missing > 0 else x


def _clip(x: Tensor, limit: float | None) -> Tensor:
    return x if limit is None else x.clamp(-limit, limit)


def _with_rest(new: Tensor, old: Tensor) -> Tensor:
    """Return the rows of `new`, then those of `old` that have ended and keep their values."""
    n = new.shape[1]
    return new if n == old.shape[1] else torch.cat([new, old[:, n:]], dim=1)
