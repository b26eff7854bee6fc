"""Seconds and memory of embedding against the number of tokens, and against the length of one sentence.

    python benchmarks/growth.py --text TEXT [--shape small] [--threads 2] [--most 10000000]

The text is read over and over until there are enough tokens; each number of tokens is a process of its own, and loading
is not counted.
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
from embed import machine

RESULTS = Path(__file__).parent / "results" / "growth.json"
WORKER = """
import json, sys, time
from itertools import chain, cycle
import torch
from elmokit import load
from elmokit.reading import read_sentences
model, text, tokens, length, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
torch.set_num_threads(threads)
sentences = list(read_sentences(text))
words = cycle(chain.from_iterable(sentences))

def enough():
    left = tokens
    for sentence in cycle(sentences):
        part = sentence[:left]
        left -= len(part)
        yield part
        if not left:
            return

given = [[next(words) for _ in range(length)] for _ in range(tokens // length)] if length else enough()
elmo = load(model)
list(elmo.embed(sentences[:256]))
started = time.perf_counter()
found = sum(len(vectors) for vectors in elmo.embed(given, layers="top"))
seconds = time.perf_counter() - started
assert found == tokens, (found, tokens)
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))
print(json.dumps({"tokens": tokens, "length": length, "seconds": seconds, "peak_mb": peak}))
"""


def main() -> None:
    """Measure and write the JSON and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True)
    parser.add_argument("--shape", choices=sorted(random_model.SHAPES), default="small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--most", type=int, default=10**7)
    arguments = parser.parse_args()
    sizes = [10**k for k in range(3, 8) if 10**k <= arguments.most]
    lengths = [10, 100, 1_000, 10_000]
    with tempfile.TemporaryDirectory() as folder:
        random_model.write(Path(folder) / "model", arguments.shape, seed=1)
        asked = [(tokens, 0) for tokens in sizes] + [(20_000, length) for length in lengths]
        runs = [run(Path(folder) / "model", arguments.text, *pair, arguments.threads) for pair in asked]
    by_tokens = [one for one in runs if not one["length"]]
    found = {
        "shape": arguments.shape,
        "machine": machine(arguments.threads),
        "versions": {name: version(name) for name in ("elmokit", "torch", "numpy")},
        "slope": slope(by_tokens),
        "runs": runs,
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    table.main()


def run(model: Path, text: str, tokens: int, length: int, threads: int) -> dict[str, Any]:
    """Embed so many tokens in a process of its own."""
    command = [sys.executable, "-c", WORKER, model, text, *map(str, (tokens, length, threads))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    print(done.stdout, end="", file=sys.stderr)
    return dict(json.loads(done.stdout))


def slope(runs: list[dict[str, Any]]) -> float:
    """Return the slope of log seconds against log tokens."""
    tokens, seconds = ([np.log10(one[name]) for one in runs] for name in ("tokens", "seconds"))
    return round(float(np.polyfit(tokens, seconds, 1)[0]), 3)


if __name__ == "__main__":
    main()
