"""A layer as a SavedModel of TensorFlow, with the endpoints of TF-Hub's module."""

from __future__ import annotations

from pathlib import Path

import keras

from elmokit.errors import MismatchError
from elmokit.keras.layers import ElmoOutputs
from elmokit.keras.network import Tensor
from elmokit.keras.spelling import Utf8Words
from elmokit.keras.strings import pack_words, split_words, tf


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
