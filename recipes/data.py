"""Reading of data sets: archives, columns, trees, and parts where a data set comes without them."""

from __future__ import annotations

import lzma
import random
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock
from stored import Words, clean
from trainer import Example, Parts

from elmokit.errors import TextError
from elmokit.reading import Splitter


def opened(path: Path, work: Path) -> Path:
    """Return a folder of the data: the path itself, or what its archive (.tar.xz, .tar.gz, .zip) was unpacked to."""
    if path.is_dir():
        return path
    work.mkdir(parents=True, exist_ok=True)
    folder = work / path.name.split(".")[0]
    with FileLock(f"{folder}.lock"):  # recipes that run at the same time may want the same
        if not folder.exists():
            _unpack(path, folder.with_name(folder.name + ".partial")).rename(folder)
    return folder


def _unpack(path: Path, folder: Path) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
    else:
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    return folder


def find(folder: Path, *names: str) -> Path:
    """Return the first file below a folder that has one of these names, in the order of the names."""
    for name in names:
        if found := sorted(folder.rglob(name)):
            return found[0]
    raise TextError(f"{folder} holds no file {' or '.join(names)}; name the folder of the data with --data")


def lines(path: Path, encoding: str = "utf-8") -> list[str]:
    """Return the lines of a file, plain or .xz, without the empty ones."""
    content = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    return [line for line in content.decode(encoding).split("\n") if line.strip()]


def columns(path: Path, word: int = 0, tag: int = -1) -> list[Example]:
    """Read sentences parted by blank lines, a word a line with its tags in columns; comments and ranges of CoNLL-U are
    left out."""
    marks = ("#",) if path.suffix == ".conllu" else ("-DOCSTART-",)  # "#" is a word elsewhere
    sentences: list[list[list[str]]] = [[]]
    for line in path.read_text(encoding="utf-8").split("\n"):
        if not line.strip():
            sentences.append([])
        elif not line.startswith(marks):
            sentences[-1].append(line.split("\t" if "\t" in line else None))
    rows = [[row for row in sentence if _is_word(row)] for sentence in sentences]
    return [Example((clean(r[word] for r in row),), [r[tag].strip() for r in row]) for row in rows if row]


def _is_word(row: Sequence[str]) -> bool:
    """Tell words from the lines of CoNLL-U that stand for several words (3-4) or for none (5.1)."""
    return not (
        row[0].replace("-", "").replace(".", "").isdigit() and ("-" in row[0] or "." in row[0]) and len(row) > 8
    )


def misspellings(text: str) -> dict[str, list[str]]:
    """Return what was written for each word, of a list with a word and its misspellings a line."""
    found: dict[str, dict[str, None]] = {}
    for word, *errors in filter(None, map(str.split, text.split("\n"))):
        found.setdefault(word, {}).update(dict.fromkeys(error for error in errors if error != word))
    return {word: list(errors) for word, errors in found.items() if errors}


def split_raw(text: str) -> Words:
    """Return the tokens of raw text, its sentences one after the other."""
    return clean(token for sentence in Splitter(tokenize=True)([text]) for token in sentence)


def with_dev(train: Sequence[Example], test: Sequence[Example]) -> Parts:
    """Return parts of a data set that has no part for development: every tenth example of the training part."""
    kept = [one for n, one in enumerate(train) if n % 10]
    return Parts(kept, list(train[::10]), list(test))


def in_parts(examples: Sequence[Example]) -> Parts:
    """Return parts of a data set that has none: a fifth to test, a tenth of the rest for development, always alike."""
    order = list(examples)
    random.Random(0).shuffle(order)
    fifth = len(order) // 5
    return with_dev(order[fifth:], order[:fifth])


def leaves(tree: str) -> Iterator[str]:
    """Yield the words of a bracketed tree, "(3 (2 It) (4 's))"."""
    for piece in tree.split(" "):
        if not piece.startswith("("):
            word = piece.rstrip(")") if piece.endswith(")") else piece
            yield {"-LRB-": "(", "-RRB-": ")"}.get(word, word)
