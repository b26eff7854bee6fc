"""What points are coloured by: groups with names.

Axes: N points, D width of a vector.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from elmokit.clusters import group
from elmokit.errors import MissingExtra, TextError, require
from elmokit.labelled import LabelledText
from elmokit.layers import called
from elmokit.plot.points import Points

By = Literal["pos", "label", "cluster", "layer", "sentence", "word"]
# More groups than these cannot be told apart; the rarest of them become one.
MOST_GROUPS = 18
OTHER = "other"
# Sentences that each get a group of their own; more are coloured in as many stretches of the text.
_SENTENCES = 10
_WORDS_OF_NAME = 5


@dataclass(frozen=True)
class Colouring:
    """names: of the groups, in the order of a legend; group_N: the place in `names` of each point's group.

    in_order: whether the names are steps of one thing, such as layers, and not kinds.
    """

    by: str
    names: list[str]
    group_N: NDArray[np.int64]
    in_order: bool = False


def by_names(by: str, names: Sequence[str]) -> Colouring:
    """Return groups of equal names, the most frequent first; the rarest of too many become "other"."""
    counts = Counter(names)
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    if len(ranked) <= MOST_GROUPS:
        kept = ranked
    else:  # a name that is "other" itself goes with them
        kept = [*[name for name in ranked if name != OTHER][: MOST_GROUPS - 1], OTHER]
    at = {name: place for place, name in enumerate(kept)}
    return Colouring(by, kept, np.array([at.get(name, len(kept) - 1) for name in names], np.int64))


def by_word(points: Points) -> Colouring:
    """Return groups of the same word, upper and lower case together."""
    return by_names("word", [word.casefold() for word in points.words()])


def by_label(points: Points, text: LabelledText) -> Colouring:
    """Return groups of the same label: of the word where words have labels, else of the sentence."""
    if text.word_labels is not None:
        if points.whole:
            raise TextError(
                "the labels are of words, and the points are sentences; colour by another thing, or draw words"
            )
        labels = text.word_labels
        return by_names("label", [labels[s][p] for s, p in zip(points.sentence_N, points.place_N, strict=True)])
    if text.labels is None:
        raise TextError("the text has no labels; name their column with --label, or colour by another thing")
    return by_names("label", [text.labels[s] for s in points.sentence_N])


def by_part_of_speech(points: Points, text: LabelledText, *, pipeline: str) -> Colouring:
    """Return groups of the same universal part of speech: of the file (CoNLL-U), else of spaCy's pipeline."""
    if points.whole:
        raise TextError("sentences have no part of speech; colour by another thing, or draw words")
    tags = text.parts_of_speech or _tagged(points, pipeline)
    return by_names("part of speech", [tags[s][p] for s, p in zip(points.sentence_N, points.place_N, strict=True)])


def _tagged(points: Points, pipeline: str) -> dict[int, list[str]]:
    """Return the universal parts of speech of all sentences with points, by spaCy."""
    spacy: Any = require("spacy", extra="spacy")
    tokens: Any = require("spacy.tokens", extra="spacy")
    try:
        nlp = spacy.load(pipeline)
    except OSError:
        raise MissingExtra(
            f"parts of speech need the spaCy pipeline {pipeline!r}, which is not here: run  python -m spacy download "
            f"{pipeline}  , name another with --spacy, or give a CoNLL-U file"
        ) from None
    numbers = np.unique(points.sentence_N).tolist()
    docs = nlp.pipe(tokens.Doc(nlp.vocab, words=points.sentences[n]) for n in numbers)
    return {n: [token.pos_ or "X" for token in doc] for n, doc in zip(numbers, docs, strict=True)}


def by_cluster(vectors_ND: NDArray[np.floating], *, n: int | None, seed: int) -> Colouring:
    """Return groups of like vectors (`clusters.group`), named with the silhouette of all."""
    found = group(vectors_ND, n, seed=seed)
    score = "" if found.silhouette is None else f", silhouette {found.silhouette:.2f}"
    return Colouring(f"cluster{score}", [f"cluster {k + 1}" for k in range(found.n)], found.labels_N)


def by_sentence(points: Points) -> Colouring:
    """Return a group for each sentence, or, of more than ten, ten stretches of the text in its order."""
    numbers, group_N = np.unique(points.sentence_N, return_inverse=True)
    if len(numbers) <= _SENTENCES:
        names = [f"{n + 1}: {' '.join(points.sentences[n][:_WORDS_OF_NAME])}" for n in numbers]
        return Colouring("sentence", names, group_N)
    stretches = np.array_split(numbers, _SENTENCES)
    starts = np.array([stretch[0] for stretch in stretches])
    names = [f"{stretch[0] + 1:,} to {stretch[-1] + 1:,}" for stretch in stretches]
    return Colouring("sentence", names, np.searchsorted(starts, points.sentence_N, "right") - 1, in_order=True)


def by_layer(names: Sequence[str], n_points: int) -> Colouring:
    """Return a group for each layer, of points that stand layer after layer."""
    return Colouring("layer", [called(name) for name in names], np.repeat(np.arange(len(names)), n_points), True)
