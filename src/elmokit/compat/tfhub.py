"""TensorFlow Hub: `Module` and `load` for ELMo modules, without TensorFlow.

`import tensorflow_hub as hub` becomes `from elmokit.compat import tfhub as hub`. Calls compute at once and give NumPy
arrays: there is no graph and no session. Signatures and outputs are those of google/elmo.

Axes: B sentences of a call, T places of the longest, P width of a direction, D = 2P width of a vector.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from elmokit import formats
from elmokit.catalog import locate
from elmokit.errors import MismatchError
from elmokit.model import Carry, Elmo
from elmokit.network import as_array
from elmokit.padded import blank_word

Array: TypeAlias = NDArray[np.float32]
Signature: TypeAlias = Literal["default", "tokens"]
Inputs: TypeAlias = Mapping[str, object] | Sequence[str] | NDArray[np.str_]

_ADDRESS = re.compile(r"https?://tfhub\.dev/google/elmo/(\d)/?")


class InputInfo(NamedTuple):
    """What a signature takes under a name: a type by its name in TensorFlow, and a shape, None for any length."""

    dtype: str
    shape: tuple[int | None, ...]
    is_sparse: bool = False

    def get_shape(self) -> tuple[int | None, ...]:
        """Return the shape."""
        return self.shape


_INPUTS: dict[str, dict[str, InputInfo]] = {
    "default": {"strings": InputInfo("string", (None,))},
    "tokens": {"tokens": InputInfo("string", (None, None)), "sequence_len": InputInfo("int32", (None,))},
}


class Module:
    """A module of ELMo: "https://tfhub.dev/google/elmo/3", a folder or .tar.gz of one, or any model with a trained mix.

    The LSTM's state flows from call to call, apart for each signature, as in the exported graph; `reset_states` empties
    it. `trainable`, `name` and `tags` are taken and have no effect: to train a mix use `Elmo` of `compat.allennlp`.
    Raises `MismatchError` for a model that came without a mix of its layers.
    """

    def __init__(
        self,
        spec: str | Path,
        trainable: bool = False,  # noqa: ARG002
        name: str = "module",  # noqa: ARG002
        tags: object = None,  # noqa: ARG002
    ) -> None:
        known = _ADDRESS.fullmatch(str(spec))
        self._elmo = Elmo(formats.read(locate(f"google-elmo-{known[1]}" if known else spec)))
        if len(self._elmo.mixes) != 1:
            raise MismatchError(f"{spec} holds {len(self._elmo.mixes)} trained mixes of layers, expected one")
        self.reset_states()

    def reset_states(self) -> None:
        """Let the next call of each signature start from zeros."""
        self._states: dict[str, Carry] = {"default": Carry(), "tokens": Carry()}

    def __call__(
        self, inputs: Inputs, _sentinel: None = None, signature: Signature | None = None, as_dict: bool = False
    ) -> Array | dict[str, Array]:
        """Embed one batch; return `default` (B, D), or with `as_dict` all outputs, float32.

        "default": strings (B,), parted at spaces; "tokens": a dict of `tokens` (B, T), padded with "", and
        `sequence_len` (B,). The outputs are `word_emb` (B, T, P), `lstm_outputs1`, `lstm_outputs2` and `elmo`, their
        trained mix, (B, T, D), and `default` (B, D), the mean over the words of the mix before its scaling.
        """
        outputs = self._outputs(inputs, signature or "default")
        return outputs if as_dict else outputs["default"]

    def get_signature_names(self) -> list[str]:
        """Return the names of the signatures."""
        return list(_INPUTS)

    def get_input_info_dict(self, signature: Signature | None = None) -> dict[str, InputInfo]:
        """Return name -> type and shape of what a signature takes."""
        return dict(_INPUTS[_known(signature or "default")])

    @property
    def signatures(self) -> dict[str, Callable[..., dict[str, Array]]]:
        """The two signatures as functions of their inputs, by name too, as a loaded SavedModel has them."""
        return {"default": self._default, "tokens": self._tokens}

    def _default(self, strings: Inputs) -> dict[str, Array]:
        return self._outputs(strings, "default")

    def _tokens(self, tokens: object, sequence_len: object) -> dict[str, Array]:
        return self._outputs({"tokens": tokens, "sequence_len": sequence_len}, "tokens")

    def _outputs(self, inputs: Inputs, signature: Signature) -> dict[str, Array]:
        sentences, T = _of_strings(inputs) if _known(signature) == "default" else _of_tokens(inputs)
        if not sentences:
            raise MismatchError("inputs: expected at least one sentence, found none")
        state = self._states[signature]
        stacks = list(self._elmo.embed(sentences, layers="all", state=state, batch_size=len(sentences)))
        return outputs_of(self._elmo, self._elmo.mixes[0], stacks, T)


@torch.inference_mode()
def outputs_of(elmo: Elmo, shares_L: NDArray[np.float32], stacks: Sequence[Array], T: int) -> dict[str, Array]:
    """Return the outputs of the module for sentences of these layers, (L, T, D) each, padded to T places.

    `shares_L`: the mix of the layers.
    """
    layers_LBTD = _padded(elmo, stacks, T)
    named = {f"lstm_outputs{k}": layer for k, layer in enumerate(layers_LBTD) if k}
    mixed_BTD = np.tensordot(shares_L, layers_LBTD, axes=1)
    means = [_mean_of_words(stack, shares_L / shares_L.sum()) for stack in stacks]
    word_emb = layers_LBTD[0, :, :, : elmo.dim // 2]
    return {"word_emb": word_emb, **named, "elmo": mixed_BTD, "default": np.stack(means)}


def _padded(elmo: Elmo, stacks: Sequence[Array], T: int) -> Array:
    """Put (L, T, D) arrays into one (L, B, T, D): beyond a sentence's end only layer 0 is not zero."""
    padded = np.zeros((elmo.n_layers, len(stacks), T, elmo.dim), np.float32)
    padded[0] = np.tile(as_array(blank_word(elmo.network)), 2)
    for b, stack in enumerate(stacks):
        padded[:, b, : stack.shape[1]] = stack
    return padded


