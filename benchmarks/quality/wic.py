"""Words in context: do two sentences use a word in the same sense? A threshold on the cosine of its two vectors (WiC).

    python benchmarks/quality/wic.py [--model MODEL] [--static static.kv] [--quick]

The threshold is the one that is right most often on the dev part; accuracy is counted on the test part. Half of the
answers are yes, so guessing gives 50 %.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import judging
import numpy as np
from judging import System, cosine, percent
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pair:
    """Two sentences, where the word stands in each, and whether its sense is the same."""

    sentences: tuple[list[str], list[str]]
    places: tuple[int, int]
    same: bool


def main() -> None:
    """Judge every system and write the result."""
    told = judging.comparing(__doc__).parse_args()
    dev, test = (wic(told, part) for part in ("dev", "test"))
    found = {system.name: judge(system, dev, test) for system in judging.systems(told)}
    data = {"name": "WiC 1.0", "dev": len(dev), "test": len(test)}
    judging.write(told, "wic", {"data": data, "systems": found})


def wic(told: argparse.Namespace, part: str) -> list[Pair]:
    """Return the pairs of a part."""
    data, gold = (
        judging.member(told.data / "tasks" / "wic.tar.xz", f"wic/raw/{part}/{part}.{kind}.txt").splitlines()
        for kind in ("data", "gold")
    )
    return [pair(line, answer) for line, answer in judging.few(zip(data, gold, strict=True), told, 200)]


def pair(line: str, answer: str) -> Pair:
    """Read one line: word, kind, places, and two sentences."""
    _, _, places, *sentences = line.split("\t")
    first, second = (list(map(judging.as_read, sentence.split())) for sentence in sentences)
    at, there = map(int, places.split("-"))
    return Pair((first, second), (at, there), answer.strip() == "T")


def judge(system: System, dev: list[Pair], test: list[Pair]) -> list[dict[str, Any]]:
    """Return the accuracy on the test part for each layer."""
    said_dev, said_test = (cosines(system, part) for part in (dev, test))
    found = []
    for layer, known, asked in zip(system.layers, said_dev, said_test, strict=True):
        limit = threshold(known, np.array([one.same for one in dev]))
        right = (asked >= limit) == np.array([one.same for one in test])
        found.append({"layer": layer, "accuracy": percent(right.mean()), "threshold": round(limit, 4)})
    return found


def cosines(system: System, pairs: list[Pair]) -> NDArray[np.float32]:
    """Return the cosine of each pair in each layer, (L, N)."""
    sides = [np.stack(list(vectors(system, pairs, side)), axis=1) for side in (0, 1)]
    return cosine(*sides)


def vectors(system: System, pairs: list[Pair], side: int) -> Iterator[NDArray[np.float32]]:
    """Yield the word's vectors (L, D) in the sentences of one side."""
    for one, stack in zip(pairs, system.embed(one.sentences[side] for one in pairs), strict=True):
        yield stack[:, one.places[side]]


def threshold(cosines: NDArray[np.floating], same: NDArray[np.bool_]) -> float:
    """Return the least cosine to call the same, half-way between two that were seen, that is right most often."""
    order = np.argsort(cosines, kind="stable")
    sorted_N, same_N = np.asarray(cosines, np.float64)[order], same[order]
    # With the limit below number k, those before it are called different.
    right = np.concatenate([[0], np.cumsum(~same_N)]) + np.concatenate([np.cumsum(same_N[::-1])[::-1], [0]])
    limits = np.concatenate([[-1.0], (sorted_N[1:] + sorted_N[:-1]) / 2, [2.0]])
    # Between equal cosines no limit can stand.
    right[1:-1][sorted_N[1:] == sorted_N[:-1]] = -1
    return float(limits[right.argmax()])


if __name__ == "__main__":
    main()
