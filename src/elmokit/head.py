"""Softmax heads: what predicts a word from the top layer of one direction. Both directions share one.

Here is what a trained head computes, exactly; how one is trained is told in `train/softmax.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import TypeAlias

import torch
from torch import Tensor, nn

from elmokit.checkpoint import Arrays, count_tails
from elmokit.kernels import product

# Values of logits computed together: bounds the memory of exact probabilities.
_LOGITS = 1 << 26


class Softmax(nn.Module):
    """One matrix (V, P) and bias (V,)."""

    def __init__(self, n_words: int, projection_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_words, projection_dim))
        self.bias = nn.Parameter(torch.empty(n_words))

    @property
    def n_words(self) -> int:
        """Number of words V."""
        return len(self.bias)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Softmax:
        """Build the head around copies of a checkpoint's `softmax.weight` and `softmax.bias`."""
        head = cls(*arrays["softmax.weight"].shape)
        head.load_state_dict({name: torch.tensor(arrays[f"softmax.{name}"]) for name in ("weight", "bias")})
        return head

    def arrays(self) -> Arrays:
        """Return the weights under the names of `checkpoint`."""
        return _arrays(self)

    def logits(self, x_NP: Tensor) -> Tensor:
        """Return scores (N, V)."""
        return product(x_NP, self.weight.T, self.bias)

    @torch.no_grad()
    def log_probabilities(self, x_NP: Tensor, targets_N: Tensor) -> Tensor:
        """Return the exact log-probability (nats) of each target, (N,), over the whole vocabulary."""
        rows = max(1, _LOGITS // self.n_words)
        parts = zip(x_NP.split(rows), targets_N.split(rows), strict=True)
        return torch.cat([self._log_probabilities(x, targets) for x, targets in parts])

    def _log_probabilities(self, x_NP: Tensor, targets_N: Tensor) -> Tensor:
        logits_NV = self.logits(x_NP)
        return logits_NV.gather(1, targets_N[:, None])[:, 0] - torch.logsumexp(logits_NV, 1)

    @torch.no_grad()
    def all_log_probabilities(self, x_NP: Tensor) -> Tensor:
        """Return the exact log-probabilities (nats) of all words, (N, V)."""
        return torch.log_softmax(self.logits(x_NP), 1)


class AdaptiveSoftmax(nn.Module):
    """Frequent words in one softmax with an entry for each cluster of rarer ones, whose words share fewer values.

    Grave et al. 2017, "Efficient softmax approximation for GPUs". The log-probability of a word of a cluster is that of
    the cluster plus that of the word within it. Rows must be sorted by falling count. head.weight (F + K, P) and .bias:
    the F frequent words, then K clusters; tail.{k}.down (P_k, P), tail.{k}.out (n_k, P_k) and tail.{k}.bias (n_k,).
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.head = _Affine(*shapes["softmax.head.weight"])
        outs = [shapes[f"softmax.tail.{k}.out"] for k in range(count_tails(shapes))]
        self.sizes = [n for n, _ in outs]
        self.tail = nn.ModuleList(_Tail(n, width, shapes["softmax.head.weight"][1]) for n, width in outs)

    @property
    def n_frequent(self) -> int:
        """Number of words F outside the clusters."""
        return len(self.head.bias) - len(self.tail)

    @property
    def bounds(self) -> list[int]:
        """Rows where the clusters begin, and V."""
        ends = [self.n_frequent]
        return [*ends, *(ends[0] + n for n in accumulate(self.sizes))]

    @property
    def n_words(self) -> int:
        """Number of words V."""
        return self.bounds[-1]

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> AdaptiveSoftmax:
        """Build the head around copies of a checkpoint's `softmax.head.*` and `softmax.tail.*`."""
        head = cls({name: array.shape for name, array in arrays.items()})
        named = {name.removeprefix("softmax."): a for name, a in arrays.items() if name.startswith("softmax.")}
        head.load_state_dict({name: torch.tensor(array) for name, array in named.items()})
        return head

    def arrays(self) -> Arrays:
        """Return the weights under the names of `checkpoint`."""
        return _arrays(self)

    def log_probabilities(self, x_NP: Tensor, targets_N: Tensor) -> Tensor:
        """Return the exact log-probability (nats) of each target, (N,); a cluster is computed for its own words only.

        Gradients flow through it: training minimises the same numbers.
        """
        heads_NH = torch.log_softmax(self.head(x_NP), 1)
        bounds = self.bounds
        cluster_N = torch.bucketize(targets_N, torch.tensor(bounds[:-1], device=targets_N.device), right=True)
        entry_N = torch.where(cluster_N == 0, targets_N, self.n_frequent + cluster_N - 1)
        found_N = heads_NH.gather(1, entry_N[:, None])[:, 0]
        for k, tail in enumerate(self.tail):
            places = (cluster_N == k + 1).nonzero()[:, 0]
            if len(places):
                within_nV = torch.log_softmax(tail(x_NP[places]), 1)
                words = (targets_N[places] - bounds[k])[:, None]
                found_N = found_N.index_add(0, places, within_nV.gather(1, words)[:, 0])
        return found_N

    @torch.no_grad()
    def all_log_probabilities(self, x_NP: Tensor) -> Tensor:
        """Return the exact log-probabilities (nats) of all words, (N, V)."""
        heads_NH = torch.log_softmax(self.head(x_NP), 1)
        frequent, clusters = heads_NH.split([self.n_frequent, len(self.tail)], dim=1)
        tails = [clusters[:, k : k + 1] + torch.log_softmax(tail(x_NP), 1) for k, tail in enumerate(self.tail)]
        return torch.cat([frequent, *tails], dim=1)


Head: TypeAlias = Softmax | AdaptiveSoftmax


class _Affine(nn.Module):
    def __init__(self, n_out: int, n_in: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in))
        self.bias = nn.Parameter(torch.empty(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight.T, self.bias)


class _Tail(nn.Module):
    def __init__(self, n_words: int, width: int, projection_dim: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(width, projection_dim))
        self.out = nn.Parameter(torch.empty(n_words, width))
        self.bias = nn.Parameter(torch.empty(n_words))

    def forward(self, x: Tensor) -> Tensor:
        return product(product(x, self.down.T), self.out.T, self.bias)


def read_head(arrays: Arrays) -> Head | None:
    """Return the head among a checkpoint's arrays, if there is one."""
    if "softmax.weight" in arrays:
        return Softmax.from_arrays(arrays)
    return AdaptiveSoftmax.from_arrays(arrays) if "softmax.head.weight" in arrays else None


def _arrays(head: nn.Module) -> Arrays:
    return {f"softmax.{name}": parameter.detach().cpu().numpy() for name, parameter in head.named_parameters()}
