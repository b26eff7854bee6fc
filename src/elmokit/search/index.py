"""`Index`: texts in, the nearest of them out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeAlias

import numpy as np
from tqdm import tqdm

from elmokit.errors import MismatchError, OutputError
from elmokit.model import Elmo, Layers, WordVectors, load
from elmokit.search.pooling import Common, Idf, Pooling, Vectors
from elmokit.search.query import Query, given_query, read_query
from elmokit.search.rows import (
    NO_PLACE,
    Condition,
    Hit,
    Kind,
    Row,
    Value,
    check,
    check_values,
    digest,
    fuse,
    key,
    read_condition,
)
from elmokit.search.settings import Settings, State, Unit, from_json, to_json
from elmokit.search.store import Store, open_store

Sentence: TypeAlias = Sequence[str]
# What is added: a sentence, or for passages the sentences of one.
Text: TypeAlias = Sentence | Sequence[Sentence]
By: TypeAlias = Literal["vector", "text", "both"]

NAME = "elmo"
# Weights of words, and how many common directions are taken off besides the common mean; None takes nothing off.
POOLS: dict[str, tuple[Literal["mean", "idf"], int | None]] = {
    "mean": ("mean", None),
    "idf": ("idf", None),
    "mean-common": ("mean", 1),
    "idf-common": ("idf", 1),
}
POOL = "idf-common"
# Texts that word frequencies are counted in, and those of them whose vectors tell what is common.
SAMPLE = 100_000
_SAMPLE_VECTORS = 2_000
# With fewer texts, what they have in common is not known.
_ENOUGH = 100
# Texts and tokens of one commit: what a killed run computes again at most.
_COMMIT = 1_000
_COMMIT_TOKENS = 16_384
# How far down each ranking is read where two are fused.
_FUSED = 100


@dataclass
class Changes:
    """What an update did to rows."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    deleted: int = 0


@dataclass(frozen=True)
class _Numbered:
    """A text on its way into the index: its line, its sentences and what else is known of it."""

    line: int
    sentences: Sequence[Sentence]
    fields: Mapping[str, Value | None]

    @property
    def tokens(self) -> list[str]:
        return [token for sentence in self.sentences for token in sentence]


