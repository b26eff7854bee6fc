"""The store on a server: PostgreSQL with pgvector, by an address such as postgresql://user@host/database.

Every change is one transaction: it is there whole, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elmokit.errors import MismatchError, OutputError, require
from elmokit.search.rows import OWN_FIELDS, Condition, Hit, Kind, Row, hit

psycopg: Any = require("psycopg", extra="postgres")
sql: Any = require("psycopg.sql", extra="postgres")
json_type: Any = require("psycopg.types.json", extra="postgres")
pool: Any = require("psycopg_pool", extra="postgres")
pgvector: Any = require("pgvector.psycopg", extra="postgres")

# Below so many rows, comparing with all of them is as fast.
_SMALL = 10_000
# Wider vectors cannot have an index, and are compared one by one.
_WIDEST_INDEXED = 2000
_TYPES = {"text": "text", "integer": "bigint", "number": "double precision"}
_NO_LANGUAGE = "simple"


class PostgresStore:
    """The rows and the settings of one index: the tables NAME and NAME_settings of a database.

    Several threads may search at the same time.
    """

    def __init__(self, address: str, name: str) -> None:
        self._check_server(address)
        self.name = name
        self._pool = pool.ConnectionPool(
            address,
            min_size=1,
            max_size=4,
            configure=_configure,
            check=pool.ConnectionPool.check_connection,  # so that a server may be started again in between
            open=True,
        )
        self.settings = self._read_settings()

    def _check_server(self, address: str) -> None:
        try:
            with psycopg.connect(address, connect_timeout=10, autocommit=True) as connection:
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except psycopg.OperationalError as error:
            reason = str(error).strip().splitlines()[0]  # others ask whether it is running
            raise OutputError(f"the server of the index cannot be reached ({reason}); check the address") from None
        except psycopg.Error as error:
            reason = str(error).strip().splitlines()[0]
            raise OutputError(f"the server has no pgvector ({reason}); install that extension in it") from None

    def _read_settings(self) -> dict[str, Any] | None:
        with self._run() as connection:
            (there,) = connection.execute("SELECT to_regclass(%s)", [f'"{self.name}_settings"']).fetchone()
            row = there and connection.execute(self._sql("SELECT settings FROM {settings}")).fetchone()
        return row[0] if row else None

    def create(self, settings: Mapping[str, Any], *, width: int, fields: Mapping[str, Kind], language: str) -> None:
        """Make an empty index."""
        columns = [
            *(sql.SQL("{} {} NOT NULL").format(sql.Identifier(n), sql.SQL(_TYPES[k])) for n, k in OWN_FIELDS.items()),
            *(sql.SQL("{} {}").format(sql.Identifier(n), sql.SQL(_TYPES[k])) for n, k in fields.items()),
            sql.SQL("digest text NOT NULL, vector vector({}) NOT NULL").format(sql.Literal(width)),
            # text search of the server's own language settings, kept ready
            sql.SQL("words tsvector GENERATED ALWAYS AS (to_tsvector({}, text)) STORED").format(_language(language)),
            sql.SQL("PRIMARY KEY (key)"),
        ]
        with self._run() as connection:
            connection.execute(self._sql("CREATE TABLE {settings} (settings jsonb NOT NULL)"))
            connection.execute(self._sql("INSERT INTO {settings} VALUES (%s)"), [json_type.Jsonb(dict(settings))])
            connection.execute(self._sql("CREATE TABLE {rows} ({columns})", columns=sql.SQL(", ").join(columns)))
            connection.execute(self._sql("CREATE INDEX ON {rows} (source, line)"))
            connection.execute(self._sql("CREATE INDEX ON {rows} USING gin (words)"))
        self.settings = dict(settings)

    def digests(self, source: str, first: int, last: int) -> dict[str, str]:
        """Return key and digest of the rows of a source from line `first` to line `last`."""
        query = self._sql("SELECT key, digest FROM {rows} WHERE source = %s AND line BETWEEN %s AND %s")
        with self._run() as connection:
            return dict(connection.execute(query, [source, first, last]).fetchall())

    def upsert(self, rows: Sequence[Row]) -> None:
        """Add rows, each in place of one of the same key, in one transaction."""
        names = [*OWN_FIELDS, *rows[0].fields, "digest", "vector"] if rows else []
        listed = sql.SQL(", ").join(map(sql.Identifier, names))
        taken = sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in names if name != "key"
        )
        with self._run() as connection, connection.cursor() as cursor:
            cursor.execute(self._sql("CREATE TEMP TABLE arriving (LIKE {rows}) ON COMMIT DROP"))
            with cursor.copy(sql.SQL("COPY arriving ({}) FROM STDIN").format(listed)) as copy:
                for row in rows:
                    copy.write_row(_values(row))
            cursor.execute(
                self._sql(
                    "INSERT INTO {rows} ({listed}) SELECT {listed} FROM arriving "
                    "ON CONFLICT (key) DO UPDATE SET {taken}",
                    listed=listed,
                    taken=taken,
                )
            )

    def delete(self, conditions: Sequence[Condition]) -> int:
        """Delete the rows that meet all conditions; return how many."""
        where, values = _where(conditions)
        with self._run() as connection:
            return connection.execute(self._sql("DELETE FROM {rows} WHERE {where}", where=where), values).rowcount

    def delete_keys(self, keys: Iterable[str]) -> None:
        """Delete rows by their names."""
        with self._run() as connection:
            connection.execute(self._sql("DELETE FROM {rows} WHERE key = ANY(%s)"), [list(keys)])

    def nearest(
        self, vector: NDArray[np.float32], count: int, conditions: Sequence[Condition], *, effort: int | None
    ) -> list[Hit]:
        """Return the rows of the largest cosines with a vector; `effort` None compares with every row."""
        where, values = _where(conditions)
        # A sum is no order that an index has, so every row is compared.
        order = sql.SQL("vector <=> %(vector)s" if effort else "(vector <=> %(vector)s) + 0")
        query = self._sql(
            "SELECT {columns}, 1 - (vector <=> %(vector)s) AS score FROM {rows} WHERE {where} "
            "ORDER BY {order} LIMIT %(count)s",
            columns=self._columns(),
            where=where,
            order=order,
        )
        with self._run() as connection:
            if effort:
                width = str(min(1000, max(effort, 2 * count)))  # of which the server takes no more than 1,000
                connection.execute("SELECT set_config('hnsw.ef_search', %s, true)", [width])
            return _hits(connection, query, {**values, "vector": vector, "count": count})

    def matching(self, text: str, count: int, conditions: Sequence[Condition]) -> list[Hit]:
        """Return the rows with the largest ts_rank_cd of any of these words."""
        where, values = _where(conditions)
        query = self._sql(
            "SELECT {columns}, ts_rank_cd(words, asked, 1) AS score FROM {rows}, {asked} AS asked "
            "WHERE words @@ asked AND {where} ORDER BY score DESC, key LIMIT %(count)s",
            columns=self._columns(),
            where=where,
            # the words, joined by "or" in place of "and"
            asked=sql.SQL("CAST(replace(CAST(plainto_tsquery({}, %(asked)s) AS text), '&', '|') AS tsquery)").format(
                _language((self.settings or {})["language"])
            ),
        )
        with self._run() as connection:
            return _hits(connection, query, {**values, "asked": text, "count": count})

    def count(self, conditions: Sequence[Condition]) -> int:
        """Return how many rows meet all conditions."""
        where, values = _where(conditions)
        with self._run() as connection:
            query = self._sql("SELECT count(*) FROM {rows} WHERE {where}", where=where)
            return connection.execute(query, values).fetchone()[0]

    def optimize(self) -> None:
        """Renew the statistics that queries are planned with; many rows get an index for their vectors."""
        with self._run() as connection:
            width = connection.execute(
                "SELECT atttypmod FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = 'vector'",
                [f'"{self.name}"'],
            ).fetchone()[0]
        if width <= _WIDEST_INDEXED and self.count([]) >= _SMALL:
            with self._run() as connection:
                index = sql.Identifier(f"{self.name}_vector")
                connection.execute(
                    self._sql(
                        "CREATE INDEX IF NOT EXISTS {index} ON {rows} USING hnsw (vector vector_cosine_ops)",
                        index=index,
                    )
                )
        with self._run() as connection:
            connection.execute(self._sql("ANALYZE {rows}"))

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    @contextmanager
    def _run(self) -> Iterator[Any]:
        """Yield a connection in a transaction, or tell in one sentence why the server does not do it."""
        try:
            with self._pool.connection(timeout=5) as connection:
                yield connection
        except psycopg.Error as error:
            reason = str(error).strip().splitlines()[0]
            raise OutputError(f"the server of the index says: {reason}; check it and try again") from error

    def _sql(self, query: str, **parts: Any) -> Any:
        names = {"rows": sql.Identifier(self.name), "settings": sql.Identifier(f"{self.name}_settings")}
        return sql.SQL(query).format(**names, **parts)

    def _columns(self) -> Any:
        return sql.SQL(", ").join(map(sql.Identifier, [*OWN_FIELDS, *(self.settings or {})["fields"]]))


def _configure(connection: Any) -> None:
    pgvector.register_vector(connection)
    # Where conditions leave too few, look on.
    connection.execute("SET hnsw.iterative_scan = strict_order")
    connection.commit()


def _language(name: str) -> Any:
    return sql.SQL("{}::regconfig").format(sql.Literal(name.lower() or _NO_LANGUAGE))


def _values(row: Row) -> list[Any]:
    own = [getattr(row, name) for name in OWN_FIELDS]
    if any("\0" in value for value in (*own, *row.fields.values()) if isinstance(value, str)):
        raise MismatchError(f"{row.key} holds a zero byte, which PostgreSQL cannot store; leave it out")
    return [*own, *row.fields.values(), row.digest, row.vector]


def _where(conditions: Sequence[Condition]) -> tuple[Any, dict[str, Any]]:
    """Return SQL and its parameters."""
    parts = [
        sql.SQL("{} {} {}").format(sql.Identifier(c.field), sql.SQL(c.comparison), sql.Placeholder(f"value{n}"))
        for n, c in enumerate(conditions)
    ]
    return sql.SQL(" AND ").join(parts or [sql.SQL("true")]), {f"value{n}": c.value for n, c in enumerate(conditions)}


def _hits(connection: Any, query: Any, values: Mapping[str, Any]) -> list[Hit]:
    cursor = connection.execute(query, values)
    names = [column.name for column in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor]
    return [hit(row, row.pop("score")) for row in rows]
