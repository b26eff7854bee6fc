"""A map: points, where they lie in each view, and what they are coloured by.

Axes: N points, V views, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elmokit.errors import MismatchError, expect_model, expect_one_of, expect_seed, expect_whole, require
from elmokit.labelled import LabelledText
from elmokit.layers import layer_weights
from elmokit.plot import colouring
from elmokit.plot.colouring import By, Colouring
from elmokit.plot.points import Points, choose, vectors
from elmokit.plot.projection import METHODS, Method, Plane, project
from elmokit.text import listed_sentences, listed_words

if TYPE_CHECKING:
    from elmokit.model import Elmo

ALL_LAYERS = "all layers"
# What parts of speech come from, where the text has none.
PIPELINE = "en_core_web_sm"


class View(NamedTuple):
    """The vectors of the points (N, D), and their places on the plane."""

    vectors_ND: NDArray[np.float32]
    plane: Plane


@dataclass(frozen=True)
class Map:
    """Points with a view for each choice of layers, the one to show first at the front."""

    title: str
    points: Points
    colouring: Colouring
    views: dict[str, View]


def make_map(
    elmo: Elmo,
    text: LabelledText | Sequence[Sequence[str]],
    *,
    words: Sequence[str] = (),
    whole: bool = False,
    by: By | None = None,
    layers: Sequence[str] = ("average",),
    method: Method = "tsne",
    clusters: int | None = None,
    pipeline: str = PIPELINE,
    most: int = 50_000,
    seed: int = 0,
    progress: bool = True,
) -> Map:
    """Embed a text and lay its words, the uses of `words`, or `whole` sentences (means over their tokens) on a plane.

    `by`: what groups are: "pos" (of the text, or of the spaCy pipeline named `pipeline`), "label" (of the text),
    "cluster" (`clusters.group` in the first view, into `clusters` groups), "layer" (all layers in one view),
    "sentence", "word"; without it what the text knows, else words where several are asked for, else clusters.
    `layers`: a view each: "average", "top", "mix" (the trained one), or a layer's number; `method`: as of `project`.
    `most`: beyond it points are drawn at random. The same seed gives the same map.

    Raises `TextError` where nothing is to be shown or the text lacks what `by` needs, `MismatchError`, `MissingExtra`.
    """
    expect_model(elmo)
    expect_one_of(METHODS, method, "method")
    expect_whole(most, "most", least=1)
    words = listed_words(words, "words")
    require("sklearn.decomposition", extra="plot")  # before the work, and before clusters name a smaller extra
    expect_seed(seed)
    text = text if isinstance(text, LabelledText) else LabelledText(listed_sentences(text))
    by = by or _usual(text, words, whole)
    layers = _layers(elmo, layers, by)
    points = choose(
        text.sentences, words=words, whole=whole, most=most // (len(layers) if by == "layer" else 1), seed=seed
    )
    weights_VL = np.array([layer_weights(elmo, layer) for layer in layers])
    vectors_VND = vectors(elmo, points, weights_VL, progress=progress)
    title = _title(points, words)
    if by == "layer":
        colours = colouring.by_layer(layers, len(points))
        points, vectors_VND = _repeated(points, len(layers)), vectors_VND.reshape(1, -1, elmo.dim)
        layers = (ALL_LAYERS,)
    else:
        colours = _colouring(by, points, text, vectors_VND[0], clusters=clusters, pipeline=pipeline, seed=seed)
    planes = (project(one, method, seed=seed, progress=progress) for one in vectors_VND)
    views = {name: View(one, plane) for name, one, plane in zip(layers, vectors_VND, planes, strict=True)}
    return Map(title, points, colours, views)


def _usual(text: LabelledText, words: Sequence[str], whole: bool) -> By:
    if text.labels is not None or (text.word_labels is not None and not whole):
        return "label"
    if text.parts_of_speech is not None and not whole and not words:
        return "pos"
    return "word" if len(words) > 1 else "cluster"


def _layers(elmo: Elmo, layers: Sequence[str], by: By) -> tuple[str, ...]:
    """Return the layers without repetition; to colour by layer all of the model, where not several are named."""
    named = tuple(dict.fromkeys(listed_words(layers, "layers")))
    if not named:
        raise MismatchError("layers: expected at least one, found none")
    return tuple(map(str, range(elmo.n_layers))) if by == "layer" and len(named) < 2 else named


def _colouring(
    by: By,
    points: Points,
    text: LabelledText,
    vectors_ND: NDArray[np.float32],
    *,
    clusters: int | None,
    pipeline: str,
    seed: int,
) -> Colouring:
    if by == "label":
        return colouring.by_label(points, text)
    if by == "pos":
        return colouring.by_part_of_speech(points, text, pipeline=pipeline)
    if by == "cluster":
        return colouring.by_cluster(vectors_ND, n=clusters, seed=seed)
    return colouring.by_sentence(points) if by == "sentence" else colouring.by_word(points)


def _repeated(points: Points, times: int) -> Points:
    return Points(points.sentences, np.tile(points.sentence_N, times), np.tile(points.place_N, times))


def _title(points: Points, words: Sequence[str]) -> str:
    if points.whole:
        return f"{len(points):,} sentences"
    return f"{len(points):,} uses of {' and '.join(words)}" if words else f"{len(points):,} words in context"