class Index:
    """Sentences, passages or uses of words, each with its vector, in a store on disk or on a server.

    `create` makes one, `open` opens it again. Every change is kept as soon as it is made, in commits of a thousand
    texts, so that a killed run loses no more than the last one and repeating it adds nothing twice. Searching may be
    done from several threads.
    """

    def __init__(self, store: Store, elmo: Elmo, *, address: str) -> None:
        """For `create` and `open`. Raises `MismatchError` where the index was made with another model."""
        self.settings, self.pooling = from_json(store.settings or {})
        self.address = address
        self._store = store
        self._elmo = elmo
        if self.settings.model != elmo.fingerprint:
            name = f" {self.settings.model_name}" if self.settings.model_name else ""
            raise MismatchError(
                f"the index {address} was made with another model{name} (fingerprint {self.settings.model[:12]}, found "
                f"{elmo.fingerprint[:12]}); open it with that model, or make another index"
            )

    @classmethod
    def create(
        cls,
        address: str | Path,
        elmo: Elmo,
        *,
        sample: Iterable[Text] = (),
        unit: Unit = "sentence",
        words: Iterable[str] = (),
        layers: Layers = "average",
        pool: str | None = None,
        state: State = "fresh",
        symbols: bool = False,
        language: str = "English",
        fields: Mapping[str, Kind] | None = None,
        model_name: str | None = None,
        name: str = NAME,
    ) -> Index:
        """Make an empty index: a folder, or the address of a PostgreSQL server, "postgresql://...".

        unit: "sentence" is one row for each sentence; "passage" for each list of sentences; "word" for each use of a
        word, or of those in `words` only, in any case. `sample`: texts like those that will be added, from which `pool`
        learns (the first 100,000 count words, the first 2,000 tell what is common; with fewer than 100 nothing is taken
        off). `pool`: "mean" or "idf" (rare words weigh more), each with or without "-common" (what all texts have in
        common is taken off); by default "idf-common", for uses of words "mean-common". `layers`, `state`: as of
        `Elmo.embed`, one vector a word. `fields`: what else will be told of a text, {"year": "integer"}: "text",
        "integer" or "number". `symbols`, `language`, `model_name`: see `Settings`. `name`: of the tables, where an
        address has several indexes.

        Raises `OutputError` where an index is there already, `MismatchError` for settings that do not fit.
        """
        pool = pool or ("mean-common" if unit == "word" else POOL)
        settings = Settings(
            model=elmo.fingerprint,
            model_name=model_name,
            width=elmo.dim,
            layers=_plain_layers(layers),
            state=state,
            unit=unit,
            words=tuple(sorted({word.lower() for word in words})),
            pool=pool if pool in POOLS else _refuse("pool", pool, list(POOLS)),
            symbols=symbols,
            language=language,
            fields=dict(fields or {}),
        )
        store = open_store(address, name)
        if store.settings is not None:
            store.close()
            raise OutputError(f"{address} holds an index already; open it, or choose another place or name")
        texts = [_sentences(text, unit, f"text {n} of the sample") for n, text in enumerate(islice(sample, SAMPLE))]
        pooling = _fitted(elmo, settings, texts)
        store.create(to_json(settings, pooling), width=elmo.dim, fields=settings.fields, language=language)
        return cls(store, elmo, address=str(address))

    @classmethod
    def open(cls, address: str | Path, elmo: Elmo | None = None, *, name: str = NAME) -> Index:
        """Open an index with the model that it was made with; without one, with that of the name it remembers.

        Raises `OutputError` where no index is, `MismatchError` where it was made with another model.
        """
        store = open_store(address, name)
        if store.settings is None:
            store.close()
            raise OutputError(f"there is no index {name!r} at {address}; make one with  elmo index TEXT {address}")
        settings, _ = from_json(store.settings)
        return cls(store, elmo or load(settings.model_name), address=str(address))

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()

    # ---------------------------------------------------------------- changing

    def add(
        self,
        source: str,
        texts: Iterable[Text],
        *,
        first: int = 1,
        fields: Iterable[Mapping[str, Value | None]] | None = None,
        progress: bool = False,
    ) -> Changes:
        """Put texts in as lines `first`, `first` + 1, ... of a source, in place of what those lines were.

        What is the same already is not computed again. A text without words takes a number and no row. `fields`: one
        mapping for each text. `progress` draws a bar on standard error.
        """
        changes = Changes()
        for _ in self._add(source, texts, first, fields, progress, changes):
            pass
        return changes

    def update(
        self,
        source: str,
        texts: Iterable[Text],
        *,
        fields: Iterable[Mapping[str, Value | None]] | None = None,
        progress: bool = False,
    ) -> Changes:
        """Make a source consist of these texts: as `add` from line 1, and what was beyond the last is deleted."""
        changes = Changes()
        last = max(self._add(source, texts, 1, fields, progress, changes), default=0)
        changes.deleted += self._store.delete([Condition("source", "=", source), Condition("line", ">", last)])
        return changes

    def delete(self, *conditions: str | Condition) -> int:
        """Delete the rows that meet all conditions, such as "source=a.txt"; return how many there were."""
        if not conditions:
            raise MismatchError("expected a condition that tells what to delete, found none; name one, as  line>=1")
        return self._store.delete(self._read(conditions))

    def optimize(self) -> None:
        """Make searching fast after many changes: from 10,000 rows on, nearest neighbours are found by a graph."""
        self._store.optimize()

    def _add(
        self,
        source: str,
        texts: Iterable[Text],
        first: int,
        fields: Iterable[Mapping[str, Value | None]] | None,
        progress: bool,
        changes: Changes,
    ) -> Iterator[int]:
        """Commit after commit; yield the last line of each."""
        if not source or first < 1:
            raise MismatchError(
                f"expected the name of a source and a first line of 1 or more, found {source!r}, {first}"
            )
        memory = self._elmo.word_vectors()
        numbered = self._numbered(source, texts, first, repeat({}) if fields is None else fields)
        with tqdm(unit=" texts", desc=source, disable=not progress) as bar:
            for together in _commits(numbered):
                self._commit(source, together, memory, changes)
                bar.update(len(together))
                yield together[-1].line

    def _numbered(
        self, source: str, texts: Iterable[Text], first: int, fields: Iterable[Mapping[str, Value | None]]
    ) -> Iterator[_Numbered]:
        for line, (text, values) in enumerate(zip(texts, fields, strict=False), first):
            where = f"{source}, line {line}"
            check_values(values, self.settings.fields, where=where)
            whole = {name: values.get(name) for name in self.settings.fields}
            yield _Numbered(line, _sentences(text, self.settings.unit, where), whole)

    def _commit(self, source: str, together: Sequence[_Numbered], memory: WordVectors, changes: Changes) -> None:
        """Make the lines of a source what they should be, computing what is not there."""
        have = self._store.digests(source, together[0].line, together[-1].line)
        wanted = {one.line: self._names(source, one) for one in together}
        due = [one for one in together if any(have.get(name) != mark for name, mark in wanted[one.line].items())]
        rows = [row for row in self._rows(source, due, memory) if have.get(row.key) != row.digest]
        if rows:
            self._store.upsert(rows)
        kept = {name for names in wanted.values() for name in names}
        if gone := set(have) - kept:
            self._store.delete_keys(gone)
        changed = sum(row.key in have for row in rows)
        changes.added += len(rows) - changed
        changes.changed += changed
        changes.unchanged += len(kept) - len(rows)
        changes.deleted += len(gone)

    def _names(self, source: str, text: _Numbered) -> dict[str, str]:
        """Return key and digest of the rows of a text."""
        written = " ".join(text.tokens)
        return {
            key(source, text.line, place): digest(written, word, text.fields)
            for place, word in self._units(text.tokens)
        }

    def _units(self, tokens: Sentence) -> Iterator[tuple[int, str]]:
        """Yield place and word of what is a row."""
        if self.settings.unit == "word":
            only = set(self.settings.words)
            yield from ((place, word) for place, word in enumerate(tokens) if not only or word.lower() in only)
        elif tokens:
            yield NO_PLACE, ""

    def _rows(self, source: str, texts: Sequence[_Numbered], memory: WordVectors) -> Iterator[Row]:
        stacks = _embedded(self._elmo, self.settings, [text.sentences for text in texts], memory)
        for text, vectors_TD in zip(texts, stacks, strict=True):
            tokens = text.tokens
            for place, word in self._units(tokens):
                vector_D = self._vector(tokens, vectors_TD, place)
                yield Row(source, text.line, place, word, " ".join(tokens), text.fields, vector_D)

    def _vector(self, tokens: Sentence, vectors_TD: Vectors, place: int) -> Vectors:
        if place == NO_PLACE:
            return self.pooling(tokens, vectors_TD)
        return self.pooling.finish(vectors_TD[place])

    # ---------------------------------------------------------------- searching

    def count(self, *conditions: str | Condition) -> int:
        """Return how many rows meet all conditions; without one, how many there are."""
        return self._store.count(self._read(conditions))

    def search(
        self,
        query: str | Sentence,
        *,
        place: int | None = None,
        count: int = 10,
        by: By = "vector",
        where: Iterable[str | Condition] = (),
        exact: bool = False,
        effort: int = 100,
    ) -> list[Hit]:
        """Return the `count` best rows, the best first.

        `query`: raw text, or tokens. To find uses of words it is a sentence with the word marked, "the *bank* of the
        river", or tokens and the `place` of the word. `by`: "vector" ranks by the cosine with the query, "text" by full
        text, "both" by the sum of reciprocal ranks in the two. `where`: conditions that all hits meet, as "line<=100".
        `exact` compares with every row; else in an index that has a graph, `effort` rows are looked at closely: more
        find more and take longer.

        Raises `MismatchError` for a query or a condition that does not fit the index.
        """
        if count < 1 or effort < 1:
            raise MismatchError(f"count and effort must be at least 1, found {count} and {effort}")
        conditions, asked = self._read(where), self._query(query, place)
        width = None if exact else effort
        if by == "text":
            return self._store.matching(asked.text, count, conditions)
        if by == "vector":
            return self._store.nearest(self.vector(asked), count, conditions, effort=width)
        if by != "both":
            _refuse("by", by, ["vector", "text", "both"])
        depth = max(_FUSED, count)
        near = self._store.nearest(self.vector(asked), depth, conditions, effort=width)
        return fuse([near, self._store.matching(asked.text, depth, conditions)], count)

    def vector(self, query: Query) -> Vectors:
        """Return the vector (D,) that rows are compared with."""
        (vectors_TD,) = _embedded(self._elmo, self.settings, [query.sentences], None)
        tokens = [token for sentence in query.sentences for token in sentence]
        return self._vector(tokens, vectors_TD, NO_PLACE if query.place is None else query.place)

    def _query(self, query: str | Sentence, place: int | None) -> Query:
        word = self.settings.unit == "word"
        if isinstance(query, str):
            if place is not None:
                raise MismatchError("a place counts tokens, found one with a string; mark the word with asterisks")
            return read_query(query, word=word, symbols=self.settings.symbols)
        return given_query(query, place, word=word)

    def _read(self, conditions: Iterable[str | Condition]) -> list[Condition]:
        fields = self.settings.fields
        read = [read_condition(c, fields) if isinstance(c, str) else c for c in conditions]
        for condition in read:
            check(condition, fields)
        return read


