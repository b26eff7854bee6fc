"""Does one sentence follow from another? SICK, or by path SNLI, with a small form of the paper's network (ESIM).

    python recipes/entailment.py --work work/
    python recipes/entailment.py --work work/ --data snli_1.0/

Each sentence is read by a biLSTM, each word looks for its like in the other sentence, and a second biLSTM reads words
beside what they found (Chen et al. 2017).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from classification import pooled
from command import arguments, run, told_plainly
from data import clean, find, lines, split_raw
from measures import accuracy
from stored import Words
from torch import Tensor, nn
from trainer import SYSTEMS, Encoder, Example, Input, Parts, Recipe, mask_of


class Entailment(nn.Module):
    """Scores of labels for a pair of sentences."""

    def __init__(self, text: Input, parts: Parts) -> None:
        super().__init__()
        self.labels = sorted({one.right for one in parts.train})
        self.text = text
        self.first = Encoder(text.size)
        self.compare = nn.Linear(4 * self.first.size, 100)
        self.second = Encoder(100)
        self.hidden = nn.Linear(4 * (self.second.size + text.extra), 100)
        self.output = nn.Linear(100, len(self.labels))

    def forward(self, batch: Sequence[Example]) -> Tensor:
        """Return scores (B, labels)."""
        sides = [[one.sentences[side] for one in batch] for side in (0, 1)]
        a_BTD, b_BTD = (self.first(self.text(side), side) for side in sides)
        like_BTT = a_BTD @ b_BTD.transpose(1, 2)
        a_mask, b_mask = (mask_of(side) for side in sides)
        pairs = ((a_BTD, attend(like_BTT, b_BTD, b_mask)), (b_BTD, attend(like_BTT.transpose(1, 2), a_BTD, a_mask)))
        read = [self._read(own, found, side) for (own, found), side in zip(pairs, sides, strict=True)]
        return self.output(torch.relu(self.hidden(torch.cat(read, dim=1))))

    def _read(self, own_BTD: Tensor, found_BTD: Tensor, sentences: Sequence[Words]) -> Tensor:
        beside = torch.cat([own_BTD, found_BTD, own_BTD - found_BTD, own_BTD * found_BTD], dim=-1)
        h_BTD = self.second(self.text.dropout(torch.relu(self.compare(beside))), sentences)
        return pooled(self.text.beside(h_BTD, sentences), mask_of(sentences))

    def loss(self, batch: Sequence[Example]) -> Tensor:
        """Return the mean cross entropy of the right labels."""
        return nn.functional.cross_entropy(self(batch), torch.tensor([self.labels.index(one.right) for one in batch]))

    def predict(self, batch: Sequence[Example]) -> list[str]:
        """Return the best label of each."""
        return [self.labels[n] for n in self(batch).argmax(1).tolist()]


def attend(like_BTS: Tensor, other_BSD: Tensor, mask_BS: Tensor) -> Tensor:
    """Return for each place the mean of the other sentence's vectors, weighted by likeness: (B, T, D)."""
    return torch.softmax(like_BTS.masked_fill(~mask_BS[:, None, :], -1e4), dim=2) @ other_BSD


def read(folder: Path) -> Parts:
    """Read SICK or SNLI, whichever is there; pairs whose judges did not agree ("-") are left out."""
    if not sorted(folder.rglob("SICK_train.txt")):
        return Parts(*(_snli(find(folder, f"snli_1.0_{part}.jsonl")) for part in ("train", "dev", "test")))
    return Parts(*(_sick(find(folder, f"SICK_{part}.txt")) for part in ("train", "trial", "test_annotated")))


def _sick(path: Path) -> list[Example]:
    rows = csv.DictReader(lines(path), delimiter="\t", quoting=csv.QUOTE_NONE)
    return [
        Example((split_raw(row["sentence_A"]), split_raw(row["sentence_B"])), row["entailment_judgment"].strip())
        for row in rows
    ]


def _snli(path: Path) -> list[Example]:
    rows = [row for row in map(json.loads, lines(path)) if row["gold_label"] != "-"]
    return [
        Example((_tokens(row["sentence1_parse"]), _tokens(row["sentence2_parse"])), row["gold_label"]) for row in rows
    ]


def _tokens(parse: str) -> Words:
    """Return the words of a parse, "(ROOT (NP (DT A) (NN man)))"."""
    return clean(piece.rstrip(")") for piece in parse.split() if not piece.startswith("("))


ENTAILMENT = Recipe(
    "entailment",
    "accuracy",
    "sick.tar.xz",
    read,
    Entailment,
    accuracy,
    SYSTEMS,
    epochs=10,
    patience=3,
    rate=1e-3,
)

if __name__ == "__main__":
    with told_plainly():
        run(ENTAILMENT, arguments(__doc__).parse_args())
