"""What the judges share: their options, the data, the systems that are judged, and how a result is written.

A judge embeds the sentences of a data set once with every layer of each system, and scores each layer. The systems are
the model that is judged, a model of the same shape with random weights, and, with `--static`, vectors of words without
context (static_vectors.py).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from elmokit import Elmo, load
from elmokit.train.initial import initial_arrays
from elmokit.vectors import unit as unit

QUALITY = Path(__file__).parent
RESULTS = QUALITY.parent / "results" / "quality"
SHARED = Path(os.environ.get("ELMOKIT_SHARED", QUALITY.parents[2] / "shared"))
VERSIONS = ("elmokit", "torch", "numpy", "scikit-learn", "scipy", "gensim", "lancedb")

Sentence: TypeAlias = Sequence[str]
# All layers of one sentence: (L, T, D).
Stack: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class System:
    """Something that gives vectors. layers: the names of its layers; embed: sentences to one stack each, in order."""

    name: str
    layers: tuple[str, ...]
    embed: Callable[[Iterable[Sentence]], Iterator[Stack]]


# ---------------------------------------------------------------- options


def comparing(doc: str) -> argparse.ArgumentParser:
    """Return the options of a judge that compares systems."""
    made = parser(doc)
    made.add_argument("--static", type=Path, help="vectors to compare with, as static_vectors.py writes them")
    made.add_argument("--seed", type=int, default=1, help="of the random weights, and of what is drawn")
    return made


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return the options that all judges have."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", help="path of the model to judge (default: the bundled one)")
    made.add_argument("--data", type=Path, default=SHARED / "data", help="the folder that holds lm/ and tasks/")
    made.add_argument("--out", type=Path, help="the result (default: in benchmarks/results/quality)")
    made.add_argument("--quick", action="store_true", help="take little of everything; keep the result only with --out")
    return made


# ---------------------------------------------------------------- systems


def systems(told: argparse.Namespace) -> Iterator[System]:
    """Yield the systems to judge, one at a time."""
    elmo = load(told.model)
    yield elmo_system("ELMo", elmo)
    yield elmo_system("random weights", untrained(elmo, seed=told.seed))
    if told.static:
        yield static_system(told.static)


def elmo_system(name: str, elmo: Elmo, *, state: Any = "fresh") -> System:
    """Return an ELMo as a system: its layers, and their mean, which is what `embed` gives where nothing is asked."""

    def embed(sentences: Iterable[Sentence]) -> Iterator[Stack]:
        for stack in elmo.embed(sentences, layers="all", state=state):
            yield np.concatenate([stack, stack.mean(0, keepdims=True)])

    return System(name, (*map(str, range(elmo.n_layers)), "average"), embed)


def untrained(elmo: Elmo, *, seed: int) -> Elmo:
    """Return a model of the same shape with the weights that a training with this seed begins with."""
    arrays = initial_arrays(elmo.config, seed=seed, n_words=len(elmo.vocabulary or ()))
    return Elmo(replace(elmo.checkpoint(), arrays=arrays))


def static_system(path: Path) -> System:
    """Return gensim's word vectors as a system of one layer."""
    from gensim.models import KeyedVectors  # only where such vectors are given

    return lookup_system(KeyedVectors.load(str(path)))


def lookup_system(vectors: Any) -> System:
    """Return a table of word vectors as a system; a word that it has nothing for is a vector of zeros."""

    @cache
    def lookup(word: str) -> NDArray[np.float32]:
        try:
            return np.asarray(vectors[word], np.float32)
        except KeyError:
            return np.zeros(vectors.vector_size, np.float32)

    def embed(sentences: Iterable[Sentence]) -> Iterator[Stack]:
        for sentence in sentences:
            yield np.array([lookup(word) for word in sentence], np.float32).reshape(1, -1, vectors.vector_size)

    return System("static vectors", ("static",), embed)


# ---------------------------------------------------------------- data


@lru_cache(maxsize=8)
def member(archive: Path, name: str) -> str:
    """Return a file of a tar archive as text; ends the program where there is no such archive."""
    if not archive.is_file():
        sys.exit(f"{archive} is not there; name the folder that holds tasks/{archive.name} with --data")
    with tarfile.open(archive) as tar:
        file = tar.extractfile(name)
        if file is None:
            raise FileNotFoundError(f"{archive}: {name} is no file")
        return file.read().decode("utf-8")


def few(items: Iterable[Any], told: argparse.Namespace, n: int) -> list[Any]:
    """Return all items, or the first n with `--quick`."""
    return list(islice(items, n)) if told.quick else list(items)


def as_read(word: str) -> str:
    """Return a token as the training text has it: quotation marks, dashes and brackets are ASCII ones there."""
    return _MARKS.get(word, word).translate(_CURLY)


_MARKS = {"``": '"', "''": '"', "`": "'", "—": "--", "-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]"}
_MARKS |= {"-LCB-": "{", "-RCB-": "}"}
_CURLY = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})


# ---------------------------------------------------------------- arithmetic


def cosine(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Cosine of vectors (..., D), pair by pair."""
    return (unit(a) * unit(b)).sum(-1)


def percent(share: float) -> float:
    """Return a share in per cent with two digits, as it is published."""
    return round(100 * float(share), 2)


# ---------------------------------------------------------------- results


def write(told: argparse.Namespace, name: str, found: dict[str, Any]) -> None:
    """Print a result as JSON and write it to `--out`."""
    result = {"command": command(), "model": described(told.model), **provenance(), **found}
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    if told.out or not told.quick:
        out = told.out or RESULTS / f"{name}.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")


def command() -> str:
    """Return the command that runs, files by their names only."""
    words = (Path(word).name if "/" in word else word for word in sys.argv[1:])
    return " ".join(chain(["python", f"benchmarks/quality/{Path(sys.argv[0]).name}"], words))


def described(model: str | None) -> dict[str, Any]:
    """Return what tells one model from another."""
    elmo = load(model)
    parameters = sum(array.size for array in elmo.network.arrays().values())
    return {"name": Path(model).name if model else "bundled", "parameters": parameters, "sha256": elmo.fingerprint}


def provenance() -> dict[str, Any]:
    """Return the date and the versions of what has been loaded."""
    loaded = {name for name in VERSIONS if name.replace("scikit-learn", "sklearn") in sys.modules}
    return {"date": time.strftime("%Y-%m-%d"), "versions": {name: version(name) for name in VERSIONS if name in loaded}}
