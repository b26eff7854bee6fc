"""An ELMo of one's own for a recipe: training it, and one of the same shape that was not trained."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
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


def card(folder: Path) -> str:
    """Return the card of a trained model, which tells how it was made."""
    return (folder / "README.md").read_text(encoding="utf-8")
