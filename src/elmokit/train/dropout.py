"""Dropout that is a function of the update and the row, so that a batch may be cut among processes and parts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class Dropout:
    """Zeros a share `rate` of the values it is called with and scales the others up, as `nn.functional.dropout`.

    What becomes zero follows from `seed`, from how often it was called before, and from a row's number in the whole
    batch, of which this one's first row is number `first_row`. On a GPU, where that would cost more than the update,
    torch draws from its own generator instead, and other rows in other processes draw alike.
    """

    def __init__(self, rate: float, *, seed: int, first_row: int) -> None:
        self.rate, self.seed, self.first_row = rate, seed, first_row
        self._calls = 0

    def __call__(self, x_TZBP: Tensor) -> Tensor:
        if not self.rate:
            return x_TZBP
        if x_TZBP.device.type != "cpu":
            return nn.functional.dropout(x_TZBP, self.rate)
        self._calls += 1
        T, Z, B, P = x_TZBP.shape
        dropped = round(self.rate * 2**16)
        kept_BTZP = torch.from_numpy(self._draws(B, T * Z * P) >= dropped).view(B, T, Z, P)
        return x_TZBP * kept_BTZP.permute(1, 2, 0, 3) * (2**16 / (2**16 - dropped))

    def _draws(self, rows: int, values: int) -> np.ndarray:
        """Return numbers (rows, values) uint16: those of a row are found by counting, not by drawing those before."""
        blocks = -(-values // 16)  # Philox gives 256 bits at a count
        bits = np.random.Philox(key=[self.seed, self._calls])
        bits.advance(self.first_row * blocks)
        return bits.random_raw(rows * blocks * 4).view(np.uint16).reshape(rows, -1)[:, :values]
