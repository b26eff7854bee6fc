"""Senses of a word: its uses in texts, grouped by their vectors; of each group the most typical and the nearest words.

Axes: N uses, V words, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from elmokit.clusters import group
from elmokit.errors import TextError, expect, expect_model, expect_seed, expect_whole
from elmokit.layers import layer_weights
from elmokit.text import listed_sentences
from elmokit.vectors import unit

if TYPE_CHECKING:
    from elmokit.model import Elmo

# Words are compared with a sense if they stand at least so often in the sentences that are read: the mean of few uses
# says little of a word.
_OFTEN = 3
# So many sentences without the word are read, to have other words to compare with.
_BACKGROUND = 2_000


class Use(NamedTuple):
    """Where the word stands, sentence and place from 0, and its cosine with the mean of its sense."""

    sentence: int
    place: int
    similarity: float


class Near(NamedTuple):
    """A word, and the cosine of its mean vector with that of a sense, both from the mean of all words."""

    word: str
    similarity: float


@dataclass(frozen=True)
class Sense:
    """Uses that are alike, the most typical first, and the words nearest to them."""

    uses: list[Use]
    nearest: list[Near]


@dataclass(frozen=True)
class Senses:
    """The uses of a word in groups, the largest first.

    silhouette: of these groups, between -1 and 1, None for one group; silhouettes: of each number that was tried.
    """

    word: str
    sentences: list[list[str]]
    senses: list[Sense]
    silhouette: float | None
    silhouettes: dict[int, float]

    @property
    def uses(self) -> list[Use]:
        """All uses, in the order of the text."""
        return sorted(use for sense in self.senses for use in sense.uses)

    def parts(self, use: Use) -> tuple[str, str, str]:
        """Return a use's sentence as what stands before the word, the word, and what follows."""
        words = self.sentences[use.sentence]
        before, after = " ".join(words[: use.place]), " ".join(words[use.place + 1 :])
        return before and before + " ", words[use.place], after and " " + after

    def as_dict(self) -> dict[str, Any]:
        """Return all of it for JSON; each use with its sentence."""
        return {
            "word": self.word,
            "uses": len(self.uses),
            "silhouette": self.silhouette,
            "silhouettes": {str(n): value for n, value in self.silhouettes.items()},
            "senses": [
                {
                    "uses": [{**use._asdict(), "tokens": self.sentences[use.sentence]} for use in sense.uses],
                    "nearest": [near._asdict() for near in sense.nearest],
                }
                for sense in self.senses
            ],
        }


def find_senses(
    elmo: Elmo,
    sentences: Sequence[Sequence[str]],
    word: str,
    *,
    n: int | None = None,
    layer: str = "average",
    nearest: int = 10,
    seed: int = 0,
    progress: bool = True,
) -> Senses:
    """Group the uses of `word` in tokenised sentences, upper or lower case, into `n` groups or the number found best.

    The number found is that of greatest silhouette, from 2 on (`clusters.group`), so one sense must be asked for.
    `layer`: "average", "top", "mix" (the trained one), or a layer's number. `nearest`: so many words are named for each
    sense, of those in the sentences of the word and in 2,000 others. The same seed gives the same senses. Raises
    `TextError` where the word does not stand in the text.
    """
    expect_model(elmo)
    expect(str, word, "word", "a word")
    expect_whole(nearest, "nearest", least=0)
    expect_seed(seed)
    kept = listed_sentences(sentences)
    weights_L = layer_weights(elmo, layer)
    places = [(s, p) for s, sentence in enumerate(kept) for p in _places(sentence, word)]
    if not places:
        raise TextError(f"the text has no use of {word!r}; expected the word itself, as a token")
    read = _sentences_to_read(kept, {s for s, _ in places}, nearest, seed)
    vectors = dict(zip(read, _embed(elmo, [kept[s] for s in read], weights_L, progress), strict=True))
    vectors_ND = np.stack([vectors[s][p] for s, p in places])
    found = group(vectors_ND, n, seed=seed)
    words = _Words([kept[s] for s in read], [vectors[s] for s in read], besides=word) if nearest else None
    senses = [_sense(places, vectors_ND, found.labels_N == k, words, nearest) for k in range(found.n)]
    return Senses(word, kept, senses, found.silhouette, found.silhouettes)


def _places(sentence: Sequence[str], word: str) -> Iterator[int]:
    return (place for place, other in enumerate(sentence) if other.casefold() == word.casefold())


def _sentences_to_read(sentences: list[list[str]], holding: set[int], nearest: int, seed: int) -> list[int]:
    """Return the numbers of the sentences that hold the word, and of some others if words are to be compared."""
    others = [s for s, sentence in enumerate(sentences) if sentence and s not in holding]
    if not nearest:
        others = []
    if len(others) > _BACKGROUND:
        others = np.random.default_rng(seed).choice(others, _BACKGROUND, replace=False).tolist()
    return sorted([*holding, *others])


def _embed(
    elmo: Elmo, sentences: list[list[str]], weights_L: Sequence[float], progress: bool
) -> Iterator[NDArray[np.float32]]:
    found = elmo.embed(sentences, layers=weights_L)
    return iter(tqdm(found, "embedding", len(sentences), unit=" sentences", leave=False, delay=1, disable=not progress))


def _sense(
    places: list[tuple[int, int]],
    vectors_ND: NDArray[np.float32],
    inside_N: NDArray[np.bool_],
    words: _Words | None,
    nearest: int,
) -> Sense:
    mean_D = unit(vectors_ND[inside_N]).mean(0)
    cosines = unit(vectors_ND[inside_N]) @ unit(mean_D)
    numbers = np.flatnonzero(inside_N)
    order = np.argsort(-cosines, kind="stable")
    uses = [
        Use(places[n][0], places[n][1], round(float(cosines[i]), 6)) for i, n in zip(order, numbers[order], strict=True)
    ]
    return Sense(uses, words.nearest(vectors_ND[inside_N].mean(0), nearest) if words else [])


class _Words:
    """Words of sentences with the means of their vectors, from which the mean of all is taken away."""

    def __init__(self, sentences: list[list[str]], vectors: list[NDArray[np.float32]], *, besides: str) -> None:
        folded = [token.casefold() for sentence in sentences for token in sentence]
        words = sorted(set(folded))  # NumPy would take the memory of the longest for each of them
        place = {word: i for i, word in enumerate(words)}
        numbers = np.array([place[word] for word in folded])
        counts = np.bincount(numbers)
        sums_VD = np.zeros((len(words), vectors[0].shape[1]))
        np.add.at(sums_VD, numbers, np.concatenate(vectors))
        means_VD = sums_VD / counts[:, None]
        kept = [i for i, w in enumerate(words) if counts[i] >= _OFTEN and w != besides.casefold() and w.isalpha()]
        self.words = [words[i] for i in kept]
        self.mean_D = means_VD.mean(0)
        self.units_VD = unit(means_VD[kept] - self.mean_D)

    def nearest(self, vector_D: NDArray[np.floating], n: int) -> list[Near]:
        """Return the `n` words nearest to a vector."""
        cosines_V = self.units_VD @ unit(vector_D - self.mean_D)
        return [Near(self.words[i], round(float(cosines_V[i]), 6)) for i in np.argsort(-cosines_V, kind="stable")[:n]]
