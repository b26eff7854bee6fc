"""What several commands share: options, opening a model, notices."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Option

if TYPE_CHECKING:
    from elmokit.checkpoint import Checkpoint
    from elmokit.model import Elmo

MODEL = "path, hub repository user/name, or published name"
Model = Annotated[str | None, Option("--model", help=f"{MODEL}; without it the bundled English model")]
Weights = Annotated[Path | None, Option(help="HDF5 file of weights; MODEL is then its options.json")]
Head = Annotated[Path | None, Option("--softmax", help="HDF5 file of a softmax head that is kept apart")]
HeadWords = Annotated[Path | None, Option("--vocabulary", help="words of that head, or of a model without characters")]
Tokenize = Annotated[bool, Option("--tokenize", help="the text is raw: split sentences and tokens")]
Symbols = Annotated[bool, Option("--symbols", help="every character is a token; FASTA files are always so")]
Column = Annotated[str | None, Option(help="Parquet: the column that holds the text")]
Device = Annotated[str, Option(help="where to compute: cpu, cuda, cuda:1 ...")]
Precision = Annotated[
    Literal["float32", "bfloat16"],
    Option(help="of the products; bfloat16 is about twice as fast where the processor has it, and less exact"),
]
Threads = Annotated[int | None, Option(min=1, max=1024, help="processor threads")]


def read_model(name: str | None, *, weights: Path | None, softmax: Path | None, vocabulary: Path | None) -> Checkpoint:
    from elmokit import formats
    from elmokit.catalog import locate

    path = formats.BUNDLED if name is None else locate(name)
    return formats.read(path, weights=weights, softmax=softmax, vocabulary=vocabulary)


def load_model(
    name: str | None,
    weights: Path | None,
    vocabulary: Path | None,
    threads: int | None,
    *,
    device: str,
    precision: Literal["float32", "bfloat16"],
) -> Elmo:
    set_threads(threads)
    from elmokit.model import load

    return load(name, weights=weights, vocabulary=vocabulary, device=device, precision=precision)


def set_threads(threads: int | None) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)


def to_json(value: object, *, indent: int | None = None) -> str:
    """Return JSON that standard output can take: other letters than ASCII as they are only where it is UTF-8."""
    encoding = (sys.stdout.encoding or "utf-8").lower()
    return json.dumps(value, indent=indent, ensure_ascii=encoding not in ("utf-8", "utf8"))


def in_json(value: Any) -> Any:
    """Return a value as JSON has it, which knows no infinity and no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def notice(text: str) -> None:
    print(text, file=sys.stderr)
