"""The words a model predicts, counted in a text and sorted by count."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from elmokit.checkpoint import read_vocabulary
from elmokit.errors import TextError
from elmokit.text import BEGIN_SENTENCE, END_SENTENCE, UNKNOWN

SPECIALS = (BEGIN_SENTENCE, END_SENTENCE, UNKNOWN)
# What a file of one word a line cannot hold.
_BREAK = {"\n", "\r"}
# Characters seen less often are learnt as the unknown one.
_MIN_CHARACTERS = 3


def build_vocabulary(
    counts: Counter[str], *, min_count: int, max_words: int | None, specials: tuple[str, ...] = SPECIALS
) -> tuple[str, ...]:
    """Return the specials, then the words seen at least `min_count` times, most frequent first.

    Words of one count stand in alphabetical order, so that the same text always gives the same vocabulary; `max_words`
    counts the three specials. Words with a line break in them, which Parquet may hold, are left out.
    """
    words = (word for word, n in counts.items() if n >= min_count and word not in specials and not _BREAK & set(word))
    ranked = sorted(words, key=lambda word: (-counts[word], word))
    room = len(ranked) if max_words is None else max(0, max_words - len(specials))
    if not ranked[:room]:
        raise TextError(
            f"no word stands at least {min_count} times in the {counts.total():,} tokens of the training text; "
            "lower --min-count or give more text"
        )
    return (*specials, *ranked[:room])


# Fewer words than these say nothing of the order of a list.
_TELLING = 10


def load_vocabulary(path: str | Path, counts: Counter[str]) -> tuple[str, ...]:
    """Read a vocabulary file, and refuse what the sampled softmax cannot use.

    It must begin with <S>, </S>, <UNK>, hold no word twice, and be sorted by falling count, as the sampler takes a
    word's frequency from its place. Order is checked on the training text, roughly: the first tenth
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


def build_lexicon(counts: Counter[str], marks: tuple[str, ...], pad: str) -> tuple[str, ...]:
    """Return the characters of a text, most frequent first, between the marks and the padding, which is the last row.

    Characters seen fewer than three times are left out, so that the mark of the unknown has something to learn from.
    """
    characters: Counter[str] = Counter()
    for word, n in counts.items():
        for character in word:
            characters[character] += n
    kept = [c for c, n in characters.items() if n >= _MIN_CHARACTERS and c not in _BREAK and not c.isspace()]
    return (*marks, *sorted(kept, key=lambda c: (-characters[c], c)), pad)
