"""ELMo: vectors of words that depend on their sentence. Start with `elmokit.load()`.

The public names below are looked up on first use, so that `import elmokit` costs nothing: torch is imported only when
a model is.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elmokit.errors import DownloadError as DownloadError
    from elmokit.errors import ElmoError as ElmoError
    from elmokit.errors import FormatError as FormatError
    from elmokit.errors import MismatchError as MismatchError
    from elmokit.errors import MissingExtra as MissingExtra
    from elmokit.errors import OutputError as OutputError
    from elmokit.errors import TextError as TextError
    from elmokit.errors import TrainingError as TrainingError
    from elmokit.errors import UnknownModel as UnknownModel
    from elmokit.model import Carry as Carry
    from elmokit.model import Elmo as Elmo
    from elmokit.model import load as load
    from elmokit.network import Mix as Mix

    __version__: str

__all__ = [
    "Carry",
    "DownloadError",
    "Elmo",
    "ElmoError",
    "FormatError",
    "MismatchError",
    "MissingExtra",
    "Mix",
    "OutputError",
    "TextError",
    "TrainingError",
    "UnknownModel",
    "__version__",
    "load",
]

_HOMES = {"Carry": "model", "Elmo": "model", "load": "model", "Mix": "network"}  # the others are errors

if not TYPE_CHECKING:  # a type checker would take any misspelt name for one that this function knows

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'elmokit' has no attribute {name!r}")
        if name == "__version__":
            return version("elmokit")
        return getattr(import_module(f"elmokit.{_HOMES.get(name, 'errors')}"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
