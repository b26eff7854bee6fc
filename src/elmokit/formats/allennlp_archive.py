"""An ELMo inside an archive of AllenNLP (`model.tar.gz`): found in `weights.th` by the prefix of its tensors.

The tensors are those of AllenNLP's `Elmo` module: the layouts of torch, gates in the order i, f, j, o, a forget bias of
1 already added, the highway's gate negated, a zero row for character id 0 (formats.md 3.3). Trained mixes come along.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np

from elmokit.checkpoint import CharCNN, Checkpoint, Config, Embedding, Lstm, Shape, parse_config, read_json
from elmokit.errors import FormatError
from elmokit.formats import allennlp
from elmokit.formats.files import Files, outermost
from elmokit.formats.rules import Array, Rule, check, stacked, to_ours
from elmokit.formats.torch_pickle import read_state_dict

WEIGHTS = "weights.th"
_CHARACTERS = "_elmo_lstm._token_embedder._char_embedding_weights"


def recognises(files: Files) -> bool:
    """Tell by its files whether this is an archive of AllenNLP."""
    return bool(files.find(WEIGHTS)) and bool(files.find("config.json"))


def read(files: Files) -> Checkpoint:
    """Read the one ELMo inside, with its trained mixes."""
    name = outermost(files.find(WEIGHTS))[0]
    where = files.named(name)
    with files.open(name) as file:
        state = read_state_dict(file, size=files.sizes[name], where=where)
    prefix = _prefix(state, where)
    elmo = {key.removeprefix(prefix): array for key, array in state.items() if key.startswith(prefix)}
    mixes = {key: elmo.pop(key) for key in list(elmo) if key.startswith("scalar_mix_")}
    elmo.pop("_elmo_lstm._word_embedding.weight", None)  # words cached before training: the characters say the same
    shapes = {key: array.shape for key, array in elmo.items()}
    config = _config(files, shapes, where)
    table = rules(config)
    check(table, shapes, where=where)
    arrays = to_ours(table, elmo.__getitem__) | _mixes(mixes, config, where)
    return Checkpoint(config, arrays, source="AllenNLP archive")


def _prefix(state: Mapping[str, Array], where: str) -> str:
    found = [name.removesuffix(_CHARACTERS) for name in state if name.endswith(_CHARACTERS)]
    if len(found) != 1:
        raise FormatError(f"{where}: expected the tensors of one ELMo (...{_CHARACTERS}), found {len(found)}")
    return found[0]


# ---------------------------------------------------------------- the shape


def _config(files: Files, shapes: Mapping[str, Shape], where: str) -> Config:
    """Take the options that the archive holds; where it holds none, what the tensors say.

    Tensors say nothing of clips and activation: all published models have clips of 3 and relu. AllenNLP's own code has
    no other skip connections and no other words than of 50 symbols.
    """
    for name in files.find("*"):
        if files.sizes[name] < 1 << 16 and name.rsplit("/", 1)[-1] != "config.json":
            with suppress(FormatError):
                options = read_json(files.read(name), where=name)
                if isinstance(options, dict) and "lstm" in options and "char_cnn" in options:
                    return allennlp.parse_options(files.read(name), where=files.named(name))
    try:
        return _config_of_tensors(shapes)
    except (KeyError, ValueError):
        raise FormatError(f"{where}: its tensors are not those of an ELMo of AllenNLP") from None


def _config_of_tensors(shapes: Mapping[str, Shape]) -> Config:
    encoder = "_elmo_lstm._token_embedder."
    filters: list[tuple[int, int]] = []
    while (shape := shapes.get(f"{encoder}char_conv_{len(filters)}.weight")) is not None:
        filters.append((shape[2], shape[0]))
    P, D = shapes["_elmo_lstm._elmo_lstm.forward_layer_0.state_projection.weight"]
    cnn = CharCNN(
        embedding=Embedding(dim=shapes[_CHARACTERS][1]),
        filters=filters,
        activation="relu",
        n_highway=_count(shapes, r"_elmo_lstm\._token_embedder\._highways\._layers\.\d+\.bias"),
        max_characters_per_token=50,
    )
    n_layers = _count(shapes, r"_elmo_lstm\._elmo_lstm\.forward_layer_\d+\.state_linearity\.bias")
    lstm = Lstm(
        projection_dim=P, dim=D, n_layers=n_layers, cell_clip=3.0, proj_clip=3.0, use_skip_connections=True
    )  # fmt: skip
    return parse_config(Config(lstm=lstm, char_cnn=cnn).model_dump(), where="the tensors")


def _count(shapes: Mapping[str, Shape], pattern: str) -> int:
    return sum(re.fullmatch(pattern, name) is not None for name in shapes)


# ---------------------------------------------------------------- the table


def rules(config: Config) -> list[Rule]:
    """Return the table for this shape; for reading only."""
    lstm, cnn = config.lstm, config.char_cnn
    assert cnn is not None  # it was told by the characters
    encoder, P, D, N, E = "_elmo_lstm._token_embedder.", lstm.projection_dim, lstm.dim, cnn.n_filters, cnn.embedding.dim
    table = [Rule("char_embed", (_CHARACTERS,), (cnn.n_symbols + 1, E), lambda a: a[0][1:])]
    for i, (width, count) in enumerate(cnn.filters):
        conv = f"{encoder}char_conv_{i}"
        table += [
            Rule(f"cnn.{i}.weight", (f"{conv}.weight",), (count, E, width), lambda a: a[0].transpose(2, 1, 0)),
            Rule(f"cnn.{i}.bias", (f"{conv}.bias",), (count,)),
        ]
    for k in range(cnn.n_highway):
        table += _highway_rules(k, f"{encoder}_highways._layers.{k}", N)
    table += [
        Rule("projection.weight", (f"{encoder}_projection.weight",), (P, N), lambda a: a[0].T),
        Rule("projection.bias", (f"{encoder}_projection.bias",), (P,)),
    ]
    for layer in range(lstm.n_layers):
        table += _lstm_rules(
            layer, [f"_elmo_lstm._elmo_lstm.{way}_layer_{layer}" for way in ("forward", "backward")], P, D
        )
    return table


def _highway_rules(k: int, theirs: str, N: int) -> list[Rule]:
    """Rows: first the new value, then the gate of the old one."""
    weight, bias, ours = f"{theirs}.weight", f"{theirs}.bias", f"highway.{k}"
    return [
        Rule(f"{ours}.transform.weight", (weight,), (2 * N, N), lambda a: a[0][:N].T),
        Rule(f"{ours}.carry.weight", (weight,), (2 * N, N), lambda a: -a[0][N:].T),
        Rule(f"{ours}.transform.bias", (bias,), (2 * N,), lambda a: a[0][:N]),
        Rule(f"{ours}.carry.bias", (bias,), (2 * N,), lambda a: -a[0][N:]),
    ]


def _lstm_rules(layer: int, cells: Sequence[str], P: int, D: int) -> list[Rule]:
    inputs, recurrent = (tuple(f"{cell}.{kind}_linearity.weight" for cell in cells) for kind in ("input", "state"))
    biases = tuple(f"{cell}.state_linearity.bias" for cell in cells)
    projections = tuple(f"{cell}.state_projection.weight" for cell in cells)
    return [
        Rule(f"lstm.{layer}.kernel", (*inputs, *recurrent), (4 * D, P), _kernel),
        Rule(f"lstm.{layer}.bias", biases, (4 * D,), lambda a: np.stack([_our_gates(b, forget=1.0) for b in a])),
        Rule(f"lstm.{layer}.projection", projections, (P, D), lambda a: np.stack([p.T for p in a])),
    ]


def _kernel(arrays: Sequence[Array]) -> Array:
    """Put two directions' weights of input and state, (4D, P) each, into one (Z, 2P, 4D)."""
    half = len(arrays) // 2
    pairs = zip(arrays[:half], arrays[half:], strict=True)
    return np.stack([np.concatenate([_our_gates(x).T, _our_gates(h).T]) for x, h in pairs])


def _our_gates(rows: Array, *, forget: float = 0.0) -> Array:
    """Put rows of gates i, f, j, o in the order i, j, f, o, and take off what was added to the forget gate."""
    i, f, j, o = np.split(rows, 4)
    return np.concatenate([i, j, f - np.float32(forget), o])


def _mixes(mixes: Mapping[str, Array], config: Config, where: str) -> dict[str, Array]:
    """Return the trained mixes, (K, L + 1) weights and (K,) factors, where there are any."""
    K, L = _count(dict.fromkeys(mixes, ()), r"scalar_mix_\d+\.gamma"), config.lstm.n_layers + 1
    names = [f"scalar_mix_{k}.scalar_parameters.{layer}" for k in range(K) for layer in range(L)]
    gammas = [f"scalar_mix_{k}.gamma" for k in range(K)]
    check([stacked("mix", (*names, *gammas), (1,))], {name: a.shape for name, a in mixes.items()}, where=where)
    if not K:
        return {}
    weights = np.concatenate([mixes[name] for name in names]).reshape(K, L)
    return {"mix.weights": weights, "mix.gamma": np.concatenate([mixes[name] for name in gammas])}
