"""Seconds and memory of embedding against the number of tokens, and against the length of one sentence.

    python benchmarks/growth.py --text TEXT [--shape small] [--threads 2] [--most 10000000]

A text that is too short is read again until there are enough tokens, of whose words fewer are new then, and words are
spelled once. Each number of tokens is a process of its own, and loading is not counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import random_model
import table
from embed import arithmetic, machine

from elmokit.reading import read_sentences

RESULTS = Path(__file__).parent / "results" / "growth.json"
WORKER = """
import json, sys, time
from itertools import chain, count, islice
import torch
from elmokit import load
from elmokit.reading import read_sentences
model, text, tokens, length, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
torch.set_num_threads(threads)

def all_sentences():
    return chain.from_iterable(read_sentences(text) for _ in count())  # never in memory together

def enough(sentences):
    left = tokens
    for sentence in sentences:
        part = sentence[:left]
        left -= len(part)
        yield part
        if not left:
            return

def cut(sentences):
    words = chain.from_iterable(sentences)
    return [list(islice(words, length)) for _ in range(tokens // length)]

elmo = load(model)
list(elmo.embed(islice(all_sentences(), 256)))
given = (cut if length else enough)(all_sentences())
started = time.perf_counter()
found = sum(len(vectors) for vectors in elmo.embed(given, layers="top"))
seconds = time.perf_counter() - started
assert found == tokens, (found, tokens)
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))
found = {"tokens": tokens, "length": length, "seconds": seconds, "peak_mb": peak}
words = {word for sentence in (cut if length else enough)(all_sentences()) for word in sentence}
print(json.dumps(found | {"distinct_words": len(words)}))
"""


def main() -> None:
    """Measure and write the JSON and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True)
    parser.add_argument("--shape", choices=sorted(random_model.SHAPES), default="small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--most", type=int, default=10**7)
    arguments = parser.parse_args()
    tokens = [{"tokens": 10**k} for k in range(3, 8) if 10**k <= arguments.most]
    lengths = [{"tokens": 40_000, "length": length} for length in (10, 100, 1_000, 10_000)]
    layers = [{"tokens": 20_000, "layers": layers} for layers in (1, 2, 3, 4)]
    cells = [{"tokens": 20_000, "cells": cells} for cells in (512, 1024, 2048, 4096)]
    with tempfile.TemporaryDirectory() as folder:
        runs = [run(Path(folder), arguments, **asked) for asked in (*tokens, *lengths, *layers, *cells)]
    found = {
        "shape": arguments.shape,
        "machine": machine(arguments.threads),
        "text": describe_text(arguments.text),
        "versions": {name: version(name) for name in ("elmokit", "torch", "numpy")},
        "slope": slope(runs[: len(tokens)], "tokens"),
        "slope_against_arithmetic": slope(runs[: len(tokens)], "gflop"),
        "runs": runs,
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    table.main()


def describe_text(path: str) -> dict[str, Any]:
    """Say how much text there is."""
    lengths = [len(sentence) for sentence in read_sentences(path)]
    return {"file": Path(path).name, "sentences": len(lengths), "tokens": sum(lengths)}


def run(
    folder: Path,
    arguments: argparse.Namespace,
    *,
    tokens: int,
    length: int = 0,
    layers: int = 2,
    cells: int | None = None,
) -> dict[str, Any]:
    """Embed so many tokens in a process of its own, in sentences of `length` tokens (0: as they come)."""
    model = folder / f"{layers}-{cells}"
    if not model.exists():
        random_model.write(model, arguments.shape, seed=1, layers=layers, cells=cells)
    command = [sys.executable, "-c", WORKER, model, arguments.text, *map(str, (tokens, length, arguments.threads))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    print(done.stdout, end="", file=sys.stderr)
    found = json.loads(done.stdout) | {"layers": layers, "cells": cells or random_model.SHAPES[arguments.shape][0]}
    work = arithmetic(random_model.options(arguments.shape, layers=layers, cells=cells), found)
    return found | {"gflop": work["gflop_for_the_text"]}


def slope(runs: list[dict[str, Any]], against: str) -> float:
    """Return the slope of log seconds against the logarithm of something else."""
    there, seconds = ([np.log10(one[name]) for one in runs] for name in (against, "seconds"))
    return round(float(np.polyfit(there, seconds, 1)[0]), 3)


if __name__ == "__main__":
    main()
