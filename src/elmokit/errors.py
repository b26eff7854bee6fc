"""The error tree, and `require` for optional parts.

    ElmoError
    |- FormatError   (ValueError)   a checkpoint is not what it should be
    |- TextError     (ValueError)   an input text cannot be read or embedded
    |- OutputError   (OSError)      an output cannot be written, or an earlier one is in the way
    |- UnknownModel  (LookupError)  no model of that name or path
    |- DownloadError (OSError)      a file cannot be fetched or sent, or is not the one that was expected
    |- TrainingError (ArithmeticError)  training has diverged
    |- MissingExtra  (ImportError)  an optional package is absent; names the pip command
    `- MismatchError (ValueError)   two things that must fit do not (state and batch, run and resume)

Every message says in one plain sentence what is wrong, where, what was expected and found, and what to do next.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from types import ModuleType


class ElmoError(Exception):
    """Root of every error that elmokit raises on purpose."""


class FormatError(ElmoError, ValueError):
    """A checkpoint is not what it should be."""


class TextError(ElmoError, ValueError):
    """An input text cannot be read or embedded."""


class OutputError(ElmoError, OSError):
    """An output cannot be written, or the output of an earlier run is in the way."""


class UnknownModel(ElmoError, LookupError):
    """No model of that name or path."""


class DownloadError(ElmoError, OSError):
    """A file cannot be fetched or sent, or what arrived is not what was expected."""


class TrainingError(ElmoError, ArithmeticError):
    """Training has diverged: its numbers are no numbers any more."""


class MissingExtra(ElmoError, ImportError):
    """An optional package is not installed."""


class MismatchError(ElmoError, ValueError):
    """Two things that must fit do not: state and batch, an interrupted run and its continuation."""


def expect(kind: type | tuple[type, ...], value: object, name: str, words: str) -> None:
    """Raise `MismatchError` unless `value`, which the user calls `name`, is of a kind, which `words` says plainly."""
    if not isinstance(value, kind):
        raise MismatchError(f"{name}: expected {words}, found {shown(value)} ({type(value).__name__})")


def expect_iterable(value: object, name: str, words: str) -> None:
    """Raise `MismatchError` unless `value` can be gone through; an array without axes only looks as if it could."""
    try:
        iter(value)  # type: ignore[call-overload]  # that is the question
    except TypeError:
        expect((), value, name, words)


def expect_number(value: object, name: str) -> None:
    """Raise `MismatchError` unless `value` is a number, of Python or NumPy."""
    expect(Real, value, name, "a number")


def expect_whole(value: object, name: str, *, least: int | None = None) -> None:
    """Raise `MismatchError` unless `value` is a whole number, of Python or NumPy, not below `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or (least is not None and int(value) < least):
        expect((), value, name, "a whole number" + ("" if least is None else f" from {least} on"))


def expect_model(value: object, name: str = "elmo") -> None:
    """Raise `MismatchError` unless `value` can embed."""
    if isinstance(value, type) or not all(hasattr(value, needed) for needed in ("embed", "dim", "fingerprint")):
        raise MismatchError(f"{name}: expected a model, which elmokit.load opens, found {type(value).__name__}")


def shown(value: object) -> str:
    """The beginning of what a value looks like, on one line."""
    return " ".join(repr(value).split())[:60]


def expect_one_of(allowed: Iterable[str], value: object, name: str) -> None:
    """Raise `MismatchError` unless `value` is one of the names that are allowed."""
    names = list(allowed)
    if not isinstance(value, str) or value not in names:
        raise MismatchError(f"{name}: expected {', '.join(map(repr, names))}, found {shown(value)}")


def expect_path(value: object, name: str) -> None:
    """Raise `MismatchError` unless `value` is a path."""
    expect((str, PathLike), value, name, "a path")


def expect_file_place(out: Path) -> None:
    """Raise `OutputError` unless `out` can be the name of a file to write."""
    if out.is_dir():
        raise OutputError(f"{out} is a directory, expected the name of a file to write")
    if not out.parent.is_dir():
        raise OutputError(f"the folder {out.parent} does not exist; make it first")


def expect_count(value: object, name: str) -> None:
    """Raise `MismatchError` unless `value` is a whole number from 1 on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise MismatchError(f"{name} must be at least 1, found {shown(value)}")


def expect_seed(value: object) -> None:
    """Raise `MismatchError` unless `value` is a seed that every library takes."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
        raise MismatchError(f"seed: expected a whole number from 0 to {2**32 - 1}, found {value!r}")


def require(package: str, *, extra: str) -> ModuleType:
    """Import `package`, or raise `MissingExtra` with the reason and the command that installs it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        missing = getattr(error, "name", None) in (package, package.partition(".")[0])
        why = "is not installed" if missing else f"cannot be imported ({' '.join(str(error).split())})"
        raise MissingExtra(
            f"this needs the package '{package}', which {why}: run  pip install 'elmokit[{extra}]'"
        ) from error
