"""Speed of training beside bilm-tf: the same text, shape, vocabulary, batch and negatives, in alternating rounds.

    python benchmarks/train_speed.py --peer-python peers/bilm-tf/bin/python --text train.txt --heldout valid.txt \
        --work WORK --preset tiny --threads 1

Each side runs in a process of its own. What counts is what comes between an early update and a late one, so that
starting, reading the text and building a graph do not: by the log of elmokit, and for bilm-tf, whose log has no such
clock, by the difference of a run with few updates and one with more.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import table
import torch
from embed import arithmetic, machine
from train_peer import RECIPE, SPECIALS, copy_text, pinned

import elmokit
from elmokit.train.prepare import reopen
from elmokit.train.recipe import PRESETS
from elmokit.train.saved import SavedRun
from elmokit.train.settings import Settings
from elmokit.train.streams import Streams

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "train_speed.json"


def main() -> None:
    """Measure one shape and write it beside the others."""
    arguments = parse()
    arguments.work.mkdir(parents=True, exist_ok=True)
    job = prepare(arguments)
    rounds = [one_round(job, arguments, number) for number in range(arguments.rounds)]
    places = RECIPE["batch_size"] * RECIPE["unroll_steps"]
    names = [name for name in rounds[0] if name != "matmul_gflops"]
    seconds = {name: [one[name] for one in rounds] for name in names}
    work = work_of_an_update(job, arguments.work / "elmokit")
    peak = statistics.median(one["matmul_gflops"] for one in rounds)
    runs = {
        name: {
            "tokens_per_s": round(places / statistics.median(values), 1),
            "seconds_an_update": [round(value, 4) for value in values],
            "of_peak": round(work["gflop"] / statistics.median(values) / peak, 3),
        }
        for name, values in seconds.items()
    }
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found[f"{arguments.preset}, {arguments.threads} threads"] = {
        "machine": machine(arguments.threads),
        "versions": {"elmokit": elmokit.__version__, "torch": torch.__version__, **versions(arguments.peer_python)},
        "options": RECIPE | {"n_tokens_vocab": job["options"]["n_tokens_vocab"]},
        "work_of_an_update": work,
        "matmul_gflops": round(peak, 1),
        "runs": runs,
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(runs, indent=1))
    table.main()


def parse() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--heldout", required=True)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--preset", choices=["tiny", "small"], default="tiny")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, nargs=2, default=[20, 120])
    parser.add_argument("--precisions", nargs="+", default=["float32"])
    return parser.parse_args()


def prepare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the text and the vocabulary; return bilm-tf's job but for its length."""
    work = arguments.work.resolve()
    counts, _ = copy_text(arguments.text, work / "train.txt", limit=None)
    copy_text(arguments.heldout, work / "heldout.txt", limit=None)
    words = [word for word, count in counts.items() if count >= 3 and word not in SPECIALS]
    words.sort(key=lambda word: (-counts[word], word))
    (work / "vocabulary.txt").write_text("".join(f"{word}\n" for word in SPECIALS + words), encoding="utf-8")
    config = PRESETS[arguments.preset].model_dump()
    shape = {"lstm": config["lstm"], "char_cnn": config["char_cnn"] | {"n_characters": 261}}
    options = shape | RECIPE | {"n_tokens_vocab": len(words) + len(SPECIALS), "n_epochs": 1}
    paths = {name: str(work / f"{name}.txt") for name in ("train", "heldout", "vocabulary")}
    return {**paths, "out": str(work), "options": options, "seed": 1}


def one_round(job: dict[str, Any], arguments: argparse.Namespace, number: int) -> dict[str, float]:
    """Return seconds an update of each side, and the speed of a large product."""
    few, many = arguments.updates

    def difference(run: Any, *rest: Any) -> float:
        return (run(many, *rest) - run(few, *rest)) / (many - few)

    sides = {"bilm-tf": lambda: difference(run_peer, job, arguments)}
    for precision in arguments.precisions:
        sides[f"elmokit, {precision}"] = lambda p=precision: run_elmokit(many, job, arguments, p)
    order = list(sides) if number % 2 == 0 else list(reversed(sides))
    found = {name: sides[name]() for name in order}
    found = {name: found[name] for name in sides}
    print(number, found, flush=True)
    return {**found, "matmul_gflops": matmul_gflops(arguments.threads)}


