"""A model that is served: what is computed with it, for many requests at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from elmokit.errors import ElmoError
from elmokit.lm import LanguageModel
from elmokit.model import Elmo, Pool, Sentence
from elmokit.text import distinct_words

if TYPE_CHECKING:
    from elmokit.search import Index


# What is asked of a model. Equal tasks are computed together, so these are no tuples: two of different classes would be
# equal where their values are.


@dataclass(frozen=True)
class Vectors:
    """The task of `Elmo.embed`."""

    model: str
    layers: Any = "average"
    pool: Pool = "none"


@dataclass(frozen=True)
class Scores:
    """The task of `LanguageModel.score`."""

    model: str


@dataclass(frozen=True)
class Substitutes:
    """The task of `LanguageModel.substitutes_at`; its items are sentences, each with one place."""

    model: str
    k: int


@dataclass(frozen=True)
class Search:
    """The task of `Index.search`; its items are sentences, each with a place or None."""

    model: str
    k: int


@dataclass(frozen=True)
class Senses:
    """The task of `find_senses`; its items are lists of sentences."""

    model: str
    word: str
    n: int | None
    layer: str


Task: TypeAlias = Vectors | Scores | Substitutes | Search | Senses


class Hosted:
    """A model under the name by which clients ask for it; it has embedded a sentence when it is made.

    `index`: what is searched with it.
    """

    def __init__(self, name: str, elmo: Elmo, *, index: Index | None = None) -> None:
        self.name, self.elmo, self.index = name, elmo, index
        self.words = elmo.word_vectors()
        self.reader = _language_model(elmo)
        self.opened = int(time.time())
        self.compute(Vectors(name), [["a"]])  # packs the weights, so that the first client need not wait for it

    def spell(self, task: Task, items: Sequence[Any]) -> None:
        """Compute what words are spelled like, of the words that are new; other tasks than vectors do so themselves."""
        if isinstance(task, Vectors):
            self.words.learn(distinct_words(items, self.elmo.speller.marks))

    def compute(self, task: Task, items: Sequence[Any]) -> list[Any]:
        """Return the result for each item."""
        if isinstance(task, Vectors):
            return list(self.elmo.embed(items, layers=task.layers, pool=task.pool, words=self.words))
        if isinstance(task, Search):
            return [self._index.search(sentence, place=place, count=task.k) for sentence, place in items]
        if isinstance(task, Senses):
            return [self._senses(task, sentences) for sentences in items]
        if isinstance(task, Scores):
            return list(self._reader.score(items))
        return [self._reader.substitutes(sentence, place, task.k) for sentence, place in items]

    def _senses(self, task: Senses, sentences: Sequence[Sentence]) -> dict[str, Any]:
        from elmokit.senses import find_senses  # it needs packages that the server can do without

        found = find_senses(self.elmo, sentences, task.word, n=task.n, layer=task.layer, progress=False)
        return found.as_dict()

    @property
    def _index(self) -> Index:
        if self.index is None:
            raise LookupError(f"{self.name} has no index")
        return self.index

    @property
    def _reader(self) -> LanguageModel:
        if self.reader is None:
            raise LookupError(f"{self.name} has no softmax head")
        return self.reader


def _language_model(elmo: Elmo) -> LanguageModel | None:
    """Return the model as a language model, or None where it cannot be one."""
    try:
        return LanguageModel(elmo)
    except ElmoError:
        return None
