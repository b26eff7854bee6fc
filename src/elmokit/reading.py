"""Texts: find them, read them, split them into sentences of tokens.

What a file is follows from how it begins (Parquet) or from its name: `.gz`, `.bz2`, `.xz` and `.zst` are unpacked as
they are read; FASTA files hold one sequence of symbols a record; all others are lines of UTF-8.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from elmokit.errors import TextError, expect, expect_path, require

# A line of text, or tokens that need no splitting.
Item: TypeAlias = str | list[str]

_TEXTS = frozenset({".txt", ".text", ".tok", ".sent"})
_FASTA = frozenset({".fa", ".fasta", ".faa", ".fna", ".ffn", ".pep"})
_PARQUET = frozenset({".parquet", ".pq"})
# What a folder holds that is a model, or that of a training run.
_MODEL = ("model.safetensors", "training/corpus")
_PARQUET_MAGIC = b"PAR1"
# Names of the column that holds the text, where a Parquet file has several of strings.
_COLUMNS = ("text", "sentence", "tokens")
# A longer line is no sentence, and reading it would take as much memory.
_LONGEST_LINE = 1 << 26


# ---------------------------------------------------------------- finding


def expand(names: Sequence[str]) -> list[str]:
    """Return the files that names stand for: a file, all texts of a folder, what a pattern matches, "-" for itself.

    A folder gives its files, and those of the folders in it, whose endings say that they are text, FASTA or Parquet, in
    alphabetical order, without hidden ones and without those of models and training runs. Raises `TextError` where
    nothing is found, or "-" stands twice.
    """
    expect((list, tuple), names, "names", "a list of paths and patterns")
    for name in names:
        expect_path(name, "names")
    if names.count("-") > 1:
        raise TextError("standard input can be read only once; name '-' once")
    return [file for name in names for file in _expanded(name)]


def _expanded(name: str) -> list[str]:
    path = Path(name)
    if path.is_dir():
        found = sorted(str(p) for p in path.rglob("*") if _is_text(p, below=path))
        if not found:
            endings = " ".join(sorted(_TEXTS | _FASTA | _PARQUET))
            raise TextError(f"the folder {name} holds no text; expected files that end in one of {endings}")
        return found
    if name != "-" and not path.exists() and glob.has_magic(name):
        matches = glob.glob(name, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute pattern)
        found = sorted(file for file in matches if Path(file).is_file())
        if not found:
            raise TextError(f"no file matches {name!r}; check the pattern")
        return found
    return [name]


def _is_text(path: Path, *, below: Path) -> bool:
    """Tell whether a file in a folder is text: a vocabulary beside a model is none."""
    if file_kind(path) not in _TEXTS | _FASTA | _PARQUET or not path.is_file():
        return False
    parts = path.relative_to(below).parts
    folders = [below.joinpath(*parts[:n]) for n in range(len(parts))]
    hidden = any(part.startswith(".") for part in parts)
    return not hidden and not any((folder / mark).exists() for folder in folders for mark in _MODEL)


def file_kind(path: str | Path) -> str:
    """Return the ending of a file's name in lower case, that of its packing left aside."""
    path = Path(path)
    return (path.with_suffix("") if path.suffix in _OPENERS else path).suffix.lower()


# ---------------------------------------------------------------- reading


def read_sentences(
    path: str | Path, *, tokenize: bool = False, symbols: bool = False, column: str | None = None
) -> Iterator[list[str]]:
    """Yield the sentences of a text, or of standard input for "-", as lists of tokens.

    One sentence a line, tokens parted by white space; an empty line is an empty list, so that the n-th item is always
    line n. How else a text may be split is told at `Splitter`, what may be read at `read_items`. Raises `TextError`
    naming file and line for what cannot be read.
    """
    expect_path(path, "path")
    return Splitter(tokenize=tokenize, symbols=symbols)(read_items(path, column=column))


@dataclass(frozen=True)
class Splitter:
    """Makes sentences of items of text.

    tokenize: the lines are raw text, a paragraph each: each is split into sentences and tokens (syntok); blank lines
    give nothing, and a sentence does not go on in the next line. symbols: every character that is not white space is a
    token. Else tokens are parted by white space. Raises `TextError` for both together.
    """

    tokenize: bool = False
    symbols: bool = False

    def __post_init__(self) -> None:
        if self.tokenize and self.symbols:
            raise TextError("a text is split into words (tokenize) or into characters (symbols); choose one")

    def __call__(self, items: Iterable[Item]) -> Iterator[list[str]]:
        """Yield sentences; items that are tokens already are not split."""
        for item in items:
            if not isinstance(item, str):
                yield item
            elif self.symbols:
                yield list("".join(item.split()))
            elif self.tokenize:
                yield from _segment(item)
            else:
                yield item.split()


def _segment(line: str) -> Iterator[list[str]]:
    from syntok import segmenter  # loaded only for raw text: it costs 0.1 s

    for paragraph in segmenter.analyze(line):
        for sentence in paragraph:
            # White space of no width at the end of a line is an empty token to syntok.
            if tokens := [token.value for token in sentence if token.value]:
                yield tokens


def words(text: str) -> list[str]:
    """Return the tokens of raw text (syntok), of all its sentences together."""
    expect(str, text, "text", "a string")
    return [token for line in text.splitlines() for sentence in _segment(line) for token in sentence]


