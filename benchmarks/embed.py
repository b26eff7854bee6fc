"""Measure how fast elmokit embeds a text, beside older tools on the same weights; see README.md of this folder.

    python benchmarks/embed.py --text TEXT --shape small --peer allennlp=PYTHON --peer fast_elmo=PYTHON

Every round runs each engine once, in a process of its own, one after the other, so that a busy spell of the machine
falls on all of them. Loading is not timed. All return the three layers of every sentence as NumPy arrays, but for
pytorch-fast-elmo, which returns their mean.
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
# What each run asks of which engine. The older tools leave batching to their caller; sorting by length helps them much.
RUNS: dict[str, dict[str, Any]] = {
    "elmokit": {"engine": "elmokit"},
    "elmokit_bfloat16": {"engine": "elmokit", "precision": "bfloat16"},
    "bilm_tf": {"engine": "bilm_tf"},
    "allennlp": {"engine": "allennlp"},
    "allennlp_sorted": {"engine": "allennlp", "order": "sorted"},
    "fast_elmo": {"engine": "fast_elmo"},
    "fast_elmo_sorted": {"engine": "fast_elmo", "order": "sorted"},
}
# Float32 sums in another order, through two recurrent layers.
TOLERANCE = 1e-4


def main() -> None:
    arguments = parse(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        random_model.write(scratch / "model", arguments.shape, seed=arguments.seed)
        measured = measure(arguments, scratch)
    print("\n".join(table.embed_lines(add_to(RESULTS, arguments.shape, measured))))


def add_to(path: Path, shape: str, measured: dict[str, Any]) -> dict[str, Any]:
    """Put what was measured of a shape into a file of results, in place of what it had; return all of them."""
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    results[shape] = measured
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return results


def parse(description: str | None) -> argparse.Namespace:
    """Return what the command line asks; `pythons`: the interpreter of each engine."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help="interpreter of the environment with bilm_tf, allennlp or fast_elmo; may be given several times",
    )
    parser.add_argument("--text", required=True, help="one tokenised sentence a line")
    parser.add_argument("--shape", choices=sorted(random_model.SHAPES), default="small")
    parser.add_argument("--limit", type=int, help="only the first so many sentences")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch-size", type=int, default=32, help="sentences in a batch of AllenNLP")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.pythons = {"elmokit": sys.executable} | dict(peer.split("=", 1) for peer in arguments.peer)
    return arguments


