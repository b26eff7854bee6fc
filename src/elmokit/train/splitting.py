"""A text read once and split into sentences by several processes, which of them are held out, and which are alike.

The text may come from a pipe. What comes of it is the same for any number of processes.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import chain, islice
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elmokit.errors import TextError
from elmokit.reading import Splitter
from elmokit.train.corpus import BLOCK_TOKENS, Block, CorpusWriter, Facts, Sentence, add_sentences, pieces

# Of the text itself one sentence in so many is held out where no held-out text is given.
HELDOUT_EVERY = 100

Fingerprints = NDArray[np.uint64]


@dataclass(frozen=True)
class Splitting:
    """How items of text become sentences: `splitter` makes tokens of an item; `heldout_every`: one distinct sentence in
    so many is held out, 0 for none; `heldout`: fingerprints of held-out sentences to look out for, rising."""

    splitter: Splitter
    heldout_every: int = 0
    heldout: Fingerprints = field(default_factory=lambda: np.zeros(0, np.uint64))


@dataclass(frozen=True)
class _Part:
    """What a worker makes of a piece of text: a block, facts, and the sentences that are held out."""

    block: Block
    facts: Facts
    heldout: list[list[str]]


def _split(items: Sequence[Any], splitting: Splitting) -> _Part:
    """Split a piece of text. Of sentences that are alike either all are held out or none."""
    kept: list[list[str]] = []
    heldout: list[list[str]] = []
    for sentence in splitting.splitter(items):
        if not sentence:
            continue
        if splitting.heldout_every and mark_of(sentence) % splitting.heldout_every == 0:
            heldout.append(sentence)
        else:
            kept.append(sentence)
    shared = _count_found(kept, splitting.heldout)
    block = Block.of(kept)
    counts = block.counts()
    unsplit = sum(n for word, n in counts.items() if len(word) > 3 and word[-1] in ".,;!?" and word[:-1].isalpha())
    longest = int(block.lengths.max(initial=0))
    return _Part(block, Facts(len(kept), len(block.tokens), longest, unsplit, shared), heldout)


def mark_of(sentence: Sentence) -> int:
    """Return a number that alike sentences share, the same on every machine; others may share it."""
    return zlib.crc32(_bytes_of(sentence))


def fingerprints(sentences: Iterable[Sentence]) -> Fingerprints:
    """Return numbers that sentences share only if they are alike, as far as 64 bits can tell."""
    digests = (hashlib.blake2b(_bytes_of(sentence), digest_size=8).digest() for sentence in sentences)
    return np.frombuffer(b"".join(digests), np.uint64)


def _count_found(sentences: Sequence[Sentence], among: Fingerprints) -> int:
    """Count the sentences that are among others, whose fingerprints rise."""
    if not len(among):
        return 0
    found = fingerprints(sentences)
    return int((among[np.searchsorted(among, found).clip(max=len(among) - 1)] == found).sum())


def _bytes_of(sentence: Sentence) -> bytes:
    return "\n".join(sentence).encode("utf-8", "surrogatepass")


def write_corpus(
    items: Iterable[Any], splitting: Splitting, writer: CorpusWriter, heldout: CorpusWriter | None, *, processes: int
) -> None:
    """Read a text once: blocks go to `writer`, sentences that are held out to `heldout`.

    `items`: lines, or whatever the splitter takes. `processes`: how many split at the same time; the blocks are the
    same for any number of them.
    """
    pending: list[list[str]] = []
    for part in _parts(pieces(items), splitting, processes):
        writer.add(part.block, part.facts)
        pending += part.heldout
        if heldout is not None and sum(map(len, pending)) > BLOCK_TOKENS:
            add_sentences(heldout, pending)
            pending = []
    if heldout is not None:
        add_sentences(heldout, pending)


def _parts(texts: Iterator[list[Any]], splitting: Splitting, processes: int) -> Iterator[_Part]:
    first = list(islice(texts, 2))
    if processes == 1 or len(first) < 2:  # not worth a process
        for piece in chain(first, texts):
            yield _split(piece, splitting)
        return
    try:
        # "spawn": a fork would copy whatever threads torch has started.
        with ProcessPoolExecutor(processes, get_context("spawn"), _begin, (splitting,)) as pool:
            waiting: list[Future[_Part]] = [pool.submit(_split_here, piece) for piece in first]
            for piece in texts:
                waiting.append(pool.submit(_split_here, piece))
                if len(waiting) > 2 * processes:
                    yield waiting.pop(0).result()
            for future in waiting:
                yield future.result()
    except BrokenProcessPool:
        raise TextError(
            "a process that reads the text was killed, perhaps for want of memory; start again with fewer --processes, "
            'and a script of your own with the call under  if __name__ == "__main__":'
        ) from None


_here: Splitting | None = None  # of a worker process, which is told once


def _begin(splitting: Splitting) -> None:
    global _here
    _here = splitting


def _split_here(piece: list[Any]) -> _Part:
    assert _here is not None
    return _split(piece, _here)
