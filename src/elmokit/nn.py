"""`ElmoEmbedding`: ELMo as an embedding layer of a PyTorch model, frozen or learning with it.

Axes: B sentences, T tokens, C symbols of a token, L layers, D width of a vector, M places of a batch without padding,
N tokens of a batch without padding, W width of a word vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set, Sized
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from elmokit.errors import MismatchError, expect, expect_count, expect_iterable, expect_number, expect_one_of
from elmokit.model import Elmo, load
from elmokit.network import BiLM, Mix, as_array
from elmokit.padded import batch_of_ids, marked_ids, pad, padded_ids
from elmokit.text import N_CHARACTERS, Utf8Speller, check_sentence, distinct_words, make_batch, places
from elmokit.word_vectors import WordVectors

# Tokenised sentences, or strings that are split at white space.
Sentences: TypeAlias = Sequence[Sequence[str]] | Sequence[str]
Trainable: TypeAlias = Literal["none", "mix", "all"]
_TRAINABLE = ("none", "mix", "all")
_INTEGERS = (torch.int16, torch.int32, torch.int64)  # which can hold all ids


class KeyedVectors(Protocol):
    """Word vectors as gensim's `KeyedVectors` hold them: the row of a word, and the rows (V, W)."""

    key_to_index: Mapping[str, int]
    vectors: NDArray[np.floating]


