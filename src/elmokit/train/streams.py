"""Packed streams: B rows of sentences without gaps, cut into windows of U places, the same for both directions.

A sentence w1..wn takes n + 1 places. Forward reads <S> w1..wn and predicts w1..wn </S>; backward reads </S> wn..w1 and
predicts wn..w1 <S>. Both directions pass the same sentence in the same places, so a window's distinct
words are spelled and convolved once for the two of them.

A row starts at a sentence's start, as bilm-tf's do: from an empty state, `<S>` is the only word whose sequel the
network has learnt. Only where the next sentence is far, in texts of long sequences, training starts a row inside of
one: rows would coincide, and what lies between them would never be read.

A text is read in stretches, a few blocks each: which blocks come together and how their sentences follow each other is
drawn anew for every epoch. A window is a function of its step: nothing has to be replayed to continue a run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from elmokit.text import Ids, Speller
from elmokit.train.corpus import Corpus, Rows, Stretch, stretch_of

# Where there is nothing to predict: after the end of a row that is shorter than another.
NO_TARGET = -1
# Blocks of a stretch: some four million tokens, which one process can hold and number in a second.
STRETCH_BLOCKS = 16

# A row starts at the next sentence if that takes no more than this part of its share of the text.
_NEAR = 8

_BEGIN, _END = 0, 1  # numbers of the sentence marks in a stretch


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


class Packed:
    """The windows of one stretch, its sentences in the order of `generator` (None: as they stand)."""

    def __init__(
        self, stretch: Stretch, *, rows: int, unroll: int, generator: np.random.Generator | None = None
    ) -> None:
        self.stretch, self.rows, self.unroll = stretch, rows, unroll
        S = stretch.n_sentences
        self.sentences = np.arange(S) if generator is None else generator.permutation(S)
        # The place after each sentence's last one; the place where each row starts, and the one after the last row.
        self.ends = np.cumsum((np.diff(stretch.starts) + 1)[self.sentences])
        shares = np.arange(1, rows) * stretch.n_places // rows
        inner = self.ends[np.searchsorted(self.ends, shares)]
        self.bounds = np.concatenate([[0], inner, self.ends[-1:]])
        self.starts = np.concatenate([[0], self._near(inner, shares, generator)])

    def window(self, step: int, part: slice = slice(None)) -> Window:
        """Return window `step` (0-based) of the rows of `part`, with a target everywhere.

        A row goes on for as long as its equal share of the text is, so at its end it may run a little into the next
        one's first sentence, or stop a little short of it.
        """
        return self._window(self.starts[part] + self._offsets(step))

    def all_windows(self) -> Iterator[Window]:
        """Yield the windows that predict every place exactly once; rows end where the next begin."""
        starts, stops = self.bounds[:-1], self.bounds[1:]
        for step in range(-(-int((stops - starts).max()) // self.unroll)):
            place_TB = starts + self._offsets(step)
            window = self._window(place_TB)
            targets_TZB = np.where((place_TB < stops)[:, None], window.targets_TZB, NO_TARGET)
            yield replace(window, targets_TZB=targets_TZB)

    def _near(
        self, inner: NDArray[np.int64], shares: NDArray[np.int64], generator: np.random.Generator | None
    ) -> NDArray[np.int64]:
        """Return where training starts the rows after the first: at the sentence that is next, or inside of one.

        The place inside moves by less than a window from epoch to epoch, so that the few places behind the last whole
        window of a row are not always the same. No two rows start at one place if there are as many places as rows.
        """
        share = self.stretch.n_places // self.rows
        near = share // _NEAR
        most = max(0, min(self.unroll, share - near) - 1)
        shift = 0 if generator is None else int(generator.integers(-most, most + 1))
        return np.where(inner - shares > near, shares + shift, inner)

    def _offsets(self, step: int) -> NDArray[np.int64]:
        return np.arange(step * self.unroll, (step + 1) * self.unroll)[:, None]

    def _window(self, place_TB: NDArray[np.int64]) -> Window:
        """Return what is read and predicted at these places; after the last one comes the first again."""
        place_TB = place_TB % self.stretch.n_places
        rank_TB = np.searchsorted(self.ends, place_TB, side="right")
        sentence_TB = self.sentences[rank_TB]
        start_TB = self.stretch.starts[sentence_TB]
        n_TB = self.stretch.starts[sentence_TB + 1] - start_TB
        k_TB = place_TB - (self.ends[rank_TB] - n_TB - 1)  # place within the sentence, 0..n
        forward, backward = (self._direction(start_TB, n_TB, k_TB, backward=z) for z in (False, True))
        inputs, targets = (np.stack(pair, axis=1) for pair in zip(forward, backward, strict=True))
        distinct, places = np.unique(inputs, return_inverse=True)
        return Window(self.stretch.chars[distinct], places.reshape(inputs.shape), self.stretch.rows[targets])

    def _direction(
        self, start: NDArray[np.int64], n: NDArray[np.int64], k: NDArray[np.int64], *, backward: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the word numbers read and predicted at place k of sentences of n words."""
        first, last = (_END, _BEGIN) if backward else (_BEGIN, _END)
        read = start + (n - k if backward else k - 1)
        predicted = start + (n - 1 - k if backward else k)
        tokens = self.stretch.tokens
        inputs = np.where(k == 0, first, tokens[read.clip(0, len(tokens) - 1)])
        targets = np.where(k == n, last, tokens[predicted.clip(0, len(tokens) - 1)])
        return inputs.astype(np.int64), targets.astype(np.int64)


