"""What a checkpoint is: a `Config`, named arrays, perhaps a vocabulary; and our own folder of it.

Names follow `options.json` of AllenNLP and bilm-tf. Arrays, all float32, with Z = 2 directions (forward, backward),
E character width, N filters in all, P projection, D cells, V words:

    char_embed                  (261, E)      row = character id, no padding row
    cnn.{i}.weight              (width, E, n) cnn.{i}.bias (n,)
    highway.{k}.carry.weight    (N, N)        and .bias; x @ weight
    highway.{k}.transform.weight (N, N)       and .bias
    projection.weight           (N, P)        and .bias; absent when N == P
    embedding                   (V, P)        instead of all the above: a model without characters
    lstm.{l}.kernel             (Z, 2P, 4D)   rows input then recurrent, gates i, j, f, o
    lstm.{l}.bias               (Z, 4D)       the forget bias of 1 is not in it
    lstm.{l}.projection         (Z, D, P)     absent when D == P
    softmax.weight, softmax.bias (V, P), (V,) only where the language-model head is kept
    warm.h, warm.c              (L, Z, P), (L, Z, D)   the stored warmed state, where there is one
    mix.weights, mix.gamma      (K, L + 1), (K,)  K trained mixes of the layers (weights before their softmax), likewise
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from elmokit.errors import FormatError, OutputError
from elmokit.text import N_CHARACTERS, LexiconSpeller, Speller, Utf8Speller

Arrays = dict[str, NDArray[np.floating]]
Shape = tuple[int, ...]

# Beyond these no ELMo exists; they keep a hostile file from asking for terabytes.
_Size = Field(ge=1, le=65_536)


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Embedding(_Options):
    """`char_cnn.embedding` of options.json: the character width."""

    dim: int = _Size


class CharCNN(_Options):
    """`char_cnn` of options.json: the context-free word encoder (paper section 3.4)."""

    embedding: Embedding
    filters: list[tuple[int, int]] = Field(min_length=1, max_length=64)
    activation: Literal["relu", "tanh"]
    n_highway: int = Field(default=0, ge=0, le=16)
    n_characters: Literal[261, 262] = 262
    max_characters_per_token: int = Field(ge=3, le=4096)

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
    def n_filters(self) -> int:
        """Width N of the word vector before the projection."""
        return sum(count for _, count in self.filters)


class Lstm(_Options):
    """`lstm` of options.json. An absent clip, null or 0 means no clipping; an absent `n_layers` means one."""

    projection_dim: int = _Size
    dim: int = _Size
    n_layers: int = Field(default=1, ge=1, le=8)
    cell_clip: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    proj_clip: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    use_skip_connections: bool


class Config(_Options):
    """The shape of an ELMo, as options.json states it. Without `char_cnn` words come from a table."""

    lstm: Lstm
    char_cnn: CharCNN | None = None

    @property
    def dim(self) -> int:
        """Width of an output vector: both directions side by side."""
        return 2 * self.lstm.projection_dim


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
    lstm, P, D = config.lstm, config.lstm.projection_dim, config.lstm.dim
    shapes: dict[str, Shape] = _encoder_shapes(config.char_cnn, P) if config.char_cnn else {}
    for layer in range(lstm.n_layers):
        shapes[f"lstm.{layer}.kernel"] = (2, 2 * P, 4 * D)
        shapes[f"lstm.{layer}.bias"] = (2, 4 * D)
        if D != P:
            shapes[f"lstm.{layer}.projection"] = (2, D, P)
    return shapes


def _encoder_shapes(cnn: CharCNN, P: int) -> dict[str, Shape]:
    E, N = cnn.embedding.dim, cnn.n_filters
    shapes: dict[str, Shape] = {"char_embed": (N_CHARACTERS, E)}
    for i, (width, count) in enumerate(cnn.filters):
        shapes |= {f"cnn.{i}.weight": (width, E, count), f"cnn.{i}.bias": (count,)}
    for k in range(cnn.n_highway):
        for gate in ("carry", "transform"):
            shapes |= {f"highway.{k}.{gate}.weight": (N, N), f"highway.{k}.{gate}.bias": (N,)}
    if N != P:
        shapes |= {"projection.weight": (N, P), "projection.bias": (P,)}
    return shapes


@dataclass(frozen=True)
class Checkpoint:
    """A model as plain data: the hinge between file formats and networks.

    `vocabulary`: the words of the softmax head or of the word table, in row order. `card`: the model card, Markdown.
    """

    config: Config
    arrays: Arrays
    vocabulary: tuple[str, ...] | None = None
    card: str = ""
    source: str = field(default="elmokit", compare=False)

    def speller(self) -> Speller:
        """Return how this model spells: UTF-8 bytes, or the vocabulary where it has no characters."""
        if self.config.char_cnn:
            return Utf8Speller(self.config.char_cnn.max_characters_per_token)
        if self.vocabulary is None:
            raise FormatError("a model without characters needs its vocabulary; none was found beside it")
        return LexiconSpeller(self.vocabulary)

    @property
    def n_parameters(self) -> int:
        """Number of weights of the network, without softmax head, stored state and mixes."""
        return sum(a.size for name, a in self.arrays.items() if not name.startswith(("softmax.", "warm.", "mix.")))


def check_arrays(shapes: Mapping[str, Shape], config: Config, *, where: str) -> None:
    """Raise `FormatError` unless `shapes` holds what `config` needs, each in its shape, and nothing unknown."""
    expected = {**network_shapes(config), **_further_shapes(shapes, config)}
    for name, shape in expected.items():
        if name not in shapes:
            raise FormatError(f"{where}: array {name!r} is missing; expected shape {shape}")
    for name, shape in shapes.items():
        if name not in expected:
            raise FormatError(f"{where}: array {name!r} {shape} is not part of the network that the options describe")
        if shape != expected[name]:
            raise FormatError(f"{where}: array {name!r}: expected shape {expected[name]}, found {shape}")


def _further_shapes(shapes: Mapping[str, Shape], config: Config) -> dict[str, Shape]:
    """Shapes of the word table, softmax head, warmed state and mixes: each is whole where any of it is there."""
    L, P, D = config.lstm.n_layers, config.lstm.projection_dim, config.lstm.dim
    V_table, V_head, K = (next(iter(shapes.get(name, ())), 0) for name in ("embedding", "softmax.bias", "mix.gamma"))
    table: dict[str, Shape] = {} if config.char_cnn else {"embedding": (V_table, P)}
    head: dict[str, Shape] = {"softmax.weight": (V_head, P), "softmax.bias": (V_head,)}
    state: dict[str, Shape] = {"warm.h": (L, 2, P), "warm.c": (L, 2, D)}
    mixes: dict[str, Shape] = {"mix.weights": (K, L + 1), "mix.gamma": (K,)}
    present = [part for part in (head, state, mixes) if part.keys() & shapes.keys()]
    return table | {name: shape for part in present for name, shape in part.items()}


def check_vocabulary(words: tuple[str, ...] | None, arrays: Arrays, *, where: str) -> None:
    """Raise `FormatError` unless `words`, if there are any, are one for each row of the word table and of the head."""
    for name in ("embedding", "softmax.bias"):
        if words is not None and name in arrays and len(arrays[name]) != len(words):
            raise FormatError(
                f"{where}: expected {len(arrays[name]):,} words, as {name!r} has rows, found {len(words):,}"
            )


def read_bytes(path: str | Path) -> bytes:
    """Read a small file of a model whole, or raise `FormatError`."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror}); check the path") from None


