"""From texts to the vectors of their words, as the settings of an index ask for them, and what its pooling learns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from typing import Literal

import numpy as np

from elmokit.model import Elmo, Layers
from elmokit.network import as_array
from elmokit.search.pooling import Idf, Pooling, Vectors, Whitening
from elmokit.search.settings import Settings, Unit
from elmokit.search.texts import Sentence
from elmokit.word_vectors import WordVectors

# Weights of words, and whether their vectors are whitened first.
POOLS: dict[str, tuple[Literal["mean", "idf"], bool]] = {
    "mean": ("mean", False),
    "idf": ("idf", False),
    "white-mean": ("mean", True),
    "white-idf": ("idf", True),
}
# What served best where it was judged (docs/search.md): layers and pool.
DEFAULTS: dict[Unit, tuple[Layers, str]] = {
    "sentence": (0, "white-idf"),
    "passage": (0, "white-idf"),
    "word": ("average", "white-mean"),
}
# Texts that words are counted in, and tokens of the first of them, whose vectors tell how to whiten.
SAMPLE = 100_000
_SAMPLE_TOKENS = 50_000
# Texts whose words are spelled together.
_TOGETHER = 1_000
# Words of the sample for each value of a vector, below which they cannot tell.
_ENOUGH = 10


def embedded(
    elmo: Elmo, settings: Settings, texts: Sequence[Sequence[Sentence]], *, memory: WordVectors | None = None
) -> Iterator[Vectors]:
    """Yield the vectors of the words of each text, (T, D), those of its sentences one behind the other."""
    if settings.layers == 0:
        yield from _spelled(texts, memory or elmo.word_vectors())
        return
    sentences = (sentence for text in texts for sentence in text)
    vectors = elmo.embed(sentences, layers=settings.layers, state=settings.state, words=memory)  # type: ignore[arg-type]
    for text in texts:
        stacks = list(islice(vectors, len(text)))
        yield np.concatenate(stacks) if stacks else np.zeros((0, settings.width), np.float32)


def _spelled(texts: Sequence[Sequence[Sentence]], memory: WordVectors) -> Iterator[Vectors]:
    """Yield layer 0, which knows no context, so that nothing but spelling has to be computed: both halves are equal."""
    for start in range(0, len(texts), _TOGETHER):
        window = [[token for sentence in text for token in sentence] for text in texts[start : start + _TOGETHER]]
        distinct = list(dict.fromkeys(token for tokens in window for token in tokens))
        index, vectors_UP = memory.learn(distinct)
        for tokens in window:
            half_TP = as_array(vectors_UP[[index[token] for token in tokens]])
            yield np.concatenate([half_TP, half_TP], axis=1)


def fitted(elmo: Elmo, settings: Settings, texts: Sequence[Sequence[Sentence]]) -> Pooling:
    """Return what the pooling of an index learns from a sample."""
    weighting, whitened = POOLS[settings.pool]
    joined = [[token for sentence in text for token in sentence] for text in texts]
    idf = Idf.of(joined) if weighting == "idf" and joined else None
    few = _few(joined)
    words = [token for text in joined[:few] for token in text]
    if not whitened or len(words) < _ENOUGH * settings.width:
        return Pooling(idf)
    stacks = list(embedded(elmo, settings, texts[:few]))
    return Pooling(idf, Whitening.of(words, np.concatenate(stacks))).centred(joined[:few], stacks)


def _few(texts: Sequence[Sentence]) -> int:
    """Return how many of the first texts have the tokens that are enough to learn from."""
    ends = accumulate(map(len, texts))
    return next((number for number, end in enumerate(ends, start=1) if end >= _SAMPLE_TOKENS), len(texts))
