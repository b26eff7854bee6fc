"""Peak memory of `elmo embed` against the number of sentences: it must not grow with the text.

    python benchmarks/memory.py OUT.json [--sentences 10000 1000000] [--endings .hdf5 .parquet .npz]

Each run is a fresh process that embeds a made text with a random tiny model and reports its own peak. The text, 5 words
a sentence from 5,000 words, is written to a temporary folder, as are the outputs.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

WORKER = """
import json, resource, sys, time
from elmokit.job import embed_file
from elmokit.model import load
model, text, out, options = sys.argv[1:]
started = time.perf_counter()
done = embed_file(text, out, elmo=load(model), progress=False, **json.loads(options))
print(json.dumps({"sentences": done.sentences, "tokens": done.tokens, "seconds": round(done.seconds, 1),
                  "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))
"""


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--sentences", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--endings", nargs="+", default=[".hdf5", ".parquet", ".npz"])
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        runs = [run for n in arguments.sentences for run in measure(n, arguments.endings, Path(folder))]
    result = {
        "what": "peak RSS of elmo embed, tiny random model (layers averaged, float32)",
        "machine": {"processor": platform.processor() or platform.machine(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("elmokit", "torch", "numpy", "h5py", "pyarrow")},
        "date": time.strftime("%Y-%m-%d"),
        "runs": runs,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


def measure(n: int, endings: list[str], folder: Path) -> list[dict[str, object]]:
    """Embed `n` sentences once for each kind of output; HDF5 with and without its index of sentences."""
    text, model = folder / "text.txt", folder / "model"
    write_text(text, n)
    write_model(model)
    kinds = [(ending, {}) for ending in endings]
    if ".hdf5" in endings:
        kinds.append((".hdf5", {"forget_sentences": True}))
    runs = []
    for ending, options in kinds:
        out = folder / f"out{ending}"
        command = [sys.executable, "-c", WORKER, model, text, out, json.dumps(options)]
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
        run = {"output": ending, **options, **json.loads(finished.stdout), "output_mb": out.stat().st_size // 2**20}
        print(run, file=sys.stderr)
        runs.append(run)
        out.unlink()
    return runs


def write_text(path: Path, n: int) -> None:
    """Write `n` sentences of five words, all different lines."""
    with path.open("w") as file:
        for i in range(n):
            file.write(" ".join(f"w{(i * k + i // 5000) % 5000}" for k in (1, 7, 11, 13, 17)) + "\n")


def write_model(path: Path) -> None:
    """Write a random model of the shape `tiny`, at half its width to leave the time to the outputs."""
    from elmokit.checkpoint import Checkpoint, Lstm, write_native
    from elmokit.train.initial import initial_arrays
    from elmokit.train.recipe import PRESETS

    lstm = Lstm(projection_dim=16, dim=64, n_layers=2, cell_clip=3.0, proj_clip=3.0, use_skip_connections=True)
    config = PRESETS["tiny"].model_copy(update={"lstm": lstm})
    write_native(Checkpoint(config, initial_arrays(config, seed=1)), path)


if __name__ == "__main__":
    main()
