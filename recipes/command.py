"""The command line of a recipe: data in, every system trained from every seed, a table and a JSON file out."""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from data import opened, split_raw
from results import Results
from stored import Stored, Words, store
from trainer import SYSTEMS, Example, Parts, Recipe, Vectors, predict, train_network

from elmokit import Elmo, load
from elmokit.errors import ElmoError, TextError

SHARED = Path(os.environ.get("ELMOKIT_SHARED", Path(__file__).parents[2] / "shared"))


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that all recipes have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, help="folder or archive; without it, that of $ELMOKIT_SHARED/data/tasks")
    add("--work", type=Path, required=True, help="folder for unpacked data and stored vectors; may be shared")
    add("--results", type=Path, help="folder for the JSON file; by default WORK/results")
    add("--model", help="the ELMo: a path or a published name; without it, the bundled one")
    add("--vectors", type=Path, help="word vectors (word2vec's .bin, or text); without them, ones that begin random")
    add("--systems", nargs="+", choices=SYSTEMS, help="only these of the recipe's systems")
    add("--seeds", type=_count, default=3, metavar="N", help="how often each system is trained")
    add("--fraction", type=float, default=1.0, help="of the training data, drawn anew for each seed")
    add("--threads", type=int, default=1)
    add("--quick", action="store_true", help="little data, one seed: shows that it runs")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, found {text!r}")
    return int(text)


@contextmanager
def told_plainly() -> Iterator[None]:
    """End the program with one sentence for an error that its user can mend."""
    try:
        yield
    except (ElmoError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))


def run(recipe: Recipe, told: argparse.Namespace) -> Results:
    """Train every system from every seed, but for those in the results already; print and write the scores."""
    torch.set_num_threads(told.threads)
    recipe, seeds = hurried(recipe, told)
    parts = read(recipe, told)
    elmo = load(told.model)
    stored = store(sentences_of(parts), elmo, told.work / "vectors", pooled=recipe.pooled)
    vectors = read_vectors(told.vectors, parts)
    results = Results(results_file(recipe, told), about(recipe, told, parts, elmo))
    for name in told.systems or recipe.systems:
        for seed in range(1, seeds + 1):
            if not results.has(system=name, seed=seed):
                train = drawn(parts.train, told.fraction, seed)
                results.add(
                    {"system": name, "seed": seed, **one_run(recipe, name, train, parts, stored, seed, vectors)}
                )
    results.print_means()
    return results


def one_run(
    recipe: Recipe,
    name: str,
    train: list[Example],
    parts: Parts,
    stored: Stored,
    seed: int,
    vectors: Vectors | None,
) -> dict[str, Any]:
    """Train one network and return its score on the test part and how it was come by."""
    start = time.monotonic()
    parts = parts._replace(train=train)
    network, told = train_network(recipe, parts, recipe.systems[name], stored, seed=seed, vectors=vectors)
    score = recipe.measure([one.right for one in parts.test], predict(network, parts.test))
    return {"score": score, **told, "seconds": round(time.monotonic() - start, 1)}


def hurried(recipe: Recipe, told: argparse.Namespace) -> tuple[Recipe, int]:
    """Return the recipe and the number of seeds, both cut short by --quick."""
    return (replace(recipe, epochs=2, updates=1), 1) if told.quick else (recipe, told.seeds)


def read(recipe: Recipe, told: argparse.Namespace) -> Parts:
    """Read the data; little of it with --quick."""
    path = told.data or SHARED / "data" / "tasks" / recipe.data
    if not path.exists():
        raise TextError(f"the data of {recipe.name} is not at {path}; name a folder or an archive with --data")
    parts = recipe.read(opened(path, told.work / "data"))
    sizes = (200, 50, 50) if told.quick else map(len, parts)
    parts = Parts(*(evenly(part, size) for part, size in zip(parts, sizes, strict=True)))
    return Parts(*([split(one) for one in part] for part in parts)) if recipe.raw else parts


def split(one: Example) -> Example:
    """Return an example of raw texts with their words."""
    return replace(one, sentences=tuple(split_raw(text) for (text,) in one.sentences))


def evenly(examples: list[Example], size: int) -> list[Example]:
    """Return about `size` examples from all over the list."""
    return examples[:: max(1, len(examples) // size)][:size]


def drawn(train: list[Example], fraction: float, seed: int) -> list[Example]:
    """Return a part of the training data that the seed decides."""
    return train if fraction == 1 else random.Random(seed).sample(train, max(8, round(fraction * len(train))))


def sentences_of(parts: Parts) -> Iterator[Words]:
    """Yield all sentences of a data set."""
    return (words for part in parts for one in part for words in one.sentences)


def read_vectors(path: Path | None, parts: Parts) -> Vectors | None:
    """Return the vectors of the words of the data, or None without a file of vectors."""
    if path is None:
        return None
    from word_vectors import read_words

    return read_words(path, {word.lower() for words in sentences_of(parts) for word in words})


def results_file(recipe: Recipe, told: argparse.Namespace) -> Path:
    """Return where results go: NAME.json, or NAME-10%.json of a part of the training data."""
    part = "" if told.fraction == 1 else f"-{told.fraction:.0%}"
    return (told.results or told.work / "results") / f"{recipe.name}{part}.json"


def about(recipe: Recipe, told: argparse.Namespace, parts: Parts, elmo: Elmo) -> dict[str, Any]:
    """Return what decides about the numbers of all runs."""
    settings = ("epochs", "patience", "updates", "batch_size", "rate", "characters")
    return {
        "recipe": recipe.name,
        "metric": recipe.metric,
        "data": {**{name: len(part) for name, part in parts._asdict().items()}, "digest": digest(repr(parts).encode())},
        "fraction": told.fraction,
        "quick": told.quick,
        "model": {"name": told.model or "bundled", "fingerprint": elmo.fingerprint[:16]},
        "word vectors": told.vectors.name if told.vectors else "random at first, learned with the task",
        "digest of word vectors": digest(told.vectors.read_bytes()) if told.vectors else None,
        "settings": {name: getattr(recipe, name) for name in settings},
    }


def digest(content: bytes) -> str:
    """Return what tells this content from any other."""
    return hashlib.sha256(content).hexdigest()[:16]
