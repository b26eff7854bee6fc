"""Semantic search: sentences, passages or uses of words, in a store on disk (LanceDB) or on a server (PostgreSQL)."""

from elmokit.search.files import Reader, kinds_of, readable_twice, sample, update_from
from elmokit.search.index import Changes, Index, settings_of
from elmokit.search.rows import OWN_FIELDS, Condition, Hit, Kind
from elmokit.search.settings import Settings
from elmokit.search.vectors import DEFAULTS, POOLS

__all__ = [
    "DEFAULTS",
    "OWN_FIELDS",
    "POOLS",
    "Changes",
    "Condition",
    "Hit",
    "Index",
    "Kind",
    "Reader",
    "Settings",
    "kinds_of",
    "readable_twice",
    "sample",
    "settings_of",
    "update_from",
]
