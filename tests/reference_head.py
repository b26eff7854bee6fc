"""The softmax head in NumPy, on top of the network of `reference`."""

import numpy as np

from reference import lstm, word_vector


def logits(words, z, config, arrays):
    """What the softmax head says of the word after each of these, (T, V), read in direction z from a state of zeros."""
    xs = [word_vector(word, config, arrays) for word in words]
    for k in range(config.lstm.n_layers):
        kernel, bias, projection = (arrays[f"lstm.{k}.{name}"][z] for name in ("kernel", "bias", "projection"))
        zeros = np.zeros(config.lstm.projection_dim), np.zeros(config.lstm.dim)
        ys, _, _ = lstm(xs, *zeros, kernel, bias, projection, config.lstm)
        xs = [x + y for x, y in zip(xs, ys, strict=True)] if k else ys
    return np.stack(xs) @ arrays["softmax.weight"].T + arrays["softmax.bias"]
