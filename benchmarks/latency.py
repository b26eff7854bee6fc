"""How long one sentence takes, beside older tools on the same weights; see README.md of this folder.

    python benchmarks/latency.py --text TEXT --shape small --peer bilm_tf=PYTHON --peer allennlp=PYTHON

Every round runs each engine once, in a process of its own, one after the other. A call embeds one sentence of 20 tokens
of running text; of 30 calls the first five are not counted, and the median of the others is a round's time.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import random_model
import table
from embed import (
    HERE,
    RUNS,
    add_to,
    asked_of_all,
    latency_share,
    machine,
    parse,
    run,
    stand_in,
    versions_of,
    weights_of_steps,
)

RESULTS = HERE / "results" / "latency.json"
ENGINES = {name: asked for name, asked in RUNS.items() if "order" not in asked}


def main() -> None:
    """Measure one shape; write the JSON and the table."""
    arguments = parse(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        random_model.write(Path(folder) / "model", arguments.shape, seed=arguments.seed)
        measured = measure(arguments, Path(folder))
    add_to(RESULTS, arguments.shape, measured)
    table.main()


def measure(arguments: Any, scratch: Path) -> dict[str, Any]:
    """Run all rounds; returns what goes into the results under the name of the shape."""
    weights = weights_of_steps(random_model.options(arguments.shape))
    job = asked_of_all(arguments, scratch) | {"batch_size": 1, "one_sentence": True}
    shim = stand_in(scratch)
    runs = {name: asked for name, asked in ENGINES.items() if asked["engine"] in arguments.pythons}
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in ("reading", *runs)}
    for number in range(arguments.rounds):
        rounds["reading"].append(run(sys.executable, {**job, "engine": "reading", "weights": weights}, shim))
        for name, asked in runs.items():
            rounds[name].append(run(arguments.pythons[asked["engine"]], job | asked, shim))
            print(f"round {number + 1}: {name} {rounds[name][-1]['latency_ms']:.2f} ms", file=sys.stderr)
    return {
        "machine": machine(arguments.threads),
        "reading": latency_share(weights, max(one["gb_s"] for one in rounds["reading"])),
        "runs": {name: summary(rounds[name]) for name in runs},
    }


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Milliseconds of each round, and versions."""
    measured = (name for name in ("latency_ms", "latency_kept_ms") if name in rounds[0])
    times = {name: [round(one[name], 2) for one in rounds] for name in measured}
    medians = {f"median_{name}": round(statistics.median(found), 2) for name, found in times.items()}
    return versions_of(rounds[0]) | times | medians


if __name__ == "__main__":
    main()
