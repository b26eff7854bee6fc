"""The network of ELMo in `keras.ops`: what `elmokit.network` computes, on whichever backend Keras runs.

Batches are padded here, and layers stay in the order of the words. The backward direction reads a batch from its last
place on and keeps a state of zeros until a sentence begins, which is the same as starting at the sentence's own end.

Axes: N words, C symbols of a word, E character width, F filters in all, B sentences, T places, Z directions, P
projection, D cells, H width of the state's part h.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from elmokit.checkpoint import Arrays, CharCNN, Config

Tensor: TypeAlias = Any  # of the backend


class BiLM(keras.layers.Layer):
    """The bidirectional language model without its head.

    `weight` holds a checkpoint's arrays under their names; marks_2C: ids of what stands before and behind a sentence.
    """

    def __init__(self, config: Config, arrays: Arrays, *, marks_2C: NDArray[np.integer], dtype: Any = None) -> None:
        super().__init__(name="bilm", dtype=dtype)
        self.config = config
        self.marks_2C = marks_2C.astype(np.int32)
        kept = sorted(name for name in arrays if not name.startswith(("softmax.", "warm.", "mix.")))
        self.weight = {name: add_array(self, name, arrays[name]) for name in kept}
        self.built = True

    def call(self, words_BTC: Tensor, present_BT: Tensor) -> list[Tensor]:
        """Return the layers 0..L: word vectors without context (B, T, P), then (B, T, 2P) each.

        words_BTC: ids int32; present_BT: bool, for each sentence its words first. Where no word is, the layers above
        the first are zero.
        """
        words_BTP, mark_2P = self._encoded(words_BTC, present_BT)
        x_BTP, inside_BT = _between_marks(words_BTP, mark_2P, present_BT)
        inside_TB1 = ops.expand_dims(ops.cast(ops.transpose(inside_BT), x_BTP.dtype), -1)
        streams_TZBP, inside_TZB1 = _two_streams(ops.transpose(x_BTP, (1, 0, 2))), _two_streams(inside_TB1)
        layers = [_joined(y_TZBP) for y_TZBP in self._run(streams_TZBP, inside_TZB1)]
        here_BT1 = ops.expand_dims(ops.cast(present_BT, x_BTP.dtype), -1)
        return [words_BTP, *(ops.transpose(y_TBD, (1, 0, 2))[:, 1:-1] * here_BT1 for y_TBD in layers)]

    # ---------------------------------------------------------------- words

    def _encoded(self, words_BTC: Tensor, present_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of the words (B, T, P) and of the two marks (2, P)."""
        B, T, C = ops.shape(words_BTC)
        ids_NC = ops.concatenate([ops.reshape(words_BTC, (B * T, C)), ops.convert_to_tensor(self.marks_2C)])
        present_N = ops.concatenate([ops.reshape(present_BT, (B * T,)), ops.ones((2,), "bool")])
        vectors_NP = self._encode(ids_NC, ops.expand_dims(present_N, -1))
        return ops.reshape(vectors_NP[:-2], (B, T, vectors_NP.shape[-1])), vectors_NP[-2:]

    def _encode(self, ids_NC: Tensor, present_N1: Tensor) -> Tensor:
        """Return (N, P). Where no word is, characters count as vectors of zeros, as in bilm-tf; with a table all is 0.

        A word's row of the table, where there is one, stands before what its characters give.
        """
        config, parts = self.config, []
        if config.word_dim:
            parts.append(ops.take(self.weight["embedding"], ids_NC[:, 0], axis=0))
            ids_NC = ids_NC[:, 1:]
        if config.char_cnn:
            parts.append(self._from_characters(config.char_cnn, ids_NC, present_N1))
        x = ops.concatenate(parts, axis=-1)
        x = self._affine(x, "projection") if config.projects_words else x
        return x * ops.cast(present_N1, x.dtype) if config.word_dim else x

    def _from_characters(self, cnn: CharCNN, ids_NC: Tensor, present_N1: Tensor) -> Tensor:
        x_NCE = ops.take(self.weight["char_embed"], ids_NC, axis=0)
        x_NCE = x_NCE * ops.cast(ops.expand_dims(present_N1, -1), x_NCE.dtype)
        x = ops.concatenate([self._window_maxima(x_NCE, f"cnn.{i}") for i in range(len(cnn.filters))], axis=-1)
        x = ops.relu(x) if cnn.activation == "relu" else ops.tanh(x)
        for k in range(cnn.n_highway):
            gate = ops.sigmoid(self._affine(x, f"highway.{k}.carry"))
            x = gate * ops.relu(self._affine(x, f"highway.{k}.transform")) + (1 - gate) * x
        return x

    def _window_maxima(self, x_NCE: Tensor, name: str) -> Tensor:
        windows = ops.conv(x_NCE, self.weight[f"{name}.weight"], padding="valid", data_format="channels_last")
        return ops.max(windows, axis=1) + self.weight[f"{name}.bias"]

    def _affine(self, x: Tensor, name: str) -> Tensor:
        return ops.matmul(x, self.weight[f"{name}.weight"]) + self.weight[f"{name}.bias"]

    # ---------------------------------------------------------------- layers

    def _run(self, x_TZBP: Tensor, inside_TZB1: Tensor) -> list[Tensor]:
        """Return what the layers give, (T, Z, B, P) each, both directions in their own reading order."""
        lstm, layers = self.config.lstm, []
        for k in range(lstm.n_layers):
            if k and lstm.joined:
                x_TZBP = _two_streams(_joined(x_TZBP))
            y_TZBP = self._recurrence(x_TZBP, inside_TZB1, k)
            x_TZBP = y_TZBP + x_TZBP if k and lstm.use_skip_connections else y_TZBP
            layers.append(x_TZBP)
        return [self._affine(layers[-1], "output")] if lstm.joined else layers

    def _recurrence(self, x_TZBI: Tensor, inside_TZB1: Tensor, layer: int) -> Tensor:
        """Run one layer: an LSTM with projection and clips, whose state is zero outside of a sentence."""
        lstm, w, project = self.config.lstm, self.weight, self.config.projects_cells
        kernel_ZKG = ops.convert_to_tensor(w[f"lstm.{layer}.kernel"])
        bias_Z1G = ops.expand_dims(w[f"lstm.{layer}.bias"], 1)
        projection_ZDH = ops.convert_to_tensor(w[f"lstm.{layer}.projection"]) if project else None

        def step(state: tuple[Tensor, Tensor], at_ZBK: Tensor) -> Any:
            (h_ZBH, c_ZBD), x_ZBI, inside_ZB1 = state, at_ZBK[..., :-1], at_ZBK[..., -1:]
            gates_ZBG = ops.matmul(ops.concatenate([x_ZBI, h_ZBH], axis=-1), kernel_ZKG) + bias_Z1G
            i, j, f, o = ops.split(gates_ZBG, 4, axis=-1)
            c = _clip(ops.sigmoid(f + 1) * c_ZBD + ops.sigmoid(i) * ops.tanh(j), lstm.cell_clip)
            h = ops.sigmoid(o) * ops.tanh(c)
            h = h if projection_ZDH is None else _clip(ops.matmul(h, projection_ZDH), lstm.proj_clip)
            state = h * inside_ZB1, c * inside_ZB1
            return state, state  # Keras on TensorFlow gives out only what is shaped as the state

        rows, dtype = ops.shape(x_TZBI)[2], x_TZBI.dtype
        start = ops.zeros((2, rows, lstm.state_dim), dtype), ops.zeros((2, rows, lstm.dim), dtype)
        # One array to scan over: with several, Keras on TensorFlow fails where the length of a batch is not known yet.
        return ops.scan(step, start, ops.concatenate([x_TZBI, inside_TZB1], axis=-1))[1][0]


