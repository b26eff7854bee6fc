"""From vectors to places on a plane: principal components, t-SNE (openTSNE), UMAP.

Axes: N points, D width of a vector.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from elmokit.errors import expect_one_of, require
from elmokit.vectors import unit

Method = Literal["tsne", "umap", "pca"]
METHODS: tuple[Method, ...] = ("tsne", "umap", "pca")
# t-SNE and UMAP are given so many principal components: what is left out is mostly noise, and they take less time.
_COMPONENTS = 50
# With fewer different points than these nothing but principal components makes sense.
_FEWEST = 8
_PERPLEXITY = 30
_NEIGHBOURS = 15
_ROUNDS = 50


class Plane(NamedTuple):
    """Places of points (N, 2), the method that found them, and for "pca" the shares of the variance of both axes."""

    xy_N2: NDArray[np.float32]
    method: Method
    variance: tuple[float, float] | None = None


def project(
    vectors_ND: NDArray[np.floating], method: Method = "tsne", *, seed: int = 0, progress: bool = False
) -> Plane:
    """Return places of vectors on a plane, by their direction: vectors are scaled to length 1 first.

    Equal vectors, as a word has them in layer 0, get one place. Fewer than eight different ones are projected on their
    principal components, whatever was asked for. The same seed gives the same places.
    """
    expect_one_of(METHODS, method, "projection")
    units_ND = unit(vectors_ND.astype(np.float32))
    _, first, back_N = np.unique(units_ND.round(4), axis=0, return_index=True, return_inverse=True)
    different_ND, back_N = units_ND[first], back_N.reshape(-1)
    components, variance = _principal(different_ND, seed)
    if method == "pca" or len(first) < _FEWEST:
        return Plane(components[back_N, :2], "pca", variance)
    found = _tsne(components, seed, progress) if method == "tsne" else _umap(components, seed)
    return Plane(found.astype(np.float32)[back_N], method)


def _principal(units_ND: NDArray[np.float32], seed: int) -> tuple[NDArray[np.float32], tuple[float, float] | None]:
    """Return at least two and at most 50 principal components, and the shares of the first two if there are any."""
    decomposition: Any = require("sklearn.decomposition", extra="plot")
    n = min(_COMPONENTS, *units_ND.shape)
    if len(units_ND) < 2:
        return np.zeros((len(units_ND), 2), np.float32), None
    pca = decomposition.PCA(n, random_state=seed)
    found = pca.fit_transform(units_ND).astype(np.float32)
    shares = [*pca.explained_variance_ratio_, 0.0]
    return np.pad(found, ((0, 0), (0, max(0, 2 - n)))), (float(shares[0]), float(shares[1]))


def _tsne(components: NDArray[np.float32], seed: int, progress: bool) -> NDArray[np.floating]:
    opentsne: Any = require("openTSNE", extra="plot")
    perplexity = min(_PERPLEXITY, (len(components) - 1) / 3)
    with tqdm(total=750, desc="t-SNE", unit=" rounds", leave=False, delay=1, disable=not progress) as bar:

        def more(*_: Any) -> None:
            bar.update(_ROUNDS)

        found = opentsne.TSNE(
            perplexity=perplexity, random_state=seed, callbacks=more, callbacks_every_iters=_ROUNDS
        ).fit(components)
    return np.asarray(found)


def _umap(components: NDArray[np.float32], seed: int) -> NDArray[np.floating]:
    umap: Any = require("umap", extra="plot")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few points, and of its own libraries
        fitted = umap.UMAP(n_neighbors=min(_NEIGHBOURS, len(components) - 1), random_state=seed, n_jobs=1)
        return np.asarray(fitted.fit_transform(components))