def run_peer(updates: int, job: dict[str, Any], arguments: argparse.Namespace) -> float:
    """Return the seconds that bilm-tf's own train() takes for so many updates."""
    tokens = updates * RECIPE["batch_size"] * RECIPE["unroll_steps"]
    job = {**job, "options": job["options"] | {"n_train_tokens": tokens}}
    file = arguments.work / "peer.job.json"
    file.write_text(json.dumps(job))
    shutil.rmtree(arguments.work / "bilm_tf", ignore_errors=True)
    environment = os.environ | {"LC_ALL": "C.UTF-8", "PYTHONPATH": ""}
    command = [*pinned(arguments.threads), arguments.peer_python, str(HERE / "peer_bilm_tf_speed.py"), str(file)]
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    result = json.loads(done.stdout.splitlines()[-1])
    if result["updates"] != updates:
        sys.exit(f"bilm-tf did {result['updates']} updates, not {updates}")
    return float(result["seconds"])


def run_elmokit(many: int, job: dict[str, Any], arguments: argparse.Namespace, precision: str) -> float:
    """Return the seconds an update of `elmo train` takes, from its log."""
    out = arguments.work / "elmokit"
    shutil.rmtree(out, ignore_errors=True)
    tokens = sum(1 + len(line.split()) for line in Path(job["train"]).read_text(encoding="utf-8").splitlines())
    options = {
        "out": out, "preset": arguments.preset, "heldout": job["heldout"], "vocabulary": job["vocabulary"],
        "batch-size": RECIPE["batch_size"], "unroll": RECIPE["unroll_steps"], "softmax": "sampled",
        "samples": RECIPE["n_negative_samples_batch"], "dropout": RECIPE["dropout"], "precision": precision,
        "evaluate-every": 10**9, "save-every": 10**9, "evaluate-places": 64,
        "epochs": (many + 0.5) * RECIPE["batch_size"] * RECIPE["unroll_steps"] / tokens,
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads), "CUDA_VISIBLE_DEVICES": ""}
    command = [*pinned(arguments.threads), sys.executable, "-m", "elmokit", "train", job["train"], *words]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    lines = (out / "training" / "log.jsonl").read_text().splitlines()
    entries = {entry["step"]: entry["seconds"] for entry in map(json.loads, lines) if "loss" in entry}
    first, last = min(entries), max(entries)
    return (entries[last] - entries[first]) / (last - first)


def work_of_an_update(job: dict[str, Any], out: Path) -> dict[str, Any]:
    """Return the needed arithmetic: forward and twice as much backward, each distinct word of a window once."""
    settings = Settings.from_json(SavedRun(out).read_settings())
    prepared = reopen(settings, out / "training" / "corpus")
    rows, unroll = RECIPE["batch_size"], RECIPE["unroll_steps"]
    streams = Streams(prepared.train, prepared.rows, prepared.speller, rows=rows, unroll=unroll, seed=1)
    distinct = statistics.mean(len(streams.window(step).chars_UC) for step in range(50))
    parts = arithmetic(job["options"], {"tokens": 0, "distinct_words": 0})
    samples, width = RECIPE["n_negative_samples_batch"], job["options"]["lstm"]["projection_dim"]
    softmax = rows * unroll * 2 * (samples + 1) * width * 2 / 1e6
    forward = rows * unroll * parts["mflop_per_token"] + distinct * parts["mflop_per_distinct_word"] + softmax
    return {"gflop": round(3 * forward / 1e3, 2), "distinct_words": round(distinct, 1)}


def matmul_gflops(threads: int) -> float:
    """Return the speed of a large float32 product here and now, on the cores that the trainers get."""
    command = [*pinned(threads), sys.executable, str(HERE / "embed_worker.py")]
    job = json.dumps({"engine": "matmul", "threads": threads})
    done = subprocess.run(command, input=job, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["gflops"])


def versions(python: str) -> dict[str, str]:
    """Return the peer's versions."""
    ask = "import sys, tensorflow as t; print(sys.version.split()[0], t.__version__)"
    done = subprocess.run([python, "-W", "ignore", "-c", ask], capture_output=True, text=True, check=True)
    return dict(zip(("peer_python", "tensorflow"), done.stdout.split()[-2:], strict=True))


if __name__ == "__main__":
    main()
