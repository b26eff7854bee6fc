"""What writing costs: `elmo embed` into each kind of file beside the same text computed and thrown away.

    python benchmarks/output.py --text TEXT [--shape small] [--threads 2]

In each round every output is written once, in turn; the figures are medians. Where the ratio is 1 writing is free.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import repeat
from pathlib import Path
from typing import Any

import random_model
import table
import torch
from embed import describe_text, machine

from elmokit.job import embed_file
from elmokit.model import Elmo, load
from elmokit.reading import read_sentences

RESULTS = Path(__file__).parent / "results" / "output.json"
ENDINGS = (".hdf5", ".parquet", ".npz")
# What is kept of a text: name, and the options of `embed_file`.
KINDS: dict[str, dict[str, Any]] = {
    "all layers": {"layers": "all"},
    "average": {},
    "average, float16": {"dtype": "float16"},
    "mean of a sentence": {"pool": "mean"},
    "mean of a sentence, float16": {"pool": "mean", "dtype": "float16"},
}


def main() -> None:
    """Measure and write the JSON and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True)
    parser.add_argument("--shape", choices=sorted(random_model.SHAPES), default="small")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        random_model.write(Path(folder) / "model", arguments.shape, seed=1)
        elmo = load(Path(folder) / "model")
        runs = measure(elmo, arguments.text, Path(folder), arguments.rounds)
    found = {
        "shape": arguments.shape,
        "machine": machine(arguments.threads),
        "versions": {name: version(name) for name in ("elmokit", "torch", "numpy", "h5py", "pyarrow")},
        "text": describe_text(arguments.text, None),
        "runs": runs,
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    table.main()


def measure(elmo: Elmo, text: str, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Return seconds and bytes of every output."""
    list(elmo.embed(list(read_sentences(text))[:64]))  # to warm up
    seconds: dict[tuple[str, str], list[float]] = {}
    sizes: dict[tuple[str, str], int] = {}
    for _ in repeat(None, rounds):
        for kind, options in KINDS.items():
            seconds.setdefault((kind, "thrown away"), []).append(thrown_away(elmo, text, options))
            for ending in ENDINGS:
                out = folder / f"out{ending}"
                seconds.setdefault((kind, ending), []).append(written(elmo, text, out, options))
                sizes[kind, ending] = out.stat().st_size
                out.unlink()
                print(kind, ending, seconds[kind, ending][-1], file=sys.stderr)
    return [
        {"kind": kind, "output": output, "seconds": [round(s, 3) for s in times], "bytes": sizes.get((kind, output), 0)}
        for (kind, output), times in seconds.items()
    ]


def thrown_away(elmo: Elmo, text: str, options: dict[str, Any]) -> float:
    """Return the seconds of computing alone."""
    asked = {name: value for name, value in options.items() if name != "dtype"}
    started = time.perf_counter()
    for _ in elmo.embed(read_sentences(text), **asked):
        pass
    return time.perf_counter() - started


def written(elmo: Elmo, text: str, out: Path, options: dict[str, Any]) -> float:
    """Return the seconds of computing and writing."""
    return embed_file(text, out, elmo=elmo, progress=False, **options).seconds


if __name__ == "__main__":
    main()