def load(handle: str | Path) -> Module:
    """Open a module as `hub.load` of TensorFlow 2: use its `signatures`."""
    return Module(handle)


def _known(signature: Signature) -> Signature:
    if signature not in _INPUTS:
        raise MismatchError(f"signature: expected 'default' or 'tokens', found {signature!r}")
    return signature


def _of_strings(inputs: Inputs) -> tuple[list[list[str]], int]:
    strings = inputs["strings"] if isinstance(inputs, Mapping) else inputs
    sentences = [[word for word in _text(line).split(" ") if word] for line in np.asarray(strings, object).reshape(-1)]
    return sentences, max(map(len, sentences), default=0)


def _of_tokens(inputs: Inputs) -> tuple[list[list[str]], int]:
    if not isinstance(inputs, Mapping) or inputs.keys() != {"tokens", "sequence_len"}:
        raise MismatchError("signature 'tokens' expects a dict of 'tokens' and 'sequence_len'")
    tokens_BT, lengths_B = np.asarray(inputs["tokens"], object), np.asarray(inputs["sequence_len"])
    if tokens_BT.ndim != 2 or lengths_B.shape != tokens_BT.shape[:1] or lengths_B.dtype.kind not in "iu":
        found = f"{tokens_BT.shape} and {lengths_B.shape} {lengths_B.dtype}"
        raise MismatchError(f"expected tokens (sentences, places) and sequence_len (sentences,) int, found {found}")
    T = tokens_BT.shape[1]
    if ((lengths_B < 0) | (lengths_B > T)).any():
        raise MismatchError(f"sequence_len: expected 0 to {T}, the places of 'tokens', found {lengths_B.tolist()}")
    return [[_text(token) for token in row[:n]] for row, n in zip(tokens_BT, lengths_B.tolist(), strict=True)], T


def _text(value: object) -> str:
    return value.decode("utf-8", "ignore") if isinstance(value, bytes) else str(value)


def _mean_of_words(stack_LTD: Array, share_L: NDArray[np.float32]) -> Array:
    mixed_TD = np.tensordot(share_L, stack_LTD, axes=1)
    return mixed_TD.sum(0) / max(1, len(mixed_TD))
