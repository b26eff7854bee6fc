"""Trainable ELMo for PyTorch: what was in `allennlp.modules.elmo`, and around it.

Axes: B sentences, T tokens, C = 50 characters of a token, D width of a vector, P = D / 2, L layers, M places of a batch
without padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from elmokit import catalog, formats
from elmokit.checkpoint import Checkpoint, Config
from elmokit.compat.allennlp import saved
from elmokit.errors import MismatchError, UnknownModel
from elmokit.network import BiLM, Mix, State, WordEncoder, WordTable
from elmokit.padded import batch_of_ids, between, blank_spelling, marked_ids, pad, padded_ids
from elmokit.text import BEGIN_SENTENCE, END_SENTENCE, N_CHARACTERS, Ids, Utf8Speller

# Files, or a model that is already read.
Source = str | Path | Checkpoint

_MAX_CHARACTERS = 50
# Words whose vectors are computed together when a vocabulary is cached.
_WORDS_AT_ONCE = 4096


def batch_to_ids(batch: Sequence[Sequence[str]]) -> Tensor:
    """Return the character ids (B, T, 50) int64 of tokenised sentences, 0 beyond the end of a sentence."""
    return torch.from_numpy(padded_ids(batch, Utf8Speller(_MAX_CHARACTERS)))


def remove_sentence_boundaries(tensor: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Take `<S>` and `</S>` away: (B, T + 2, D) and (B, T + 2) become (B, T, D) and (B, T), the mask int64."""
    places = torch.arange(tensor.shape[1] - 2, device=mask.device)
    kept = places < (mask.long().sum(1, keepdim=True) - 2)
    return tensor[:, 1:-1].masked_fill(~kept.unsqueeze(-1), 0), kept.long()


