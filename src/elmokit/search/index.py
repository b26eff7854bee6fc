"""`Index`: texts in, the nearest of them out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias

from tqdm import tqdm

from elmokit.errors import (
    MismatchError,
    OutputError,
    expect,
    expect_iterable,
    expect_model,
    expect_one_of,
    expect_whole,
)
from elmokit.model import Elmo, Layers, load
from elmokit.search.pooling import Vectors
from elmokit.search.query import Query, given_query, read_query
from elmokit.search.rows import NO_PLACE, Condition, Hit, Kind, Row, check, digest, fuse, key, read_condition
from elmokit.search.settings import Settings, State, Unit, from_json, kinds_of, one_vector, to_json
from elmokit.search.store import Store, open_store, shown
from elmokit.search.texts import Numbered, Sentence, Text, Values, commits, numbered, sentences_of, written
from elmokit.search.vectors import DEFAULTS, POOLS, SAMPLE, embedded, fitted
from elmokit.text import listed_words
from elmokit.vectors import unit
from elmokit.word_vectors import WordVectors

By: TypeAlias = Literal["vector", "text", "both"]

NAME = "elmo"
# How far down each ranking is read where two are fused.
_FUSED = 100
# Stores count in 32 bits and look at twice as many rows as are asked for; no list of hits is longer than this.
_MOST = 2**30


@dataclass(frozen=True)
class Changes:
    """What an update did, in rows."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    deleted: int = 0

    def __add__(self, other: Changes) -> Changes:
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Changes(*(one + more for one, more in pairs))


