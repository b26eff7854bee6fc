"""What a training run is told: the network's shape by name, and how to train it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from elmokit.checkpoint import CharCNN, Config, Embedding, Lstm
from elmokit.errors import MismatchError, expect_whole

Optimizer = Literal["adamw", "adagrad"]
SoftmaxKind = Literal["auto", "full", "sampled", "adaptive"]
Precision = Literal["float32", "bfloat16"]
HeadKind = Literal["full", "adaptive"]

_PAPER_FILTERS = [(1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024)]
_TINY_FILTERS = [(1, 16), (2, 16), (3, 32), (4, 64), (5, 128)]


def _config(dim: int, projection_dim: int, n_highway: int, filters: list[tuple[int, int]]) -> Config:
    cnn = CharCNN(
        embedding=Embedding(dim=16),
        filters=filters,
        activation="relu",
        n_highway=n_highway,
        max_characters_per_token=50,
    )
    lstm = Lstm(
        projection_dim=projection_dim, dim=dim, n_layers=2, cell_clip=3.0, proj_clip=3.0, use_skip_connections=True
    )
    return Config(lstm=lstm, char_cnn=cnn)


# The published shapes (allennlp.org/elmo) and a smaller one for trials and small corpora.
PRESETS = {
    "tiny": _config(256, 64, 1, _TINY_FILTERS),
    "small": _config(1024, 128, 1, _PAPER_FILTERS),
    "medium": _config(2048, 256, 1, _PAPER_FILTERS),
    "original": _config(4096, 512, 2, _PAPER_FILTERS),
}

_FINE_TUNING_RATES: dict[Optimizer, float] = {"adamw": 5e-4, "adagrad": 0.05}
# Layers up to this width were trained at several rates (docs/training.md); wider ones bear less.
_MEASURED_CELLS = 1024


def default_rate(optimizer: Optimizer, *, cells: int, fine_tuning: bool) -> float:
    """Return the learning rate that suits an optimiser, the width of the LSTM and a new or a given model."""
    if fine_tuning:
        return _FINE_TUNING_RATES[optimizer]
    if optimizer == "adagrad":
        return 0.2
    return 4e-3 if cells <= _MEASURED_CELLS else 2e-3


# More are a slip of the finger, and each is planned on its own.
_MOST_EPOCHS = 1_000_000


@dataclass(frozen=True)
class Recipe:
    """How to train.

    batch_size B rows of unroll places an update, read in `accumulate` parts one after the other where memory is short;
    softmax: "full", "sampled" (`samples` negatives), "adaptive", or "auto": sampled where that saves work; tie: the
    head of a model whose words come from a table is that table; dropout on every layer's input and on the output;
    clip_norm: largest norm of all gradients together; warmup: updates of rising learning rate; head_share: the part of
    a run that fits a new head to a given network before both learn; precision: "bfloat16" computes products in it.

    With "adagrad" the learning rate is constant, the gradient is that of the loss times unroll and the head starts at
    random, as bilm-tf trains; with "adamw" the learning rate falls along a cosine to a tenth and the
    head starts from the words' frequencies.
    """

    optimizer: Optimizer = "adamw"
    learning_rate: float = 4e-3
    batch_size: int = 64
    unroll: int = 20
    accumulate: int = 1
    softmax: SoftmaxKind = "auto"
    samples: int = 8192
    tie: bool = False
    dropout: float = 0.1
    clip_norm: float = 10.0
    warmup: int = 500
    head_share: float = 0.1
    precision: Precision = "float32"
    epochs: float = 10.0
    seed: int = 1

    def __post_init__(self) -> None:
        """Raise `MismatchError` for numbers that nothing can be trained with."""
        for name in ("learning_rate", "clip_norm", "batch_size", "unroll", "accumulate"):
            if not 0 < getattr(self, name) < math.inf:
                raise MismatchError(f"{name}: expected a positive number, found {getattr(self, name)}")
        if not 0 <= self.epochs <= _MOST_EPOCHS:
            raise MismatchError(f"epochs: expected a number from 0 to {_MOST_EPOCHS:,}, found {self.epochs:g}")
        for name, least in {"samples": 1, "warmup": 0, "seed": 0}.items():
            expect_whole(getattr(self, name), name, least=least)
        if not 0 <= self.dropout < 1:
            raise MismatchError(f"dropout: expected a number from 0 to below 1, found {self.dropout}")
        if not 0 <= self.head_share <= 1:
            raise MismatchError(f"head_share: expected a number from 0 to 1, found {self.head_share}")
        if self.batch_size % self.accumulate:
            raise MismatchError(
                f"a batch of {self.batch_size} rows cannot be read in {self.accumulate} equal parts; expected a number "
                "that divides it"
            )

    def decided_for(self, n_words: int, *, given: HeadKind | None = None) -> Recipe:
        """Return this recipe with the kind of softmax that suits a vocabulary, and the head that is `given`, if one is.

        Raises `MismatchError` where it asks for another kind.
        """
        if given is not None and self.softmax != "auto" and (self.softmax == "adaptive") != (given == "adaptive"):
            raise MismatchError(
                f"the model to go on from has a head for the {given} softmax, which cannot be trained as one for the "
                f"{self.softmax} softmax; leave --softmax out"
            )
        if given == "adaptive":
            return replace(self, softmax="adaptive")
        sampling = self.softmax in ("auto", "sampled") and 2 * self.samples < n_words
        if self.softmax == "sampled" and not sampling:
            raise MismatchError(
                f"{self.samples:,} negatives do not save work with a vocabulary of {n_words:,} words; expected fewer "
                "than half of it, or the full softmax"
            )
        kind: SoftmaxKind = "adaptive" if self.softmax == "adaptive" else "sampled" if sampling else "full"
        return replace(self, softmax=kind)