class ElmoEmbedding(nn.Module):
    """Sentences to vectors and a mask; every sentence starts from a zero state, so nothing flows from call to call.

    `model`: a model, or what `elmokit.load` opens; its weights are copied. `trainable`: "none" of it learns, the "mix"
    of the layers, or "all", the network too. `n_mixes`: trainable sums of the layers, each with an output of its own,
    and `mix_weights` (L) their weights before the softmax, by default those of as many mixes that came with the model,
    else, and with `layer_norm`, which is that of `Mix`, zeros: the average. `dropout`: of the outputs. `words`: word
    vectors that stand before ELMo's in every output, looked up as written, then in lower case; zeros for a word that is
    not there. They learn if `words.requires_grad_()` says so.

    While the network does not learn, the context-free vectors of words are kept from call to call, up to 64 MiB.
    Raises `MismatchError` for options that do not fit, and what `elmokit.load` raises.
    """

    def __init__(
        self,
        model: Elmo | str | Path | None = None,
        *,
        trainable: Trainable = "mix",
        n_mixes: int = 1,
        mix_weights: Sequence[float] | None = None,
        layer_norm: bool = False,
        dropout: float = 0.0,
        words: KeyedVectors | None = None,
    ) -> None:
        super().__init__()
        expect_one_of(_TRAINABLE, trainable, "trainable")
        expect_count(n_mixes, "n_mixes")
        expect_number(dropout, "dropout")
        if not 0 <= dropout < 1:
            raise MismatchError(f"dropout must be at least 0 and less than 1, found {dropout!r}")
        if words is not None:
            _check_vectors(words)
        elmo = model if isinstance(model, Elmo) else load(model)
        source = elmo.checkpoint()
        vocabulary = source.vocabulary if source.config.word_dim else None  # else it is that of the head
        self._source = replace(source, arrays={}, vocabulary=vocabulary)
        self.speller = elmo.speller
        self.network = BiLM.from_arrays(source.config, source.arrays).requires_grad_(trainable == "all")
        starts: Iterable[tuple[Any, float]] = [(mix_weights, 1.0)] * n_mixes
        if mix_weights is None and not layer_norm and len(elmo.mixes) == n_mixes:
            starts = zip(elmo.extras["mix.weights"], elmo.extras["mix.gamma"].tolist(), strict=True)
        mixes = (Mix(elmo.n_layers, weights, gamma=gamma, layer_norm=layer_norm) for weights, gamma in starts)
        self.mixes = nn.ModuleList(mixes).requires_grad_(trainable != "none")
        self.dropout = nn.Dropout(dropout)
        self.words = None if words is None else _word_table(words)
        self._index = {} if words is None else {word: row + 1 for word, row in words.key_to_index.items()}
        self._known: tuple[Any, WordVectors] | None = None

    @property
    def dim(self) -> int:
        """Width of an output: D of ELMo, and W where word vectors stand before it."""
        return self.network.config.dim + (self.words.embedding_dim if self.words else 0)

    def forward(self, sentences: Sentences | Tensor) -> tuple[Tensor, ...]:
        """Return an output (B, T, dim) of each mix, zeros beyond the end of a sentence, and the mask (B, T) bool.

        `sentences`: tokenised, strings that are split at white space, or character ids (B, T, C) as of `ids`.
        """
        if torch.compiler.is_compiling():  # it cannot follow words and NumPy; as a decorator this would load it always
            return torch.compiler.disable(self._embed)(sentences)
        return self._embed(sentences)

    def ids(self, sentences: Sentences) -> Tensor:
        """Return character ids (B, T, C) int64, 0 beyond the end of a sentence: those of AllenNLP's `batch_to_ids`.

        Raises `MismatchError` for a model that does not spell words in bytes.
        """
        self._check_spells_bytes()
        return torch.from_numpy(padded_ids(_tokenised(sentences), self.speller))

    def penalty(self, strength: float) -> Tensor:
        """Return strength * sum of w² over all mixes, to be added to the loss; w as before the softmax.

        It pulls the mixes to the average of the layers (paper section 3.3): 1 keeps them there, 0.001 lets them vary.
        Layers that a mix leaves out, with a weight of -inf, stay out of it.
        """
        expect((Real, Tensor), strength, "strength", "a number")
        weights: list[Tensor] = [mix.weights for mix in self.mixes]  # type: ignore[misc]  # modules are untyped
        every = torch.cat(weights)
        return strength * every[every.isfinite()].square().sum()

    def to_elmo(self) -> Elmo:
        """Return a model for `embed` and `save`, with the network as it is now and the mixes as `Elmo.mixes`.

        It is on the CPU, in float32. A softmax head and a warmed state of the model that this was made of are left out:
        they belong to its weights. Raises `MismatchError` where the mixes normalise the layers, as those of a model do
        not.
        """
        if any(mix.layer_norm for mix in self.mixes):
            raise MismatchError("mixes with layer_norm cannot be kept in a model; save the state_dict of this module")
        mixes = [mix.state_dict() for mix in self.mixes]
        trained = {
            "mix.weights": as_array(torch.stack([mix["weights"] for mix in mixes])),
            "mix.gamma": as_array(torch.cat([mix["gamma"] for mix in mixes])),
        }
        return Elmo(replace(self._source, arrays={**self.network.arrays(), **trained}))

    def _embed(self, sentences: Sentences | Tensor) -> tuple[Tensor, ...]:
        layers, lengths_B, words_NW = self._run(sentences)
        tokens_M, mask_BT = _tokens(lengths_B)
        outputs = [self.dropout(mix(layers))[tokens_M] for mix in self.mixes]
        if words_NW is not None:
            outputs = [torch.cat([words_NW, output_ND], dim=1) for output_ND in outputs]
        return *(pad(output, mask_BT) for output in outputs), mask_BT

    def _run(self, sentences: Sentences | Tensor) -> tuple[list[Tensor], Tensor, Tensor | None]:
        """Return the layers (M, D), the places of each sentence (B,), and the word vectors (N, W)."""
        learns = any(parameter.requires_grad for parameter in self.network.parameters())
        if learns:
            self._known = None  # an optimiser may change weights without changing their version
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            if isinstance(sentences, Tensor):
                layers, lengths_B = self._run_ids(sentences)
            else:
                sentences = _tokenised(sentences)
                layers, lengths_B = self._run_tokens(sentences, learns=learns)
        return layers, torch.from_numpy(lengths_B).to(self.network.device), self._look_up(sentences)

    def _run_tokens(
        self, sentences: Sequence[Sequence[str]], *, learns: bool
    ) -> tuple[list[Tensor], NDArray[np.int64]]:
        if learns:
            batch = make_batch(sentences, self.speller)
            return self.network(batch)[0], batch.lengths_B
        index, vectors_UP = self._known_words().learn(distinct_words(sentences, self.speller.marks))
        words_BT, lengths_B = places(sentences, self.speller.marks, index)
        return self.network.contextualize(vectors_UP, words_BT, lengths_B)[0], lengths_B

    def _run_ids(self, ids_BTC: Tensor) -> tuple[list[Tensor], NDArray[np.int64]]:
        self._check_spells_bytes()
        C = self.speller.spell([]).shape[1]
        if ids_BTC.dim() != 3 or ids_BTC.shape[2] != C or ids_BTC.dtype not in _INTEGERS:
            found = f"{tuple(ids_BTC.shape)} {str(ids_BTC.dtype).removeprefix('torch.')}"
            raise MismatchError(f"expected character ids of shape (sentences, tokens, {C}) int64, found {found}")
        batch = batch_of_ids(marked_ids(ids_BTC.cpu().numpy(), self.speller), n_symbols=N_CHARACTERS)
        return self.network(batch)[0], batch.lengths_B

    def _known_words(self) -> WordVectors:
        """Return the word vectors of earlier calls, or none where the weights that gave them have changed."""
        weights = self.network.encoder.parameters()
        rounded = torch.is_autocast_enabled(self.network.device.type)
        version = rounded, [(w.data_ptr(), w.dtype, 0 if w.is_inference() else w._version) for w in weights]
        if self._known is None or self._known[0] != version:
            self._known = version, WordVectors(self.network, self.speller)
        return self._known[1]

    def _look_up(self, sentences: Sequence[Sequence[str]] | Tensor) -> Tensor | None:
        if self.words is None:
            return None
        if isinstance(sentences, Tensor):
            raise MismatchError("word vectors are found by the word: give tokens or strings in place of character ids")
        rows = [self._row(word) for sentence in sentences for word in sentence]
        return self.words(torch.tensor(rows, dtype=torch.int64, device=self.words.weight.device))

    def _row(self, word: str) -> int:
        return self._index.get(word) or self._index.get(word.lower(), 0)

    def _check_spells_bytes(self) -> None:
        if not isinstance(self.speller, Utf8Speller):
            raise MismatchError("this model does not spell words in bytes, so it has no character ids; give it tokens")

    def __getstate__(self) -> dict[str, Any]:
        """Leave the known words out: they are computed again."""
        return {**self.__dict__, "_known": None}


