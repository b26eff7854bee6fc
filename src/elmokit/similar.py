"""Words in their sentences, and those of like use: `most_similar` as of gensim, but for a word in its context.

Axes: N words of all sentences, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from elmokit.errors import MismatchError, expect_model, expect_whole
from elmokit.model import Elmo, Layers, Sentence
from elmokit.text import listed_sentences
from elmokit.vectors import unit


class Neighbour(NamedTuple):
    """A word, its cosine with the one asked about, and where it stands: the sentence and the place in it, from 0."""

    word: str
    similarity: float
    sentence: int
    place: int


class WordsInContext:
    """The words of sentences, each with its vector, in memory: 4 D bytes a word.

    `layers`: as of `Elmo.embed`, one vector a word.
    """

    def __init__(self, elmo: Elmo, sentences: Iterable[Sentence], *, layers: Layers = "average") -> None:
        expect_model(elmo)
        if isinstance(layers, str) and layers == "all":
            raise MismatchError("layers: expected one vector a word, found 'all'; choose a layer or \"average\"")
        self._elmo = elmo
        self._layers: Layers = layers
        self.sentences = listed_sentences(sentences)
        if not any(self.sentences):
            raise MismatchError("expected sentences with words to search in, found none")
        self._places = [(s, p) for s, sentence in enumerate(self.sentences) for p in range(len(sentence))]
        self._vectors_ND = unit(np.concatenate(list(elmo.embed(self.sentences, layers=layers))))

    def __len__(self) -> int:
        return len(self._places)

    def most_similar(self, sentence: Sentence, place: int, *, topn: int = 10) -> list[Neighbour]:
        """Return the `topn` words most like word `place` of a tokenised sentence, the most similar first.

        Where the sentence is one of those searched in, the word itself is left out. Raises `MismatchError` for a place
        that is not there.
        """
        expect_whole(topn, "topn", least=0)
        expect_whole(place, "place")
        (sentence,) = listed_sentences([sentence])
        if not -len(sentence) <= place < len(sentence):
            raise MismatchError(f"the sentence has {len(sentence)} words, counted from 0; there is no word {place}")
        vector = next(iter(self._elmo.embed([sentence], layers=self._layers)))[place]
        cosines_N = self._vectors_ND @ unit(vector)
        itself = {(s, place % len(sentence)) for s, other in enumerate(self.sentences) if other == sentence}
        order = [n for n in _largest(cosines_N, topn + len(itself)) if self._places[n] not in itself]
        return [Neighbour(self._word(n), float(cosines_N[n]), *self._places[n]) for n in order[:topn]]

    def _word(self, n: int) -> str:
        sentence, place = self._places[n]
        return self.sentences[sentence][place]


def _largest(values_N: NDArray[np.float32], n: int) -> Sequence[int]:
    """Return the numbers of the n largest values, the largest first."""
    n = min(n, len(values_N))
    chosen = np.argpartition(-values_N, n - 1)[:n] if n else np.empty(0, np.int64)
    return chosen[np.argsort(-values_N[chosen], kind="stable")].tolist()
