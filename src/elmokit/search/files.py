"""Files into an index: how they are read, and each as a source of its own."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat, tee
from pathlib import Path
from typing import Any

from elmokit.errors import TextError, require
from elmokit.reading import Splitter, is_parquet, read_items
from elmokit.search.index import Changes, Index
from elmokit.search.rows import Kind
from elmokit.search.settings import Unit
from elmokit.search.texts import Text, Values


@dataclass(frozen=True)
class Reader:
    """How the texts of an index are read from files: as `reading.read_sentences` tells, and which columns with them.

    unit: for passages, an item (a line, a row of Parquet) is one text, whatever sentences it is split into.
    """

    unit: Unit
    tokenize: bool = False
    symbols: bool = False
    column: str | None = None
    fields: Sequence[str] = ()

    def __call__(self, path: str | Path) -> Iterator[tuple[Text, Values]]:
        """Yield the texts of a file and what else is known of each."""
        split = Splitter(tokenize=self.tokenize, symbols=self.symbols)
        values = _read_columns(path, self.fields) if self.fields else repeat({})
        for item, known in zip(read_items(path, column=self.column), values, strict=False):
            if self.unit == "passage":
                yield list(split([item])), known
            else:
                yield from ((sentence, known) for sentence in split([item]))


@contextmanager
def readable_twice(files: Sequence[str]) -> Iterator[Mapping[str, str]]:
    """Yield the path of each file: standard input ("-") is kept in a file for a while, as it can be read only once."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "stdin"
        if "-" in files:
            with open(kept, "wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        yield {file: str(kept) if file == "-" else file for file in files}


def sample(paths: Mapping[str, str], reader: Reader) -> Iterator[Text]:
    """Yield the texts of files, for `Index.create` to learn from."""
    return (text for path in paths.values() for text, _ in reader(path))


def update_from(index: Index, paths: Mapping[str, str], reader: Reader) -> Changes:
    """Make an index hold what files hold, each under its name; draws bars on standard error."""
    total = Changes()
    for name, path in paths.items():
        texts, known = tee(reader(path))
        total += index.update(name, (text for text, _ in texts), fields=(values for _, values in known), progress=True)
    return total


# ---------------------------------------------------------------- columns


def kinds_of(path: str | Path, names: Sequence[str]) -> dict[str, Kind]:
    """Return what kind of values some columns of a Parquet file hold; `TextError` for others than text and numbers."""
    with _parquet(path) as file:
        return {name: _kind(path, file.schema_arrow, name) for name in names}


def _kind(path: str | Path, schema: Any, name: str) -> Kind:
    types = require("pyarrow", extra="arrow").types
    if name not in schema.names:
        raise TextError(f"{path} has no column {name!r}; it has: {', '.join(schema.names)}")
    found = schema.field(name).type
    if types.is_string(found) or types.is_large_string(found):
        return "text"
    if types.is_integer(found):
        return "integer"
    if types.is_floating(found):
        return "number"
    raise TextError(f"{path}: the column {name} is of type {found}, expected text or numbers; leave it out")


def _read_columns(path: str | Path, names: Sequence[str]) -> Iterator[Values]:
    with _parquet(path) as file:
        for batch in file.iter_batches(batch_size=4096, columns=list(names)):
            yield from batch.to_pylist()


@contextmanager
def _parquet(path: str | Path) -> Iterator[Any]:
    """Yield an open file; `TextError` for one that is no Parquet, or is broken where it is read."""
    if not is_parquet(path):
        raise TextError(f"{path} is no Parquet file and has no columns to keep; leave --field out")
    parquet = require("pyarrow.parquet", extra="arrow")
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except TextError:  # says what is wrong already
        raise
    except (OSError, ValueError) as error:  # pyarrow's own are among them
        raise TextError(f"{path} cannot be read ({error}); check the file") from None
