"""An ELMo inside an archive of AllenNLP (`model.tar.gz`): found in `weights.th` by the prefix of its tensors.

The tensors are those of AllenNLP's `Elmo` module: the layouts of torch, gates in the order i, f, j, o, a forget bias of
1 already added, the highway's gate negated, a zero row for character id 0. Trained mixes come along.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from elmokit.checkpoint import Arrays, CharCNN, Checkpoint, Config, Embedding, Lstm, Shape, parse_config
from elmokit.errors import FormatError
from elmokit.formats import allennlp
from elmokit.formats.files import Files, one_place, outermost
from elmokit.formats.rules import Array, Rule, check, stacked, to_ours
from elmokit.formats.torch_pickle import read_state_dict
from elmokit.formats.torch_rules import (
    both_transposed,
    cell_names,
    convolution_rules,
    gate_biases,
    gates,
    highway_rules,
    in_our_parts,
    transposed,
)

WEIGHTS = "weights.th"
_CHARACTERS = "_elmo_lstm._token_embedder._char_embedding_weights"


def recognises(files: Files) -> bool:
    """Tell by its files whether this is an archive of AllenNLP."""
    return bool(files.find(WEIGHTS)) and bool(files.find("config.json"))


def read(files: Files) -> Checkpoint:
    """Read the one ELMo inside, with its trained mixes."""
    name = one_place(outermost(files.find(WEIGHTS)), where=files.where)
    where = files.named(name)
    with files.open(name) as file:
        state = read_state_dict(file, size=files.sizes[name], where=where)
    prefix = _prefix(state, where)
    elmo = {key.removeprefix(prefix): array for key, array in state.items() if key.startswith(prefix)}
    mixes = {key: elmo.pop(key) for key in list(elmo) if key.startswith("scalar_mix_")}
    config = _config(files, {key: array.shape for key, array in elmo.items()}, where)
    arrays = network_arrays(elmo, config, where=where) | _mixes(mixes, config, where)
    return Checkpoint(config, arrays, source="AllenNLP archive")


def network_arrays(tensors: Mapping[str, Array], config: Config, *, where: str) -> Arrays:
    """Return our arrays of the tensors of AllenNLP's `Elmo`, its mixes apart; `FormatError` where they do not fit."""
    # Words cached before training are left out: the characters say the same.
    network = {name: array for name, array in tensors.items() if name != "_elmo_lstm._word_embedding.weight"}
    table = rules(config)
    check(table, {name: array.shape for name, array in network.items()}, where=where)
    return in_our_parts(to_ours(table, network.__getitem__))


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
        if not name.endswith("config.json") and allennlp.describes_network(files, name, "lstm", "char_cnn"):
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
    """Return the table for this shape, for reading only, in parts that `in_our_parts` puts together."""
    lstm, cnn = config.lstm, config.char_cnn
    assert cnn is not None  # it was told by the characters
    encoder, P, D = "_elmo_lstm._token_embedder.", lstm.projection_dim, lstm.dim
    table = [
        Rule("char_embed", (_CHARACTERS,), (cnn.n_symbols + 1, cnn.embedding.dim), lambda a: a[0][1:]),
        *convolution_rules(cnn, f"{encoder}char_conv_{{}}"),
        *highway_rules(cnn, f"{encoder}_highways._layers.{{}}"),
        transposed("projection.weight", f"{encoder}_projection.weight", (P, cnn.n_filters)),
        Rule("projection.bias", (f"{encoder}_projection.bias",), (P,)),
    ]
    for k in range(lstm.n_layers):
        names = cell_names(k, "_elmo_lstm._elmo_lstm.")
        table += [
            gates(f"lstm.{k}.input", names["input"], (4 * D, P)),
            gates(f"lstm.{k}.state", names["state"], (4 * D, P)),
            gate_biases(f"lstm.{k}.bias", names["bias"], (4 * D,)),
            both_transposed(f"lstm.{k}.projection", names["projection"], (P, D)),
        ]
    return table


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
