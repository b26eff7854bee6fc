"""Twenty ambiguous words: how often the nearest other use of a word has the same sense.

    python benchmarks/quality/words.py [--model MODEL] [--static static.kv] [--quick]

words.tsv holds the uses, written for this purpose and labelled by hand: the word once in a sentence, always in the same
form, so that layer 0 cannot tell them apart. Of uses that are equally near each counts its share. Chance is what a use
drawn at random from the others gives.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import judging
import numpy as np
from judging import QUALITY, System, percent, unit
from numpy.typing import NDArray

# Cosines closer than this are the same: a word without context has one vector, but for rounding.
SAME = 1e-5


@dataclass(frozen=True)
class Use:
    """A word in a sentence, and its sense there."""

    word: str
    sense: str
    sentence: list[str]


def main() -> None:
    """Judge every system and write the result."""
    told = judging.comparing(__doc__).parse_args()
    uses = judging.few(read(), told, 60)
    found = {system.name: judge(system, uses) for system in judging.systems(told)}
    data = {"name": "words.tsv", "words": len({use.word for use in uses}), "uses": len(uses)}
    senses = len({(use.word, use.sense) for use in uses})
    judging.write(
        told, "words", {"data": {**data, "senses": senses, "chance": percent(chance(uses))}, "systems": found}
    )


def read() -> list[Use]:
    """Return the uses of words.tsv."""
    with (QUALITY / "words.tsv").open(encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [Use(row["word"], row["sense"], row["sentence"].split()) for row in rows]


def judge(system: System, uses: list[Use]) -> list[dict[str, Any]]:
    """Return for each layer the share of uses whose nearest has the same sense, in all and of each word."""
    stacks = system.embed(use.sentence for use in uses)
    vectors_LND = np.stack([s[:, use.sentence.index(use.word)] for use, s in zip(uses, stacks, strict=True)], axis=1)
    found = []
    for layer, vectors_ND in zip(system.layers, vectors_LND, strict=True):
        shares = {word: same_sense(vectors_ND[rows], senses) for word, (rows, senses) in by_word(uses).items()}
        every = np.concatenate(list(shares.values()))
        words = {word: percent(share.mean()) for word, share in shares.items()}
        found.append({"layer": layer, "same_sense": percent(every.mean()), "words": words})
    return found


def by_word(uses: list[Use]) -> dict[str, tuple[list[int], list[str]]]:
    """Return the numbers and the senses of the uses of each word."""
    found: dict[str, tuple[list[int], list[str]]] = defaultdict(lambda: ([], []))
    for number, use in enumerate(uses):
        found[use.word][0].append(number)
        found[use.word][1].append(use.sense)
    return found


def same_sense(vectors_ND: NDArray[np.floating], senses: list[str]) -> NDArray[np.float64]:
    """Return for each use the share of its nearest others, most often one, that have its sense: (N,)."""
    unit_ND = unit(vectors_ND.astype(np.float64))
    similar_NN = unit_ND @ unit_ND.T
    np.fill_diagonal(similar_NN, -np.inf)
    nearest_NN = similar_NN >= similar_NN.max(1, keepdims=True) - SAME
    agree_NN = np.array(senses)[:, None] == np.array(senses)
    return (nearest_NN & agree_NN).sum(1) / nearest_NN.sum(1)


def chance(uses: list[Use]) -> float:
    """Return the mean share of a use's other uses that have its sense."""
    shares = []
    for _, senses in by_word(uses).values():
        shares += [(senses.count(sense) - 1) / (len(senses) - 1) for sense in senses]
    return float(np.mean(shares))


if __name__ == "__main__":
    main()
