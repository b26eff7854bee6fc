"""The embedded store: LanceDB, a folder (or an address such as s3://...) that one process or many may open.

Every change is one commit: it is there whole, or not at all.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from elmokit.errors import ElmoError, MismatchError, OutputError, require
from elmokit.search.rows import OWN_FIELDS, Condition, Hit, Kind, Row, hit

os.environ.setdefault("LANCEDB_LOG", "error")  # else it tells on standard error of what is no trouble
lancedb = require("lancedb", extra="search")
lance_index = require("lancedb.index", extra="search")
pa = require("pyarrow", extra="search")

# Below so many rows, comparing with all of them is as fast.
_SMALL = 10_000
# Rows looked at for each that is put into the graph: a third of the default, which takes three times as long.
_WIDTH = 100
# Old versions that nobody has read for so long are deleted when the index is optimised.
_KEPT = timedelta(hours=1)
# What Lance says around the reason: the layers that passed it on, and where in its source it was.
_LAYERS = re.compile(r"lance error: |LanceError\(\w+\): |Generic N/A error: |Wrapped error: |, \S+\.rs:.*")
_TYPES = {"text": "string", "integer": "int64", "number": "float64"}


class LanceStore:
    """The rows and the settings of one index: the tables NAME and NAME_settings of a LanceDB."""

    def __init__(self, address: str, name: str) -> None:
        _check_folder(address)
        self.address, self.name = address, name
        with self._told("read"):
            self._db: Any = _connected(address) if "://" in address or Path(address).exists() else None
            self.settings = self._read_settings()
            self._table: Any = _opened(self._db, name) if self.settings else None
        if self.settings and self._table is None:
            raise OutputError(
                f"the index {address} is damaged: its table {name}.lance cannot be opened; bring that back from a "
                "copy, or make the index anew in another folder"
            )

    def _read_settings(self) -> dict[str, Any] | None:
        table = _opened(self._db, f"{self.name}_settings")
        return None if table is None else json.loads(table.to_arrow()["settings"][0].as_py())

    def create(self, settings: Mapping[str, Any], *, width: int, fields: Mapping[str, Kind], language: str) -> None:
        """Make an empty index. The settings are written last: without them there is none."""
        is_new = "://" not in self.address and not Path(self.address).exists()
        kept = pa.table({"settings": [json.dumps(settings)]})
        with self._told("written"):
            self._db = self._db or _connected(self.address)
            before = _opened(self._db, self.name)
            if before is not None and before.count_rows():
                raise OutputError(f"the table {self.name} holds rows that are no index; choose another --name")
        with self._told("written"), self._or_nothing(is_new):
            self._table = self._db.create_table(self.name, schema=_schema(width, fields), mode="overwrite")
            for column in ("key", "source"):
                self._table.create_index(column, config=lance_index.BTree())
            self._table.create_index("text", config=_full_text(language))
            self._db.create_table(f"{self.name}_settings", kept, mode="overwrite")
        self.settings = dict(settings)

    def digests(self, source: str, first: int, last: int) -> dict[str, str]:
        """Return key and digest of the rows of a source from line `first` to line `last`."""
        where = f"source = {_quoted(source)} AND line >= {first} AND line <= {last}"
        with self._told("read"):
            found = self._table.search().where(where).select(["key", "digest"]).limit(None).to_arrow()
        return dict(zip(found["key"].to_pylist(), found["digest"].to_pylist(), strict=True))

    def upsert(self, rows: Sequence[Row]) -> None:
        """Add rows, each in place of one of the same key, in one commit."""
        merge = self._table.merge_insert("key").when_matched_update_all().when_not_matched_insert_all()
        with self._told("written"):
            merge.execute(_arrow(rows, self._table.schema))

    def delete(self, conditions: Sequence[Condition]) -> int:
        """Delete the rows that meet all conditions; return how many."""
        with self._told("written"):
            return self._table.delete(_where(conditions) or "true").num_deleted_rows

    def delete_keys(self, keys: Iterable[str]) -> None:
        """Delete rows by their names."""
        if names := ", ".join(map(_quoted, keys)):
            with self._told("written"):
                self._table.delete(f"key IN ({names})")

    def nearest(
        self, vector: NDArray[np.float32], count: int, conditions: Sequence[Condition], *, effort: int | None
    ) -> list[Hit]:
        """Return the rows of the largest cosines with a vector; `effort` None compares with every row."""
        query = self._table.search(vector, vector_column_name="vector").distance_type("cosine")
        query = query.ef(max(effort, 2 * count)).refine_factor(2) if effort else query.bypass_vector_index()
        with self._told("read"):
            found = _filtered(query, conditions).select([*self._columns(), "_distance"]).limit(count).to_list()
        return [hit(row, 1 - row.pop("_distance")) for row in found]

    def matching(self, text: str, count: int, conditions: Sequence[Condition]) -> list[Hit]:
        """Return the rows with the largest BM25 of any of these words."""
        query = self._table.search(text, query_type="fts", fts_columns="text")
        with self._told("read"):
            found = _filtered(query, conditions).select([*self._columns(), "_score"]).limit(count).to_list()
        return [hit(row, row.pop("_score")) for row in found]

    def count(self, conditions: Sequence[Condition]) -> int:
        """Return how many rows meet all conditions."""
        with self._told("read"):
            return self._table.count_rows(_where(conditions) or None)

    def optimize(self) -> None:
        """Write small files together, and bring the indexes up to date; many rows get one for their vectors."""
        graph = lance_index.HnswSq(distance_type="cosine", m=16, ef_construction=_WIDTH)
        with self._told("written"):
            indexed = {column for index in self._table.list_indices() for column in index.columns}
            if "vector" not in indexed and self._table.count_rows() >= _SMALL:
                self._table.create_index("vector", config=graph)
            self._table.optimize(cleanup_older_than=_KEPT)

    def close(self) -> None:
        """Let go of the table; nothing is kept open."""
        self._table = None

    @contextmanager
    def _told(self, what: Literal["read", "written"]) -> Iterator[None]:
        """Tell in one sentence why LanceDB does not read or write; what was committed before is safe."""
        try:
            yield
        except ElmoError:  # is one already
            raise
        except (RuntimeError, ValueError, OSError) as error:  # of Lance, of its arguments, of the file system
            reason = _LAYERS.sub("", str(error).splitlines()[0])
            raise OutputError(
                f"the index {self.address} cannot be {what} ({reason}); mend that and try again"
            ) from error

    @contextmanager
    def _or_nothing(self, is_new: bool) -> Iterator[None]:
        """Leave no part of an index where one cannot be made, nor its folder if that `is_new`."""
        try:
            yield
        except BaseException:
            with suppress(RuntimeError, ValueError, OSError):  # what was wrong first is what is told
                if _opened(self._db, f"{self.name}_settings") is None:  # else it is whole, or another process made it
                    self._db.drop_table(self.name, ignore_missing=True)
                if is_new:
                    Path(self.address).rmdir()  # unless it holds something else by now
            raise

    def _columns(self) -> list[str]:
        return [*OWN_FIELDS, *(self.settings or {})["fields"]]


def _check_folder(address: str) -> None:
    """Refuse a file, and a folder of something else: LanceDB would write its tables into it."""
    path = Path(address)
    if "://" in address or not path.exists():
        return
    if not path.is_dir():
        raise OutputError(f"{address} is a file, expected a folder for the index; choose another name")
    if any(path.iterdir()) and not any(path.glob("*.lance")):
        raise OutputError(
            f"the folder {address} holds other files, expected an index or an empty folder; choose another"
        )


def _connected(address: str) -> Any:
    """Open a LanceDB, making the folder; what other processes commit is seen."""
    return lancedb.connect(address, read_consistency_interval=timedelta(0))


def _opened(db: Any, name: str) -> Any:
    """Open a table; None where there is none, or where whoever was making it was killed before its first version."""
    try:
        return None if db is None else db.open_table(name)
    except ValueError:
        return None


def _full_text(language: str) -> Any:
    """Return the settings of the full-text index; without a language, words are found as they are written."""
    if not language:
        return lance_index.FTS(stem=False, remove_stop_words=False)
    return lance_index.FTS(language=language.capitalize())


def _schema(width: int, fields: Mapping[str, Kind]) -> Any:
    own = [pa.field(name, getattr(pa, _TYPES[kind])(), nullable=False) for name, kind in OWN_FIELDS.items()]
    others = [pa.field(name, getattr(pa, _TYPES[kind])()) for name, kind in fields.items()]
    rest = [pa.field("digest", pa.string(), nullable=False), pa.field("vector", pa.list_(pa.float32(), width))]
    return pa.schema([*own, *others, *rest])


def _arrow(rows: Sequence[Row], schema: Any) -> Any:
    vectors = pa.array(np.concatenate([row.vector for row in rows]).astype(np.float32))
    columns = {name: [getattr(row, name) for row in rows] for name in (*OWN_FIELDS, "digest")}
    others = {name: [row.fields.get(name) for row in rows] for name in schema.names if name not in (*columns, "vector")}
    width = schema.field("vector").type.list_size
    return pa.table({**columns, **others, "vector": pa.FixedSizeListArray.from_arrays(vectors, width)}, schema=schema)


def _filtered(query: Any, conditions: Sequence[Condition]) -> Any:
    """Filter before searching, so that as many rows are found as were asked for."""
    return query.where(_where(conditions), prefilter=True) if conditions else query


def _where(conditions: Sequence[Condition]) -> str:
    """Return SQL; the names of fields were checked."""
    return " AND ".join(f"`{one.field}` {one.comparison} {_literal(one)}" for one in conditions)


def _literal(condition: Condition) -> str:
    value = condition.value
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    if "\0" in text:
        raise MismatchError(f"{text!r} holds a zero byte, which no text of an index can")
    return "'" + text.replace("'", "''") + "'"
