"""Senses found without labels: how well the groups of `elmo senses` agree with senses marked by hand.

    python benchmarks/quality/senses.py [--model MODEL] [--quick]

Two sets: words.tsv (twenty words with plainly different senses, see words.py) and SemCor 3.0 (fine senses of WordNet):
of its words with at least two senses of five uses each, 100 that are drawn, with 60 uses at most. The uses of each word
are grouped into as many groups as there are senses, and into the number that the silhouette finds. The adjusted Rand
index is 0 for groups by chance and 100 for the marked senses. The share right gives each group its most frequent sense.
The baseline puts all uses into one group, that of the most frequent sense.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import Any, NamedTuple, TypeAlias

import judging
import numpy as np
import words
import wsd
from judging import System, percent
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from elmokit.clusters import group

SENSES, USES_OF_A_SENSE, WORDS, USES = 2, 5, 100, 60


class Use(NamedTuple):
    """A word at a place of a sentence, and its sense there."""

    sentence: tuple[str, ...]
    place: int
    sense: str


# The uses of each word.
Uses: TypeAlias = dict[str, list[Use]]


def main() -> None:
    """Judge every system on both sets and write the result."""
    told = judging.comparing(__doc__).parse_args()
    sets = {"words.tsv": dict(judging.few(homonyms().items(), told, 4)), "SemCor 3.0": from_semcor(told)}
    found = {name: {"data": described(uses), "systems": {}} for name, uses in sets.items()}
    for system in judging.systems(told):
        for name, uses in sets.items():
            found[name]["systems"][system.name] = judge(system, uses, seed=told.seed)
    judging.write(told, "senses", {"sets": found})


# ---------------------------------------------------------------- data


def homonyms() -> Uses:
    """Return the uses of words.tsv."""
    found: Uses = defaultdict(list)
    for use in words.read():
        found[use.word].append(Use(tuple(use.sentence), use.sentence.index(use.word), use.sense))
    return dict(found)


def from_semcor(told: Any) -> Uses:
    """Return words of SemCor with several senses that are not rare; the same seed draws the same."""
    found: Uses = defaultdict(list)
    for one in wsd.semcor(told):
        for use in one.uses:
            if use.end == use.start + 1:
                found["%".join(use.word)].append(Use(tuple(one.words), use.start, use.senses[0]))
    ambiguous = {word: kept for word, uses in sorted(found.items()) if (kept := without_rare(uses))}
    draw = random.Random(told.seed)
    chosen = draw.sample(sorted(ambiguous), min(WORDS, len(ambiguous)))
    return {word: draw.sample(ambiguous[word], min(USES, len(ambiguous[word]))) for word in chosen}


def without_rare(uses: list[Use]) -> list[Use]:
    """Return the uses of senses that are not rare, or none where fewer than two senses are left."""
    counts = Counter(use.sense for use in uses)
    kept = {sense for sense, count in counts.items() if count >= USES_OF_A_SENSE}
    return [use for use in uses if use.sense in kept] if len(kept) >= SENSES else []


def described(uses: Uses) -> dict[str, Any]:
    """Return the sizes, and what the baseline gets right."""
    senses = {word: Counter(use.sense for use in of_word) for word, of_word in uses.items()}
    first = [max(counts.values()) / counts.total() for counts in senses.values()]
    return {
        "words": len(uses),
        "uses": sum(map(len, uses.values())),
        "senses": sum(map(len, senses.values())),
        "first_sense": percent(float(np.mean(first))),
    }


# ---------------------------------------------------------------- scoring


def judge(system: System, uses: Uses, *, seed: int) -> list[dict[str, Any]]:
    """Return for each layer the means over all words."""
    found: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for of_word in uses.values():
        stacks = system.embed(use.sentence for use in of_word)
        vectors_LND = np.stack([s[:, use.place] for use, s in zip(of_word, stacks, strict=True)], axis=1)
        for layer, vectors_ND in zip(system.layers, vectors_LND, strict=True):
            found[layer].append(scores(vectors_ND, [use.sense for use in of_word], seed=seed))
    names = ("ari", "right", "ari_found", "right_found", "groups_found")
    return [
        {"layer": layer, **dict(zip(names, np.mean(rows, axis=0).round(2).tolist(), strict=True))}
        for layer, rows in found.items()
    ]


def scores(vectors_ND: NDArray[np.floating], senses: list[str], *, seed: int) -> tuple[float, ...]:
    """Return adjusted Rand index and share right, x 100, with the marked number of groups and with the number found."""
    different = len(np.unique(judging.unit(vectors_ND).round(4), axis=0))
    told = group(vectors_ND, min(len(set(senses)), different), seed=seed)
    found = group(vectors_ND, seed=seed)
    pairs = [(adjusted_rand_score(senses, one.labels_N), right(senses, one.labels_N)) for one in (told, found)]
    return (*(100 * value for pair in pairs for value in pair), found.n)


def right(senses: list[str], labels_N: NDArray[np.integer]) -> float:
    """Return the share of uses whose sense is the most frequent one of their group."""
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    for sense, label in zip(senses, labels_N.tolist(), strict=True):
        counts[label][sense] += 1
    return sum(max(count.values()) for count in counts.values()) / len(senses)


if __name__ == "__main__":
    main()