def measure(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Run all rounds; returns what goes into the results under the name of the shape."""
    job = asked_of_all(arguments, scratch)
    text = describe_text(arguments.text, arguments.limit)
    options = random_model.options(arguments.shape)
    work = arithmetic(options, text)
    shim = stand_in(scratch)
    runs = {name: run for name, run in RUNS.items() if run["engine"] in arguments.pythons}
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in ("matmul", *runs)}
    differences: dict[str, float] = {}
    for number in range(arguments.rounds):
        rounds["matmul"].append(run(sys.executable, {"engine": "matmul", "threads": arguments.threads}, shim))
        for name, asked in runs.items():
            save = str(scratch / f"{name}.npz") if number == 0 else None
            rounds[name].append(run(arguments.pythons[asked["engine"]], job | asked | {"save": save}, shim))
            print(f"round {number + 1}: {name} {rounds[name][-1]['seconds']:.1f} s", file=sys.stderr)
            if number == 0 and asked["engine"] != "elmokit" and "order" not in asked:
                differences[name] = compare(scratch / "elmokit.npz", scratch / f"{name}.npz")
    return {
        "machine": machine(arguments.threads),
        "text": text,
        "work": work,
        "peer_batch_size": arguments.batch_size,
        "weights_seed": arguments.seed,
        "max_difference": differences,
        "matmul_gflops": round(max(one["gflops"] for one in rounds["matmul"]), 1),
        "matmul_rates": rounds["matmul"][0]["rates"],
        "runs": {name: summary(rounds[name], text["tokens"]) for name in runs},
    }


def asked_of_all(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """What is the same in every engine's job."""
    return {
        "model": str(scratch / "model"),
        "text": str(Path(arguments.text).resolve()),
        "limit": arguments.limit,
        "batch_size": arguments.batch_size,
        "threads": arguments.threads,
    }


def run(python: str, job: dict[str, Any], shim: Path) -> dict[str, Any]:
    """One worker, from start to end."""
    threads = str(job["threads"])
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": ""}
    if job["engine"] in ("allennlp", "fast_elmo", "bilm_tf"):
        environment |= {"PYTHONPATH": str(shim) if job["engine"] == "allennlp" else "", "LC_ALL": "C.UTF-8"}
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
    """Largest difference of any number in the first batch; ends the run if the two do not agree."""
    with np.load(ours) as mine, np.load(theirs) as peer:
        pairs = [(mine[name] if peer[name].ndim == 3 else mine[name].mean(0), peer[name]) for name in mine.files]
    if any(a.shape != b.shape for a, b in pairs):
        sys.exit(f"elmokit and {theirs.stem} returned arrays of different shapes")
    difference = max(float(np.abs(a - b).max()) for a, b in pairs)
    if not difference <= TOLERANCE:
        sys.exit(f"elmokit and {theirs.stem} differ by {difference:.2g} in the first batch, more than {TOLERANCE:.0e}")
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
    projection, cnn = options["lstm"]["projection_dim"], options["char_cnn"]
    token = 2 * weights_of_layers(options)
    places = cnn["max_characters_per_token"]
    windows = sum((places - width + 1) * width * count for width, count in cnn["filters"])
    filters = sum(count for _, count in cnn["filters"])
    word = 2 * (windows * cnn["embedding"]["dim"] + cnn["n_highway"] * 2 * filters**2 + filters * projection)
    return {
        "mflop_per_token": round(token / 1e6, 2),
        "mflop_per_distinct_word": round(word / 1e6, 2),
        "gflop_for_the_text": round((text["tokens"] * token + text["distinct_words"] * word) / 1e9, 1),
    }


def weights_of_layers(options: dict[str, Any]) -> int:
    """Number of weights that a place of a sentence meets in the LSTM layers, both directions."""
    cells, projection = options["lstm"]["dim"], options["lstm"]["projection_dim"]
    return weights_of_steps(options) + 2 * options["lstm"]["n_layers"] * projection * 4 * cells


def weights_of_steps(options: dict[str, Any]) -> int:
    """Number of those that a step needs: of h and of the projection, without those of the input."""
    cells, projection = options["lstm"]["dim"], options["lstm"]["projection_dim"]
    return 2 * options["lstm"]["n_layers"] * (projection * 4 * cells + cells * projection)


def latency_share(weights: int, reading_gb_s: float) -> dict[str, Any]:
    """Milliseconds of one sentence of 20 tokens in which these weights are read, at each of its 22 places, as a step
    needs the one before.
    """
    return {
        "weights_mb": round(4 * weights / 1e6, 1),
        "reading_gb_s": round(reading_gb_s, 1),
        "reading_ms": round(22 * 4 * weights / reading_gb_s / 1e6, 2),
    }


def summary(rounds: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
    """Medians over the rounds, and the rounds themselves."""
    seconds = [one["seconds"] for one in rounds]
    return versions_of(rounds[0]) | {
        "tokens_per_s": round(tokens / statistics.median(seconds), 1),
        "tokens_per_cpu_s": round(tokens / statistics.median(one["cpu_seconds"] for one in rounds), 1),
        "peak_mb": max(one["peak_mb"] for one in rounds),
        "load_seconds": round(statistics.median(one["load_seconds"] for one in rounds), 2),
        "seconds_of_each_round": [round(one, 2) for one in seconds],
    }


def versions_of(one: dict[str, Any]) -> dict[str, str]:
    """With what an engine ran."""
    return {name: one[name] for name in ("version", "torch", "tensorflow", "python") if name in one}


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
