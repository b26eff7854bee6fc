"""`Service`: the models that are served, what may be asked of them, and the one queue in front of them.

Axes of results: L layers, T tokens, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request
from numpy.typing import NDArray

from elmokit.errors import MismatchError, MissingExtra, TextError
from elmokit.lm import Scores as SentenceScores
from elmokit.lm import Substitute
from elmokit.memory import give_back_freed_memory
from elmokit.model import Layers, Pool
from elmokit.reading import Splitter
from elmokit.serve.batcher import Batcher, Full, Item
from elmokit.serve.hosted import Hosted, Scores, Search, Senses, Substitutes, Task, Vectors
from elmokit.serve.metrics import Metrics
from elmokit.serve.refusal import Refusal
from elmokit.serve.settings import Limits, Settings

if TYPE_CHECKING:
    from elmokit.search import Hit

Array = NDArray[np.float32]
Sentences = Sequence[Sequence[str]]
# Uses of a word that are grouped: their number counts twice in time.
_MOST_USES = 2000
# Characters of raw text that may be sent for each token that a request may have: some texts take a second to split for
# every 20,000 characters.
_CHARACTERS_A_TOKEN = 16
# Items computed until the holes that batches of ever other sizes leave in memory are given back to the system.
_GIVE_BACK_AFTER = 1000


class Service:
    """Models by name. It is started in a running event loop, and stopped there."""

    def __init__(self, models: Sequence[Hosted], settings: Settings) -> None:
        self.models: Mapping[str, Hosted] = {hosted.name: hosted for hosted in models}
        self.settings = settings
        self.metrics = Metrics()
        self.metrics.watch_queue(lambda: self._batcher.waiting if self._batcher else 0)
        self._splitting = CapacityLimiter(1)  # splitting holds Python's lock: more threads would be no faster
        self._being_split = 0  # characters of raw texts, those that wait among them
        self._batcher: Batcher | None = None
        self._since_given_back = 0  # items computed since then

    def start(self) -> None:
        """Start computing."""
        batch, queue = self.settings.batch_tokens, self.settings.queue_tokens
        self._batcher = Batcher(self._spell, self._compute, batch=batch, queue=queue, observer=self.metrics)

    async def stop(self) -> None:
        """Stop computing."""
        if self._batcher:
            await self._batcher.close()

    @property
    def ready(self) -> bool:
        """Whether requests are computed."""
        return self._batcher is not None and self._batcher.alive

    def check_ready(self) -> None:
        """Raise `Refusal` where requests are not computed."""
        if not self.ready:
            raise Refusal(503, "the server is not computing; look at its log and start it again")

    def model(self, name: str | None) -> Hosted:
        """Return a model; the first of all where no name is given."""
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            known = ", ".join(self.models)
            raise Refusal(
                404, f"no model is called {name!r} here; there is {known}", param="model", code="model_not_found"
            )
        return self.models[name]

    # ------------------------------------------------------------ what may be asked

    async def split(self, texts: Sequence[str]) -> list[list[list[str]]]:
        """Return the sentences of each raw text (syntok), or refuse what has more tokens than a request may have."""
        if len(texts) > self.settings.limits.sentences:
            found = f"the request has {len(texts)} texts, at most {self.settings.limits.sentences} are taken"
            raise Refusal(422, f"{found}; send fewer")
        total, most = sum(map(len, texts)), _CHARACTERS_A_TOKEN * self.settings.limits.request_tokens
        if total > most:
            found = f"the texts have {total} characters, at most {most} are split in one request"
            raise Refusal(422, f"{found}; send them in parts")
        if self._being_split and self._being_split + total > most:
            message = "the server is busy splitting texts; try again in 1 s, or send sentences"
            raise Refusal(503, message, headers={"Retry-After": "1"})
        given_up = Event()
        self._being_split += total
        try:
            return await to_thread.run_sync(_split, texts, self.settings.limits, given_up, limiter=self._splitting)
        finally:
            self._being_split -= total
            given_up.set()  # a thread cannot be cancelled: it looks for itself

    async def vectors(
        self, hosted: Hosted, sentences: Sentences, *, layers: Layers = "average", pool: Pool = "none"
    ) -> list[Array]:
        """Return what `Elmo.embed` yields for the sentences."""
        sizes = check_sentences(sentences, self.settings.limits)
        check_reply(hosted, sum(sizes) if pool == "none" else len(sizes), layers, self.settings.limits)
        layers = layers if isinstance(layers, str | int) else tuple(layers)
        return await self._run(Vectors(hosted.name, layers, pool), sentences, sizes)

    async def scores(self, hosted: Hosted, sentences: Sentences) -> list[SentenceScores]:
        """Return the scores of the sentences by a model with a softmax head."""
        check_head(hosted)
        return await self._run(Scores(hosted.name), sentences, check_sentences(sentences, self.settings.limits))

    async def substitutes(self, hosted: Hosted, sentence: Sequence[str], place: int, k: int) -> list[Substitute]:
        """Return the k likeliest words for a place of a sentence, by a model with a softmax head."""
        check_head(hosted)
        sizes = check_sentences([sentence], self.settings.limits)
        if not 0 <= place < len(sentence):
            raise Refusal(422, f"the sentence has {len(sentence)} tokens, counted from 0; there is no token {place}")
        return (await self._run(Substitutes(hosted.name, k), [(sentence, place)], sizes))[0]

    async def search(self, hosted: Hosted, sentence: Sequence[str], place: int | None, k: int) -> list[Hit]:
        """Return the k rows of the model's index that are nearest to a sentence, or to the word in a place of it."""
        if hosted.index is None:
            raise Refusal(422, f"no index is searched with the model {hosted.name!r}; start the server with --index")
        sizes = check_sentences([sentence], self.settings.limits)
        return (await self._run(Search(hosted.name, k), [(sentence, place)], sizes))[0]

    async def senses(
        self, hosted: Hosted, sentences: Sentences, word: str, *, n: int | None, layer: str
    ) -> dict[str, Any]:
        """Return the senses of a word in the sentences, as `Senses.as_dict`."""
        sizes = check_sentences(sentences, self.settings.limits)
        uses = sum(token.casefold() == word.casefold() for sentence in sentences for token in sentence)
        if uses > _MOST_USES:
            raise Refusal(422, f"the word stands in the text {uses} times, at most {_MOST_USES} are grouped; send less")
        return (await self._run(Senses(hosted.name, word, n, layer), [sentences], [sum(sizes)]))[0]

    async def _run(self, task: Task, items: Sequence[Item], sizes: Sequence[int]) -> Any:
        self.check_ready()
        assert self._batcher
        self.metrics.tokens.labels(task.model, type(task).__name__.lower()).inc(sum(sizes))
        try:
            return await self._batcher.run(task, items, sizes)
        except Full as full:
            raise Refusal(
                503, f"the server is busy; try again in {full.seconds} s", headers={"Retry-After": str(full.seconds)}
            ) from None
        except (MismatchError, TextError) as error:  # layers that are not there, a word that is not
            raise Refusal(422, str(error)) from None
        except MissingExtra as error:
            raise Refusal(501, f"this server cannot do that: {error}") from None

    def _spell(self, task: Task, items: list[Item]) -> None:
        self.models[task.model].spell(task, items)

    def _compute(self, task: Task, items: list[Item]) -> list[Any]:
        found = self.models[task.model].compute(task, items)
        self._since_given_back += len(items)
        if self._since_given_back >= _GIVE_BACK_AFTER:
            self._since_given_back = 0
            give_back_freed_memory()
        return found


