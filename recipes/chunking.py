"""Chunks: what ELMo adds to a biLSTM-CRF that finds the phrases of CoNLL-2000.

    python recipes/chunking.py --work work/

Lines of train.txt and test.txt hold a word, its part of speech (which is not used) and its tag.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from command import arguments, run, told_plainly
from data import columns, find, opened, with_dev
from measures import span_f1
from tagging import Tagger
from trainer import SYSTEMS, Parts, Recipe


def read(folder: Path) -> Parts:
    """Read CoNLL-2000, which has no part for development."""
    archives = sorted(folder.rglob("conll2000.zip"))
    folder = opened(archives[0], folder / "unpacked") if archives else folder
    return with_dev(*(columns(find(folder, f"{part}.txt")) for part in ("train", "test")))


CHUNKING = Recipe(
    "chunking",
    "F1 of chunks",
    "nltk.tar.xz",
    read,
    partial(Tagger, crf=True),
    span_f1,
    SYSTEMS,
    epochs=10,
    patience=2,
    characters=True,
)

if __name__ == "__main__":
    with told_plainly():
        run(CHUNKING, arguments(__doc__).parse_args())
