"""Misspelt words: how taggers that learned from clean text do, the more words of the test are misspelt.

    python recipes/robustness.py --work work/ [--noise natural-noise/]

The errors are those that people made, from the lists of Belinkov and Bisk (2018); a word has several, and one is drawn.
Tags stay what they were. Compared are word vectors, word vectors and a CNN over letters that learns with the task, and
ELMo, alone and beside both.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from command import SHARED, about, arguments, hurried, read, read_vectors, sentences_of, told_plainly
from data import find, misspellings, opened
from parts_of_speech import POS
from results import Results
from stored import store
from trainer import Example, Parts, System, predict, train_network

from elmokit import load

SHARES = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
SYSTEMS = {
    "word vectors": (System(), False),
    "word vectors and letters": (System(), True),
    "ELMo": (System("mix", words=False), False),
    "ELMo, word vectors and letters": (System("mix"), True),
}


def main() -> None:
    """Train each system from each seed, and test it on all shares of misspelt words."""
    parser = arguments(__doc__)
    parser.add_argument("--noise", type=Path, default=SHARED / "data" / "tasks" / "natural-noise.tar.xz")
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    recipe, seeds = hurried(POS, told)
    parts, errors = read(recipe, told), read_errors(opened(told.noise, told.work / "data"))
    tests = {share: [misspelt(one, errors, share, n) for n, one in enumerate(parts.test)] for share in SHARES}
    elmo = load(told.model)
    everything = Parts(parts.train, parts.dev, [one for test in tests.values() for one in test])
    stored = store(sentences_of(everything), elmo, told.work / "vectors")
    vectors = read_vectors(told.vectors, everything)
    file = (told.results or told.work / "results") / "robustness.json"
    shares = {str(share): changed(parts.test, test) for share, test in tests.items()}
    results = Results(file, {**about(recipe, told, parts, elmo), "recipe": "robustness", "words changed": shares})
    for name, (system, characters) in SYSTEMS.items():
        for seed in range(1, seeds + 1):
            if results.has(system=name, seed=seed):
                continue
            network, _ = train_network(
                replace(recipe, characters=characters), parts, system, stored, seed=seed, vectors=vectors
            )
            curve = {str(share): score(network, recipe.measure, test) for share, test in tests.items()}
            results.add({"system": name, "seed": seed, "score": curve["0.0"], "curve": curve})
    results.print_means()


def read_errors(folder: Path) -> dict[str, list[str]]:
    """Return the misspellings of each word that people were seen to make."""
    return misspellings(find(folder, "en.natural").read_text(encoding="utf-8"))


def misspelt(one: Example, errors: Mapping[str, Sequence[str]], share: float, seed: int) -> Example:
    """Return the example with this share of its words misspelt, of those that have a known misspelling."""
    generator = random.Random(seed)
    words = tuple(_misspelt(word, errors, share, generator) for word in one.sentences[0])
    return replace(one, sentences=(words,))


def _misspelt(word: str, errors: Mapping[str, Sequence[str]], share: float, generator: random.Random) -> str:
    drawn, choice = generator.random(), generator.random()  # the same for every share: more errors, none others
    found = errors.get(word) or errors.get(word.lower())
    if not found or drawn >= share:
        return word
    error = found[int(choice * len(found))]
    return error[0].upper() + error[1:] if word[0].isupper() else error


def changed(before: Sequence[Example], after: Sequence[Example]) -> float:
    """Return the share of all words that are others now."""
    pairs = [p for b, a in zip(before, after, strict=True) for p in zip(b.sentences[0], a.sentences[0], strict=True)]
    return sum(b != a for b, a in pairs) / len(pairs)


def score(network: Any, measure: Any, test: Sequence[Example]) -> float:
    """Return how well a network does on a test part."""
    return measure([one.right for one in test], predict(network, test))


if __name__ == "__main__":
    with told_plainly():
        main()
