"""`Elmo`: text in, vectors out; one NumPy array a sentence."""

from __future__ import annotations

import copy
import hashlib
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from elmokit import checkpoint, formats, hub
from elmokit.catalog import locate
from elmokit.checkpoint import Arrays, Checkpoint, Config
from elmokit.errors import MismatchError, expect, expect_count, expect_iterable, expect_one_of, shown
from elmokit.memory import give_back_freed_memory
from elmokit.network import BiLM, State, as_array
from elmokit.reduction import Layers as Layers
from elmokit.reduction import Pool as Pool
from elmokit.reduction import Reduction, Vectors, reduction
from elmokit.stored import StoredDtype
from elmokit.text import Speller, check_sentence, distinct_words, listed_words, places, plan_batches
from elmokit.word_vectors import WordVectors as WordVectors
from elmokit.word_vectors import encode

Precision: TypeAlias = Literal["float32", "bfloat16"]
Sentence: TypeAlias = Sequence[str]

# Sentences sorted by length together: enough for little padding, few enough to hold.
_WINDOW = 1024
# Tokens of such a window, but for a longer sentence: their vectors are in memory together.
_WINDOW_TOKENS = 32_768
_BATCH_SIZE = 256
# Rows of the state that is carried from batch to batch, as `allennlp elmo` and bilm-tf have them.
CARRIED_ROWS = 64
# Places of a batch, padding included, and values of its layers where long sentences make it a batch of few rows: both
# bound the memory of a batch, the latter by 128 MiB.
_BATCH_PLACES = 8192
_BATCH_VALUES = 1 << 25


@dataclass
class Carry:
    """LSTM state that its owner passes from one call of `embed` to the next; empty before the first."""

    state: State | None = None


