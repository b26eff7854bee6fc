"""Arithmetic of vectors that more than one feature needs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def unit(vectors: NDArray[np.floating[Any]]) -> NDArray[Any]:
    """Return vectors (..., D) scaled to length 1, in their own type; zeros, and what rounds to them, stay near zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: NDArray[Any] = vectors / np.maximum(norms, max(1e-12, np.finfo(norms.dtype).tiny))
    return scaled
