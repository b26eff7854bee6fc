"""The recurrence as a plain loop: what every other kernel is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Products of fewer rows are computed in another order and round otherwise (seen with MKL, one and two threads: below 4
# and below 8 rows). Never computing fewer keeps a sentence's vectors the same in any batch; a test says how closely.
LEAST_ROWS = 8


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
    outputs, B = [], h_ZBP.shape[1]
    h_ZBP, c_ZBD = with_least_rows(h_ZBP), with_least_rows(c_ZBD)
    for t, left in enumerate(rows):
        n = max(left, LEAST_ROWS)
        gates_ZnG = torch.baddbmm(with_least_rows(gates_TZBG[t, :, :n]), h_ZBP[:, :n], kernel_ZPG)
        i, j, f, o = gates_ZnG.chunk(4, dim=-1)
        c_ZnD = _clip(torch.sigmoid(f) * c_ZBD[:, :n] + torch.sigmoid(i) * torch.tanh(j), cell_clip)
        m_ZnD = torch.sigmoid(o) * torch.tanh(c_ZnD)
        h_ZnP = m_ZnD if projection_ZDP is None else _clip(torch.bmm(m_ZnD, projection_ZDP), proj_clip)
        h_ZBP, c_ZBD = _with_rest(h_ZnP[:, :left], h_ZBP), _with_rest(c_ZnD[:, :left], c_ZBD)
        outputs.append(h_ZBP[:, :B])
    return torch.stack(outputs), h_ZBP[:, :B], c_ZBD[:, :B]


def with_least_rows(x: Tensor) -> Tensor:
    """Return x (..., n, width) with rows of zeros below, up to `LEAST_ROWS`, where it has fewer."""
    missing = LEAST_ROWS - x.shape[-2]
    return nn.functional.pad(x, (0, 0, 0, missing)) if missing > 0 else x


def _clip(x: Tensor, limit: float | None) -> Tensor:
    return x if limit is None else x.clamp(-limit, limit)


def _with_rest(new: Tensor, old: Tensor) -> Tensor:
    """Return the rows of `new`, then those of `old` that have ended and keep their values."""
    n = new.shape[1]
    return new if n == old.shape[1] else torch.cat([new, old[:, n:]], dim=1)
