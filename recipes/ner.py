"""Names: what ELMo adds to a biLSTM-CRF, on WNUT-17 or, by path, on CoNLL-2003.

    python recipes/ner.py --work work/
    python recipes/ner.py --work work/ --data conll2003/

The network is that of the paper: word vectors, a CNN over letters, a biLSTM, a CRF. A folder of CoNLL-2003 holds
eng.train, eng.testa and eng.testb (or train.txt, valid.txt, test.txt), the word first and its tag last on a line.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from command import arguments, run, told_plainly
from data import columns, find
from measures import span_f1
from tagging import Tagger
from trainer import SYSTEMS, Parts, Recipe


def read(folder: Path) -> Parts:
    """Read WNUT-17 or CoNLL-2003, whichever is there."""
    return Parts(
        columns(find(folder, "wnut17train.conll", "eng.train", "train.txt")),
        columns(find(folder, "emerging.dev.conll", "eng.testa", "valid.txt")),
        columns(find(folder, "emerging.test.annotated", "eng.testb", "test.txt")),
    )


NER = Recipe(
    "ner",
    "F1 of names",
    "wnut17.tar.xz",
    read,
    partial(Tagger, crf=True),
    span_f1,
    SYSTEMS,
    patience=4,
    characters=True,
)

if __name__ == "__main__":
    with told_plainly():
        run(NER, arguments(__doc__).parse_args())
