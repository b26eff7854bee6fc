"""Between the padded arrays that the older tools take and give, and our packed batches.

Their ids are one more than ours, because 0 says that a place holds no word. Axes: B sentences, T
places, C symbols of a word, M places of a batch without padding, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elmokit.errors import MismatchError
from elmokit.network import BiLM, WordEncoder
from elmokit.text import PAD_ID, Batch, Ids, Speller


def padded_ids(sentences: Sequence[Sequence[str]], speller: Speller) -> NDArray[np.int64]:
    """Return ids (B, T, C) of tokenised sentences, without <S> and </S>: 1 and up, 0 beyond the end of a sentence."""
    spelled = [speller.spell(sentence).astype(np.int64) + 1 for sentence in sentences]
    ids_BTC = np.zeros((len(spelled), max(map(len, spelled), default=0), speller.spell([]).shape[1]), np.int64)
    for row, ids_TC in zip(ids_BTC, spelled, strict=True):
        row[: len(ids_TC)] = ids_TC
    return ids_BTC


def marked_ids(ids_BTC: Ids, speller: Speller) -> NDArray[np.int64]:
    """Return padded ids (B, T + 2, C) with <S> and </S> round every sentence."""
    return between(ids_BTC, *(speller.spell([speller.marks.begin, speller.marks.end]).astype(np.int64) + 1))


def between(ids_BTC: Ids, begin_C: Ids, end_C: Ids) -> NDArray[np.int64]:
    """Return padded ids (B, T + 2, C) with a word before every sentence and one behind it."""
    B, T, C = ids_BTC.shape
    marked = np.zeros((B, T + 2, C), np.int64)
    marked[:, 1:-1] = ids_BTC
    marked[:, 0] = begin_C
    marked[np.arange(B), (ids_BTC != 0).any(-1).sum(1) + 1] = end_C
    return marked


def batch_of_ids(ids_BTC: Ids, *, n_symbols: int) -> Batch:
    """Make a `Batch` of padded ids: 1..`n_symbols`, and 0 throughout for a place beyond the end of a sentence.

    <S> and </S> are among the places. Raises `MismatchError` for a place without a word inside a sentence, for an id
    that stands for nothing, and for padding characters before the end of a word: no vectors would be right for these.
    """
    if not len(ids_BTC):
        raise MismatchError("ids: expected at least one sentence, found none")
    present_BT = (ids_BTC != 0).any(-1)
    lengths_B = present_BT.sum(1)
    if not (present_BT == (np.arange(present_BT.shape[1]) < lengths_B[:, None])).all():
        raise MismatchError("ids: a place of zeros stands before the end of a sentence, expected zeros only after it")
    words_MC = ids_BTC[present_BT].astype(np.int64) - 1
    _check_words(words_MC, n_symbols)
    chars_UC, which_M = np.unique(words_MC, axis=0, return_inverse=True)
    words_BT = np.zeros(present_BT.shape, np.int64)
    words_BT[present_BT] = which_M.reshape(-1)
    return Batch(chars_UC, words_BT[:, : lengths_B.max(initial=0)], lengths_B)


def _check_words(words_MC: Ids, n_symbols: int) -> None:
    wrong = words_MC[(words_MC < 0) | (words_MC >= n_symbols)]
    if wrong.size:
        raise MismatchError(f"ids: expected 1 to {n_symbols} in every word, found {wrong[0] + 1}")
    padding = words_MC == PAD_ID
    if (padding[:, :-1] & ~padding[:, 1:]).any():
        raise MismatchError(f"ids: the padding character {PAD_ID + 1} stands before the end of a word")


def pad(layer_MD: Tensor, present_BT: Tensor, *, blank_D: Tensor | None = None) -> Tensor:
    """Return (B, T, D) with the rows of `layer_MD` where `present_BT` (bool), and zeros or `blank_D` elsewhere."""
    padded = layer_MD.new_zeros(*present_BT.shape, layer_MD.shape[1])
    if blank_D is not None:
        padded = padded + blank_D
    return padded.index_put((present_BT,), layer_MD)


def blank_word(network: BiLM) -> Tensor:
    """Return the vector (P,) that bilm-tf and AllenNLP compute where there is no word.

    Its characters are vectors of zeros, so the convolutions give their biases; with words from a table it is zero.
    """
    encoder = network.encoder
    if not isinstance(encoder, WordEncoder) or encoder.embedding is not None:
        return torch.zeros(network.config.lstm.projection_dim, device=network.device)
    return blank_spelling(encoder)


def blank_spelling(encoder: WordEncoder) -> Tensor:
    """Return `blank_word` of the encoder alone."""
    biases: list[Tensor] = [convolution.bias for convolution in encoder.cnn]  # type: ignore[misc]  # modules are untyped
    x = encoder.activation(torch.cat(biases)).unsqueeze(0)
    for highway in encoder.highway:
        x = highway(x)
    return (encoder.projection(x) if encoder.projection else x).squeeze(0)
