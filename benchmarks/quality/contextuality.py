"""How much a word's vector depends on its sentence: the statistics of Ethayarajh (2019), layer by layer.

    python benchmarks/quality/contextuality.py [--model MODEL] [--static static.kv] [--text TEXT] [--quick]

self-similarity: mean cosine of two uses of a word, over words that stand in at least five sentences, one use a sentence
and at most a hundred. intra-sentence similarity: mean cosine of a word and the mean of its sentence. anisotropy: mean
cosine of words drawn at random, each from a sentence drawn at random; adjusted figures are less this. explained: the
share of the squares of a word's vectors that lies in their first singular direction, which is the most that one static
vector could keep; adjusted, it is less that of as many random words. TEXT has one tokenised sentence a line (default:
the test part of the Wikipedia text); Ethayarajh's own text is that of SemEval's tasks on textual similarity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import judging
import numpy as np
from judging import System, cosine, unit
from numpy.typing import NDArray

from elmokit.reading import read_sentences

FEWEST, MOST = 5, 100
RANDOM = 1000
DRAWN = 300  # vectors, together, that each baseline of what is explained is the mean of


@dataclass(frozen=True)
class Seen:
    """Vectors of a text. uses: of each word (n, L, D); random: (R, L, D); within: intra-sentence similarity (S, L)."""

    uses: dict[str, NDArray[np.float32]]
    random: NDArray[np.float32]
    within: NDArray[np.float32]


def main() -> None:
    """Judge every system and write the result."""
    parser = judging.comparing(__doc__)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--sentences", type=int, default=10_000)
    told = parser.parse_args()
    path = told.text or told.data / "lm" / "wiki2015" / "test.txt.xz"
    sentences = list(islice(filter(None, read_sentences(path)), 300 if told.quick else told.sentences))
    words = repeated(sentences)
    found = {one.name: judge(one, sentences, words, seed=told.seed) for one in judging.systems(told)}
    data = {"name": "/".join(path.parts[-2:]), "sentences": len(sentences), "words": len(words)}
    data["tokens"] = sum(map(len, sentences))
    judging.write(told, "contextuality", {"data": data, "systems": found})


def repeated(sentences: Sequence[list[str]]) -> set[str]:
    """Return the words that stand in enough sentences."""
    counts = Counter(word for sentence in sentences for word in set(sentence))
    return {word for word, n in counts.items() if n >= FEWEST}


def judge(system: System, sentences: Sequence[list[str]], words: set[str], *, seed: int) -> list[dict[str, Any]]:
    """Return the statistics of each layer."""
    seen = look(system, sentences, words, seed=seed)
    found = []
    for k, layer in enumerate(system.layers):
        uses = [vectors[:, k] for vectors in seen.uses.values()]
        found.append({"layer": layer, **statistics(uses, seen.random[:, k], float(seen.within[:, k].mean()))})
    return found


def look(system: System, sentences: Sequence[list[str]], words: set[str], *, seed: int) -> Seen:
    """Embed a text and keep what the statistics need."""
    generator = np.random.default_rng(seed)
    drawn = set(generator.choice(len(sentences), min(RANDOM, len(sentences)), replace=False).tolist())
    uses: dict[str, list[NDArray[np.float32]]] = {word: [] for word in sorted(words)}
    random, within = [], []
    for number, (sentence, stack) in enumerate(zip(sentences, system.embed(sentences), strict=True)):
        within.append(intra_sentence(stack))
        if number in drawn:
            random.append(stack[:, generator.integers(len(sentence))].copy())
        for word in sorted(words.intersection(sentence)):
            if len(uses[word]) < MOST:
                uses[word].append(stack[:, sentence.index(word)].copy())
    return Seen({word: np.stack(vectors) for word, vectors in uses.items()}, np.stack(random), np.stack(within))


def intra_sentence(stack_LTD: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean cosine of a sentence's words and their mean, in each layer (L,)."""
    return cosine(stack_LTD, stack_LTD.mean(1, keepdims=True)).mean(1)


def statistics(uses: list[NDArray[np.float32]], random: NDArray[np.float32], within: float) -> dict[str, float]:
    """Return all figures of a layer."""
    baseline, own = mean_cosine(random), float(np.mean([mean_cosine(vectors) for vectors in uses]))
    by_chance = explained_by_chance(random, {len(vectors) for vectors in uses})
    shares = [(explained(vectors), by_chance[len(vectors)]) for vectors in uses]
    share, less = np.mean(shares, axis=0)
    found = {
        "anisotropy": baseline,
        "self_similarity": own,
        "self_similarity_adjusted": own - baseline,
        "intra_sentence": within,
        "intra_sentence_adjusted": within - baseline,
        "explained": share,
        "explained_adjusted": share - less,
    }
    return {name: round(float(value), 3) for name, value in found.items()}


def explained_by_chance(random_ND: NDArray[np.float32], sizes: set[int]) -> dict[int, float]:
    """Return for each number of vectors what is explained of so many random ones, the mean over some hundreds."""
    generator, found = np.random.default_rng(0), {}
    for n in sorted(sizes):
        draws = (generator.choice(len(random_ND), min(n, len(random_ND)), replace=False) for _ in range(-(-DRAWN // n)))
        found[n] = float(np.mean([explained(random_ND[rows]) for rows in draws]))
    return found


def mean_cosine(vectors_ND: NDArray[np.floating]) -> float:
    """Return the mean cosine of all pairs of different rows."""
    unit_ND = unit(vectors_ND.astype(np.float64))
    n, total = len(unit_ND), unit_ND.sum(0)
    return float((total @ total - (unit_ND**2).sum()) / (n * (n - 1)))


def explained(vectors_ND: NDArray[np.floating]) -> float:
    """Return the share of the sum of squares that lies in the first singular direction."""
    squares = np.linalg.svd(vectors_ND.astype(np.float64), compute_uv=False) ** 2
    return float(squares[0] / squares.sum()) if squares[0] else 1.0


if __name__ == "__main__":
    main()
