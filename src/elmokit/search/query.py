"""What is asked: a text, or a sentence in which one word is marked, as in `the *bank* of the river`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from elmokit.errors import MismatchError
from elmokit.reading import Splitter

_MARKED = re.compile(r"\*(\S(?:[^*]*\S)?)\*")


@dataclass(frozen=True)
class Query:
    """Sentences of tokens; place: the number of the word that is asked about, from 0, in the only sentence."""

    sentences: Sequence[Sequence[str]]
    place: int | None = None

    @property
    def text(self) -> str:
        """All tokens with a space between them."""
        return " ".join(token for sentence in self.sentences for token in sentence)


def read_query(text: str, *, word: bool, symbols: bool) -> Query:
    """Split what was asked into tokens; `word`: one of them is marked. Raises `MismatchError` for no or two marks."""
    splitter = Splitter(tokenize=not symbols, symbols=symbols)
    if not word:
        return _checked(Query(list(splitter([text]))), text)
    parts = _MARKED.split(text)
    if len(parts) != 3:
        found = f"found {(len(parts) - 1) // 2} in {text!r}"
        raise MismatchError(f"expected a sentence with one marked word, such as 'the *bank* of the river', {found}")
    before, marked, after = ([token for tokens in splitter([part]) for token in tokens] for part in parts)
    if len(marked) != 1:
        raise MismatchError(f"expected one word between the asterisks, found {' '.join(marked)!r}; mark one of them")
    return Query([[*before, *marked, *after]], len(before))


def given_query(sentence: Sequence[str], place: int | None, *, word: bool) -> Query:
    """Return a query of tokens. Raises `MismatchError` where the place is missing, or not there."""
    if word and (place is None or not 0 <= place < len(sentence)):
        raise MismatchError(
            f"the sentence has words 0 to {len(sentence) - 1}, expected the place of one, found {place}"
        )
    if not word and place is not None:
        raise MismatchError("this index holds no uses of words; leave the place out")
    return _checked(Query([list(sentence)], place), " ".join(sentence))


def _checked(query: Query, text: str) -> Query:
    if not any(query.sentences):
        raise MismatchError(f"the query {text!r} has no words; ask with one at least")
    return query
