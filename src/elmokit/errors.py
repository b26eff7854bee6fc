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


def require(package: str, *, extra: str) -> ModuleType:
    """Import `package`, or raise `MissingExtra` naming the command that installs it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtra(
            f"this needs the package '{package}', which is not installed: run  pip install 'elmokit[{extra}]'"
        ) from error
