"""A label for a long text: films liked and disliked (IMDB), by the mean of the vectors of all words.

    python recipes/documents.py --work work/

What is stored of a review is one vector a layer, so 50,000 reviews fit anywhere, and the mix of the layers can still be
learned: the mean of a mix is the mix of the means. Beside it, in every system, the mean of the word vectors, which
learn with the task.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from command import arguments, run, told_plainly
from data import find, lines, with_dev
from measures import accuracy
from torch import Tensor, nn
from trainer import SYSTEMS, Example, Input, Parts, Recipe, mask_of


class MeanClassifier(nn.Module):
    """Scores of labels for the mean of a text's words, and of its ELMo vectors."""

    def __init__(self, text: Input, parts: Parts) -> None:
        super().__init__()
        self.labels = sorted({one.right for one in parts.train})
        self.text = text
        self.hidden = nn.Linear(text.size, 100)
        self.output = nn.Linear(100, len(self.labels))

    def forward(self, batch: Sequence[Example]) -> Tensor:
        """Return scores (B, labels)."""
        texts = [one.sentences[0] for one in batch]
        mask_BT1 = mask_of(texts)[:, :, None]
        parts = [(self.text.embed(texts) * mask_BT1).sum(1) / mask_BT1.sum(1)]
        if "input" in self.text.mixes:
            parts.append(self.text.elmo("input", texts)[:, 0])
        return self.output(torch.relu(self.hidden(self.text.dropout(torch.cat(parts, dim=1)))))

    def loss(self, batch: Sequence[Example]) -> Tensor:
        """Return the mean cross entropy of the right labels."""
        return nn.functional.cross_entropy(self(batch), torch.tensor([self.labels.index(one.right) for one in batch]))

    def predict(self, batch: Sequence[Example]) -> list[str]:
        """Return the best label of each."""
        return [self.labels[n] for n in self(batch).argmax(1).tolist()]


def read(folder: Path) -> Parts:
    """Read the labelled reviews, JSON lines with "id" (its second part is the label) and "text"."""
    train, test = (
        [_review(json.loads(line)) for line in lines(find(folder, f"{part}.jsonl.xz", f"{part}.jsonl"))]
        for part in ("train", "test")
    )
    return with_dev(train, test)


def _review(row: dict[str, str]) -> Example:
    return Example(((row["text"].replace("<br />", " "),),), row["id"].split("/")[1])


IMDB = Recipe(
    "imdb",
    "accuracy",
    "imdb",
    read,
    MeanClassifier,
    accuracy,
    {name: system for name, system in SYSTEMS.items() if "output" not in system.places},
    epochs=8,
    patience=2,
    rate=1e-3,
    raw=True,
    pooled=True,
)

if __name__ == "__main__":
    with told_plainly():
        run(IMDB, arguments(__doc__).parse_args())
