"""Train elmokit and bilm-tf on the same text and compare held-out perplexity; see README.md of this folder.

Same network shape, vocabulary, number of updates and tokens in each update; each by its own trainer.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import table
import torch
from embed import describe_text, machine

import elmokit
from elmokit.checkpoint import parse_config
from elmokit.train.recipe import PRESETS

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "train_peer.json"
SPECIALS = ["<S>", "</S>", "<UNK>"]
# The preset tiny: bilm-tf passes a million tokens twice in about three quarters of an hour on one core.
SHAPE: dict[str, Any] = {
    "lstm": {
        "use_skip_connections": True,
        "projection_dim": 64,
        "cell_clip": 3,
        "proj_clip": 3,
        "dim": 256,
        "n_layers": 2,
    },
    "char_cnn": {
        "activation": "relu",
        "filters": [[1, 16], [2, 16], [3, 32], [4, 64], [5, 128]],
        "n_highway": 1,
        "embedding": {"dim": 16},
        "n_characters": 261,
        "max_characters_per_token": 50,
    },
}
# What bilm-tf's own training script sets, apart from the size of the batch.
RECIPE = {
    "bidirectional": True,
    "dropout": 0.1,
    "all_clip_norm_val": 10.0,
    "batch_size": 32,
    "unroll_steps": 20,
    "n_negative_samples_batch": 2048,
    "learning_rate": 0.2,
}


def prepare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the texts and the vocabulary that both trainers read; returns the job for bilm-tf."""
    # The options differ in one number: bilm-tf counts 261 characters in training and 262 afterwards.
    shape = SHAPE | {"char_cnn": SHAPE["char_cnn"] | {"n_characters": 262}}
    if parse_config(shape, where="SHAPE") != PRESETS["tiny"]:
        sys.exit("the preset tiny is no longer the shape that is given to bilm-tf here")
    work = Path(arguments.work).resolve()
    work.mkdir(parents=True, exist_ok=True)
    counts, places = copy_text(arguments.text, work / "train.txt", limit=arguments.tokens)
    copy_text(arguments.heldout, work / "heldout.txt", limit=None)
    words = [word for word, count in counts.items() if count >= arguments.min_count and word not in SPECIALS]
    words.sort(key=lambda word: (-counts[word], word))
    (work / "vocabulary.txt").write_text("".join(f"{word}\n" for word in SPECIALS + words), encoding="utf-8")
    size = len(words) + len(SPECIALS)
    lengths = {"n_epochs": arguments.epochs, "n_train_tokens": places, "n_tokens_vocab": size}
    paths = {"train": "train.txt", "heldout": "heldout.txt", "vocabulary": "vocabulary.txt"}
    return {name: str(work / file) for name, file in paths.items()} | {
        "out": str(work),
        "options": SHAPE | RECIPE | lengths,
        "seed": arguments.seed,
    }


def copy_text(source: str, target: Path, *, limit: int | None) -> tuple[Counter[str], int]:
    """Copy whole sentences up to `limit` tokens; returns word counts and predicted places (a sentence's end is one)."""
    counts: Counter[str] = Counter()
    places = 0
    with open(source, encoding="utf-8") as lines, open(target, "w", encoding="utf-8") as out:
        for words in filter(None, map(str.split, lines)):
            if limit is not None and counts.total() >= limit:
                break
            counts.update(words)
            places += len(words) + 1
            out.write(" ".join(words) + "\n")
    return counts, places


def run_peer(job: dict[str, Any], python: str, threads: int) -> dict[str, Any]:
    """bilm-tf's part; a finished run of the very same job is kept, as it takes long."""
    out = Path(job["out"])
    job_file, result = out / "bilm_tf.job.json", out / "bilm_tf.json"
    text = json.dumps(job, indent=1)
    if not (result.exists() and job_file.exists() and job_file.read_text(encoding="utf-8") == text):
        result.unlink(missing_ok=True)
        (out / "bilm_tf.log").unlink(missing_ok=True)  # of another run, or of one that was stopped
        job_file.write_text(text, encoding="utf-8")
        # Its reader opens files in the locale's encoding, and it has no setting for threads: it counts the cores given.
        environment = os.environ | {"LC_ALL": "C.UTF-8", "PYTHONPATH": ""}
        command = [python, str(HERE / "peer_bilm_tf.py"), str(job_file)]
        subprocess.run(pinned(threads) + command, check=True, env=environment)
    return dict(json.loads(result.read_text(encoding="utf-8")))


def run_elmokit(job: dict[str, Any], optimizer: str, threads: int) -> dict[str, Any]:
    """elmokit's part, by its command; a run with the very same arguments is kept, or continued."""
    folder, part = Path(job["out"]) / f"elmokit_{optimizer}", Path(job["out"]) / f"elmokit_{optimizer}.json"
    command = train_command(job, optimizer, folder)
    done = json.loads(part.read_text(encoding="utf-8")) if part.exists() else {}
    if done.get("command") != command:
        shutil.rmtree(folder, ignore_errors=True)
        done = {"command": command}
        part.write_text(json.dumps(done, indent=1), encoding="utf-8")
    if "heldout" not in done:
        started = (folder / "training" / "settings.json").exists()
        arguments = ["train", "--out", str(folder), "--resume"] if started else command
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
        subprocess.run([*pinned(threads), sys.executable, "-m", "elmokit", *arguments], check=True, env=environment)
        done |= read_log(folder / "training" / "log.jsonl")
        part.write_text(json.dumps(done, indent=1), encoding="utf-8")
    return dict(done)


