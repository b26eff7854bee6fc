"""Measure how fast elmokit embeds a text, beside AllenNLP on the same weights; see README.md of this folder.

Every round runs each engine once, in a process of its own, one after the other, so that a busy spell of the machine
falls on all of them. Loading is not timed. All return the three layers of every sentence as NumPy arrays.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import random_model
import table

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "embed.json"
# Engine and order of the sentences. AllenNLP leaves batching to its caller; sorting by length helps it much.
RUNS = {
    "elmokit": ("elmokit", "natural"),
    "allennlp": ("allennlp", "natural"),
    "allennlp_sorted": ("allennlp", "sorted"),
}
# Float32 sums in another order, through two recurrent layers.
TOLERANCE = 1e-4


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        random_model.write(scratch / "model", arguments.shape, seed=arguments.seed)
        measured = measure(arguments, scratch)
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    results[arguments.shape] = measured
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print("\n".join(table.embed_lines(results)))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", required=True, help="interpreter of the environment with AllenNLP")
    parser.add_argument("--text", required=True, help="one tokenised sentence a line")
    parser.add_argument("--shape", choices=sorted(random_model.SHAPES), default="small")
    parser.add_argument("--limit", type=int, help="only the first so many sentences")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch-size", type=int, default=32, help="sentences in a batch of AllenNLP")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def measure(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Run all rounds; returns what goes into the results under the name of the shape."""
    job = {
        "model": str(scratch / "model"),
        "text": str(Path(arguments.text).resolve()),
        "limit": arguments.limit,
        "batch_size": arguments.batch_size,
        "threads": arguments.threads,
    }
    text = describe_text(arguments.text, arguments.limit)
    work = arithmetic(random_model.options(arguments.shape), text)
    shim = stand_in(scratch)
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in ("matmul", *RUNS)}
    difference = 0.0
    for number in range(arguments.rounds):
        rounds["matmul"].append(run(sys.executable, {"engine": "matmul", "threads": arguments.threads}, shim))
        for name, (engine, order) in RUNS.items():
            python = sys.executable if engine == "elmokit" else arguments.peer_python
            save = str(scratch / f"{name}.npz") if number == 0 else None
            rounds[name].append(run(python, job | {"engine": engine, "order": order, "save": save}, shim))
            print(f"round {number + 1}: {name} {rounds[name][-1]['seconds']:.1f} s", file=sys.stderr)
            if number == 0 and name == "allennlp":
                difference = compare(scratch / "elmokit.npz", scratch / "allennlp.npz")
    return {
        "machine": machine(arguments.threads),
        "text": text,
        "work": work,
        "allennlp_batch_size": arguments.batch_size,
        "weights_seed": arguments.seed,
        "max_difference": difference,
        "matmul_gflops": round(max(one["gflops"] for one in rounds["matmul"]), 1),
        "runs": {name: summary(rounds[name], text["tokens"]) for name in RUNS},
    }


def run(python: str, job: dict[str, Any], shim: Path) -> dict[str, Any]:
    """One worker, from start to end."""
    threads = str(job["threads"])
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": ""}
    if job["engine"] == "allennlp":
        environment["PYTHONPATH"] = str(shim)
    done = subprocess.run(
        [python, str(HERE / "embed_worker.py")],
        input=json.dumps(job),
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


def stand_in(scratch: Path) -> Path:
    """An empty torchvision: AllenNLP imports it for its image reader, and no torchvision fits a newer torch."""
    package = scratch / "stand_in" / "torchvision"
    for name in ("io", "transforms"):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").touch()
    (package / "__init__.py").touch()
    return package.parent


def compare(ours: Path, theirs: Path) -> float:
    """Largest difference of any number in the first batch, all layers; ends the run if the two do not agree."""
    with np.load(ours) as mine, np.load(theirs) as peer:
        if [mine[name].shape for name in mine.files] != [peer[name].shape for name in peer.files]:
            sys.exit("elmokit and AllenNLP returned arrays of different shapes")
        difference = max(float(np.abs(mine[name] - peer[name]).max()) for name in mine.files)
    if not difference <= TOLERANCE:
        sys.exit(f"elmokit and AllenNLP differ by {difference:.2g} in the first batch, more than {TOLERANCE:.0e}")
    return difference


def describe_text(path: str, limit: int | None) -> dict[str, Any]:
    """What the text holds, and its hash, so that a later run can tell whether it used the same."""
    lines = [line.split() for line in Path(path).read_text(encoding="utf-8").split("\n") if line.strip()][:limit]
    joined = "\n".join(map(" ".join, lines))
    return {
        "file": Path(path).name,
        "sha256": hashlib.sha256(joined.encode()).hexdigest(),
        "sentences": len(lines),
        "tokens": sum(map(len, lines)),
        "distinct_words": len({word for words in lines for word in words}),
    }


def arithmetic(options: dict[str, Any], text: dict[str, Any]) -> dict[str, Any]:
    """Floating-point operations of the matrix products that the task needs, a multiply-add being two.

    Each token passes both directions of every LSTM layer once; each distinct word of the text passes the character CNN
    once (every place of the padded word), its highways and its projection. Sentence marks, padding, gates, activations
    and additions are not counted, so an implementation that does more work gets no credit for it.
    """
    lstm, cnn = options["lstm"], options["char_cnn"]
    cells, projection = lstm["dim"], lstm["projection_dim"]
    token = 2 * 2 * lstm["n_layers"] * (2 * projection * 4 * cells + cells * projection)
    places = cnn["max_characters_per_token"]
    windows = sum((places - width + 1) * width * count for width, count in cnn["filters"])
    filters = sum(count for _, count in cnn["filters"])
    word = 2 * (windows * cnn["embedding"]["dim"] + cnn["n_highway"] * 2 * filters**2 + filters * projection)
    return {
        "mflop_per_token": round(token / 1e6, 2),
        "mflop_per_distinct_word": round(word / 1e6, 2),
        "gflop_for_the_text": round((text["tokens"] * token + text["distinct_words"] * word) / 1e9, 1),
    }


def summary(rounds: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
    """Medians over the rounds, and the rounds themselves."""
    seconds = [one["seconds"] for one in rounds]
    keep = ("version", "torch", "python")
    return {name: rounds[0][name] for name in keep} | {
        "tokens_per_s": round(tokens / statistics.median(seconds), 1),
        "tokens_per_cpu_s": round(tokens / statistics.median(one["cpu_seconds"] for one in rounds), 1),
        "peak_mb": max(one["peak_mb"] for one in rounds),
        "load_seconds": round(statistics.median(one["load_seconds"] for one in rounds), 2),
        "seconds_of_each_round": [round(one, 2) for one in seconds],
    }


def machine(threads: int) -> dict[str, Any]:
    """Where it ran."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return {"cpu": model, "cores": os.cpu_count(), "threads": threads, "system": platform.system()}


if __name__ == "__main__":
    main()
