"""The shape of an ELMo: the options that describe it, and the arrays that follow from them.

Names follow `options.json` of AllenNLP and bilm-tf. Options that came later are left out of what is written where they
say what was always so: older models keep their files and their fingerprints.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from elmokit.errors import FormatError
from elmokit.text import MARKS, N_CHARACTERS, Marks

Shape = tuple[int, ...]

# Beyond these no ELMo exists; they keep a hostile file from asking for terabytes.
_Size = Field(ge=1, le=65_536)
_MAX_SYMBOLS = 2_000_000  # Unicode has 1,114,112 code points
_MAX_CLIP = float(np.finfo(np.float32).max)

# Options that options.json of AllenNLP and bilm-tf does not know.
_LATER = frozenset({"spelling", "word_embed", "marks", "joined", "always_project"})


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        return {
            name: value
            for name, value in handler(self).items()
            if name not in _LATER or value != fields[name].get_default()
        }


class Embedding(_Options):
    """`char_cnn.embedding` of options.json: the character width."""

    dim: int = _Size


class CharCNN(_Options):
    """`char_cnn` of options.json: the context-free word encoder (paper section 3.4).

    `spelling`: a word's symbols are its UTF-8 bytes, 261 ids with the marks, or its code points, as rows of a lexicon
    of `n_characters` symbols beside the model.
    """

    embedding: Embedding
    filters: list[tuple[int, int]] = Field(min_length=1, max_length=64)
    activation: Literal["relu", "tanh"]
    n_highway: int = Field(default=0, ge=0, le=16)
    spelling: Literal["UTF-8 bytes", "code points"] = "UTF-8 bytes"
    n_characters: int = Field(default=262, ge=1, le=_MAX_SYMBOLS)
    max_characters_per_token: int = Field(ge=3, le=4096)

    @field_validator("n_characters")
    @classmethod
    def _n_bytes(cls, n: int, info: ValidationInfo) -> int:
        if info.data.get("spelling") == "UTF-8 bytes" and n not in (261, 262):
            raise ValueError(f"input should be 261 or 262; found {n}")
        return n

    @model_validator(mode="before")
    @classmethod
    def _filters_as_tuples(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("filters"), list):
            pairs = [tuple(pair) if isinstance(pair, list) else pair for pair in data["filters"]]
            return {**data, "filters": pairs}
        return data

    @model_validator(mode="after")
    def _filters_fit(self) -> CharCNN:
        for width, count in self.filters:
            if not (1 <= width <= self.max_characters_per_token and 1 <= count <= 65_536):
                raise ValueError(
                    f"filter [{width}, {count}]: expected a width of 1 to {self.max_characters_per_token} "
                    "(max_characters_per_token) and a positive count"
                )
        return self

    @property
    def has_lexicon(self) -> bool:
        """Whether a lexicon beside the model says which characters it knows."""
        return self.spelling == "code points"

    @property
    def n_symbols(self) -> int:
        """Rows of the character table; the last one is the padding."""
        return self.n_characters if self.has_lexicon else N_CHARACTERS

    @property
    def n_filters(self) -> int:
        """Width N of the word vector before the projection."""
        return sum(count for _, count in self.filters)


class WordEmbed(_Options):
    """A table of words as input, beside or instead of characters.

    `longest`: a word is looked up by its first so many characters; null for all of them.
    """

    dim: int = _Size
    longest: int | None = Field(default=None, ge=1, le=4096)


class Lstm(_Options):
    """`lstm` of options.json. An absent clip, null or 0 means no clipping; an absent `n_layers` means one.

    `joined`: each layer reads both directions of the layer below, and only the last one is projected and returned, as
    torch's bidirectional `nn.LSTM` with a projection behind it. It has no skip connections.
    """

    projection_dim: int = _Size
    dim: int = _Size
    n_layers: int = Field(default=1, ge=1, le=8)
    cell_clip: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    proj_clip: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    use_skip_connections: bool
    joined: bool = False

    @field_validator("cell_clip", "proj_clip")
    @classmethod
    def _clip_fits(cls, clip: float | None) -> float | None:
        if clip is not None and clip > _MAX_CLIP:
            raise ValueError(f"input should be at most {_MAX_CLIP:.4g}, the largest float32; found {clip:.4g}")
        return clip or None  # written as 0 it would be a clip at 0 to TensorFlow

    @model_validator(mode="after")
    def _joined_without_skips(self) -> Lstm:
        if self.joined and self.use_skip_connections:
            raise ValueError("layers that are joined have no skip connections; found use_skip_connections true")
        return self

    @property
    def state_dim(self) -> int:
        """Width of the part h of the state."""
        return self.dim if self.joined else self.projection_dim

    def input_dim(self, layer: int) -> int:
        """Width of the input of a layer."""
        return 2 * self.dim if self.joined and layer else self.projection_dim


class Config(_Options):
    """The shape of an ELMo, as options.json states it. Without `char_cnn` words come from a table.

    `marks`: the words for the ends of a sentence and for an unknown word, where they are not `<S>`, `</S>`, `<UNK>`.
    `always_project`: the projections stand also where they change no width; bilm-tf leaves them out there.
    """

    lstm: Lstm
    char_cnn: CharCNN | None = None
    word_embed: WordEmbed | None = None
    marks: list[str] | None = Field(default=None, min_length=3, max_length=3)
    always_project: bool = False

    @property
    def dim(self) -> int:
        """Width of an output vector: both directions side by side."""
        return 2 * self.lstm.projection_dim

    @property
    def n_layers(self) -> int:
        """Number of layers of an embedding, the context-free layer 0 included."""
        return 2 if self.lstm.joined else self.lstm.n_layers + 1

    @property
    def word_dim(self) -> int:
        """Width of the word table, 0 where words are only spelled; bilm-tf's tables are as wide as the projection."""
        if self.word_embed:
            return self.word_embed.dim
        return 0 if self.char_cnn else self.lstm.projection_dim

    @property
    def projects_words(self) -> bool:
        """Whether a projection makes word vectors of P values."""
        if self.char_cnn is None and self.word_embed is None:
            return False
        width = self.word_dim + (self.char_cnn.n_filters if self.char_cnn else 0)
        return width != self.lstm.projection_dim or self.always_project

    @property
    def projects_cells(self) -> bool:
        """Whether a projection makes each layer's h of P values."""
        return not self.lstm.joined and (self.lstm.dim != self.lstm.projection_dim or self.always_project)

    @property
    def sentence_marks(self) -> Marks:
        """The words for the ends of a sentence and for an unknown word."""
        return Marks(*self.marks) if self.marks else MARKS

    @property
    def later_options(self) -> list[str]:
        """Names of options set here that options.json of AllenNLP and bilm-tf does not know."""
        parts = (part for part in (self, self.lstm, self.char_cnn) if part)
        return sorted(_LATER & {name for part in parts for name in part.model_dump()})


