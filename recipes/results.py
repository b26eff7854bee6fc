"""Results of a recipe: one JSON file, written anew after every run, with what the runs were made with.

A run that is in the file is not computed again, so an interrupted recipe goes on where it stopped.
"""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from elmokit.checkpoint import replace_file
from elmokit.errors import MismatchError


class Results:
    """Runs of one recipe; `about`: what they all have in common, and what an earlier file must agree with."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path, self.about = path, json.loads(json.dumps(about))
        self.runs: list[dict[str, Any]] = []
        if path.exists():
            self._take_up(json.loads(path.read_text(encoding="utf-8")))

    def _take_up(self, found: Mapping[str, Any]) -> None:
        for name, value in self.about.items():
            if found["about"].get(name) != value:
                raise MismatchError(
                    f"{self.path} holds results of another {name}: expected {value!r}, found "
                    f"{found['about'].get(name)!r}; choose another folder (--results), or delete the file"
                )
        self.runs = found["runs"]

    def has(self, **name: Any) -> bool:
        """Return whether a run of this name, such as task, system and seed, was made."""
        return any(name.items() <= run.items() for run in self.runs)

    def add(self, run: Mapping[str, Any]) -> None:
        """Take a run and its "score", a share of 1; print it and write the file."""
        self.runs.append(dict(run))
        names = " ".join(f"{value!s:26}" for value in run.values() if isinstance(value, str))
        print(f"{names} {run['score']:.4f}", flush=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        found = {"about": self.about, "versions": versions(), "runs": self.runs}
        replace_file(self.path, (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode())

    def print_means(self) -> None:
        """Print mean and standard deviation over the seeds."""
        print()
        for name, scores in grouped(self.runs).items():
            print(" ".join(f"{part:26}" for part in name), shown(scores))


def versions() -> dict[str, str]:
    """Return the versions that decide about numbers."""
    return {name: version(name) for name in ("elmokit", "torch", "numpy")} | {"python": platform.python_version()}


def grouped(runs: Sequence[Mapping[str, Any]]) -> dict[tuple[str, ...], list[float]]:
    """Return the scores of runs that differ in the seed only, by their names: all of a run that is a string."""
    found: dict[tuple[str, ...], list[float]] = {}
    for run in runs:
        found.setdefault(tuple(v for v in run.values() if isinstance(v, str)), []).append(run["score"])
    return found


def shown(scores: Sequence[float]) -> str:
    """Return mean ± standard deviation, in per cent; of one score no deviation."""
    deviation = f" ± {100 * statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
    return f"{100 * statistics.mean(scores):.2f}{deviation}"
