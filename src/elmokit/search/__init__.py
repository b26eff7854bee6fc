"""Semantic search: sentences, passages or uses of words, in a store on disk (LanceDB) or on a server (PostgreSQL)."""

from elmokit.search.index import POOLS, Changes, Index
from elmokit.search.rows import Condition, Hit
from elmokit.search.settings import Settings

__all__ = ["POOLS", "Changes", "Condition", "Hit", "Index", "Settings"]
