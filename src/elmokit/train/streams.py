"""Packed streams: B rows of sentences without gaps, cut into windows of U places, the same for both directions.

A sentence w1..wn takes n + 1 places. Forward reads <S> w1..wn and predicts w1..wn </S>; backward reads </S> wn..w1 and
predicts wn..w1 <S> (formats.md 3.12). Both directions pass the same sentence in the same places, so a window's distinct
words are spelled and convolved once for the two of them.

Every row starts at a sentence's start, as bilm-tf's do: from an empty state, `<S>` is the only word whose sequel the
network has learnt. A window is a function of (epoch, step): nothing has to be replayed to continue a run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from elmokit.text import Ids
from elmokit.train.corpus import BEGIN, END, UNK, Corpus

# Where there is nothing to predict: after the end of a row that is shorter than another.
NO_TARGET = -1


@dataclass(frozen=True)
class _Order:
    """Sentences of an epoch in order, (S,); the place after each one's last, (S,); the place where each row starts and
    the one after the last row's end, (B + 1,)."""

    sentences: NDArray[np.int64]
    ends: NDArray[np.int64]
    bounds: NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """One training batch. chars_UC: spelling of the distinct words; words_TZB: which of them is read where;
    targets_TZB: softmax row to predict there, or NO_TARGET. int64."""

    chars_UC: Ids
    words_TZB: NDArray[np.int64]
    targets_TZB: NDArray[np.int64]

    @property
    def n_places(self) -> int:
        """Predictions of one direction."""
        return int((self.targets_TZB[:, 0] != NO_TARGET).sum())


class Streams:
    """The windows of one corpus, sentences shuffled anew each epoch from `seed` (None: document order)."""

    def __init__(self, corpus: Corpus, *, rows: int, unroll: int, seed: int | None) -> None:
        self.corpus, self.rows, self.unroll, self.seed = corpus, rows, unroll, seed
        self._epoch: tuple[int, _Order] | None = None

    @property
    def steps(self) -> int:
        """Whole windows of an epoch; the few places left over are others in every epoch."""
        return self.corpus.n_places // self.rows // self.unroll

    def window(self, epoch: int, step: int) -> Window:
        """Return window `step` (0-based, below `steps`) of an epoch, with a target everywhere.

        A row goes on for as long as its equal share of the text is, so at its end it may run a little into the next
        one's first sentence, or stop a little short of it.
        """
        order = self._order(epoch)
        return self._window(order, order.bounds[:-1] + self._offsets(step))

    def all_windows(self) -> Iterator[Window]:
        """Yield the windows of the first epoch that predict every place exactly once; rows end where the next begin."""
        order = self._order(0)
        starts, stops = order.bounds[:-1], order.bounds[1:]
        for step in range(-(-int((stops - starts).max()) // self.unroll)):
            place_TB = starts + self._offsets(step)
            window = self._window(order, place_TB)
            targets_TZB = np.where((place_TB < stops)[:, None], window.targets_TZB, NO_TARGET)
            yield replace(window, targets_TZB=targets_TZB)

    def _offsets(self, step: int) -> NDArray[np.int64]:
        return np.arange(step * self.unroll, (step + 1) * self.unroll)[:, None]

    def _window(self, order: _Order, place_TB: NDArray[np.int64]) -> Window:
        """Return what is read and predicted at these places; after the last one comes the first again."""
        place_TB = place_TB % self.corpus.n_places
        rank_TB = np.searchsorted(order.ends, place_TB, side="right")
        sentence_TB = order.sentences[rank_TB]
        start_TB = self.corpus.starts[sentence_TB]
        n_TB = self.corpus.starts[sentence_TB + 1] - start_TB
        k_TB = place_TB - (order.ends[rank_TB] - n_TB - 1)  # place within the sentence, 0..n
        forward, backward = (self._direction(start_TB, n_TB, k_TB, backward=z) for z in (False, True))
        inputs, targets = (np.stack(pair, axis=1) for pair in zip(forward, backward, strict=True))
        return self._spelled(inputs, targets)

    def _order(self, epoch: int) -> _Order:
        if self._epoch is None or self._epoch[0] != epoch:
            sentences = np.arange(self.corpus.n_sentences)
            if self.seed is not None:
                sentences = np.random.default_rng((self.seed, epoch)).permutation(sentences)
            ends = np.cumsum((np.diff(self.corpus.starts) + 1)[sentences])
            shares = np.arange(1, self.rows) * self.corpus.n_places // self.rows
            inner = ends[np.searchsorted(ends, shares)]
            self._epoch = (epoch, _Order(sentences, ends, np.concatenate([[0], inner, ends[-1:]])))
        return self._epoch[1]

    def _direction(
        self, start: NDArray[np.int64], n: NDArray[np.int64], k: NDArray[np.int64], *, backward: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the word numbers read and predicted at place k of sentences of n words."""
        first, last = (END, BEGIN) if backward else (BEGIN, END)
        read = start + (n - k if backward else k - 1)
        predicted = start + (n - 1 - k if backward else k)
        final = len(self.corpus.tokens) - 1
        inputs = np.where(k == 0, first, self.corpus.tokens[read.clip(0, final)])
        targets = np.where(k == n, last, self.corpus.tokens[predicted.clip(0, final)])
        return inputs.astype(np.int64), targets.astype(np.int64)

    def _spelled(self, words_TZB: NDArray[np.int64], targets_TZB: NDArray[np.int64]) -> Window:
        distinct, places = np.unique(words_TZB, return_inverse=True)
        targets_TZB = np.where(targets_TZB < self.corpus.n_vocabulary, targets_TZB, UNK)
        return Window(self.corpus.chars[distinct], places.reshape(words_TZB.shape), targets_TZB)
