"""The embed job: a text through a model into a file, safe against any interruption."""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol

from tqdm import tqdm

from elmokit.errors import MismatchError, OutputError, TextError, expect_count, expect_model, expect_path
from elmokit.reading import read_sentences
from elmokit.reduction import plain_layers
from elmokit.sinks.partial import Partial, Progress
from elmokit.sinks.spec import Array, SentenceKeys, Spec

if TYPE_CHECKING:
    from elmokit.model import Carry, Layers, Pool

Policy = Literal["fresh", "warm", "carry"]


class Embedder(Protocol):
    """What the job needs of a model; `elmokit.Elmo` is one."""

    @property
    def dim(self) -> int:
        """Width of a vector."""

    @property
    def n_layers(self) -> int:
        """Number of layers that `layers="all"` gives."""

    @property
    def fingerprint(self) -> str:
        """The same for models that compute the same."""

    def embed(
        self,
        sentences: Iterable[Sequence[str]],
        *,
        layers: Layers,
        pool: Pool,
        state: Literal["fresh", "warm", "carry"] | Carry,
        batch_size: int | None,
    ) -> Iterator[Array]:
        """Yield one array for each sentence, lazily and in order."""


@dataclass(frozen=True)
class Summary:
    """What a job did: sentences and tokens in the output, those of them from an earlier run, and this run's seconds."""

    sentences: int
    tokens: int
    resumed_sentences: int
    resumed_tokens: int
    seconds: float


def embed_file(
    text_path: str | Path,
    out: str | Path,
    *,
    elmo: Embedder,
    layers: Layers = "average",
    pool: Pool = "none",
    state: Policy = "fresh",
    batch_size: int | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    tokenize: bool = False,
    symbols: bool = False,
    column: str | None = None,
    use_sentence_keys: bool = False,
    forget_sentences: bool = False,
    resume: bool = False,
    force: bool = False,
    save_every: int = 10_000,
    progress: bool = True,
) -> Summary:
    """Write the vectors of a text ("-": standard input) to `out`, whose ending chooses the format.

    The options from `layers` to `batch_size` are those of `Elmo.embed`, those from `tokenize` to `column` those of
    `read_sentences`; the two after them are for HDF5 (AllenNLP's names). Every `save_every` sentences (with
    `state="carry"`, the next multiple of `batch_size`) what is done is made safe in the folder OUT.partial; after any
    interruption `resume` continues from there, and the file is equal to that of an uninterrupted run. `force` replaces
    `out`, and throws OUT.partial away unless `resume` is there too. `progress` draws a bar on standard error.

    Raises `OutputError` (something is in the way, disk full, another process at work), `TextError` (also for a text of
    no sentences), `MismatchError` (text, model or an option is not that of the run to resume), `MissingExtra`.
    """
    start = time.monotonic()
    expect_path(text_path, "text_path")
    expect_path(out, "out")
    expect_model(elmo)
    chosen: dict[str, Any] = {"layers": layers, "pool": pool, "state": state, "batch_size": batch_size}
    reading: dict[str, Any] = {"tokenize": tokenize, "symbols": symbols, "column": column}
    spec, settings = asked_for(elmo, chosen, reading, dtype=dtype, save_every=save_every)
    spec = replace(spec, sentence_keys=use_sentence_keys, forget_sentences=forget_sentences)
    keys = {"use_sentence_keys": use_sentence_keys, "forget_sentences": forget_sentences}
    place = Partial(Path(out), spec, {**settings, **keys})
    _check_keys(place, spec)
    with place.open(resume=resume, force=force):
        carry = _begin_carry(place) if state == "carry" else None
        embed = partial(elmo.embed, **{**chosen, "state": carry or state})
        text = _Text(read_sentences(text_path, **reading), SentenceKeys() if use_sentence_keys else None)
        _skip(text, place.progress)
        if not text.sentences and not text.more():
            raise TextError(f"{text_path} holds no sentence; there is nothing to embed")
        resumed, resumed_tokens = text.sentences, text.tokens
        length = _whole_batches(save_every, batch_size) if carry else save_every
        with tqdm(unit=" sentences", initial=resumed, disable=not progress) as bar:
            while text.more():
                _embed_segment(text, place, embed=embed, carry=carry, length=length, bar=bar)
        place.publish()
    return Summary(text.sentences, text.tokens, resumed, resumed_tokens, time.monotonic() - start)