class Index:
    """Sentences, passages or uses of words, each with its vector, in a store on disk or on a server.

    `create` makes one, `open` opens it again. Every change is kept as soon as it is made, in commits of a thousand
    texts, so that a killed run loses no more than the last one and repeating it adds nothing twice. Searching may be
    done from several threads.
    """

    def __init__(self, store: Store, elmo: Elmo, *, address: str) -> None:
        """For `create` and `open`. Raises `MismatchError` where the index was made with another model."""
        self.settings, self.pooling = from_json(store.settings or {})
        self.address = shown(address)
        self._store = store
        self._elmo = elmo
        if self.settings.model != elmo.fingerprint:
            name = f" {self.settings.model_name}" if self.settings.model_name else ""
            raise MismatchError(
                f"the index {self.address} was made with another model{name} (fingerprint {self.settings.model[:12]}, "
                f"found {elmo.fingerprint[:12]}); open it with that model, in the "
                "precision that it had then, or make another index"
            )

    @classmethod
    def create(
        cls,
        address: str | Path,
        elmo: Elmo,
        *,
        sample: Iterable[Text] = (),
        unit: Unit = "sentence",
        words: Sequence[str] = (),
        layers: Layers | None = None,
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
        learns (100,000 at most). `layers`, `state`: as of `Elmo.embed`, one vector a word. `pool`: "mean", or "idf"
        (rare words weigh more), or either with "white-" before it (the vectors of words are whitened first, if the
        sample has ten words for each of their values). By default layer 0 and "white-idf", for uses of words "average"
        and "white-mean". `fields`: what else will be told of a text, {"year": "integer"}: "text", "integer" or
        "number". `symbols`, `language`, `model_name`: see `Settings`. `name`: of the tables, where an address has
        several indexes.

        Raises `OutputError` where an index is there already, `MismatchError` for settings that do not fit.
        """
        expect_model(elmo)
        expect_one_of(DEFAULTS, unit, "unit")
        expect_one_of(("fresh", "warm"), state, "state")
        expect(str, language, "language", "its name")
        expect_iterable(sample, "sample", "texts")
        words = listed_words(words, "words")
        if words and unit != "word":
            raise MismatchError(f"words are for an index of uses, found unit {unit!r}; leave them out, or take 'word'")
        usual_layers, usual_pool = DEFAULTS[unit]
        pool = usual_pool if pool is None else pool
        expect_one_of(POOLS, pool, "pool")
        settings = Settings(
            model=elmo.fingerprint,
            model_name=model_name,
            width=elmo.dim,
            layers=one_vector(usual_layers if layers is None else layers),
            state=state,
            unit=unit,
            words=tuple(sorted({word.lower() for word in words})),
            pool=pool,
            symbols=symbols,
            language=language,
            fields=kinds_of(fields),
        )
        elmo.embed((), layers=settings.layers, state=settings.state)  # type: ignore[arg-type] # raises what would later
        with _opened(address, name) as store:
            if store.settings is not None:
                raise OutputError(f"{shown(address)} holds an index already; open it, or choose another place or name")
            texts = [
                sentences_of(text, unit, f"text {n} of the sample") for n, text in enumerate(islice(sample, SAMPLE))
            ]
            pooling = fitted(elmo, settings, texts)
            store.create(to_json(settings, pooling), width=elmo.dim, fields=settings.fields, language=language)
            return cls(store, elmo, address=str(address))

    @classmethod
    def open(cls, address: str | Path, elmo: Elmo | None = None, *, name: str = NAME) -> Index:
        """Open an index with the model that it was made with; without one, with that of the name it remembers.

        Raises `OutputError` where no index is, `MismatchError` where it was made with another model.
        """
        with _opened(address, name) as store:
            if store.settings is None:
                at = shown(address)
                raise OutputError(f"there is no index {name!r} at {at}; make one with  elmo index TEXT {at}")
            settings, _ = from_json(store.settings)
            elmo = load(settings.model_name) if elmo is None else elmo
            expect_model(elmo)
            return cls(store, elmo, address=str(address))

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
        fields: Iterable[Values] | None = None,
        progress: bool = False,
    ) -> Changes:
        """Put texts in as lines `first`, `first` + 1, ... of a source, in place of what those lines were.

        What is the same already is not computed again. A text without words takes a number and no row. `fields`: one
        mapping for each text. `progress` draws a bar on standard error.
        """
        return sum((changes for _, changes in self._add(source, texts, first, fields, progress)), Changes())

    def update(
        self,
        source: str,
        texts: Iterable[Text],
        *,
        fields: Iterable[Values] | None = None,
        progress: bool = False,
    ) -> Changes:
        """Make a source consist of these texts: as `add` from line 1, and what was beyond the last is deleted."""
        last, total = 0, Changes()
        for last, changes in self._add(source, texts, 1, fields, progress):  # noqa: B007 (the last one is what counts)
            total += changes
        beyond = [Condition("source", "=", source), Condition("line", ">", last)]
        return total + Changes(deleted=self._store.delete(beyond))

    def delete(self, *conditions: str | Condition) -> int:
        """Delete the rows that meet all conditions, such as "source=a.txt"; return how many there were."""
        if not conditions:
            raise MismatchError("expected a condition that tells what to delete, found none; name one, as  line>=1")
        return self._store.delete(self._read(conditions))

    def optimize(self) -> None:
        """Make searching fast after many changes: from 10,000 rows on, nearest neighbours are found by a graph."""
        self._store.optimize()

    def _add(
        self, source: str, texts: Iterable[Text], first: int, fields: Iterable[Values] | None, progress: bool
    ) -> Iterator[tuple[int, Changes]]:
        """Commit after commit; yield the last line and the changes of each."""
        checked = numbered(source, texts, first, fields, unit=self.settings.unit, kinds=self.settings.fields)
        memory = self._elmo.word_vectors()
        with tqdm(unit=" texts", desc=source, disable=not progress) as bar:
            for together in commits(checked):
                yield together[-1].line, self._commit(source, together, memory)
                bar.update(len(together))

    def _commit(self, source: str, together: Sequence[Numbered], memory: WordVectors) -> Changes:
        """Make the lines of a source what they should be, computing what is not there."""
        have = self._store.digests(source, together[0].line, together[-1].line)
        wanted = {text.line: self._names(source, text) for text in together}
        due = [text for text in together if any(have.get(name) != mark for name, mark in wanted[text.line].items())]
        rows = [row for row in self._rows(source, due, wanted, memory) if have.get(row.key) != row.digest]
        if rows:
            self._store.upsert(rows)
        kept = {name for names in wanted.values() for name in names}
        if gone := set(have) - kept:
            self._store.delete_keys(gone)
        changed = sum(row.key in have for row in rows)
        return Changes(len(rows) - changed, changed, len(kept) - len(rows), len(gone))

    def _names(self, source: str, text: Numbered) -> dict[str, str]:
        """Return key and digest of the rows of a text."""
        mark = digest([written(sentence) for sentence in text.sentences], text.fields)
        return {key(source, text.line, place): mark for place, _ in self._units(text.tokens)}

    def _units(self, tokens: Sentence) -> Iterator[tuple[int, str]]:
        """Yield place and word of what is a row."""
        if self.settings.unit == "word":
            only = set(self.settings.words)
            yield from ((place, word) for place, word in enumerate(tokens) if not only or word.lower() in only)
        elif tokens:
            yield NO_PLACE, ""

    def _rows(
        self, source: str, texts: Sequence[Numbered], marks: Mapping[int, Mapping[str, str]], memory: WordVectors
    ) -> Iterator[Row]:
        stacks = embedded(self._elmo, self.settings, [text.sentences for text in texts], memory=memory)
        for text, vectors_TD in zip(texts, stacks, strict=True):
            tokens, line = text.tokens, text.line
            for place, word in self._units(tokens):
                vector_D, mark = self._vector(tokens, vectors_TD, place), marks[line][key(source, line, place)]
                yield Row(source, line, place, word, written(tokens), text.fields, mark, vector_D)

    def _vector(self, tokens: Sentence, vectors_TD: Vectors, place: int) -> Vectors:
        if place == NO_PLACE:
            return self.pooling(tokens, vectors_TD)
        return unit(self.pooling.word(vectors_TD[place]))

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
        text (of uses, those of the word itself), "both" by the sum of reciprocal ranks in the two. `where`: conditions
        that all hits meet, as "line<=100". `exact` compares with every row; else, where the index has a graph, `effort`
        rows are looked at closely: more find more and take longer.

        Raises `MismatchError` for a query or a condition that does not fit the index.
        """
        expect_whole(count, "count", least=1)
        expect_whole(effort, "effort", least=1)
        expect_one_of(("vector", "text", "both"), by, "by")
        count, effort = min(count, _MOST), min(effort, _MOST)
        conditions, asked = self._read(where), self._query(query, place)
        width = None if exact else effort
        if by == "text":
            return self._matching(asked, count, conditions)
        if by == "vector":
            return self._store.nearest(self.vector(asked), count, conditions, effort=width)
        depth = max(_FUSED, count)
        near = self._store.nearest(self.vector(asked), depth, conditions, effort=width)
        return fuse([near, self._matching(asked, depth, conditions)], count)

    def _matching(self, query: Query, count: int, conditions: list[Condition]) -> list[Hit]:
        """Return the best by full text; of uses of words, those of the word itself, as their texts fit."""
        if query.place is not None:
            conditions = [*conditions, Condition("word", "=", query.sentences[0][query.place])]
        return self._store.matching(query.text, count, conditions)

    def vector(self, query: Query) -> Vectors:
        """Return the vector (D,) that rows are compared with."""
        (vectors_TD,) = embedded(self._elmo, self.settings, [query.sentences])
        tokens = [token for sentence in query.sentences for token in sentence]
        return self._vector(tokens, vectors_TD, NO_PLACE if query.place is None else query.place)

    def _query(self, query: str | Sentence, place: int | None) -> Query:
        word = self.settings.unit == "word"
        if isinstance(query, str):
            if place is not None:
                raise MismatchError("a place counts tokens, found one with a string; mark the word with asterisks")
            return read_query(query, word=word, symbols=self.settings.symbols)
        if place is not None:
            expect_whole(place, "place")
        return given_query(listed_words(query, "query"), place, word=word)

    def _read(self, conditions: Iterable[str | Condition]) -> list[Condition]:
        fields = self.settings.fields
        expect_iterable(conditions, "where", "conditions")
        read = [read_condition(c, fields) if isinstance(c, str) else c for c in conditions]
        for condition in read:
            check(condition, fields)
        return read


# ---------------------------------------------------------------- helpers


@contextmanager
def _opened(address: str | Path, name: str) -> Iterator[Store]:
    """Yield a store, and close it again where something is wrong."""
    store = open_store(address, name)
    try:
        yield store
    except BaseException:
        store.close()
        raise


def settings_of(address: str | Path, *, name: str = NAME) -> Settings | None:
    """Return what an index was made with; None where there is none."""
    store = open_store(address, name)
    store.close()
    return from_json(store.settings)[0] if store.settings is not None else None