async def service_of(request: Request) -> Service:  # where it is not async, a thread is woken for it
    """Return the service that answers a request."""
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(service_of)]


def _split(texts: Sequence[str], limits: Limits, given_up: Event) -> list[list[list[str]]]:
    """Split texts until it is done, they are too many, or nobody waits for it."""
    split, left = Splitter(tokenize=True), limits.request_tokens
    found: list[list[list[str]]] = []
    for text in texts:
        found.append([])
        for sentence in split(text.splitlines()):
            if given_up.is_set():
                return []
            found[-1].append(sentence)
            left -= len(sentence)
            if left < 0:
                most = limits.request_tokens
                raise Refusal(422, f"the texts have more than {most} tokens, which is the most; send them in parts")
    return found


# ---------------------------------------------------------------- limits


def check_sentences(sentences: Sentences, limits: Limits) -> list[int]:
    """Return the numbers of tokens, at least 1 each, or refuse what is over a limit."""
    if len(sentences) > limits.sentences:
        raise Refusal(
            422, f"the request has {len(sentences)} sentences, at most {limits.sentences} are taken; send fewer"
        )
    sizes = [max(1, len(sentence)) for sentence in sentences]
    longest = max(sizes, default=0)
    if longest > limits.tokens:
        number = sizes.index(longest)
        raise Refusal(
            422, f"sentence {number} has {longest} tokens, at most {limits.tokens} are taken; cut it into sentences"
        )
    if sum(sizes) > limits.request_tokens:
        found = f"the request has {sum(sizes)} tokens, at most {limits.request_tokens} are taken"
        raise Refusal(422, f"{found}; send it in parts")
    for number, sentence in enumerate(sentences):
        _check_tokens(number, sentence, limits)
    return sizes


def _check_tokens(number: int, sentence: Sequence[str], limits: Limits) -> None:
    if sentence and len(max(sentence, key=len)) > limits.characters:
        found = f"a token of sentence {number} has more than {limits.characters} characters"
        raise Refusal(422, f"{found}; text is sent as words")
    try:
        "".join(sentence).encode()
    except UnicodeEncodeError:
        raise Refusal(422, f"sentence {number} holds half of a surrogate pair, which is no character") from None


def check_reply(hosted: Hosted, rows: int, layers: Layers, limits: Limits) -> None:
    """Refuse what would be too large an answer."""
    values = rows * hosted.elmo.dim * (hosted.elmo.n_layers if layers == "all" else 1)
    if values > limits.values:
        raise Refusal(
            422,
            f"the reply would hold {values} numbers, at most {limits.values} are sent; send fewer sentences, ask for "
            "one layer, or pool",
        )


def check_head(hosted: Hosted) -> None:
    """Refuse what takes a softmax head where there is none."""
    if hosted.reader is None:
        raise Refusal(422, f"the model {hosted.name!r} has no softmax head, so it cannot predict words")
