"""A label for a sentence: sentiment, kinds of question, subjectivity, spam, offence.

    python recipes/classification.py sst-5 --work work/

The data set is one of sst-5, sst-2, trec, mr, subj, sms and hate. The network: a biLSTM, maximum and mean of what it
says of the words, one hidden layer. SST is learned from whole sentences only, not from the labelled phrases in them;
MR, SUBJ, SMS and the offensive tweets, of which every second one is taken, come without a test part and are cut in
parts that are always alike.
"""

from __future__ import annotations

import csv
import html
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from command import arguments, run, told_plainly
from data import clean, find, in_parts, leaves, lines, split_raw, with_dev
from measures import accuracy, macro_f1
from torch import Tensor, nn
from trainer import SYSTEMS, Encoder, Example, Input, Parts, Recipe, mask_of


class Classifier(nn.Module):
    """Scores of labels for a sentence."""

    def __init__(self, text: Input, parts: Parts) -> None:
        super().__init__()
        self.labels = sorted({one.right for one in parts.train})
        self.text = text
        self.encoder = Encoder(text.size)
        self.hidden = nn.Linear(2 * (self.encoder.size + text.extra), 100)
        self.output = nn.Linear(100, len(self.labels))

    def forward(self, batch: Sequence[Example]) -> Tensor:
        """Return scores (B, labels)."""
        sentences = [one.sentences[0] for one in batch]
        h_BTD = self.text.beside(self.encoder(self.text(sentences), sentences), sentences)
        return self.output(torch.relu(self.hidden(pooled(h_BTD, mask_of(sentences)))))

    def loss(self, batch: Sequence[Example]) -> Tensor:
        """Return the mean cross entropy of the right labels."""
        return nn.functional.cross_entropy(self(batch), torch.tensor([self.labels.index(one.right) for one in batch]))

    def predict(self, batch: Sequence[Example]) -> list[str]:
        """Return the best label of each."""
        return [self.labels[n] for n in self(batch).argmax(1).tolist()]


def pooled(h_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Return maximum and mean over the words, side by side: (B, 2D)."""
    mask_BT1 = mask_BT[:, :, None]
    mean_BD = (h_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)
    return torch.cat([h_BTD.masked_fill(~mask_BT1, -1e4).amax(1), mean_BD], dim=1)


def labelled(words: Sequence[str], label: str) -> Example:
    """Return an example of one sentence."""
    return Example((clean(words),), label)


def read_sst(folder: Path, kind: str) -> Parts:
    """Read trees, labelled at the root; -1, in the part of two classes, is neutral and left out."""
    end = "" if kind == "fiveclass" else "-binary"
    trees = (lines(find(folder, f"{kind}/{part}{end}.txt")) for part in ("train", "dev", "test"))
    return Parts(*([labelled(leaves(t), t[1:].split()[0]) for t in part if not t.startswith("(-1")] for part in trees))


def read_trec(folder: Path) -> Parts:
    """Read questions under their six kinds, "DESC:manner How did ..."."""
    train, test = (
        [
            labelled(line.split()[1:], line.split(":")[0])
            for line in lines(find(folder, f"raw/raw/TREC.{part}"), "latin-1")
        ]
        for part in ("train", "test")
    )
    return with_dev(train, test)


def read_all(folder: Path, name: str) -> Parts:
    """Read sentences after their labels, "0 simplistic , silly and tedious"."""
    found = (line.split() for line in lines(find(folder, name), "latin-1"))
    return in_parts([labelled(words, label) for label, *words in found])


def read_sms(folder: Path) -> Parts:
    """Read messages after their labels; the first line is a heading."""
    rows = (line.split("\t", 1) for line in lines(find(folder, "SMSSpamCollection")))
    rows = dict.fromkeys(tuple(row) for row in rows)  # some messages stand there thirty times, in every part
    found = [(label, split_raw(text)) for label, text in rows if label in ("ham", "spam")]
    return in_parts([labelled(words, label) for label, words in found if words])


def read_hate(folder: Path) -> Parts:
    """Read tweets: 0 hate speech, 1 offensive language, 2 neither."""
    with find(folder, "labeled_data.csv").open(encoding="utf-8", newline="") as file:
        rows = islice(csv.DictReader(file), 0, None, 2)
        found = [(split_raw(html.unescape(row["tweet"])), row["class"]) for row in rows]
    return in_parts([labelled(words, label) for words, label in found if words])


SOURCES = {
    "sst-5": ("sst-trees", lambda folder: read_sst(folder, "fiveclass"), accuracy),
    "sst-2": ("sst-trees", lambda folder: read_sst(folder, "binary"), accuracy),
    "trec": ("sentconv", read_trec, accuracy),
    "mr": ("sentconv", lambda folder: read_all(folder, "rt-polarity.all"), accuracy),
    "subj": ("sentconv", lambda folder: read_all(folder, "subj.all"), accuracy),
    "sms": ("sms-spam", read_sms, macro_f1),
    "hate": ("hate-offensive", read_hate, macro_f1),
}


def recipe(name: str) -> Recipe:
    """Return the recipe of one data set."""
    archive, read, measure = SOURCES[name]
    metric = "macro F1" if measure is macro_f1 else "accuracy"
    return Recipe(
        name, metric, f"{archive}.tar.xz", read, Classifier, measure, SYSTEMS, epochs=10, patience=3, rate=1e-3
    )


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("set", choices=SOURCES)
    told = parser.parse_args()
    with told_plainly():
        run(recipe(told.set), told)
