"""Which rows of a batch end after which step: the longest come first, so those that are left are the first ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

# A number of steps, and the first row that ends after it and the first that does not.
End: TypeAlias = tuple[int, int, int]


def ended(rows: Sequence[int], B: int) -> list[End]:
    """Return which of B rows end after how many steps, in the order of the rows; rows: how many are there at each."""
    lasting = [B, *rows, 0]
    steps = reversed(range(len(rows) + 1))
    return [(t, lasting[t + 1], lasting[t]) for t in steps if lasting[t + 1] < lasting[t]]


def last_outputs(y_TZBP: Tensor, h_ZBP: Tensor, ends: Sequence[End]) -> Tensor:
    """Return the last output of each row, (Z, B, P); h_ZBP: what a row without any step had before."""
    return torch.cat([(y_TZBP[t - 1] if t else h_ZBP)[:, first:end] for t, first, end in ends], dim=1)
