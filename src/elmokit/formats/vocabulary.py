"""The list of words that lies beside a model: a line for each row of its word table or softmax head."""

from __future__ import annotations

import zlib
from contextlib import suppress

from elmokit.checkpoint import parse_vocabulary
from elmokit.errors import FormatError
from elmokit.formats.files import Files, outermost
from elmokit.text import BEGIN_SENTENCE, END_SENTENCE, UNKNOWN

# Bytes of a vocabulary: on average for each word, and in all.
_MAX_WORD, _MAX_VOCABULARY = 256, 1 << 27
# Any text may have as many lines as a model has words, but not these among them.
_MARKS = {BEGIN_SENTENCE, END_SENTENCE, UNKNOWN}


def find_vocabulary(files: Files, rows: int) -> tuple[str, ...] | None:
    """Return the words of the file *vocab*.txt, or else of any text file, that lists one for each row; packed or not.

    Of files so named the outermost count. Raises `FormatError` where there are such and none fits, or several that
    differ do.
    """
    named = outermost(files.find("*vocab*.txt", "*vocab*.txt.gz"))
    fitting = _fitting(files, named, rows)
    if not named:
        others = _fitting(files, files.find("*.txt", "*.txt.gz"), rows)
        nearest = outermost([name for words, name in others.items() if set(words) >= _MARKS])
        fitting = {words: name for words, name in others.items() if name in nearest}
    if len(fitting) > 1 or (named and not fitting):
        names = list(fitting.values()) or named
        raise FormatError(f"{files.where}: expected one vocabulary of {rows:,} words, a row each; found {names}"[:500])
    return next(iter(fitting), None)


def _fitting(files: Files, names: list[str], rows: int) -> dict[tuple[str, ...], str]:
    """Return words -> the first file that lists them, for those files that list as many as there are rows."""
    lists = [(words, name) for name in names if (words := _words(files, name, rows))]
    return dict(reversed(lists))


def _words(files: Files, name: str, rows: int) -> tuple[str, ...] | None:
    """Return the words of a file, packed or not, or None where it does not list as many as there are rows."""
    limit = min(_MAX_WORD * rows, _MAX_VOCABULARY)
    if files.sizes[name] > limit:
        return None
    content = files.read(name)
    with suppress(FormatError, zlib.error):
        if name.endswith(".gz"):
            content = zlib.decompressobj(wbits=31).decompress(content, limit)
        if content.count(b"\n") >= rows - 1:
            words = parse_vocabulary(content, where=name)
            return words if len(words) == rows else None
    return None
