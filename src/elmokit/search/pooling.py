"""How the vectors of the words of a text become one: weighted by rarity, and without what all texts have in common.

Axes: N texts, T words of one, D width of a vector, K common directions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Vectors: TypeAlias = NDArray[np.float32]
Words: TypeAlias = Sequence[str]


@dataclass(frozen=True)
class Idf:
    """How much a word tells: ln(N / n) of the N texts that were counted, of which n hold it; unseen words count as one.

    texts: N. frequencies: n of each word, in lower case.
    """

    texts: int
    frequencies: Mapping[str, int]

    @classmethod
    def of(cls, texts: Iterable[Words]) -> Idf:
        """Count the texts that hold each word."""
        seen = [{word.lower() for word in text} for text in texts]
        return cls(len(seen), Counter(word for words in seen for word in words))

    def __call__(self, words: Words) -> Vectors:
        """Return the weights of words, (T,); those of a text in which each is everywhere are all 1."""
        counts = [self.frequencies.get(word.lower(), 1) for word in words]
        weights = np.array([math.log(max(1, self.texts) / count) for count in counts], np.float32)
        return weights if weights.any() else np.ones_like(weights)


@dataclass(frozen=True)
class Common:
    """What pooled vectors have in common: their mean (D,) and the directions (K, D) along which they differ most.

    Vectors of contextual models share a large part, which says nothing about a text and drowns what does (Mu and
    Viswanath 2018, https://arxiv.org/abs/1702.01417, who leave out the mean and the first D/100 directions).
    """

    mean_D: Vectors
    directions_KD: Vectors

    @classmethod
    def of(cls, vectors_ND: Vectors, *, directions: int) -> Common:
        """Compute the mean of vectors of length 1, and the directions, of which there are fewer than vectors."""
        vectors_ND = unit(vectors_ND)
        mean_D = vectors_ND.mean(0)
        centred_ND = (vectors_ND - mean_D).astype(np.float64)
        found = np.linalg.eigh(centred_ND.T @ centred_ND).eigenvectors  # the largest value is last
        kept = found[:, ::-1][:, : min(directions, max(0, len(vectors_ND) - 1))]
        return cls(mean_D, np.ascontiguousarray(kept.T, np.float32))

    def without(self, vectors: Vectors) -> Vectors:
        """Return vectors (..., D), brought to length 1, with nothing of this left in them."""
        centred = unit(vectors) - self.mean_D
        return (centred - centred @ self.directions_KD.T @ self.directions_KD).astype(np.float32)


@dataclass(frozen=True)
class Pooling:
    """From the vectors of words to one vector of length 1, whose product with another is their cosine.

    idf: the weights of words, all the same without it. common: what is taken off.
    """

    idf: Idf | None = None
    common: Common | None = None

    def mean(self, words: Words, vectors_TD: Vectors) -> Vectors:
        """Return the weighted mean of the vectors of a text, (D,); zeros for no words."""
        if not len(words):
            return np.zeros(vectors_TD.shape[-1], np.float32)
        return np.average(vectors_TD, axis=0, weights=self.idf(words) if self.idf else None).astype(np.float32)

    def __call__(self, words: Words, vectors_TD: Vectors) -> Vectors:
        """Return the vector of a text, (D,)."""
        return self.finish(self.mean(words, vectors_TD))

    def finish(self, vectors: Vectors) -> Vectors:
        """Return pooled vectors (..., D) as they are compared."""
        return unit(self.common.without(vectors) if self.common else vectors)


def unit(vectors: Vectors) -> Vectors:
    """Scale vectors (..., D) to length 1; zeros stay zeros."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
