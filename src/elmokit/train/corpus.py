"""A text of any size on disk: blocks of sentences, each with the distinct words that it holds, and their counts.

What is held in memory while it is written does not grow with its length, but for the counts of words, of which the
rarest are dropped where there are millions. Training then reads `Stretch`es: several blocks, numbered and spelled in
memory.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from elmokit.checkpoint import read_json, replace_file
from elmokit.errors import ElmoError, FormatError, MismatchError, OutputError
from elmokit.text import Ids, Speller

# A block is closed when it holds so many tokens; so many sentences are given to a worker at a time.
BLOCK_TOKENS = 1 << 18
# More distinct words than these are not counted: the rarest are dropped.
MOST_WORDS = 4_000_000

Sentence = Sequence[str]
Tokens = NDArray[np.int32]


# ---------------------------------------------------------------- blocks


@dataclass(frozen=True)
class Block:
    """Some thousand sentences. tokens (N,) int32: numbers of words, one sentence after the other; lengths (S,) int64:
    tokens of each sentence, at least one; words: the distinct words, by number."""

    tokens: Tokens
    lengths: NDArray[np.int64]
    words: list[str]

    @classmethod
    def of(cls, sentences: Iterable[Sentence]) -> Block:
        """Number the words of sentences, none of which is empty."""
        index: dict[str, int] = {}
        numbers, lengths = [], []
        for sentence in sentences:
            numbers += [index.setdefault(word, len(index)) for word in sentence]
            lengths.append(len(sentence))
        return cls(np.array(numbers, np.int32), np.array(lengths, np.int64), list(index))

    def counts(self) -> dict[str, int]:
        """Return how often each word stands in it."""
        return dict(zip(self.words, np.bincount(self.tokens, minlength=len(self.words)).tolist(), strict=True))

    def save(self, path: Path) -> None:
        """Write the block as one .npz."""
        spelled = [word.encode("utf-8", "surrogatepass") for word in self.words]
        sizes = np.array([len(word) for word in spelled], np.int32)
        letters = np.frombuffer(b"".join(spelled), np.uint8)
        lengths = self.lengths.astype(np.int32)
        with written(path), path.open("wb") as file:
            np.savez(file, tokens=self.tokens, lengths=lengths, sizes=sizes, letters=letters)

    @classmethod
    def load(cls, path: Path) -> Block:
        """Read what `save` wrote; `FormatError` where it is not whole (the parts of an .npz have checksums)."""
        with readable(path), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            letters, ends = arrays["letters"].tobytes(), np.cumsum(arrays["sizes"], dtype=np.int64).tolist()
            words = [letters[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise([0, *ends])]
            return cls(arrays["tokens"], arrays["lengths"].astype(np.int64), words)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Say of a file of the run that is gone or damaged what it is and what to do."""
    try:
        yield
    except ElmoError:
        raise
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise FormatError(
            f"{path} is not what the run wrote ({error}); start the run again in another folder"
        ) from None


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Say of a file that cannot be written which it is and what to do."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror or error}); the text as numbers takes some 5 bytes a token: "
            "make room, or choose another place with --out"
        ) from None


# ---------------------------------------------------------------- a text on disk


@dataclass(frozen=True)
class Facts:
    """What is known of a text. longest: tokens of its longest sentence; unsplit: tokens that end in a full stop or a
    comma though they are longer, as in text that is not tokenised; shared: sentences that are held-out sentences too.
    """

    sentences: int = 0
    tokens: int = 0
    longest: int = 0
    unsplit: int = 0
    shared: int = 0

    def __add__(self, other: Facts) -> Facts:
        """Return the facts of both texts together."""
        mine, theirs = asdict(self), asdict(other)
        sums = {name: mine[name] + theirs[name] for name in mine}
        return Facts(**{**sums, "longest": max(self.longest, other.longest)})


@dataclass(frozen=True)
class Corpus:
    """The blocks of a text in a folder. places (blocks,) int64: predictions of one direction in each block, which are
    its tokens and one sentence mark a sentence."""

    folder: Path
    places: NDArray[np.int64]
    facts: Facts

    @property
    def n_places(self) -> int:
        """Predictions of one pass in one direction."""
        return int(self.places.sum())

    def block(self, number: int) -> Block:
        """Read one block."""
        return Block.load(_block_file(self.folder, number))

    def save(self) -> None:
        """Write the list of the blocks, last of all: where it is, they are whole."""
        index = {"places": self.places.tolist(), "facts": asdict(self.facts)}
        with written(self.folder / "index.json"):
            replace_file(self.folder / "index.json", json.dumps(index).encode())

    @classmethod
    def load(cls, folder: Path) -> Corpus:
        """Open what `save` wrote; `MismatchError` where it is not there any more."""
        path = folder / "index.json"
        if not path.exists():
            raise MismatchError(
                f"{folder} is gone, which held the text of the run as numbers; start the run again in another folder"
            )
        with readable(path):
            index: Any = read_json(path.read_bytes(), where=str(path))
            return cls(folder, np.array(index["places"], np.int64), Facts(**index["facts"]))


