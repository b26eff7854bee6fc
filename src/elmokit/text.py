"""Text: read it, split it into sentences of tokens, spell words as ids, put sentences into batches.

Axes: U distinct words of a batch, B sentences, T places, C symbols of a word.
"""

from __future__ import annotations

import gzip
import lzma
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from elmokit.errors import FormatError, TextError

BEGIN_SENTENCE, END_SENTENCE, UNKNOWN = "<S>", "</S>", "<UNK>"

# Character ids of the AllenNLP family, without the +1 that its files count for a padding row (formats.md 3.4).
BEGIN_SENTENCE_ID, END_SENTENCE_ID, BEGIN_WORD_ID, END_WORD_ID, PAD_ID = 256, 257, 258, 259, 260
N_CHARACTERS = 261

Ids = NDArray[np.integer]


# ---------------------------------------------------------------- reading


def read_sentences(path: str | Path, *, tokenize: bool = False) -> Iterator[list[str]]:
    """Yield the sentences of a UTF-8 text file, or of standard input for "-", as lists of tokens.

    One sentence a line, tokens parted by white space; an empty line is an empty list, so that the n-th item is always
    line n. With `tokenize` the lines are raw text: each is split into sentences and tokens (syntok), and blank lines
    give nothing. Raises `TextError` naming file and line for what cannot be read.
    """
    lines = read_lines(path)
    return _segment(lines) if tokenize else (line.split() for line in lines)


def read_lines(path: str | Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file, or standard input for "-", without line ends (LF or CRLF; no other breaks)."""
    with _open_binary(path) as stream:
        for number, raw in enumerate(stream, start=1):
            line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            try:
                yield line.rstrip(b"\r\n").decode("utf-8")
            except UnicodeDecodeError as error:
                byte = len(raw) - len(line) + error.start + 1
                raise TextError(
                    f"{_name(path)}, line {number}, byte {byte}: expected UTF-8, found byte 0x{raw[byte - 1]:02x}; "
                    "convert the text first, e.g. with  iconv -t utf-8"
                ) from None


_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}


@contextmanager
def _open_binary(path: str | Path) -> Iterator[BinaryIO]:
    opener = _OPENERS.get(Path(path).suffix, open)
    try:
        with nullcontext(sys.stdin.buffer) if str(path) == "-" else opener(path, "rb") as stream:
            yield stream
    except IsADirectoryError:
        raise TextError(f"{_name(path)} is a directory, expected a text file; name the files inside it") from None
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise TextError(f"{_name(path)} cannot be read ({reason}); check the file") from None


def _name(path: str | Path) -> str:
    return "standard input" if str(path) == "-" else str(path)


def _segment(lines: Iterable[str]) -> Iterator[list[str]]:
    from syntok import segmenter  # loaded only for raw text: it costs 0.1 s

    for line in lines:
        for paragraph in segmenter.analyze(line):
            for sentence in paragraph:
                # White space of no width at the end of a line is an empty token to syntok.
                if tokens := [token.value for token in sentence if token.value]:
                    yield tokens


# ---------------------------------------------------------------- spelling


class Speller(Protocol):
    """How a checkpoint turns words into ids."""

    def spell(self, words: Sequence[str]) -> Ids:
        """Return ids (U, C) of `words`."""


@dataclass(frozen=True)
class Utf8Speller:
    """UTF-8 bytes between begin-word and end-word marks, as AllenNLP and bilm-tf spell.

    `max_characters` counts the marks: of 50, 48 are bytes, and what is longer is cut, inside a character if need be.
    """

    max_characters: int = 50

    def spell(self, words: Sequence[str]) -> NDArray[np.uint16]:
        """Return ids (U, C) uint16 in 0..260. The literal words <S> and </S> become the sentence marks."""
        chars_UC = np.full((len(words), self.max_characters), PAD_ID, np.uint16)
        chars_UC[:, 0] = BEGIN_WORD_ID
        for row, word in zip(chars_UC, words, strict=True):
            symbols = self._symbols(word)
            row[1 : len(symbols) + 1] = symbols
            row[len(symbols) + 1] = END_WORD_ID
        return chars_UC

    def _symbols(self, word: str) -> Sequence[int] | NDArray[np.uint8]:
        if word == BEGIN_SENTENCE:
            return [BEGIN_SENTENCE_ID]
        if word == END_SENTENCE:
            return [END_SENTENCE_ID]
        return np.frombuffer(word.encode("utf-8", "ignore")[: self.max_characters - 2], np.uint8)


@dataclass(frozen=True)
class LexiconSpeller:
    """One id a word, from a vocabulary: for models without characters and for cached word vectors."""

    vocabulary: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raise `FormatError` for a vocabulary that cannot spell every text: it lacks <UNK> or a sentence mark."""
        for needed in (BEGIN_SENTENCE, END_SENTENCE, UNKNOWN):
            if needed not in self._index:
                raise FormatError(f"the vocabulary ({len(self._index):,} words) lacks {needed}; add it with its vector")

    @cached_property
    def _index(self) -> dict[str, int]:
        """Word -> row; the first row of a word that stands twice."""
        return {word: i for i, word in reversed(list(enumerate(self.vocabulary)))}

    def spell(self, words: Sequence[str]) -> NDArray[np.int64]:
        """Return ids (U, 1) int64; a word that is not in the vocabulary gets the id of <UNK>."""
        unknown = self._index[UNKNOWN]
        return np.array([self._index.get(word, unknown) for word in words], np.int64).reshape(-1, 1)


# ---------------------------------------------------------------- batching


@dataclass(frozen=True)
class Batch:
    """Sentences ready for the network, each distinct word spelled once; <S> and </S> are places like any other.

    chars_UC: ids of the distinct words; words_BT int64: which distinct word stands where (0 beyond a sentence's end);
    lengths_B int64: places of each sentence, so two more than it has tokens.
    """

    chars_UC: Ids
    words_BT: NDArray[np.int64]
    lengths_B: NDArray[np.int64]


def make_batch(sentences: Sequence[Sequence[str]], speller: Speller) -> Batch:
    """Put sentences, which may be empty, between <S> and </S> into a `Batch`."""
    lengths_B = np.array([len(sentence) + 2 for sentence in sentences], np.int64)
    words_BT = np.zeros((len(sentences), max(lengths_B, default=0)), np.int64)
    index: dict[str, int] = {}
    for row, sentence in zip(words_BT, sentences, strict=True):
        row[: len(sentence) + 2] = [
            index.setdefault(word, len(index)) for word in (BEGIN_SENTENCE, *sentence, END_SENTENCE)
        ]
    return Batch(speller.spell(list(index)), words_BT, lengths_B)


def plan_batches(lengths: Sequence[int], *, sentences: int, places: int) -> Iterator[list[int]]:
    """Yield lists of sentence numbers: longest first, at most `sentences` each and about `places` places with padding.

    A sentence longer than `places` is a batch of its own.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch and (len(batch) == sentences or (len(batch) + 1) * (lengths[batch[0]] + 2) > places):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
