"""Text: spell words as ids, put sentences into batches.

Axes: U distinct words of a batch, B sentences, T places, C symbols of a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import NamedTuple, Protocol, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from elmokit.errors import FormatError, MismatchError, expect, expect_iterable, shown

BEGIN_SENTENCE, END_SENTENCE, UNKNOWN = "<S>", "</S>", "<UNK>"

# Character ids of the AllenNLP family, without the +1 that its files count for a padding row.
BEGIN_SENTENCE_ID, END_SENTENCE_ID, BEGIN_WORD_ID, END_WORD_ID, PAD_ID = 256, 257, 258, 259, 260
N_CHARACTERS = 261

# The symbols of a lexicon of characters that are no character of a word (the sentence marks are there too).
BEGIN_WORD, END_WORD, PAD = "<bow>", "<eow>", "<pad>"

Ids = NDArray[np.integer]
Symbols: TypeAlias = Sequence[int] | NDArray[np.uint8]
Chars = TypeVar("Chars", bound=Ids)


# ---------------------------------------------------------------- spelling


class Marks(NamedTuple):
    """The words that stand for the ends of a sentence and for what a lexicon lacks."""

    begin: str = BEGIN_SENTENCE
    end: str = END_SENTENCE
    unknown: str = UNKNOWN


MARKS = Marks()


class Speller(Protocol):
    """How a checkpoint turns words into ids."""

    @property
    def marks(self) -> Marks:
        """What stands at the ends of a sentence."""

    def spell(self, words: Sequence[str]) -> Ids:
        """Return ids (U, C) of `words`."""


@dataclass(frozen=True)
class Utf8Speller:
    """UTF-8 bytes between begin-word and end-word marks, as AllenNLP and bilm-tf spell.

    `max_characters` counts the marks: of 50, 48 are bytes, and what is longer is cut, inside a character if need be.
    """

    max_characters: int = 50
    marks: Marks = MARKS

    def spell(self, words: Sequence[str]) -> NDArray[np.uint16]:
        """Return ids (U, C) uint16 in 0..260. The literal words <S> and </S> become the sentence marks."""
        chars_UC = np.full((len(words), self.max_characters), PAD_ID, np.uint16)
        return _filled(chars_UC, [self._symbols(word) for word in words], begin=BEGIN_WORD_ID, end=END_WORD_ID)

    def _symbols(self, word: str) -> Symbols:
        if word == self.marks.begin:
            return [BEGIN_SENTENCE_ID]
        if word == self.marks.end:
            return [END_SENTENCE_ID]
        return np.frombuffer(word.encode("utf-8", "ignore")[: self.max_characters - 2], np.uint8)


@dataclass(frozen=True)
class CodePointSpeller:
    """Code points between begin-word and end-word marks, as rows of a lexicon of the characters that a model knows.

    The lexicon holds, beside characters, <bow> and <eow> for the ends of a word, the sentence marks, what stands for a
    character that it lacks, and in its last row <pad>. `max_characters` counts <bow> and <eow>.
    """

    characters: tuple[str, ...]
    max_characters: int
    marks: Marks = MARKS

    def __post_init__(self) -> None:
        """Raise `FormatError` for a lexicon that cannot spell every word."""
        _check_lexicon(self._index, (*self.marks, BEGIN_WORD, END_WORD), "lexicon of characters")
        if self.characters[-1] != PAD:
            raise FormatError(f"the lexicon of characters ends with {self.characters[-1]!r}, expected {PAD}")

    @cached_property
    def _index(self) -> dict[str, int]:
        return _rows(self.characters)

    def spell(self, words: Sequence[str]) -> NDArray[np.int32]:
        """Return ids (U, C) int32. The literal words for the sentence marks become these marks."""
        chars_UC = np.full((len(words), self.max_characters), len(self.characters) - 1, np.int32)
        begin, end = self._index[BEGIN_WORD], self._index[END_WORD]
        return _filled(chars_UC, [self._symbols(word) for word in words], begin=begin, end=end)

    def _symbols(self, word: str) -> Symbols:
        if word in (self.marks.begin, self.marks.end):
            return [self._index[word]]
        unknown = self._index[self.marks.unknown]
        return [self._index.get(character, unknown) for character in word[: self.max_characters - 2]]


@dataclass(frozen=True)
class LexiconSpeller:
    """One id a word, from a vocabulary: for words that come from a table.

    `longest`: a word is looked up by its first so many characters; None for all of them.
    """

    vocabulary: tuple[str, ...]
    marks: Marks = MARKS
    longest: int | None = None

    def __post_init__(self) -> None:
        """Raise `FormatError` for a vocabulary that cannot spell every text: it lacks <UNK> or a sentence mark."""
        _check_lexicon(self._index, self.marks, "vocabulary")

    @cached_property
    def _index(self) -> dict[str, int]:
        return _rows(self.vocabulary)

    def spell(self, words: Sequence[str]) -> NDArray[np.int64]:
        """Return ids (U, 1) int64; a word that is not in the vocabulary gets the id of <UNK>."""
        unknown = self._index[self.marks.unknown]
        known = (word if word in self.marks else word[: self.longest] for word in words)
        return np.array([self._index.get(word, unknown) for word in known], np.int64).reshape(-1, 1)


@dataclass(frozen=True)
class WordAndCharacterSpeller:
    """A word's row in a vocabulary, then its characters."""

    words: LexiconSpeller
    characters: Utf8Speller | CodePointSpeller

    @property
    def marks(self) -> Marks:
        """See `Speller.marks`."""
        return self.words.marks

    def spell(self, words: Sequence[str]) -> NDArray[np.int64]:
        """Return ids (U, 1 + C) int64."""
        return np.hstack([self.words.spell(words), self.characters.spell(words)])


