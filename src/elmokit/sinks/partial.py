"""The folder OUT.partial, in which an output grows: what has the name OUT is always whole.

Finished segments lie in it, each a whole file in the output's format, and `progress.json`, which says how far they go.
A file is written under another name, synced to the disk and only then renamed, and `progress.json` names only files
that are there; so whatever stops the process, the next one can go on after the last finished segment. At the end the
segments become one, that one gets the name OUT, and the folder goes.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from elmokit.errors import ElmoError, MismatchError, OutputError, expect_file_place
from elmokit.sinks import choose
from elmokit.sinks.spec import Array, Sink, Spec

if sys.platform != "win32":
    import fcntl

VERSION = 2  # of progress.json
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass
class Progress:
    """How far the finished segments go.

    settings: what must be the same for a run that goes on, as JSON values; sentences, tokens: how many are in them;
    text: a digest of what they were made from; ended: the text had no more; state: name of the file with the arrays
    that the next segment starts from; sizes: the bytes of each of these files.
    """

    settings: Mapping[str, object]
    version: int = VERSION
    sentences: int = 0
    tokens: int = 0
    text: str = ""
    ended: bool = False
    segments: list[str] = field(default_factory=list)
    state: str | None = None
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def files(self) -> list[str]:
        """Names of the files that a run needs to go on."""
        return [*self.segments, *([self.state] if self.state else [])]


class Partial:
    """An output that is being written; use it inside `with partial.open(...)`."""

    def __init__(self, out: Path, spec: Spec, settings: Mapping[str, object]) -> None:
        """Nothing is written before `open`. Raises `OutputError` where `out` cannot be the name of an output."""
        self._kind = choose(out)
        expect_file_place(out)
        self.out = out
        self.folder = out.with_name(out.name + ".partial")
        self.progress = Progress(json.loads(json.dumps(settings)))
        self._spec = spec
        self._sink: Sink | None = None
        self._unfinished = self.folder / f"unfinished{out.suffix}"

    # ------------------------------------------------------------ begin and end

    @contextmanager
    def open(self, *, resume: bool, force: bool) -> Iterator[None]:
        """Make the folder, or with `resume` go on with the one there, or with `force` throw that away.

        `force` also allows that `out` exists; it stays until the new one is whole. With both, the folder is gone on
        with. Where no segment was finished, an error leaves nothing behind.
        """
        with self._explained():
            self.folder.mkdir(exist_ok=True)
        with locked(self.folder, self.out):
            self._begin(resume=resume, force=force)
            try:
                yield
            except BaseException:
                self._drop_sink()
                if not self.progress.segments:
                    self._clear()
                raise

    def _begin(self, *, resume: bool, force: bool) -> None:
        found = self._read() if resume else None
        if found is not None:
            check_settings(self.folder, found.settings, self.progress.settings)
            self.progress = found
            self._check_files()
        if self.out.exists() and not force and not self._is_published():
            raise OutputError(f"{self.out} exists; choose another name, or replace it with --force")
        if not (resume or force) and any(path.name != "lock" for path in self.folder.iterdir()):
            raise OutputError(
                f"{self.folder} holds an interrupted run: continue it with --resume, or start again with --force"
            )
        self._clear(keep=("progress.json", *self.progress.files) if found else ())

    def _read(self) -> Progress | None:
        path = self.folder / "progress.json"
        try:
            found = Progress(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (TypeError, ValueError):
            found = Progress({}, version=0)
        if found.version != VERSION:
            raise MismatchError(f"{path} is not of this version of elmokit; start again with --force")
        return found

    def _check_files(self) -> None:
        if self._is_published():
            return
        for name in self.progress.files:
            path, expected = self.folder / name, self.progress.sizes.get(name)
            if not path.exists():
                raise MismatchError(
                    f"{self.folder} lacks {name}, which its progress.json names; start again with --force"
                )
            if (found := path.stat().st_size) != expected:
                raise MismatchError(
                    f"{path} has {found:,} bytes, expected {expected or 0:,}: it was cut or changed; "
                    "start again with --force"
                )

    def publish(self) -> None:
        """Make the segments one, give it the output's name, and remove the folder's contents."""
        if not self._is_published():
            if len(self.progress.segments) > 1:
                self._join()
            with self._explained():
                (self.folder / self.progress.segments[0]).replace(self.out)
                sync(self.out.parent)
        self._clear()

    def _is_published(self) -> bool:
        """Return whether the output already has its name: the process ended before it removed the folder."""
        segments = self.progress.segments
        moved = len(segments) == 1 and not (self.folder / segments[0]).exists()
        return self.progress.ended and moved and self.out.exists()

    def _join(self) -> None:
        parts = [self.folder / name for name in self.progress.segments]
        with self._explained():
            sink = self._open_sink()
            for part in parts:
                sink.add_file(part)
            self._finish_segment(f"whole{self.out.suffix}")
            self._save(replace(self.progress, segments=[f"whole{self.out.suffix}"]))
            for part in parts:
                part.unlink()

    def _clear(self, *, keep: Sequence[str] = ()) -> None:
        with self._explained():
            # progress.json last: a run stopped in here is then still known for what it is.
            for path in sorted(self.folder.iterdir(), key=lambda path: path.name == "progress.json"):
                if path.name not in ("lock", *keep):
                    path.unlink()

    # ------------------------------------------------------------ segments

    def write(self, number: int, tokens: Sequence[str], array: Array) -> None:
        """Add the array of one sentence to the segment that is being written."""
        try:
            (self._sink or self._open_sink()).write(number, tokens, array)
        except OSError as error:
            raise self._explain(error) from error

    def finish_segment(
        self, *, sentences: int, tokens: int, text: str, ended: bool, state: Mapping[str, Array] | None
    ) -> None:
        """End the segment; from here on what it holds is safe. The arguments are those of `Progress`, since the start.

        `state` are the arrays themselves; `state()` gives them to the run that goes on.
        """
        old, name = self.progress, f"state-{sentences}.npz"
        with self._explained():
            segment = f"segment-{len(old.segments):06}{self.out.suffix}"
            self._finish_segment(segment)
            if state is not None:
                np.savez(self.folder / name, **state)  # type: ignore[arg-type]  # it takes the name of a flag, too
                sync(self.folder / name)
            segments, kept = [*old.segments, segment], name if state else None
            self._save(Progress(old.settings, VERSION, sentences, tokens, text, ended, segments, kept))
            if old.state:
                (self.folder / old.state).unlink()

    def state(self) -> dict[str, Array] | None:
        """Return the arrays that the next segment starts from, if there are any."""
        if self.progress.state is None or self.progress.ended:
            return None
        with np.load(self.folder / self.progress.state, allow_pickle=False) as arrays:
            return dict(arrays)

    def _open_sink(self) -> Sink:
        self._sink = self._kind(self._unfinished, self._spec)
        return self._sink

    def _finish_segment(self, name: str) -> None:
        if self._sink is not None:
            self._sink.close()
            self._sink = None
        sync(self._unfinished)
        self._unfinished.replace(self.folder / name)

    def _drop_sink(self) -> None:
        if self._sink is not None:
            self._sink.abandon()
            self._sink = None
        with suppress(OSError):
            self._unfinished.unlink()

    def _save(self, progress: Progress) -> None:
        path = self.folder / "progress.json"
        progress = replace(progress, sizes={name: (self.folder / name).stat().st_size for name in progress.files})
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(progress), indent=1), encoding="utf-8")
        sync(new)
        new.replace(path)
        sync(self.folder)
        self.progress = progress  # what is safe, and only that

    # ------------------------------------------------------------ errors

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._explain(error) from error

    def _explain(self, error: OSError) -> ElmoError:
        if isinstance(error, ElmoError):
            return error
        full = error.errno in NO_ROOM
        why = "the disk is full" if full else f"cannot write ({error.strerror or error})"
        safe = "nothing is saved yet: run again"
        if self.progress.segments:
            safe = f"{self.progress.sentences:,} sentences are safe in {self.folder}: run again with --resume"
        if self.progress.ended and full:
            size = sum((self.folder / name).stat().st_size for name in self.progress.segments)
            why += f" (joining the segments takes {size / 1e6:,.0f} MB more)"
        return OutputError(f"{self.out}: {why}; {safe}" + " when there is room" * full)


def check_settings(folder: Path, old: Mapping[str, object], new: Mapping[str, object]) -> None:
    """Raise `MismatchError` naming the first setting in which a run differs from the one that began `folder`."""
    for name, value in new.items():
        if (found := old.get(name)) != value:
            raise MismatchError(
                f"the interrupted run in {folder} had {name} = {json.dumps(found)}, this one has "
                f"{json.dumps(value)}: use the same, or start again with --force"
            )


@contextmanager
def locked(folder: Path, out: Path) -> Iterator[None]:
    """Hold the folder, so that two processes never write one output; at the end remove it if it is empty."""
    path = folder / "lock"
    lock = None if sys.platform == "win32" else _lock(path, out)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        with suppress(OSError):
            folder.rmdir()
        if lock is not None:
            os.close(lock)


if sys.platform != "win32":

    def _lock(path: Path, out: Path) -> int:
        """Return the handle of a locked file; where the file system has no locks, of an open one."""
        taken = OutputError(f"another process is writing {out}; wait for it, or choose another name")
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        except FileNotFoundError:  # the folder went while the other process ended
            raise taken from None
        except OSError as error:
            raise OutputError(f"cannot write {path} ({error.strerror}); check the folder's rights") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.fstat(handle).st_nlink > 0  # else its owner has removed it just now
        except OSError as error:
            held = not isinstance(error, BlockingIOError)
        if not held:
            os.close(handle)
            raise taken
        return handle


def sync(path: Path) -> None:
    """Have what was written to a file, or the names in a folder, on the disk."""
    if path.is_dir() and sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