class Streams:
    """The windows of a corpus; sentences are shuffled anew each epoch from `seed` (None: document order)."""

    def __init__(
        self, corpus: Corpus, head_rows: Rows, speller: Speller, *, rows: int, unroll: int, seed: int | None
    ) -> None:
        self.corpus, self.head_rows, self.speller = corpus, head_rows, speller
        self.rows, self.unroll, self.seed = rows, unroll, seed
        self._steps: list[NDArray[np.int64]] = []  # of each epoch: whole windows up to the end of each stretch
        self._packed: tuple[tuple[int, int], Packed] | None = None

    def total_steps(self, epochs: float) -> int:
        """Return the windows of so many epochs; the few places left over in each stretch are others in every epoch."""
        whole = int(epochs)
        if self._are_alike:
            steps = whole * self._epoch_steps(0)
        else:
            steps = sum(self._epoch_steps(epoch) for epoch in range(whole))
        return steps + (round((epochs - whole) * self._epoch_steps(whole)) if epochs > whole else 0)

    def epochs_at(self, step: int) -> float:
        """Return how many epochs have been read before `step`."""
        epoch, step = self._epoch_of(step)
        return epoch + step / max(1, self._epoch_steps(epoch))

    def window(self, step: int, part: slice = slice(None)) -> Window:
        """Return the window of a step, counted through all epochs, or only its rows of `part`."""
        epoch, step = self._epoch_of(step)
        ends = self._ends(epoch)
        number = int(np.searchsorted(ends, step, side="right"))
        before = int(ends[number - 1]) if number else 0
        return self._stretch(epoch, number).window(step - before, part)

    def all_windows(self) -> Iterator[Window]:
        """Yield the windows that predict every place once, stretch after stretch, as they stand."""
        for numbers in self._groups(0):
            yield from self._pack(numbers, None).all_windows()

    @property
    def _are_alike(self) -> bool:
        """Whether all epochs have as many windows, as those of a text that is one stretch."""
        return len(self.corpus.places) <= STRETCH_BLOCKS

    def _epoch_of(self, step: int) -> tuple[int, int]:
        if self._are_alike:
            return divmod(step, self._epoch_steps(0) or sys.maxsize)
        epoch = 0
        while step >= self._epoch_steps(epoch) > 0:
            step -= self._epoch_steps(epoch)
            epoch += 1
        return epoch, step

    def _epoch_steps(self, epoch: int) -> int:
        return int(self._ends(epoch)[-1])

    def _ends(self, epoch: int) -> NDArray[np.int64]:
        epoch = 0 if self._are_alike else epoch
        while len(self._steps) <= epoch:
            groups = self._groups(len(self._steps))
            places = np.array([self.corpus.places[numbers].sum() for numbers in groups])
            self._steps.append(np.cumsum(places // self.rows // self.unroll))
        return self._steps[epoch]

    def _groups(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the blocks of each stretch of an epoch."""
        n = len(self.corpus.places)
        order = np.arange(n) if self.seed is None else self._generator(epoch).permutation(n)
        return np.array_split(order, -(-n // STRETCH_BLOCKS))

    def _stretch(self, epoch: int, number: int) -> Packed:
        if self._packed is None or self._packed[0] != (epoch, number):
            generator = None if self.seed is None else self._generator(epoch, number)
            self._packed = ((epoch, number), self._pack(self._groups(epoch)[number], generator))
        return self._packed[1]

    def _pack(self, numbers: NDArray[np.int64], generator: np.random.Generator | None) -> Packed:
        blocks = (self.corpus.block(number) for number in numbers.tolist())
        stretch = stretch_of(blocks, self.head_rows, self.speller)
        return Packed(stretch, rows=self.rows, unroll=self.unroll, generator=generator)

    def _generator(self, *key: int) -> np.random.Generator:
        assert self.seed is not None
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))
