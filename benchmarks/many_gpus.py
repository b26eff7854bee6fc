"""Communication against compute when training is shared by many GPUs: arithmetic, nothing is run on a GPU.

    python benchmarks/many_gpus.py --text train.txt

Only the number of distinct words in a window is measured, on the text. `results/many_gpus.json` holds the assumptions
and what follows; `table.py` writes it into docs/training.md.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
from pathlib import Path
from typing import Any

from embed import arithmetic

from elmokit.config import network_shapes
from elmokit.train.recipe import PRESETS

RESULTS = Path(__file__).parent / "results" / "many_gpus.json"

ASSUMED = {
    "preset": "original",
    "words": 100_000,
    "samples": 8192,
    "unroll": 20,
    "gpu": "H200",
    "bf16_tflops": 989,  # the data sheet's, dense
    "fraction": 0.25,  # of that, which issue the arithmetic is hoped to reach
    "gb_per_s": {"1": 0, "8": 450, "64": 50},  # one way and GPU: NVLink inside a machine, 400 Gb/s between machines
}
GPUS, ROWS = (1, 8, 64), (128, 1024)


def main() -> None:
    """Count distinct words, then compute."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True, type=Path)
    tokens = parser.parse_args().text.read_text(encoding="utf-8").split()
    found: dict[str, Any] = {"assumed": ASSUMED, "parameters": parameters(), "steps": []}
    for rows in ROWS:
        distinct = distinct_words(tokens, rows * ASSUMED["unroll"])
        found["steps"] += [step(rows, gpus, distinct) for gpus in GPUS]
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def parameters() -> dict[str, int]:
    """Count the weights of network and head."""
    config = PRESETS[ASSUMED["preset"]]
    network = sum(math.prod(shape) for shape in network_shapes(config).values())
    return {"network": network, "head": ASSUMED["words"] * (config.lstm.projection_dim + 1)}


def distinct_words(tokens: list[str], places: int) -> int:
    """Return how many distinct words that many places of shuffled text hold: the median of twenty draws of stretches of
    twenty tokens."""
    draw = random.Random(1)
    unroll = ASSUMED["unroll"]

    def one() -> int:
        starts = (draw.randrange(len(tokens) - unroll) for _ in range(places // unroll))
        return len({word for start in starts for word in tokens[start : start + unroll]})

    return round(statistics.median(one() for _ in range(20)))


def step(rows: int, gpus: int, distinct: int) -> dict[str, Any]:
    """Return one update's compute and communication on each GPU, milliseconds."""
    places, width = rows * ASSUMED["unroll"], PRESETS[ASSUMED["preset"]].lstm.projection_dim
    parts = arithmetic(PRESETS[ASSUMED["preset"]].model_dump(), {"tokens": 0, "distinct_words": 0})
    softmax = 2 * (ASSUMED["samples"] + 1) * width * 2 / 1e6
    forward = places * (parts["mflop_per_token"] + softmax) + distinct * parts["mflop_per_distinct_word"]
    gflop = 3 * forward / 1e3
    compute = gflop / (ASSUMED["bf16_tflops"] * ASSUMED["fraction"])
    sent = 2 * (gpus - 1) / gpus * 4 * sum(parameters().values()) / 1e9
    speed = ASSUMED["gb_per_s"][str(gpus)]
    return {
        "gpus": gpus,
        "rows_a_gpu": rows,
        "distinct_words": distinct,
        "gflop": round(gflop),
        "compute_ms": round(compute, 1),
        "sent_gb": round(sent, 2),
        "communication_ms": round(sent / speed * 1e3, 1) if speed else 0.0,
    }


if __name__ == "__main__":
    main()