def add_array(layer: keras.layers.Layer, name: str, array: NDArray[np.floating]) -> Any:
    """Return a new weight of the layer, with the values of the array."""

    def values(shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        return ops.convert_to_tensor(np.asarray(array, np.float32).reshape(shape), dtype)

    return layer.add_weight(shape=array.shape, initializer=values, name=name.replace(".", "_"))


def _between_marks(words_BTP: Tensor, marks_2P: Tensor, present_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Return sentences with the marks before and behind them, (B, T + 2, P), and which places are in one."""
    B, T, P = ops.shape(words_BTP)
    begin_B1P, end_B1P = (ops.broadcast_to(ops.reshape(marks_2P[i], (1, 1, P)), (B, 1, P)) for i in (0, 1))
    x_BTP = ops.concatenate([begin_B1P, words_BTP, end_B1P], axis=1)
    last_B1 = ops.sum(ops.cast(present_BT, "int32"), axis=1, keepdims=True) + 1
    places_1T = ops.expand_dims(ops.arange(T + 2, dtype="int32"), 0)
    is_end_BT1 = ops.expand_dims(ops.equal(places_1T, last_B1), -1)
    return ops.where(is_end_BT1, end_B1P, x_BTP), ops.less_equal(places_1T, last_B1)


def _two_streams(x_T: Tensor) -> Tensor:
    """Put what is read from the first place on and what is read from the last one beside each other: (T, Z, ...)."""
    return ops.stack([x_T, ops.flip(x_T, axis=0)], axis=1)


def _joined(y_TZBP: Tensor) -> Tensor:
    """Return the forward and the backward half of every place, (T, B, 2P)."""
    return ops.concatenate([y_TZBP[:, 0], ops.flip(y_TZBP[:, 1], axis=0)], axis=-1)


def _clip(x: Tensor, limit: float | None) -> Tensor:
    return x if limit is None else ops.clip(x, -limit, limit)
