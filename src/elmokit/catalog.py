"""The published models (`catalog.json`), and fetching them.

A hash that nobody published is noted at the first fetch, in `fetched.json` beside the files, and checked from then on.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from elmokit import hub
from elmokit.checkpoint import read_bytes, read_json, replace_file
from elmokit.download import digest, download, explained
from elmokit.errors import DownloadError, UnknownModel, expect, expect_path
from elmokit.formats import BUNDLED

CATALOG = Path(__file__).with_name("catalog.json")
_RECORD = "fetched.json"

Format = Literal["allennlp", "bilm-tf", "softmax", "manylangs", "allennlp-archive", "tf-hub", "word-table"]
Role = Literal["options", "weights", "archive", "checkpoint", "softmax", "vocabulary", "alignment"]


@dataclass(frozen=True)
class File:
    """One file of a model. `urls`: the same file at several places. What is not known is None.

    `parts`: the files that this one was cut into, where it is published in pieces.
    """

    name: str
    role: Role
    urls: tuple[str, ...] = ()
    size: int | None = None
    sha256: str | None = None
    sha1: str | None = None
    md5: str | None = None
    parts: tuple[File, ...] = ()

    @property
    def hashes(self) -> dict[str, str]:
        """Published digests by algorithm."""
        known = {"sha256": self.sha256, "sha1": self.sha1, "md5": self.md5}
        return {algorithm: value for algorithm, value in known.items() if value}


@dataclass(frozen=True)
class Model:
    """One published model. `language`: ISO 639, `zxx` for what is no language. `source`: where these facts are from.

    `licence`: SPDX, None where none is stated. Without `files` only its `page` is known.
    """

    name: str
    title: str
    language: str
    format: Format
    licence: str | None
    page: str
    source: str
    notes: str = ""
    files: tuple[File, ...] = field(default=())

    @property
    def size(self) -> int | None:
        """Bytes to fetch, None where not known."""
        sizes = [file.size for file in self.files]
        known = [size for size in sizes if size is not None]
        return sum(known) if known and len(known) == len(sizes) else None


def models(language: str | None = None) -> list[Model]:
    """Return the published models, all or those of a language (ISO 639, as in the catalogue)."""
    if language is not None:
        expect(str, language, "language", "a code such as en")
    entries = read_json(read_bytes(CATALOG), where=str(CATALOG))
    every = [Model(**{**entry, "files": tuple(_file(file) for file in entry["files"])}) for entry in entries]
    return [model for model in every if language in (None, model.language)]


def _file(entry: dict[str, Any]) -> File:
    parts = tuple(_file(part) for part in entry.get("parts", ()))
    return File(**{**entry, "urls": tuple(entry.get("urls", ())), "parts": parts})


def find(name: str) -> Model:
    """Return the model of this name; raises `UnknownModel`, which suggests the nearest names."""
    expect(str, name, "name", "the name of a published model")
    every = {model.name: model for model in models()}
    if name in every:
        return every[name]
    near = difflib.get_close_matches(name.lower(), every, n=3, cutoff=0.5)
    hint = f"the nearest names are {', '.join(near)}" if near else "run  elmo models  for all names"
    raise UnknownModel(f"there is no published model {name!r}; {hint}")


def cache_folder() -> Path:
    """Return where fetched models are kept: $ELMOKIT_CACHE, or the place for caches of this system."""
    if given := os.environ.get("ELMOKIT_CACHE"):
        return Path(given).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "elmokit" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "elmokit"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "elmokit"


def locate(name: str | Path, *, revision: str | None = None, offline: bool = False, token: str | None = None) -> Path:
    """Return where a model is: a path, "bundled", a hub repository "user/name", or a published model's name.

    What is not here yet is fetched, unless `offline`. `revision` and `token` are for the hub. Raises `UnknownModel`
    where nothing is known by that name, `DownloadError` where it cannot be fetched.
    """
    expect_path(name, "model")
    if not str(name):
        raise UnknownModel("the name of the model is empty; name a path, a hub repository or a published model")
    if _is_path(name):
        return Path(name)
    if str(name) == "bundled":
        return BUNDLED
    if hub.is_repo_id(str(name)):
        try:
            return hub.resolve(str(name), revision=revision, offline=offline, token=token)
        except (UnknownModel, DownloadError) as error:
            raise type(error)(f"there is no path {name}, and {error}") from None
    try:
        model = find(str(name))
    except UnknownModel as error:
        raise UnknownModel(f"there is no model at {name}, and {str(error).removeprefix('there is ')}") from None
    if offline and not all((cache_folder() / model.name / file.name).is_file() for file in model.files):
        raise DownloadError(f"{name} has not been fetched yet; run  elmo fetch {name}  with a network first")
    return fetch(model.name)


def _is_path(name: str | Path) -> bool:
    """Tell whether something is there. Where that cannot be found out, opening it will say why."""
    try:
        return Path(name).exists() or Path(f"{name}.index").exists()  # a TensorFlow checkpoint is named by its prefix
    except OSError:
        return True


# ---------------------------------------------------------------- fetching


def fetch(name: str, *, folder: str | Path | None = None, progress: bool = True) -> Path:
    """Fetch a published model; return what opens it, its folder or its one archive.

    The files lie in `folder`, or in the cache under the model's name. Files that are there are not fetched again, but
    checked. Raises `UnknownModel`, and `DownloadError` where a file cannot be had or is another than expected.
    """
    model = find(name)
    if not model.files:
        raise DownloadError(f"no direct address of {name} is known; get it by hand from {model.page}, and open that")
    place = Path(folder) if folder is not None else cache_folder() / model.name
    if all((place / file.name).is_file() for file in model.files):
        _bring(model, place, progress=progress)
    else:
        with _held(place):
            _bring(model, place, progress=progress)
    return place / model.files[0].name if model.files[0].role == "archive" else place


@contextmanager
def _held(place: Path) -> Iterator[None]:
    """Make the folder, and keep other processes from fetching into it at the same time."""
    from filelock import FileLock

    with explained(place):
        place.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place / ".lock")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _bring(model: Model, place: Path, *, progress: bool) -> None:
    pins = _read_pins(place, model.name)
    for file in model.files:
        expected = {**file.hashes, **({"sha256": pins[file.name]} if file.name in pins else {})}
        if not (place / file.name).is_file():
            with _said_of_pin(file, place, pinned=file.name in pins):
                _get(replace(file, sha256=expected.get("sha256")), place, progress=progress)
        found = digest(place / file.name)
        _compare(place / file.name, found, expected)
        if pins.get(file.name) != found:
            pins[file.name] = found
            _write_pins(place, model.name, pins)


@contextmanager
def _said_of_pin(file: File, place: Path, *, pinned: bool) -> Iterator[None]:
    """Say where the expected hash is noted, if it is from an earlier fetch and not published."""
    try:
        yield
    except DownloadError as error:
        if not pinned or file.hashes:
            raise
        noted = f"its hash was noted at an earlier fetch in {place / _RECORD}, delete that if the file was replaced"
        raise DownloadError(f"{error}; {noted}") from None


def _get(file: File, place: Path, *, progress: bool) -> None:
    if not file.parts:
        download(file.urls, place / file.name, size=file.size, hashes=file.hashes, progress=progress)
        return
    for part in file.parts:
        if not (place / part.name).is_file():
            _get(part, place, progress=progress)
    _join([place / part.name for part in file.parts], place / file.name)


def _join(parts: list[Path], whole: Path) -> None:
    """Put a file together from the pieces it was published in."""
    partial = whole.with_name(whole.name + ".partial")
    with explained(whole.parent):
        with partial.open("wb") as file:
            for part in parts:
                with part.open("rb") as piece:
                    shutil.copyfileobj(piece, file, 1 << 20)
        partial.replace(whole)
        for part in parts:
            part.unlink()


def _compare(path: Path, found: str, expected: dict[str, str]) -> None:
    for algorithm, value in expected.items():
        here = found if algorithm == "sha256" else digest(path, algorithm)
        if here != value:
            raise DownloadError(
                f"{path} is not the file that was published or first fetched ({algorithm} {here}, expected {value}); "
                "delete it and fetch again"
            )


def _read_pins(place: Path, name: str) -> dict[str, str]:
    """Return the SHA-256 of each file fetched into this folder before."""
    path = place / _RECORD
    if not path.is_file():
        return {}
    record = read_json(read_bytes(path), where=str(path))
    if not isinstance(record, dict) or not isinstance(record.get("sha256"), dict):
        raise DownloadError(f"{path} is not a record of fetched files; delete it, or choose another folder")
    if record.get("model") != name:
        raise DownloadError(f"{place} holds the model {record.get('model')!r}; choose another folder for {name}")
    return dict(record["sha256"])


def _write_pins(place: Path, name: str, pins: dict[str, str]) -> None:
    with explained(place):
        replace_file(place / _RECORD, json.dumps({"model": name, "sha256": pins}, indent=2).encode() + b"\n")
