"""What a model is kept in: a folder, a zip or a tar. One view of the files inside, whichever it is.

Archives come from strangers: members are read where they are and never unpacked under a name that the archive chooses,
links are not followed, and what claims to be far larger than the archive is refused before it is read.
"""

from __future__ import annotations

import errno
import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, TypeVar

from elmokit.checkpoint import CONFIG
from elmokit.errors import ElmoError, FormatError, OutputError, UnknownModel, expect_path
from elmokit.formats.unpacking import is_packed, unpacked

Item = TypeVar("Item")

# A member may be compressed, but weights are noise; small files and nearly empty weights shrink further.
_MAX_EXPANSION, _MIN_LIMIT = 4, 1 << 24
# Models have a dozen files, two folders deep at most (variables/, vocabulary/); beyond this it is something else.
_MAX_FILES, _MAX_DEPTH = 10_000, 3
# Endings of files that hold weights: of a folder with several models, the one whose file is named is meant.
_WEIGHTS = frozenset((".hdf5", ".h5", ".index", ".safetensors", ".th", ".pkl"))


class Files(ABC):
    """Files by name: relative, parts joined by "/".

    `where` names the whole in errors; `folder` is where the files lie, None for an archive.
    """

    def __init__(self, where: str, *, folder: Path | None = None) -> None:
        self.where, self.folder = where, folder

    @property
    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Size in bytes of every file by name; what is not a plain file is left out."""

    @abstractmethod
    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open one file for reading; it can seek. Raises `FormatError` where it cannot be read."""

    def find(self, *patterns: str) -> list[str]:
        """Return the names that match one of the patterns (`PurePath.match`: in whatever folder), outermost first."""
        names = sorted(self.sizes, key=lambda name: (name.count("/"), name))
        return [name for name in names if any(PurePosixPath(name).match(pattern) for pattern in patterns)]

    def read(self, name: str, *, limit: int = 1 << 30) -> bytes:
        """Return a file's content; raises `FormatError` for one of more than `limit` bytes."""
        if (size := self.sizes[name]) > limit:
            raise FormatError(f"{self.named(name)} has {size:,} bytes, expected at most {limit:,}")
        with self.open(name) as file:
            return file.read()

    def start(self, name: str, n: int = 16) -> bytes:
        """Return a file's first bytes."""
        with self.open(name) as file:
            return file.read(n)

    def named(self, name: str) -> str:
        """Name one file in an error."""
        return f"{self.where}: {name!r}"


def outermost(names: list[str]) -> list[str]:
    """Return those of the names that are in the fewest folders."""
    depth = min((name.count("/") for name in names), default=0)
    return [name for name in names if name.count("/") == depth]


def by_folder(files: Files) -> dict[str, Part]:
    """Return the files by the outermost folder they are in: "" for those in none, or a name that ends in "/"."""
    sizes: dict[str, dict[str, int]] = {"": {}}
    for name, size in files.sizes.items():
        folder, slash, _ = name.partition("/")
        sizes.setdefault(f"{folder}/" if slash else "", {})[name] = size
    return {folder: Part(files, part) for folder, part in sizes.items()}


def one_place(places: list[str], *, where: str) -> str:
    """Return the only one of the places, folders or files inside, that hold a model; `FormatError` names several."""
    found = list(dict.fromkeys(places))
    if len(found) != 1:
        raise FormatError(f"{where} holds several models: {', '.join(found)[:300]}; name the one that is meant")
    return found[0]


class Folder(Files):
    """The files of a folder and of the folders in it; with `named` not those of other models than that file's."""

    def __init__(self, folder: Path, *, named: str | None = None) -> None:
        super().__init__(str(folder / named if named else folder), folder=folder)
        self.root, self._named = folder, named

    @cached_property
    def sizes(self) -> dict[str, int]:
        """See `Files.sizes`."""
        paths: dict[str, int] = {}
        try:
            for path in _counted(_walk(self.root, _MAX_DEPTH), self.where):
                name = path.relative_to(self.root).as_posix()
                if self._named in (None, name) or not _is_rival(name, str(self._named)):
                    paths[name] = path.stat().st_size
        except OSError as error:
            raise FormatError(f"{self.root} cannot be listed ({error.strerror}); check the path") from None
        return paths

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """See `Files.open`."""
        try:
            file = (self.root / name).open("rb")
        except OSError as error:
            raise FormatError(f"{self.root / name} cannot be read ({error.strerror}); check the path") from None
        with file:
            yield file

    def named(self, name: str) -> str:
        """See `Files.named`."""
        return str(self.root / name)


