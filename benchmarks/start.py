"""How long starting takes: `elmo --help`, importing, and one line embedded with the bundled model.

    python benchmarks/start.py [--rounds 5]

Each round runs every command once, each in a fresh process; the figures are medians.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import table
from embed import machine

RESULTS = Path(__file__).parent / "results" / "start.json"


def main() -> None:
    """Measure and write the JSON and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--allennlp", help="interpreter of the environment with AllenNLP, to import it")
    parser.add_argument("--bilm-tf", help="interpreter of the environment with bilm-tf, to import it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text("The cat sat on the mat .\n")
        elmo = [sys.executable, "-m", "elmokit"]
        commands = {
            "`elmo --help`": [*elmo, "--help"],
            "`elmo embed` of one line, bundled model": [*elmo, "embed", text, Path(folder) / "out.npz", "--force"],
            "`import elmokit`": [sys.executable, "-c", "import elmokit"],
            "`import torch`": [sys.executable, "-c", "import torch"],
        }
        for name, python in (("allennlp.modules.elmo", arguments.allennlp), ("bilm", arguments.bilm_tf)):
            if python:
                commands[f"`import {name}`"] = [python, "-W", "ignore", "-c", f"import {name}"]
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(arguments.rounds):
            for name, command in commands.items():
                started = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                seconds[name].append(round(time.perf_counter() - started, 3))
    found = {
        "machine": machine(2),
        "versions": {name: version(name) for name in ("elmokit", "torch")},
        "seconds": seconds,
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    table.main()


if __name__ == "__main__":
    main()
