"""What a checkpoint is: a `Config`, named arrays, perhaps a vocabulary and a lexicon; and our own folder of it.

Arrays, all float32, with Z = 2 directions (forward, backward), C symbols of the spelling, E character width, N filters
in all, W width of the word table, P projection, D cells, V words:

    char_embed                  (C, E)        row = character id, no padding row
    cnn.{i}.weight              (width, E, n) cnn.{i}.bias (n,)
    highway.{k}.carry.weight    (N, N)        and .bias; x @ weight
    highway.{k}.transform.weight (N, N)       and .bias
    embedding                   (V, W)        beside the characters, or instead of all the above (then often W = P)
    projection.weight           (W + N, P)    and .bias; rows word then characters; absent when it changes no width
    lstm.{l}.kernel             (Z, 2P, 4D)   rows input then recurrent, gates i, j, f, o
    lstm.{l}.bias               (Z, 4D)       the forget bias of 1 is not in it
    lstm.{l}.projection         (Z, D, P)     absent when D == P
    softmax.weight, softmax.bias (V, P), (V,) only where the language-model head is kept
    softmax.head.weight, .bias  (F + K, P), (F + K,)  instead, an adaptive head of F frequent words and K clusters
    softmax.tail.{k}.down, .out, .bias (P_k, P), (n_k, P_k), (n_k,)  and of the n_k words of each cluster
    warm.h, warm.c              (L, Z, P), (L, Z, D)   the stored warmed state, where there is one
    mix.weights, mix.gamma      (K, L + 1), (K,)  K trained mixes of the layers (weights before their softmax), likewise

Where the option `always_project` is set, no projection is absent. Where the layers are `joined`, kernels are (Z, P + D,
4D) in the first layer and (Z, 3D, 4D) above, h is D wide, and output.weight (D, P) and .bias follow the last layer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elmokit.config import CharCNN as CharCNN
from elmokit.config import Config as Config
from elmokit.config import Embedding as Embedding
from elmokit.config import Lstm as Lstm
from elmokit.config import Shape as Shape
from elmokit.config import network_shapes as network_shapes
from elmokit.config import parse_config as parse_config
from elmokit.errors import FormatError, MismatchError, OutputError, expect_path
from elmokit.stored import StoredDtype, read_arrays, stored_arrays
from elmokit.text import CodePointSpeller, LexiconSpeller, Speller, Utf8Speller, WordAndCharacterSpeller

Arrays = dict[str, NDArray[np.floating]]


@dataclass(frozen=True)
class Checkpoint:
    """A model as plain data: the hinge between file formats and networks.

    `vocabulary`: the words of the softmax head or of the word table, in row order. `card`: the model card, Markdown.
    `characters`: the lexicon of a model that spells in code points, in row order.
    """

    config: Config
    arrays: Arrays
    vocabulary: tuple[str, ...] | None = None
    card: str = ""
    source: str = field(default="elmokit", compare=False)
    characters: tuple[str, ...] | None = None

    def speller(self) -> Speller:
        """Return how this model spells: by characters, by the rows of its vocabulary, or both."""
        characters = self._character_speller(self.config.char_cnn) if self.config.char_cnn else None
        if not self.config.word_dim:
            assert characters is not None  # or words would come from a table
            return characters
        if self.vocabulary is None:
            raise FormatError("a model with a word table needs its vocabulary; none was found beside it")
        longest = self.config.word_embed.longest if self.config.word_embed else None
        words = LexiconSpeller(self.vocabulary, self.config.sentence_marks, longest)
        return WordAndCharacterSpeller(words, characters) if characters else words

    def _character_speller(self, cnn: CharCNN) -> Utf8Speller | CodePointSpeller:
        if not cnn.has_lexicon:
            return Utf8Speller(cnn.max_characters_per_token, self.config.sentence_marks)
        if self.characters is None:
            raise FormatError("a model that spells in code points needs its lexicon; none was found beside it")
        return CodePointSpeller(self.characters, cnn.max_characters_per_token, self.config.sentence_marks)

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
    L, P, D, H = config.lstm.n_layers, config.lstm.projection_dim, config.lstm.dim, config.lstm.state_dim
    V_table, K = (next(iter(shapes.get(name, ())), 0) for name in ("embedding", "mix.gamma"))
    table: dict[str, Shape] = {"embedding": (V_table, config.word_dim)} if config.word_dim else {}
    head = _head_shapes(shapes, P)
    state: dict[str, Shape] = {"warm.h": (L, 2, H), "warm.c": (L, 2, D)}
    mixes: dict[str, Shape] = {"mix.weights": (K, config.n_layers), "mix.gamma": (K,)}
    present = [part for part in (head, state, mixes) if part.keys() & shapes.keys()]
    return table | {name: shape for part in present for name, shape in part.items()}


def _head_shapes(shapes: Mapping[str, Shape], P: int) -> dict[str, Shape]:
    """Shapes of a softmax head of either kind; how many words it has only the file knows."""

    def size(name: str, axis: int = 0) -> int:
        return dict(enumerate(shapes.get(name, ()))).get(axis, 0)

    if not any(name.startswith(("softmax.head.", "softmax.tail.")) for name in shapes):
        return {"softmax.weight": (size("softmax.bias"), P), "softmax.bias": (size("softmax.bias"),)}
    n = size("softmax.head.bias")
    found: dict[str, Shape] = {"softmax.head.weight": (n, P), "softmax.head.bias": (n,)}
    for k in range(count_tails(shapes)):
        words, width = size(f"softmax.tail.{k}.out"), size(f"softmax.tail.{k}.out", 1)
        found |= {f"softmax.tail.{k}.down": (width, P), f"softmax.tail.{k}.out": (words, width)}
        found[f"softmax.tail.{k}.bias"] = (words,)
    return found


def count_tails(names: Container[str]) -> int:
    """Return how many clusters the arrays of an adaptive head have."""
    k = 0
    while f"softmax.tail.{k}.out" in names:
        k += 1
    return k


def head_words(arrays: Arrays) -> int:
    """Return how many words the softmax head among these arrays predicts, 0 where there is none."""
    if "softmax.bias" in arrays:
        return len(arrays["softmax.bias"])
    if "softmax.head.bias" not in arrays:
        return 0
    tails = count_tails(arrays)
    return len(arrays["softmax.head.bias"]) - tails + sum(len(arrays[f"softmax.tail.{k}.bias"]) for k in range(tails))


def check_vocabulary(words: tuple[str, ...] | None, arrays: Arrays, *, where: str) -> None:
    """Raise `FormatError` unless `words`, if there are any, are one for each row of the word table and of the head."""
    for name, rows in (("word table", len(arrays.get("embedding", ()))), ("softmax head", head_words(arrays))):
        if words is not None and rows and rows != len(words):
            raise FormatError(f"{where}: expected {rows:,} words, as the {name} has rows, found {len(words):,}")


def check_characters(characters: tuple[str, ...] | None, config: Config, *, where: str) -> None:
    """Raise `FormatError` unless `characters`, if there are any, are one for each row of the character table."""
    expected = config.char_cnn.n_symbols if config.char_cnn else 0
    if characters is not None and len(characters) != expected:
        raise FormatError(f"{where}: expected {expected:,} symbols, one a line, found {len(characters):,}")


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
CHARACTERS = "chars.txt"

_HEADER = {"model_type": "elmo", "elmokit_version": 1}  # of config.json, beside the options


def read_native(folder: str | Path) -> Checkpoint:
    """Read our own folder: config.json, model.safetensors, and those of its text files that are there."""
    folder = Path(folder)
    config = _parse_native(read_bytes(folder / CONFIG), where=str(folder / CONFIG))
    where = str(folder / WEIGHTS)
    arrays: Arrays = {**read_arrays(folder / WEIGHTS, check=lambda shapes: check_arrays(shapes, config, where=where))}
    words = read_symbols(folder / VOCABULARY)
    check_vocabulary(words, arrays, where=str(folder / VOCABULARY))
    characters = read_symbols(folder / CHARACTERS) if config.char_cnn and config.char_cnn.has_lexicon else None
    check_characters(characters, config, where=str(folder / CHARACTERS))
    card = read_bytes(folder / CARD).decode("utf-8", "replace") if (folder / CARD).is_file() else ""
    return Checkpoint(config, arrays, words, card, characters=characters)


def read_symbols(path: Path) -> tuple[str, ...] | None:
    """Read what `write_vocabulary` wrote, if it is there; white space may be part of a word, or a character."""
    return tuple(_lines(read_bytes(path), where=str(path))) if path.is_file() else None


def _parse_native(content: bytes, *, where: str) -> Config:
    options = read_json(content, where=where)
    for name, expected in _HEADER.items() if isinstance(options, dict) else ():
        if (found := options.pop(name, expected)) != expected:
            raise FormatError(f"{where}: option {name!r} is {repr(found)[:80]}, expected {expected!r}")
    return parse_config(options, where=where)


def read_vocabulary(path: str | Path) -> tuple[str, ...]:
    """Read a vocabulary, one word a line; the line number is the row."""
    return parse_vocabulary(read_bytes(path), where=str(path))


def parse_vocabulary(content: bytes, *, where: str) -> tuple[str, ...]:
    """Return the words of a vocabulary file's content, or raise `FormatError` naming the place.

    bilm-tf counts no line that says !!!MAXTERMID, a word of some published lists.
    """
    words = (line.strip() for line in _lines(content, where=where))
    return tuple(word for word in words if word != "!!!MAXTERMID")


def _lines(content: bytes, *, where: str) -> list[str]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError(f"{where}: expected a vocabulary in UTF-8, one word a line") from None
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def write_native(checkpoint: Checkpoint, folder: str | Path, *, dtype: StoredDtype = "float32") -> None:
    """Write our own folder; each file appears under its name only when it is whole.

    Over an earlier model, what this one lacks of its files is removed: a vocabulary, a lexicon, a card.
    """
    expect_path(folder, "folder")
    files = native_files(checkpoint, dtype=dtype)
    with written_folder(folder) as folder:
        # Where no model is, a README.md is somebody's own.
        replaces = (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()
        for name, content in files.items():
            replace_file(folder / name, content)
        for name in {CARD, VOCABULARY, CHARACTERS} - set(files) if replaces else ():
            (folder / name).unlink(missing_ok=True)


def native_files(checkpoint: Checkpoint, *, dtype: StoredDtype = "float32") -> dict[str, bytes]:
    """Return the files of our own folder in the order to write them: the card after what it tells of."""
    from safetensors.numpy import save

    options = {**_HEADER, **checkpoint.config.model_dump(exclude_none=True)}
    arrays = stored_arrays(checkpoint.arrays, dtype)
    files = {CONFIG: json.dumps(options, indent=2).encode() + b"\n"}
    for symbols, name in ((checkpoint.vocabulary, VOCABULARY), (checkpoint.characters, CHARACTERS)):
        if symbols is not None:
            files[name] = _spelled_lines(symbols)
    files[WEIGHTS] = save(arrays, {"format": "pt"})
    return {**files, CARD: checkpoint.card.encode()} if checkpoint.card else files


def write_vocabulary(words: tuple[str, ...], path: Path) -> None:
    """Write a vocabulary or lexicon, one word or character a line."""
    replace_file(path, _spelled_lines(words))


def _spelled_lines(words: tuple[str, ...]) -> bytes:
    broken = next((word for word in words if "\n" in word or word.endswith("\r")), None)
    if broken is not None:
        raise MismatchError(f"the word {broken!r} has a line break, and a list of words has one a line; leave it out")
    return "".join(f"{word}\n" for word in words).encode("utf-8")


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
