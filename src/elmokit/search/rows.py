"""What an index holds: one row for each sentence, passage or use of a word; and what a search gives."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from elmokit.errors import MismatchError, expect

Value: TypeAlias = str | int | float
Kind: TypeAlias = Literal["text", "integer", "number"]

# Fields that every row has, and the kinds of their values.
OWN_FIELDS: dict[str, Kind] = {
    "key": "text",
    "source": "text",
    "line": "integer",
    "place": "integer",
    "word": "text",
    "text": "text",
}
NO_PLACE = -1


@dataclass(frozen=True)
class Row:
    """One thing that can be found.

    source, line: where it comes from, lines counted from 1. place, word: of a use of a word, its number in the
    sentence, from 0, and the word; else -1 and "". text: tokens with a space between them. fields: what else is known
    of it. digest: a checksum of all that decides about the row. vector: (D,) float32, of length 1.
    """

    source: str
    line: int
    place: int
    word: str
    text: str
    fields: Mapping[str, Value | None]
    digest: str
    vector: NDArray[np.float32]

    @property
    def key(self) -> str:
        """The name of the row: no other row of an index has it."""
        return key(self.source, self.line, self.place)


def key(source: str, line: int, place: int = NO_PLACE) -> str:
    """Return the name of a row: source:line, or source:line:place."""
    return f"{source}:{line}" if place == NO_PLACE else f"{source}:{line}:{place}"


def digest(sentences: Sequence[str], fields: Mapping[str, Value | None]) -> str:
    """Return a short checksum, 64 bits of a SHA-256 as hexadecimal, of a text and what else is known of it."""
    plain = json.dumps([list(sentences), sorted(fields.items())])
    return hashlib.sha256(plain.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Hit:
    """A row that was found, and its score: a cosine, a full-text score, or a sum of reciprocal ranks.

    place is -1 and word "" for what is no use of a word.
    """

    score: float
    key: str
    source: str
    line: int
    place: int
    word: str
    text: str
    fields: Mapping[str, Value | None]

    @property
    def marked(self) -> str:
        """The text, with the word that was found between asterisks."""
        if self.place == NO_PLACE:
            return self.text
        tokens = self.text.split(" ")
        tokens[self.place] = f"*{tokens[self.place]}*"
        return " ".join(tokens)


def hit(row: Mapping[str, Any], score: float) -> Hit:
    """Make a hit of the columns of a store."""
    own = {name: row[name] for name in OWN_FIELDS}
    return Hit(score=float(score), fields={name: row[name] for name in row if name not in own}, **own)


# ---------------------------------------------------------------- conditions


@dataclass(frozen=True)
class Condition:
    """A field compared with a value; a row whose field is missing meets none."""

    field: str
    comparison: Literal["=", "!=", "<", "<=", ">", ">="]
    value: Value


_CONDITION = re.compile(r"\s*(\w+)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*", re.DOTALL)
_READ: dict[Kind, Callable[[str], Value]] = {"text": str, "integer": int, "number": float}
_FITS: dict[Kind, tuple[type, ...]] = {"text": (str,), "integer": (int,), "number": (int, float)}
# Stores hold whole numbers in 63 bits and a sign; the very smallest is left out: SQL writes it as minus a larger one.
_WHOLE = 2**63 - 1


def read_condition(written: str, fields: Mapping[str, Kind]) -> Condition:
    """Read a condition such as "year>=1990"; `MismatchError` for one that does not fit these fields."""
    found = _CONDITION.fullmatch(written)
    if not found:
        raise MismatchError(f"expected a condition such as  source=a.txt  or  line>=10, found {written!r}")
    name, comparison, text = found.groups()
    kind = _known(name, fields)
    try:
        return Condition(name, comparison, _READ[kind](text))  # type: ignore[arg-type]
    except ValueError:
        raise MismatchError(f"the field {name} holds {kind}s, found {text!r} in {written!r}") from None


def check(condition: Condition, fields: Mapping[str, Kind]) -> None:
    """Raise `MismatchError` for a condition that does not fit these fields."""
    expect(Condition, condition, "where", "conditions, or strings such as  line>=10")
    kind = _known(condition.field, fields)
    if isinstance(condition.value, bool) or not isinstance(condition.value, _FITS[kind]):
        raise MismatchError(f"the field {condition.field} holds {kind}s, found {condition.value!r} in a condition")
    check_storable(condition.value, f"the field {condition.field} in a condition")
    if isinstance(condition.value, float) and not math.isfinite(condition.value):
        raise MismatchError(
            f"the field {condition.field} is compared with {condition.value}, expected a finite number; give one"
        )


def check_values(values: Mapping[str, Any], fields: Mapping[str, Kind], *, where: str) -> None:
    """Raise `MismatchError` for values that the fields of an index cannot hold; one that is missing is None."""
    expect(Mapping, values, where, "a mapping of fields to values")
    if unknown := sorted(set(values) - set(fields)):
        raise MismatchError(f"{where}: the index has no field {unknown[0]!r}; it has: {', '.join(fields) or 'none'}")
    for name, value in values.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, _FITS[fields[name]])):
            raise MismatchError(f"{where}: the field {name} holds {fields[name]}s, found {value!r}")
        check_storable(value, f"{where}: the field {name}")


def check_storable(value: object, name: str) -> None:
    """Raise `MismatchError` for a value, called `name`, that no store can hold, though it is of the right type."""
    if isinstance(value, int) and abs(value) > _WHOLE:
        found = f"found one of {value.bit_length()}"
        raise MismatchError(f"{name}: expected a whole number of up to 63 bits, {found}; take a smaller one")
    if isinstance(value, str):
        check_text(value, name)


def check_text(text: str, name: str) -> None:
    """Raise `MismatchError` for a text, called `name`, that is no Unicode; bytes of another encoding become that."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise MismatchError(
            f"{name}: expected UTF-8, found {text[error.start : error.end]!r} in {text[:60]!r}; write it in UTF-8"
        ) from None


def _known(name: str, fields: Mapping[str, Kind]) -> Kind:
    known: dict[str, Kind] = {**OWN_FIELDS, **fields}
    if name not in known:
        raise MismatchError(f"the index has no field {name!r}; it has: {', '.join(known)}")
    return known[name]


# ---------------------------------------------------------------- fusion

# Cormack, Clarke and Büttcher (2009), who fuse with this constant.
_RANK_OFFSET = 60


def fuse(rankings: list[list[Hit]], count: int) -> list[Hit]:
    """Return the `count` best of several rankings: the score is the sum of 1 / (60 + rank), ranks from 1."""
    scores: dict[str, float] = {}
    hits: dict[str, Hit] = {}
    for ranking in rankings:
        for rank, found in enumerate(ranking, start=1):
            scores[found.key] = scores.get(found.key, 0.0) + 1 / (_RANK_OFFSET + rank)
            hits[found.key] = found
    best = sorted(scores, key=lambda name: -scores[name])[:count]
    return [replace(hits[name], score=scores[name]) for name in best]
