"""How the vectors of words become those that are compared: whitened, weighted by rarity, averaged.

Axes: N words or texts, T words of one text, D width of a vector.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from elmokit.vectors import unit

Vectors: TypeAlias = NDArray[np.float32]
Words: TypeAlias = Sequence[str]

# Directions along which words vary less than this share of the most are not stretched further.
_FLOOR = 1e-4
# Texts whose vectors of length 1 differ by no more in any value are as one.
_ALIKE = 1e-3


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
class Whitening:
    """Takes off what the vectors of all words share, and gives every direction the same weight.

    Vectors of contextual models lie in a narrow cone, and few directions, which tell little of what a word means,
    decide about their cosines. Subtracting the mean and dividing by the standard deviation along each principal
    direction is the whitening of Su et al. (2021, https://arxiv.org/abs/2103.15316), here of words, before they are
    averaged; each then has length 1.

    mean_D, matrix_DD: the whitened vector is (x - mean) matrix.
    """

    mean_D: Vectors
    matrix_DD: Vectors

    @classmethod
    def of(cls, words: Words, vectors_ND: Vectors) -> Whitening:
        """Compute it from words and their vectors, every distinct word counting the same however often it is there."""
        counts = Counter(words)
        share_N = np.array([1 / counts[word] for word in words]) / len(counts)
        mean_D = share_N @ vectors_ND
        centred_ND = vectors_ND - mean_D
        values_D, directions_DD = np.linalg.eigh((centred_ND * share_N[:, None]).T @ centred_ND)
        deviations_D = np.sqrt(np.maximum(values_D, _FLOOR * max(values_D[-1], np.finfo(np.float32).tiny)))
        return cls(mean_D.astype(np.float32), (directions_DD / deviations_D).astype(np.float32))

    def __call__(self, vectors: Vectors) -> Vectors:
        """Return whitened vectors (..., D) of length 1."""
        return unit(((vectors - self.mean_D) @ self.matrix_DD).astype(np.float32))


@dataclass(frozen=True)
class Pooling:
    """From the vectors of words to one vector of length 1, whose product with another is their cosine.

    idf: the weights of words, all the same without it. whitening: of the vectors of words, before anything else.
    centre_D: the mean vector of texts, which is taken off; frequent words, which say little, decide about it.
    """

    idf: Idf | None = None
    whitening: Whitening | None = None
    centre_D: Vectors | None = None

    def __call__(self, words: Words, vectors_TD: Vectors) -> Vectors:
        """Return the vector of a text, (D,); zeros for no words."""
        if not len(words):
            return np.zeros(vectors_TD.shape[-1], np.float32)
        weights_T = self.idf(words) if self.idf else np.ones(len(words), np.float32)
        mean_D = unit((weights_T @ self.word(vectors_TD)).astype(np.float32))
        return mean_D if self.centre_D is None else unit(mean_D - self.centre_D)

    def centred(self, texts: Iterable[Words], stacks: Iterable[Vectors]) -> Pooling:
        """Return this pooling with the mean of these texts, whose words have the vectors `stacks`, (T, D) each.

        Texts that are all alike, as one text is to itself, give none: nothing would be left of them.
        """
        pooled = [self(words, vectors_TD) for words, vectors_TD in zip(texts, stacks, strict=True)]
        centre_D: Vectors = np.mean(pooled, axis=0, dtype=np.float32)
        return self if np.allclose(pooled, centre_D, rtol=0, atol=_ALIKE) else replace(self, centre_D=centre_D)

    def word(self, vectors: Vectors) -> Vectors:
        """Return vectors of words (..., D) as they are compared or averaged."""
        return self.whitening(vectors) if self.whitening else vectors
