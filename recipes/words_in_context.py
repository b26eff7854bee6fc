"""Is a word used in the same sense in two sentences? WiC, by a biLSTM that reads both and compares the two places.

    python recipes/words_in_context.py --work work/

Half of the answers are yes. What a model tells without learning, by a threshold on the cosine of the word's two vectors
(Pilehvar and Camacho-Collados 2019), is measured by `benchmarks/quality/wic.py`. A folder holds train, dev and test,
each with PART.data.txt and PART.gold.txt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from command import arguments, run, told_plainly
from data import clean, find, lines
from measures import accuracy
from torch import Tensor, nn
from trainer import SYSTEMS, Encoder, Example, Input, Parts, Recipe


@dataclass(frozen=True)
class Use:
    """Where the word stands in each of the two sentences, and whether it is used in one sense: "T" or "F"."""

    places: tuple[int, ...]
    same: str


class SameSense(nn.Module):
    """Scores of "F" and "T" for a pair of sentences."""

    def __init__(self, text: Input, parts: Parts) -> None:  # noqa: ARG002 (the labels are known)
        super().__init__()
        self.text = text
        self.encoder = Encoder(text.size)
        self.hidden = nn.Linear(4 * (self.encoder.size + text.extra), 100)
        self.output = nn.Linear(100, 2)

    def forward(self, batch: Sequence[Example]) -> Tensor:
        """Return scores (B, 2)."""
        a_BD, b_BD = (self._word(batch, side) for side in (0, 1))
        pair = torch.cat([a_BD, b_BD, (a_BD - b_BD).abs(), a_BD * b_BD], dim=1)
        return self.output(torch.relu(self.hidden(pair)))

    def _word(self, batch: Sequence[Example], side: int) -> Tensor:
        """Return what is said of the word in the sentences of one side, (B, D)."""
        sentences = [one.sentences[side] for one in batch]
        h_BTD = self.text.beside(self.encoder(self.text(sentences), sentences), sentences)
        return h_BTD[torch.arange(len(batch)), torch.tensor([one.right.places[side] for one in batch])]

    def loss(self, batch: Sequence[Example]) -> Tensor:
        """Return the mean cross entropy of the right answers."""
        return nn.functional.cross_entropy(self(batch), torch.tensor(["FT".index(one.right.same) for one in batch]))

    def predict(self, batch: Sequence[Example]) -> list[str]:
        """Return the better answer of each."""
        return ["FT"[n] for n in self(batch).argmax(1).tolist()]


def read(folder: Path) -> Parts:
    """Read pairs, "word, N or V, 1-4, a sentence, another", and their answers."""
    return Parts(*(_part(folder, part) for part in ("train", "dev", "test")))


def _part(folder: Path, part: str) -> list[Example]:
    rows, answers = (lines(find(folder, f"{part}.{kind}.txt")) for kind in ("data", "gold"))
    return [_pair(row.split("\t"), answer.strip()) for row, answer in zip(rows, answers, strict=True)]


def _pair(row: Sequence[str], answer: str) -> Example:
    _, _, places, *sentences = row
    return Example(tuple(clean(text.split()) for text in sentences), Use(tuple(map(int, places.split("-"))), answer))


def same_sense(right: Sequence[Use], found: Sequence[str]) -> float:
    """Return the share of right answers."""
    return accuracy([use.same for use in right], found)


WIC = Recipe(
    "wic", "accuracy", "wic.tar.xz", read, SameSense, same_sense, SYSTEMS, epochs=10, patience=3, rate=1e-3
)  # fmt: skip

if __name__ == "__main__":
    with told_plainly():
        run(WIC, arguments(__doc__).parse_args())