def _filled(chars_UC: Chars, words: Sequence[Symbols], *, begin: int, end: int) -> Chars:
    """Write the symbols of each word between its marks into rows of padding, and return these."""
    chars_UC[:, 0] = begin
    for row, symbols in zip(chars_UC, words, strict=True):
        row[1 : len(symbols) + 1] = symbols
        row[len(symbols) + 1] = end
    return chars_UC


def _rows(lexicon: Sequence[str]) -> dict[str, int]:
    """Return symbol -> row; the last row of a symbol that stands twice, as the older tools take it."""
    return {symbol: i for i, symbol in enumerate(lexicon)}


def _check_lexicon(index: dict[str, int], needed: Iterable[str], what: str) -> None:
    for symbol in needed:
        if symbol not in index:
            size = f"{len(index):,} {'words' if what == 'vocabulary' else 'symbols'}"
            raise FormatError(f"the {what} ({size}) lacks {symbol}; add it with its vector")


# ---------------------------------------------------------------- batching


@dataclass(frozen=True)
class Batch:
    """Sentences ready for the network, each distinct word spelled once; the sentence marks are places like any other.

    chars_UC: ids of the distinct words; words_BT int64: which distinct word stands where (0 beyond a sentence's end);
    lengths_B int64: places of each sentence, so two more than it has tokens.
    """

    chars_UC: Ids
    words_BT: NDArray[np.int64]
    lengths_B: NDArray[np.int64]


def make_batch(sentences: Sequence[Sequence[str]], speller: Speller) -> Batch:
    """Put sentences, which may be empty, between the sentence marks into a `Batch`."""
    words = distinct_words(sentences, speller.marks)
    index = {word: number for number, word in enumerate(words)}
    return Batch(speller.spell(words), *places(sentences, speller.marks, index))


# What has a length and can be gone through, and yet is no list.
_UNORDERED = (set, frozenset, dict)


def check_sentence(sentence: object, number: int) -> None:
    """Raise `MismatchError` for what is no list of tokens, naming the sentence by its number."""
    if isinstance(sentence, str):
        found = f"the string {sentence[:40]!r}"
        raise MismatchError(f"sentence {number}: expected a list of tokens, found {found}; split it")
    listed = isinstance(sentence, Sized) and isinstance(sentence, Iterable)
    if not listed or isinstance(sentence, _UNORDERED) or getattr(sentence, "ndim", 1) != 1:
        found = f"{shown(sentence)} ({type(sentence).__name__})"
        raise MismatchError(f"sentence {number}: expected a list of tokens, found {found}; leave it out")
    for place, token in enumerate(cast("Iterable[object]", sentence)):
        if not isinstance(token, str):
            found = f"{shown(token)} ({type(token).__name__}) at place {place}"
            raise MismatchError(f"sentence {number}: expected tokens as strings, found {found}")


def listed_sentences(sentences: object) -> list[list[str]]:
    """Return sentences as lists of tokens. Raises `MismatchError` for what is none."""
    expect_iterable(sentences, "sentences", "lists of tokens")
    return [_listed(sentence, number) for number, sentence in enumerate(cast("Iterable[object]", sentences))]


def _listed(sentence: object, number: int) -> list[str]:
    check_sentence(sentence, number)
    return list(cast("Iterable[str]", sentence))


def listed_words(words: object, name: str) -> list[str]:
    """Return words as a list; a string, which would be one of letters, is refused. Raises `MismatchError`."""
    if isinstance(words, str):
        raise MismatchError(f"{name}: expected words, found the string {words[:40]!r}; put it into a list")
    expect_iterable(words, name, "words")
    listed = list(cast("Iterable[str]", words))
    for word in listed:
        expect(str, word, name, "words as strings")
    return listed


def distinct_words(sentences: Iterable[Sequence[str]], marks: Marks) -> list[str]:
    """Return the sentence marks and the words of the sentences, each once, in the order in which they come.

    Raises `MismatchError` for a sentence that is no list of words, or a word that is no string.
    """
    try:
        words = list(dict.fromkeys(chain((marks.begin, marks.end), *sentences)))
    except TypeError:  # a sentence that is none, or a word that cannot be compared
        words = []
    if not words or not all(isinstance(word, str) for word in words):
        for number, sentence in enumerate(sentences):
            check_sentence(sentence, number)
    return words


def places(
    sentences: Sequence[Sequence[str]], marks: Marks, index: Mapping[str, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return `words_BT` and `lengths_B` of a `Batch`, with the numbers that `index` gives to words."""
    lengths_B = np.array([len(sentence) + 2 for sentence in sentences], np.int64)
    words_BT = np.zeros((len(sentences), max(lengths_B, default=0)), np.int64)
    for row, sentence in zip(words_BT, sentences, strict=True):
        row[: len(sentence) + 2] = [index[word] for word in (marks.begin, *sentence, marks.end)]
    return words_BT, lengths_B


# Rows that keep a processor's matrix products busy: with fewer, reading the weights takes longer than multiplying.
_BUSY_ROWS = 32


def plan_batches(lengths: Sequence[int], *, sentences: int, most: int, most_of_few: int) -> Iterator[list[int]]:
    """Yield lists of sentence numbers: longest first, at most `sentences` each and about `most` places with padding.

    Batches of fewer than 32 sentences may have `most_of_few` places. A sentence that is longer is a batch of its own.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        limit = most_of_few if len(batch) < _BUSY_ROWS else most
        if batch and (len(batch) == sentences or (len(batch) + 1) * (lengths[batch[0]] + 2) > limit):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
