"""The spaCy component "elmo": vectors for the tokens of documents.

Once elmokit is installed, `nlp.add_pipe("elmo")` finds it.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from elmokit.errors import MismatchError, require
from elmokit.model import Elmo, Layers, Precision, load

language = require("spacy.language", extra="spacy")
tokens = require("spacy.tokens", extra="spacy")
util = require("spacy.util", extra="spacy")

_MODEL = "model"  # the folder of the component in which the model is saved


class ElmoComponent:
    """Fills `doc.tensor` and `doc._.elmo` (tokens, D) float32, of which `token._.elmo` is a row.

    Each sentence is embedded by itself where a component before this one has set their ends, else the document is one
    sentence. Tokens of white space are not read; their rows are zeros.

    `model`: what `elmokit.load` opens, at first use; options as of `elmokit.load` and `Elmo.embed`.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        layers: Layers = "average",
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        if isinstance(layers, str) and layers == "all":
            raise MismatchError("layers: expected one vector a token, found 'all'; choose a layer or \"average\"")
        self.model, self.layers, self.device, self.precision = model, layers, device, precision
        self._elmo: Elmo | None = None
        tokens.Doc.set_extension("elmo", default=None, force=True)
        tokens.Token.set_extension("elmo", getter=_row, force=True)

    @property
    def elmo(self) -> Elmo:
        """The model; opened when it is first asked for, so that a saved pipeline opens its own copy only."""
        if self._elmo is None:
            self._elmo = load(self.model, device=self.device, precision=self.precision)
        return self._elmo

    def __call__(self, doc: Any) -> Any:
        """Embed one document, and return it."""
        return next(self.pipe([doc]))

    def pipe(self, stream: Iterable[Any], *, batch_size: int = 128) -> Iterator[Any]:
        """Embed documents, so many together, and yield them in order."""
        for docs in util.minibatch(stream, size=batch_size):
            docs = list(docs)
            sentences = [sentence for doc in docs for sentence in _sentences(doc)]
            vectors = self.elmo.embed(
                [[token.text for token in sentence] for sentence in sentences], layers=self.layers
            )
            for doc in docs:
                doc.tensor = np.zeros((len(doc), self.elmo.dim), np.float32)
                doc._.elmo = doc.tensor
            for sentence, rows in zip(sentences, vectors, strict=True):
                if sentence:
                    sentence[0].doc.tensor[[token.i for token in sentence]] = rows
            yield from docs

    def to_disk(self, path: str | Path, *, exclude: Sequence[str] = ()) -> None:
        """Write the model into the folder `path`, unless it is excluded."""
        if _MODEL not in exclude:
            Path(path).mkdir(parents=True, exist_ok=True)
            self.elmo.save(Path(path) / _MODEL)

    def from_disk(self, path: str | Path, *, exclude: Sequence[str] = ()) -> "ElmoComponent":
        """Open the model that `to_disk` wrote."""
        if _MODEL not in exclude:
            self._elmo = load(Path(path) / _MODEL, device=self.device, precision=self.precision)
        return self


@language.Language.factory("elmo", assigns=["doc.tensor", "doc._.elmo", "token._.elmo"])  # type: ignore[untyped-decorator]
def make_elmo(
    nlp: language.Language,  # type: ignore[name-defined]  # noqa: ARG001 (spaCy passes it by name)
    name: str,  # noqa: ARG001
    model: str | None = None,
    layers: str | int | list[float] = "average",
    device: str = "cpu",
    precision: Literal["float32", "bfloat16"] = "float32",
) -> ElmoComponent:
    """Make the component of a pipeline's configuration."""
    return ElmoComponent(model, layers=layers, device=device, precision=precision)  # type: ignore[arg-type]


def _sentences(doc: Any) -> Iterator[list[Any]]:
    """Yield the tokens of each sentence, those of white space left out."""
    parts = doc.sents if doc.has_annotation("SENT_START") else [doc]
    for part in parts:
        yield [token for token in part if not token.is_space]


def _row(token: Any) -> Any:
    """Return what `token._.elmo` is; None where the component has not run."""
    rows, doc = token.doc._.elmo, token.doc
    if rows is not None and len(rows) != len(doc):  # rows stay when tokens are merged or split, so they fit no more
        raise MismatchError(
            f"the document has {len(doc)} tokens and had {len(rows)} when the component 'elmo' ran; put it behind what "
            "merges or splits tokens"
        )
    return None if rows is None else rows[token.i]
