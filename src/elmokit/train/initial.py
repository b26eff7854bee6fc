"""Weights before training: drawn as bilm-tf draws them (formats.md 3.12), and a better start for the head."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from elmokit.checkpoint import Arrays, Config, Shape, network_shapes


def initial_arrays(config: Config, *, seed: int, n_words: int = 0) -> Arrays:
    """Return float32 arrays for `config`, and for a softmax head of `n_words` if that is positive.

    The same seed gives the same arrays everywhere.
    """
    generator = np.random.default_rng(seed)
    shapes = network_shapes(config)
    P = config.lstm.projection_dim
    if config.char_cnn is None:
        shapes = {"embedding": (n_words, P), **shapes}
    if n_words:
        shapes |= {"softmax.weight": (n_words, P), "softmax.bias": (n_words,)}
    relu = config.char_cnn is not None and config.char_cnn.activation == "relu"
    return {name: _draw(name, shape, generator, relu).astype(np.float32) for name, shape in shapes.items()}


def unigram_head(target_counts: NDArray[np.int64], projection_dim: int) -> Arrays:
    """Return a softmax head that predicts every word with its frequency, whatever the context.

    Rare words are seldom among the negatives of the sampled softmax: started from zero, their biases would have to
    fall for many epochs before the full softmax were right.
    """
    shares = (target_counts + 0.5) / (target_counts + 0.5).sum()
    weight = np.zeros((len(target_counts), projection_dim), np.float32)
    return {"softmax.weight": weight, "softmax.bias": np.log(shares).astype(np.float32)}


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