class Part(Files):
    """Some of other files, with their sizes, under the names they have there."""

    def __init__(self, files: Files, sizes: dict[str, int]) -> None:
        super().__init__(files.where, folder=files.folder)
        self.files, self._sizes = files, sizes

    @property
    def sizes(self) -> dict[str, int]:
        """See `Files.sizes`."""
        return self._sizes

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """See `Files.open`."""
        return self.files.open(name)

    def named(self, name: str) -> str:
        """See `Files.named`."""
        return self.files.named(name)


def _is_rival(name: str, named: str) -> bool:
    """Tell whether a file would be taken for part of another model than that whose file is named."""
    ending, kind = PurePosixPath(name).suffix, PurePosixPath(named).suffix
    if kind == ".pkl":  # ELMoForManyLangs has two of them
        return ending in _WEIGHTS - {kind}
    if kind in _WEIGHTS:
        return ending in _WEIGHTS
    if named == CONFIG:  # of our format, of ELMoForManyLangs with another JSON file, of an archive of AllenNLP
        return ending == ".index"
    return ending == ".safetensors" or (ending == kind and name != CONFIG)


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """Yield the files of a folder and, as far as they can be listed, of those in it; raises `OSError`."""
    for entry in sorted(folder.iterdir()):
        if entry.is_file():
            yield entry
        elif entry.is_dir() and depth > 1:
            with suppress(OSError):
                yield from _walk(entry, depth - 1)


def _counted(members: Iterable[Item], where: str) -> Iterator[Item]:
    """Yield the members of a folder or archive, or raise `FormatError` where there are more than any model has."""
    for n, member in enumerate(members):
        if n == _MAX_FILES:
            raise FormatError(f"{where} holds more than {_MAX_FILES:,} files; name the model's own folder or archive")
        yield member


