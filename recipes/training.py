"""What the recipes share: training an ELMo, one that was not trained, and a report of what came out."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from elmokit import Elmo
from elmokit.checkpoint import read_native
from elmokit.reading import read_lines
from elmokit.train.initial import initial_arrays


def train_elmo(out: Path, text: Path, options: list[str]) -> Path:
    """Train a model in `out` with the command line, or go on with the one there, which is quick once that is done."""
    told = ["--resume"] if (out / "training" / "settings.json").exists() else [str(text), *options]
    subprocess.run([sys.executable, "-m", "elmokit", "train", "--out", str(out), *told], check=True)
    return out


def beginning(text: Path, target: Path, lines: int) -> Path:
    """Write the first lines of a text to `target` and return it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(f"{line}\n" for line in islice(read_lines(text), lines)), encoding="utf-8")
    return target


def untrained(folder: Path) -> Elmo:
    """Return a model of the same shape as the one in `folder`, with the weights that its training began with."""
    trained = read_native(folder)
    arrays = initial_arrays(trained.config, seed=1, n_words=len(trained.vocabulary or ()))
    return Elmo(replace(trained, arrays=arrays))


class Report:
    """Scores of tasks, by system, over seeds; printed as they come and written as JSON at the end."""

    def __init__(self, path: Path, data: str, model: Path) -> None:
        self.path, self.data, self.card = path, data, (model / "README.md").read_text(encoding="utf-8")
        self.scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, task: str, system: str, score: float) -> None:
        """Take one run's score."""
        self.scores[task][system].append(score)
        print(f"{task:16} {system:26} {score:.4f}", flush=True)

    def write(self) -> None:
        """Print means and standard deviations over the seeds, and write everything."""
        print()
        for task, systems in self.scores.items():
            for system, scores in systems.items():
                deviation = statistics.stdev(scores) if len(scores) > 1 else 0.0
                print(f"{task:16} {system:26} {100 * statistics.mean(scores):6.2f} ± {100 * deviation:.2f}")
        found = {
            "data": self.data,
            "scores": self.scores,
            "card": self.card,
            "versions": {name: version(name) for name in ("elmokit", "torch", "numpy")}
            | {"python": platform.python_version()},
        }
        self.path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
