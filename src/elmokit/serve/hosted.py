"""A model that is served: what is computed with it, for many requests at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from elmokit.errors import ElmoError
from elmokit.lm import LanguageModel
from elmokit.model import Elmo, Pool

Layers: TypeAlias = str | int | tuple[float, ...]


class Vectors(NamedTuple):
    """The task of `Elmo.embed`."""

    model: str
    layers: Any = "average"
    pool: Pool = "none"


class Scores(NamedTuple):
    """The task of `LanguageModel.score`."""

    model: str


class Substitutes(NamedTuple):
    """The task of `LanguageModel.substitutes_at`; its items are sentences, each with one place."""

    model: str
    k: int


class Hosted:
    """A model under the name by which clients ask for it; it has embedded a sentence when it is made."""

    def __init__(self, name: str, elmo: Elmo) -> None:
        self.name, self.elmo = name, elmo
        self.words = elmo.word_vectors()
        self.reader = _reader(elmo)
        self.opened = int(time.time())
        self.compute(Vectors(name), [["a"]])  # packs the weights, so that the first client need not wait for it

    def spell(self, task: Vectors | Scores | Substitutes, items: Sequence[Any]) -> None:
        """Compute what words are spelled like, of the words that are new; as a language model it does so itself."""
        if isinstance(task, Vectors):
            marks = self.elmo.speller.marks
            self.words.learn(list(dict.fromkeys((marks.begin, marks.end, *(word for item in items for word in item)))))

    def compute(self, task: Vectors | Scores | Substitutes, items: Sequence[Any]) -> list[Any]:
        """Return the result for each item."""
        if isinstance(task, Vectors):
            return list(self.elmo.embed(items, layers=task.layers, pool=task.pool, words=self.words))
        if self.reader is None:
            raise LookupError(f"{self.name} has no softmax head")
        if isinstance(task, Scores):
            return list(self.reader.score(items))
        return [self.reader.substitutes(sentence, place, task.k) for sentence, place in items]


def _reader(elmo: Elmo) -> LanguageModel | None:
    """Return the model as a language model, or None where it cannot be one."""
    try:
        return LanguageModel(elmo)
    except ElmoError:
        return None
