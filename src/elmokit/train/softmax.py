"""How heads are trained: by the full softmax, by a sampled one, or as an adaptive one."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from elmokit.checkpoint import Arrays
from elmokit.head import AdaptiveSoftmax, Head, Softmax
from elmokit.train.recipe import Recipe


class TrainedHead(nn.Module):
    """A head and the loss that trains it."""

    exact: Head

    def loss(self, x_ZNP: Tensor, targets_ZN: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean loss (nats) of both directions; `generator` draws what is drawn."""
        raise NotImplementedError


class FullLoss(TrainedHead):
    """The negative log-probability over the whole vocabulary."""

    exact: Softmax

    def __init__(self, exact: Softmax) -> None:
        super().__init__()
        self.exact = exact

    def loss(self, x_ZNP: Tensor, targets_ZN: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """See `TrainedHead.loss`."""
        return full_loss(self.exact, x_ZNP.flatten(0, 1), targets_ZN.flatten())


class AdaptiveLoss(TrainedHead):
    """The negative log-probability of an adaptive softmax, of which only the clusters of the targets are computed."""

    exact: AdaptiveSoftmax

    def __init__(self, exact: AdaptiveSoftmax) -> None:
        super().__init__()
        self.exact = exact

    def loss(self, x_ZNP: Tensor, targets_ZN: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """See `TrainedHead.loss`."""
        return -self.exact.log_probabilities(x_ZNP.flatten(0, 1), targets_ZN.flatten()).mean()


class SampledLoss(TrainedHead):
    """TensorFlow's `sampled_softmax_loss`: log-uniform candidates without repetition, logits corrected by the log of
    how often a word is expected among them, targets that were drawn by accident left out.

    The sampler takes a word's frequency from its row, so rows must be sorted by falling count. Each direction draws its
    own negatives: as much arithmetic as shared ones, and twice as many words learn.
    """

    exact: Softmax

    def __init__(self, exact: Softmax, samples: int) -> None:
        super().__init__()
        self.exact, self.samples = exact, samples

    def loss(self, x_ZNP: Tensor, targets_ZN: Tensor, generator: torch.Generator) -> Tensor:
        """See `TrainedHead.loss`."""
        losses = [
            sampled_loss(self.exact, x_NP, targets_N, samples=self.samples, generator=generator)
            for x_NP, targets_N in zip(x_ZNP, targets_ZN, strict=True)
        ]
        return torch.stack(losses).mean()


def trained_head(arrays: Arrays, recipe: Recipe) -> TrainedHead:
    """Return the head among `arrays`, to be trained as the recipe says."""
    if "softmax.head.weight" in arrays:
        return AdaptiveLoss(AdaptiveSoftmax.from_arrays(arrays))
    head = Softmax.from_arrays(arrays)
    return SampledLoss(head, recipe.samples) if recipe.softmax == "sampled" else FullLoss(head)


# ---------------------------------------------------------------- losses


def full_loss(head: Softmax, x_NP: Tensor, targets_N: Tensor) -> Tensor:
    """Return the mean negative log-probability (nats) of the targets over the whole vocabulary."""
    return nn.functional.cross_entropy(head.logits(x_NP), targets_N)


def sampled_loss(head: Softmax, x_NP: Tensor, targets_N: Tensor, *, samples: int, generator: torch.Generator) -> Tensor:
    """Return the mean sampled loss (nats) with `samples` shared negatives, fewer than there are words."""
    V = head.n_words
    drawn_S, tries = draw_log_uniform(V, samples, generator)
    drawn_S = drawn_S.to(x_NP.device)
    true_N = (x_NP * head.weight[targets_N]).sum(1) + head.bias[targets_N] - log_expected(targets_N, V, tries)
    logits_NS = torch.addmm(head.bias[drawn_S] - log_expected(drawn_S, V, tries), x_NP, head.weight[drawn_S].T)
    logits_NS = _without_hits(logits_NS, targets_N, drawn_S, V)
    logits = torch.cat([true_N[:, None], logits_NS], 1)
    return nn.functional.cross_entropy(logits, torch.zeros_like(targets_N))


def _without_hits(logits_NS: Tensor, targets_N: Tensor, drawn_S: Tensor, n_words: int) -> Tensor:
    """Leave out of each row its own target, where that was drawn; at most one column a row, in place."""
    column_V = torch.full((n_words,), -1, device=drawn_S.device).scatter_(
        0, drawn_S, torch.arange(len(drawn_S), device=drawn_S.device)
    )
    rows = (column_V[targets_N] >= 0).nonzero()[:, 0]
    return logits_NS.index_put_((rows, column_V[targets_N[rows]]), logits_NS.new_tensor(-torch.inf))


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
