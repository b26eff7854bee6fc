"""Relatedness of sentences: how the cosine of two mean vectors goes with what people say, on SICK's test part.

    python benchmarks/quality/relatedness.py [--model MODEL] [--static static.kv] [--quick]

Nothing is learnt: a sentence is the mean of its words' vectors. SICK's sentences are split as the training text is.
"""

from __future__ import annotations

import argparse
import csv
import re
from typing import Any

import judging
import numpy as np
from judging import System, cosine, percent
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr

# Words without their contractions, contractions (`is n't`, `dog 's`), other words, marks.
TOKENS = re.compile(r"\w+(?=n't)|n't|'\w+|[\w-]+|[^\w\s]")


def main() -> None:
    """Judge every system and write the result."""
    told = judging.comparing(__doc__).parse_args()
    pairs, wanted = sick(told)
    found = {system.name: judge(system, pairs, wanted) for system in judging.systems(told)}
    judging.write(told, "relatedness", {"data": {"name": "SICK, test part", "pairs": len(pairs)}, "systems": found})


def sick(told: argparse.Namespace) -> tuple[list[tuple[list[str], list[str]]], list[float]]:
    """Return the pairs of sentences and their relatedness, 1 to 5."""
    text = judging.member(told.data / "tasks" / "sick.tar.xz", "sick/raw/SICK_test_annotated.txt")
    rows = judging.few(csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE), told, 200)
    pairs = [(TOKENS.findall(row["sentence_A"]), TOKENS.findall(row["sentence_B"])) for row in rows]
    return pairs, [float(row["relatedness_score"]) for row in rows]


def judge(system: System, pairs: list[tuple[list[str], list[str]]], wanted: list[float]) -> list[dict[str, Any]]:
    """Return both correlations for each layer, times 100."""
    first, second = (means(system, [pair[side] for pair in pairs]) for side in (0, 1))
    found = []
    for layer, said in zip(system.layers, cosine(first, second), strict=True):
        correlations = {"spearman": spearmanr(said, wanted).statistic, "pearson": pearsonr(said, wanted).statistic}
        found.append({"layer": layer, **{name: percent(value) for name, value in correlations.items()}})
    return found


def means(system: System, sentences: list[list[str]]) -> NDArray[np.float32]:
    """Return the mean vectors of sentences, (L, N, D)."""
    return np.stack([stack.mean(1) for stack in system.embed(sentences)], axis=1)


if __name__ == "__main__":
    main()
