"""Arithmetic of vectors that more than one feature needs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def unit(vectors: NDArray[np.floating[Any]]) -> NDArray[Any]:
    """Return vectors (..., D) scaled to length 1, in their own type; zeros, and what rounds to them, stay near zero."""
    scaled: NDArray[Any] = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return scaled
