"""The format of AllenNLP and bilm-tf: options.json beside an HDF5 file of weights."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from elmokit.checkpoint import (
    Checkpoint,
    Config,
    Shape,
    check_vocabulary,
    network_shapes,
    parse_config,
    read_bytes,
    read_json,
    read_vocabulary,
    replace_file,
    write_vocabulary,
    written_folder,
)
from elmokit.errors import FormatError, MismatchError
from elmokit.formats import softmax
from elmokit.formats.files import Files, outermost
from elmokit.formats.hdf5 import dataset_shapes, open_hdf5, read_float32
from elmokit.formats.rules import Rule, check, left_out, reshaped, stacked, to_ours, to_theirs
from elmokit.formats.vocabulary import find_vocabulary

OPTIONS, WEIGHTS, VOCABULARY = "options.json", "weights.hdf5", "vocab.txt"
_HDF5 = b"\x89HDF\r\n\x1a\n"
# A description of a network takes a few hundred bytes.
_MAX_OPTIONS = 1 << 20

# Written by bilm-tf's training beside the network's own options; they do not change what the network computes.
TRAINING_OPTIONS = frozenset(
    "bidirectional dropout all_clip_norm_val n_epochs n_train_tokens batch_size n_tokens_vocab unroll_steps "
    "n_negative_samples_batch learning_rate share_embedding_softmax sample_softmax".split()
)


def recognises(files: Files) -> bool:
    """Tell by content whether options and weights of this format are here."""
    return bool(_options_among(files)) and bool(_hdf5_among(files))


def read(files: Files) -> Checkpoint:
    """Read the one model of a folder or archive, under whatever names its files have.

    The vocabulary (`*vocab*.txt`) is read where words come from a table or a softmax head is there, in its own file.
    """
    options, (weights, head) = _one_options(files), _weights_and_head(files)
    config = parse_options(files.read(options), where=files.named(options))
    with files.open(weights) as file:
        found = read_weights(file, config, words=None, where=files.named(weights))
    if config.char_cnn is None:
        found = replace(found, vocabulary=find_vocabulary(files, len(found.arrays["embedding"])))
    return _with_head(found, head, files) if head else found


def _with_head(found: Checkpoint, head: str, files: Files) -> Checkpoint:
    """Give a model the head of a file, and its words."""
    with files.open(head) as file:
        arrays = softmax.read(file, found.config, where=files.named(head))
    words = find_vocabulary(files, len(arrays["softmax.bias"]))
    if words is None:
        raise FormatError(f"{files.named(head)} is a softmax head without its words; put {VOCABULARY} beside it")
    return softmax.attach(found, arrays, words, where=files.named(head))


def read_pair(options: str | Path, weights: str | Path) -> Checkpoint:
    """Read options.json and the HDF5 weights of the same model, named one by one, without the words of a table."""
    config = parse_options(read_bytes(options), where=str(options))
    return read_weights(weights, config, words=None, where=str(weights))


def read_weights(
    weights: str | Path | BinaryIO, config: Config, *, words: tuple[str, ...] | None, where: str
) -> Checkpoint:
    """Read the HDF5 file, named or open, of a model of this configuration; `where` names it in errors."""
    with open_hdf5(weights, where=where) as file:
        shapes = dataset_shapes(file, where=where)
        table = rules(config, one_layer_names=_has_one_layer_names(shapes))
        check(table, shapes, where=where)
        arrays = to_ours(table, lambda name: read_float32(file, name))
    check_vocabulary(words, arrays, where=f"the vocabulary of {where}")
    return Checkpoint(config, arrays, words, source="AllenNLP / bilm-tf")


def read_token_cache(
    options: str | Path, weights: str | Path, *, token_embeddings: str | Path, vocabulary: str | Path | None = None
) -> Checkpoint:
    """Read a model whose words come from cached vectors (bilm-tf `dump_token_embeddings`), row = vocabulary line.

    Without `vocabulary` the model takes word numbers but cannot spell.
    """
    full = read_pair(options, weights)
    with open_hdf5(token_embeddings, where=str(token_embeddings)) as file:
        shapes = dataset_shapes(file, where=str(token_embeddings))
        check([_word_table(full.config)], shapes, where=str(token_embeddings))
        table = read_float32(file, "embedding")
    words = read_vocabulary(vocabulary) if vocabulary else None
    arrays = {"embedding": table} | {name: a for name, a in full.arrays.items() if name.startswith("lstm.")}
    check_vocabulary(words, arrays, where=str(vocabulary))
    return Checkpoint(Config(lstm=full.config.lstm), arrays, words, source=full.source)


def parse_options(content: bytes, *, where: str) -> Config:
    """Make a `Config` of what options.json holds, leaving out by name what only training reads."""
    options = read_json(content, where=where)
    if isinstance(options, dict):
        if (both := options.get("bidirectional", True)) is not True:
            raise FormatError(f"{where}: option 'bidirectional' is {repr(both)[:80]}, expected true")
        options = {name: value for name, value in options.items() if name not in TRAINING_OPTIONS}
    config = parse_config(options, where=where)
    if later := config.later_options:
        raise FormatError(f"{where}: option {later[0]!r} is not one of AllenNLP and bilm-tf; it is not understood")
    # Training counts 261 characters and embedding the padding too, and refuses the other: it is one network.
    cnn = config.char_cnn and config.char_cnn.model_copy(update={"n_characters": 262})
    return config.model_copy(update={"char_cnn": cnn})


def write(checkpoint: Checkpoint, folder: str | Path) -> None:
    """Write options.json and weights.hdf5, which AllenNLP and bilm-tf read, and a softmax head in its own file.

    Raises `MismatchError` for a network that these tools do not have.
    """
    if later := checkpoint.config.later_options:
        raise MismatchError(
            f"AllenNLP and bilm-tf have no network like this one (options {', '.join(later)}); write our own format"
        )
    # A clip that is absent is written as null: AllenNLP asks for the key.
    options = {name: part for name, part in checkpoint.config.model_dump().items() if part is not None}
    weights = BytesIO()
    with h5py.File(weights, "w", libver="earliest") as file:
        for name, array in to_theirs(rules(checkpoint.config), checkpoint.arrays).items():
            file.create_dataset(name, data=np.ascontiguousarray(array, np.float32))
    with written_folder(folder) as folder:
        replace_file(folder / WEIGHTS, weights.getvalue())
        if "softmax.bias" in checkpoint.arrays:
            replace_file(folder / softmax.WEIGHTS, softmax.packed(checkpoint))
        if needs_vocabulary(checkpoint) and checkpoint.vocabulary is not None:
            write_vocabulary(checkpoint.vocabulary, folder / VOCABULARY)
        replace_file(folder / OPTIONS, json.dumps(options).encode())


def lost_in(checkpoint: Checkpoint) -> list[str]:
    """Name what a checkpoint holds that this format cannot."""
    return left_out(checkpoint, head=True, vocabulary=needs_vocabulary(checkpoint))


def needs_vocabulary(checkpoint: Checkpoint) -> bool:
    """Tell whether the vocabulary lists rows of something that is written: a table of words or a head."""
    return checkpoint.config.char_cnn is None or "softmax.bias" in checkpoint.arrays


# ---------------------------------------------------------------- which files


def _options_among(files: Files) -> list[str]:
    """Return the names of JSON files that describe a network of this format; options.json alone where it is."""
    exact = files.find(OPTIONS)
    return outermost(exact or [name for name in files.find("*.json") if describes_network(files, name, "lstm")])


def describes_network(files: Files, name: str, *parts: str) -> bool:
    """Tell whether a file is JSON with these parts of the options of a network."""
    if files.sizes[name] > _MAX_OPTIONS:
        return False
    with suppress(FormatError):
        options = read_json(files.read(name), where=name)
        return isinstance(options, dict) and all(isinstance(options.get(part), dict) for part in parts)
    return False


def _hdf5_among(files: Files) -> list[str]:
    found = [name for name in sorted(files.sizes) if _is_hdf5(files, name)]
    return outermost(found or files.find("*.hdf5", "*.h5"))


def _is_hdf5(files: Files, name: str) -> bool:
    with suppress(FormatError):  # a file that may not be read is none of the model's, or is missed later
        return files.start(name, len(_HDF5)) == _HDF5
    return False


def _one_options(files: Files) -> str:
    return _only(_options_among(files), f"{files.where}: expected one {OPTIONS}")


def _weights_and_head(files: Files) -> tuple[str, str | None]:
    """Return the name of the file of weights, and that of a softmax head where there is one."""
    found = _hdf5_among(files)
    if len(found) == 1:
        return found[0], None
    groups = {name: _groups(files, name) for name in found}
    heads = [name for name in found if groups[name] == {"softmax"}]
    others = [name for name in found if name not in heads]
    weights = [name for name in others if "RNN_0" in groups[name] and groups[name] & {"char_embed", "embedding"}]
    one = _only(weights if len(others) > 1 else others, f"{files.where}: expected one HDF5 file of weights")
    return one, heads[0] if len(heads) == 1 else None


def _groups(files: Files, name: str) -> set[str]:
    with suppress(FormatError), files.open(name) as content, open_hdf5(content, where=name) as file:
        return set(file)
    return set()


def _only(names: list[str], expected: str) -> str:
    if len(names) != 1:
        found = f"{len(names)}: {', '.join(names)}"[:300] if names else "none"
        raise FormatError(f"{expected}, found {found}; name the two files of the model one by one")
    return names[0]


# ---------------------------------------------------------------- the table


def rules(config: Config, *, one_layer_names: bool = False) -> list[Rule]:
    """Return the table for this shape. bilm-tf leaves `MultiRNNCell/Cell0` out of the names of one-layer models."""
    ours = network_shapes(config)
    table = [_encoder_rule(name, shape) for name, shape in ours.items() if not name.startswith("lstm.")]
    if config.char_cnn is None:
        table = [_word_table(config)]
    lstm = {name: shape for name, shape in ours.items() if name.startswith("lstm.")}
    return table + [_lstm_rule(name, shape, one_layer_names) for name, shape in lstm.items()]


def _word_table(config: Config) -> Rule:
    return Rule("embedding", ("embedding",), (None, config.lstm.projection_dim))


def _encoder_rule(name: str, shape: Shape) -> Rule:
    part, *rest = name.split(".")
    if part == "cnn" and rest[1] == "weight":
        return reshaped(name, f"CNN/W_cnn_{rest[0]}", (1, *shape), shape)
    theirs = {
        "char_embed": lambda: "char_embed",
        "cnn": lambda: f"CNN/b_cnn_{rest[0]}",
        "highway": lambda: f"CNN_high_{rest[0]}/{rest[2][0].upper() if rest[2] == 'weight' else 'b'}_{rest[1]}",
        "projection": lambda: f"CNN_proj/{'W' if rest[0] == 'weight' else 'b'}_proj",
    }
    return Rule(name, (theirs[part](),), shape)


_LSTM_NAMES = {"kernel": "W_0", "bias": "B", "projection": "W_P_0"}


def _lstm_rule(name: str, shape: Shape, one_layer_names: bool) -> Rule:
    _, layer, array = name.split(".")
    cell = "" if one_layer_names else f"MultiRNNCell/Cell{layer}/"
    theirs = tuple(f"RNN_{z}/RNN/{cell}LSTMCell/{_LSTM_NAMES[array]}" for z in range(shape[0]))
    return stacked(name, theirs, shape[1:])


def _has_one_layer_names(shapes: dict[str, Shape]) -> bool:
    return any(re.fullmatch(r"RNN_\d/RNN/LSTMCell/W_0", name) for name in shapes)