def _check_vectors(words: object) -> None:
    """Raise `MismatchError` for what holds no word vectors itself, as a trained model of gensim or a file's name."""
    if not (hasattr(words, "vectors") and hasattr(words, "key_to_index")):
        found = f"{type(words).__name__}; of a trained model give its `wv`, of a file load_word2vec_format"
        raise MismatchError(f"words: expected gensim's KeyedVectors, found {found}")


def _word_table(words: KeyedVectors) -> nn.Embedding:
    """Return the rows of `words` behind one of zeros; they do not learn."""
    rows = torch.from_numpy(np.array(words.vectors, np.float32))
    return nn.Embedding.from_pretrained(nn.functional.pad(rows, (0, 0, 1, 0)), padding_idx=0)


def _tokenised(sentences: Sentences) -> list[Sequence[str]]:
    if isinstance(sentences, str):
        raise MismatchError(f"expected a list of sentences, found the string {sentences[:40]!r}; put it into a list")
    expect_iterable(sentences, "sentences", "a list of sentences")
    expect(Sized, sentences, "sentences", "a list of sentences")
    if isinstance(sentences, Mapping | Set) or hasattr(sentences, "columns"):  # which would give names, in any order
        expect((), sentences, "sentences", "a list of sentences, or one column of a frame")
    if not len(sentences):
        raise MismatchError("expected at least one sentence, found none")
    split = [sentence.split() if isinstance(sentence, str) else sentence for sentence in sentences]
    for number, sentence in enumerate(split):
        check_sentence(sentence, number)
    return split


def _tokens(lengths_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return which of the places M are tokens and no sentence marks (bool), and the mask (B, T) of the tokens."""
    t = torch.arange(int(lengths_B.max()), device=lengths_B.device)
    places_BT = t < lengths_B.unsqueeze(1)
    tokens_BT = (t > 0) & (t < lengths_B.unsqueeze(1) - 1)
    return tokens_BT[places_BT], tokens_BT[:, 1:-1]