class _Archive(Files):
    """The plain files of an archive; each is copied to a nameless temporary file when it is opened."""

    def __init__(self, path: Path, sizes: dict[str, int]) -> None:
        super().__init__(str(path))
        self._sizes = {name: size for name, size in sizes.items() if _is_wanted(name)}

    @property
    def sizes(self) -> dict[str, int]:
        """See `Files.sizes`."""
        return self._sizes

    @abstractmethod
    def _stream(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open one file to be read from its beginning on."""

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """See `Files.open`."""
        with self._stream(name) as member, tempfile.TemporaryFile() as file:
            shutil.copyfileobj(member, file)
            if file.tell() != self.sizes[name]:
                raise FormatError(f"{self.where} is cut off inside {name!r}; copy or fetch it again")
            file.seek(0)
            yield file

    def start(self, name: str, n: int = 16) -> bytes:
        """See `Files.start`; no more than that is unpacked."""
        with self._stream(name) as member:
            return member.read(n)


class ZipArchive(_Archive):
    """The files of a zip."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self.archive, self.limit = archive, _expansion_limit(path)
        # A folder's name ends in a slash; `is_dir` fails for a name that is empty.
        files = [info for info in _counted(archive.infolist(), str(path)) if not info.filename.endswith("/")]
        super().__init__(path, {info.filename: info.file_size for info in files})

    def _stream(self, name: str) -> AbstractContextManager[IO[bytes]]:
        info, where = self.archive.getinfo(name), self.named(name)
        if info.file_size > self.limit:
            claim = f"claims {info.file_size:,} bytes, expected at most {self.limit:,}"
            raise FormatError(f"{where} {claim}; the file is not whole")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # Others may give gigabytes for one read, however little is asked for.
            raise FormatError(f"{where} is compressed by method {info.compress_type}, expected deflate; pack it again")
        return self.archive.open(info)


class TarArchive(_Archive):
    """The files of a tar that is not compressed; links and devices are left out."""

    def __init__(self, archive: tarfile.TarFile, path: Path) -> None:
        members = _counted(archive, str(path))
        self.members = {info.name: info for info in members if info.isreg() and not info.issparse()}
        self.archive = archive
        super().__init__(path, {name: info.size for name, info in self.members.items()})

    def _stream(self, name: str) -> AbstractContextManager[IO[bytes]]:
        member = self.archive.extractfile(self.members[name])
        assert member is not None  # it is a plain file
        return member


def _is_wanted(name: str) -> bool:
    """Tell files from the notes that a Mac puts beside each of them."""
    return not any(part.startswith(("._", "__MACOSX")) for part in PurePosixPath(name).parts)


def _expansion_limit(path: Path) -> int:
    return max(_MIN_LIMIT, _MAX_EXPANSION * path.stat().st_size)


# ---------------------------------------------------------------- opening


@contextmanager
def open_files(path: str | Path) -> Iterator[Files]:
    """Open a folder, a zip or a tar; or, for a model's file (of a TensorFlow checkpoint also the prefix), its folder.

    Raises `UnknownModel` where nothing is there, `FormatError` where it is none of these. What is broken inside an
    archive becomes a `FormatError`, while it is read too.
    """
    expect_path(path, "model")
    path = Path(path)
    index = Path(f"{path}.index")
    try:
        is_folder = path.is_dir()
    except OSError as error:  # a name that is too long, a folder above that may not be looked into
        raise UnknownModel(f"there is no model at {str(path)[:200]} ({error.strerror}); check the path") from None
    if is_folder:
        yield Folder(path)
    elif index.is_file() or (path.is_file() and (path.suffix in _WEIGHTS or path.suffix == ".json")):
        yield Folder(path.parent, named=(index if index.is_file() else path).name)
    elif path.exists() and not path.is_file():
        raise FormatError(f"{path} is neither a file nor a folder; name the model's folder")
    elif not path.exists():
        raise UnknownModel(
            f"there is no model at {path}; expected a folder, an archive (.zip, .tar.gz) or a file of it"
        )
    else:
        with _open_archive(path) as files:
            yield files


@contextmanager
def _open_archive(path: Path) -> Iterator[Files]:
    try:
        if _is_zip(path):
            with zipfile.ZipFile(path) as archive:
                yield ZipArchive(archive, path)
        else:
            with _plain_tar(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
                yield TarArchive(archive, path)
    except ElmoError:
        raise
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            folder = tempfile.gettempdir()
            raise OutputError(f"{path} is unpacked in {folder}, which has no room for it; set TMPDIR") from None
        raise FormatError(f"{path} is not a whole archive ({str(error)[:120]}); copy or fetch it again") from None


_BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError,
    ValueError, OSError,
)  # fmt: skip
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _is_zip(path: Path) -> bool:
    """Tell a zip from a tar in whose last member there is one: a zip is told by its end, a tar by its beginning."""
    start = _start_of(path)
    return not is_packed(start) and not _is_tar(start) and zipfile.is_zipfile(path)


def _is_tar(start: bytes) -> bool:
    return start[257:262] == b"ustar"


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)


@contextmanager
def _plain_tar(path: Path) -> Iterator[BinaryIO]:
    """Open a tar, unpacked to a nameless temporary file if it is compressed: members are read in any order."""
    start = _start_of(path)
    blocks = unpacked(path, start)
    if blocks is None and not _is_tar(start):
        raise FormatError(f"{path} is neither a model folder nor an archive (.zip, .tar.gz); name the model's folder")
    if blocks is None:
        with path.open("rb") as file:
            yield file
        return
    limit = _expansion_limit(path)
    with tempfile.TemporaryFile() as file:
        for block in blocks:
            if file.tell() + len(block) > limit:
                raise FormatError(f"{path} unpacks to more than {limit:,} bytes, expected a model; it is not read")
            file.write(block)
        file.seek(0)
        yield file
