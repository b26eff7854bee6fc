"""ELMo in NumPy, one sentence at a time: slow, short, and the specification of what `elmokit.network` computes.

Peters et al. 2018, as bilm-tf trained it. `arrays` and `config` are those of `elmokit.checkpoint`; the dtype of the
arrays is the dtype of the arithmetic.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def spell(word, max_characters):
    """A word's character ids: begin mark, UTF-8 bytes, end mark, padding."""
    marks = {"<S>": [256], "</S>": [257]}
    symbols = marks.get(word) or list(word.encode("utf-8", "ignore")[: max_characters - 2])
    ids = [258, *symbols, 259]
    return ids + [260] * (max_characters - len(ids))


def word_vector(word, config, arrays):
    """Layer 0: characters, convolutions, the largest value of each filter, highways, projection."""
    cnn = config.char_cnn
    x = arrays["char_embed"][spell(word, cnn.max_characters_per_token)]  # (C, E)
    maxima = []
    for i, (width, _) in enumerate(cnn.filters):
        places = range(len(x) - width + 1)
        weight = arrays[f"cnn.{i}.weight"]  # (width, E, n)
        maxima.append(max_over([np.tensordot(x[p : p + width], weight, 2) for p in places]) + arrays[f"cnn.{i}.bias"])
    y = np.concatenate(maxima)
    y = np.maximum(y, 0) if cnn.activation == "relu" else np.tanh(y)
    for k in range(cnn.n_highway):
        gate = sigmoid(y @ arrays[f"highway.{k}.carry.weight"] + arrays[f"highway.{k}.carry.bias"])
        new = np.maximum(y @ arrays[f"highway.{k}.transform.weight"] + arrays[f"highway.{k}.transform.bias"], 0)
        y = gate * new + (1 - gate) * y
    if "projection.weight" in arrays:
        y = y @ arrays["projection.weight"] + arrays["projection.bias"]
    return y


def max_over(values):
    return np.max(np.stack(values), axis=0)


def clip(x, limit):
    return np.clip(x, -limit, limit) if limit else x


def lstm(xs, h, c, kernel, bias, projection, config):
    """One direction of one layer over its inputs, in reading order; returns outputs and the last state."""
    outputs = []
    for x in xs:
        i, j, f, o = np.split(np.concatenate([x, h]) @ kernel + bias, 4)
        c = clip(sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j), config.cell_clip)
        h = sigmoid(o) * np.tanh(c)
        if projection is not None:
            h = clip(h @ projection, config.proj_clip)
        outputs.append(h)
    return outputs, h, c


def embed(tokens, config, arrays, state=None):
    """All layers (L, T, 2P) of one sentence, and the state after it: h (L, 2, P), c (L, 2, D)."""
    P, D, n_layers = config.lstm.projection_dim, config.lstm.dim, config.lstm.n_layers
    dtype = arrays["lstm.0.kernel"].dtype
    h, c = state or (np.zeros((n_layers, 2, P), dtype), np.zeros((n_layers, 2, D), dtype))
    h, c = h.copy(), c.copy()
    words = [word_vector(word, config, arrays) for word in ["<S>", *tokens, "</S>"]]
    layers = [np.array([np.concatenate([w, w]) for w in words])]
    streams = [words, words[::-1]]
    for k in range(n_layers):
        for z in (0, 1):
            projection = arrays[f"lstm.{k}.projection"][z] if D != P else None
            kernel, bias = arrays[f"lstm.{k}.kernel"][z], arrays[f"lstm.{k}.bias"][z]
            y, h[k, z], c[k, z] = lstm(streams[z], h[k, z], c[k, z], kernel, bias, projection, config.lstm)
            skip = k > 0 and config.lstm.use_skip_connections
            streams[z] = [a + b for a, b in zip(y, streams[z], strict=True)] if skip else y
        layers.append(np.concatenate([streams[0], streams[1][::-1]], axis=1))
    return np.stack(layers)[:, 1:-1], (h, c)


def logits(words, z, config, arrays):
    """What the softmax head says of the word after each of these, (T, V), read in direction z from a state of zeros."""
    xs = [word_vector(word, config, arrays) for word in words]
    for k in range(config.lstm.n_layers):
        kernel, bias, projection = (arrays[f"lstm.{k}.{name}"][z] for name in ("kernel", "bias", "projection"))
        zeros = np.zeros(config.lstm.projection_dim), np.zeros(config.lstm.dim)
        ys, _, _ = lstm(xs, *zeros, kernel, bias, projection, config.lstm)
        xs = [x + y for x, y in zip(xs, ys, strict=True)] if k else ys
    return np.stack(xs) @ arrays["softmax.weight"].T + arrays["softmax.bias"]
