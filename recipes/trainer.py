"""What the recipes share: a network's input with and without ELMo, training, and all systems with all seeds.

ELMo is frozen and its layers are computed once (`stored.py`). What is learned of it is the mix of its layers, at the
input of the task's network, at its output, or at both (sections 3.2 and 5.2 of the paper).
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from stored import Stored, Words
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from elmokit import Mix
from elmokit.text import Utf8Speller

UNSEEN = "<unseen>"
Vectors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Example:
    """One sentence or several, and what is right of them: a tag for each word, a label, the place of an answer."""

    sentences: tuple[Words, ...]
    right: Any


class Parts(NamedTuple):
    """A data set."""

    train: list[Example]
    dev: list[Example]
    test: list[Example]


@dataclass(frozen=True)
class System:
    """What a network reads. layers: "none" (no ELMo), "top", "average" or "mix", which is learned; places: where."""

    layers: str = "none"
    places: tuple[str, ...] = ("input",)
    words: bool = True  # word vectors, too


SYSTEMS = {
    "no ELMo": System(),
    "top layer": System("top"),
    "average": System("average"),
    "mix": System("mix"),
    "mix at the output": System("mix", ("output",)),
    "mix at both": System("mix", ("input", "output")),
}


class Network(Protocol):
    """What is trained, a `torch.nn.Module` besides."""

    def loss(self, batch: Sequence[Example]) -> Tensor:
        """Return what is made small."""

    def predict(self, batch: Sequence[Example]) -> list[Any]:
        """Return an answer for each example, as `Recipe.measure` takes them."""


@dataclass(frozen=True)
class Recipe:
    """A task. network(input, labels or tags of the data): what is trained; data: the archive below data/tasks."""

    name: str
    metric: str
    data: str
    read: Callable[[Path], Parts]
    network: Callable[[Input, Parts], Network]
    measure: Callable[[Sequence[Any], Sequence[Any]], float]
    systems: Mapping[str, System]
    epochs: int = 15
    patience: int = 15  # evaluations without a better one before it ends
    updates: int = 100  # at least, from one evaluation to the next: a small part of the data is read more than once
    batch_size: int = 32
    rate: float = 2e-3
    characters: bool = False  # word vectors are joined by a CNN over the letters, which learns with the task
    raw: bool = False  # a sentence is raw text in one piece, and is split only when the data was cut to size
    pooled: bool = False  # ELMo's vectors are means over the words of a sentence


# ---------------------------------------------------------------- the input of a network


class Input(nn.Module):
    """Vectors of words, (B, T, size); `beside` adds `extra` values to what a network has made of them."""

    def __init__(
        self,
        train: Sequence[Example],
        system: System,
        stored: Stored | None,
        *,
        vectors: Vectors | None = None,
        characters: bool = False,
        size: int = 100,
    ) -> None:
        super().__init__()
        counts = Counter(word.lower() for one in train for words in one.sentences for word in words)
        known = [word for word, n in counts.items() if n > 1]
        known = list(dict.fromkeys([*known, *(vectors or ())]))
        self.numbers = {word: number for number, word in enumerate([UNSEEN, *known])}
        size = len(next(iter(vectors.values()))) if vectors else size
        self.embedding = nn.Embedding(len(self.numbers), size) if system.words else None
        if vectors and self.embedding is not None:
            _begin_with(self.embedding, self.numbers, vectors)
        self.characters = Characters() if characters and system.words else None
        self.stored = stored
        self.mixes = nn.ModuleDict({place: _mix(system, stored) for place in system.places if stored is not None})
        self.dim = 0 if stored is None else stored.dim
        own = (size if system.words else 0) + (self.characters.size if self.characters else 0)
        self.size = own + (self.dim if "input" in self.mixes else 0)
        self.extra = self.dim if "output" in self.mixes else 0
        self.dropout = nn.Dropout(0.4)

    def forward(self, sentences: Sequence[Words]) -> Tensor:
        """Return word vectors and, where the system has it here, ELMo, with dropout: (B, T, size)."""
        parts = [part(sentences) for part in (self.embed, self.characters) if part is not None and self.embedding]
        if "input" in self.mixes:
            parts.append(self.elmo("input", sentences))
        return self.dropout(torch.cat(parts, dim=-1))

    def beside(self, h_BTD: Tensor, sentences: Sequence[Words]) -> Tensor:
        """Return what the network has made of the sentences, with ELMo beside it where the system has it here."""
        parts = [h_BTD, self.elmo("output", sentences)] if "output" in self.mixes else [h_BTD]
        return self.dropout(torch.cat(parts, dim=-1))

    def embed(self, sentences: Sequence[Words]) -> Tensor:
        """Return word vectors (B, T, E)."""
        numbers = [[self.numbers.get(word.lower(), 0) for word in words] for words in sentences]
        if self.training:  # now and then a word is one that was never seen, so that there is a vector for those
            numbers = [[n if random.random() > 0.05 else 0 for n in words] for words in numbers]
        return self.embedding(pad_sequence([torch.tensor(words) for words in numbers], batch_first=True))

    def elmo(self, place: str, sentences: Sequence[Words]) -> Tensor:
        """Return ELMo's layers, mixed as this place does it: (B, T, D)."""
        stacks = [self.stored[words] for words in sentences]
        padded = np.zeros((len(stacks[0]), len(stacks), max(s.shape[1] for s in stacks), self.dim), np.float16)
        for row, stack in enumerate(stacks):
            padded[:, row, : stack.shape[1]] = stack
        return self.mixes[place](torch.from_numpy(padded).float().unbind(0))

    def shares(self) -> dict[str, dict[str, Any]]:
        """Return what each place has learned: the share of each layer and the scale gamma."""
        return {
            place: {"layers": torch.softmax(mix.weights.detach(), 0).tolist(), "gamma": mix.gamma.item()}
            for place, mix in self.mixes.items()
        }


