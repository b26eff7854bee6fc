"""bilm-tf: batchers, `BidirectionalLanguageModel`, `weight_layers` and the two dumps, without TensorFlow.

`from bilm import ...` becomes `from elmokit.compat.bilm import ...`. There are no placeholders and no sessions: where
bilm-tf built a graph from a placeholder and ran it in a session, the model is called with the ids themselves and gives
the arrays at once. The state flows from call to call, as in one session and one placeholder.

Axes: B sentences, T places with `<S>` and `</S>`, C characters of a token, L layers with layer 0, D width of a vector,
P = D / 2, V words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from elmokit import formats
from elmokit.checkpoint import Checkpoint, read_vocabulary
from elmokit.errors import FormatError, MismatchError
from elmokit.formats.allennlp import read_token_cache
from elmokit.network import BiLM, Mix, State
from elmokit.padded import batch_of_ids, blank_word, pad
from elmokit.reading import read_sentences
from elmokit.sinks.hdf5 import whole_file
from elmokit.sinks.spec import Spec
from elmokit.text import (
    BEGIN_SENTENCE,
    BEGIN_SENTENCE_ID,
    BEGIN_WORD_ID,
    END_SENTENCE,
    END_SENTENCE_ID,
    END_WORD_ID,
    N_CHARACTERS,
    PAD_ID,
    UNKNOWN,
    Ids,
    Utf8Speller,
)

_Path = str | Path
# Words whose vectors are computed together by `dump_token_embeddings`.
_WORDS_AT_ONCE = 4096


# ---------------------------------------------------------------- vocabulary and ids


class Vocabulary:
    """Words by line number, without lines `!!!MAXTERMID`; of a word that stands twice the last line counts.

    `bos`, `eos`, `unk`: numbers of `<S>`, `</S>`, `<UNK>`, -1 where the file lacks them, which `validate_file` refuses.
    """

    def __init__(self, filename: _Path, validate_file: bool = False) -> None:
        self._id_to_word = read_vocabulary(filename)
        self._word_to_id = {word: number for number, word in enumerate(self._id_to_word)}
        self.bos, self.eos, self.unk = (self._word_to_id.get(mark, -1) for mark in _MARKS)
        if validate_file and -1 in (self.bos, self.eos, self.unk):
            raise FormatError(f"{filename}: expected the words {', '.join(_MARKS)}, found not all of them; add them")

    @property
    def size(self) -> int:
        """Number of words."""
        return len(self._id_to_word)

    def word_to_id(self, word: str) -> int:
        """Return the number of a word, or that of `<UNK>`."""
        return self._word_to_id.get(word, self.unk)

    def id_to_word(self, cur_id: int) -> str:
        """Return the word of a number."""
        return self._id_to_word[cur_id]

    def decode(self, cur_ids: Iterable[int]) -> str:
        """Return the words of these numbers, parted by spaces."""
        return " ".join(self.id_to_word(number) for number in cur_ids)

    def encode(self, sentence: str | Sequence[str], reverse: bool = False, split: bool = True) -> NDArray[np.int32]:
        """Return the numbers of a sentence with those of `<S>` and `</S>`, int32.

        `split`: the sentence is one string, to be split at white space. `reverse`: it is reversed, so `</S>` is
        first.
        """
        ends = (self.eos, self.bos) if reverse else (self.bos, self.eos)
        words = (self.word_to_id(word) for word in _tokens(sentence, split))
        return np.array([ends[0], *words, ends[1]], np.int32)


_MARKS = (BEGIN_SENTENCE, END_SENTENCE, UNKNOWN)


def _tokens(sentence: str | Sequence[str], split: bool) -> Sequence[str]:
    return sentence.split() if split and isinstance(sentence, str) else sentence


class UnicodeCharsVocabulary(Vocabulary):
    """A vocabulary that also spells: UTF-8 bytes and marks, int32, at most `max_word_length` a word.

    Where the file lacks `<S>` or `</S>`, bilm-tf spells its last word as `</S>`; here every word has its own spelling.
    """

    bos_char, eos_char, bow_char, eow_char = BEGIN_SENTENCE_ID, END_SENTENCE_ID, BEGIN_WORD_ID, END_WORD_ID
    pad_char = PAD_ID

    def __init__(self, filename: _Path, max_word_length: int, validate_file: bool = False) -> None:
        super().__init__(filename, validate_file)
        self.max_word_length = max_word_length
        self.bos_chars, self.eos_chars = self._spell([BEGIN_SENTENCE, END_SENTENCE])

    @cached_property
    def word_char_ids(self) -> NDArray[np.int32]:
        """Spelling of every word of the vocabulary, (V, C)."""
        return self._spell(self._id_to_word)

    def word_to_char_ids(self, word: str) -> NDArray[np.int32]:
        """Return the spelling (C,) of any word; `<S>` and `</S>` are the sentence marks."""
        return self._spell([word])[0]

    def encode_chars(
        self, sentence: str | Sequence[str], reverse: bool = False, split: bool = True
    ) -> NDArray[np.int32]:
        """Return the spellings (T, C) of a sentence with `<S>` and `</S>`; the arguments are those of `encode`."""
        ends = (END_SENTENCE, BEGIN_SENTENCE) if reverse else (BEGIN_SENTENCE, END_SENTENCE)
        return self._spell([ends[0], *_tokens(sentence, split), ends[1]])

    def _spell(self, words: Sequence[str]) -> NDArray[np.int32]:
        return Utf8Speller(self.max_word_length).spell(words).astype(np.int32)


class Batcher:
    """Tokenised sentences to padded character ids."""

    def __init__(self, lm_vocab_file: _Path, max_token_length: int) -> None:
        self._lm_vocab = UnicodeCharsVocabulary(lm_vocab_file, max_token_length)

    def batch_sentences(self, sentences: Sequence[Sequence[str]]) -> NDArray[np.int64]:
        """Return ids (B, T, C) int64, `<S>` and `</S>` among the places, 0 beyond the end of a sentence."""
        return _padded([self._lm_vocab.encode_chars(sentence, split=False) for sentence in sentences])


class TokenBatcher:
    """Tokenised sentences to padded word ids."""

    def __init__(self, lm_vocab_file: _Path) -> None:
        self._lm_vocab = Vocabulary(lm_vocab_file)

    def batch_sentences(self, sentences: Sequence[Sequence[str]]) -> NDArray[np.int64]:
        """Return ids (B, T) int64, `<S>` and `</S>` among the places, 0 beyond the end of a sentence.

        Raises `MismatchError` for a word that is neither in the vocabulary nor can be `<UNK>`, and for a vocabulary
        without the sentence marks: bilm-tf gives these the id of padding and cuts the sentence without a word.
        """
        ids = [self._lm_vocab.encode(sentence, split=False) for sentence in sentences]
        for sentence, ids_T in zip(sentences, ids, strict=True):
            if (ids_T < 0).any():
                word = [BEGIN_SENTENCE, *sentence, END_SENTENCE][int(np.argmax(ids_T < 0))]
                raise MismatchError(f"the vocabulary has neither the word {word!r} nor what stands for it; add <UNK>")
        return _padded(ids)


def _padded(ids: Sequence[Ids]) -> NDArray[np.int64]:
    """Stack ids (T, ...) of unlike lengths, one added to each so that 0 is padding."""
    padded = np.zeros((len(ids), max(map(len, ids)), *ids[0].shape[1:]), np.int64)
    for row, ids_T in zip(padded, ids, strict=True):
        row[: len(ids_T)] = ids_T + 1
    return padded


# ---------------------------------------------------------------- the model


class BidirectionalLanguageModel:
    """A model to be called with ids; it keeps the LSTM state, row b of one batch into row b of the next.

    `variables`: the trainable parameters that `weight_layers` has made for this model, by their name in bilm-tf.
    """

    def __init__(
        self,
        options_file: _Path,
        weight_file: _Path,
        use_character_inputs: bool = True,
        embedding_weight_file: _Path | None = None,
        max_batch_size: int = 128,
    ) -> None:
        source = _read(options_file, weight_file, None if use_character_inputs else embedding_weight_file)
        if (source.config.char_cnn is not None) != use_character_inputs:
            expected = "weights with characters" if use_character_inputs else "embedding_weight_file"
            raise MismatchError(f"use_character_inputs={use_character_inputs} needs {expected}; give it")
        if use_character_inputs and not isinstance(source.speller(), Utf8Speller):
            expected = "bilm-tf's batchers spell in UTF-8 bytes; use elmokit.load"
            raise MismatchError(
                f"{options_file} is a model that does not read the bytes of words alone, and {expected}"
            )
        self.network = BiLM.from_arrays(source.config, source.arrays)
        self.variables: dict[str, nn.Parameter] = {}
        self._n_symbols = N_CHARACTERS if use_character_inputs else len(source.arrays["embedding"])
        self._max_batch_size = max_batch_size
        self._state: State | None = None

    @property
    def max_characters(self) -> int:
        """Symbols C of a word: its characters with marks and padding, or 1 for a word id."""
        cnn = self.network.config.char_cnn
        return cnn.max_characters_per_token if cnn else 1

    def reset_states(self) -> None:
        """Forget all text so far, as a new session did."""
        self._state = None

    @torch.inference_mode()
    def __call__(self, ids_placeholder: Ids) -> dict[str, Any]:
        """Embed ids (B, T, C), or (B, T) word ids, as the batchers give them.

        `lm_embeddings` float32 (B, L, T - 2, D), `lengths` int32 (B,) and `mask` bool (B, T - 2) are without `<S>` and
        `</S>`; `token_embeddings` float32 (B, T, P) with them. Beyond the end of a sentence layer 0 holds what the
        network makes of no characters, the others zeros. `variables` are those of the model.
        """
        ids_BTC = self._checked(np.asarray(ids_placeholder))
        layers = self._run(ids_BTC)
        present_BT = torch.from_numpy((ids_BTC != 0).any(-1))
        lengths_B = present_BT.sum(1) - 2
        mask_BT = torch.arange(present_BT.shape[1] - 2) < lengths_B.unsqueeze(1)
        blank_P = blank_word(self.network)
        blanks = [torch.cat([blank_P, blank_P]), *[torch.zeros(2 * len(blank_P))] * (len(layers) - 1)]
        padded = [pad(layer, present_BT, blank_D=blank_D) for layer, blank_D in zip(layers, blanks, strict=True)]
        inner = [
            torch.where(mask_BT.unsqueeze(-1), layer[:, 1:-1], blank_D)
            for layer, blank_D in zip(padded, blanks, strict=True)
        ]
        return {
            "lm_embeddings": torch.stack(inner, dim=1).numpy(),
            "lengths": lengths_B.to(torch.int32).numpy(),
            "token_embeddings": padded[0][..., : len(blank_P)].numpy(),
            "mask": mask_BT.numpy(),
            "variables": self.variables,
        }

    def _checked(self, ids: Ids) -> Ids:
        ids_BTC = ids if self.network.config.char_cnn else ids[..., None]
        if ids_BTC.ndim != 3 or ids_BTC.shape[2] != self.max_characters:
            raise MismatchError(f"ids: expected 3 axes, the last {self.max_characters} long, found shape {ids.shape}")
        if len(ids_BTC) > self._max_batch_size:
            found = f"found {len(ids_BTC)}; give the model a larger max_batch_size"
            raise MismatchError(f"ids: expected at most {self._max_batch_size} sentences, {found}")
        if ((ids_BTC != 0).any(-1).sum(1) < 2).any():
            raise MismatchError("ids: expected <S> and </S> in every sentence; make the ids with a batcher")
        return ids_BTC

    def _run(self, ids_BTC: Ids) -> list[Tensor]:
        batch = batch_of_ids(ids_BTC, n_symbols=self._n_symbols)
        old = (self._state or self.network.zero_state(0)).grown(len(ids_BTC))
        layers, new = self.network(batch, old.select(torch.arange(len(ids_BTC))))
        self._state = old.replaced(new)
        return layers


def _read(options_file: _Path, weight_file: _Path, embedding_weight_file: _Path | None) -> Checkpoint:
    if embedding_weight_file is None or Path(embedding_weight_file) == Path(weight_file):  # a model without characters
        return formats.read(options_file, weights=weight_file)
    return read_token_cache(options_file, weight_file, token_embeddings=embedding_weight_file)


def weight_layers(
    name: str,
    bilm_ops: Mapping[str, Any],
    l2_coef: float | None = None,
    use_top_only: bool = False,
    do_layer_norm: bool = False,
) -> dict[str, Any]:
    """Mix the layers of what a model gave: `weighted_op` (B, T - 2, D), a tensor, and `regularization_op`.

    The weights `{name}_ELMo_W` (L,) and `{name}_ELMo_gamma` (1,) are torch parameters in the model's `variables`; a
    second mix of the same name shares them. `regularization_op` is a list of one tensor, `l2_coef` times the sum of the
    squared weights, or 0.0 with `use_top_only`, which takes the top layer times gamma. `do_layer_norm` counts the
    tokens of the whole batch, without `<S>` and `</S>`.
    """
    layers_BLTD, mask_BT = (torch.as_tensor(bilm_ops[key]) for key in ("lm_embeddings", "mask"))
    n_layers, variables = layers_BLTD.shape[1], bilm_ops["variables"]
    gamma = variables.setdefault(f"{name}_ELMo_gamma", nn.Parameter(torch.ones(1)))
    if use_top_only:
        return {"weighted_op": gamma * layers_BLTD[:, -1], "regularization_op": 0.0}
    weights = variables.setdefault(f"{name}_ELMo_W", nn.Parameter(torch.zeros(n_layers)))
    mix = Mix(n_layers, layer_norm=do_layer_norm)
    weighted = functional_call(mix, {"weights": weights, "gamma": gamma}, (layers_BLTD.unbind(1), mask_BT))
    return {"weighted_op": weighted, "regularization_op": [(l2_coef or 0.0) * (weights**2).sum()]}


# ---------------------------------------------------------------- files


def dump_bilm_embeddings(
    vocab_file: _Path, dataset_file: _Path, options_file: _Path, weight_file: _Path, outfile: _Path
) -> None:
    """Write all layers of a text, one tokenised sentence a line, to HDF5: (L, T, D) float32 under "0", "1", ...

    One sentence at a time, the state flowing from each to the next.
    """
    model = BidirectionalLanguageModel(options_file, weight_file)
    batcher = Batcher(vocab_file, model.max_characters)
    config = model.network.config
    spec = Spec(config.dim, config.lstm.n_layers + 1, forget_sentences=True)
    with whole_file(Path(outfile), spec) as sink:
        for number, sentence in enumerate(read_sentences(dataset_file)):
            sink.write(number, sentence, model(batcher.batch_sentences([sentence]))["lm_embeddings"][0])


@torch.inference_mode()
def dump_token_embeddings(vocab_file: _Path, options_file: _Path, weight_file: _Path, outfile: _Path) -> None:
    """Write the context-free vectors of a vocabulary to HDF5: `embedding` (V, P) float32, a row for each line."""
    model = BidirectionalLanguageModel(options_file, weight_file)
    chars_VC = UnicodeCharsVocabulary(vocab_file, model.max_characters).word_char_ids
    parts = torch.from_numpy(chars_VC.astype(np.int64)).split(_WORDS_AT_ONCE)
    vectors_VP = torch.cat([model.network.encoder(part) for part in parts])
    with h5py.File(outfile, "w") as file:
        file.create_dataset("embedding", data=vectors_VP.numpy())
