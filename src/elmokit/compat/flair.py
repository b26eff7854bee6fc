"""flair's `ELMoEmbeddings`, which needs neither AllenNLP nor flair itself.

`from flair.embeddings import ELMoEmbeddings` becomes `from elmokit.compat.flair import ELMoEmbeddings`. The state flows
from call to call, and as there the constructor embeds the word "hello", so that no sentence starts from a fresh state.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from elmokit import formats
from elmokit.model import Carry, Elmo, load

_Mode: TypeAlias = Literal["all", "top", "average"]
# flair's names of published models where they are not ours.
_NAMES = {"large": "original-5.5b", "5.5B": "original-5.5b", "pt": "pt-wikipedia", "portuguese": "pt-wikipedia"}


class ELMoEmbeddings(nn.Module):
    """Vectors for the tokens of sentences: anything with `tokens`, each of which has a `text`.

    `embedding_mode`: "all" puts the layers one behind the other, "top" and "average" make one vector of them. Without
    the two files, `model` is one of flair's names, or anything that `elmokit.load` opens.
    """

    embedding_type = "word-level"
    static_embeddings = True

    def __init__(
        self,
        model: str = "original",
        options_file: str | Path | None = None,
        weight_file: str | Path | None = None,
        embedding_mode: _Mode = "all",
    ) -> None:
        super().__init__()
        if options_file is not None and weight_file is not None:
            self._elmo = Elmo(formats.read(options_file, weights=weight_file))
        else:
            self._elmo = load(_NAMES.get(model, model))
        self._mode: _Mode = embedding_mode
        self._carry = Carry()
        self.name = f"elmo-{model}-{embedding_mode}"
        self.embedding_length = self._vectors([["hello"]])[0].shape[1]

    def embed(self, data_points: Any) -> list[Any]:
        """Give every token of these sentences, or of this one, its vector; return the sentences as a list.

        A token that has a method `set_embedding(name, vector)` keeps it so, any other as its `embedding`, float32 (D,).
        Where all have one of this name already nothing is computed, as in flair.
        """
        sentences = list(data_points) if isinstance(data_points, list | tuple) else [data_points]
        tokens = [list(sentence.tokens) for sentence in sentences]
        if all(self._is_embedded(token) for sentence in tokens for token in sentence):
            return sentences
        for sentence, vectors in zip(tokens, self._vectors([[t.text for t in s] for s in tokens]), strict=True):
            for token, vector in zip(sentence, vectors, strict=True):
                self._give(token, vector)
        return sentences

    def get_names(self) -> list[str]:
        """Return the names under which tokens keep their vectors."""
        return [self.name]

    def get_named_embeddings_dict(self) -> dict[str, ELMoEmbeddings]:
        """Return this object by its name."""
        return {self.name: self}

    def save_embeddings(self, use_state_dict: bool = True) -> ELMoEmbeddings:  # noqa: ARG002
        """Return this object: a model of flair that is saved holds it whole, weights and all."""
        return self

    def _vectors(self, sentences: Sequence[Sequence[str]]) -> list[Tensor]:
        """Return (T, D) for each sentence of one batch, and carry the state on."""
        arrays = self._elmo.embed(sentences, layers=self._mode, state=self._carry, batch_size=len(sentences))
        tensors = [torch.from_numpy(array) for array in arrays]
        return [tensor.transpose(0, 1).flatten(1) if self._mode == "all" else tensor for tensor in tensors]

    def _is_embedded(self, token: Any) -> bool:
        return self.name in getattr(token, "_embeddings", ())

    def _give(self, token: Any, vector: Tensor) -> None:
        if hasattr(token, "set_embedding"):
            token.set_embedding(self.name, vector)
        else:
            token.embedding = vector
