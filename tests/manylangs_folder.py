"""A model folder of ELMoForManyLangs made in code from a seed, and in NumPy what the package computes with it.

The arrays are those of the files, in their layout, gates in the order i, f, g, o.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch

WORDS = ("<oov>", "<bos>", "<eos>", "<pad>", "the", "cat", "\u3000", "a b", "<S>", "<UNK>", "x" * 8, "naïve", "北京")
CHARACTERS = ("<bos>", "<eos>", "q", "<pad>", "<bow>", "<eow>", *"tehcasx<>S/", "北", "<oov>", "\u3000", "ï")


@dataclass(frozen=True)
class Model:
    """What the files of a folder say."""

    description: dict
    words: tuple[str, ...]
    characters: tuple[str, ...]
    embedder: dict[str, np.ndarray]
    encoder: dict[str, np.ndarray]


def make(*, encoder="elmo", embedder="cnn", P=4, D=6, n_layers=2, word_dim=5, char_dim=3, n_highway=1, seed=0, **more):
    """A random model, its float32 numbers held as float64; `more`: `filters`, `cell_clip` and so on."""
    options = {
        "activation": "relu",
        "filters": [[1, 3], [2, 4]],
        "n_highway": n_highway,
        "max_characters_per_token": 10,
    }
    description = {
        "encoder": {
            "name": encoder, "projection_dim": P, "dim": D, "n_layers": n_layers, "cell_clip": 3, "proj_clip": 3,
        },
        "token_embedder": {"name": embedder, **options, "word_dim": word_dim, "char_dim": char_dim},
        "classifier": {"name": "sampled_softmax", "n_samples": 8192},
        "dropout": 0.1,
    }  # fmt: skip
    for name, value in more.items():
        description["encoder" if name.endswith("_clip") else "token_embedder"][name] = value
    generator = np.random.default_rng(seed)

    def drawn(shapes):
        return {
            name: generator.normal(0, 0.5, shape).astype(np.float32).astype(np.float64)
            for name, shape in shapes.items()
        }

    tables = drawn(_embedder_shapes(description))
    return Model(description, WORDS, CHARACTERS, tables, drawn(_encoder_shapes(description)))


def _embedder_shapes(description):
    options, P = description["token_embedder"], description["encoder"]["projection_dim"]
    W, E, shapes = options["word_dim"], options["char_dim"], {}
    N = sum(count for _, count in options["filters"]) if E else 0
    if W:
        shapes["word_emb_layer.embedding.weight"] = (len(WORDS), W)
    if E:
        shapes["char_emb_layer.embedding.weight"] = (len(CHARACTERS), E)
        for i, (width, count) in enumerate(options["filters"]):
            shapes |= {f"convolutions.{i}.weight": (count, E, width), f"convolutions.{i}.bias": (count,)}
        for k in range(options["n_highway"]):
            shapes |= {f"highways._layers.{k}.weight": (2 * N, N), f"highways._layers.{k}.bias": (2 * N,)}
    return {**shapes, "projection.weight": (P, W + N), "projection.bias": (P,)}


def _encoder_shapes(description):
    options = description["encoder"]
    P, D, shapes = options["projection_dim"], options["dim"], {}
    for k in range(options["n_layers"]):
        if options["name"] == "lstm":
            for end in (f"l{k}", f"l{k}_reverse"):
                shapes |= {f"encoder.weight_ih_{end}": (4 * D, 2 * D if k else P)}
                shapes |= {f"encoder.weight_hh_{end}": (4 * D, D)}
                shapes |= {f"encoder.bias_ih_{end}": (4 * D,), f"encoder.bias_hh_{end}": (4 * D,)}
            continue
        for side in ("forward", "backward"):
            name = f"{side}_layer_{k}"
            shapes |= {f"{name}.input_linearity.weight": (4 * D, P), f"{name}.state_linearity.weight": (4 * D, P)}
            shapes |= {f"{name}.state_linearity.bias": (4 * D,), f"{name}.state_projection.weight": (P, D)}
    return shapes | ({"projection.weight": (P, D), "projection.bias": (P,)} if options["name"] == "lstm" else {})


def write(model, folder, *, config_path="/users4/somebody/network.json", older=False):
    """Write the folder, with torch's zip files or those before them; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"seed": 1, "gpu": 0, "config_path": config_path}))
    (folder / "network.json").write_text(json.dumps(model.description))
    for name, lexicon in (("word.dic", model.words), ("char.dic", model.characters)):
        lines = (f"{symbol}\t{row}\n" for row, symbol in enumerate(lexicon))
        (folder / name).write_text("".join(lines), encoding="utf-8", newline="\n")
    for name, arrays in (("token_embedder.pkl", model.embedder), ("encoder.pkl", model.encoder)):
        tensors = OrderedDict((key, torch.from_numpy(array.astype(np.float32))) for key, array in arrays.items())
        torch.save(tensors, folder / name, _use_new_zipfile_serialization=not older)
    return folder