def read_json(text: str | bytes, *, where: str) -> Any:
    """Parse JSON, or raise `FormatError` naming the place."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: expected JSON, found something else ({str(error)[:100]})") from None


# ---------------------------------------------------------------- our own folder

CONFIG, WEIGHTS, VOCABULARY, CARD = "config.json", "model.safetensors", "vocab.txt", "README.md"

_HEADER = {"model_type": "elmo", "elmokit_version": 1}  # of config.json, beside the options


def read_native(folder: str | Path) -> Checkpoint:
    """Read our own folder: config.json, model.safetensors, and where they are there vocab.txt and README.md."""
    folder = Path(folder)
    config = _parse_native(read_bytes(folder / CONFIG), where=str(folder / CONFIG))
    arrays = _read_safetensors(folder / WEIGHTS, config)
    vocabulary, card = folder / VOCABULARY, folder / CARD
    words = read_vocabulary(vocabulary) if vocabulary.is_file() else None
    check_vocabulary(words, arrays, where=str(vocabulary))
    return Checkpoint(config, arrays, words, read_bytes(card).decode("utf-8", "replace") if card.is_file() else "")


def _parse_native(content: bytes, *, where: str) -> Config:
    options = read_json(content, where=where)
    for name, expected in _HEADER.items() if isinstance(options, dict) else ():
        if (found := options.pop(name, expected)) != expected:
            raise FormatError(f"{where}: option {name!r} is {repr(found)[:80]}, expected {expected!r}")
    return parse_config(options, where=where)


def _read_safetensors(path: Path, config: Config) -> Arrays:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            for name, part in parts.items():
                if part.get_dtype() not in ("F16", "F32", "F64"):
                    raise FormatError(f"{path}: array {name!r}: expected F16, F32 or F64, found {part.get_dtype()}")
            check_arrays({name: tuple(part.get_shape()) for name, part in parts.items()}, config, where=str(path))
            return {name: file.get_tensor(name).astype(np.float32, copy=False) for name in parts}
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path} is not a whole safetensors file ({error}); copy or fetch it again") from None


def read_vocabulary(path: str | Path) -> tuple[str, ...]:
    """Read a vocabulary, one word a line; the line number is the row."""
    return parse_vocabulary(read_bytes(path), where=str(path))


def parse_vocabulary(content: bytes, *, where: str) -> tuple[str, ...]:
    """Return the words of a vocabulary file's content, or raise `FormatError` naming the place."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError(f"{where}: expected a vocabulary in UTF-8, one word a line") from None
    return tuple(line.strip() for line in text.removesuffix("\n").split("\n")) if text else ()


def write_native(
    checkpoint: Checkpoint, folder: str | Path, *, dtype: Literal["float32", "float16"] = "float32"
) -> None:
    """Write our own folder; each file appears under its name only when it is whole."""
    from safetensors.numpy import save

    options = {**_HEADER, **checkpoint.config.model_dump(exclude_none=True)}
    arrays = {name: np.ascontiguousarray(a, dtype) for name, a in sorted(checkpoint.arrays.items())}
    with written_folder(folder) as folder:
        replace_file(folder / CONFIG, json.dumps(options, indent=2).encode() + b"\n")
        if checkpoint.vocabulary is not None:
            write_vocabulary(checkpoint.vocabulary, folder / VOCABULARY)
        if checkpoint.card:
            replace_file(folder / CARD, checkpoint.card.encode())
        replace_file(folder / WEIGHTS, save(arrays, {"format": "pt"}))


def write_vocabulary(words: tuple[str, ...], path: Path) -> None:
    """Write a vocabulary, one word a line."""
    replace_file(path, "".join(f"{word}\n" for word in words).encode("utf-8"))


@contextmanager
def written_folder(folder: str | Path) -> Iterator[Path]:
    """Make a folder to write a model into; what the file system refuses becomes an `OutputError`."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        yield Path(folder)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror or error}); choose another place") from None


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that its name always holds either the old or the whole new content, power cuts included."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
