"""Fetch one file over HTTP: going on where an earlier attempt ended, checked, and under its name only when it is whole.

While it arrives it is NAME.partial. NAME.partial.from beside that says where the bytes come from: the address and the
server's mark of the version (ETag or date). They are gone on with only while the server says that the version is the
same; otherwise the file starts anew.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import re
import shutil
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request

from elmokit.errors import DownloadError, ElmoError

_T = TypeVar("_T")

TIMEOUT = 30.0  # seconds in which a server must send something
PAUSE = 1.0  # seconds before the first repetition; twice as long before the next
_ATTEMPTS = 3  # at one address, one after the other, that bring nothing new
_BLOCK = 1 << 16
_MOST = 1 << 36  # bytes of a file of unknown size

# How a file of this ending starts. Where no hash is known, this tells it from a page that says "sign in first".
_STARTS = {
    ".hdf5": b"\x89HDF\r\n\x1a\n",
    ".zip": b"PK",
    ".gz": b"\x1f\x8b",
    ".tgz": b"\x1f\x8b",
    ".bz2": b"BZh",
    ".xz": b"\xfd7zXZ",
    ".json": b"{",
}


class _Refused(Exception):
    """This address will not do; the text ends a sentence that starts with its host."""


class _BrokenOff(_Refused):
    """This address did not do this time."""


def download(
    urls: Sequence[str],
    target: Path,
    *,
    size: int | None = None,
    hashes: Mapping[str, str] | None = None,
    progress: bool = True,
) -> str:
    """Fetch `target` from the first of `urls` that has it; return that address.

    `size` in bytes and `hashes` (algorithm of hashlib -> hexadecimal digest) are checked where they are given. Raises
    `DownloadError`, which says for each address what was wrong; what has arrived stays for the next call.
    """
    partial = target.with_name(target.name + ".partial")
    refusals = []
    with explained(target.parent):
        for url in urls:
            refusal = _refusal(url, partial, target.name, size=size, hashes=hashes or {}, progress=progress)
            if refusal is None:
                partial.replace(target)
                _origin(partial).unlink(missing_ok=True)
                return url
            refusals.append(f"{urlsplit(url).netloc or url} {refusal}")
    raise DownloadError(
        f"{target.name} cannot be fetched: {'; '.join(refusals)}; try again later, or get the file by hand as {target}"
    )


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Return the hexadecimal digest of a file."""
    state = hashlib.new(algorithm, usedforsecurity=False)  # MD5 is checked where nothing better was published
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses into a `DownloadError` with the next step."""
    try:
        yield
    except ElmoError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _no_room(folder, "more") from None
        raise DownloadError(f"{folder} cannot be written ({error.strerror or error}); choose another folder") from None


def _no_room(folder: Path, needed: str) -> DownloadError:
    return DownloadError(f"there is no room in {folder} for {needed} bytes; free some, or choose another folder")


# ---------------------------------------------------------------- one address


def _refusal(
    url: str, partial: Path, name: str, *, size: int | None, hashes: Mapping[str, str], progress: bool
) -> str | None:
    """Fetch from one address; return why it will not do, or None where `partial` is whole."""
    try:
        _fetch(url, partial, size=size, progress=progress)
        _check(partial, name, hashes)
    except _Refused as refusal:
        return str(refusal)
    return None


def _fetch(url: str, partial: Path, *, size: int | None, progress: bool) -> None:
    """Bring `partial` to its end, again as long as attempts bring something new, and then a few times more."""
    failures, most = 0, _size(partial)
    while True:
        try:
            return _attempt(url, partial, size=size, progress=progress)
        except _BrokenOff:
            here = _size(partial)
            failures = 0 if here > most else failures + 1
            most = max(most, here)
            if failures == _ATTEMPTS:
                raise
        time.sleep(PAUSE * 2 ** max(0, failures - 1))


def _attempt(url: str, partial: Path, *, size: int | None, progress: bool) -> None:
    mark = _mark_of(partial, url)
    start = _size(partial) if mark else 0
    if start and start == size:
        return
    wanted = {"Range": f"bytes={start}-", "If-Range": mark} if start else {}
    with _opened(url, wanted, partial) as response:
        start = start if response.status == 206 else 0
        total = _total(response, partial, start=start, size=size)
        if total is not None and total - start > shutil.disk_usage(partial.parent).free:
            raise _no_room(partial.parent, f"{total - start:,}")
        if not start:
            _drop(partial)  # before its origin is written: whatever stops this process, the two belong together
        _origin(partial).write_text(f"{url}\n{_mark(response)}", encoding="utf-8")
        at = _copy(response, partial, start=start, total=total, limit=size or _MOST, progress=progress)
    if total is not None and at < total:
        raise _BrokenOff(f"broke off after {at:,} of {total:,} bytes")


@contextmanager
def _opened(url: str, headers: Mapping[str, str], partial: Path) -> Iterator[http.client.HTTPResponse]:
    """Open an address; tell what will not do from what may do the next time."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise _Refused("is not an address that starts with http:// or https://")
    request = Request(url, headers={"User-Agent": "elmokit", **headers})
    try:
        response = _network(lambda: _client().open(request, timeout=TIMEOUT))
    except HTTPError as error:
        with error:
            if error.code == 416:  # the bytes there are do not fit what the server has
                _drop(partial)
            again = error.code in (408, 416, 429) or error.code >= 500
        raise (_BrokenOff if again else _Refused)(f"answered {error.code} ({_line(error.reason)})") from None
    with response:
        yield response