def read_items(path: str | Path, *, column: str | None = None) -> Iterator[Item]:
    """Yield what a file holds before it is split: lines, or the tokens of a FASTA record or of a Parquet list.

    FASTA: each residue is a token, in upper case, without the "*" of the end. Parquet: the column named `column`, else
    the only one of strings (or lists of strings), else one called text, sentence or tokens; a missing value is empty.
    """
    if is_parquet(path):
        return _read_parquet(Path(path), column)
    if column is not None:
        raise TextError(f"{_name(path)} is no Parquet file and has no column {column!r}; leave the column out")
    return _read_fasta(path) if file_kind(path) in _FASTA else read_lines(path)


def read_lines(path: str | Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file, or standard input for "-", without line ends (LF or CRLF; no other breaks)."""
    with _open_binary(path) as stream:
        number = 0
        while raw := stream.readline(_LONGEST_LINE):
            number += 1
            if len(raw) == _LONGEST_LINE and not raw.endswith(b"\n"):
                raise TextError(
                    f"{_name(path)}, line {number} is longer than {_LONGEST_LINE >> 20} MiB, expected one sentence a "
                    "line; break it, e.g. with  tr"
                )
            line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            try:
                yield line.rstrip(b"\r\n").decode("utf-8")
            except UnicodeDecodeError as error:
                byte = len(raw) - len(line) + error.start + 1
                raise TextError(
                    f"{_name(path)}, line {number}, byte {byte}: expected UTF-8, found byte 0x{raw[byte - 1]:02x}; "
                    "convert the text first, e.g. with  iconv -t utf-8"
                ) from None


def _read_fasta(path: str | Path) -> Iterator[list[str]]:
    residues: list[str] = []
    begun = False
    for number, line in enumerate(read_lines(path), start=1):
        if line.startswith(">"):
            if begun:
                yield _residues(residues)
            residues, begun = [], True
        elif line.strip() and not line.startswith(";"):
            if not begun:
                raise TextError(f"{_name(path)}, line {number}: expected '>' and a name before a sequence, as in FASTA")
            residues.append(line)
    if begun:
        yield _residues(residues)


def _residues(lines: Sequence[str]) -> list[str]:
    return list("".join("".join(lines).split()).upper().rstrip("*"))


def _zstandard(path: str | Path, mode: str) -> Any:  # noqa: ARG001
    # pyarrow's own streams cannot read a line.
    return io.BufferedReader(require("pyarrow", extra="arrow").CompressedInputStream(str(path), "zstd"))


_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _zstandard}


@contextmanager
def _open_binary(path: str | Path) -> Iterator[BinaryIO]:
    opener = _OPENERS.get(Path(path).suffix, open)
    try:
        with nullcontext(sys.stdin.buffer) if str(path) == "-" else opener(path, "rb") as stream:
            yield stream
    except IsADirectoryError:
        raise TextError(f"{_name(path)} is a directory, expected a text file; name the files inside it") from None
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise TextError(f"{_name(path)} cannot be read ({reason}); check the file") from None


def _name(path: str | Path) -> str:
    return "standard input" if str(path) == "-" else str(path)


# ---------------------------------------------------------------- Parquet


def is_parquet(path: str | Path) -> bool:
    """Tell whether a file begins as Parquet files do; what is no file, such as a pipe, can be read only once."""
    if not Path(path).is_file():
        return False
    try:
        with open(path, "rb") as file:
            return file.read(4) == _PARQUET_MAGIC
    except OSError:
        return False  # whoever reads it says why


def _read_parquet(path: Path, column: str | None) -> Iterator[Item]:
    parquet = require("pyarrow.parquet", extra="arrow")
    try:
        with parquet.ParquetFile(path) as file:
            name = _column(path, file.schema_arrow, column)
            for batch in file.iter_batches(batch_size=4096, columns=[name]):
                yield from (_item(value) for value in batch.column(0).to_pylist())
    except (OSError, ValueError) as error:  # pyarrow's own are among them
        if isinstance(error, TextError):
            raise
        raise TextError(f"{path} cannot be read ({error}); check the file") from None


def _item(value: Any) -> Item:
    """Return a line, or tokens; what is missing or empty is no token."""
    return [token for token in value if token] if isinstance(value, list) else value or ""


def _column(path: Path, schema: Any, wanted: str | None) -> str:
    """Return the name of the column that holds the text."""
    arrow = require("pyarrow", extra="arrow").types

    def is_text(kind: Any) -> bool:
        if arrow.is_dictionary(kind):
            kind = kind.value_type
        return arrow.is_string(kind) or arrow.is_large_string(kind) or arrow.is_string_view(kind)

    def holds_text(kind: Any) -> bool:
        return is_text(kind) or ((arrow.is_list(kind) or arrow.is_large_list(kind)) and is_text(kind.value_type))

    found = [field.name for field in schema if holds_text(field.type)]
    if wanted is not None:
        if wanted in found:
            return wanted
    elif len(found) == 1:
        return found[0]
    elif named := [name for name in _COLUMNS if name in found]:
        return named[0]
    expected = f"no column of strings called {wanted!r}" if wanted else "not one column that must be the text"
    raise TextError(f"{path} has {expected}; columns of strings: {', '.join(found) or 'none'}; name one with --column")
