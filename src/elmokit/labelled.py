"""Labelled texts: sentences with a label each (TSV, CSV), or with columns of labels for their words (CoNLL-U).

What a file is follows from its name, packed (`.gz`, `.bz2`, `.xz`, `.zst`) or not; any other text is read as
`reading.read_sentences` reads it, and has no labels.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from elmokit.errors import MismatchError, TextError, expect_path
from elmokit.reading import Splitter, file_kind, read_lines, read_sentences
from elmokit.text import listed_sentences, listed_words

TABLES = {".tsv": "\t", ".csv": ","}
CONLLU = frozenset({".conllu", ".conllup"})
CONLLU_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
# What stands in a label where the text has none.
NO_LABEL = "_"
# Names of columns, where none is asked for.
_TEXT_NAMES = ("sentence", "text", "tokens")
_LABEL_NAMES = ("label", "class", "category", "sense", "tag")

_T = TypeVar("_T")


@dataclass(frozen=True)
class LabelledText:
    """Sentences of tokens with what is known of them.

    labels: one for each sentence; word_labels, parts_of_speech: lists, one item for each token. None where the text has
    none.
    """

    sentences: list[list[str]]
    labels: list[str] | None = None
    word_labels: list[list[str]] | None = None
    parts_of_speech: list[list[str]] | None = None

    def __post_init__(self) -> None:
        lengths = [len(sentence) for sentence in listed_sentences(self.sentences)]
        if self.labels is not None and len(listed_words(self.labels, "labels")) != len(lengths):
            raise MismatchError(f"labels: expected one for each of {len(lengths)} sentences, found {len(self.labels)}")
        for name in ("word_labels", "parts_of_speech"):
            given = getattr(self, name)
            if given is not None and [len(one) for one in listed_sentences(given)] != lengths:
                raise MismatchError(f"{name}: expected a list for each sentence, one item for each token")


def read_labelled(
    path: str | Path,
    *,
    label: str | None = None,
    column: str | None = None,
    tokenize: bool = False,
    symbols: bool = False,
) -> LabelledText:
    """Read a text and the labels in it.

    TSV and CSV: `column` names the column of the text and `label` that of the labels, by the header in the first line,
    or by number from 1 in a file without a header; where they are left out, a column called sentence, text or tokens,
    and, if there is one, label, class, category, sense or tag. CoNLL-U: `label` is a column (upos, xpos, deprel, ...)
    or a key of FEATS or MISC; parts of speech are UPOS. Sentences without tokens are left out. Raises `TextError`.
    """
    expect_path(path, "path")
    kind = file_kind(path)
    if kind in CONLLU:
        return _read_conllu(path, label=label)
    if kind in TABLES:
        splitter = Splitter(tokenize=tokenize, symbols=symbols)
        return _read_table(path, TABLES[kind], label=label, column=column, splitter=splitter)
    if label is not None:
        endings = " ".join(sorted({*TABLES, *CONLLU}))
        raise TextError(
            f"{path} has no columns to take the label {label!r} from; expected a file that ends in {endings}"
        )
    sentences = read_sentences(path, tokenize=tokenize, symbols=symbols, column=column)
    return LabelledText(_not_empty(path, [sentence for sentence in sentences if sentence]))


def joined(texts: Sequence[LabelledText]) -> LabelledText:
    """Return texts as one; labels of a kind only where all of them have it."""
    return LabelledText(
        [sentence for text in texts for sentence in text.sentences],
        _joined([text.labels for text in texts]),
        _joined([text.word_labels for text in texts]),
        _joined([text.parts_of_speech for text in texts]),
    )


def _joined(parts: Sequence[list[_T] | None]) -> list[_T] | None:
    found = [part for part in parts if part is not None]
    return [item for part in found for item in part] if len(found) == len(parts) else None


# ---------------------------------------------------------------- tables


def _read_table(
    path: str | Path, delimiter: str, *, label: str | None, column: str | None, splitter: Splitter
) -> LabelledText:
    rows = _rows(path, delimiter)
    text_at, label_at = _columns(path, rows, label=label, column=column)
    sentences, labels = [], []
    for number, row in rows:
        if len(row) <= max(text_at, label_at or 0):
            found = f"{len(row)} columns, expected at least {max(text_at, label_at or 0) + 1}"
            raise TextError(f"{path}, line {number} has {found}; mend the line")
        for sentence in splitter([row[text_at]]):
            if sentence:
                sentences.append(sentence)
                labels.append(NO_LABEL if label_at is None else row[label_at].strip() or NO_LABEL)
    return LabelledText(_not_empty(path, sentences), None if label_at is None else labels)


def _rows(path: str | Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, each with the number of its last line. Only CSV has quoted fields."""
    lines = (line + "\n" for line in read_lines(path))
    quoted = delimiter == ","
    reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise TextError(f"{path}, line {reader.line_num} cannot be read ({error}); mend the line") from None