# ---------------------------------------------------------------- helpers


def _embedded(
    elmo: Elmo, settings: Settings, texts: Sequence[Sequence[Sentence]], memory: WordVectors | None
) -> Iterator[Vectors]:
    """Yield the vectors of the words of each text, (T, D), those of its sentences one behind the other."""
    sentences = (sentence for text in texts for sentence in text)
    vectors = elmo.embed(sentences, layers=settings.layers, state=settings.state, words=memory)  # type: ignore[arg-type]
    for text in texts:
        stacks = list(islice(vectors, len(text)))
        yield np.concatenate(stacks) if stacks else np.zeros((0, settings.width), np.float32)


def _fitted(elmo: Elmo, settings: Settings, texts: Sequence[Sequence[Sentence]]) -> Pooling:
    """Return what the pooling of an index learns from a sample."""
    weighting, directions = POOLS[settings.pool]
    joined = [[token for sentence in text for token in sentence] for text in texts]
    pooling = Pooling(Idf.of(joined) if weighting == "idf" and joined else None)
    if directions is None or len(texts) < _ENOUGH:
        return pooling
    stacks = _embedded(elmo, settings, texts[:_SAMPLE_VECTORS], elmo.word_vectors())
    if settings.unit == "word":
        vectors_ND = np.concatenate(list(stacks))
    else:
        vectors_ND = np.stack([pooling.mean(*pair) for pair in zip(joined, stacks, strict=False)])
    return Pooling(pooling.idf, Common.of(vectors_ND, directions=directions))


