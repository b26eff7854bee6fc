"""Where the time of embedding goes.

    python benchmarks/stages.py --text TEXT [--shape small original] [--threads 2]

The functions that the time is spent in are wrapped with clocks, so the parts are those of one ordinary run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import random_model
import table
import torch
from embed import describe_text, machine

from elmokit import word_vectors
from elmokit.checkpoint import Lstm
from elmokit.kernels import compiled, few_rows, in_place
from elmokit.kernels.product import Packed
from elmokit.model import Elmo, load
from elmokit.network import BiLM
from elmokit.reading import read_sentences

RESULTS = Path(__file__).parent / "results" / "stages.json"


def main() -> None:
    """Measure and write the JSON and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True)
    parser.add_argument("--shape", nargs="+", choices=sorted(random_model.SHAPES), default=["small", "original"])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sentences = list(read_sentences(arguments.text))
    runs = {}
    for shape in arguments.shape:
        with tempfile.TemporaryDirectory() as folder:
            random_model.write(Path(folder) / "model", shape, seed=1)
            for precision in ("float32", "bfloat16"):
                elmo = load(Path(folder) / "model", precision=precision)
                runs[f"{shape}, {precision}"] = parts(elmo, sentences)
                print(shape, precision, runs[f"{shape}, {precision}"], file=sys.stderr)
    found = {
        "machine": machine(arguments.threads),
        "versions": {name: version(name) for name in ("elmokit", "torch", "numpy")},
        "text": describe_text(arguments.text, None),
        "runs": runs,
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    table.main()


def parts(elmo: Elmo, sentences: list[list[str]]) -> dict[str, float]:
    """Return the seconds of each part, and of all together."""
    list(elmo.embed(sentences[:256], layers="all"))  # to warm up
    seconds: dict[str, float] = defaultdict(float)
    with clocks(seconds, elmo.config.lstm):
        started = time.perf_counter()
        for _ in elmo.embed(sentences, layers="all"):
            pass
        whole = time.perf_counter() - started
    seconds.pop("products within words from characters", None)  # these are among those of the words
    context, words = seconds.pop("context"), seconds["words from characters"]
    seconds["steps, streams and layers in order"] = context - (sum(seconds.values()) - words)
    seconds["batches, and vectors out of them"] = whole - context - words
    return {name: round(value, 3) for name, value in {**seconds, "all": whole}.items()}


@contextmanager
def clocks(seconds: dict[str, float], lstm: Lstm) -> Iterator[None]:
    """Time the functions that do the work, as long as this context lasts."""

    def product(packed: Packed, x: Any, bias_O: Any = None) -> str:
        if packed.weight_IO.shape[1] == 4 * lstm.dim:
            return "products of the gates"
        of_cells = packed.weight_IO.shape == (lstm.dim, lstm.projection_dim)
        return "projection of the cells" if of_cells else "products within words from characters"

    wrapped: list[tuple[Any, str, Callable[..., str]]] = [
        (word_vectors, "encode", lambda *_: "words from characters"),
        (Packed, "__call__", product),
        *((owner, name, lambda *_: "gates and cells") for owner, name in ((in_place, "_cells"), (compiled, "cells"))),
        (few_rows, "lstmp_few_rows", lambda *_: "layers of a few rows"),
        (BiLM, "contextualize", lambda *_: "context"),
    ]
    with ExitStack() as stack:
        for owner, name, part in wrapped:
            stack.enter_context(mock.patch.object(owner, name, timed(getattr(owner, name), seconds, part)))
        yield


def timed(call: Callable[..., Any], seconds: dict[str, float], part: Callable[..., str]) -> Callable[..., Any]:
    """Return the function with a clock around it."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            seconds[part(*args, **kwargs)] += time.perf_counter() - started

    return wrapper


if __name__ == "__main__":
    main()