def _columns(
    path: str | Path, rows: Iterator[tuple[int, list[str]]], *, label: str | None, column: str | None
) -> tuple[int, int | None]:
    """Return the places of text and label; the header, if there is one, is taken from `rows`."""
    asked = [name for name in (column, label) if name is not None]
    if asked and all(name.isdecimal() and int(name) > 0 for name in asked):
        if column is None:
            raise TextError(f"{path}: the label has a number, {label}, but the text has none; give it with --column")
        return int(column) - 1, None if label is None else int(label) - 1
    _, header = next(rows, (0, []))
    names = [name.strip().removeprefix("\ufeff").lower() for name in header]
    text_at = _place(path, names, column, _TEXT_NAMES, what="text", option="--column")
    if text_at is None:
        expected = f"expected a column called {', '.join(_TEXT_NAMES)}, found {', '.join(header) or 'no line'}"
        raise TextError(f"{path}, line 1: {expected}; name it with --column, by number if there is no header")
    return text_at, _place(path, names, label, _LABEL_NAMES, what="labels", option="--label")


def _place(
    path: str | Path, names: list[str], wanted: str | None, usual: Iterable[str], *, what: str, option: str
) -> int | None:
    """Return the place of the column that is wanted, or of the first usual one that is there."""
    if wanted is None:
        return next((names.index(name) for name in usual if name in names), None)
    if wanted.lower() not in names:
        there = ", ".join(name or "''" for name in names) or "none"
        raise TextError(f"{path} has no column {wanted!r} for the {what}; its columns: {there}; choose with {option}")
    return names.index(wanted.lower())


# ---------------------------------------------------------------- CoNLL-U


def _read_conllu(path: str | Path, *, label: str | None) -> LabelledText:
    found = [sentence for sentence in _conllu_sentences(path) if sentence]
    sentences = [[row[1] for row in sentence] for sentence in found]
    tags = [[row[3] for row in sentence] for sentence in found]
    _not_empty(path, sentences)
    if label is None:
        return LabelledText(sentences, parts_of_speech=tags)
    labels = [[_conllu_label(row, label) for row in sentence] for sentence in found]
    if not any(one != NO_LABEL for sentence in labels for one in sentence):
        columns = ", ".join(CONLLU_COLUMNS)
        raise TextError(f"{path} has no label {label!r}; expected a column ({columns}) or a key of FEATS or MISC")
    return LabelledText(sentences, word_labels=labels, parts_of_speech=tags)


def _conllu_sentences(path: str | Path) -> Iterator[list[list[str]]]:
    """Yield the rows of the words of each sentence, not those of ranges (3-4) and of empty nodes (5.1)."""
    rows: list[list[str]] = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            yield rows
            rows = []
        elif not line.startswith("#"):
            row = line.split("\t")
            if len(row) < len(CONLLU_COLUMNS):
                found = f"expected {len(CONLLU_COLUMNS)} columns parted by tabs, found {len(row)}"
                raise TextError(f"{path}, line {number}: {found}; is it CoNLL-U?")
            if row[0].isdecimal():
                rows.append(row)
    yield rows


def _conllu_label(row: list[str], label: str) -> str:
    if label.lower() in CONLLU_COLUMNS:
        return row[CONLLU_COLUMNS.index(label.lower())] or NO_LABEL
    pairs = (pair.partition("=") for cell in (row[5], row[9]) for pair in cell.split("|"))
    return next((value for key, _, value in pairs if key == label), NO_LABEL)


def _not_empty(path: str | Path, sentences: list[list[str]]) -> list[list[str]]:
    if not sentences:
        raise TextError(f"{path} holds no sentence")
    return sentences
