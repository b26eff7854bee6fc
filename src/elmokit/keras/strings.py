"""Strings of TensorFlow, split and packed within its graph: in a model on its backend, or in a `tf.data` pipeline.

Axes: B sentences, T places, W bytes of a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from elmokit.errors import MismatchError
from elmokit.keras.layers import ElmoOutputs
from elmokit.keras.spelling import Utf8Words

Tensor: TypeAlias = Any  # of TensorFlow


def split_words(strings: Tensor) -> Tensor:
    """Return the words (B, T) of strings (B,) or (B, 1), parted at spaces, with "" behind those of shorter ones."""
    strings_B = tf.reshape(strings, [-1])
    # tf.strings.split leaves empty words between two spaces.
    return tf.compat.v1.string_split(strings_B, sep=" ", result_type="RaggedTensor").to_tensor("")


def pack_words(words: Tensor, width: int = 48) -> Tensor:
    """Return words (B, T) as their bytes (B, T, W) uint8: zeros behind shorter ones, longer ones cut."""
    return tf.io.decode_raw(words, tf.uint8, fixed_length=width)


def export(layer: ElmoOutputs, folder: str | Path) -> None:
    """Write a layer as a SavedModel with the endpoints of TF-Hub's module; it runs without elmokit and Keras.

    "default": `strings` (B,); "tokens": `tokens` (B, T) and `sequence_len` (B,) int32. Each gives all outputs. Raises
    `MismatchError` for a layer that takes no strings, or where Keras does not run on TensorFlow.
    """
    if keras.backend.backend() != "tensorflow" or not isinstance(layer.words, Utf8Words):
        raise MismatchError("a SavedModel of strings needs Keras on TensorFlow and a model that spells in UTF-8 bytes")
    width = layer.words.width

    def default(strings: Tensor) -> dict[str, Tensor]:
        return layer(pack_words(split_words(strings), width))

    def tokens(tokens: Tensor, sequence_len: Tensor) -> dict[str, Tensor]:
        return layer({"tokens": pack_words(tokens, width), "sequence_len": sequence_len})

    archive = keras.export.ExportArchive()
    archive.track(layer)
    archive.add_endpoint("default", default, [tf.TensorSpec([None], tf.string, name="strings")])
    lengths = tf.TensorSpec([None], tf.int32, name="sequence_len")
    archive.add_endpoint("tokens", tokens, [tf.TensorSpec([None, None], tf.string, name="tokens"), lengths])
    archive.write_out(str(folder), verbose=False)
