"""Exact held-out perplexity: full softmax, both directions, state carried along the text as in training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from elmokit.head import Head
from elmokit.network import BiLM, State
from elmokit.text import Speller
from elmokit.train.corpus import Corpus, Rows
from elmokit.train.streams import NO_TARGET, Streams, Window

# Rows of text evaluated side by side: few enough that starting each from an empty state does not show.
_ROWS, _UNROLL = 16, 64


@dataclass(frozen=True)
class Perplexity:
    """Perplexities of a text. `places`: predictions behind each direction's figure."""

    forward: float
    backward: float
    places: int

    @property
    def mean(self) -> float:
        """Return exp of the mean of both losses, as the paper and bilm-tf's run_test report it."""
        return math.sqrt(self.forward * self.backward)


@torch.no_grad()
def perplexity(
    network: BiLM, head: Head, corpus: Corpus, rows: Rows, speller: Speller, *, max_places: int | None = None
) -> Perplexity:
    """Return the exact perplexities of a text in document order.

    The text is read as up to 16 rows side by side; `max_places` stops all of them after about so many places together.
    Words outside the vocabulary count as <UNK> where they are predicted and keep their spelling where they are read.
    """
    side_by_side = min(_ROWS, max(1, corpus.n_places // 500))
    streams = Streams(corpus, rows, speller, rows=side_by_side, unroll=_UNROLL, seed=None)
    state = network.zero_state(side_by_side)
    losses, places = torch.zeros(2, dtype=torch.float64), 0
    for window in streams.all_windows():
        top_TZBP, state = run_window(network, window, state)
        losses += window_losses(head, top_TZBP, window)
        places += window.n_places
        if max_places is not None and places >= max_places:
            break
    forward, backward = (losses / places).exp().tolist()
    return Perplexity(forward, backward, places)


def run_window(
    network: BiLM, window: Window, state: State, *, dropout: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, State]:
    """Return the top layer's outputs (T, Z, B, P) for a window, and the state after it."""
    words_UP = network.encoder(torch.from_numpy(window.chars_UC.astype("int64")).to(network.device))
    x_TZBP = words_UP[torch.from_numpy(window.words_TZB).to(network.device)]
    layers, state = network.run(x_TZBP, state, dropout=dropout)
    return layers[-1], state


def window_losses(head: Head, top_TZBP: Tensor, window: Window) -> Tensor:
    """Return the summed exact losses (nats) of the two directions, (2,) float64."""
    targets_TZB = torch.from_numpy(window.targets_TZB).to(top_TZBP.device)
    flat = head.log_probabilities(top_TZBP.flatten(0, 2), targets_TZB.flatten().clamp_min(0))
    losses_TZB = -flat.view(targets_TZB.shape).double()
    return losses_TZB.masked_fill(targets_TZB == NO_TARGET, 0.0).sum((0, 2)).cpu()
