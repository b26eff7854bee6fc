"""A small tagger, the same with and without ELMo: word vectors, one biLSTM, a softmax over the tags.

ELMo's layers are computed once and stay as they are; what is learned of ELMo is the mix of its layers, as in the paper
(section 3.2, the input of the task's network).
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from elmokit import Elmo, Mix

UNSEEN = "<unseen>"


@dataclass(frozen=True)
class Example:
    """A sentence and its tags; layers (L, T, D) float16: what ELMo says of it, None without ELMo."""

    words: list[str]
    tags: list[str]
    layers: NDArray[np.float16] | None = None


def with_layers(examples: Sequence[Example], elmo: Elmo) -> list[Example]:
    """Return the examples with all of ELMo's layers."""
    stacks = elmo.embed([example.words for example in examples], layers="all")
    return [
        Example(example.words, example.tags, stack.astype(np.float16))
        for example, stack in zip(examples, stacks, strict=True)
    ]


class Tagger(nn.Module):
    """Scores of tags for every word. `elmo`: layers and width of the vectors that are mixed in, None without."""

    def __init__(self, words: Sequence[str], tags: Sequence[str], elmo: tuple[int, int] | None, *, size: int = 100):
        super().__init__()
        self.words = {word: number for number, word in enumerate([UNSEEN, *words])}
        self.tags = list(tags)
        self.embedding = nn.Embedding(len(self.words), size)
        self.mix = Mix(elmo[0]) if elmo else None
        self.dropout = nn.Dropout(0.4)
        self.lstm = nn.LSTM(size + (elmo[1] if elmo else 0), size, batch_first=True, bidirectional=True)
        self.output = nn.Linear(2 * size, len(self.tags))

    def forward(self, batch: Sequence[Example]) -> Tensor:
        """Return scores (B, T, tags)."""
        numbers = [[self.words.get(word.lower(), 0) for word in example.words] for example in batch]
        if self.training:  # now and then a word is one that was never seen, so that there is a vector for those
            numbers = [[n if random.random() > 0.05 else 0 for n in sentence] for sentence in numbers]
        x_BTD = self.embedding(pad_sequence([torch.tensor(sentence) for sentence in numbers], batch_first=True))
        if self.mix is not None:
            stacks = [torch.from_numpy(example.layers).float().transpose(0, 1) for example in batch]
            x_BTD = torch.cat([x_BTD, self.mix(pad_sequence(stacks, batch_first=True).unbind(2))], dim=-1)
        lengths = torch.tensor([len(example.words) for example in batch])
        packed = pack_padded_sequence(self.dropout(x_BTD), lengths, batch_first=True, enforce_sorted=False)
        h_BTD, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.output(self.dropout(h_BTD))

    def loss(self, batch: Sequence[Example]) -> Tensor:
        """Return the mean cross entropy of the right tags."""
        right = [torch.tensor([self.tags.index(tag) for tag in example.tags]) for example in batch]
        wanted_BT = pad_sequence(right, batch_first=True, padding_value=-1)
        return nn.functional.cross_entropy(self(batch).flatten(0, 1), wanted_BT.flatten(), ignore_index=-1)

    @torch.no_grad()
    def predict(self, examples: Sequence[Example]) -> list[list[str]]:
        """Return the best tag of every word."""
        self.eval()
        found: list[list[str]] = []
        for start in range(0, len(examples), 64):
            batch = examples[start : start + 64]
            best = self(batch).argmax(-1).tolist()
            found += [[self.tags[n] for n in row[: len(one.words)]] for row, one in zip(best, batch, strict=True)]
        return found


def fit(train: Sequence[Example], dev: Sequence[Example], *, measure, seed: int, epochs: int = 15) -> Tagger:
    """Train a tagger; return it as it was after the epoch that `measure(right, found)` likes best on `dev`."""
    torch.manual_seed(seed)
    random.seed(seed)
    counts = Counter(word.lower() for example in train for word in example.words)
    tags = sorted({tag for example in [*train, *dev] for tag in example.tags})
    stack = train[0].layers
    shape = None if stack is None else (stack.shape[0], stack.shape[2])
    tagger = Tagger([word for word, n in counts.items() if n > 1], tags, shape)
    optimizer = torch.optim.Adam(tagger.parameters(), lr=2e-3)
    best, kept = -1.0, {}
    for _ in range(epochs):
        tagger.train()
        for batch in batches(train):
            optimizer.zero_grad()
            tagger.loss(batch).backward()
            nn.utils.clip_grad_norm_(tagger.parameters(), 5.0)
            optimizer.step()
        score = measure([example.tags for example in dev], tagger.predict(dev))
        if score > best:
            best, kept = score, copy.deepcopy(tagger.state_dict())
    tagger.load_state_dict(kept)
    return tagger


def batches(examples: Sequence[Example], size: int = 32) -> Iterator[list[Example]]:
    """Yield batches of sentences of like length, in random order."""
    order = sorted(examples, key=lambda example: (len(example.words), random.random()))
    starts = list(range(0, len(order), size))
    random.shuffle(starts)
    for start in starts:
        yield order[start : start + size]


def accuracy(right: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> float:
    """Return the share of words with the right tag."""
    pairs = [pair for r, f in zip(right, found, strict=True) for pair in zip(r, f, strict=True)]
    return sum(r == f for r, f in pairs) / len(pairs)


def entity_f1(right: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> float:
    """Return F1 of whole entities with the right kind, micro average, as CoNLL counts them."""
    wanted, said = (
        {(n, *span) for n, tags in enumerate(all_tags) for span in spans(tags)} for all_tags in (right, found)
    )
    return 2 * len(wanted & said) / max(1, len(wanted) + len(said))


def spans(tags: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, kind) of the entities in B-, I-, O tags; an I- that continues nothing begins an entity."""
    start, kind = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        if kind and tag != f"I-{kind}":
            yield start, place, kind
            kind = ""
        if tag != "O" and not kind:
            start, kind = place, tag[2:]
