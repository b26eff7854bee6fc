"""Strings of TensorFlow, split and packed within its graph: in a model on its backend, or in a `tf.data` pipeline.

Axes: B sentences, T places, W bytes of a word.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from elmokit.errors import MissingExtra

try:
    import tensorflow
except ImportError as error:
    raise MissingExtra(f"strings in a model need TensorFlow: {error}; run  pip install tensorflow") from error

tf: Any = tensorflow  # so that the module that needs it too says the same

Tensor: TypeAlias = Any  # of TensorFlow


def split_words(strings: Tensor) -> Tensor:
    """Return the words (B, T) of strings (B,) or (B, 1), parted at spaces, with "" behind those of shorter ones."""
    strings_B = tf.reshape(strings, [-1])
    # tf.strings.split leaves empty words between two spaces.
    return tf.compat.v1.string_split(strings_B, sep=" ", result_type="RaggedTensor").to_tensor("")


def pack_words(words: Tensor, width: int = 48) -> Tensor:
    """Return words (B, T) as their bytes (B, T, W) uint8: zeros behind shorter ones, longer ones cut."""
    return tf.io.decode_raw(words, tf.uint8, fixed_length=width)
