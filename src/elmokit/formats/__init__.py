"""Checkpoints of every origin, recognised by content."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from elmokit.checkpoint import CONFIG, WEIGHTS, Checkpoint, parse_vocabulary, read_native
from elmokit.errors import FormatError, UnknownModel
from elmokit.formats import allennlp
from elmokit.formats.hdf5 import open_hdf5

BUNDLED = Path(__file__).parents[1] / "models" / "en"

# A zip member may be compressed, but weights are noise; small files and nearly empty weights shrink further.
_MAX_EXPANSION, _MIN_LIMIT = 4, 1 << 24


def read(path: str | Path) -> Checkpoint:
    """Read a model folder or zip: our own, or options.json with an HDF5 file of weights.

    Raises `UnknownModel` where nothing is there, `FormatError` where what is there is not a model.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise UnknownModel(f"there is no model at {path}; expected a folder or a zip file")
    if zipfile.is_zipfile(path):
        return _read_zip(path)
    raise FormatError(f"{path} is neither a model folder nor a zip file; name the folder that holds the model's files")


def _read_folder(folder: Path) -> Checkpoint:
    if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
        return read_native(folder)
    if not (folder / allennlp.OPTIONS).is_file():
        raise FormatError(
            f"{folder} holds no model: expected {CONFIG} with {WEIGHTS}, or {allennlp.OPTIONS} with an HDF5 file "
            "of weights"
        )
    weights = _weights_among(sorted(p for p in folder.iterdir() if p.suffix in (".hdf5", ".h5")), str(folder))
    vocabulary = folder / allennlp.VOCABULARY
    return allennlp.read(folder / allennlp.OPTIONS, weights, vocabulary=vocabulary if vocabulary.is_file() else None)


def _weights_among(candidates: list[Path], where: str) -> Path:
    if len(candidates) == 1:
        return candidates[0]
    found = [path for path in candidates if _is_weights(path)]
    if len(found) != 1:
        raise FormatError(f"{where}: expected one HDF5 file of weights beside {allennlp.OPTIONS}, found {len(found)}")
    return found[0]


def _is_weights(path: Path) -> bool:
    try:
        with open_hdf5(path, where=str(path)) as file:
            return allennlp.is_weights(file)
    except FormatError:
        return False


# ---------------------------------------------------------------- zip


def _read_zip(path: Path) -> Checkpoint:
    """Read the members where they are; nothing is unpacked under a name that the archive chooses."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, str(path))
    except FormatError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise FormatError(f"{path} is not a whole zip archive ({error}); copy or fetch it again") from None


def _read_archive(archive: zipfile.ZipFile, path: str) -> Checkpoint:
    options, weights = _members(archive, allennlp.OPTIONS), _members(archive, "*.hdf5", "*.h5")
    if len(options) != 1 or len(weights) != 1:
        found = str(sorted(archive.namelist())[:8])[:300]
        raise FormatError(f"{path}: expected one {allennlp.OPTIONS} and one HDF5 file of weights, found {found}")
    config = allennlp.parse_options(_content(archive, options[0]), where=_where(path, options[0]))
    words = None
    for vocabulary in [] if config.char_cnn else _members(archive, allennlp.VOCABULARY):
        words = parse_vocabulary(_content(archive, vocabulary), where=_where(path, vocabulary))
    with _unpacked(archive, weights[0]) as file:
        return allennlp.read_weights(file, config, words=words, where=_where(path, weights[0]))


def _members(archive: zipfile.ZipFile, *patterns: str) -> list[zipfile.ZipInfo]:
    """Return the files, in whatever folder, whose name matches one of the patterns."""
    files = [info for info in archive.infolist() if not info.is_dir()]
    return [info for info in files if any(PurePosixPath(info.filename).match(pattern) for pattern in patterns)]


def _where(path: str, info: zipfile.ZipInfo) -> str:
    return f"{path}: {info.filename!r}"


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with _unpacked(archive, info) as file:
        return file.read()


@contextmanager
def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[BinaryIO]:
    """Copy a member, of at most the size it claims, to a nameless temporary file; refuse what no model would claim."""
    path = str(archive.filename)
    where, limit = _where(path, info), max(_MIN_LIMIT, _MAX_EXPANSION * Path(path).stat().st_size)
    if info.file_size > limit:
        raise FormatError(f"{where} claims {info.file_size:,} bytes, expected at most {limit:,}; the file is not whole")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Others may give gigabytes for one read, however little is asked for.
        raise FormatError(f"{where} is compressed by method {info.compress_type}, expected deflate; pack it again")
    with archive.open(info) as member, tempfile.TemporaryFile() as file:
        shutil.copyfileobj(member, file)
        file.seek(0)
        yield file
