"""What an index needs of a store, and which store an address names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from elmokit.errors import expect, expect_path
from elmokit.search.rows import Condition, Hit, Kind, Row

_SERVERS = ("postgresql://", "postgres://")


class Store(Protocol):
    """Rows and the settings that they were made with. A change is there whole or not at all, whatever is killed.

    settings: what the index was created with, as JSON; None where there is no index.
    """

    settings: dict[str, Any] | None

    def create(self, settings: Mapping[str, Any], *, width: int, fields: Mapping[str, Kind], language: str) -> None:
        """Make an empty index."""

    def digests(self, source: str, first: int, last: int) -> dict[str, str]:
        """Return key and digest of the rows of a source from line `first` to line `last`."""

    def upsert(self, rows: Sequence[Row]) -> None:
        """Add rows, each in place of one of the same key."""

    def delete(self, conditions: Sequence[Condition]) -> int:
        """Delete the rows that meet all conditions; return how many."""

    def delete_keys(self, keys: Iterable[str]) -> None:
        """Delete rows by their names."""

    def nearest(
        self, vector: NDArray[np.float32], count: int, conditions: Sequence[Condition], *, effort: int | None
    ) -> list[Hit]:
        """Return the rows of the largest cosines with a vector; `effort` None compares with every row."""

    def matching(self, text: str, count: int, conditions: Sequence[Condition]) -> list[Hit]:
        """Return the rows that fit best by full text."""

    def count(self, conditions: Sequence[Condition]) -> int:
        """Return how many rows meet all conditions."""

    def optimize(self) -> None:
        """Make searching fast after many changes."""

    def close(self) -> None:
        """Let go of what is open."""


def shown(address: str | Path) -> str:
    """Return an address as it may be printed: without a password."""
    return re.sub(r"(://[^/@]*?):[^/@]*@", r"\1:...@", str(address))


def open_store(address: str | Path, name: str) -> Store:
    """Open the store of an address: postgresql://... is a server, all else a LanceDB."""
    expect_path(address, "address")
    expect(str, name, "name", "a name")
    if str(address).startswith(_SERVERS):
        from elmokit.search.postgres import PostgresStore

        return PostgresStore(str(address), name)
    from elmokit.search.lance import LanceStore

    return LanceStore(str(address), name)
