"""Packed streams: B rows of sentences without gaps, cut into windows of U places, the same for both directions.

A sentence w1..wn takes n + 1 places. Forward reads <S> w1..wn and predicts w1..wn </S>; backward reads </S> wn..w1 and
predicts wn..w1 <S> (formats.md 3.12). Both directions pass the same sentence in the same places, so a window's distinct
words are spelled and convolved once for the two of them.

A window is a function of (epoch, step): nothing has to be replayed to continue a run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elmokit.text import Ids
from elmokit.train.corpus import BEGIN, END, UNK, Corpus


@dataclass(frozen=True)
class Window:
    """One training batch. chars_UC: spelling of the distinct words; words_TZB: which of them is read where;
    targets_TZB: softmax row to predict there. int64."""

    chars_UC: Ids
    words_TZB: NDArray[np.int64]
    targets_TZB: NDArray[np.int64]

    @property
    def n_places(self) -> int:
        """Places of one direction, T * B."""
        return self.words_TZB.shape[0] * self.words_TZB.shape[2]


class Streams:
    """The windows of one corpus, sentences shuffled anew each epoch from `seed` (None: document order)."""

    def __init__(self, corpus: Corpus, *, rows: int, unroll: int, seed: int | None) -> None:
        self.corpus, self.rows, self.unroll, self.seed = corpus, rows, unroll, seed
        self.places_per_row = corpus.n_places // rows
        self._epoch: tuple[int, NDArray[np.int64], NDArray[np.int64]] | None = None

    @property
    def steps(self) -> int:
        """Whole windows of an epoch; the few places left over are others in every epoch."""
        return self.places_per_row // self.unroll

    def all_windows(self, epoch: int) -> Iterator[Window]:
        """Yield every window of an epoch, the last one short; fewer than `rows` places are left out."""
        for step in range(-(-self.places_per_row // self.unroll)):
            yield self.window(epoch, step)

    def window(self, epoch: int, step: int) -> Window:
        """Return window `step` (0-based) of an epoch."""
        sentences, ends = self._order(epoch)
        row_B = np.arange(self.rows, dtype=np.int64) * self.places_per_row
        first = step * self.unroll
        place_TB = row_B + np.arange(first, min(first + self.unroll, self.places_per_row))[:, None]
        rank_TB = np.searchsorted(ends, place_TB, side="right")
        sentence_TB = sentences[rank_TB]
        start_TB = self.corpus.starts[sentence_TB]
        n_TB = self.corpus.starts[sentence_TB + 1] - start_TB
        k_TB = place_TB - (ends[rank_TB] - n_TB - 1)  # place within the sentence, 0..n
        forward, backward = (self._direction(start_TB, n_TB, k_TB, backward=z) for z in (False, True))
        inputs, targets = (np.stack(pair, axis=1) for pair in zip(forward, backward, strict=True))
        return self._spelled(inputs, targets)

    def _order(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the sentences of an epoch in order, and the place after the last of each."""
        if self._epoch is None or self._epoch[0] != epoch:
            order = np.arange(self.corpus.n_sentences)
            if self.seed is not None:
                order = np.random.default_rng((self.seed, epoch)).permutation(order)
            self._epoch = (epoch, order, np.cumsum((np.diff(self.corpus.starts) + 1)[order]))
        return self._epoch[1], self._epoch[2]

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
