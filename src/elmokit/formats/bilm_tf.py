"""The TensorFlow checkpoint that bilm-tf trains: options.json, model.ckpt-N.* and a vocabulary.

Alone among the original tools' formats it keeps the softmax head with the network. Names are those of the HDF5 file
that bilm-tf's `dump_weights` makes of it, spelled otherwise; layouts are the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from elmokit.checkpoint import (
    Arrays,
    Checkpoint,
    Config,
    Shape,
    check_arrays,
    check_vocabulary,
    replace_file,
    write_vocabulary,
    written_folder,
)
from elmokit.errors import FormatError, MismatchError
from elmokit.formats import allennlp
from elmokit.formats.bundle_writer import write_bundle
from elmokit.formats.files import Files, one_place, outermost
from elmokit.formats.rules import Rule, check, left_out, to_ours, to_theirs
from elmokit.formats.tensor_bundle import find_indexes, open_bundle, read_index
from elmokit.formats.vocabulary import find_vocabulary

# What training keeps beside the network: counters, and the slots of Adagrad under the name of each variable.
_COUNTERS, _SLOT = frozenset(("global_step", "train_perplexity")), "/Adagrad"
_HEAD_WEIGHT, _HEAD_BIAS = "lm/softmax/W", "lm/softmax/b"
_HEADS = {"softmax.weight": _HEAD_WEIGHT, "softmax.bias": _HEAD_BIAS}
_ONE_LAYER = "lm/RNN_0/rnn/lstm_cell/kernel"  # where there is one layer, it has no number

_MAX_NOTE = 1 << 20


def recognises(files: Files) -> bool:
    """Tell by content whether a checkpoint of bilm-tf is here. One whose index is broken counts: `read` says how."""
    return bool(_our_indexes(files))


def read(files: Files) -> Checkpoint:
    """Read the model, with its softmax head if it has one, and the vocabulary whose words are the rows of the head."""
    index = _choose_index(files)
    where = files.named(index)
    with open_bundle(files, index) as bundle:
        shapes = _without_training(bundle.index.shapes)
        if any(name.startswith("lm/rnn/") for name in shapes):
            raise FormatError(f"{where} is a model of one direction; only bidirectional models can be embedded")
        config = _read_options(files)
        table = rules(config, shapes)
        check(table, shapes, where=where)
        arrays = to_ours(table, bundle.read_float32)
    if config.char_cnn is None and _HEAD_BIAS in shapes and _HEAD_WEIGHT not in shapes:
        arrays["softmax.weight"] = arrays["embedding"]  # the option share_embedding_softmax
    check_arrays({name: array.shape for name, array in arrays.items()}, config, where=where)
    rows = next((len(arrays[name]) for name in ("softmax.bias", "embedding") if name in arrays), 0)
    words = find_vocabulary(files, rows) if rows else None
    check_vocabulary(words, arrays, where=f"{where}: the vocabulary")
    return Checkpoint(config, arrays, words, source="bilm-tf, TensorFlow checkpoint")


# ---------------------------------------------------------------- writing

_PREFIX = "model.ckpt-0"
# bilm-tf asks for these of every model, also where it does not train.
_TRAINING = {
    "bidirectional": True,
    "dropout": 0.1,
    "all_clip_norm_val": 10.0,
    "batch_size": 128,
    "unroll_steps": 20,
    "n_negative_samples_batch": 8192,
}


def write(checkpoint: Checkpoint, folder: str | Path) -> None:
    """Write options.json, model.ckpt-0.*, `checkpoint` and vocab.txt, which bilm-tf's `dump_weights` and `test` read.

    Raises `MismatchError` for a network that bilm-tf does not have, and for a model without a softmax head.
    """
    if later := checkpoint.config.later_options:
        raise MismatchError(f"bilm-tf has no network like this one (options {', '.join(later)}); write our own format")
    if "softmax.bias" not in checkpoint.arrays:
        found = "an adaptive one" if "softmax.head.bias" in checkpoint.arrays else "none"
        expected = "expected a softmax head, which bilm-tf restores with the network"
        raise MismatchError(f"a TensorFlow checkpoint of bilm-tf: {expected}, found {found}; write the allennlp format")
    arrays = dict(checkpoint.arrays)
    options: dict[str, Any] = {**checkpoint.config.model_dump(exclude_none=True), **_TRAINING}
    if cnn := options.get("char_cnn"):
        cnn["n_characters"] = 261  # as training counts them
    if _is_shared(arrays, checkpoint.config):
        options["share_embedding_softmax"] = True
        del arrays["softmax.weight"]
    options["n_tokens_vocab"] = len(arrays["softmax.bias"])
    one_layer = checkpoint.config.lstm.n_layers == 1
    shapes = dict.fromkeys([_ONE_LAYER] * one_layer + [_HEADS[name] for name in _HEADS if name in arrays], ())
    bundle = write_bundle(to_theirs(rules(checkpoint.config, shapes), arrays), _PREFIX)
    with written_folder(folder) as folder:
        for name, content in bundle.items():
            replace_file(folder / name, content)
        replace_file(folder / "checkpoint", f'model_checkpoint_path: "{_PREFIX}"\n'.encode())
        if checkpoint.vocabulary is not None:
            write_vocabulary(checkpoint.vocabulary, folder / allennlp.VOCABULARY)
        replace_file(folder / allennlp.OPTIONS, json.dumps(options).encode())


def lost_in(checkpoint: Checkpoint) -> list[str]:
    """Name what a checkpoint holds that this format cannot."""
    return left_out(checkpoint, head=True, vocabulary=allennlp.needs_vocabulary(checkpoint))


def _is_shared(arrays: Arrays, config: Config) -> bool:
    """Tell whether the head is the table of words, as with the option share_embedding_softmax."""
    return config.char_cnn is None and np.array_equal(arrays["softmax.weight"], arrays["embedding"])


# ---------------------------------------------------------------- which checkpoint


def _our_indexes(files: Files) -> list[str]:
    return [index for index in find_indexes(files) if _is_ours(files, index)]


def _is_ours(files: Files, index: str) -> bool:
    try:
        return any(name.startswith("lm/") for name in read_index(files, index).shapes)
    except FormatError:
        return True


def _choose_index(files: Files) -> str:
    """Return the outermost index; of several that which a file `checkpoint` names, or else that of the last step.

    Raises `FormatError` where they are in several folders.
    """
    found = outermost(_our_indexes(files))
    if not found:
        raise FormatError(f"{files.where}: expected a TensorFlow checkpoint of bilm-tf (.index, .data-*), found none")
    one_place([index.rpartition("/")[0] + "/" for index in found], where=files.where)
    latest = {name for note in files.find("checkpoint") for name in _named_in(files, note)}
    return max([index for index in found if index in latest] or found, key=_step)


def _named_in(files: Files, note: str) -> list[str]:
    """Return the index that a file `checkpoint` names. The path is another machine's, so only its last part counts."""
    if files.sizes[note] > _MAX_NOTE:
        return []
    named = re.search(r'^model_checkpoint_path: *"(.+)"', files.read(note).decode(errors="replace"), re.MULTILINE)
    return [note.removesuffix("checkpoint") + re.split(r"[/\\]", named[1])[-1] + ".index"] if named else []


