"""The choice of the bundled model's shape: several shapes, each trained on one core for about the same time.

    python benchmarks/shapes.py WORK [--only NAME...] [--judge]

Every shape fits, with its head of 50,000 words in 8 bits, into the 28 MB that the package may hold. `epochs` are such
that ten minutes of processor time pass, as a few updates of each shape took here. Interrupted runs go on where they
ended. `--judge` also asks judges of benchmarks/quality. Writes benchmarks/results/bundled-shape.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from elmokit import load
from elmokit.checkpoint import Checkpoint, native_files, read_native

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "bundled-shape.json"
sys.path.append(str(HERE / "quality"))  # the judges
SHARED = Path(os.environ.get("ELMOKIT_SHARED", HERE.parents[1] / "shared")) / "data"
WIDTHS = [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512]]


class Shape(NamedTuple):
    """Cells, projection and layers of the LSTMs, groups of filters, and passes over 10 million tokens."""

    dim: int
    projection_dim: int
    n_layers: int
    groups: int
    epochs: float


SHAPES = {
    "1024/128, 1,024 filters": Shape(1024, 128, 2, 6, 0.215),
    "1024/192, 512 filters": Shape(1024, 192, 2, 5, 0.216),
    "768/192, 1,024 filters": Shape(768, 192, 2, 6, 0.192),
    "1024/128, 512 filters": Shape(1024, 128, 2, 5, 0.297),
    "1536/128, 512 filters": Shape(1536, 128, 2, 5, 0.204),
    "3 layers of 768/128, 512 filters": Shape(768, 128, 3, 5, 0.245),
}
FIXED = """--max-vocab 50000 --batch-size 64 --samples 2048 --seed 1 --evaluate-places 50000 --evaluate-every 100000
--save-every 500 --threads 1 --precision bfloat16""".split()


def main() -> None:
    """Train what is not trained, and write what is known of every shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="*", choices=list(SHAPES), metavar="NAME")
    parser.add_argument("--judge", action="store_true")
    told = parser.parse_args()
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    shapes = found.get("shapes", {})
    for name in told.only or SHAPES:
        folder = told.work / name.replace("/", "-").replace(", ", "-").replace(",", "").replace(" ", "-")
        train(SHAPES[name], folder)
        shapes[name] = {**measured(folder), **(judged(folder) if told.judge else {})}
        told_versions = {package: version(package) for package in ("elmokit", "torch", "numpy")}
        text = "wiki2015/train-00; held out: 50,176 places of wiki2015/valid"
        found = {"script": "benchmarks/shapes.py", "versions": told_versions, "text": text, "shapes": shapes}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
        print(name, shapes[name], flush=True)


def train(shape: Shape, folder: Path) -> None:
    """Begin a run, or go on with it, and add up its processor time in a file beside it."""
    spent = folder.with_suffix(".seconds")
    if (folder / "training" / "log.jsonl").exists() and "mean" in entries(folder)[-1]:
        return
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    try:
        subprocess.run([*command(shape, folder)], check=True)
    finally:
        seconds = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before
        spent.write_text(f"{float(spent.read_text() if spent.exists() else 0) + seconds:.1f}\n")


def command(shape: Shape, folder: Path) -> list[str]:
    """Return what to run."""
    start = [sys.executable, "-m", "elmokit", "train", "--out", str(folder), "--threads", "1"]
    if (folder / "training" / "settings.json").exists():
        return [*start, "--resume"]
    lstm = {**shape._asdict(), "cell_clip": 3, "proj_clip": 3, "use_skip_connections": True}
    lstm = {key: value for key, value in lstm.items() if key not in ("groups", "epochs")}
    cnn = {"activation": "relu", "filters": WIDTHS[: shape.groups], "n_highway": 1, "embedding": {"dim": 16}}
    options = folder.with_suffix(".json")
    options.parent.mkdir(parents=True, exist_ok=True)
    options.write_text(json.dumps({"lstm": lstm, "char_cnn": {**cnn, "max_characters_per_token": 50}}))
    texts = SHARED / "lm" / "wiki2015"
    heldout = ["--heldout", str(texts / "valid.txt.xz"), "--options", str(options), "--epochs", str(shape.epochs)]
    return [*start, str(texts / "train-00.txt.xz"), *heldout, *FIXED]


def entries(folder: Path) -> list[dict[str, Any]]:
    """Return the log of a run."""
    return [json.loads(line) for line in (folder / "training" / "log.jsonl").read_text().splitlines()]


def measured(folder: Path) -> dict[str, Any]:
    """Return size, work and held-out perplexity of a finished run."""
    model: Checkpoint = read_native(folder)
    last = entries(folder)[-1]
    return {
        "parameters": model.n_parameters,
        "packed_bytes": sum(map(len, native_files(model, dtype="int8").values())),
        "updates": last["step"],
        "tokens": last["places"],
        "cpu_seconds": float(folder.with_suffix(".seconds").read_text()),
        **{name: round(last[name], 2) for name in ("forward", "backward", "mean")},
    }


def judged(folder: Path) -> dict[str, Any]:
    """Return what the layers know of parts of speech and of senses, by the judges of benchmarks/quality."""
    import judging  # only where it is asked for
    import pos
    import state
    import words
    import wsd

    told = judging.parser(None).parse_args(["--model", str(folder)])
    system = judging.elmo_system(folder.name, load(folder))
    tests = {wsd.ALL: wsd.raganato(told, wsd.ALL)}
    train = wsd.semcor(told)
    rows = {
        "parts of speech": ("upos", pos.universal(system, pos.treebank(told), strength=state.STRENGTH)),
        "senses": (wsd.ALL, wsd.judge(system, train, tests, wsd.by_frequency(train))),
        "twenty words": ("same_sense", words.judge(system, words.read())),
    }
    return {name: {row["layer"]: row[figure] for row in found} for name, (figure, found) in rows.items()}


if __name__ == "__main__":
    main()
