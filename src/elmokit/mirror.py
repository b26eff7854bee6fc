"""How sentences become two streams and come back: each is read as written, and mirrored at its own end.

Axes: B sentences, T places, Z directions (0 forward, 1 backward), M places of a batch without padding, D cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Streams:
    """Index arithmetic in NumPy.

    Sentences are sorted longest first, so that those still there at a step are the first rows; the backward stream
    starts at each sentence's own end.
    """

    def __init__(self, words_BT: NDArray[np.int64], lengths_B: NDArray[np.int64]) -> None:
        T, B = words_BT.shape[1], len(lengths_B)
        self.order_B = np.argsort(-lengths_B, kind="stable")
        sorted_B = lengths_B[self.order_B]
        t = np.arange(T)
        mirror_BT = np.where(t < sorted_B[:, None], sorted_B[:, None] - 1 - t, t)
        words_BT = words_BT[self.order_B]
        self.words_TZB = np.stack([words_BT, np.take_along_axis(words_BT, mirror_BT, 1)]).transpose(2, 0, 1).copy()
        self.rows_T = np.searchsorted(-sorted_B, -t, side="left").tolist()
        row_B = np.argsort(self.order_B)  # where sentence b stands in the streams
        b_M = np.repeat(row_B, lengths_B)
        t_M = np.arange(lengths_B.sum()) - np.repeat(np.cumsum(lengths_B) - lengths_B, lengths_B)
        back_M = np.repeat(lengths_B, lengths_B) - 1 - t_M
        self.places_MZ = np.stack([t_M * 2 * B + b_M, back_M * 2 * B + B + b_M], axis=1)


def side_by_side(y_TZBD: Tensor, rows: Sequence[int]) -> Tensor:
    """Put both directions' outputs for a place, forward then backward, where either stream reads it: (T, Z, B, 2D)."""
    T, _, B, _ = y_TZBD.shape
    t_T1 = torch.arange(T, device=y_TZBD.device).unsqueeze(1)
    lengths_B = (torch.tensor(rows, device=y_TZBD.device).unsqueeze(1) > torch.arange(B, device=y_TZBD.device)).sum(0)
    mirror_TB = torch.where(t_T1 < lengths_B, lengths_B - 1 - t_T1, t_T1)
    forward, backward = y_TZBD.unbind(1)
    mirrored = [torch.gather(y, 0, mirror_TB.unsqueeze(-1).expand_as(y)) for y in (forward, backward)]
    return torch.stack([torch.cat([forward, mirrored[1]], -1), torch.cat([mirrored[0], backward], -1)], dim=1)
