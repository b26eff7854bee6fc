"""`elmoformanylangs` of HIT-SCIR: `Embedder`, with the LSTM state it keeps from batch to batch and call to call.

The package puts the batches of a call in a random order, so that its vectors are its own again only where a call is one
batch. Here the batches come in the order in which the package makes them, longest sentences first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from elmokit import formats
from elmokit.config import Config
from elmokit.model import Carry, Elmo
from elmokit.text import PAD, Batch, make_batch

Vectors = NDArray[np.float32]


class Embedder:
    """A model folder of ELMoForManyLangs, or any model that elmokit reads, and the state after all text so far.

    `config`: how the package describes the network. `model`: the `Elmo` behind it. `word_lexicon`, `char_lexicon`: the
    rows of words and characters in its tables, None where it has no such table.
    """

    use_cuda = False

    def __init__(self, model_dir: str | Path, batch_size: int = 64) -> None:
        self.model_dir = model_dir
        self.batch_size = batch_size
        self.model, self.config = self.get_model()
        self.word_lexicon = _rows(self.model.vocabulary if self.model.config.word_dim else None)
        self.char_lexicon = _rows(self.model.characters)
        self._carry = Carry()

    def get_model(self) -> tuple[Elmo, dict[str, Any]]:
        """Open `model_dir`; return the model and the package's description of its network."""
        model = Elmo(formats.read(self.model_dir))
        return model, _described(model.config)

    def sents2elmo(self, sents: Iterable[Iterable[str]], output_layer: int = -1) -> list[Vectors]:
        """Return one float32 array a sentence, in order.

        `output_layer`: -1 the mean of all layers (T, D), -2 all layers (L, T, D), 0 and up one of them (T, D). Where
        the encoder is of the kind `lstm` -2 gives (T, D), -1 the mean over the words (D,), and n the n-th word (D,).
        Raises `IndexError` for what is not there. An empty sentence gives no words; the package fails for it.
        """
        sentences = [list(sentence) for sentence in sents]
        order = sorted(range(len(sentences)), key=lambda i: -len(sentences[i]))
        embed = self._padded if self.model.config.lstm.joined else self._carried
        results = dict(zip(order, embed([sentences[i] for i in order]), strict=True))
        return [_chosen(results[i], output_layer) for i in range(len(sentences))]

    def _carried(self, sentences: Sequence[list[str]]) -> Iterable[Vectors]:
        return self.model.embed(sentences, layers="all", state=self._carry, batch_size=self.batch_size)

    @torch.inference_mode()
    def _padded(self, sentences: Sequence[list[str]]) -> Iterable[Vectors]:
        """Embed as the encoder of the kind `lstm` does, which reads the padding behind shorter sentences too."""
        for start in range(0, len(sentences), self.batch_size):
            part = sentences[start : start + self.batch_size]
            layers, _ = self.model.network(_with_padding(make_batch(part, self.model.speller), self.model))
            tops = layers[-1].view(len(part), -1, self.model.dim).numpy()
            yield from (top[1 : len(sentence) + 1].copy() for top, sentence in zip(tops, part, strict=True))


def _rows(symbols: Sequence[str] | None) -> dict[str, int] | None:
    return None if symbols is None else {symbol: row for row, symbol in enumerate(symbols)}


def _chosen(vectors: Vectors, output_layer: int) -> Vectors:
    if output_layer == -2:
        return vectors
    if output_layer == -1:
        return vectors.mean(axis=0)
    return vectors[output_layer]


def _with_padding(batch: Batch, model: Elmo) -> Batch:
    """Fill the sentences of a batch up to the longest with a word that is <pad> in each of its characters."""
    pad_1C = model.speller.spell([PAD])
    if cnn := model.config.char_cnn:
        pad_1C[:, -cnn.max_characters_per_token :] = cnn.n_symbols - 1
    longest = batch.words_BT.shape[1]
    beyond_BT = np.arange(longest) >= batch.lengths_B[:, None]
    words_BT = np.where(beyond_BT, len(batch.chars_UC), batch.words_BT)
    return Batch(np.vstack([batch.chars_UC, pad_1C]), words_BT, np.full_like(batch.lengths_B, longest))


def _described(config: Config) -> dict[str, Any]:
    lstm, cnn = config.lstm, config.char_cnn
    encoder = lstm.model_dump(include={"projection_dim", "dim", "n_layers", "cell_clip", "proj_clip"})
    embedder: dict[str, Any] = {"name": "cnn", "word_dim": config.word_dim, "char_dim": cnn.embedding.dim if cnn else 0}
    if cnn:
        names = {"activation", "filters", "n_highway", "max_characters_per_token"}
        embedder |= cnn.model_dump(mode="json", include=names)
    return {"encoder": {"name": "lstm" if lstm.joined else "elmo", **encoder}, "token_embedder": embedder}