def _block_file(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.npz"


class CorpusWriter:
    """Writes blocks to a folder as text comes in, and counts its words."""

    def __init__(self, folder: Path) -> None:
        with written(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.facts, self.counts = folder, Facts(), Counter[str]()
        self.places: list[int] = []

    def add(self, block: Block, facts: Facts) -> None:
        """Write one block; an empty one is left out."""
        if not len(block.tokens):
            return
        block.save(_block_file(self.folder, len(self.places)))
        self.places.append(len(block.tokens) + len(block.lengths))
        self.facts += facts
        self.counts.update(block.counts())
        if len(self.counts) > MOST_WORDS:
            self.counts = _without_the_rarest(self.counts, MOST_WORDS // 2)

    def close(self) -> Corpus:
        """Write the index and return the corpus."""
        corpus = Corpus(self.folder, np.array(self.places, np.int64), self.facts)
        corpus.save()
        return corpus


def _without_the_rarest(counts: Counter[str], most: int) -> Counter[str]:
    """Keep at most so many words: all that stand more often than the least count that has to go."""
    least = sorted(counts.values(), reverse=True)[most]
    return Counter({word: n for word, n in counts.items() if n > least})


def add_sentences(writer: CorpusWriter, sentences: Iterable[Sentence]) -> None:
    """Write sentences, without the empty ones, as blocks."""
    for piece in pieces(sentence for sentence in sentences if sentence):
        block = Block.of(piece)
        writer.add(block, Facts(len(piece), len(block.tokens), int(block.lengths.max(initial=0))))


def corpus_of(sentences: Iterable[Sentence], folder: Path) -> Corpus:
    """Write sentences as a corpus and return it."""
    writer = CorpusWriter(folder)
    add_sentences(writer, sentences)
    return writer.close()


def pieces(items: Iterable[Any]) -> Iterator[list[Any]]:
    """Cut a text into pieces of about a block, by the length of its lines or lists of tokens."""
    piece: list[Any] = []
    size = 0
    for item in items:
        piece.append(item)
        size += 1 + (len(item) // 6 if isinstance(item, str) else len(item))
        if size >= BLOCK_TOKENS:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


# ---------------------------------------------------------------- a stretch in memory


@dataclass(frozen=True)
class Rows:
    """The rows of a softmax head: of each word, of the sentence marks, and of every other word."""

    index: dict[str, int]
    begin: int
    end: int
    unknown: int

    @classmethod
    def of(cls, vocabulary: Sequence[str], marks: Sequence[str]) -> Rows:
        """Return the rows of a vocabulary; `marks`: begin, end and unknown, which must be in it."""
        index = {word: row for row, word in enumerate(vocabulary)}
        return cls(index, *(index[mark] for mark in marks))

    def target_counts(self, counts: Counter[str], sentences: int) -> NDArray[np.int64]:
        """Return how often each row is a target in one pass of both directions, (V,)."""
        rows = np.zeros(len(self.index), np.int64)
        for word, n in counts.items():
            rows[self.index.get(word, self.unknown)] += 2 * n
        rows[[self.begin, self.end]] += sentences
        return rows


@dataclass(frozen=True)
class Stretch:
    """Sentences in memory as numbers of their own words.

    tokens (N,) int32, one sentence after the other; starts (S + 1,) int64: where each begins, and N; chars (W, C):
    spelling of each number; rows (W,) int64: its softmax row. Numbers 0 and 1 are the sentence marks.
    """

    tokens: Tokens
    starts: NDArray[np.int64]
    chars: Ids
    rows: NDArray[np.int64]

    @property
    def n_sentences(self) -> int:
        """Number of sentences S."""
        return len(self.starts) - 1

    @property
    def n_places(self) -> int:
        """Predictions of one direction: every token and one sentence mark a sentence."""
        return len(self.tokens) + self.n_sentences


def stretch_of(blocks: Iterable[Block], rows: Rows, speller: Speller) -> Stretch:
    """Put blocks one after the other and spell their words; a word that has no softmax row is still spelled as it is.

    The number of a word follows from the blocks alone.
    """
    begin, end, _ = speller.marks
    index = {begin: 0, end: 1}
    tokens, lengths = [], [np.zeros(1, np.int64)]
    for block in blocks:
        numbers = np.array([index.setdefault(word, len(index)) for word in block.words], np.int32)
        tokens.append(numbers[block.tokens])
        lengths.append(block.lengths)
    words = list(index)
    targets = np.array([rows.begin, rows.end, *(rows.index.get(word, rows.unknown) for word in words[2:])], np.int64)
    return Stretch(np.concatenate(tokens), np.cumsum(np.concatenate(lengths)), speller.spell(words), targets)
