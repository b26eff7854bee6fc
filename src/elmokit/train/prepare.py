"""From text to what training reads: held-out text and training text on disk, the vocabulary, the shape of the network.

All of it is kept in OUT/training/corpus, so that a run is continued without its text.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from elmokit.checkpoint import (
    Arrays,
    Checkpoint,
    Config,
    head_words,
    parse_config,
    read_symbols,
    write_vocabulary,
)
from elmokit.errors import FormatError, TextError
from elmokit.reading import Splitter, expand, is_parquet, read_items
from elmokit.text import BEGIN_WORD, END_WORD, PAD, Speller
from elmokit.train.corpus import Corpus, CorpusWriter, Rows, add_sentences, readable, written
from elmokit.train.settings import Settings
from elmokit.train.splitting import HELDOUT_EVERY, Fingerprints, Splitting, fingerprints, write_corpus
from elmokit.train.vocabulary import SPECIALS, build_lexicon, build_vocabulary, load_vocabulary

# Sentences longer than these, on the average, are hardly sentences.
_LONG_MEAN, _LONG = 150, 5000


@dataclass(frozen=True)
class Prepared:
    """What training reads. target_counts (V,) int64: how often each softmax row is a target in one pass; start: the
    arrays of the model that the run goes on from, none for a new one; new_head: that model has no head; notes: what the
    user should know of the text."""

    config: Config
    vocabulary: tuple[str, ...]
    characters: tuple[str, ...] | None
    target_counts: NDArray[np.int64]
    train: Corpus
    heldout: Corpus
    start: Arrays
    new_head: bool
    notes: list[str]

    @property
    def speller(self) -> Speller:
        """How words are spelled."""
        return Checkpoint(self.config, {}, self.vocabulary, characters=self.characters).speller()

    @property
    def rows(self) -> Rows:
        """The rows of the head."""
        return Rows.of(self.vocabulary, self.config.sentence_marks)

    def heldout_sentences(self, most: int) -> list[list[str]]:
        """Return the first held-out sentences, at most so many."""
        block = self.heldout.block(0)
        ends = np.cumsum(block.lengths[:most])
        return [
            [block.words[number] for number in block.tokens[end - n : end]]
            for end, n in zip(ends.tolist(), block.lengths.tolist(), strict=False)
        ]


# ---------------------------------------------------------------- preparing


def prepare(settings: Settings, folder: Path, start: Checkpoint | None, *, progress: bool) -> Prepared:
    """Read the texts once and write what training needs to `folder`.

    `start`: the model that the run goes on from. Raises `TextError` for texts that nothing can be learnt from.
    """
    train, heldout = _read(settings, folder, progress=progress)
    _check(settings, train, heldout)
    vocabulary = _vocabulary(settings, train.counts, start)
    config, characters = _shape(settings, train.counts, start)
    rows = Rows.of(vocabulary, config.sentence_marks)
    target_counts = rows.target_counts(train.counts, train.facts.sentences)
    prepared = Prepared(
        config,
        vocabulary,
        characters,
        target_counts,
        train.close(),
        heldout.close(),
        dict(start.arrays) if start else {},
        start is not None and not head_words(start.arrays),
        [*_notes(settings, train), *_unknown_note(target_counts, rows)],
    )
    with written(folder):
        write_vocabulary(prepared.vocabulary, folder / "vocabulary.txt")
        if characters:
            write_vocabulary(characters, folder / "characters.txt")
        with (folder / "target_counts.npy").open("wb") as file:
            np.save(file, prepared.target_counts)
    return prepared


def reopen(settings: Settings, folder: Path) -> Prepared:
    """Return what `prepare` wrote, for a run that goes on; what it has learnt is in its saved state."""
    train, heldout = (Corpus.load(folder / name) for name in ("train", "heldout"))
    vocabulary, counts = folder / "vocabulary.txt", folder / "target_counts.npy"
    with readable(counts), counts.open("rb") as file:
        target_counts = np.load(file, allow_pickle=False)
    words = read_symbols(vocabulary) or ()
    if len(words) != len(target_counts):
        raise FormatError(
            f"{vocabulary} is not what the run wrote (expected {len(target_counts):,} words, found {len(words):,}); "
            "start the run again in another folder"
        )
    return Prepared(
        settings.config,
        words,
        read_symbols(folder / "characters.txt"),
        target_counts,
        train,
        heldout,
        {},
        settings.new_head,
        [],
    )


def _read(settings: Settings, folder: Path, *, progress: bool) -> tuple[CorpusWriter, CorpusWriter]:
    _check_column(settings)
    splitter = Splitter(tokenize=settings.tokenize, symbols=settings.symbols)
    processes = settings.processes or _processors()
    train, heldout = CorpusWriter(folder / "train"), CorpusWriter(folder / "heldout")
    if settings.heldout:
        if settings.heldout == "-":
            raise TextError("held-out text cannot come from standard input; name a file with --heldout")
        seen: list[Fingerprints] = []
        sentences = splitter(_items([settings.heldout], settings.column, "held-out text", progress=progress))
        add_sentences(heldout, _noted(sentences, seen))
        splitting = Splitting(splitter, heldout=np.unique(np.concatenate([np.zeros(0, np.uint64), *seen])))
    else:
        splitting = Splitting(splitter, heldout_every=HELDOUT_EVERY)
    items = _items(settings.texts, settings.column, "reading", progress=progress)
    write_corpus(items, splitting, train, None if settings.heldout else heldout, processes=processes)
    return train, heldout


def _check_column(settings: Settings) -> None:
    """Raise `TextError` for a column where nothing has columns; texts without any are read beside Parquet files."""
    names = [*settings.texts, *([settings.heldout] if settings.heldout else [])]
    if settings.column is not None and not any(is_parquet(file) for file in expand(names)):
        raise TextError(
            f"there is no column {settings.column!r}, for none of the texts is a Parquet file; leave --column out"
        )


def _processors() -> int:
    """Return how many processors this process may use, where the system tells, or how many there are."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _noted(sentences: Iterable[list[str]], seen: list[Fingerprints]) -> Iterator[list[str]]:
    """Hand sentences on and take the fingerprints of those that are not empty."""
    while piece := list(islice(sentences, 10_000)):
        seen.append(fingerprints(sentence for sentence in piece if sentence))
        yield from piece


