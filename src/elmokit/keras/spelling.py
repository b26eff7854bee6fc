"""Words as arrays that every backend takes: spelled in NumPy before the model, turned into ids within it.

A word of a model that spells in UTF-8 is its bytes, uint8, zeros behind them; of any other model, its ids of
`elmokit.text` plus one, int32. A place without a word is zeros in either. Axes: B sentences, T places, W bytes or ids
that a word is given as, C symbols that it is spelled with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from keras import ops
from numpy.typing import NDArray

from elmokit.errors import MismatchError, expect_iterable, expect_whole
from elmokit.text import (
    BEGIN_SENTENCE_ID,
    BEGIN_WORD_ID,
    END_SENTENCE_ID,
    END_WORD_ID,
    PAD_ID,
    Speller,
    Utf8Speller,
    distinct_words,
)

Tensor: TypeAlias = Any  # of the backend
Sentences: TypeAlias = Sequence[str] | Sequence[Sequence[str]] | NDArray[np.object_] | NDArray[np.str_]


@dataclass(frozen=True)
class Utf8Words:
    """Words as UTF-8 bytes; the ids are computed in the model."""

    speller: Utf8Speller
    dtype = "uint8"

    @property
    def width(self) -> int:
        """Bytes W of a word that the model reads; what is longer is cut."""
        return self.speller.max_characters - 2

    def pack(self, words: Sequence[str]) -> NDArray[np.uint8]:
        """Return the bytes (U, W) of words."""
        content = b"".join(word.encode("utf-8", "ignore")[: self.width].ljust(self.width, b"\0") for word in words)
        return np.frombuffer(content, np.uint8).reshape(-1, self.width)

    def ids(self, bytes_BTW: Tensor) -> Tensor:
        """Return the ids (B, T, C) int32, as `Utf8Speller` has them, of words of up to W bytes."""
        bytes_BTW = ops.cast(bytes_BTW, "int32")[..., : self.width]
        missing = self.width - bytes_BTW.shape[-1]
        bytes_BTC = ops.pad(bytes_BTW, [[0, 0], [0, 0], [1, 1 + missing]])
        k = ops.arange(self.width + 2, dtype="int32")
        begun_BTC = ops.cast(until_last(ops.not_equal(bytes_BTC, 0)), "int32")  # the place before the bytes with them
        end_BT1 = ops.maximum(ops.sum(begun_BTC, axis=-1, keepdims=True), 1)
        ids_BTC = ops.where(k < end_BT1, bytes_BTC, ops.where(ops.equal(k, end_BT1), END_WORD_ID, PAD_ID))
        for mark, symbol in ((self.speller.marks.begin, BEGIN_SENTENCE_ID), (self.speller.marks.end, END_SENTENCE_ID)):
            mark_C = np.pad(self.pack([mark])[0].astype(np.int32), 1)
            is_mark_BT1 = ops.all(ops.equal(bytes_BTC, mark_C), axis=-1, keepdims=True)
            spelled_C = ops.where(ops.equal(k, 1), symbol, ops.where(ops.equal(k, 2), END_WORD_ID, PAD_ID))
            ids_BTC = ops.where(is_mark_BT1, spelled_C, ids_BTC)
        return ops.where(ops.equal(k, 0), BEGIN_WORD_ID, ids_BTC)


@dataclass(frozen=True)
class IdWords:
    """Words as ids plus one: for models that spell by a lexicon."""

    speller: Speller
    dtype = "int32"

    @property
    def width(self) -> int:
        """Ids W of a word."""
        return self.pack([""]).shape[1]

    def pack(self, words: Sequence[str]) -> NDArray[np.int32]:
        """Return the ids plus one, (U, C), of words."""
        return self.speller.spell(words).astype(np.int32) + 1

    def ids(self, words_BTC: Tensor) -> Tensor:
        """Return the ids (B, T, C) int32; zeros where there is no word."""
        return ops.maximum(ops.cast(words_BTC, "int32") - 1, 0)


Words: TypeAlias = Utf8Words | IdWords


def words_of(speller: Speller) -> Words:
    """Return how the words of a model that spells so are given to it."""
    return Utf8Words(speller) if isinstance(speller, Utf8Speller) else IdWords(speller)


def until_last(x: Tensor) -> Tensor:
    """Return true up to the last true along the last axis of x (bool).

    Sums do this in place of maxima, which Keras on torch has none of where an axis is empty.
    """
    return ops.flip(ops.cumsum(ops.cast(ops.flip(x, axis=-1), "int32"), axis=-1), axis=-1) > 0


def packed(words: Words, sentences: Sentences, places: int | None) -> NDArray[np.integer]:
    """Return sentences as one array (B, T, W): strings parted at spaces, or lists of tokens.

    `places`: T, to which longer sentences are cut; the longest sentence has it by default.
    """
    if isinstance(sentences, str):
        raise MismatchError(f"expected sentences, found the string {sentences[:40]!r}; put it into a list")
    expect_iterable(sentences, "sentences", "strings or lists of tokens")
    if places is not None:
        expect_whole(places, "places", least=0)
    lists = [_tokens(number, sentence)[:places] for number, sentence in enumerate(sentences)]
    T = max(map(len, lists), default=0) if places is None else places
    distinct = ["", *distinct_words(lists, words.speller.marks)]
    number = {word: i for i, word in enumerate(distinct)}
    packed_UW = words.pack(distinct)
    packed_BTW = np.zeros((len(lists), T, packed_UW.shape[1]), packed_UW.dtype)
    for row, tokens in zip(packed_BTW, lists, strict=True):
        row[: len(tokens)] = packed_UW[[number[token] for token in tokens]]
    return packed_BTW


def _tokens(number: int, sentence: str | Sequence[str] | NDArray[np.object_]) -> list[str]:
    """Return the tokens; a string, and the row of an array of one string, is parted at spaces."""
    if isinstance(sentence, np.ndarray) and sentence.shape == (1,):
        sentence = sentence[0]
    if not isinstance(sentence, Iterable):  # None and NaN are what frames have for missing texts
        raise MismatchError(f"sentence {number}: expected a string or a list of tokens, found {sentence!r}")
    return [token for token in sentence.split(" ") if token] if isinstance(sentence, str) else list(sentence)
