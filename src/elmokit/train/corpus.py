"""A text as numbers: every distinct word once with its spelling, tokens as indices, on disk and mapped into memory.

Words are numbered so that the vocabulary comes first, in its order: number = softmax row for the words in it, and every
number beyond it is an unknown word that still has its own spelling.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from elmokit.errors import TextError
from elmokit.text import Ids, Speller

# Softmax rows of the specials, which begin every vocabulary.
BEGIN, END, UNK = 0, 1, 2


@dataclass(frozen=True)
class Corpus:
    """Sentences as word numbers.

    tokens (N,) int32: word numbers, one sentence after the other; starts (S + 1,) int64: where each sentence begins,
    and N; chars (W, C): spelling of each word number; n_vocabulary V: numbers below it are softmax rows.
    """

    tokens: NDArray[np.int32]
    starts: NDArray[np.int64]
    chars: Ids
    n_vocabulary: int

    @property
    def n_sentences(self) -> int:
        """Number of sentences S."""
        return len(self.starts) - 1

    def target_counts(self) -> NDArray[np.int64]:
        """Return how often each softmax row is a target in one epoch of both directions, (V,) int64."""
        numbers = np.where(self.tokens < self.n_vocabulary, self.tokens, UNK)
        counts = 2 * np.bincount(numbers, minlength=self.n_vocabulary)
        counts[[BEGIN, END]] += self.n_sentences
        return counts

    @property
    def n_places(self) -> int:
        """Predictions of one epoch in one direction: every token and one sentence mark a sentence."""
        return len(self.tokens) + self.n_sentences


def encode(
    sentences: Iterable[Sequence[str]], vocabulary: Sequence[str], words: Iterable[str], speller: Speller, folder: Path
) -> Corpus:
    """Number a text into a file under `folder` and return it mapped: in memory are 8 bytes a sentence, not the tokens.

    `words`: all distinct words of the text, in any fixed order. Empty sentences are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = {word: i for i, word in enumerate(vocabulary)}
    for word in words:
        index.setdefault(word, len(index))
    lengths = _write_tokens(sentences, index, folder / "tokens.int32")
    if not len(lengths):
        raise TextError("the text holds no sentence; expected one tokenised sentence a line")
    tokens = np.memmap(folder / "tokens.int32", np.int32, "r")
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return Corpus(tokens, starts, speller.spell(list(index)), len(vocabulary))


def _write_tokens(sentences: Iterable[Sequence[str]], index: dict[str, int], path: Path) -> NDArray[np.int64]:
    """Write the numbers of all tokens; return the sentences' lengths."""
    lengths = [np.empty(0, np.int64)]
    with path.open("wb") as file:
        for block in _blocks(sentences, 10_000):
            lengths.append(np.array([len(sentence) for sentence in block]))
            file.write(np.array([index[word] for sentence in block for word in sentence], np.int32).tobytes())
    return np.concatenate(lengths)


def _blocks(sentences: Iterable[Sequence[str]], size: int) -> Iterator[list[Sequence[str]]]:
    block = []
    for sentence in sentences:
        if sentence:
            block.append(sentence)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block
