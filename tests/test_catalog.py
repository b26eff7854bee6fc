"""The catalogue of published models, and fetching from a server that misbehaves in every way servers do."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_checkpoint
from elmokit import catalog, download
from elmokit.errors import DownloadError, UnknownModel
from elmokit.formats.allennlp import write
from elmokit.model import load

WEIGHTS = b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 400  # 102,408 bytes
OPTIONS = b'{"lstm": {}}'


# ---------------------------------------------------------------- a server


@dataclass
class Page:
    """What the server does with one path. `cuts`: after how many bytes the first answers break off.

    `part`: how many bytes an answer to a Range has at most. `said`: a Content-Range that is not so.
    """

    content: bytes = b""
    etag: str | None = '"1"'
    ranges: bool = True
    statuses: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    redirect: str | None = None
    pause: float = 0.0
    announced: int | None = None
    length: bool = True
    part: int | None = None
    said: str | None = None


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        page = self.server.pages.get(self.path, Page(statuses=[404] * 99))
        self.server.asked.append((self.path, self.headers.get("Range")))
        with suppress(ConnectionError):
            self._answer(page)

    def _answer(self, page):
        if page.statuses:
            return self.send_error(page.statuses.pop(0))
        if page.redirect:
            self.send_response(302)
            self.send_header("Location", page.redirect)
            return self.end_headers()
        start = self._start(page)
        if start and start >= len(page.content):
            return self.send_error(416)
        body = page.content[start:][: page.part if start else None]
        self.send_response(206 if start else 200)
        if page.etag:
            self.send_header("ETag", page.etag)
        if start:
            range_ = f"bytes {start}-{start + len(body) - 1}/{len(page.content)}"
            self.send_header("Content-Range", range_ if page.said is None else page.said)
        if page.length:
            self.send_header("Content-Length", str(len(body) if page.announced is None else page.announced))
        self.end_headers()
        return self._send(body[: page.cuts.pop(0)] if page.cuts else body, page.pause)

    def _start(self, page):
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        fits = self.headers.get("If-Range") in (None, page.etag)
        return int(wanted[1]) if wanted and page.ranges and fits else 0

    def _send(self, body, pause):
        step = 10_000 if pause else max(1, len(body))
        for at in range(0, len(body), step):
            self.wfile.write(body[at : at + step])
            self.wfile.flush()
            self.server.stop.wait(pause)


@contextmanager
def serving() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.pages, server.asked, server.stop = {}, [], threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.stop.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as server:
        yield server


@pytest.fixture
def publish(server, tmp_path, monkeypatch):
    """A function that makes a catalogue of one model, "tiny", of the files given: name -> what differs from a File."""
    monkeypatch.setenv("ELMOKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(catalog, "CATALOG", tmp_path / "catalog.json")

    def publish(name="tiny", **files):
        entry = {"name": name, "title": "Tiny", "language": "en", "format": "allennlp", "licence": None}
        entry |= {"page": server.url, "source": "this test", "notes": "", "files": list(files.values())}
        catalog.CATALOG.write_text(json.dumps([entry]))

    return publish


def described(server, name="weights.hdf5", role="weights", **facts):
    return {"name": name, "role": role, "urls": [f"{server.url}/{name}"], **facts}


@pytest.fixture
def tiny(server, publish):
    """The server has the two files of a model that is published without a hash."""
    server.pages |= {"/weights.hdf5": Page(WEIGHTS), "/options.json": Page(OPTIONS)}
    publish(options=described(server, "options.json", "options"), weights=described(server))
    return server


def fetch(**options):
    return catalog.fetch("tiny", progress=False, **options)


def ranges(server, path="/weights.hdf5"):
    return [asked for at, asked in server.asked if at == path]


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


# ---------------------------------------------------------------- what is in it

MODELS = {model.name: model for model in catalog.models()}
HASHES = {"sha256": 64, "sha1": 40, "md5": 32}


def every_file(model):
    for file in model.files:
        yield file
        yield from file.parts


@pytest.mark.parametrize("name", MODELS)
def test_every_entry_is_well_formed(name):
    model = MODELS[name]
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name)
    assert model.title
    assert model.source
    assert re.fullmatch(r"[a-z]{2,3}", model.language)
    assert model.format in get_args(catalog.Format)
    assert model.licence is None or re.fullmatch(r"[A-Za-z0-9.-]+", model.licence)
    assert re.match(r"https?://[^/]+", model.page)
    kept = [file.name for file in model.files]
    assert len(set(kept)) == len(kept)
    assert not {"fetched.json", ".lock"} & set(kept)
    archives = [file for file in model.files if file.role == "archive"]
    assert not archives or len(model.files) == 1


@pytest.mark.parametrize("name", MODELS)
def test_every_file_has_an_address_and_a_plain_name(name):
    for file in every_file(MODELS[name]):
        assert re.fullmatch(r"[\w][\w.-]*", file.name, re.ASCII)
        assert file.role in get_args(catalog.Role)
        assert bool(file.urls) != bool(file.parts)
        assert len(set(file.urls)) == len(file.urls)
        assert all(re.match(r"https?://[^/ ]+/\S+$", url) for url in file.urls)
        assert file.size is None or file.size > 0
        for algorithm, value in file.hashes.items():
            assert re.fullmatch(rf"[0-9a-f]{{{HASHES[algorithm]}}}", value)


def test_every_name_is_used_once():
    assert len(MODELS) == len(catalog.models())


def test_every_family_is_there():
    assert {model.format for model in MODELS.values()} == set(get_args(catalog.Format))
    families = """small medium original original-5.5b pubmed pt-wikipedia pt-brwac ja german plur-eu plur-ta bioelmo
        seqvec catelmo catelmo-shallow catelmo-deep materials original-2layers original-5.5b-2layers
        original-tf small-tf german-tf bioelmo-tf seqvec-tf original-softmax transformer-elmo ner-elmo
        google-elmo-1 google-elmo-2 google-elmo-3 deeppavlov-ru-news deeppavlov-ru-wiki deeppavlov-ru-twitter
        manylangs-zhs test-tiny-words""".split()
    families += [f"crosslingual-{code}" for code in "en es fr it pt sv de".split()]
    families += [f"embeddia-{code}" for code in "hr et fi lv lt sl sv".split()]
    families += [f"nlpl-{number}" for number in (195, 196, 199, 201, 202, 203, 209, 210, 211, 212, 217, 218, 219)]
    assert set(families) <= set(MODELS)


def test_the_44_languages_of_elmoformanylangs_have_one_entry_each():
    numbered = [model for model in MODELS.values() if model.format == "manylangs" and model.name != "manylangs-zhs"]
    numbers = sorted(int(Path(model.files[0].name).stem) for model in numbered)
    assert numbers == list(range(136, 180))
    assert max(Counter(model.language for model in numbered).values()) == 1
    assert all(model.name == f"manylangs-{model.language}" for model in numbered)
    assert all(f"/{file.name}" in url for model in numbered for file in model.files for url in file.urls)


def test_the_hashes_of_the_published_fixture_are_those_of_the_recorded_files(oracles):
    kept = {"weights.hdf5": "lm_weights.hdf5", "vocab.txt": "vocab_test.txt"}
    kept |= {"token_embeddings.hdf5": "elmo_token_embeddings.hdf5"}
    for file in MODELS["test-tiny-words"].files:
        content = (oracles / "allennlp-fixture-a" / kept.get(file.name, file.name)).read_bytes()
        assert (file.size, file.sha256) == (len(content), sha256(content))


def test_the_page_of_published_models_is_the_catalogue():
    page = (Path(__file__).parents[1] / "docs" / "models.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows == [row_of(model) for model in MODELS.values()]


def row_of(model):
    size = "unknown" if model.size is None else f"{model.size / 1e6:,.1f} MB"
    title = f"[{model.title}]({model.page})"
    return f"| `{model.name}` | {model.language} | {model.format} | {size} | {model.licence or 'unknown'} | {title} |"


def test_models_can_be_listed_by_language():
    assert {model.language for model in catalog.models("ja")} == {"ja"}
    assert catalog.models("xx") == []


def test_a_size_is_known_only_where_every_file_has_one():
    assert MODELS["original"].size == 374_434_792 + 336
    assert MODELS["small"].size is None
    assert MODELS["materials"].size is None


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UnknownModel, match=r"'Orignal'; the nearest names are original"):
        catalog.find("Orignal")
    with pytest.raises(UnknownModel, match="run  elmo models  for all names"):
        catalog.find("???")


# ---------------------------------------------------------------- fetching


def test_a_model_of_files_is_fetched_into_its_folder_in_the_cache(tiny, tmp_path):
    folder = fetch()
    assert folder == tmp_path / "cache" / "tiny"
    assert names(folder) == ["fetched.json", "options.json", "weights.hdf5"]
    assert (folder / "weights.hdf5").read_bytes() == WEIGHTS


def test_what_is_there_is_not_fetched_again(tiny):
    first = fetch()
    asked = len(tiny.asked)
    assert fetch() == first
    assert len(tiny.asked) == asked == 2


def test_a_model_of_one_archive_is_that_file(server, publish, tmp_path):
    server.pages["/209.zip"] = Page(b"PK" + WEIGHTS)
    publish(archive=described(server, "209.zip", "archive"))
    assert fetch(folder=tmp_path / "here") == tmp_path / "here" / "209.zip"


def test_a_broken_off_transfer_goes_on_where_it_ended(tiny):
    tiny.pages["/weights.hdf5"].cuts = [1_000, 50_000]
    assert (fetch() / "weights.hdf5").read_bytes() == WEIGHTS
    assert ranges(tiny) == [None, "bytes=1000-", "bytes=51000-"]


def test_a_transfer_that_brings_something_each_time_is_not_given_up(tiny):
    tiny.pages["/weights.hdf5"].cuts = [5_000] * 12
    assert (fetch() / "weights.hdf5").read_bytes() == WEIGHTS


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(tiny):
    page = tiny.pages["/weights.hdf5"]
    page.cuts = [60_000, 0, 0, 0]
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:\d+ broke off after 60,000 of 102,408 bytes; try again"):
        fetch()
    page.cuts = []
    assert (fetch() / "weights.hdf5").read_bytes() == WEIGHTS
    assert ranges(tiny)[-1] == "bytes=60000-"


@settings(max_examples=20, deadline=None)
@given(
    content=st.binary(max_size=2_000).map(b"x".__add__),
    cuts=st.lists(st.integers(0, 2_000), max_size=4),
    resumable=st.booleans(),
)
def test_whatever_breaks_off_the_file_is_whole_or_not_there(content, cuts, resumable, tmp_path_factory):
    target = tmp_path_factory.mktemp("any") / "any.bin"
    with serving() as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "PAUSE", 0.0)
        server.pages["/any.bin"] = Page(content, cuts=list(cuts), ranges=resumable)
        for _ in range(6):
            with suppress(DownloadError):
                download.download([f"{server.url}/any.bin"], target, progress=False)
                break
            assert not target.exists()
    assert target.read_bytes() == content


def test_a_file_that_changed_meanwhile_starts_anew(tiny):
    page = tiny.pages["/weights.hdf5"]
    page.cuts = [60_000, 0, 0, 0]
    with pytest.raises(DownloadError):
        fetch()
    page.content, page.etag = WEIGHTS[:-1] + b"!", '"2"'
    assert (fetch() / "weights.hdf5").read_bytes() == page.content


@pytest.mark.parametrize("page", [Page(WEIGHTS, ranges=False), Page(WEIGHTS, etag=None), Page(WEIGHTS, etag='W/"1"')])
def test_a_server_that_cannot_go_on_sends_all_again(tiny, page):
    tiny.pages["/weights.hdf5"] = page
    page.cuts = [60_000]
    assert (fetch() / "weights.hdf5").read_bytes() == WEIGHTS
    assert len(ranges(tiny)) == 2
    assert page.etag == '"1"' or ranges(tiny) == [None, None]


def test_a_server_that_sends_piece_by_piece_is_asked_for_the_next(tiny):
    tiny.pages["/weights.hdf5"] = Page(WEIGHTS, cuts=[1_000], part=40_000)
    assert (fetch() / "weights.hdf5").read_bytes() == WEIGHTS
    assert ranges(tiny) == [None, "bytes=1000-", "bytes=41000-", "bytes=81000-"]


@pytest.mark.parametrize("said", ["bytes 0-102407/102408", "bytes 1000-1999/*", ""])
def test_another_part_than_was_asked_for_is_refused(tiny, said):
    tiny.pages["/weights.hdf5"] = Page(WEIGHTS, cuts=[1_000], said=said)
    with pytest.raises(DownloadError, match="sent another part of the file than was asked for"):
        fetch()
    assert (fetch() / "weights.hdf5").read_bytes() == WEIGHTS


def test_more_bytes_than_the_server_has_start_anew(tiny):
    tiny.pages["/weights.hdf5"].cuts = [60_000, 0, 0, 0]
    with pytest.raises(DownloadError):
        fetch()
    partial = catalog.cache_folder() / "tiny" / "weights.hdf5.partial"
    partial.write_bytes(bytes(len(WEIGHTS) + 1))
    assert (fetch() / "weights.hdf5").read_bytes() == WEIGHTS


def test_another_file_than_published_is_refused_and_not_kept(server, publish):
    server.pages["/weights.hdf5"] = Page(WEIGHTS[:-1] + b"!")
    publish(weights=described(server, sha256=sha256(WEIGHTS)))
    with pytest.raises(DownloadError, match=rf"sent another file \(sha256 [0-9a-f]+, expected {sha256(WEIGHTS)}\)"):
        fetch()
    assert names(catalog.cache_folder() / "tiny") == []


@pytest.mark.parametrize("algorithm", ["sha1", "md5"])
def test_an_older_hash_is_checked_where_only_that_was_published(server, publish, algorithm):
    server.pages["/weights.hdf5"] = Page(WEIGHTS)
    publish(weights=described(server, **{algorithm: hashlib.new(algorithm, WEIGHTS).hexdigest()}))
    assert (fetch() / "weights.hdf5").read_bytes() == WEIGHTS
    (catalog.cache_folder() / "tiny" / "weights.hdf5").unlink()
    server.pages["/weights.hdf5"].content = WEIGHTS[:-1] + b"!"
    with pytest.raises(DownloadError, match="sent another file"):
        fetch()


def test_the_next_address_is_tried(server, publish):
    server.pages |= {"/wrong": Page(b"\x89HDF\r\n\x1a\nother"), "/weights.hdf5": Page(WEIGHTS)}
    urls = [f"{server.url}/{path}" for path in ("gone", "wrong", "weights.hdf5")]
    publish(weights=described(server, sha256=sha256(WEIGHTS)) | {"urls": urls})
    assert (fetch() / "weights.hdf5").read_bytes() == WEIGHTS
    assert [path for path, _ in server.asked] == ["/gone", "/wrong", "/weights.hdf5"]


def test_what_one_address_brought_is_kept_while_others_do_not_answer(server, publish):
    server.pages |= {"/first": Page(WEIGHTS, cuts=[60_000, 0, 0, 0]), "/small": Page(b"", announced=1)}
    urls = [f"{server.url}/{path}" for path in ("first", "gone", "small")]
    publish(weights=described(server, size=len(WEIGHTS)) | {"urls": urls})
    with pytest.raises(DownloadError, match=r"broke off after 60,000.*answered 404.*announces 1 bytes"):
        fetch()
    assert (fetch() / "weights.hdf5").read_bytes() == WEIGHTS
    assert ranges(server, "/first")[-1] == "bytes=60000-"


def test_redirects_are_followed_and_keep_the_range(tiny):
    tiny.pages["/elsewhere"] = Page(WEIGHTS, cuts=[60_000])
    tiny.pages["/weights.hdf5"] = Page(redirect="/elsewhere")
    assert (fetch() / "weights.hdf5").read_bytes() == WEIGHTS
    assert ranges(tiny, "/elsewhere") == [None, "bytes=60000-"]


@pytest.mark.parametrize(
    ("target", "said"),
    [("/weights.hdf5", "infinite loop"), ("file:///etc/passwd", "not allowed"), ("ftp://127.0.0.1/x", "ftp")],
)
def test_a_redirect_in_circles_or_to_something_else_is_refused(tiny, target, said):
    tiny.pages["/weights.hdf5"] = Page(redirect=target)
    with pytest.raises(DownloadError, match=said) as raised:
        fetch()
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_not_asked_for_again(tiny):
    del tiny.pages["/weights.hdf5"]
    with pytest.raises(
        DownloadError, match=r"weights.hdf5 cannot be fetched: 127.0.0.1:\d+ answered 404 \(Not Found\)"
    ):
        fetch()
    assert len(ranges(tiny)) == 1


def test_a_busy_server_is_asked_again(tiny):
    tiny.pages["/weights.hdf5"].statuses = [503, 429]
    assert (fetch() / "weights.hdf5").read_bytes() == WEIGHTS
    tiny.pages["/weights.hdf5"].statuses = [500] * 3
    with pytest.raises(DownloadError, match="answered 500"):
        fetch(folder=catalog.cache_folder() / "again")


def test_a_slow_server_is_waited_for(tiny):
    tiny.pages["/weights.hdf5"].pause = 0.01
    assert (fetch() / "weights.hdf5").read_bytes() == WEIGHTS


def test_a_server_that_falls_silent_is_given_up(tiny, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    tiny.pages["/weights.hdf5"] = Page(WEIGHTS, pause=2.0, ranges=False)
    with pytest.raises(DownloadError, match=r"sent nothing for 0\.1 seconds"):
        fetch()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "http://nowhere.invalid/x", "file:///etc/passwd", "x"])
def test_what_is_no_server_is_refused(server, publish, url):
    publish(weights=described(server) | {"urls": [url]})
    with pytest.raises(DownloadError, match=r"cannot be reached|is not an address"):
        fetch()


def test_another_size_than_published_is_refused_at_once(server, publish):
    server.pages["/weights.hdf5"] = Page(WEIGHTS, announced=10**15)
    publish(weights=described(server, size=len(WEIGHTS)))
    with pytest.raises(DownloadError, match="announces 1,000,000,000,000,000 bytes, expected 102,408"):
        fetch()


def test_a_size_that_no_model_has_is_refused_at_once(tiny):
    tiny.pages["/weights.hdf5"].announced = 10**15
    with pytest.raises(DownloadError, match="expected at most 68,719,476,736"):
        fetch()


def test_a_server_that_does_not_stop_is_stopped(server, publish):
    server.pages["/weights.hdf5"] = Page(WEIGHTS * 3, length=False)
    publish(weights=described(server, size=len(WEIGHTS)))
    with pytest.raises(DownloadError, match="sends more than the 102,408 bytes expected"):
        fetch()


def test_a_server_that_announces_nothing_is_held_to_the_published_size(server, publish):
    server.pages["/weights.hdf5"] = Page(WEIGHTS, length=False, cuts=[60_000])
    publish(weights=described(server, size=len(WEIGHTS)))
    assert (fetch() / "weights.hdf5").read_bytes() == WEIGHTS


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><p>sign in", b"\n <html>", b"PK\x03\x04", b""])
def test_a_web_page_is_not_taken_for_weights(tiny, content):
    tiny.pages["/weights.hdf5"].content = content
    with pytest.raises(DownloadError, match=r"sent a web page|is no \.hdf5 file"):
        fetch()


def test_a_full_disk_is_said_before_anything_arrives(tiny, monkeypatch):
    class Full:
        free = 11

    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: Full)
    with pytest.raises(DownloadError, match=r"there is no room in \S+ for 12 bytes; free some"):
        fetch()


def test_a_disk_that_fills_up_is_said(tiny, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download.os, "fsync", full)
    with pytest.raises(DownloadError, match="there is no room in"):
        fetch()


def test_a_folder_that_cannot_be_made_is_said(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="cannot be written"):
        fetch(folder=tmp_path / "file")


# ---------------------------------------------------------------- hashes that nobody published


def test_an_unpublished_hash_is_noted_and_checked_later(tiny):
    folder = fetch()
    noted = json.loads((folder / "fetched.json").read_text())
    assert noted == {"model": "tiny", "sha256": {"options.json": sha256(OPTIONS), "weights.hdf5": sha256(WEIGHTS)}}
    (folder / "weights.hdf5").write_bytes(WEIGHTS[:-1] + b"!")
    with pytest.raises(DownloadError, match=r"weights.hdf5 is not the file that was published or first fetched"):
        fetch()


def test_a_file_that_was_replaced_on_the_server_is_refused(tiny):
    folder = fetch()
    (folder / "weights.hdf5").unlink()
    tiny.pages["/weights.hdf5"].content = WEIGHTS[:-1] + b"!"
    with pytest.raises(DownloadError, match=r"sent another file.*; its hash was noted at an earlier fetch in \S+json"):
        fetch()


def test_a_file_put_there_by_hand_is_taken_and_checked(server, publish):
    publish(weights=described(server, sha256=sha256(WEIGHTS)))
    folder = catalog.cache_folder() / "tiny"
    folder.mkdir(parents=True)
    (folder / "weights.hdf5").write_bytes(WEIGHTS)
    assert fetch() == folder
    assert server.asked == []
    (folder / "weights.hdf5").write_bytes(OPTIONS)
    with pytest.raises(DownloadError, match="delete it and fetch again"):
        fetch()


def test_a_folder_of_another_model_is_not_written_into(tiny, publish, tmp_path):
    fetch(folder=tmp_path / "here")
    publish("other", weights=described(tiny))
    with pytest.raises(DownloadError, match="holds the model 'tiny'; choose another folder for other"):
        catalog.fetch("other", folder=tmp_path / "here", progress=False)


def test_a_damaged_record_is_said(tiny):
    (fetch() / "fetched.json").write_text("[]")
    with pytest.raises(DownloadError, match="is not a record of fetched files"):
        fetch()


def test_a_file_published_in_pieces_is_put_together(server, publish):
    whole = b"\x1f\x8b" + WEIGHTS
    pieces = [whole[:40_000], whole[40_000:]]
    parts = [described(server, f"x.tgz.part-{n}", "archive", sha256=sha256(piece)) for n, piece in enumerate(pieces)]
    server.pages |= {f"/x.tgz.part-{n}": Page(piece) for n, piece in enumerate(pieces)}
    publish(archive={"name": "x.tgz", "role": "archive", "md5": hashlib.md5(whole).hexdigest(), "parts": parts})
    path = fetch()
    assert path.read_bytes() == whole
    assert names(path.parent) == ["fetched.json", "x.tgz"]


def test_a_model_without_an_address_names_its_page(server, publish):
    publish()
    with pytest.raises(DownloadError, match=f"no direct address of tiny is known; get it by hand from {server.url}"):
        fetch()


# ---------------------------------------------------------------- several processes, and ones that die

PROGRAM = """
import sys
from pathlib import Path
from elmokit import catalog
catalog.CATALOG = Path(sys.argv[1])
print(catalog.fetch("tiny", progress=False))
"""


def start_fetching():
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(catalog.CATALOG)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_that_fetch_one_model_share_one_transfer(tiny):
    tiny.pages["/weights.hdf5"].pause = 0.05
    running = [start_fetching(), start_fetching()]
    outputs = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    assert {out.strip() for out, _ in outputs} == {str(catalog.cache_folder() / "tiny")}
    assert Counter(path for path, _ in tiny.asked) == {"/weights.hdf5": 1, "/options.json": 1}
    assert (catalog.cache_folder() / "tiny" / "weights.hdf5").read_bytes() == WEIGHTS


@pytest.mark.skipif(os.name == "nt", reason="kills a process")
def test_what_a_killed_process_fetched_is_gone_on_with(tiny):
    tiny.pages["/weights.hdf5"].pause = 0.2
    running = start_fetching()
    partial = catalog.cache_folder() / "tiny" / "weights.hdf5.partial"
    for _ in range(3_000):
        if partial.exists() and partial.stat().st_size:
            break
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.communicate(timeout=60)
    assert not partial.with_suffix("").exists()
    tiny.pages["/weights.hdf5"].pause = 0.0
    assert (fetch() / "weights.hdf5").read_bytes() == WEIGHTS
    assert re.fullmatch(r"bytes=\d+-", ranges(tiny)[-1])


# ---------------------------------------------------------------- the cache, the commands


def test_the_cache_is_where_the_system_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for name in ("ELMOKIT_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    places = {"linux": ".cache/elmokit", "darwin": "Library/Caches/elmokit", "win32": "AppData/Local/elmokit/Cache"}
    for platform, place in places.items():
        monkeypatch.setattr(sys, "platform", platform)
        assert catalog.cache_folder() == tmp_path / place
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert catalog.cache_folder() == Path("/x/elmokit")
    monkeypatch.setenv("ELMOKIT_CACHE", "/y")
    assert catalog.cache_folder() == Path("/y")


def test_elmo_models_prints_a_table(run):
    code, out, err = run("models", "--language", "de")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].split() == ["name", "language", "format", "size", "licence", "title"]
    assert [line.split()[0] for line in lines[1:]] == [model.name for model in catalog.models("de")]
    at = lines[0].index("language")
    assert {line[at - 2 : at + 4] for line in lines[1:]} == {"  de  "}


def test_elmo_models_prints_json(run):
    code, out, _ = run("models", "--json")
    listed = json.loads(out)
    assert (code, len(listed)) == (0, len(MODELS))
    original = next(entry for entry in listed if entry["name"] == "original")
    assert [file["name"] for file in original["files"]] == ["options.json", "weights.hdf5"]


def test_elmo_models_of_an_unknown_language_is_an_error(run):
    code, out, err = run("models", "--language", "german")
    assert (code, out) == (1, "")
    assert err == "elmo: no published model is of the language 'german'; expected an ISO 639 code such as de\n"


def test_elmo_fetch_prints_the_path_and_shows_progress(tiny, run, tmp_path):
    code, out, err = run("fetch", "tiny", "--folder", tmp_path / "here")
    assert (code, out) == (0, f"{tmp_path / 'here'}\n")
    assert "weights.hdf5: 100%" in err


def test_elmo_fetch_tells_what_is_wrong_in_one_line(tiny, run):
    tiny.pages.clear()
    code, out, err = run("fetch", "tiny")
    assert (code, out) == (1, "")
    assert re.fullmatch(r"elmo: options.json cannot be fetched: .* answered 404 .*\n", err)
    assert run("fetch", "tinny")[2] == "elmo: there is no published model 'tinny'; the nearest names are tiny\n"


def test_a_published_name_is_fetched_and_opened(server, publish, tmp_path):
    """And nothing is fetched offline."""
    write(make_checkpoint(), tmp_path / "model")
    for name in ("options.json", "weights.hdf5"):
        server.pages[f"/{name}"] = Page((tmp_path / "model" / name).read_bytes())
    publish(options=described(server, "options.json", "options"), weights=described(server))
    with pytest.raises(DownloadError, match="tiny has not been fetched yet; run  elmo fetch tiny"):
        load("tiny", offline=True)
    assert not server.asked
    assert load("tiny").fingerprint == load(tmp_path / "model").fingerprint
    asked = len(server.asked)
    assert load("tiny", offline=True).fingerprint == load("tiny").fingerprint
    assert len(server.asked) == asked