# ---------------------------------------------------------------- what the package computes


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def clip(x, limit):
    return np.clip(x, -limit, limit) if limit else x


def spell(word, model):
    """Rows of char.dic. The row called <eow> begins a word and the one called <bow> ends it."""
    rows, n = {c: i for i, c in enumerate(model.characters)}, model.description["token_embedder"]
    symbols = [rows[word]] if word in ("<bos>", "<eos>") else [rows.get(c, rows["<oov>"]) for c in word]
    ids = [rows["<eow>"], *symbols, rows["<bow>"]]
    return ids + [rows["<pad>"]] * (n["max_characters_per_token"] - len(ids))


def word_vector(word, model):
    """Layer 0: the word's row, then its characters, and the projection of both."""
    options, arrays, parts = model.description["token_embedder"], model.embedder, []
    if options["name"] == "cnn" and word not in ("<bos>", "<eos>"):
        word = word[: options["max_characters_per_token"] - 2]
    if options["word_dim"]:
        rows = {w: i for i, w in enumerate(model.words)}
        parts.append(arrays["word_emb_layer.embedding.weight"][rows.get(word, rows["<oov>"])])
    if options["char_dim"]:
        parts.append(characters_vector(spell(word, model), options, arrays))
    return arrays["projection.weight"] @ np.concatenate(parts) + arrays["projection.bias"]


def characters_vector(ids, options, arrays):
    x_CE, maxima = arrays["char_emb_layer.embedding.weight"][ids], []
    for i, (width, _) in enumerate(options["filters"]):
        weight, bias = arrays[f"convolutions.{i}.weight"], arrays[f"convolutions.{i}.bias"]
        places = range(len(x_CE) - width + 1)
        maxima.append(np.max([np.einsum("we,new->n", x_CE[p : p + width], weight) + bias for p in places], axis=0))
    y = np.concatenate(maxima)
    y = np.maximum(y, 0) if options["activation"] == "relu" else np.tanh(y)
    for k in range(options["n_highway"]):
        new, gate = np.split(arrays[f"highways._layers.{k}.weight"] @ y + arrays[f"highways._layers.{k}.bias"], 2)
        y = sigmoid(gate) * y + (1 - sigmoid(gate)) * np.maximum(new, 0)
    return y


def cells(xs, layer, model):
    """One direction of one layer of the encoder `elmo`, from zeros, in reading order."""
    options, arrays, outputs = model.description["encoder"], model.encoder, []
    h, c = np.zeros(options["projection_dim"]), np.zeros(options["dim"])
    for x in xs:
        gates = arrays[f"{layer}.input_linearity.weight"] @ x + arrays[f"{layer}.state_linearity.weight"] @ h
        i, f, g, o = np.split(gates + arrays[f"{layer}.state_linearity.bias"], 4)
        c = clip(sigmoid(f) * c + sigmoid(i) * np.tanh(g), options["cell_clip"])
        h = clip(arrays[f"{layer}.state_projection.weight"] @ (sigmoid(o) * np.tanh(c)), options["proj_clip"])
        outputs.append(h)
    return np.array(outputs)


def embed(tokens, model):
    """All layers (L, T, 2P) of one sentence with the encoder `elmo`."""
    words = np.array([word_vector(word, model) for word in ["<bos>", *tokens, "<eos>"]])
    forward, backward, layers = words, words, [np.concatenate([words, words], axis=1)]
    for k in range(model.description["encoder"]["n_layers"]):
        skip_forward, skip_backward = (forward, backward) if k else (0, 0)
        forward = cells(forward, f"forward_layer_{k}", model) + skip_forward
        backward = cells(backward[::-1], f"backward_layer_{k}", model)[::-1] + skip_backward
        layers.append(np.concatenate([forward, backward], axis=1))
    return np.stack(layers)[:, 1:-1]


def embed_joined(tokens, model):
    """Layer 0 and the top (2, T, 2P) of one sentence with the encoder `lstm`: torch's own."""
    options = model.description["encoder"]
    network = torch.nn.LSTM(options["projection_dim"], options["dim"], options["n_layers"], bidirectional=True)
    weights = {name.removeprefix("encoder."): torch.from_numpy(a) for name, a in model.encoder.items() if "_l" in name}
    network.load_state_dict(weights)
    words = np.array([word_vector(word, model) for word in ["<bos>", *tokens, "<eos>"]])
    with torch.no_grad():
        hidden = network.double()(torch.from_numpy(words))[0].numpy()
    top = [
        half @ model.encoder["projection.weight"].T + model.encoder["projection.bias"]
        for half in np.split(hidden, 2, 1)
    ]
    return np.stack([np.concatenate([words, words], axis=1), np.concatenate(top, axis=1)])[:, 1:-1]