def _step(index: str) -> tuple[int, str]:
    step = re.search(r"-(\d{1,18})\.index$", index)
    return (int(step[1]) if step else -1, index)


# ---------------------------------------------------------------- options


def _read_options(files: Files) -> Config:
    """Read options.json, which training left beside the checkpoint."""
    found = outermost(files.find("options.json") or files.find("*options*.json"))
    if len(found) != 1:
        names = str(found)[:200] if found else "none"
        raise FormatError(
            f"{files.where}: expected one options.json, found {names}; where a model clips and whether its layers are "
            "added is not in a TensorFlow checkpoint, so put the file that its training wrote beside it"
        )
    return allennlp.parse_options(files.read(found[0], limit=_MAX_NOTE), where=files.named(found[0]))


# ---------------------------------------------------------------- the table


def rules(config: Config, shapes: Mapping[str, Shape]) -> list[Rule]:
    """Return the table for a network of this configuration and the head that is there."""
    one_layer_names = _ONE_LAYER in shapes
    network = [
        replace(rule, theirs=tuple(f"lm/{_respelled(name)}" for name in rule.theirs))
        for rule in allennlp.rules(config, one_layer_names=one_layer_names)
    ]
    P = config.lstm.projection_dim
    head = [Rule("softmax.weight", (_HEAD_WEIGHT,), (None, P)), Rule("softmax.bias", (_HEAD_BIAS,), (None,))]
    return network + [rule for rule in head if rule.theirs[0] in shapes]


_SPELLINGS = {
    "/RNN/": "/rnn/",
    "MultiRNNCell/Cell": "multi_rnn_cell/cell_",
    "LSTMCell/W_P_0": "lstm_cell/projection/kernel",
    "LSTMCell/W_0": "lstm_cell/kernel",
    "LSTMCell/B": "lstm_cell/bias",
}


def _respelled(name: str) -> str:
    for theirs, ours in _SPELLINGS.items():
        name = name.replace(theirs, ours)
    return name


def _without_training(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    return {
        name: shape
        for name, shape in shapes.items()
        if name not in _COUNTERS and not (name.endswith(_SLOT) and name.removesuffix(_SLOT) in shapes)
    }
