"""Weights before training: drawn as bilm-tf draws them, and a better start for the head."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elmokit.checkpoint import Arrays, Config, Shape, network_shapes
from elmokit.train.recipe import Recipe


def initial_arrays(config: Config, *, seed: int, n_words: int = 0) -> Arrays:
    """Return float32 arrays for the network of `config`, whose table of words, if it has one, has `n_words` rows.

    The same seed gives the same arrays everywhere.
    """
    generator = np.random.default_rng(seed)
    shapes = network_shapes(config)
    if config.word_dim:
        shapes = {"embedding": (n_words, config.word_dim), **shapes}
    relu = config.char_cnn is not None and config.char_cnn.activation == "relu"
    return {name: _draw(name, shape, generator, relu).astype(np.float32) for name, shape in shapes.items()}


# Of an adaptive head: shares of the vocabulary at which clusters begin. A word of each cluster has a quarter of the
# values of one before it (Grave et al. 2017).
_CLUSTERS, _NARROWER = (0.1, 0.4), 4


def initial_head(recipe: Recipe, target_counts: NDArray[np.int64], projection_dim: int) -> Arrays:
    """Return a head of the recipe's kind for words that are targets so often.

    It predicts every word with its frequency, whatever the context: rare words are seldom among the negatives of the
    sampled softmax, and started from zero, their biases would have to fall for many epochs before the full softmax were
    right. As published, with "adagrad", a head starts at random.
    """
    if recipe.softmax == "adaptive":
        return _adaptive_head(target_counts, projection_dim, np.random.default_rng((recipe.seed, 1)))
    V = len(target_counts)
    if recipe.optimizer == "adagrad":
        weight = _draw("softmax.weight", (V, projection_dim), np.random.default_rng((recipe.seed, 1)), relu=False)
        return {"softmax.weight": weight.astype(np.float32), "softmax.bias": np.zeros(V, np.float32)}
    return {
        "softmax.weight": np.zeros((V, projection_dim), np.float32),
        "softmax.bias": _log_shares(target_counts).astype(np.float32),
    }


def _adaptive_head(target_counts: NDArray[np.int64], P: int, generator: np.random.Generator) -> Arrays:
    """Clusters' words start without context; what leads to them is drawn, or nothing could be learnt."""
    V, shares = len(target_counts), target_counts + 0.5
    bounds = [*(max(1, round(share * V)) for share in _CLUSTERS), V]
    bounds = sorted(set(bounds))
    tails = list(pairwise(bounds))
    entries = np.concatenate([shares[: bounds[0]], [shares[a:b].sum() for a, b in tails]])
    arrays = {"softmax.head.weight": np.zeros((len(entries), P)), "softmax.head.bias": _log_shares(entries - 0.5)}
    for k, (a, b) in enumerate(tails):
        width = max(1, P // _NARROWER ** (k + 1))
        arrays |= {
            f"softmax.tail.{k}.down": generator.normal(0.0, P**-0.5, (width, P)),
            f"softmax.tail.{k}.out": np.zeros((b - a, width)),
            f"softmax.tail.{k}.bias": _log_shares(target_counts[a:b]),
        }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def _log_shares(counts: NDArray[Any]) -> NDArray[np.float64]:
    return np.log((counts + 0.5) / (counts + 0.5).sum())


def _draw(name: str, shape: Shape, generator: np.random.Generator, relu: bool) -> NDArray[np.float64]:
    if name.endswith("carry.bias"):
        return np.full(shape, -2.0)
    if name.endswith("bias"):
        return np.zeros(shape)
    if name == "char_embed":
        return generator.uniform(-1.0, 1.0, shape)
    if name.startswith("lstm."):
        limit = np.sqrt(6.0 / (shape[-2] + shape[-1]))  # Glorot uniform, the default of TensorFlow's LSTMCell
        return generator.uniform(-limit, limit, shape)
    if name.startswith("cnn."):
        width, n_in, _ = shape
        return generator.uniform(-0.05, 0.05, shape) if relu else generator.normal(0.0, (width * n_in) ** -0.5, shape)
    fan_in = shape[1] if name in ("softmax.weight", "embedding") else shape[0]
    return generator.normal(0.0, fan_in**-0.5, shape)
