"""The TensorFlow checkpoint that bilm-tf trains: options.json, model.ckpt-N.* and a vocabulary (formats.md 3.6).

Alone among the original tools' formats it keeps the softmax head with the network. Names are those of the HDF5 file
that bilm-tf's `dump_weights` makes of it, spelled otherwise; layouts are the same.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from elmokit.checkpoint import Arrays, Checkpoint, Config, Shape, check_arrays, check_vocabulary, parse_vocabulary
from elmokit.errors import FormatError
from elmokit.formats import allennlp
from elmokit.formats.files import Files, outermost
from elmokit.formats.rules import Rule, check, to_ours
from elmokit.formats.tensor_bundle import find_indexes, open_bundle, read_index
from elmokit.text import BEGIN_SENTENCE, END_SENTENCE, UNKNOWN

# What training keeps beside the network: counters, and the slots of Adagrad under the name of each variable.
_COUNTERS, _SLOT = frozenset(("global_step", "train_perplexity")), "/Adagrad"
_HEAD_WEIGHT, _HEAD_BIAS = "lm/softmax/W", "lm/softmax/b"

_MAX_NOTE = 1 << 20
# Bytes of a vocabulary: on average for each word, and in all.
_MAX_WORD, _MAX_VOCABULARY = 256, 1 << 27


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
    words = _find_vocabulary(files, arrays)
    check_vocabulary(words, arrays, where=f"{where}: the vocabulary")
    return Checkpoint(config, arrays, words, source="bilm-tf, TensorFlow checkpoint")


# ---------------------------------------------------------------- which checkpoint


def _our_indexes(files: Files) -> list[str]:
    return [index for index in find_indexes(files) if _is_ours(files, index)]


def _is_ours(files: Files, index: str) -> bool:
    try:
        return any(name.startswith("lm/") for name in read_index(files, index).shapes)
    except FormatError:
        return True


def _choose_index(files: Files) -> str:
    """Return the only index, or else the one that a file `checkpoint` names, or else that of the last step."""
    found = _our_indexes(files)
    if not found:
        raise FormatError(f"{files.where}: expected a TensorFlow checkpoint of bilm-tf (.index, .data-*), found none")
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
    """Read options.json, which training left with its count of 261 characters; embedding counts the padding too."""
    found = outermost(files.find("options.json") or files.find("*options*.json"))
    if len(found) != 1:
        names = str(found)[:200] if found else "none"
        raise FormatError(
            f"{files.where}: expected one options.json, found {names}; where a model clips and whether its layers are "
            "added is not in a TensorFlow checkpoint, so put the file that its training wrote beside it"
        )
    config = allennlp.parse_options(files.read(found[0], limit=_MAX_NOTE), where=files.named(found[0]))
    cnn = config.char_cnn and config.char_cnn.model_copy(update={"n_characters": 262})
    return config.model_copy(update={"char_cnn": cnn})


# ---------------------------------------------------------------- vocabulary


def _find_vocabulary(files: Files, arrays: Arrays) -> tuple[str, ...] | None:
    """Return the words of the file vocab*.txt, or else of any text file, that lists one for each row.

    Raises `FormatError` where files are named so and none fits, or several that differ do.
    """
    rows = next((len(arrays[name]) for name in ("softmax.bias", "embedding") if name in arrays), 0)
    if not rows:
        return None
    named = files.find("*vocab*.txt", "*vocab*.txt.gz")
    fitting = {words: name for name in named if (words := _words(files, name, rows))}
    if not named:
        # Any text may have as many lines, but not these words among them.
        marks = {BEGIN_SENTENCE, END_SENTENCE, UNKNOWN}
        others = {words: name for name in files.find("*.txt", "*.txt.gz") if (words := _words(files, name, rows))}
        fitting = {words: name for words, name in others.items() if marks <= set(words)}
    if len(fitting) > 1 or (named and not fitting):
        names = list(fitting.values()) or named
        raise FormatError(f"{files.where}: expected one vocabulary of {rows:,} words, a row each; found {names}"[:500])
    return next(iter(fitting), None)


def _words(files: Files, name: str, rows: int) -> tuple[str, ...] | None:
    """Return the words of a file, packed or not, or None where it does not list as many as there are rows."""
    limit = min(_MAX_WORD * rows, _MAX_VOCABULARY)
    if files.sizes[name] > limit:
        return None
    content = files.read(name)
    with suppress(FormatError, zlib.error):
        if name.endswith(".gz"):
            content = zlib.decompressobj(wbits=31).decompress(content, limit)
        if content.count(b"\n") in (rows, rows - 1):
            words = parse_vocabulary(content, where=name)
            return words if len(words) == rows else None
    return None


# ---------------------------------------------------------------- the table


def rules(config: Config, shapes: Mapping[str, Shape]) -> list[Rule]:
    """Return the table for a network of this configuration and the head that is there."""
    one_layer_names = "lm/RNN_0/rnn/lstm_cell/kernel" in shapes
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
