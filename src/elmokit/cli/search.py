"""`elmo index`, `elmo search`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from elmokit.cli.options import (
    Column,
    Device,
    HeadWords,
    Model,
    Precision,
    Symbols,
    Threads,
    Tokenize,
    Weights,
    in_json,
    load_model,
    notice,
    to_json,
)

if TYPE_CHECKING:
    from elmokit.model import Elmo
    from elmokit.search import Hit, Index, Kind, Reader, Settings

Database = Annotated[
    str, Argument(metavar="DB", help="folder of the index, or a server: postgresql://user@host/database")
]
Name = Annotated[str, Option(help="of the index, where DB holds several")]

_SPACES = str.maketrans("\t\r\n", "   ")
_OWN_MODEL = "path, hub repository user/name, or published name; without it the one that the index remembers"


def index(
    texts: Annotated[list[str], Argument(metavar="TEXT...", help="one tokenised sentence a line; folders, '-'")],
    db: Database,
    unit: Annotated[
        Literal["sentence", "passage", "word"] | None,
        Option(help="a row is a sentence (default), a line of several sentences (passage), or a use of a word"),
    ] = None,
    word: Annotated[list[str] | None, Option(help="uses of this word only; may be given several times")] = None,
    layers: Annotated[str | None, Option(help="average, top or a number; default: 0, of words average")] = None,
    pool: Annotated[
        str | None, Option(help="mean, idf, white-mean or white-idf (default), of words white-mean")
    ] = None,
    state: Annotated[
        Literal["fresh", "warm"] | None, Option(help="sentences start: fresh (from zeros), warm (a stored state)")
    ] = None,
    language: Annotated[
        str | None, Option(help="whose endings full text leaves aside: English (default), German ..., '' for none")
    ] = None,
    field: Annotated[list[str] | None, Option(help="Parquet: a column to keep; may be given several times")] = None,
    delete: Annotated[bool, Option("--delete", help="take these texts out of the index")] = False,
    name: Name = "elmo",
    model: Model = None,
    weights: Weights = None,
    vocabulary: HeadWords = None,
    tokenize: Tokenize = False,
    symbols: Symbols = False,
    column: Column = None,
    device: Device = "cpu",
    precision: Precision = "float32",
    threads: Threads = None,
) -> None:
    """Begin an index for semantic search, or bring one up to date: what is new is added, what has gone is deleted."""
    from elmokit.search import settings_of

    there = settings_of(db, name=name)
    source = model or (there.model_name if there else None)  # which an index remembers
    elmo = load_model(source, weights, vocabulary, threads, device=device, precision=precision)
    if delete:
        _delete(db, elmo, name, texts)
        return
    wanted = {
        "unit": unit or ("word" if word else None),
        "words": word and tuple(sorted({one.lower() for one in word})),
        "layers": int(layers) if layers and layers.lstrip("-").isdigit() else layers,
        "pool": pool,
        "state": state,
        "language": language,
        "symbols": symbols or None,
    }
    reading: dict[str, Any] = {"tokenize": tokenize, "symbols": symbols, "column": column, "fields": field or ()}
    try:
        _update(db, elmo, texts, there, wanted, reading, name=name, model=model)
    except KeyboardInterrupt:
        notice(f"interrupted; what is done is safe in {db}, run the same command again to continue")
        raise typer.Exit(130) from None


def search(
    db: Database,
    query: Annotated[
        str, Argument(metavar="QUERY", help="a text, or for uses 'the *bank* of the river'; '-' reads one a line")
    ],
    count: Annotated[int, Option("-k", "--count", min=1, help="how many to find")] = 10,
    by: Annotated[
        Literal["vector", "text", "both"], Option(help="rank by meaning, by full text, or by both ranks together")
    ] = "vector",
    where: Annotated[
        list[str] | None, Option(help="source=a.txt, line<=100, year>=1990 ...; may be given several times")
    ] = None,
    exact: Annotated[bool, Option("--exact", help="compare with every row")] = False,
    effort: Annotated[int, Option(min=1, help="rows looked at closely in a large index: more find more, slower")] = 100,
    as_json: Annotated[bool, Option("--json", help="print JSON, one object a line")] = False,
    out: Annotated[Path | None, Option(help="write what is found to this Parquet file instead")] = None,
    name: Name = "elmo",
    model: Annotated[str | None, Option("--model", help=_OWN_MODEL)] = None,
    weights: Weights = None,
    vocabulary: HeadWords = None,
    device: Device = "cpu",
    precision: Precision = "float32",
    threads: Threads = None,
) -> None:
    """Print the nearest sentences, passages or uses of an index, as TSV: rank, score, where it is from, text."""
    from elmokit.errors import expect_file_place
    from elmokit.reading import read_lines
    from elmokit.search import Index, settings_of

    if out:
        expect_file_place(out)  # before the work
    there = settings_of(db, name=name)
    elmo = None
    if there:
        elmo = load_model(model or there.model_name, weights, vocabulary, threads, device=device, precision=precision)
    queries = (line for line in read_lines("-") if line.strip()) if query == "-" else iter([query])
    with Index.open(db, elmo, name=name) as index:
        options: dict[str, Any] = {"count": count, "by": by, "where": where or (), "exact": exact, "effort": effort}
        rows = (row for asked in queries for row in _rows(asked, index.search(asked, **options)))
        if out:
            _write(list(rows), index.settings.fields, out)
        else:
            _print(rows, list(index.settings.fields), as_json=as_json)


# ---------------------------------------------------------------- helpers


def _delete(db: str, elmo: Elmo, name: str, texts: list[str]) -> None:
    from elmokit.reading import expand
    from elmokit.search import Condition, Index

    # A file that is gone from the disk can still be deleted from the index, so only folders are looked into.
    named = [path for text in texts for path in (expand([text]) if Path(text).is_dir() else [text])]
    with Index.open(db, elmo, name=name) as index:
        for text in named:
            deleted = index.delete(Condition("source", "=", text))
            notice(f"{text}: {deleted:,} rows deleted")
        index.optimize()


def _update(
    db: str,
    elmo: Elmo,
    texts: list[str],
    there: Settings | None,
    wanted: Mapping[str, Any],
    reading: Mapping[str, Any],
    *,
    name: str,
    model: str | None,
) -> None:
    """Open or make the index, and bring it up to date."""
    from elmokit import search
    from elmokit.reading import expand

    files = expand(texts)
    if there:
        there.check(**wanted, fields=search.kinds_of(files[0], reading["fields"]) if reading["fields"] else None)
        reading = {**reading, "fields": tuple(there.fields), "symbols": there.symbols}
    reader = search.Reader(there.unit if there else wanted["unit"] or "sentence", **reading)
    with search.readable_twice(files) as paths:
        index = search.Index.open(db, elmo, name=name) if there else _made(db, elmo, paths, reader, wanted, name, model)
        with index:
            done = search.update_from(index, paths, reader)
            index.optimize()
            rows = index.count()
    told = ", ".join(f"{number:,} {what}" for what, number in asdict(done).items())
    notice(f"{index.address}: {rows:,} rows ({told})")


def _made(
    db: str,
    elmo: Elmo,
    paths: Mapping[str, str],
    reader: Reader,
    wanted: Mapping[str, Any],
    name: str,
    model: str | None,
) -> Index:
    from elmokit import search

    given = {key: value for key, value in wanted.items() if value is not None}
    kinds = search.kinds_of(next(iter(paths.values())), reader.fields) if reader.fields else None
    called = str(Path(model).resolve()) if model and Path(model).exists() else model
    sample = search.sample(paths, reader)
    return search.Index.create(db, elmo, sample=sample, fields=kinds, model_name=called, name=name, **given)


def _rows(query: str, hits: list[Hit]) -> Iterator[dict[str, Any]]:
    for rank, hit in enumerate(hits, start=1):
        plain = {key: value for key, value in asdict(hit).items() if key != "fields"}
        yield {"query": query, "rank": rank, **plain, "marked": hit.marked, **hit.fields}


def _print(rows: Iterator[dict[str, Any]], fields: list[str], *, as_json: bool) -> None:
    if as_json:
        for row in rows:
            print(to_json({name: in_json(value) for name, value in row.items()}))
    else:
        found = list(islice(rows, 1))  # before anything is printed: it may be an error
        print("\t".join(("rank", "score", "source", "line", *fields, "text")))
        for row in chain(found, rows):
            values = ("" if row[name] is None else row[name] for name in fields)
            print(
                _tsv((row["rank"], f"{row['score']:.4f}", row["source"], row["line"], *values, row["marked"])),
                flush=True,
            )


def _tsv(values: Iterable[Any]) -> str:
    """Return one line; tabs and line ends inside of a value, which would begin another, are spaces."""
    return "\t".join(str(value).translate(_SPACES) for value in values)


def _write(rows: list[dict[str, Any]], fields: Mapping[str, Kind], out: Path) -> None:
    """Write a Parquet file, whose columns are the same whatever was found."""
    from elmokit.checkpoint import replace_file
    from elmokit.errors import require
    from elmokit.search import OWN_FIELDS

    pa, parquet = (require(module, extra="arrow") for module in ("pyarrow", "pyarrow.parquet"))
    types = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64()}
    kinds = {"query": "text", "rank": "integer", "score": "number", **OWN_FIELDS, "marked": "text", **fields}
    schema = pa.schema([(name, types[kind]) for name, kind in kinds.items()])
    buffer = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), buffer)
    replace_file(out, buffer.getvalue().to_pybytes())
    notice(f"{out}: {len(rows):,} rows")