class ScalarMix(nn.Module):
    """gamma * sum of softmax(w)_k tensor_k, with the parameters `gamma` and `scalar_parameters`, (1,) each."""

    def __init__(
        self,
        mixture_size: int,
        do_layer_norm: bool = False,
        initial_scalar_parameters: Sequence[float] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__()
        self.mixture_size = mixture_size
        self.do_layer_norm = do_layer_norm
        start = [0.0] * mixture_size if initial_scalar_parameters is None else initial_scalar_parameters
        if len(start) != mixture_size:
            raise MismatchError(f"expected {mixture_size} scalar parameters, one a tensor, found {len(start)}")
        self.scalar_parameters = nn.ParameterList(
            nn.Parameter(torch.tensor([float(value)]), requires_grad=trainable) for value in start
        )
        self.gamma = nn.Parameter(torch.tensor([1.0]), requires_grad=trainable)

    def forward(self, tensors: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """Mix tensors (..., D); with `do_layer_norm`, `mask` (...) says which places count for the norm."""
        mix = Mix(self.mixture_size, layer_norm=self.do_layer_norm)
        parameters = {"weights": torch.cat(list(self.scalar_parameters)), "gamma": self.gamma}
        return functional_call(mix, parameters, (tensors, mask))


# ---------------------------------------------------------------- the network


class _ElmoCharacterEncoder(nn.Module):
    """Characters to context-free word vectors."""

    def __init__(self, options_file: Source, weight_file: str | Path | None, requires_grad: bool = False) -> None:
        super().__init__()
        source = _read(options_file, weight_file)
        assert source.config.char_cnn is not None  # `_read` refuses such models
        self.output_dim = source.config.lstm.projection_dim
        self.max_characters = source.config.char_cnn.max_characters_per_token
        self.encoder = WordEncoder(source.config.char_cnn, self.output_dim)
        weights = {name: torch.tensor(source.arrays[name]) for name in self.encoder.state_dict()}
        self.encoder.load_state_dict(weights)
        self.requires_grad_(requires_grad)

    def get_output_dim(self) -> int:
        """Width P of a word vector."""
        return self.output_dim

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Embed ids (B, T, 50): `token_embedding` (B, T + 2, P) and `mask` (B, T + 2) int64, `<S>` and `</S>` added."""
        ids_BTC = self.marked(inputs)
        batch = batch_of_ids(ids_BTC, n_symbols=N_CHARACTERS)
        words_UP = self.encoder(torch.from_numpy(batch.chars_UC).to(inputs.device))
        present_BT = torch.from_numpy((ids_BTC != 0).any(-1)).to(inputs.device)
        words_MP = words_UP[torch.from_numpy(batch.words_BT).to(inputs.device)[present_BT]]
        embedded = pad(words_MP, present_BT, blank_D=blank_spelling(self.encoder))
        return {"mask": present_BT.long(), "token_embedding": embedded}

    def marked(self, inputs: Tensor) -> Ids:
        """Return the ids in NumPy with the rows of `<S>` and `</S>` round every sentence."""
        if inputs.shape[-1] != self.max_characters:
            found = f"ids of {inputs.shape[-1]}"
            raise MismatchError(f"this model spells a word in {self.max_characters} characters, found {found}")
        return marked_ids(inputs.cpu().numpy(), Utf8Speller(self.max_characters))


class _ElmoLstm(nn.Module):
    """The LSTM layers and the state that flows from one call to the next, row b of a batch into row b.

    `_states`: None before the first call, then h (L, B, 2P) and c (L, B, 2 cells).
    """

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers = layers
        self.stateful = True
        self._states: tuple[Tensor, Tensor] | None = None

    def reset_states(self) -> None:
        """Forget all text so far."""
        self._states = None

    def run(self, network: BiLM, ids_BTC: Ids, *, n_symbols: int) -> list[Tensor]:
        """Return the layers 0..L, (M, 2P) each, of a batch of ids, and carry the state on."""
        batch = batch_of_ids(ids_BTC, n_symbols=n_symbols)
        rows, start = len(batch.lengths_B), network.zero_state(0)
        if self.stateful and self._states is not None:
            start = State(*(_by_direction(states).to(network.device) for states in self._states))
        start = start.grown(rows)
        layers, new = network(batch, start.select(torch.arange(rows, device=network.device)))
        if self.stateful:
            kept = start.replaced(new).detach()
            self._states = _side_by_side(kept.h), _side_by_side(kept.c)
        return layers


def _by_direction(states_LBD: Tensor) -> Tensor:
    """(L, B, 2P) -> (L, 2, B, P)."""
    return states_LBD.unflatten(2, (2, -1)).transpose(1, 2)


def _side_by_side(states_LZBP: Tensor) -> Tensor:
    """(L, 2, B, P) -> (L, B, 2P)."""
    return states_LZBP.transpose(1, 2).flatten(2)


class _ElmoBiLm(nn.Module):
    """The bidirectional language model: all layers, sentence marks included."""

    def __init__(
        self,
        options_file: Source,
        weight_file: str | Path | None,
        requires_grad: bool = False,
        vocab_to_cache: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        source = _read(options_file, weight_file)
        network = BiLM.from_arrays(source.config, source.arrays)
        self._config, self._requires_grad = source.config, requires_grad
        self._token_embedder = _ElmoCharacterEncoder(source, None, requires_grad)
        self._elmo_lstm = _ElmoLstm(network.lstm).requires_grad_(requires_grad)
        self._word_embedding: WordTable | None = None
        self.num_layers = source.config.lstm.n_layers + 1
        self._register_load_state_dict_pre_hook(_take_saved, with_module=True)
        if vocab_to_cache:
            self.create_cached_cnn_embeddings(vocab_to_cache)

    def get_output_dim(self) -> int:
        """Width D of a vector."""
        return self._config.dim

    def create_cached_cnn_embeddings(self, tokens: Sequence[str]) -> None:
        """Compute the context-free vectors of these words once; word 0 is the padding, whose vector is zero."""
        words = [*tokens, BEGIN_SENTENCE, END_SENTENCE]
        speller, encoder = Utf8Speller(self._token_embedder.max_characters), self._token_embedder.encoder
        parts = [words[i : i + _WORDS_AT_ONCE] for i in range(0, len(words), _WORDS_AT_ONCE)]
        device = encoder.char_embed.device
        with torch.no_grad():
            ids = (torch.from_numpy(speller.spell(part).astype(np.int64)).to(device) for part in parts)
            vectors_VP = torch.cat([encoder(chars_UC) for chars_UC in ids])
            vectors_VP[0] = 0
        self._word_embedding = WordTable(*vectors_VP.shape)
        self._word_embedding.embedding = nn.Parameter(vectors_VP, requires_grad=self._requires_grad)

    def forward(self, inputs: Tensor, word_inputs: Tensor | None = None) -> dict[str, Any]:
        """Run ids (B, T, 50): `activations`, a list of (B, T + 2, D), one a layer, and `mask` (B, T + 2) int64.

        `word_inputs` (B, T): numbers of cached words; where one of them is not cached, the characters are read.
        """
        table, encoder = self._word_embedding, self._token_embedder.encoder
        n_words = len(table.embedding) - 2 if table is not None else 0
        if table is not None and word_inputs is not None and bool((word_inputs < n_words).all()):
            network, ids_BTC = self._network(table), _numbered(word_inputs.cpu().numpy(), n_words)
            n_symbols = n_words + 2
        else:
            network, ids_BTC = self._network(encoder), self._token_embedder.marked(inputs)
            n_symbols = N_CHARACTERS
        trained = torch.is_grad_enabled() and any(p.requires_grad for p in network.parameters())
        with torch.set_grad_enabled(trained):
            layers = self._elmo_lstm.run(network, ids_BTC, n_symbols=n_symbols)
            present_BT = torch.from_numpy((ids_BTC != 0).any(-1)).to(network.device)
            return {"activations": [pad(layer, present_BT) for layer in layers], "mask": present_BT.long()}

    def _network(self, encoder: WordEncoder | WordTable) -> BiLM:
        """Return the network with these word vectors; its parts are those of this module."""
        with torch.device("meta"):
            network = BiLM(Config(lstm=self._config.lstm), n_words=1)
        network.encoder, network.lstm = encoder, self._elmo_lstm.layers
        return network


def _take_saved(bilm: _ElmoBiLm, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let `load_state_dict` take what AllenNLP saved, too."""
    saved.rename(state, prefix, bilm._config)


def _numbered(words_BT: Ids, n_words: int) -> Ids:
    """Return word numbers as ids (B, T + 2, 1), the two rows after the words for `<S>` and `</S>`."""
    ids_BT1 = np.where(words_BT == 0, 0, words_BT + 1)[..., None]
    return between(ids_BT1, np.array([n_words + 1]), np.array([n_words + 2]))


def _read(options_file: Source, weight_file: str | Path | None) -> Checkpoint:
    if isinstance(options_file, Checkpoint):
        source = options_file
    else:
        source = formats.read(_here(options_file), weights=None if weight_file is None else _here(weight_file))
    if source.config.char_cnn is None or not isinstance(source.speller(), Utf8Speller):
        raise MismatchError("this model does not read the bytes of words; AllenNLP's ELMo needs one that does")
    return source


def _here(file: str | Path) -> Path:
    """Return where a file is; one that is named by its published address is fetched at first use."""
    address = str(file)
    if not address.startswith(("http://", "https://")):
        return Path(file)
    found = [(model.name, part.name) for model in catalog.models() for part in model.files if address in part.urls]
    if not found:
        raise UnknownModel(f"{address} is no published model's; fetch it, and name the file that you have then")
    model_name, name = found[0]
    return catalog.fetch(model_name) / name


# Options of a configuration; the first three have no default.
_PARAMS = (
    "options_file weight_file num_output_representations requires_grad do_layer_norm keep_sentence_boundaries dropout "
    "scalar_mix_parameters"
).split()


class Elmo(nn.Module):
    """Trainable mixes of the layers, `num_output_representations` of them, as an input of a larger network.

    `module`: a network in place of the two files, with `num_layers` and what `_ElmoBiLm` returns.
    """

    _elmo_lstm: Any

    def __init__(
        self,
        options_file: Source | None,
        weight_file: str | Path | None,
        num_output_representations: int,
        requires_grad: bool = False,
        do_layer_norm: bool = False,
        dropout: float = 0.5,
        vocab_to_cache: Sequence[str] | None = None,
        keep_sentence_boundaries: bool = False,
        scalar_mix_parameters: Sequence[float] | None = None,
        module: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if (module is None) == (options_file is None):
            raise MismatchError("expected either options_file and weight_file, or module, found both or neither")
        if options_file is not None:
            module = _ElmoBiLm(options_file, weight_file, requires_grad, vocab_to_cache)
        self._elmo_lstm = module
        self._keep_sentence_boundaries = keep_sentence_boundaries
        self._dropout = nn.Dropout(dropout)
        self._has_cached_vocab = vocab_to_cache is not None
        self._n_mixes = num_output_representations
        for k in range(num_output_representations):
            mix = ScalarMix(
                self._elmo_lstm.num_layers, do_layer_norm, scalar_mix_parameters, scalar_mix_parameters is None
            )
            self.add_module(f"scalar_mix_{k}", mix)

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Elmo:
        """Make one of the part of a configuration that describes it: the names are those of the arguments."""
        for name in params:
            if name not in _PARAMS:
                raise MismatchError(f"option {name!r} is not one of Elmo's, {', '.join(_PARAMS)}; take it out")
        for name in _PARAMS[:3]:
            if name not in params:
                raise MismatchError(f"option {name!r} of Elmo is missing; put it in")
        return cls(**params)

    @property
    def _scalar_mixes(self) -> list[ScalarMix]:
        return [getattr(self, f"scalar_mix_{k}") for k in range(self._n_mixes)]

    def get_output_dim(self) -> int:
        """Width D of a vector."""
        return self._elmo_lstm.get_output_dim()

    def forward(self, inputs: Tensor, word_inputs: Tensor | None = None) -> dict[str, Any]:
        """Embed ids (..., T, 50): `elmo_representations`, a list of (..., T, D), and `mask` (..., T) int64.

        `word_inputs` (..., T): numbers of the words of `vocab_to_cache`.
        """
        words = None if word_inputs is None else word_inputs.flatten(0, -2)
        output = self._elmo_lstm(inputs.flatten(0, -3), words)
        mixed = [mix(output["activations"], output["mask"]) for mix in self._scalar_mixes]
        mask = output["mask"]
        if not self._keep_sentence_boundaries:
            mixed = [remove_sentence_boundaries(vectors, output["mask"])[0] for vectors in mixed]
            mask = remove_sentence_boundaries(output["activations"][0], mask)[1]
        lead = inputs.shape[:-2]
        return {
            "elmo_representations": [self._dropout(vectors).reshape(*lead, *vectors.shape[1:]) for vectors in mixed],
            "mask": mask.reshape(*lead, mask.shape[1]),
        }