def _sentences(text: Text, unit: Unit, where: str) -> Sequence[Sentence]:
    """Return the sentences of what was added; a string would be split into letters."""
    sentences = text if unit == "passage" else [text]
    for sentence in sentences:
        if isinstance(sentence, str) or not all(isinstance(token, str) for token in sentence):
            expected = "a list of sentences, each a list of tokens" if unit == "passage" else "a list of tokens"
            raise MismatchError(f"{where}: expected {expected}, found {text!r:.60}; split it")
    return sentences  # type: ignore[return-value]


def _commits(numbered: Iterable[_Numbered]) -> Iterator[list[_Numbered]]:
    """Yield texts in lists, each to be one commit."""
    together: list[_Numbered] = []
    tokens = 0
    for text in numbered:
        together.append(text)
        tokens += len(text.tokens)
        if len(together) == _COMMIT or tokens >= _COMMIT_TOKENS:
            yield together
            together, tokens = [], 0
    if together:
        yield together


def _plain_layers(layers: Layers) -> Any:
    """Return `layers` as JSON holds it."""
    if layers == "all":
        raise MismatchError("layers: expected one vector a word, found 'all'; choose a layer or \"average\"")
    return layers if isinstance(layers, str | int) else [float(weight) for weight in layers]


def _refuse(what: str, found: object, allowed: list[str]) -> NoReturn:
    raise MismatchError(f"{what}: expected {', '.join(map(repr, allowed))}, found {found!r}")