class Elmo:
    """A network, how it spells, and nothing that changes when it is used.

    `device`: where it computes, as torch names it ("cuda"). `precision`: "bfloat16" computes products of rounded
    weights and values, the cells in float32; about twice as fast on processors that have the arithmetic. How far its
    vectors are from those of "float32" is told in docs/benchmarks.md.
    """

    def __init__(self, source: Checkpoint, *, device: str = "cpu", precision: Precision = "float32") -> None:
        expect(Checkpoint, source, "source", "a checkpoint; elmokit.load opens a path or a name")
        self.config: Config = source.config
        self.vocabulary = source.vocabulary
        self.characters = source.characters
        self.card = source.card
        self.source = source.source
        self.speller: Speller = source.speller()
        expect_one_of(_PRECISIONS, precision, "precision")
        self.precision: Precision = precision
        self.network = BiLM.from_arrays(source.config, source.arrays).to(_device(device), _PRECISIONS[precision]).eval()
        self.network.requires_grad_(False)  # it does not learn here, so that its weights can be packed
        # What the network does not compute with: the softmax head, trained mixes.
        self.extras: Arrays = {name: a for name, a in source.arrays.items() if name.startswith(("softmax.", "mix."))}
        self.warm_state = _stored_state(source.arrays)

    @property
    def dim(self) -> int:
        """Width D of a vector, both directions side by side."""
        return self.config.dim

    @property
    def n_layers(self) -> int:
        """Number of layers of an embedding, the context-free layer 0 included."""
        return self.config.n_layers

    @property
    def mixes(self) -> NDArray[np.float32]:
        """Trained mixes that came with the model, (K, L) float32: each row is ready for `layers` of `embed`."""
        if "mix.weights" not in self.extras:
            return np.zeros((0, self.n_layers), np.float32)
        weights, gammas = (np.asarray(self.extras[f"mix.{name}"], np.float64) for name in ("weights", "gamma"))
        shares = np.exp(weights - weights.max(1, keepdims=True))
        return (gammas[:, None] * shares / shares.sum(1, keepdims=True)).astype(np.float32)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over configuration, weights, lexicons and warmed state: equal for models that compute the same."""
        digest = hashlib.sha256(self.config.model_dump_json().encode())
        for name, array in sorted({**self.network.arrays(), **self._warm_arrays()}.items()):
            digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
        for symbols in (self.characters, self.vocabulary if self.config.word_dim else None):
            digest.update("\n".join(symbols or ()).encode())
        return digest.hexdigest()

    def embed(
        self,
        sentences: Iterable[Sentence],
        *,
        layers: Layers = "average",
        pool: Pool = "none",
        state: Literal["fresh", "warm", "carry"] | Carry = "fresh",
        batch_size: int | None = None,
        words: WordVectors | None = None,
    ) -> Iterator[Vectors]:
        """Yield one float32 array a sentence, lazily and in order.

        `sentences`: tokenised; an empty one gives an array of no tokens. `layers`: "all" (L, T, D); "top", "average",
        an index, or one weight a layer (T, D). `pool` over the tokens, "mean" or "max", drops T (zeros for no tokens).

        `batch_size`: sentences computed together at most; by default 256, and 64 with "carry", where it changes the
        vectors.

        `state`: with "fresh" every sentence starts from zeros, so that its vectors depend on nothing else; with "warm"
        from the model's stored state (`warm`). With "carry" row b of a batch of `batch_size` sentences starts where
        row b of the batch before ended, as AllenNLP and bilm-tf do; pass a `Carry` to keep the state between calls.

        `words`: of `word_vectors`, keeps what words are spelled like from one call to the next, which makes many short
        calls faster and changes no vector. By default it lasts for one call.

        Raises `MismatchError` for a layer that is not there or a model without a warmed state, or `words` of another.
        """
        reduce = reduction(layers, pool, n_layers=self.n_layers)
        expect_iterable(sentences, "sentences", "lists of tokens")
        if batch_size is not None:
            expect_count(batch_size, "batch_size")
        if state == "carry":
            state = Carry()
        words = self.word_vectors() if words is None else words
        if getattr(words, "network", None) is not self.network:
            raise MismatchError("words: expected the word vectors of this model, found another's; see word_vectors()")
        if isinstance(state, Carry):
            return self._embed_carried(sentences, words, state, batch_size or CARRIED_ROWS, reduce)
        expect_one_of(("fresh", "warm", "carry"), state, "state")
        return self._embed_sorted(sentences, words, self._start(state), batch_size or _BATCH_SIZE, reduce)

    def word_vectors(self) -> WordVectors:
        """Return an empty memory for the context-free vectors of words, for `embed`."""
        return WordVectors(self.network, self.speller)

    def warm(self, sentences: Iterable[Sentence]) -> Elmo:
        """Return this model with, as its stored warmed state, the state after reading `sentences` as one text."""
        expect_iterable(sentences, "sentences", "lists of tokens")
        carry = Carry()
        nothing: Reduction = lambda _, lengths: [np.empty(0, np.float32)] * len(lengths)  # noqa: E731
        for _ in self._embed_carried(sentences, self.word_vectors(), carry, 1, nothing):
            pass
        if carry.state is None:
            raise MismatchError("warming needs at least one sentence, found none")
        warmed = copy.copy(self)
        warmed.__dict__.pop("fingerprint", None)
        warmed.warm_state = carry.state
        return warmed

    def cached(self, words: Iterable[str]) -> Elmo:
        """Return a model that looks these words up in place of spelling them; others count as `<UNK>`.

        The sentence marks and `<UNK>` are put first where `words` lacks them. Embedding text of such words gives the
        same vectors. A softmax head is left out: its words are others. Raises `MismatchError` for a model that has no
        characters to spell with.
        """
        if self.config.char_cnn is None:
            raise MismatchError("the words of this model come from a table already; there is nothing to cache")
        words = tuple(dict.fromkeys(listed_words(words, "words")))
        words = (*(mark for mark in self.config.sentence_marks if mark not in words), *words)
        kept = ("lstm.", "output.", "mix.", "warm.")
        arrays = {name: a for name, a in self.checkpoint().arrays.items() if name.startswith(kept)}
        config = self.config.model_copy(update={"char_cnn": None, "word_embed": None})
        vectors = as_array(encode(self.network, self.speller, words))
        found = Checkpoint(config, {"embedding": vectors, **arrays}, words, source=self.source)
        return Elmo(found, device=str(self.network.device), precision=self.precision)

    def checkpoint(self) -> Checkpoint:
        """Return the model as plain data."""
        arrays = {**self.network.arrays(), **self.extras, **self._warm_arrays()}
        return Checkpoint(self.config, arrays, self.vocabulary, self.card, characters=self.characters)

    def save(self, folder: str | Path, *, dtype: StoredDtype = "float32") -> None:
        """Write the model as a folder of our own: config.json, model.safetensors, vocab.txt, README.md.

        `dtype` "int8": the matrices of the softmax head in 8 bits with a scale for each row, all else in float16.
        """
        checkpoint.write_native(self.checkpoint(), folder, dtype=dtype)

    def push_to_hub(
        self, repo: str, *, private: bool = False, token: str | None = None, message: str = "Send with elmokit"
    ) -> str:
        """Send the model, with its card, to a Hugging Face hub repository "user/name"; return the commit's address.

        Raises `DownloadError` where the hub refuses or cannot be reached.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save(folder)
            return hub.push(folder, repo, private=private, token=token, message=message)

    def _warm_arrays(self) -> Arrays:
        if self.warm_state is None:
            return {}
        h, c = (as_array(a[:, :, 0]) for a in (self.warm_state.h, self.warm_state.c))
        return {"warm.h": h, "warm.c": c}

    def _start(self, policy: str) -> State | None:
        if policy == "fresh":
            return None
        if self.warm_state is None:
            raise MismatchError(
                "this model stores no warmed state to start from; make one with Elmo.warm(sentences), or --warm-up TEXT"
            )
        return self.warm_state.to(self.network.device)

    def _embed_sorted(
        self,
        sentences: Iterable[Sentence],
        words: WordVectors,
        start: State | None,
        batch_size: int,
        reduce: Reduction,
    ) -> Iterator[Vectors]:
        for number, window in enumerate(_windows(sentences, _WINDOW, _WINDOW_TOKENS)):
            if number:
                give_back_freed_memory()
            state = start and start.repeated(len(window))
            # Without a name for the list, it is gone when the next window is computed.
            yield from self._run_by_length(window, words, state, batch_size, reduce)[0]

    def _embed_carried(
        self, sentences: Iterable[Sentence], words: WordVectors, carry: Carry, batch_size: int, reduce: Reduction
    ) -> Iterator[Vectors]:
        for batch in _windows(sentences, batch_size):
            before = self._carried(carry)
            old = before.grown(len(batch))
            vectors, new = self._run_by_length(batch, words, old.select(torch.arange(len(batch))), batch_size, reduce)
            carry.state = old.replaced(new)
            yield from vectors
            del vectors  # before the next batch is computed

    def _carried(self, carry: Carry) -> State:
        """Return what flows in, checked: a state of another model has other widths."""
        empty = self.network.zero_state(0)
        if carry.state is None:
            return empty
        expect(State, carry.state, "carry", "the state that an earlier call left")
        found, wanted = ([tuple(x.shape[:2]) + tuple(x.shape[3:]) for x in (s.h, s.c)] for s in (carry.state, empty))
        if found != wanted:
            raise MismatchError(f"carry: expected the state of this model, {wanted}, found another's, {found}")
        return carry.state.to(self.network.device)

    @torch.inference_mode()
    def _run_by_length(
        self,
        window: Sequence[Sentence],
        words: WordVectors,
        state: State | None,
        batch_size: int,
        reduce: Reduction,
    ) -> tuple[list[Vectors], State]:
        """Run sentences of like length together, each from its row of `state`; results in the order given."""
        index, vectors_UP = words.learn(distinct_words(window, self.speller.marks))
        lengths = [len(sentence) for sentence in window]
        vectors: dict[int, Vectors] = {}
        parts, states = [], []
        most_of_few = max(_BATCH_PLACES, _BATCH_VALUES // (self.n_layers * self.dim))
        for part in plan_batches(lengths, sentences=batch_size, most=_BATCH_PLACES, most_of_few=most_of_few):
            rows = torch.tensor(part)
            words_BT, lengths_B = places([window[i] for i in part], self.speller.marks, index)
            layers, new = self.network.contextualize(vectors_UP, words_BT, lengths_B, state and state.select(rows))
            vectors.update(zip(part, reduce(layers, lengths_B.tolist()), strict=True))
            parts.append(rows)
            states.append(new)
        return [vectors[i] for i in range(len(window))], State.joined(states).select(torch.argsort(torch.cat(parts)))


def load(
    model: str | Path | None = None,
    *,
    weights: str | Path | None = None,
    softmax: str | Path | None = None,
    vocabulary: str | Path | None = None,
    revision: str | None = None,
    offline: bool = False,
    token: str | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
) -> Elmo:
    """Open a model: a path, a Hugging Face hub repository "user/name", or a published model's name (`elmo models`).

    A path is a folder, an archive or a file of a model of any format that elmokit reads; with `weights` (HDF5) it is
    the model's options.json. Without `model` it is the bundled English one. `softmax` and `vocabulary` name a head that
    is kept apart and its words. `revision`, `token`: of the hub; `offline`: fetch nothing. `device` and `precision` are
    those of `Elmo`.

    Raises `UnknownModel` where nothing is there, `FormatError` where what is there is no model, `DownloadError`.
    """
    path = formats.BUNDLED if model is None else locate(model, revision=revision, offline=offline, token=token)
    source = formats.read(path, weights=weights, softmax=softmax, vocabulary=vocabulary)
    return Elmo(source, device=device, precision=precision)


_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:  # for unknown names; without CUDA; for what is no name
        found = f"{shown(name)} cannot be used ({str(error).splitlines()[0]})"
        raise MismatchError(f"device {found}; leave it out to compute on the CPU") from None
    return device


def _stored_state(arrays: Arrays) -> State | None:
    if "warm.h" not in arrays:
        return None
    return State(*(torch.from_numpy(np.array(arrays[name], np.float32)).unsqueeze(2) for name in ("warm.h", "warm.c")))


def _windows(sentences: Iterable[Sentence], size: int, tokens: float = math.inf) -> Iterator[list[Sentence]]:
    """Yield lists of `size` sentences, or of fewer where they come to `tokens` tokens."""
    window: list[Sentence] = []
    held = 0
    for number, sentence in enumerate(sentences):
        check_sentence(sentence, number)
        window.append(sentence)
        held += len(sentence)
        if len(window) == size or held >= tokens:
            yield window
            window, held = [], 0
    if window:
        yield window
