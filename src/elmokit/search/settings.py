"""What an index was made with, which it remembers and holds its users to."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from elmokit.errors import FormatError, MismatchError, expect, expect_one_of
from elmokit.reduction import Layers, plain_layers
from elmokit.search.pooling import Idf, Pooling, Whitening
from elmokit.search.rows import OWN_FIELDS, Kind

Unit: TypeAlias = Literal["sentence", "passage", "word"]
State: TypeAlias = Literal["fresh", "warm"]

VERSION = 1
# Columns that stores, and answers written as a table, add to those of a row.
_TAKEN = frozenset({*OWN_FIELDS, "digest", "vector", "words", "asked", "score", "query", "rank", "marked"})


@dataclass(frozen=True)
class Settings:
    """What decides about the rows of an index.

    model, model_name: the fingerprint of the model, and how it was called, if that is known. width: of a vector.
    layers, state: as of `Elmo.embed`. unit: what a row is. words: of uses, those words only, in lower case; () is all.
    pool: a name of `POOLS`. symbols: every character is a token. language: whose endings and frequent words full text
    leaves aside; "" for none. fields: what else is known of a row.
    """

    model: str
    model_name: str | None
    width: int
    layers: str | int | Sequence[float]
    state: State
    unit: Unit
    words: Sequence[str]
    pool: str
    symbols: bool
    language: str
    fields: Mapping[str, Kind]

    def __post_init__(self) -> None:
        for name in self.fields:
            if not re.fullmatch("[a-z][a-z0-9_]*", name) or name in _TAKEN:
                taken = ", ".join(sorted(_TAKEN))
                raise MismatchError(
                    f"the field {name!r} cannot be called so; expected a-z, 0-9 and _, and none of {taken}"
                )

    def check(self, **wanted: Any) -> None:
        """Raise `MismatchError` for a setting that is wanted otherwise; None wants nothing."""
        for name, value in wanted.items():
            has = getattr(self, name)
            if value is not None and value != has:
                raise MismatchError(
                    f"the index was made with {name} {has!r}, found {value!r}; leave that out, or make another index"
                )


def one_vector(layers: Layers) -> str | int | list[float]:
    """Return `layers` as JSON holds it. Raises `MismatchError` for what gives a word several vectors, or none."""
    if isinstance(layers, str) and layers == "all":
        raise MismatchError("layers: expected one vector a word, found 'all'; choose a layer or \"average\"")
    return plain_layers(layers)


def kinds_of(fields: object) -> dict[str, Kind]:
    """Return the fields of an index, each with what it holds."""
    if fields is None:
        return {}
    expect(Mapping, fields, "fields", "a mapping of names to kinds")
    kinds = dict(cast("Mapping[str, Kind]", fields))
    for name, kind in kinds.items():
        expect(str, name, "fields", "names as strings")
        expect_one_of(("text", "integer", "number"), kind, f"the field {name}")
    return kinds


def to_json(settings: Settings, pooling: Pooling) -> dict[str, Any]:
    """Return plain data that `from_json` reads."""
    idf, white = pooling.idf, pooling.whitening
    return {
        "version": VERSION,
        **asdict(replace(settings, words=list(settings.words), fields=dict(settings.fields))),
        "idf": idf and {"texts": idf.texts, "frequencies": dict(idf.frequencies)},
        "whitening": white and {"mean": _packed(white.mean_D), "matrix": _packed(white.matrix_DD)},
        "centre": None if pooling.centre_D is None else _packed(pooling.centre_D),
    }


def from_json(found: Mapping[str, Any]) -> tuple[Settings, Pooling]:
    """Read what `to_json` wrote; `FormatError` where a later version did."""
    if found.get("version") != VERSION:
        raise FormatError(
            f"the index was made by another version of elmokit: expected format {VERSION}, found "
            f"{found.get('version')}; update elmokit, or make the index anew"
        )
    plain = {name: value for name, value in found.items() if name not in ("version", "idf", "whitening", "centre")}
    idf, white, centre, width = found["idf"], found["whitening"], found["centre"], plain["width"]
    whitening = white and Whitening(_unpacked(white["mean"]), _unpacked(white["matrix"]).reshape(width, width))
    return Settings(**{**plain, "words": tuple(plain["words"])}), Pooling(
        idf and Idf(**idf), whitening, centre and _unpacked(centre)
    )


def _packed(array: NDArray[np.float32]) -> str:
    """Return the bytes of an array in base64: decimals would take three times the place."""
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode("ascii")


def _unpacked(packed: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(packed), "<f4").astype(np.float32)
