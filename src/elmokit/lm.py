"""A model with its softmax head as a language model: perplexity, surprisal, substitutes. All probabilities are exact.

The forward direction reads `<S>` w1..wn and predicts w1..wn `</S>`, the backward one reads `</S>` wn..w1 and predicts
wn..w1 `<S>`, each from the top layer, as in training. A word that the head does not know is predicted
as `<UNK>` and read as it is spelled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elmokit.errors import MismatchError, expect, expect_count, expect_iterable, expect_one_of
from elmokit.head import read_head
from elmokit.model import Carry, Elmo
from elmokit.network import State
from elmokit.text import check_sentence

Sentence: TypeAlias = Sequence[str]
StateName: TypeAlias = Literal["fresh", "warm", "carry"]
Values: TypeAlias = NDArray[np.float64]

# Sentences sorted by length together: enough for little padding.
_WINDOW = 512


@dataclass(frozen=True)
class Scores:
    """Log-probabilities (nats) of one sentence of n tokens, in reading order.

    forward (n + 1,): of w1..wn and `</S>`, each given what stands before; backward (n + 1,): of `<S>` and w1..wn, each
    given what follows; unknown: how many of the tokens the head does not know.
    """

    tokens: tuple[str, ...]
    forward: Values
    backward: Values
    unknown: int

    def surprisal(self) -> tuple[Values, Values]:
        """Return how unexpected each token is, in bits: forward (n,) and backward (n,)."""
        return -self.forward[:-1] / math.log(2), -self.backward[1:] / math.log(2)


@dataclass(frozen=True)
class Perplexity:
    """Perplexities of a text; places: predictions of each direction, unknown: of those, words that the head lacks."""

    forward: float
    backward: float
    places: int
    unknown: int

    @property
    def mean(self) -> float:
        """Return exp of the mean of both losses, as the paper and bilm-tf's run_test report it."""
        return math.sqrt(self.forward * self.backward)


@dataclass(frozen=True)
class Substitute:
    """A word for a place: its probability in both directions together, and in each."""

    word: str
    probability: float
    forward: float
    backward: float


