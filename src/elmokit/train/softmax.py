"""How heads are trained: by the full softmax, by a sampled one, or as an adaptive one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from elmokit.checkpoint import Arrays
from elmokit.head import AdaptiveSoftmax, Head, Softmax
from elmokit.kernels.product import in_product_type, multiply
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
        draws = [draw_log_uniform(self.exact.n_words, self.samples, generator) for _ in x_ZNP]
        losses = sampled_losses(self.exact, x_ZNP, targets_ZN, [(rows.to(x_ZNP.device), n) for rows, n in draws])
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


def sampled_losses(
    head: Softmax, x_ZNP: Tensor, targets_ZN: Tensor, draws: Sequence[tuple[Tensor, int]]
) -> list[Tensor]:
    """Return the mean sampled loss (nats) of each direction, with the negatives of its own of `draws`."""
    V, N = head.n_words, targets_ZN.shape[1]
    # All rows in one go: the gradient of each look-up is as large as the whole head.
    rows = torch.cat([*(drawn_S for drawn_S, _ in draws), *targets_ZN])
    sizes = [len(drawn_S) for drawn_S, _ in draws] + [N] * len(draws)
    weights = nn.functional.embedding(rows, head.weight).split(sizes)
    biases = nn.functional.embedding(rows, head.bias[:, None])[:, 0].split(sizes)
    losses = []
    for z, (drawn_S, tries) in enumerate(draws):
        true = len(draws) + z
        correction_S, correction_N = (log_expected(r, V, tries) for r in (drawn_S, targets_ZN[z]))
        true_N = (x_ZNP[z] * weights[true]).sum(1) + biases[true] - correction_N
        hits = _hits(targets_ZN[z], drawn_S, V)
        losses.append(_SampledCrossEntropy.apply(x_ZNP[z], weights[z], biases[z] - correction_S, true_N, *hits))
    return losses


def _hits(targets_N: Tensor, drawn_S: Tensor, n_words: int) -> tuple[Tensor, Tensor]:
    """Return the places whose own target was drawn, and the column it stands in; both (hits,)."""
    columns_S = torch.arange(len(drawn_S), device=drawn_S.device)
    column_V = torch.full((n_words,), -1, device=drawn_S.device).scatter_(0, drawn_S, columns_S)
    rows = (column_V[targets_N] >= 0).nonzero()[:, 0]
    return rows, column_V[targets_N[rows]]


class _SampledCrossEntropy(torch.autograd.Function):
    """The mean of -log softmax at the true word, over it and the negatives of which it is not one.

    One softmax over the negatives serves value and gradient; the true word's share scales its rows. Products are in the
    type of autocast, all else is float32.
    """

    @staticmethod
    def forward(
        ctx: Any, x_NP: Tensor, weight_SP: Tensor, bias_S: Tensor, true_N: Tensor, rows: Tensor, columns: Tensor
    ) -> Tensor:
        x_NP, weight_SP = in_product_type(x_NP, weight_SP)
        if x_NP.dtype == bias_S.dtype:
            logits_NS = multiply(x_NP, weight_SP.T, bias_S)
        else:
            logits_NS = multiply(x_NP, weight_SP.T).float().add_(bias_S)
        logits_NS[rows, columns] = -torch.inf
        p_NS = torch.softmax(logits_NS, 1)
        # exp(highest) is the highest share of the sum of all exponentials.
        sums_N = logits_NS.amax(1) - p_NS.amax(1).log()
        losses_N = torch.nn.functional.softplus(sums_N - true_N)  # log(1 + exp(sums) / exp(true))
        ctx.save_for_backward(x_NP, weight_SP, p_NS.to(x_NP.dtype), torch.sigmoid(sums_N - true_N))
        return losses_N.mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x_NP, weight_SP, p_NS, others_N = ctx.saved_tensors
        scale_N = others_N * (gradient / len(x_NP))  # the share of all negatives together
        scale_N1 = scale_N[:, None]
        dx = multiply(p_NS, weight_SP).float() * scale_N1
        dweight = multiply(p_NS.T, (x_NP * scale_N1).to(x_NP.dtype)).float()
        dbias = multiply(scale_N1.T.to(p_NS.dtype), p_NS)[0].float()
        return dx, dweight, dbias, -scale_N, None, None


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
