"""Texts on their way into an index: numbered, checked, in commits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TypeAlias

from elmokit.errors import MismatchError
from elmokit.search.rows import Kind, Value, check_values
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
    if not source or first < 1:
        raise MismatchError(f"expected the name of a source and a first line from 1 on, found {source!r}, {first}")
    pairs = zip(texts, repeat({})) if values is None else zip(texts, values, strict=True)
    for line, (text, known) in enumerate(pairs, first):
        where = f"{source}, line {line}"
        check_values(known, kinds, where=where)
        yield Numbered(line, sentences_of(text, unit, where), {name: known.get(name) for name in kinds})


def sentences_of(text: Text, unit: Unit, where: str) -> Sequence[Sentence]:
    """Return the sentences of what was added; a string would be split into letters."""
    sentences = text if unit == "passage" else [text]
    for sentence in sentences:
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
