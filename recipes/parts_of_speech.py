"""Parts of speech: what ELMo adds to a biLSTM tagger on English Web Treebank, or on any treebank of UD by path.

    python recipes/parts_of_speech.py --work work/
    python recipes/parts_of_speech.py --work work/ --data UD_Finnish-TDT/ --model finnish/

The tags are the universal ones. A folder holds *-train.conllu, *-dev.conllu and *-test.conllu.
"""

from __future__ import annotations

from pathlib import Path

from command import arguments, run, told_plainly
from data import columns, find
from measures import tag_accuracy
from tagging import Tagger
from trainer import SYSTEMS, Parts, Recipe


def read(folder: Path) -> Parts:
    """Read the parts of a treebank."""
    return Parts(*(columns(find(folder, f"*-{part}.conllu"), word=1, tag=3) for part in ("train", "dev", "test")))


POS = Recipe(
    "pos",
    "accuracy of words",
    "ud-english-ewt.tar.xz",
    read,
    Tagger,
    tag_accuracy,
    SYSTEMS,
    epochs=10,
    patience=2,
    characters=True,
)

if __name__ == "__main__":
    with told_plainly():
        run(POS, arguments(__doc__).parse_args())
