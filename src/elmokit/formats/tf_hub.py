"""ELMo as a TF-Hub module or SavedModel: variables/variables.*, of google/elmo and of DeepPavlov.

There are no options: widths are those of the arrays, and the rest is what the modules compute with (clips at 3, layers
added, 50 characters a word); only whether filters end in relu or tanh is read from the graph, where one is there. The
weights of the layers, before their softmax, and the scaling are kept as the model's one mix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from elmokit.checkpoint import Checkpoint, Config, Shape, check_arrays, parse_config
from elmokit.errors import FormatError
from elmokit.formats import allennlp
from elmokit.formats.files import Files, one_place, outermost
from elmokit.formats.rules import Array, Rule, check, to_ours
from elmokit.formats.tensor_bundle import find_indexes, open_bundle, read_index
from elmokit.text import N_CHARACTERS

_CHARACTERS = "bilm/char_embed"
# google/elmo's names, then DeepPavlov's.
_WEIGHTS = ("aggregation/weights", "aggregation/elmo_output_ELMo_W")
_SCALING = ("aggregation/scaling", "aggregation/elmo_output_ELMo_gamma")
# The state that a module carries from batch to batch, once for each of its two signatures.
_STATE = re.compile(r"bilm(_\d+)?/Variable(_\d+)?")

_GRAPH, _MAX_GRAPH = "saved_model.pb", 1 << 27


def recognises(files: Files) -> bool:
    """Tell by content whether the variables of such a module are here."""
    return bool(_our_indexes(files))


def read(files: Files) -> Checkpoint:
    """Read the network and the weights of its layers; the LSTM state that was exported with it is left out."""
    found = outermost(_our_indexes(files))
    if not found:
        raise FormatError(f"{files.where}: expected a module of ELMo (variables/variables.index), found none")
    index = one_place(found, where=files.where)
    where = files.named(index)
    with open_bundle(files, index) as bundle:
        shapes = {name: shape for name, shape in bundle.index.shapes.items() if not _STATE.fullmatch(name)}
        config = parse_config(_options(shapes, _activation(files, index), where=where), where=where)
        table = rules(config, shapes)
        check(table, shapes, where=where)
        arrays = to_ours(table, bundle.read_float32)
    arrays["char_embed"] = _without_padding(arrays["char_embed"], where)
    check_arrays({name: array.shape for name, array in arrays.items()}, config, where=where)
    return Checkpoint(config, arrays, source="TF-Hub module")


def _our_indexes(files: Files) -> list[str]:
    return [index for index in find_indexes(files) if _is_ours(files, index)]


def _is_ours(files: Files, index: str) -> bool:
    with suppress(FormatError):
        return _CHARACTERS in read_index(files, index).shapes
    return False


# ---------------------------------------------------------------- the shape


def _activation(files: Files, index: str) -> str:
    """Return what filters end in, by the name that TensorFlow gave to the operation; relu where there is no graph."""
    # The graph of this module, not that of one in another folder: it is in a folder above the variables.
    graphs = [name for name in files.find(_GRAPH) if index.startswith(name.removesuffix(_GRAPH))]
    return "tanh" if any(b"bilm/CNN/Tanh" in files.read(name, limit=_MAX_GRAPH) for name in graphs[-1:]) else "relu"


def _options(shapes: Mapping[str, Shape], activation: str, *, where: str) -> dict[str, object]:
    """Return what options.json would say of a network with arrays of these shapes."""

    def axes(name: str, n: int) -> Shape:
        if len(shape := shapes.get(name, ())) != n:
            raise FormatError(f"{where}: expected a variable {name!r} with {n} axes, found {shapes.get(name, 'none')}")
        return shape

    both, gates = axes(_cell(0, "kernel"), 2)
    filters = [axes(f"bilm/CNN/W_cnn_{i}", 4) for i in range(_count(shapes, "bilm/CNN/W_cnn_{}"))]
    lstm = {
        "projection_dim": both // 2,
        "dim": gates // 4,
        "n_layers": _count(shapes, _cell("{}", "kernel")),
        "cell_clip": 3.0,
        "proj_clip": 3.0,
        "use_skip_connections": True,
    }
    cnn = {
        "embedding": {"dim": axes(_CHARACTERS, 2)[1]},
        "filters": [(width, count) for _, width, _, count in filters],
        "activation": activation,
        "n_highway": _count(shapes, "bilm/CNN_high_{}/W_carry"),
        "max_characters_per_token": 50,
    }
    return {"lstm": lstm, "char_cnn": cnn}


def _cell(layer: int | str, array: str) -> str:
    return f"bilm/RNN_0/RNN/MultiRNNCell/Cell{layer}/rnn/lstm_cell/{array}"


def _count(shapes: Mapping[str, Shape], name: str) -> int:
    """Return how many variables there are whose names differ in a number from 0 on."""
    n = 0
    while name.format(n) in shapes:
        n += 1
    return n


# ---------------------------------------------------------------- the table


def rules(config: Config, shapes: Mapping[str, Shape]) -> list[Rule]:
    """Return the table for a network of this configuration and the mix that is there."""
    table = [_renamed(rule) for rule in allennlp.rules(config)]
    # 262 rows, or 261 without the one for places beyond the end.
    rows = {N_CHARACTERS, N_CHARACTERS + 1} & {shapes[_CHARACTERS][0]} or {N_CHARACTERS}
    table = [replace(rule, shape=(*rows, rule.shape[1])) if rule.ours == "char_embed" else rule for rule in table]
    return table + _mix(config, shapes)


_SPELLINGS = {"W_0": "kernel", "B": "bias", "W_P_0": "projection/kernel"}


def _renamed(rule: Rule) -> Rule:
    def theirs(name: str) -> str:
        cell, _, array = name.partition("LSTMCell/")
        return f"bilm/{cell}rnn/lstm_cell/{_SPELLINGS[array]}" if array else f"bilm/{name}"

    return replace(rule, theirs=tuple(map(theirs, rule.theirs)))


def _mix(config: Config, shapes: Mapping[str, Shape]) -> list[Rule]:
    L = config.lstm.n_layers
    weights = [Rule("mix.weights", (name,), (L + 1,), lambda a: a[0][None]) for name in _WEIGHTS if name in shapes]
    scaling = [
        Rule("mix.gamma", (name,), () if shapes[name] == () else (1,), lambda a: a[0].reshape(1))
        for name in _SCALING
        if name in shapes
    ]
    return weights[:1] + scaling[:1]


def _without_padding(array: Array, where: str) -> Array:
    """Return the rows of characters, without the first of 262.

    That one is for places beyond the end of a sentence, where nobody looks, so its values do not matter; but bilm-tf
    makes it of zeros, and where it is not zero the rows may be in another order than we take them to be.
    """
    if len(array) == N_CHARACTERS:
        return array
    if array[0].any():
        raise FormatError(f"{where}: the first of 262 rows of {_CHARACTERS!r} is not zero; its characters are unknown")
    return array[1:]