def _whole_batches(sentences: int, batch_size: int | None) -> int:
    from elmokit.model import CARRIED_ROWS

    rows = batch_size or CARRIED_ROWS
    return -(-sentences // rows) * rows


def asked_for(
    elmo: Embedder,
    chosen: dict[str, Any],
    reading: dict[str, Any],
    *,
    dtype: Literal["float32", "float16"],
    save_every: int,
) -> tuple[Spec, dict[str, Any]]:
    """Return what the output will hold, and the settings that a run which goes on must share with the first.

    chosen: the options of `Elmo.embed`; reading: those of `read_sentences`. Raises `MismatchError` for options that the
    model refuses, and for `save_every` below 1.
    """
    elmo.embed((), **chosen)  # refuses them before anything is written
    expect_count(save_every, "save_every")
    plain = {**chosen, "layers": plain_layers(chosen["layers"])}
    spec = Spec(
        width=elmo.dim,
        layers=elmo.n_layers if plain["layers"] == "all" else None,
        pooled=chosen["pool"] != "none",
        dtype=dtype,
        notes={"model": elmo.fingerprint, "options": json.dumps(plain)},
    )
    return spec, {"model": elmo.fingerprint, **plain, "dtype": dtype, **reading, "save_every": save_every}


def _check_keys(place: Partial, spec: Spec) -> None:
    if (spec.sentence_keys or spec.forget_sentences) and place.out.suffix.lower() not in (".hdf5", ".h5"):
        raise OutputError(
            f"{place.out}: sentences as keys and forgetting sentences are for HDF5 only; write .hdf5, or leave them out"
        )


def _embed_segment(
    text: _Text,
    place: Partial,
    *,
    embed: Callable[[Iterable[Sequence[str]]], Iterator[Array]],
    carry: Carry | None,
    length: int,
    bar: tqdm[NoReturn],
) -> None:
    """Embed the next `length` sentences in one call, so that batches never depend on where an earlier run stopped."""
    start, done = time.monotonic(), 0
    for array in embed(text.take(length)):
        number, tokens = text.waiting.popleft()
        place.write(number, tokens, array)
        done += len(tokens)
        if bar.update():  # it was drawn: once in a while
            _show_rate(bar, done, time.monotonic() - start)
    _show_rate(bar, done, time.monotonic() - start)
    place.finish_segment(
        sentences=text.sentences,
        tokens=text.tokens,
        text=text.digest(),
        ended=not text.more(),
        state=_carried_arrays(carry),
    )


def _show_rate(bar: tqdm[NoReturn], tokens: int, seconds: float) -> None:
    bar.set_postfix_str(f"{tokens / max(seconds, 1e-9):,.0f} tokens/s", refresh=False)


# ---------------------------------------------------------------- the text


class _Text:
    """Sentences being read: counted, digested, checked as keys; those not yet embedded are `waiting`."""

    def __init__(self, sentences: Iterator[list[str]], keys: SentenceKeys | None) -> None:
        self.sentences = 0
        self.tokens = 0
        self.waiting: deque[tuple[int, list[str]]] = deque()
        self._source = sentences
        self._next: list[str] | None = None
        self._keys = keys
        self._digest = hashlib.sha256()

    def more(self) -> bool:
        """Return whether another sentence is there."""
        if self._next is None:
            self._next = next(self._source, None)
        return self._next is not None

    def take(self, count: int) -> Iterator[list[str]]:
        """Yield the next `count` sentences, or as many as there are."""
        for _ in range(count):
            if not self.more() or (sentence := self._next) is None:
                return
            if self._keys:
                self._keys.claim(self.sentences, sentence)
            self._digest.update(json.dumps(sentence).encode())
            self.waiting.append((self.sentences, sentence))
            self.sentences += 1
            self.tokens += len(sentence)
            self._next = None
            yield sentence

    def digest(self) -> str:
        """Return the SHA-256 of what was taken so far."""
        return self._digest.hexdigest()


def _skip(text: _Text, progress: Progress) -> None:
    """Read again what an earlier run has done; `MismatchError` if it is not the same text."""
    if not progress.segments:
        return
    for _ in text.take(progress.sentences):
        text.waiting.clear()
    if text.digest() != progress.text:
        raise MismatchError(
            f"the text is not that of the interrupted run: its first {progress.sentences:,} sentences differ; "
            "give the same text, or start again with --force"
        )
    if progress.ended and text.more():
        raise MismatchError(
            f"the text has grown since the interrupted run, which saw its end after {progress.sentences:,} sentences; "
            "give the same text, or start again with --force"
        )


# ---------------------------------------------------------------- carried state


def _begin_carry(place: Partial) -> Carry:
    """Return an empty state, or the one after the last finished segment."""
    import torch  # only here: what else the job does needs no torch itself

    from elmokit.model import Carry
    from elmokit.network import State

    arrays = place.state()
    return Carry(State(torch.from_numpy(arrays["h"]), torch.from_numpy(arrays["c"])) if arrays else None)


def _carried_arrays(carry: Carry | None) -> dict[str, Array] | None:
    if carry is None or carry.state is None:
        return None
    return {"h": carry.state.h.float().cpu().numpy(), "c": carry.state.c.cpu().numpy()}