def train_command(job: dict[str, Any], optimizer: str, folder: Path) -> list[str]:
    """The arguments of `elmo train` that repeat bilm-tf's settings; with "adamw" only the optimiser differs."""
    options = job["options"]
    settings = {
        "out": folder,
        "preset": "tiny",
        "heldout": job["heldout"],
        "vocabulary": job["vocabulary"],
        "optimizer": optimizer,
        "batch-size": options["batch_size"],
        "unroll": options["unroll_steps"],
        "samples": options["n_negative_samples_batch"],
        "dropout": options["dropout"],
        "epochs": options["n_epochs"],
        "seed": job["seed"],
        # Only at the end: the last weights are compared, not the best ones on the way.
        "evaluate-every": 1_000_000_000,
    }
    if optimizer == "adagrad":
        settings["learning-rate"] = options["learning_rate"]
    return ["train", job["train"], *(word for name, value in settings.items() for word in (f"--{name}", str(value)))]


def read_log(path: Path) -> dict[str, Any]:
    """Updates, time, the curve of the sampled loss as perplexity, and the held-out figures from a run's log."""
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    losses = [entry for entry in entries if "loss" in entry]
    last, heldout = losses[-1], entries[-1]
    return {
        "updates": last["step"],
        "tokens_per_update": last["places"] // last["step"],
        "seconds": round(last["seconds"], 1),
        "tokens_per_s": round(last["places"] / last["seconds"], 1),
        "curve": [[entry["step"], round(math.exp(entry["loss"]), 2)] for entry in losses],
        "heldout": {name: heldout[name] for name in ("forward", "backward", "mean")},
    }


def peer_heldout_by_elmokit(job: dict[str, Any]) -> dict[str, float]:
    """bilm-tf's trained weights, measured by the code that measures elmokit's."""
    from elmokit import formats
    from elmokit.checkpoint import read_vocabulary
    from elmokit.head import Softmax
    from elmokit.network import BiLM
    from elmokit.reading import read_sentences
    from elmokit.train.corpus import Rows, corpus_of
    from elmokit.train.evaluate import perplexity
    from elmokit.train.vocabulary import SPECIALS

    folder = Path(job["out"]) / "bilm_tf"
    checkpoint = formats.read(folder)
    with np.load(folder / "softmax.npz") as head:
        softmax = Softmax(*head["W"].shape)
        softmax.weight.data, softmax.bias.data = torch.from_numpy(head["W"]), torch.from_numpy(head["b"])
    rows = Rows.of(read_vocabulary(job["vocabulary"]), SPECIALS)
    with tempfile.TemporaryDirectory() as scratch:
        corpus = corpus_of(read_sentences(job["heldout"]), Path(scratch))
        network = BiLM.from_arrays(checkpoint.config, checkpoint.arrays)
        result = perplexity(network, softmax, corpus, rows, checkpoint.speller())
    return {"forward": result.forward, "backward": result.backward, "mean": result.mean}


def combine(job: dict[str, Any], peer: dict[str, Any], ours: dict[str, dict[str, Any]], threads: int) -> dict[str, Any]:
    """What goes into the results: nothing that depends on where the work folder is."""
    version = f"elmokit {elmokit.__version__} (torch {torch.__version__})"
    runs = [
        {
            "name": f"bilm-tf 0.1.post5 (TensorFlow {peer['versions']['tensorflow']})",
            "optimiser": f"Adagrad, {RECIPE['learning_rate']}",
            **peer["training"],
            "curve": peer["curve"],
            "heldout": peer_heldout_by_elmokit(job),
            "heldout_by_its_own_code": peer["heldout"],
        }
    ]
    for optimizer, run in ours.items():
        label = {"adagrad": f"Adagrad, {RECIPE['learning_rate']}", "adamw": "AdamW"}[optimizer]
        runs.append({"name": version, "optimiser": label, **{k: v for k, v in run.items() if k != "command"}})
    return {
        "machine": machine(threads),
        "versions": peer["versions"],
        "options": job["options"],
        "seed": job["seed"],
        "text": {name: describe_text(job[name], None) for name in ("train", "heldout")},
        "runs": runs,
    }


def pinned(threads: int) -> list[str]:
    """The command prefix that leaves the last `threads` cores of this machine."""
    cores = sorted(os.sched_getaffinity(0))[-threads:]
    return ["taskset", "--cpu-list", ",".join(map(str, cores))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", required=True, help="interpreter of the environment with bilm-tf")
    parser.add_argument("--text", required=True, help="training text, one tokenised sentence a line")
    parser.add_argument("--heldout", required=True, help="held-out text, likewise")
    parser.add_argument("--work", required=True, help="folder for copies, checkpoints and part results")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="take the text up to so many tokens")
    parser.add_argument("--min-count", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    job = prepare(arguments)
    peer = run_peer(job, arguments.peer_python, arguments.threads)
    ours = {optimizer: run_elmokit(job, optimizer, arguments.threads) for optimizer in ("adagrad", "adamw")}
    results = combine(job, peer, ours, arguments.threads)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table.train_lines(results)))


if __name__ == "__main__":
    main()
