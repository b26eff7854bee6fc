"""simple_elmo: `ElmoModel`, without TensorFlow.

`from simple_elmo import ElmoModel` becomes `from elmokit.compat.simple_elmo import ElmoModel`. Every call starts from a
fresh state that flows from batch to batch, and by default reads its first batch twice, as there.

Axes: B sentences of a call, L layers, T places of its longest sentence, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from elmokit import formats
from elmokit.checkpoint import head_words
from elmokit.errors import MismatchError
from elmokit.lm import LanguageModel
from elmokit.model import Carry, Elmo
from elmokit.padded import blank_word

Array: TypeAlias = NDArray[np.float64]
Layers: TypeAlias = Literal["average", "top", "all"]


class ElmoModel:
    """A model to be loaded once; `vector_size` is D and `n_layers` L, once it is."""

    def __init__(self) -> None:
        self._elmo: Elmo | None = None
        self.batch_size = 32
        self.vector_size: int | None = None
        self.n_layers: int | None = None

    def load(
        self,
        directory: str | Path,
        max_batch_size: int = 32,
        limit: int = 100,  # noqa: ARG002 - words to spell beforehand: here each is spelled when it is met
        full: bool = False,
    ) -> str:
        """Read a model folder or archive of any format; `full` asks for a model with its softmax head.

        Returns the sentence that simple_elmo returns.
        """
        source = formats.read(directory)
        if full and not head_words(source.arrays):
            expected = "which full=True asks for; name a TensorFlow checkpoint"
            raise MismatchError(f"{directory} has no softmax head, {expected}")
        self._elmo = Elmo(source)
        self.batch_size = max_batch_size
        self.vector_size, self.n_layers = self._elmo.dim, self._elmo.n_layers
        return "The model is now loaded."

    def warmup(self, sess: object, texts: Sequence[Sequence[str]]) -> None:  # noqa: ARG002
        """Do nothing: each call starts from a fresh state, which it warms by itself; there is no session to keep it."""
        self._loaded()

    def get_elmo_vectors(
        self,
        texts: Sequence[Sequence[str]],
        warmup: bool = True,
        layers: Layers = "average",
        session: object = None,  # noqa: ARG002 - there are no sessions
    ) -> Array:
        """Return the vectors of tokenised sentences, (B, T, D) float64, or (B, L, T, D) for `layers="all"`.

        Beyond the end of a sentence, up to the longest of its batch, layer 0 is what the network makes of no
        characters; all else there is zero. `warmup`: read the first batch once beforehand.
        """
        return self._vectors(texts, warmup=warmup, layers=layers)[0]

    def get_elmo_vector_average(
        self,
        texts: Sequence[Sequence[str]],
        warmup: bool = True,
        layers: Layers = "average",
        session: object = None,  # noqa: ARG002 - there are no sessions
    ) -> Array:
        """Return for each sentence the sum of its words' vectors at length 1, (B, D), or (B, L, D) for "all" layers.

        With "all" the layers of a sentence have length 1 together; a sentence of no words gives zeros.
        """
        vectors, within_BT = self._vectors(texts, warmup=warmup, layers=layers)
        sums = np.einsum("b...td,bt->b...d", vectors, within_BT)
        lengths = np.linalg.norm(sums.reshape(len(sums), -1), axis=1)
        return sums / np.where(lengths > 0, lengths, 1.0).reshape(-1, *[1] * (sums.ndim - 1))

    def get_elmo_substitutes(
        self, data: Sequence[str | Sequence[str]], topn: int = 3, nodelimiters: bool = True
    ) -> list[list[dict[str, Any]]]:
        """Return for each word of each sentence what both directions expect in its place; needs a softmax head.

        Each word is a dictionary of "word" (`<UNK>` where the vocabulary lacks it), "forward" and "backward"; these
        hold `topn` "candidates" (rows of the vocabulary), "candidate_words" and "logp", likeliest first, without the
        sentence marks if `nodelimiters`. Unlike there, "logp" are log-probabilities (natural logarithms, to 4 places)
        given the whole context, every sentence starts afresh, and none is left out.
        """
        model = LanguageModel(self._loaded())
        begin, end, unknown = model.marks
        left_out = torch.tensor([begin, end] if nodelimiters else [], dtype=torch.int64)
        found = []
        for sentence in data:
            words = sentence.split() if isinstance(sentence, str) else list(sentence)
            both = [self._candidates(model, logs_TV, left_out, topn) for logs_TV in model.distributions(words)]
            known = [model.vocabulary[model.rows.get(word, unknown)] for word in words]
            found.append(
                [
                    {"word": word, "forward": forward, "backward": backward}
                    for word, forward, backward in zip(known, *both, strict=True)
                ]
            )
        return found

    @staticmethod
    def _candidates(
        model: LanguageModel, logs_TV: torch.Tensor, left_out: torch.Tensor, n: int
    ) -> list[dict[str, Any]]:
        logs_TV = logs_TV.index_fill(1, left_out, -torch.inf)
        best = torch.topk(logs_TV, min(n, logs_TV.shape[1] - len(left_out)))
        return [
            {
                "candidates": rows,
                "candidate_words": [model.vocabulary[row] for row in rows],
                "logp": [round(value, 4) for value in values],
            }
            for rows, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def _vectors(
        self, texts: Sequence[Sequence[str]], *, warmup: bool, layers: Layers
    ) -> tuple[Array, NDArray[np.bool_]]:
        """Return the padded vectors, and which of their places (B, T) hold a word."""
        elmo, carry = self._loaded(), Carry()
        embed = partial(elmo.embed, layers=layers, state=carry, batch_size=self.batch_size)
        arrays = embed(texts)  # lazily, so that what comes next runs before it
        for _ in embed(texts[: self.batch_size]) if warmup else ():
            pass
        lengths = [len(text) for text in texts]
        blank = _blank(elmo, layers)
        vectors = np.zeros((len(texts), *blank.shape[:-2], max(lengths, default=0), elmo.dim))
        for number, array in enumerate(arrays):
            start = number - number % self.batch_size
            widest = max(lengths[start : start + self.batch_size])
            vectors[number, ..., : lengths[number], :] = array
            vectors[number, ..., lengths[number] : widest, :] = blank
        return vectors, np.arange(vectors.shape[-2]) < np.array(lengths, np.int64).reshape(-1, 1)

    def _loaded(self) -> Elmo:
        if self._elmo is None:
            raise MismatchError("no model is loaded; call load(path) first")
        return self._elmo


@torch.inference_mode()
def _blank(elmo: Elmo, layers: Layers) -> NDArray[np.float32]:
    """Return what stands at a place without a word, (1, D) or (L, 1, D): layer 0 alone is not zero there."""
    blank_P = blank_word(elmo.network)
    blank_L1D = torch.zeros(elmo.n_layers, 1, elmo.dim)
    blank_L1D[0, 0] = torch.cat([blank_P, blank_P])
    return {"all": blank_L1D, "top": blank_L1D[-1], "average": blank_L1D.mean(0)}[layers].numpy()