class Characters(nn.Module):
    """Words spelled by a small CNN that learns with the task, as the baselines of the paper have it."""

    def __init__(self, size: int = 30) -> None:
        super().__init__()
        self.speller, self.size = Utf8Speller(max_characters=20), size
        self.embedding = nn.Embedding(261, 25)
        self.convolution = nn.Conv1d(25, size, 3, padding=1)

    def forward(self, sentences: Sequence[Words]) -> Tensor:
        """Return vectors (B, T, size); each distinct word is spelled once."""
        numbers = {word: n for n, word in enumerate(dict.fromkeys(word for words in sentences for word in words))}
        ids_UC = torch.from_numpy(self.speller.spell(list(numbers)).astype(np.int64))
        words_UD = self.convolution(self.embedding(ids_UC).transpose(1, 2)).amax(dim=2)
        places = [torch.tensor([numbers[word] for word in words]) for words in sentences]
        return words_UD[pad_sequence(places, batch_first=True)]


def _mix(system: System, stored: Stored) -> Mix:
    """Return a mix of the layers; what is fixed of it does not learn, its scale always does."""
    last = [0.0] * (stored.n_layers - 1) + [200.0]  # softmax makes 1 of it, to the last bit
    mix = Mix(stored.n_layers, last if system.layers == "top" else None)
    mix.weights.requires_grad_(system.layers == "mix")
    return mix


def _begin_with(embedding: nn.Embedding, numbers: Mapping[str, int], vectors: Vectors) -> None:
    """Give the words that have a vector that vector, and the others random ones of the same scale."""
    with torch.no_grad():
        embedding.weight *= float(np.std(np.stack(list(vectors.values()))))
        for word, vector in vectors.items():
            embedding.weight[numbers[word]] = torch.tensor(vector)


class Encoder(nn.Module):
    """A biLSTM over sentences of different length: (B, T, size) -> (B, T, 2 * hidden).

    Its directions are two LSTMs over padded sentences, the backward one over mirrored ones: several times as fast on a
    processor as torch's packed sequences, which run step by step.
    """

    def __init__(self, size: int, hidden: int = 100) -> None:
        super().__init__()
        self.forwards = nn.LSTM(size, hidden, batch_first=True)
        self.backwards = nn.LSTM(size, hidden, batch_first=True)
        self.size = 2 * hidden

    def forward(self, x_BTD: Tensor, sentences: Sequence[Words]) -> Tensor:
        """Return what the LSTMs make of the sentences; places behind their end are zero."""
        mask_BT = mask_of(sentences)
        place_T = torch.arange(mask_BT.shape[1])
        mirror_BT = torch.where(mask_BT, mask_BT.sum(1, keepdim=True) - 1 - place_T, place_T)
        rows_B1 = torch.arange(len(sentences))[:, None]
        backwards_BTD = self.backwards(x_BTD[rows_B1, mirror_BT])[0][rows_B1, mirror_BT]
        return torch.cat([self.forwards(x_BTD)[0], backwards_BTD], dim=-1) * mask_BT[:, :, None]


def mask_of(sentences: Sequence[Words]) -> Tensor:
    """Return which places (B, T) bool hold words."""
    lengths = torch.tensor([len(words) for words in sentences])
    return torch.arange(int(lengths.max())) < lengths[:, None]


# ---------------------------------------------------------------- training


def fit(network: Any, train: Sequence[Example], dev: Sequence[Example], recipe: Recipe) -> dict[str, Any]:
    """Train; leave the network as it was when the recipe's measure liked it best on `dev`, and tell about that."""
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.rate, fused=True)
    best, kept, best_epoch = -1.0, {}, 0
    repeats = max(1, recipe.updates * recipe.batch_size // len(train))
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        for batch in (batch for _ in range(repeats) for batch in batches(train, recipe.batch_size)):
            optimizer.zero_grad()
            network.loss(batch).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
        score = recipe.measure([one.right for one in dev], predict(network, dev))
        if score > best:
            best, kept, best_epoch = score, copy.deepcopy(network.state_dict()), epoch
        elif epoch - best_epoch >= recipe.patience:
            break
    network.load_state_dict(kept)
    return {"dev": best, "best_epoch": best_epoch, "epochs": epoch}


def batches(examples: Sequence[Example], size: int) -> Iterator[list[Example]]:
    """Yield batches of examples of like length, in random order."""
    order = sorted(examples, key=lambda one: (sum(map(len, one.sentences)), random.random()))
    starts = list(range(0, len(order), size))
    random.shuffle(starts)
    for start in starts:
        yield order[start : start + size]


@torch.no_grad()
def predict(network: Any, examples: Sequence[Example]) -> list[Any]:
    """Return an answer for each example."""
    network.eval()
    return [answer for i in range(0, len(examples), 64) for answer in network.predict(examples[i : i + 64])]


def train_network(
    recipe: Recipe, parts: Parts, system: System, stored: Stored | None, *, seed: int, vectors: Vectors | None = None
) -> tuple[Any, dict[str, Any]]:
    """Return a network that was trained from this seed, and what `fit` tells about it."""
    torch.manual_seed(seed)
    random.seed(seed)
    stored = stored if system.layers != "none" else None
    text = Input(parts.train, system, stored, vectors=vectors, characters=recipe.characters)
    network = recipe.network(text, parts)
    told = fit(network, parts.train, parts.dev, recipe)
    return network, {**told, "mix": text.shares()}
