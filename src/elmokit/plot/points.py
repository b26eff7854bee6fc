"""What a map shows: words in their sentences, or whole sentences, and their vectors.

Axes: N points, V views (choices of layers), L layers, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from elmokit.errors import MismatchError, TextError

if TYPE_CHECKING:
    from elmokit.model import Elmo

# The place of a point that is a whole sentence.
WHOLE = -1


@dataclass(frozen=True)
class Points:
    """Words in their sentences. sentence_N, place_N: the sentence of each point, and where in it the word stands.

    A point that is a whole sentence has the place -1.
    """

    sentences: list[list[str]]
    sentence_N: NDArray[np.int64]
    place_N: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sentence_N)

    @property
    def whole(self) -> bool:
        """Whether the points are sentences."""
        return bool((self.place_N == WHOLE).all())

    @cached_property
    def n_words(self) -> int:
        """The number of different words, upper and lower case together."""
        return len({word.casefold() for word in self.words()})

    def words(self) -> list[str]:
        """Return the word of each point; of a sentence all of it."""
        return [self.word(point) for point in range(len(self))]

    def word(self, point: int) -> str:
        """Return the word of one point."""
        sentence, place = self.sentences[self.sentence_N[point]], int(self.place_N[point])
        return " ".join(sentence) if place == WHOLE else sentence[place]

    def around(self, point: int, width: int) -> str:
        """Return a point's word with up to `width` words at each side; of a sentence as many words from its start."""
        sentence, place = self.sentences[self.sentence_N[point]], int(self.place_N[point])
        start, end = (0, 2 * width + 1) if place == WHOLE else (max(0, place - width), place + width + 1)
        inside = " ".join(sentence[start:end])
        return ("… " if start else "") + inside + (" …" if end < len(sentence) else "")


def choose(
    sentences: Sequence[Sequence[str]],
    *,
    words: Sequence[str] = (),
    whole: bool = False,
    most: int = 50_000,
    seed: int = 0,
) -> Points:
    """Return the points of sentences: all words; of `words`, all uses in upper or lower case; or `whole` sentences.

    Of more than `most` points so many are drawn at random, in the order of the text. Raises `TextError` where there is
    none.
    """
    if whole and words:
        raise MismatchError("points are sentences or uses of words; choose one")
    wanted = {word.casefold() for word in words}
    kept = [list(sentence) for sentence in sentences]
    places = [
        (s, p)
        for s, sentence in enumerate(kept)
        for p, word in ([(WHOLE, "")] if whole else enumerate(sentence))
        if sentence and (not wanted or word.casefold() in wanted)
    ]
    if not places:
        names = " or ".join(repr(word) for word in words) or "any word"
        raise TextError(f"the text has no use of {names}; expected the word itself, as a token")
    if len(places) > most:
        drawn = np.random.default_rng(seed).choice(len(places), most, replace=False)
        places = [places[n] for n in np.sort(drawn)]
    sentence_N, place_N = np.array(places, np.int64).T
    return Points(kept, sentence_N, place_N)


def vectors(elmo: Elmo, points: Points, weights_VL: NDArray[np.floating], *, progress: bool) -> NDArray[np.float32]:
    """Return the vectors of points, (V, N, D): for each view, its weights of the layers. Sentences are means."""
    numbers, starts = np.unique(points.sentence_N, return_index=True)
    stacks = elmo.embed((points.sentences[n] for n in numbers), layers="all")
    found_VND = np.empty((len(weights_VL), len(points), elmo.dim), np.float32)
    weights_VL = weights_VL.astype(np.float32)
    shown = tqdm(stacks, "embedding", len(numbers), unit=" sentences", leave=False, delay=1, disable=not progress)
    for stack_LTD, start, end in zip(shown, starts, [*starts[1:], len(points)], strict=True):
        place = points.place_N[start:end]
        rows_LND = stack_LTD.mean(1, keepdims=True) if place[0] == WHOLE else stack_LTD[:, place]
        found_VND[:, start:end] = np.tensordot(weights_VL, rows_LND, 1)
    return found_VND