def _items(names: Sequence[str], column: str | None, what: str, *, progress: bool) -> Iterator[Any]:
    """Yield the lines of texts one after the other under one bar."""
    files = expand(names)
    with tqdm(desc=what, unit=" lines", unit_scale=True, disable=not progress, leave=False) as bar:
        for place, file in enumerate(files, start=1):
            bar.set_postfix_str(f"file {place} of {len(files)}")
            for item in read_items(file, column=column if is_parquet(file) else None):
                yield item
                bar.update()


# ---------------------------------------------------------------- what the text says


def _check(settings: Settings, train: CorpusWriter, heldout: CorpusWriter) -> None:
    if not train.facts.sentences:
        raise TextError(f"{_named(settings.texts)} holds no sentence; expected one tokenised sentence a line")
    if not heldout.facts.sentences:
        raise TextError(_nothing_held_out(settings, train))
    needed = settings.recipe.batch_size * settings.recipe.unroll
    if sum(train.places) < needed:
        raise TextError(
            f"the text is too short: {sum(train.places):,} places, a single update takes {needed:,}; "
            "give more text or a smaller batch"
        )
    if train.facts.shared > 0.9 * train.facts.sentences:
        raise TextError(
            f"nearly all sentences of {_named(settings.texts)} are held-out sentences too; name held-out text that is "
            "not trained on"
        )


