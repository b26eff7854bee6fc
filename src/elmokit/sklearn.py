"""`ElmoVectorizer`: texts to features, for pipelines and searches of scikit-learn.

Axes: D width of a vector, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from elmokit.errors import MismatchError, expect, expect_iterable, expect_one_of, require
from elmokit.model import Elmo, Layers, Precision, load

base: Any = require("sklearn.base", extra="sklearn")
validation = require("sklearn.utils.validation", extra="sklearn")

_POOLS = ("mean", "max")


class ElmoVectorizer(base.ClassNamePrefixFeaturesOutMixin, base.TransformerMixin, base.BaseEstimator):  # type: ignore[misc]
    """One vector for each text: the mean or the maximum over its tokens.

    `model`: what `elmokit.load` opens, or a model; `device` and `precision` are those of `load`. `layers` and
    `batch_size` are those of `Elmo.embed`; with "all" the layers stand side by side. `tokenizer`: from a text to its
    tokens, by default its parts between white space; `elmokit.reading.words` takes punctuation off. `memory`: a folder
    or `joblib.Memory` where vectors are kept from one call to the next with the same texts, model, layers and pool.

    Fitted, it holds the model as `elmo_`, also when it is pickled.
    """

    def __init__(
        self,
        model: Elmo | str | Path | None = None,
        *,
        layers: Layers = "average",
        pool: Literal["mean", "max"] = "mean",
        tokenizer: Callable[[str], Sequence[str]] | None = None,
        batch_size: int | None = None,
        device: str = "cpu",
        precision: Precision = "float32",
        memory: Any = None,
    ) -> None:
        self.model = model
        self.layers = layers
        self.pool = pool
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.memory = memory

    def fit(self, X: Any, y: Any = None) -> ElmoVectorizer:  # noqa: ARG002
        """Open the model; the texts are not read. Raises `MismatchError` for options that do not fit the model."""
        self._check()
        if self.memory is not None and not hasattr(self.memory, "cache"):
            expect(str, self.memory, "memory", "a folder as a string, or a joblib.Memory")
        model = self.model
        elmo = model if isinstance(model, Elmo) else load(model, device=self.device, precision=self.precision)
        elmo.embed([], layers=self.layers, pool=self.pool, batch_size=self.batch_size)  # refuses what it cannot do
        self.elmo_ = elmo
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the vectors (texts, D) float32, or (texts, L D) of "all" layers; zeros for a text of no tokens.

        `X`: strings or lists of tokens, as a sequence, a column of pandas or polars, or a frame or array of one column.
        """
        validation.check_is_fitted(self)
        self._check()  # again: options can be set at any time
        embed = validation.check_memory(self.memory).cache(_embed, ignore=["elmo", "batch_size"])
        tokens = [self._tokens(number, text) for number, text in enumerate(_texts(X))]
        made_by = self.elmo_.fingerprint, str(next(self.elmo_.network.parameters()).dtype)
        return embed(self.elmo_, made_by, tokens, self.layers, self.pool, self.batch_size)

    def _check(self) -> None:
        expect_one_of(_POOLS, self.pool, "pool")
        if self.tokenizer is not None:
            expect(Callable, self.tokenizer, "tokenizer", "a function from a text to its tokens")  # type: ignore[arg-type]

    @property
    def _n_features_out(self) -> int:
        """The number of columns, from which scikit-learn makes their names."""
        return _width(self.elmo_, self.layers)

    def _tokens(self, number: int, text: Any) -> list[str]:
        if isinstance(text, str):
            tokens = (str.split if self.tokenizer is None else self.tokenizer)(text)
            expect_iterable(tokens, "tokenizer", "a function that returns tokens")
            return list(tokens)
        if not isinstance(text, Iterable):  # None and NaN are what frames have for missing texts
            raise MismatchError(f"text {number}: expected a string or a list of tokens, found {text!r}; fill it in")
        return list(text)

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that texts come in, not numbers, and that nothing is learned."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        tags.transformer_tags.preserves_dtype = []
        return tags


def _texts(X: Any) -> Iterable[Any]:
    """Return the texts one after the other, those of the only column where there are columns."""
    if isinstance(X, str):
        raise MismatchError(f"expected a sequence of texts, found the string {X[:40]!r}; put it into a list")
    expect_iterable(X, "X", "a sequence of texts")
    shape = getattr(X, "shape", ())
    if len(shape) < 2:
        return X
    if shape[1:] != (1,):
        raise MismatchError(f"expected one column of texts, found the shape {tuple(shape)}; name the column")
    return np.asarray(X)[:, 0]


def _embed(
    elmo: Elmo,
    made_by: tuple[str, str],  # noqa: ARG001 (joblib finds kept vectors by it, in place of the model)
    tokens: list[list[str]],
    layers: Layers,
    pool: Literal["mean", "max"],
    batch_size: int | None,
) -> NDArray[np.float32]:
    vectors = [v.reshape(-1) for v in elmo.embed(tokens, layers=layers, pool=pool, batch_size=batch_size)]
    return np.stack(vectors) if vectors else np.zeros((0, _width(elmo, layers)), np.float32)


def _width(elmo: Elmo, layers: Layers) -> int:
    every = isinstance(layers, str) and layers == "all"  # an array of weights has no one answer to ==
    return elmo.dim * (elmo.n_layers if every else 1)
