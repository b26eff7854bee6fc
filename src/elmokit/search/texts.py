"""Texts on their way into an index: numbered, checked, in commits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat, zip_longest
from typing import Any, TypeAlias

from elmokit.errors import MismatchError, expect, expect_iterable, expect_whole
from elmokit.search.rows import Kind, Value, check_storable, check_text, check_values
from elmokit.search.settings import Unit

Sentence: TypeAlias = Sequence[str]
# What is added: a sentence, or for passages the sentences of one.
Text: TypeAlias = Sentence | Sequence[Sentence]
Values: TypeAlias = Mapping[str, Value | None]

# Texts and tokens of one commit: what a killed run computes again at most.
_COMMIT = 1_000
_COMMIT_TOKENS = 16_384


@dataclass(frozen=True)
class Numbered:
    """A text of an index: its line, its sentences and what else is known of it."""

    line: int
    sentences: Sequence[Sentence]
    fields: Values

    @property
    def tokens(self) -> list[str]:
        """The tokens of all sentences."""
        return [token for sentence in self.sentences for token in sentence]


def numbered(
    source: str,
    texts: Iterable[Text],
    first: int,
    values: Iterable[Values] | None,
    *,
    unit: Unit,
    kinds: Mapping[str, Kind],
) -> Iterator[Numbered]:
    """Yield texts with their lines, from `first` on; `MismatchError` for what an index of this kind cannot hold."""
    expect(str, source, "source", "a name")
    expect_whole(first, "first", least=1)
    expect_iterable(texts, "texts", "texts")
    if values is not None:
        expect_iterable(values, "fields", "a mapping for each text")
    if not source:
        raise MismatchError("expected the name of a source, found an empty one")
    check_text(source, "the name of a source")
    pairs = zip(texts, repeat({})) if values is None else _paired(texts, values, source)
    for line, (text, known) in enumerate(pairs, first):
        where = f"{source}, line {line}"
        check_storable(line, f"the line in {source}")
        check_values(known, kinds, where=where)
        yield Numbered(line, sentences_of(text, unit, where), {name: _or_none(known.get(name)) for name in kinds})


def _or_none(value: Value | None) -> Value | None:
    """Return a value, None for what is no number (NaN): it is missing, and stores disagree how to compare it."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _paired(texts: Iterable[Text], values: Iterable[Values], source: str) -> Iterator[tuple[Text, Values]]:
    """Yield each text with its values, of which there must be as many."""
    nothing: Any = object()
    for number, (text, known) in enumerate(zip_longest(texts, values, fillvalue=nothing), 1):
        if text is nothing or known is nothing:
            missing = "text" if text is nothing else "mapping"
            raise MismatchError(f"{source}: expected a mapping of fields for each text, found no {missing} {number}")
        yield text, known


def sentences_of(text: Text, unit: Unit, where: str) -> Sequence[Sentence]:
    """Return the sentences of what was added; a string would be split into letters."""
    sentences = text if unit == "passage" else [text]
    expect_iterable(sentences, where, "a list of sentences")
    for sentence in sentences:
        expect_iterable(sentence, where, "a list of tokens")
        if isinstance(sentence, str) or not all(isinstance(token, str) for token in sentence):
            expected = "a list of sentences, each a list of tokens" if unit == "passage" else "a list of tokens"
            raise MismatchError(f"{where}: expected {expected}, found {text!r:.60}; split it")
    return sentences  # type: ignore[return-value]


def written(tokens: Sentence) -> str:
    """Return tokens with a space between them; white space inside of one becomes a space that does not part."""
    return " ".join("\N{NO-BREAK SPACE}".join(token.split()) for token in tokens)


def commits(texts: Iterable[Numbered]) -> Iterator[list[Numbered]]:
    """Yield texts in lists, each to be one commit."""
    together: list[Numbered] = []
    tokens = 0
    for text in texts:
        together.append(text)
        tokens += len(text.tokens)
        if len(together) == _COMMIT or tokens >= _COMMIT_TOKENS:
            yield together
            together, tokens = [], 0
    if together:
        yield together
