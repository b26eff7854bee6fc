"""The words a model predicts, counted in a text and sorted by count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from elmokit.checkpoint import read_vocabulary
from elmokit.errors import TextError
from elmokit.text import BEGIN_SENTENCE, END_SENTENCE, UNKNOWN

SPECIALS = (BEGIN_SENTENCE, END_SENTENCE, UNKNOWN)


def count_words(sentences: Iterable[Sequence[str]]) -> Counter[str]:
    """Count the tokens of a text."""
    counts: Counter[str] = Counter()
    for sentence in sentences:
        counts.update(sentence)
    return counts


def build_vocabulary(counts: Counter[str], *, min_count: int, max_words: int | None) -> tuple[str, ...]:
    """Return <S> </S> <UNK>, then the words seen at least `min_count` times, most frequent first.

    Words of one count stand in alphabetical order, so that the same text always gives the same vocabulary; `max_words`
    counts the three specials.
    """
    words = (word for word, n in counts.items() if n >= min_count and word not in SPECIALS)
    ranked = sorted(words, key=lambda word: (-counts[word], word))
    room = len(ranked) if max_words is None else max(0, max_words - len(SPECIALS))
    if not ranked[:room]:
        raise TextError(
            f"no word stands at least {min_count} times in the {counts.total():,} tokens of the training text; "
            "lower --min-count or give more text"
        )
    return (*SPECIALS, *ranked[:room])


# Fewer words than these say nothing of the order of a list.
_TELLING = 10


def load_vocabulary(path: str | Path, counts: Counter[str]) -> tuple[str, ...]:
    """Read a vocabulary file, and refuse what the sampled softmax cannot use.

    It must begin with <S>, </S>, <UNK>, hold no word twice, and be sorted by falling count, as the sampler takes a
    word's frequency from its place (formats.md 3.12). Order is checked on the training text, roughly: the first tenth
    of the words must be more frequent than the last tenth.
    """
    words = read_vocabulary(path)
    if words[:3] != SPECIALS:
        raise TextError(
            f"{path}: expected {' '.join(SPECIALS)} on the first three lines, found {' '.join(words[:3])!r}"
        )
    if len(set(words)) != len(words):
        twice = next(word for word, n in Counter(words).items() if n > 1)
        raise TextError(f"{path}: the word {twice!r} stands in it more than once; remove the repetition")
    tenth = (len(words) - 3) // 10
    first, last = (sum(counts[word] for word in part) for part in (words[3 : 3 + tenth], words[-tenth:]))
    if tenth >= _TELLING and first < last:
        raise TextError(
            f"{path} is not sorted by falling frequency: its first {tenth} words stand {first:,} times in the training "
            f"text, its last {tenth} stand {last:,} times; sort it, or let the vocabulary be built"
        )
    return words