def _nothing_held_out(settings: Settings, train: CorpusWriter) -> str:
    if settings.heldout:
        return f"{settings.heldout} holds no sentence, expected held-out text; name another with --heldout"
    return (
        f"of the {train.facts.sentences:,} sentences of the text, one in {HELDOUT_EVERY} should be held out and none "
        "was; give more text, or held-out text with --heldout"
    )


def _notes(settings: Settings, train: CorpusWriter) -> list[str]:
    """Return what is odd about a text that can be trained on all the same."""
    facts, notes = train.facts, []
    if facts.shared:
        notes.append(
            f"{facts.shared:,} sentences of the training text are held-out sentences too; perplexity will look better "
            "than it is"
        )
    mean, share = facts.tokens / facts.sentences, sum(train.places) // settings.recipe.batch_size
    if settings.symbols or all(len(word) == 1 for word in train.counts):
        if facts.longest > share:
            notes.append(
                f"the longest sequence has {facts.longest:,} symbols, and a row of the batch reads {share:,}, so that "
                "rows begin inside of it; cut it into records if it matters how they begin"
            )
    elif mean > _LONG_MEAN or facts.longest > _LONG:
        notes.append(
            f"sentences have {mean:,.0f} tokens on the average and {facts.longest:,} at most; expected one sentence a "
            "line: for raw text take --tokenize"
        )
    if not (settings.tokenize or settings.symbols) and facts.unsplit > 0.02 * facts.tokens:
        notes.append(
            f"{facts.unsplit:,} of {facts.tokens:,} tokens are words with a full stop or a comma at the end: the text "
            "does not look tokenised; for raw text take --tokenize"
        )
    if facts.tokens < 100_000:
        notes.append(f"the text has {facts.tokens:,} tokens; useful models begin at about a million")
    return notes


# Of the words to predict, the share of <UNK> from which there is little else to learn.
_MANY_UNKNOWN = 0.2


def _unknown_note(target_counts: NDArray[np.int64], rows: Rows) -> list[str]:
    share = target_counts[rows.unknown] / target_counts.sum()
    if share < _MANY_UNKNOWN:
        return []
    return [
        f"{share:.0%} of the words to predict are not in the vocabulary and count as <UNK>, which makes perplexity "
        "low; take a vocabulary that suits the text, a lower --min-count or a higher --max-vocab"
    ]


def _named(texts: Sequence[str]) -> str:
    return ", ".join("standard input" if text == "-" else text for text in texts)[:200]


# ---------------------------------------------------------------- vocabulary and shape


def _vocabulary(settings: Settings, counts: Counter[str], start: Checkpoint | None) -> tuple[str, ...]:
    if start is not None and start.vocabulary is not None:
        return start.vocabulary
    if settings.vocabulary:
        return load_vocabulary(settings.vocabulary, counts)
    specials = tuple(start.config.sentence_marks) if start else SPECIALS
    return build_vocabulary(counts, min_count=settings.min_count, max_words=settings.max_vocab, specials=specials)


def _shape(settings: Settings, counts: Counter[str], start: Checkpoint | None) -> tuple[Config, tuple[str, ...] | None]:
    """Return the shape of the network, and its lexicon of characters where it has one."""
    if start is not None:
        return start.config, start.characters
    config = settings.config
    if settings.unit == "words":
        return replace_options(config, char_cnn=None), None
    if settings.unit == "characters":
        assert config.char_cnn is not None  # every preset has characters, and so has --options here
        lexicon = build_lexicon(counts, (*config.sentence_marks, BEGIN_WORD, END_WORD), PAD)
        cnn = {**config.char_cnn.model_dump(), "spelling": "code points", "n_characters": len(lexicon)}
        return replace_options(config, char_cnn=cnn), lexicon
    return config, None


def replace_options(config: Config, **changes: Any) -> Config:
    """Return a shape with other options."""
    return parse_config({**config.model_dump(), **changes}, where="the shape")
