"""A folder of Parquet parts, written by many processes; whatever stops them, each part is whole or not there.

The name of a part follows from its place in the texts, `part-TEXT-BLOCK.parquet`, so that a block that is computed
twice still makes one part. Parts are gathered in the folder OUT.partial, which gets the name OUT when it holds all of
them. `_settings.json` beside them says what they were made with; readers of a folder of Parquet pass over names that
begin with "_" or ".".
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from elmokit.checkpoint import replace_file
from elmokit.errors import ElmoError, MismatchError, OutputError
from elmokit.sinks.parquet import ParquetSink, read_notes
from elmokit.sinks.partial import check_settings, locked, sync
from elmokit.sinks.spec import Array, Spec, finished

VERSION = 1  # of _settings.json
SETTINGS = "_settings.json"
MODEL = "_model"  # what the processes open, while they write


@dataclass(frozen=True)
class Block:
    """Consecutive sentences of a text.

    text: number of the text; number: of the block in it; first: number of its first sentence in the text; content: the
    sentences as JSON.
    """

    text: int
    number: int
    first: int
    content: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the sentences."""
        return sha256(self.content).hexdigest()

    @property
    def sentences(self) -> list[list[str]]:
        """The sentences, as lists of tokens."""
        return json.loads(self.content)


@dataclass(frozen=True)
class Parts:
    """Where parts are written, of which texts (their names), and what their arrays look like."""

    folder: Path
    texts: Sequence[str]
    spec: Spec

    def path(self, text: int, block: int) -> Path:
        """Return the name of a block's part."""
        return self.folder / f"part-{text:05}-{block:06}.parquet"

    def holds(self, block: Block) -> bool:
        """Return whether a block's part is there; `MismatchError` where it was made from other sentences."""
        path = self.path(block.text, block.number)
        if not path.exists():
            return False
        if read_notes(path).get("digest") != block.digest:
            raise _other_text(f"{self.texts[block.text]} differs in the sentences of {path.name}")
        return True

    def write(self, block: Block, arrays: Iterable[Array]) -> None:
        """Write the part of a block under a name of its own, and give it its name when it is whole."""
        path = self.path(block.text, block.number)
        unfinished = self.folder / f".unfinished-{uuid4().hex}.parquet"
        notes = {**self.spec.notes, "digest": block.digest}
        try:
            sink = ParquetSink(unfinished, replace(self.spec, text=self.texts[block.text], notes=notes))
            with finished(sink):
                for number, (tokens, array) in enumerate(zip(block.sentences, arrays, strict=True), start=block.first):
                    sink.write(number, tokens, array)
            sync(unfinished)
            unfinished.replace(path)
        except OSError as error:
            raise _explained(error, path) from error
        finally:
            with suppress(OSError):
                unfinished.unlink()


# ---------------------------------------------------------------- the folder


@contextmanager
def open_folder(out: Path, settings: Mapping[str, object], *, resume: bool, force: bool) -> Iterator[Path]:
    """Make OUT.partial, or with `resume` go on with the one there, or with `force` throw that away; give its path.

    `force` also allows that OUT is there, if it is such a folder; it stays until the new one is whole. Where no part
    was finished, an error leaves nothing behind. Raises `OutputError` for what is in the way, `MismatchError` for
    other settings than those of the run to go on with.
    """
    _check_out(out, force=force)
    folder = out.with_name(out.name + ".partial")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise _explained(error, folder) from error
    with locked(folder, out):
        _begin(folder, json.loads(json.dumps(settings)), resume=resume, force=force)
        try:
            yield folder
        except BaseException:
            if folder.is_dir() and not any(folder.glob("part-*")):
                _clear(folder)
            raise


def _check_out(out: Path, *, force: bool) -> None:
    if not out.parent.is_dir():
        raise OutputError(f"the folder {out.parent} does not exist; make it first")
    if not out.exists():
        return
    if not (out / SETTINGS).is_file():
        raise OutputError(f"{out} exists and is no folder of parts that elmokit wrote; choose another name")
    if not force:
        raise OutputError(f"{out} exists; choose another name, or replace it with --force")


def _begin(folder: Path, settings: Mapping[str, object], *, resume: bool, force: bool) -> None:
    found = _read_settings(folder) if resume else None
    if found is not None:
        check_settings(folder, found, settings)
    elif not (resume or force) and any(path.name != "lock" for path in folder.iterdir()):
        raise OutputError(f"{folder} holds an interrupted run: continue it with --resume, or start again with --force")
    else:
        _clear(folder)
        content = json.dumps({"version": VERSION, **settings}, indent=1)
        replace_file(folder / SETTINGS, content.encode() + b"\n")


def _read_settings(folder: Path) -> dict[str, object] | None:
    path = folder / SETTINGS
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise MismatchError(f"{path} is not of this version of elmokit; start again with --force")
    return found


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()


def publish(parts: Parts, out: Path, blocks: Sequence[int]) -> None:
    """Give the folder the name `out`, if it holds the parts of all blocks; `blocks` counts those of each text."""
    expected = {parts.path(text, block).name for text, count in enumerate(blocks) for block in range(count)}
    found = {path.name for path in parts.folder.glob("part-*")}
    if missing := sorted(expected - found):
        raise OutputError(f"{parts.folder} lacks {missing[0]}, which was written: run again with --resume")
    if beyond := sorted(found - expected):
        raise _other_text(f"it ends before the sentences of {beyond[0]}")
    try:
        for path in parts.folder.glob(".unfinished-*"):  # of a process that was killed
            path.unlink(missing_ok=True)
        shutil.rmtree(parts.folder / MODEL, ignore_errors=True)
        (parts.folder / "lock").unlink(missing_ok=True)
        sync(parts.folder)
        if out.exists():
            shutil.rmtree(out)
        parts.folder.rename(out)
        sync(out.parent)
    except OSError as error:
        raise _explained(error, out) from error


# ---------------------------------------------------------------- errors


def _other_text(how: str) -> MismatchError:
    return MismatchError(
        f"the text is not that of the interrupted run: {how}; give the same text, or start again with --force"
    )


def _explained(error: OSError, path: Path) -> ElmoError:
    if isinstance(error, ElmoError):
        return error
    return OutputError(
        f"{path} cannot be written ({error.strerror or error}); finished parts are safe: run again with --resume"
    )
