"""A Spanish ELMo from raw novels, and what it adds to named entities (CoNLL-2002) and parts of speech.

    python recipes/spanish.py --text train.txt.xz --heldout valid.txt.xz --conll conll2002/ --work spanish/

trains a model with `elmo train`, unless WORK holds one, and then the same small tagger three times for each task: with
word vectors of its own only, with an ELMo of the same shape and random weights (before training), and with the trained
one. Texts hold one tokenised sentence a line; the folder has the files esp.train, esp.testa and esp.testb with a word,
its part of speech and its entity on each line. `--quick` takes little of everything.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from command import sentences_of, told_plainly
from data import columns
from measures import span_f1, tag_accuracy
from results import Results
from stored import store
from tagging import Tagger
from trainer import SYSTEMS, Parts, Recipe, predict, train_network
from training import beginning, card, train_elmo, untrained

from elmokit import load

NAMES = ("train", "testa", "testb")
TASKS = {"parts of speech": (1, tag_accuracy), "named entities": (2, span_f1)}


def main() -> None:
    """Train, tag, print a table, write WORK/result.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--heldout", type=Path, required=True)
    parser.add_argument("--conll", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--epochs", default="1")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    told = parser.parse_args()
    seeds, sentences, passes = (1, 300, 3) if told.quick else (told.seeds, None, 15)
    text, heldout, epochs = told.text, told.heldout, told.epochs
    if told.quick:
        text, heldout = (
            beginning(path, told.work / name, lines)
            for path, name, lines in ((text, "text.txt", 2000), (heldout, "heldout.txt", 100))
        )
        epochs = "0.5"
    options = ["--preset", told.preset, "--epochs", epochs, "--batch-size", "32", "--heldout", str(heldout)]
    folder = train_elmo(told.work / "elmo", text, options)
    elmos = {"word vectors only": None, "ELMo with random weights": untrained(folder), "ELMo": load(folder)}
    results = Results(told.work / "result.json", {"data": "Spanish, CoNLL-2002", "card": card(folder)})
    for task, (column, measure) in TASKS.items():
        parts = Parts(*(columns(told.conll / f"esp.{name}", tag=column)[:sentences] for name in NAMES))
        recipe = Recipe(task, task, "", columns, Tagger, measure, SYSTEMS, epochs=passes)
        for name, elmo in elmos.items():
            stored = store(sentences_of(parts), elmo, told.work / "vectors") if elmo else None
            for seed in range(1, seeds + 1):
                if not results.has(task=task, system=name, seed=seed):
                    system = SYSTEMS["mix" if elmo else "no ELMo"]
                    tagger, _ = train_network(recipe, parts, system, stored, seed=seed)
                    score = measure([one.right for one in parts.test], predict(tagger, parts.test))
                    results.add({"task": task, "system": name, "seed": seed, "score": score})
    results.print_means()


if __name__ == "__main__":
    with told_plainly():
        main()
