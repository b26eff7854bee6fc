"""What a billion and a trillion tokens take: hours, bytes, and where the bottleneck is. Arithmetic, but for two rates.

    python benchmarks/scaling.py --text brown2000.txt

Measured here, on one core: reading a text, writing Parquet. Taken from `results/embed.json`: the speed on a CPU. The
rest is assumed. `results/scaling.json` holds all of it and what follows; `table.py` writes it into docs/scaling.md.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from elmokit.reading import read_sentences
from elmokit.sinks.parts import Block, Parts
from elmokit.sinks.spec import Spec

RESULTS = Path(__file__).parent / "results"

ASSUMED = {
    "gpu_tokens_per_s": 1_000_000,  # the target for one H200, shape original, bfloat16, sentences pooled; not measured
    "width": 1024,  # of shape original
    "layers": 3,
    "storage_gb_per_s": 10,  # what a shared file system takes from all machines together
}
TOKENS, GPUS, PART_SENTENCES = (10**9, 10**12), (1, 8, 64), (10_000, 100_000)
# Name -> layers kept apart, whether a sentence is one vector.
KINDS = {"all layers": (3, False), "one layer, or their mean": (1, False), "one vector a sentence": (1, True)}
BYTES = {"float32": 4, "float16": 2}


def main() -> None:
    """Measure the two rates, then compute."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True, type=Path)
    text = parser.parse_args().text
    embed = json.loads((RESULTS / "embed.json").read_text(encoding="utf-8"))["small"]
    sentences = list(read_sentences(text))
    measured = {
        "processor": _processor(),
        "cpu_tokens_per_s": embed["runs"]["elmokit"]["tokens_per_s"],
        "cpu_threads": embed["machine"]["threads"],
        "tokens_a_sentence": round(sum(map(len, sentences)) / len(sentences), 1),
        "reader_tokens_per_s": round(reading_rate(text)),
        "writer_mb_per_s": round(writing_rate(sentences)),
    }
    found: dict[str, Any] = {"assumed": ASSUMED, "measured": measured}
    found["time"] = [hours(tokens, measured) for tokens in TOKENS]
    found["output"] = [output(kind, dtype, measured) for kind in KINDS for dtype in BYTES]
    found["parts"] = [parts(size, tokens, measured) for tokens in TOKENS for size in PART_SENTENCES]
    (RESULTS / "scaling.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


# ---------------------------------------------------------------- measured


def _best(run: Callable[[], float]) -> float:
    """Return the highest of five rates: what else the machine does only lowers one."""
    return max(run() for _ in range(5))


def reading_rate(text: Path) -> float:
    """Return how many tokens a second one process reads, splits and packs into blocks."""

    def run() -> float:
        start, tokens = time.perf_counter(), 0
        sentences: Iterator[list[str]] = read_sentences(text)
        while taken := list(islice(sentences, 10_000)):
            tokens += sum(map(len, taken))
            assert Block(0, 0, 0, json.dumps(taken, ensure_ascii=False).encode()).digest
        return tokens / (time.perf_counter() - start)

    return _best(run)


def writing_rate(sentences: list[list[str]]) -> float:
    """Return how many MB of vectors a second one process writes as a part, the time of the disk included."""
    random = np.random.default_rng(0)
    arrays = [random.standard_normal((len(one), ASSUMED["width"]), np.float32) for one in sentences[:1000]]
    block = Block(0, 0, 0, json.dumps(sentences[:1000]).encode())
    size = sum(array.nbytes for array in arrays)

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            Parts(Path(folder), ["text"], Spec(width=ASSUMED["width"])).write(block, arrays)
            return size / 1e6 / (time.perf_counter() - start)

    return _best(run)


# ---------------------------------------------------------------- computed


def hours(tokens: int, measured: dict[str, Any]) -> dict[str, Any]:
    """Return how long computing takes, reading and writing left aside."""
    alone = tokens / ASSUMED["gpu_tokens_per_s"] / 3600
    core = tokens / (measured["cpu_tokens_per_s"] / measured["cpu_threads"]) / 3600
    return {"tokens": tokens, "gpu_hours": alone, "hours": {g: alone / g for g in GPUS}, "cpu_core_hours": core}


def output(kind: str, dtype: str, measured: dict[str, Any]) -> dict[str, Any]:
    """Return what one kind of output takes: bytes, and what they do to the speed of a GPU.

    A worker computes a block and then writes it, so the two times add up; several workers on one GPU take turns.
    """
    layers, pooled = KINDS[kind]
    a_token = layers * ASSUMED["width"] * BYTES[dtype] / (measured["tokens_a_sentence"] if pooled else 1)
    a_second = a_token * ASSUMED["gpu_tokens_per_s"] / 1e9
    written = 1 / ASSUMED["gpu_tokens_per_s"] + a_token / (measured["writer_mb_per_s"] * 1e6)
    return {
        "kind": kind,
        "dtype": dtype,
        "bytes_a_token": a_token,
        "tb": {tokens: a_token * tokens / 1e12 for tokens in TOKENS},
        "gb_per_s_a_gpu": a_second,
        "tokens_per_s_with_writing": 1 / written,
        "gpu_hours_of_a_trillion": 1e12 * written / 3600,
        "workers_that_hide_writing": math.ceil(written * ASSUMED["gpu_tokens_per_s"]),
        "gpus_that_fill_the_storage": ASSUMED["storage_gb_per_s"] / a_second,
    }


def parts(size: int, tokens: int, measured: dict[str, Any]) -> dict[str, Any]:
    """Return how many parts there are, how large, and how many a second 64 GPUs make if nothing holds them up."""
    a_part = size * measured["tokens_a_sentence"]
    width = ASSUMED["width"] * 4
    return {
        "sentences": size,
        "tokens": tokens,
        "parts": tokens / a_part,
        "gb": {"one layer, or their mean": a_part * width / 1e9, "one vector a sentence": size * width / 1e9},
        "parts_per_s_of_64_gpus": 64 * ASSUMED["gpu_tokens_per_s"] / a_part,
    }


if __name__ == "__main__":
    main()
