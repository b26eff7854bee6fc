"""The context-free vectors of words, layer 0: computed from spelling, and kept so that no word is spelled twice.

Axes: U words, P width of a vector in one direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock

import torch
from torch import Tensor

from elmokit.network import BiLM
from elmokit.text import Speller

# Values that are kept: 64 MiB.
_VALUES = 1 << 24
# Words spelled together: bounds the memory of the encoder.
_TOGETHER = 2048


class WordVectors:
    """The context-free vectors of words that were seen, each computed once; forgotten together beyond 64 MiB.

    Several threads may embed with the same ones.
    """

    def __init__(self, network: BiLM, speller: Speller) -> None:
        self.network, self.speller = network, speller
        self._lock = Lock()
        self._forget(_VALUES // network.config.lstm.projection_dim)

    def _forget(self, rows: int) -> None:
        """Begin anew with room for so many words. What is not filled takes no memory on a processor."""
        weight, P = next(self.network.parameters()), self.network.config.lstm.projection_dim
        self.index: dict[str, int] = {}
        with torch.inference_mode(False):  # or later calls outside of that mode could not fill it
            self.vectors = torch.empty(rows, P, dtype=weight.dtype, device=weight.device)

    def learn(self, words: Sequence[str]) -> tuple[Mapping[str, int], Tensor]:
        """See to it that there are vectors of these words; return `index` and `vectors`.

        Row `index[word]` of `vectors` holds the vector (P,) of `word`; rows beyond those mean nothing. Both stay good
        for these words whatever is learnt or forgotten after them.
        """
        with self._lock:
            new = [word for word in words if word not in self.index]
            if len(self.index) + len(new) > len(self.vectors):
                self._forget(max(len(self.vectors), len(words)))
                new = list(words)
            if new:
                first = len(self.index)
                self.vectors[first : first + len(new)] = encode(self.network, self.speller, new)
                self.index.update(zip(new, range(first, first + len(new)), strict=True))
            return self.index, self.vectors


@torch.inference_mode()
def encode(network: BiLM, speller: Speller, words: Sequence[str]) -> Tensor:
    """Return the context-free vectors of words, (U, P): words of like length together, a bounded number at a time."""
    order = sorted(range(len(words)), key=lambda number: len(words[number]))
    parts = [order[i : i + _TOGETHER] for i in range(0, len(order), _TOGETHER)]
    vectors = torch.cat([network.encode(speller.spell([words[number] for number in part])) for part in parts])
    return vectors[torch.argsort(torch.tensor(order, device=vectors.device))]
