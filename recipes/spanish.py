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

from tagging import Example, accuracy, entity_f1, fit, with_layers
from training import Report, beginning, train_elmo, untrained

from elmokit import load

TASKS = {"parts of speech": (1, accuracy), "named entities": (2, entity_f1)}


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
    report = Report(told.work / "result.json", "Spanish, CoNLL-2002", folder)
    for task, (column, measure) in TASKS.items():
        parts = [conll(told.conll / f"esp.{name}", column)[:sentences] for name in ("train", "testa", "testb")]
        for name, elmo in elmos.items():
            train, dev, test = (with_layers(part, elmo) if elmo else part for part in parts)
            for seed in range(1, seeds + 1):
                tagger = fit(train, dev, measure=measure, seed=seed, epochs=passes)
                report.add(task, name, measure([one.tags for one in test], tagger.predict(test)))
    report.write()


def conll(path: Path, column: int) -> list[Example]:
    """Read sentences, parted by empty lines, with the tags of one column."""
    sentences = path.read_text(encoding="utf-8").strip().split("\n\n")
    rows = [[line.split() for line in sentence.splitlines()] for sentence in sentences]
    return [Example([row[0] for row in sentence], [row[column] for row in sentence]) for sentence in rows]


if __name__ == "__main__":
    main()