def parse_config(options: Any, *, where: str) -> Config:
    """Make a `Config` of parsed JSON, or raise `FormatError` naming the first option that is not understood."""
    if not isinstance(options, dict):
        raise FormatError(f"{where}: expected a JSON object, found {type(options).__name__}")
    try:
        return Config.model_validate(options)
    except ValidationError as error:
        raise FormatError(f"{where}: {_first_problem(error)}") from None


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    name = repr(".".join(str(part) for part in problem["loc"]))
    found = repr(problem["input"])[:80]
    if problem["type"] == "extra_forbidden":
        return f"option {name} is not understood (value {found}); remove it if it does not change the network"
    if problem["type"] == "missing":
        return f"option {name} is missing"
    if problem["type"] == "value_error":  # our own, which says what was found
        return f"option {name}: {problem['ctx']['error']}"
    return f"option {name}: {problem['msg'][0].lower()}{problem['msg'][1:]}; found {found}"


def network_shapes(config: Config) -> dict[str, Shape]:
    """Return name -> shape of every array of the network but the word table, whose length only the file knows."""
    lstm, P, D, H = config.lstm, config.lstm.projection_dim, config.lstm.dim, config.lstm.state_dim
    shapes = _encoder_shapes(config)
    for layer in range(lstm.n_layers):
        shapes[f"lstm.{layer}.kernel"] = (2, lstm.input_dim(layer) + H, 4 * D)
        shapes[f"lstm.{layer}.bias"] = (2, 4 * D)
        if config.projects_cells:
            shapes[f"lstm.{layer}.projection"] = (2, D, P)
    if lstm.joined:
        shapes |= {"output.weight": (D, P), "output.bias": (P,)}
    return shapes


def _encoder_shapes(config: Config) -> dict[str, Shape]:
    cnn, P, width = config.char_cnn, config.lstm.projection_dim, config.word_dim
    shapes: dict[str, Shape] = {}
    if cnn:
        E, N = cnn.embedding.dim, cnn.n_filters
        shapes["char_embed"] = (cnn.n_symbols, E)
        for i, (w, count) in enumerate(cnn.filters):
            shapes |= {f"cnn.{i}.weight": (w, E, count), f"cnn.{i}.bias": (count,)}
        for k in range(cnn.n_highway):
            for gate in ("carry", "transform"):
                shapes |= {f"highway.{k}.{gate}.weight": (N, N), f"highway.{k}.{gate}.bias": (N,)}
        width += N
    if config.projects_words:
        shapes |= {"projection.weight": (width, P), "projection.bias": (P,)}
    return shapes