def _client() -> urllib.request.OpenerDirector:
    """An opener of http and https and nothing else, so that no redirect leads to ftp or to a local file."""
    client = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        client.add_handler(handler())
    return client


def _network(work: Callable[[], _T]) -> _T:
    """Do what talks to the server, so that its errors are not taken for those of the file system."""
    try:
        return work()
    except HTTPError:
        raise
    except URLError as error:
        unknown = isinstance(error.reason, socket.gaierror)
        raise (_Refused if unknown else _BrokenOff)(f"cannot be reached ({_line(error.reason)})") from None
    except TimeoutError:
        raise _BrokenOff(f"sent nothing for {TIMEOUT:g} seconds") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _BrokenOff(f"broke off ({_line(error) or type(error).__name__})") from None


def _line(problem: object) -> str:
    return str(problem).split("\n")[0].rstrip(".")


def _total(response: http.client.HTTPResponse, partial: Path, *, start: int, size: int | None) -> int | None:
    """Return how long the file will be in bytes, as the server announces and as it should be."""
    if response.status == 206:
        described = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if not described or int(described[1]) != start:
            _drop(partial)  # the next call asks for all of it
            raise _Refused("sent another part of the file than was asked for")
        total = int(described[2])
    elif (announced := response.headers.get("Content-Length", "")).isdecimal():
        total = int(announced)
    else:
        return size
    if total != size and (size is not None or total > _MOST):
        expected = f"at most {_MOST:,}" if size is None else f"{size:,}"
        raise _Refused(f"announces {total:,} bytes, expected {expected}")
    return total


def _copy(
    response: http.client.HTTPResponse, partial: Path, *, start: int, total: int | None, limit: int, progress: bool
) -> int:
    """Write what arrives behind the first `start` bytes; return how many there are then."""
    from tqdm import tqdm

    at, name = start, partial.name.removesuffix(".partial")
    bar = tqdm(total=total, initial=start, desc=name, unit="B", unit_scale=True, disable=not progress)
    with bar, partial.open("ab" if start else "wb") as file:
        while block := _network(lambda: response.read1(_BLOCK)):
            at += len(block)
            if at > limit:
                raise _Refused(f"sends more than the {limit:,} bytes expected")
            file.write(block)
            bar.update(len(block))
        file.flush()
        os.fsync(file.fileno())
    return at


# ---------------------------------------------------------------- what has arrived


def _origin(partial: Path) -> Path:
    return partial.with_name(partial.name + ".from")


def _mark(response: http.client.HTTPResponse) -> str:
    """Return the server's mark of this version of the file, empty where it has none that If-Range may use."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _mark_of(partial: Path, url: str) -> str:
    """Return the mark of the version that `partial` is of, if it is from this address and has bytes."""
    try:
        address, mark = _origin(partial).read_text(encoding="utf-8").split("\n")
    except (FileNotFoundError, ValueError):
        return ""
    return mark if address == url and _size(partial) else ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _drop(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _origin(partial).unlink(missing_ok=True)


def _check(partial: Path, name: str, hashes: Mapping[str, str]) -> None:
    """Refuse, and throw away, a whole file that is another than was expected."""
    with partial.open("rb") as file:
        start = file.read(512).lstrip()
    problem = None
    if start[:14].lower().startswith((b"<!doctype html", b"<html")):
        problem = "sent a web page instead of the file"
    elif not start.startswith(_STARTS.get(Path(name).suffix, b"")):
        problem = f"sent something that is no {Path(name).suffix} file"
    for algorithm, expected in hashes.items() if problem is None else ():
        if (found := digest(partial, algorithm)) != expected:
            problem = f"sent another file ({algorithm} {found}, expected {expected})"
            break
    if problem:
        _drop(partial)
        raise _Refused(problem)
