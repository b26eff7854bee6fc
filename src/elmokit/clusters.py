"""Groups of vectors: k-means on vectors of length 1, into a number that is given or found.

Axes: N vectors, D width of a vector, K groups.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elmokit.errors import MismatchError, expect_whole, require
from elmokit.vectors import unit

# Groups are tried up to this number, where none is given.
_MOST_GROUPS = 8
# The silhouette is measured on so many vectors at most: its time grows with their square.
_MEASURED = 4000
_STARTS = 10
# A number of groups is tried only if they have so many vectors in the mean.
_OF_A_GROUP = 5


class Groups(NamedTuple):
    """labels: (N,) the group of each vector, 0 the largest; silhouettes: of each number of groups that was tried.

    A silhouette is between -1 and 1: how much nearer vectors are to their own group than to the next. It is not defined
    for one group.
    """

    labels_N: NDArray[np.int64]
    silhouettes: dict[int, float]

    @property
    def n(self) -> int:
        """The number of groups."""
        return int(self.labels_N.max()) + 1

    @property
    def silhouette(self) -> float | None:
        """The silhouette of these groups; None for one group, or as many groups as there are vectors."""
        return self.silhouettes.get(self.n)


def group(vectors_ND: NDArray[np.floating], n: int | None = None, *, seed: int = 0) -> Groups:
    """Group vectors by their direction: into `n` groups, or into the number of greatest silhouette.

    Numbers are tried from 2 to 8, or to a fifth of the vectors where these are few; vectors that are all equal but
    for rounding are one group. The same seed gives the same groups. Raises `MismatchError` for no vectors or more
    groups than different vectors.
    """
    if n is not None:
        expect_whole(n, "n")
    if not len(vectors_ND):
        raise MismatchError("there are no vectors to group")
    units_ND = unit(vectors_ND)
    different = len(np.unique(units_ND.round(4), axis=0))
    if n is None:
        largest = min(_MOST_GROUPS, different - 1, max(2, len(units_ND) // _OF_A_GROUP))
        tried = {k: _k_means(units_ND, k, seed) for k in range(2, largest + 1)}
    elif 1 <= n <= different:
        tried = {n: _k_means(units_ND, n, seed)}
    else:
        raise MismatchError(f"expected between 1 and {different} groups, as many vectors are different, found {n}")
    scores = {k: _silhouette(units_ND, labels, seed) for k, labels in tried.items() if 1 < k < len(units_ND)}
    best = max(scores, key=lambda k: scores[k]) if n is None and scores else n or 1
    return Groups(_by_size(tried.get(best, np.zeros(len(units_ND), np.int64))), scores)


def _k_means(units_ND: NDArray[np.floating], k: int, seed: int) -> NDArray[np.int64]:
    cluster: Any = require("sklearn.cluster", extra="sklearn")
    return cluster.KMeans(k, n_init=_STARTS, random_state=seed).fit(units_ND).labels_.astype(np.int64)


def _silhouette(units_ND: NDArray[np.floating], labels_N: NDArray[np.int64], seed: int) -> float:
    metrics: Any = require("sklearn.metrics", extra="sklearn")
    if len(units_ND) > _MEASURED:
        drawn = np.random.default_rng(seed).choice(len(units_ND), _MEASURED, replace=False)
        units_ND, labels_N = units_ND[drawn], labels_N[drawn]
    return float(metrics.silhouette_score(units_ND, labels_N, metric="cosine"))


def _by_size(labels_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the groups anew, the largest first."""
    _, numbers_N, counts_K = np.unique(labels_N, return_inverse=True, return_counts=True)
    ranks_K = np.empty(len(counts_K), np.int64)
    ranks_K[np.argsort(-counts_K, kind="stable")] = np.arange(len(counts_K))
    return ranks_K[numbers_N]
