"""`ElmoEmbedding` and `ElmoOutputs`: the inputs and outputs of TF-Hub's module as layers of Keras.

Axes: B sentences, T places of the longest, W bytes or ids that a word is given as, L layers, P width of a direction,
D = 2P width of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from types import NoneType
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from elmokit import formats
from elmokit.catalog import locate
from elmokit.checkpoint import Arrays, Checkpoint, Config, network_shapes, parse_config
from elmokit.errors import MismatchError, expect
from elmokit.keras.network import BiLM, Tensor, add_array
from elmokit.keras.spelling import Sentences, Utf8Words, packed, until_last, words_of

Signature: TypeAlias = Literal["default", "tokens"]
Shape: TypeAlias = tuple[int | None, ...]
Model: TypeAlias = Any  # a path or name, a Checkpoint, an elmokit.Elmo, whose module would bring torch, or None


@keras.saving.register_keras_serializable(package="elmokit")
class ElmoOutputs(keras.layers.Layer):
    """All outputs of ELMo: a dict of `word_emb` (B, T, P), `lstm_outputs1` to `lstm_outputsL` and `elmo` (B, T, D), and
    `default` (B, D).

    `elmo` is the trained mix of the layers, `default` its mean over the words, before its scaling; where no word is,
    `lstm_outputs` are zero and the others are not.

    `model`: what `elmokit.load` opens, a model, or a `Checkpoint`; without it the bundled English model. A mix that
    came with the model is where the mix starts from.

    Inputs: the sentences as `prepare` packs them, (B, T, W), in which a place of zeros is beyond the end; or, to say
    how many words count, a dict of `tokens`, such an array, and `sequence_len` int (B,) or (B, 1). On TensorFlow also
    strings: `signature` "default", strings (B,) or (B, 1), parted at spaces; "tokens", words (B, T) padded with "",
    alone or in the dict.

    `fine_tune`: whether the network learns with the mix; `layer.bilm.trainable` is the same thing later. With
    `trainable` false neither does. Every sentence starts from a state of zeros.
    """

    def __init__(
        self,
        model: Model = None,
        *,
        signature: Signature = "default",
        fine_tune: bool = False,
        trainable: bool = True,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.autocast = False  # what goes in is no quantity, to be rounded
        if signature not in ("default", "tokens"):
            raise MismatchError(f"signature: expected 'default' or 'tokens', found {signature!r}")
        source = _read(model)
        speller = source.speller()
        self.config = source.config
        self.signature = signature
        self.vocabulary = source.vocabulary if source.config.word_dim else None
        self.characters = source.characters
        self.words = words_of(speller)
        marks_2C = speller.spell([speller.marks.begin, speller.marks.end])
        self.bilm = BiLM(source.config, source.arrays, marks_2C=marks_2C, dtype=self.dtype_policy)
        self.mix = {name: add_array(self, f"mix.{name}", array) for name, array in _mix(source).items()}
        self.bilm.trainable = fine_tune
        if not trainable:
            self.trainable = False
        # XLA, which Keras asks TensorFlow for, knows no strings.
        self.supports_jit = keras.backend.backend() != "tensorflow"
        self.built = True

    def prepare(self, sentences: Sentences, *, places: int | None = None) -> NDArray[np.integer]:
        """Return sentences as an array (B, T, W) that every backend takes, uint8 or int32: see `spelling`.

        `sentences`: strings, parted at spaces, or lists of tokens. `places`: T, to which longer sentences are cut; by
        default the length of the longest.
        """
        return packed(self.words, sentences, places)

    def call(self, inputs: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs by name."""
        words_BTW, present_BT = self._words(inputs)
        word_emb, *layers = self.bilm(self.words.ids(words_BTW), present_BT)
        stack = [ops.concatenate([word_emb, word_emb], axis=-1), *layers]
        shares_L = ops.softmax(self.mix["weights"])
        mixed_BTD = sum(shares_L[k] * layer for k, layer in enumerate(stack))
        here_BT1 = ops.expand_dims(ops.cast(present_BT, mixed_BTD.dtype), -1)
        return {
            "word_emb": word_emb,
            **{f"lstm_outputs{k}": layer for k, layer in enumerate(layers, start=1)},
            "elmo": self.mix["gamma"] * mixed_BTD,
            "default": ops.sum(mixed_BTD * here_BT1, axis=1) / ops.maximum(ops.sum(here_BT1, axis=1), 1),
        }

    def compute_mask(self, inputs: Tensor | Mapping[str, Tensor], previous_mask: Any = None) -> Any:  # noqa: ARG002
        """Return for each output the mask (B, T), true where a word is; None for `default`."""
        if isinstance(inputs["tokens"] if isinstance(inputs, Mapping) else inputs, keras.KerasTensor):
            return None  # a graph is being drawn up; when it runs, masks come with the tensors
        present_BT = self._words(inputs)[1]
        return {name: None if name == "default" else present_BT for name in self.output_names}

    def compute_output_shape(self, inputs_shape: Shape | Mapping[str, Shape]) -> Any:
        """Return the shape of each output."""
        B, *further = inputs_shape["tokens"] if isinstance(inputs_shape, Mapping) else inputs_shape
        splits = len(further) < 2 and self.signature == "default"
        T, D = None if splits else further[0], self.config.dim
        return {
            name: (B, D) if name == "default" else (B, T, D // 2 if name == "word_emb" else D)
            for name in self.output_names
        }

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs."""
        layers = range(1, self.config.n_layers)
        return ["word_emb", *(f"lstm_outputs{k}" for k in layers), "elmo", "default"]

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` makes an equal layer of, but for the weights."""
        return {
            **super().get_config(),
            "options": self.config.model_dump(mode="json", exclude_none=True),
            "vocabulary": self.vocabulary and list(self.vocabulary),
            "characters": self.characters and list(self.characters),
            "signature": self.signature,
            "fine_tune": self.bilm.trainable,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ElmoOutputs:
        """Make a layer of its configuration, with weights of zeros."""
        config = dict(config)
        options = parse_config(config.pop("options"), where="the configuration of the layer")
        words, characters = (tuple(symbols) if symbols else None for symbols in map(config.pop, _SYMBOLS))
        return super().from_config({**config, "model": _blank(options, words, characters)})

    def _words(self, inputs: Tensor | Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return words as arrays (B, T, W), and which places hold one (B, T) bool."""
        if not isinstance(inputs, Mapping):
            words_BTW = self._packed(inputs)
            return words_BTW, until_last(ops.any(ops.not_equal(words_BTW, 0), axis=-1))
        if set(inputs) != {"tokens", "sequence_len"}:
            raise MismatchError(f"expected a dict of tokens and sequence_len, found {', '.join(inputs)}")
        words_BTW = self._packed(inputs["tokens"])
        lengths_B1 = ops.reshape(ops.cast(inputs["sequence_len"], "int32"), (-1, 1))
        if None not in (found := (words_BTW.shape[0], lengths_B1.shape[0])) and found[0] != found[1]:
            raise MismatchError(f"sequence_len: expected a length for each of {found[0]} sentences, found {found[1]}")
        return words_BTW, ops.expand_dims(ops.arange(ops.shape(words_BTW)[1], dtype="int32"), 0) < lengths_B1

    def _packed(self, tokens: Tensor) -> Tensor:
        dtype, rank = keras.backend.standardize_dtype(tokens.dtype), len(tokens.shape)
        if dtype == "string" and isinstance(self.words, Utf8Words):
            return _from_strings(tokens, self.signature, self.words.width)
        # Keras builds models that name no type with numbers; bytes are whole in all of them, other ids in some.
        whole = dtype.startswith("int") or dtype == "float32" or (dtype in _HALF and self.words.dtype == "uint8")
        if rank == 3 and tokens.shape[2] == self.words.width and whole:
            return ops.cast(tokens, self.words.dtype)
        if dtype != self.words.dtype or rank != 3:
            raise MismatchError(
                f"expected words as `prepare` packs them, {self.words.dtype} (sentences, places, {self.words.width}), "
                f"found {dtype} {tuple(tokens.shape)}; call `prepare` on the sentences first, and begin a model with "
                f"keras.Input((None, {self.words.width}), dtype={self.words.dtype!r})"
            )
        return tokens


@keras.saving.register_keras_serializable(package="elmokit")
class ElmoEmbedding(ElmoOutputs):
    """One output of ELMo, by default `default` (B, D), as TF-Hub's module gave it; "elmo" has vectors of words.

    Inputs, outputs and the other arguments are those of `ElmoOutputs`.
    """

    def __init__(
        self,
        model: Model = None,
        *,
        output: str = "default",
        signature: Signature = "default",
        fine_tune: bool = False,
        trainable: bool = True,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(model, signature=signature, fine_tune=fine_tune, trainable=trainable, name=name, dtype=dtype)
        if output not in self.output_names:
            raise MismatchError(f"output: expected one of {', '.join(self.output_names)}, found {output!r}")
        self.output_name = output
        for part in _NOT_READ_FOR.get(output, ("weights", "gamma")):
            self.mix[part].trainable = False

    def call(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Return the output."""
        return super().call(inputs)[self.output_name]

    def compute_mask(self, inputs: Tensor | Mapping[str, Tensor], previous_mask: Any = None) -> Any:
        """Return the mask (B, T), true where a word is; None for `default`."""
        masks = super().compute_mask(inputs, previous_mask)
        return masks and masks[self.output_name]

    def compute_output_shape(self, inputs_shape: Shape | Mapping[str, Shape]) -> Shape:
        """Return the shape of the output."""
        return super().compute_output_shape(inputs_shape)[self.output_name]

    def get_config(self) -> dict[str, Any]:
        """See `ElmoOutputs.get_config`."""
        return {**super().get_config(), "output": self.output_name}


_SYMBOLS = ("vocabulary", "characters")
_HALF = ("float16", "bfloat16")
# Parts of the mix that the other outputs do not depend on, so that no gradient reaches them.
_NOT_READ_FOR: dict[str, tuple[str, ...]] = {"elmo": (), "default": ("gamma",)}


def _read(model: Model) -> Checkpoint:
    if isinstance(model, Checkpoint):
        return model
    if hasattr(model, "checkpoint"):
        return model.checkpoint()
    expect((str, PathLike, NoneType), model, "model", "a path, a name, or a model")
    return formats.read(formats.BUNDLED if model is None else locate(model))


def _mix(source: Checkpoint) -> Arrays:
    """Return weights before their softmax (L,) and scaling () of the one trained mix, or of the mean of the layers."""
    if len(source.arrays.get("mix.gamma", ())) == 1:
        return {"weights": source.arrays["mix.weights"][0], "gamma": source.arrays["mix.gamma"][0].reshape(())}
    return {"weights": np.zeros(source.config.n_layers, np.float32), "gamma": np.ones((), np.float32)}


def _blank(config: Config, words: tuple[str, ...] | None, characters: tuple[str, ...] | None) -> Checkpoint:
    """Return a model of zeros."""
    shapes = network_shapes(config) | ({"embedding": (len(words), config.word_dim)} if words else {})
    arrays: Arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return Checkpoint(config, arrays, words, characters=characters)


def _from_strings(tokens: Tensor, signature: Signature, width: int) -> Tensor:
    """Return strings of TensorFlow as packed words."""
    from elmokit.keras.strings import pack_words, split_words  # only here is TensorFlow sure to be there

    shape = tuple(tokens.shape)
    if signature == "tokens":
        if len(shape) != 2:
            raise MismatchError(f"signature 'tokens' expects words (sentences, places), found the shape {shape}")
        return pack_words(tokens, width)
    if len(shape) != 1 and shape[1:] != (1,):
        raise MismatchError(f"signature 'default' expects strings (sentences,), found the shape {shape}")
    return pack_words(split_words(tokens), width)