class LanguageModel:
    """What an `Elmo` with a softmax head says of words in their places.

    Raises `MismatchError` for a model without a head, or one whose layers read both directions.
    """

    def __init__(self, elmo: Elmo) -> None:
        expect(Elmo, elmo, "elmo", "a model; open one with elmokit.load")
        head = read_head(elmo.extras)
        if head is None or elmo.vocabulary is None:
            raise MismatchError(
                f"this model ({elmo.source}) has no softmax head and cannot predict words; take one that has, name the "
                "head's file (--softmax), or train one (elmo train --from)"
            )
        if elmo.config.lstm.joined:
            raise MismatchError("the layers of this model read both directions, so it cannot predict words")
        self.elmo, self.head, self.vocabulary = elmo, head, elmo.vocabulary
        self.rows = {word: row for row, word in enumerate(elmo.vocabulary)}
        missing = [mark for mark in elmo.config.sentence_marks if mark not in self.rows]
        if missing:
            raise MismatchError(f"the vocabulary of this model's head lacks {missing[0]}, which every text needs")
        self.marks = [self.rows[mark] for mark in elmo.config.sentence_marks]

    def score(
        self, sentences: Iterable[Sentence], *, state: StateName | Carry = "fresh", batch_size: int = 32
    ) -> Iterator[Scores]:
        """Yield the scores of each sentence, in order.

        `state`: as for `Elmo.embed`: with "fresh" and "warm" a sentence's scores depend on nothing else; with "carry"
        row b of a batch of `batch_size` sentences starts where row b of the batch before ended; pass a `Carry` to keep
        it.
        """
        expect_count(batch_size, "batch_size")
        expect(Iterable, sentences, "sentences", "lists of tokens")
        if not isinstance(state, Carry):
            expect_one_of(("fresh", "warm", "carry"), state, "state")
        if state == "carry":
            state = Carry()
        sentences = _checked(sentences)
        if isinstance(state, Carry):
            while batch := list(islice(sentences, batch_size)):
                yield from self._score_carried(batch, state)
            return
        start = self._start(state)
        while window := list(islice(sentences, _WINDOW)):
            order = sorted(range(len(window)), key=lambda i: -len(window[i]))
            found: dict[int, Scores] = {}
            for first in range(0, len(order), batch_size):
                numbers = order[first : first + batch_size]
                batch = [window[i] for i in numbers]
                found |= zip(numbers, self._score(batch, start.repeated(len(batch)))[0], strict=True)
            yield from (found[i] for i in range(len(window)))

    def perplexity(
        self, sentences: Iterable[Sentence], *, state: StateName = "fresh", batch_size: int = 32
    ) -> Perplexity:
        """Return the perplexities of a text; its empty sentences count with their end marks."""
        return perplexity_of(self.score(sentences, state=state, batch_size=batch_size))

    def substitutes(
        self, sentence: Sentence, place: int, k: int = 10, *, state: Literal["fresh", "warm"] = "fresh"
    ) -> list[Substitute]:
        """Return the k likeliest words for a place (0-based) of a sentence, likeliest first.

        The word that stands there is not read, and may be among them; `<S>`, `</S>` and `<UNK>` are not. See
        `together`.
        """
        return next(self.substitutes_at(sentence, [place], k, state=state))

    def substitutes_at(
        self, sentence: Sentence, places: Sequence[int], k: int = 10, *, state: Literal["fresh", "warm"] = "fresh"
    ) -> Iterator[list[Substitute]]:
        """Yield what `substitutes` returns for each of several places; the sentence is read once."""
        check_sentence(sentence, 0)
        expect_count(k, "k")
        for place in places:
            expect(int, place, "place", "the number of a token")
            if not 0 <= place < len(sentence):
                raise MismatchError(
                    f"the sentence has {len(sentence)} tokens, numbered from 0, and none is number {place}"
                )
        if places:
            tops_ZTP = self._tops(sentence, state)
            yield from (self._likeliest(tops_ZTP[:, place], k) for place in places)

    def _likeliest(self, tops_ZP: Tensor, k: int) -> list[Substitute]:
        logs_ZV = self.head.all_log_probabilities(tops_ZP).double()
        together_V = self.together(*logs_ZV).exp()
        best = torch.topk(together_V, min(k, len(self.vocabulary) - len(self.marks))).indices.tolist()
        return [Substitute(self.vocabulary[i], *(float(p[i]) for p in (together_V, *logs_ZV.exp()))) for i in best]

    def distributions(self, sentence: Sentence, *, state: Literal["fresh", "warm"] = "fresh") -> tuple[Tensor, Tensor]:
        """Return the log-probabilities (n, V) float64 of all words at each place of a sentence: forward, backward."""
        forward_TV, backward_TV = (self.head.all_log_probabilities(x).double() for x in self._tops(sentence, state))
        return forward_TV, backward_TV

    def _tops(self, sentence: Sentence, state: Literal["fresh", "warm"]) -> Tensor:
        """Return what both directions predict the tokens of a sentence from, (Z, n, P), in reading order."""
        top_TZBP, _ = self._run([sentence], self._start(state))
        # Forward, step k predicts token k; backward, step k predicts token n - 1 - k.
        n = len(sentence)
        return torch.stack([top_TZBP[:n, 0, 0], top_TZBP[:n, 1, 0].flip(0)])

    def together(self, forward_V: Tensor, backward_V: Tensor) -> Tensor:
        """Return the log-probabilities (..., V) of words, the marks left out, given both sides of their place.

        If what stands before and what follows were independent given the word, that would be the product of what both
        directions say, divided by the word's frequency, which otherwise counts twice. The frequency is the log-uniform
        one that the sampled softmax supposes: vocabularies are sorted by it.
        """
        rank_V = torch.arange(len(self.vocabulary), dtype=forward_V.dtype)
        frequency_V = torch.log((rank_V + 2) / (rank_V + 1))
        logs_V = forward_V + backward_V - frequency_V.log()
        logs_V[..., self.marks] = -math.inf
        return torch.log_softmax(logs_V, -1)

    # ------------------------------------------------------------ computing

    def _start(self, state: Literal["fresh", "warm"]) -> State:
        expect_one_of(("fresh", "warm"), state, "state")
        if state == "fresh":
            return self.elmo.network.zero_state(1)
        if self.elmo.warm_state is None:
            raise MismatchError("this model stores no warmed state; take state fresh, or a model made with Elmo.warm")
        return self.elmo.warm_state.to(self.elmo.network.device)

    def _score_carried(self, batch: list[Sentence], carry: Carry) -> list[Scores]:
        order = sorted(range(len(batch)), key=lambda i: -len(batch[i]))
        before = (carry.state or self.elmo.network.zero_state(0)).grown(len(batch))
        index = torch.tensor(order)
        scores, after = self._score([batch[i] for i in order], before.select(index))
        carry.state = before.replaced(after.select(torch.argsort(index)))
        return [scores[place] for place in np.argsort(order).tolist()]

    @torch.inference_mode()
    def _score(self, batch: list[Sentence], state: State) -> tuple[list[Scores], State]:
        """Score sentences that are sorted, longest first."""
        top_TZBP, state = self._run(batch, state)
        scores = []
        for b, sentence in enumerate(batch):
            n = len(sentence)
            begin, end, unknown = self.marks
            words = [self.rows.get(word, unknown) for word in sentence]
            targets = torch.tensor([*words, end, *words[::-1], begin])
            logs = self.head.log_probabilities(top_TZBP[: n + 1, :, b].transpose(0, 1).flatten(0, 1), targets)
            forward, backward = logs.double().numpy().reshape(2, n + 1)
            unknowns = sum(word not in self.rows for word in sentence)
            scores.append(Scores(tuple(sentence), forward, backward[::-1].copy(), unknowns))
        return scores, state

    @torch.inference_mode()
    def _run(self, batch: list[Sentence], state: State) -> tuple[Tensor, State]:
        """Return the top layer (T, Z, B, P) of sentences, longest first, each direction in its own reading order."""
        begin, end, _ = self.elmo.speller.marks
        index: dict[str, int] = {}
        lengths = [len(sentence) + 1 for sentence in batch]
        words_TZB = np.zeros((max(lengths), 2, len(batch)), np.int64)
        for b, sentence in enumerate(batch):
            for z, read in enumerate(((begin, *sentence), (end, *reversed(sentence)))):
                words_TZB[: len(read), z, b] = [index.setdefault(word, len(index)) for word in read]
        words_UP = self.elmo.network.encode(self.elmo.speller.spell(list(index)))
        rows = [sum(length > t for length in lengths) for t in range(max(lengths))]
        layers, state = self.elmo.network.run(words_UP[torch.from_numpy(words_TZB)], state, rows=rows)
        return layers[-1].float().cpu(), state  # as the head has its weights


def _checked(sentences: Iterable[Sentence]) -> Iterator[Sentence]:
    expect_iterable(sentences, "sentences", "lists of tokens")
    for number, sentence in enumerate(sentences):
        check_sentence(sentence, number)
        yield sentence


def perplexity_of(scores: Iterable[Scores]) -> Perplexity:
    """Return the perplexities of a text of which these are the scores; not a number where there are none."""
    forward = backward = 0.0
    places = unknown = 0
    for score in scores:
        forward, backward = forward - score.forward.sum(), backward - score.backward.sum()
        places, unknown = places + len(score.forward), unknown + score.unknown
    if not places:
        return Perplexity(math.nan, math.nan, 0, 0)
    return Perplexity(exp_of_loss(forward / places), exp_of_loss(backward / places), places, unknown)


def exp_of_loss(loss: float) -> float:
    """Return the perplexity of a mean loss (nats), infinite where it is beyond all numbers."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
