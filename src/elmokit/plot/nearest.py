"""Nearest neighbours by cosine, among all points, in the space of the vectors.

Axes: N points, D width of a vector, K neighbours.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elmokit.errors import require
from elmokit.vectors import unit

# Up to so many points every pair is compared; its time grows with their square.
EXACT = 20_000
_ROWS = 1024


class Neighbours(NamedTuple):
    """Of each point the K others most like it, the most similar first, and their cosines: (N, K) each."""

    points_NK: NDArray[np.int32]
    cosines_NK: NDArray[np.float32]


def nearest(vectors_ND: NDArray[np.floating], k: int, *, exact: int = EXACT) -> Neighbours:
    """Return the neighbours of every point but itself; K is less than `k` where there are fewer others.

    More than `exact` points are searched approximately (PyNNDescent).
    """
    units_ND = unit(vectors_ND.astype(np.float32))
    k = min(k, len(units_ND) - 1)
    if k < 1:
        empty = np.empty((len(units_ND), 0))
        return Neighbours(empty.astype(np.int32), empty.astype(np.float32))
    return _compared(units_ND, k) if len(units_ND) <= exact else _approximate(units_ND, k)


def _compared(units_ND: NDArray[np.float32], k: int) -> Neighbours:
    found = [_rows(units_ND, start, k) for start in range(0, len(units_ND), _ROWS)]
    return Neighbours(*(np.concatenate(part) for part in zip(*found, strict=True)))


def _rows(units_ND: NDArray[np.float32], start: int, k: int) -> Neighbours:
    """Return the neighbours of the points from `start` on."""
    cosines_RN = units_ND[start : start + _ROWS] @ units_ND.T
    rows = np.arange(len(cosines_RN))
    cosines_RN[rows, start + rows] = -np.inf
    points_RK = np.argpartition(-cosines_RN, k - 1, axis=1)[:, :k]
    return _sorted(points_RK, np.take_along_axis(cosines_RN, points_RK, 1))


def _approximate(units_ND: NDArray[np.float32], k: int) -> Neighbours:
    pynndescent: Any = require("pynndescent", extra="plot")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own libraries
        index = pynndescent.NNDescent(units_ND, "cosine", n_neighbors=max(30, k + 1), random_state=0, n_jobs=1)
    points_NK, distances_NK = index.neighbor_graph
    others = points_NK != np.arange(len(points_NK))[:, None]
    others &= np.cumsum(others, 1) <= k
    short = others.sum(1) < k  # among many equal points a point may not have found itself
    others[short] = np.arange(points_NK.shape[1]) < k
    shape = (len(points_NK), k)
    return _sorted(points_NK[others].reshape(shape), (1 - distances_NK[others]).reshape(shape))


def _sorted(points_NK: NDArray[np.integer], cosines_NK: NDArray[np.floating]) -> Neighbours:
    order_NK = np.argsort(-cosines_NK, axis=1, kind="stable")
    points_NK = np.take_along_axis(points_NK, order_NK, 1)
    cosines_NK = np.take_along_axis(cosines_NK, order_NK, 1)
    return Neighbours(points_NK.astype(np.int32), cosines_NK.astype(np.float32))
