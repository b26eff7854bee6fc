"""A tag for every word: the network of the paper's name recognition, a biLSTM under a CRF or a softmax."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchcrf import CRF
from trainer import Encoder, Example, Input, Parts, mask_of


class Tagger(nn.Module):
    """Scores of tags for every word; with `crf` also of one tag after another."""

    def __init__(self, text: Input, parts: Parts, *, crf: bool = False) -> None:
        super().__init__()
        self.tags = sorted({tag for one in [*parts.train, *parts.dev] for tag in one.right})
        self.text = text
        self.encoder = Encoder(text.size)
        self.output = nn.Linear(self.encoder.size + text.extra, len(self.tags))
        self.crf = CRF(len(self.tags), batch_first=True) if crf else None

    def forward(self, batch: Sequence[Example]) -> Tensor:
        """Return scores (B, T, tags)."""
        sentences = [one.sentences[0] for one in batch]
        return self.output(self.text.beside(self.encoder(self.text(sentences), sentences), sentences))

    def loss(self, batch: Sequence[Example]) -> Tensor:
        """Return the mean cross entropy of the right tags, a word's or with a CRF a sentence's."""
        right = [torch.tensor([self.tags.index(tag) for tag in one.right]) for one in batch]
        if self.crf:
            mask_BT = mask_of([one.sentences[0] for one in batch])
            return -self.crf(self(batch), pad_sequence(right, batch_first=True), mask_BT, reduction="mean")
        wanted_BT = pad_sequence(right, batch_first=True, padding_value=-1)
        return nn.functional.cross_entropy(self(batch).flatten(0, 1), wanted_BT.flatten(), ignore_index=-1)

    def predict(self, batch: Sequence[Example]) -> list[list[str]]:
        """Return the best tag of every word."""
        scores_BTK = self(batch)
        if self.crf:
            best = self.crf.decode(scores_BTK, mask_of([one.sentences[0] for one in batch]))
        else:
            best = scores_BTK.argmax(-1).tolist()
        return [[self.tags[n] for n in row[: len(one.right)]] for row, one in zip(best, batch, strict=True)]
