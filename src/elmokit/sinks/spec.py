"""What every sink shares: what the arrays of an output look like, what a sink does, and sentences as keys.

Axes of an array: L layers, T tokens, D width of a vector.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from elmokit.errors import MismatchError, OutputError

Array = NDArray[Any]


@dataclass(frozen=True)
class Spec:
    """What the arrays of one output look like, and what its file says beside them.

    layers: length of the axis L, or None where the layers are mixed into one; pooled: there is no axis T; width: D;
    dtype: "float32" or "float16". The two options of HDF5: `sentence_keys`, the sentence is the key in place of its
    number; `forget_sentences`, no `sentence_to_index`. Those of Parquet: `text`, the name of the text, in a column of
    its own; `notes`, kept in the file's metadata.
    """

    width: int
    layers: int | None = None
    pooled: bool = False
    dtype: str = "float32"
    sentence_keys: bool = False
    forget_sentences: bool = False
    text: str | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a dtype that the sinks do not write."""
        if self.dtype not in ("float32", "float16"):
            raise OutputError(f"vectors are written as float32 or float16, not as {self.dtype!r}")

    def fit(self, array: Array, *, number: int) -> Array:
        """Return `array` contiguous and in the output's dtype; an error where its shape or a value does not fit."""
        self._check_shape(array, number)
        if not np.isfinite(array).all():
            raise OutputError(
                f"the vectors of sentence {number} (the first is 0) are not all numbers; the model is damaged"
            )
        with np.errstate(over="ignore"):
            fitted = np.ascontiguousarray(array, self.dtype)
        if self.dtype == "float16":
            self._check_overflow(array, fitted, number)
        return fitted

    def _check_shape(self, array: Array, number: int) -> None:
        start = () if self.layers is None else (self.layers,)
        expected = (*start, self.width) if self.pooled else (*start, "T", self.width)
        if len(array.shape) != len(expected) or any(
            wanted not in ("T", found) for wanted, found in zip(expected, array.shape, strict=True)
        ):
            raise MismatchError(f"the array of sentence {number} has shape {array.shape}, this output holds {expected}")

    def _check_overflow(self, array: Array, fitted: Array, number: int) -> None:
        lost = np.isinf(fitted) & np.isfinite(array)
        if lost.any():
            raise OutputError(
                f"sentence {number} (the first is 0) holds the value {float(array[lost][0]):g}, and float16 reaches "
                "only to 65504: write float32 (--dtype float32)"
            )


class Sink(Protocol):
    """One file of vectors, being written."""

    def __init__(self, path: Path, spec: Spec) -> None:
        """Begin the file, in place of any that is there."""

    def write(self, number: int, tokens: Sequence[str], array: Array) -> None:
        """Add the array of one sentence; `number` is its place in the text, from 0, and grows from call to call."""

    def add_file(self, part: Path) -> None:
        """Add, as they stand, the sentences of a file that this sink wrote with this `Spec`; not mixed with `write`."""

    def close(self) -> None:
        """End the file; only now it is whole. Raises OSError where the disk does not take it."""

    def abandon(self) -> None:
        """Let go of the file without ending it; never raises."""


@contextmanager
def finished(sink: Sink) -> Iterator[None]:
    """End the file of a sink when all was written, and let go of it where something goes wrong."""
    try:
        yield
    except BaseException:
        sink.abandon()
        raise
    sink.close()


class SentenceKeys:
    """The sentences used as HDF5 keys so far; two that cannot both be keys are refused.

    A '/' in a key makes groups inside groups, as it did in AllenNLP, and `file[sentence]` finds the array all the same.
    HDF5 drops empty and '.' parts of such a path, so that different sentences can mean one place. Holds about
    100 bytes for each sentence, 16 of them its digest.
    """

    def __init__(self) -> None:
        """Begin with no keys."""
        self._arrays: set[bytes] = set()
        self._groups: set[bytes] = set()

    def claim(self, number: int, tokens: Sequence[str]) -> str:
        """Return the key of a sentence, its tokens joined by one space, and take its place, or `OutputError`."""
        key = " ".join(tokens)
        parts = [part for part in key.split("/") if part not in ("", ".")]
        if not parts or "\0" in key:
            raise _no_key(number, key, "an empty line, a lone '.' or '/' and a NUL cannot be an HDF5 key")
        *groups, array = (_digest(parts[: end + 1]) for end in range(len(parts)))
        if array in self._arrays:
            raise _no_key(number, key, "an earlier sentence has the same key")
        if array in self._groups or not self._arrays.isdisjoint(groups):
            raise _no_key(number, key, "with its '/' it would be inside the array of another sentence, or hold it")
        self._arrays.add(array)
        self._groups.update(groups)
        return key


def _digest(parts: Sequence[str]) -> bytes:
    return blake2b("/".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _no_key(number: int, key: str, why: str) -> OutputError:
    shown = json.dumps(key if len(key) <= 60 else key[:57] + "...", ensure_ascii=False)
    return OutputError(
        f"sentence {number} (the first is 0), {shown}, cannot be a key: {why}; "
        "use the line numbers as keys (leave out --use-sentence-keys)"
    )
