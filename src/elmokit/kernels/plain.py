"""The recurrence as a plain loop: what every other kernel is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def lstmp_plain(
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
    """Run the recurrence step by step; arguments and results as `kernels.lstmp`."""
    outputs = []
    for t, n in enumerate(rows):
        gates_ZnG = torch.baddbmm(gates_TZBG[t, :, :n], h_ZBP[:, :n], kernel_ZPG)
        i, j, f, o = gates_ZnG.chunk(4, dim=-1)
        c_ZnD = _clip(torch.sigmoid(f) * c_ZBD[:, :n] + torch.sigmoid(i) * torch.tanh(j), cell_clip)
        m_ZnD = torch.sigmoid(o) * torch.tanh(c_ZnD)
        h_ZnP = m_ZnD if projection_ZDP is None else _clip(torch.bmm(m_ZnD, projection_ZDP), proj_clip)
        h_ZBP, c_ZBD = _with_rest(h_ZnP, h_ZBP), _with_rest(c_ZnD, c_ZBD)
        outputs.append(h_ZBP)
    return torch.stack(outputs), h_ZBP, c_ZBD


def _clip(x: Tensor, limit: float | None) -> Tensor:
    return x if limit is None else x.clamp(-limit, limit)


def _with_rest(new: Tensor, old: Tensor) -> Tensor:
    """Return the rows of `new`, then those of `old` that have ended and keep their values."""
    n = new.shape[1]
    return new if n == old.shape[1] else torch.cat([new, old[:, n:]], dim=1)
