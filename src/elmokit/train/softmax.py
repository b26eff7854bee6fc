"""Softmax heads: one matrix (V, P) and bias (V,) that both directions share (formats.md 3.12)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from elmokit.checkpoint import Arrays

# Rows of logits computed together in exact evaluation: bounds memory to this times V.
_ROWS = 2048


class Softmax(nn.Module):
    """The head that predicts words, with a full and a sampled loss.

    The sampled loss is TensorFlow's `sampled_softmax_loss`: log-uniform candidates without repetition, logits corrected
    by the log of how often a word is expected among them, targets that were drawn by accident left out. The sampler
    takes a word's frequency from its row, so rows must be sorted by falling count.
    """

    def __init__(self, n_words: int, projection_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_words, projection_dim))
        self.bias = nn.Parameter(torch.empty(n_words))

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Softmax:
        """Build the head around copies of a checkpoint's `softmax.weight` and `softmax.bias`."""
        head = cls(*arrays["softmax.weight"].shape)
        head.load_state_dict({name: torch.tensor(arrays[f"softmax.{name}"]) for name in ("weight", "bias")})
        return head

    def full_loss(self, x_NP: Tensor, targets_N: Tensor) -> Tensor:
        """Return the mean negative log-probability (nats) of the targets over the whole vocabulary."""
        return nn.functional.cross_entropy(torch.addmm(self.bias, x_NP, self.weight.T), targets_N)

    def sampled_loss(self, x_NP: Tensor, targets_N: Tensor, *, samples: int, generator: torch.Generator) -> Tensor:
        """Return the mean sampled loss (nats) with `samples` shared negatives, fewer than there are words."""
        V = len(self.bias)
        drawn_S, tries = draw_log_uniform(V, samples, generator)
        drawn_S = drawn_S.to(x_NP.device)
        true_N = (x_NP * self.weight[targets_N]).sum(1) + self.bias[targets_N] - log_expected(targets_N, V, tries)
        logits_NS = torch.addmm(self.bias[drawn_S] - log_expected(drawn_S, V, tries), x_NP, self.weight[drawn_S].T)
        logits_NS = logits_NS.masked_fill(targets_N[:, None] == drawn_S, -torch.inf)
        return (torch.logaddexp(torch.logsumexp(logits_NS, 1), true_N) - true_N).mean()

    @torch.no_grad()
    def log_probabilities(self, x_NP: Tensor, targets_N: Tensor) -> Tensor:
        """Return the exact log-probability (nats) of each target, (N,), over the whole vocabulary."""
        parts = zip(x_NP.split(_ROWS), targets_N.split(_ROWS), strict=True)
        return torch.cat([self._log_probabilities(x, targets) for x, targets in parts])

    def _log_probabilities(self, x_NP: Tensor, targets_N: Tensor) -> Tensor:
        logits_NV = torch.addmm(self.bias, x_NP, self.weight.T)
        return logits_NV.gather(1, targets_N[:, None])[:, 0] - torch.logsumexp(logits_NV, 1)


def draw_log_uniform(n_words: int, samples: int, generator: torch.Generator) -> tuple[Tensor, int]:
    """Draw rows until `samples` distinct ones are found; return them (samples,) int64 and the number of draws.

    P(row) = log((row + 2) / (row + 1)) / log(n_words + 1).
    """
    draws = torch.empty(0, dtype=torch.int64)
    while True:
        uniform = torch.rand(2 * samples, dtype=torch.float64, generator=generator)
        rows = torch.exp(uniform * math.log(n_words + 1)).long() - 1
        draws = torch.cat([draws, rows.clamp_(0, n_words - 1)])
        firsts = _first_places(draws, n_words)
        if len(firsts) >= samples:
            return draws[firsts[:samples]], int(firsts[samples - 1]) + 1


def _first_places(draws: Tensor, n_words: int) -> Tensor:
    """Return, rising, the places where a row is drawn for the first time."""
    first = torch.full((n_words,), len(draws), dtype=torch.int64)
    first.scatter_reduce_(0, draws, torch.arange(len(draws)), "amin")
    return first[first < len(draws)].sort().values


def log_expected(rows: Tensor, n_words: int, tries: int) -> Tensor:
    """Return the log of the expected count of each row among distinct rows of `tries` draws: 1 - (1 - P)^tries."""
    p = torch.log((rows + 2.0) / (rows + 1.0)) / math.log(n_words + 1)
    return torch.log(-torch.expm1(tries * torch.log1p(-p)))
