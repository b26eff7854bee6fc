"""The Hugging Face hub: its library talks to a local server that speaks the part of the hub's language it needs."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

import manylangs_folder
from checkpoints import assert_same
from conftest import make_checkpoint
from elmokit import catalog, formats, hub
from elmokit.checkpoint import Checkpoint, write_native
from elmokit.errors import DownloadError, FormatError, UnknownModel
from elmokit.formats import allennlp
from elmokit.model import Elmo

TOKEN = "hf_secret"


# ---------------------------------------------------------------- a hub


class Hub(ThreadingHTTPServer):
    """Repositories: name -> branch or commit -> file -> bytes. `asked`: method and path of each request."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos, self.private, self.gated = {}, set(), set()
        self.asked, self.uploaded, self.large = [], {}, ()

    def commit(self, repo, files):
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.repos.setdefault(repo, {}).update({"main": files, sha: files})
        return sha

    def sha(self, repo, revision):
        branches = self.repos[repo]
        return next(name for name, files in branches.items() if len(name) == 40 and files is branches[revision])


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def handle_any(self):
        self.path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {self.path}")
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        for pattern, answer in ROUTES.items():
            if found := re.fullmatch(pattern, f"{self.command} {self.path}"):
                return answer(self, *found.groups(), **({"body": body} if self.command in ("POST", "PUT") else {}))
        return self.refuse(501, "")

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def send(self, content, *, status=200, **headers):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, status, code):
        self.send({"error": code}, status=status, X_Error_Code=code)

    def files(self, repo, revision):
        """The files of a revision, or None where the request was refused."""
        if repo in self.server.gated:
            return self.refuse(403, "GatedRepo")
        hidden = repo in self.server.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"
        if hidden or repo not in self.server.repos:
            return self.refuse(404, "RepoNotFound")
        if revision not in self.server.repos[repo]:
            return self.refuse(404, "RevisionNotFound")
        return self.server.repos[repo][revision]

    # what is read

    def revision(self, repo, revision):
        if (files := self.files(repo, revision)) is not None:
            names = [{"rfilename": name} for name in files]
            self.send({"id": repo, "sha": self.server.sha(repo, revision), "siblings": names})

    def tree(self, repo, revision):
        if (files := self.files(repo, revision)) is not None:
            self.send(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in files.items()
                ]
            )

    def resolve(self, repo, revision, name):
        files = self.files(repo, revision)
        if files is None:
            return
        if name not in files:
            self.refuse(404, "EntryNotFound")
            return
        etag = f'"{hashlib.sha1(files[name]).hexdigest()}"'
        self.send(files[name], ETag=etag, X_Repo_Commit=self.server.sha(repo, revision))

    # what is written

    def allowed(self):
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self.refuse(401, "")
        return False

    def create(self, body):
        if not self.allowed():
            return
        asked = json.loads(body)
        repo = f"{asked['organization']}/{asked['name']}"
        new = repo not in self.server.repos
        if new:
            self.server.commit(repo, {})
        if asked.get("visibility") == "private" or asked.get("private"):
            self.server.private.add(repo)
        self.send({"url": f"{self.server.url}/{repo}"}, status=200 if new else 409)

    def validate(self, body):
        bad = "forbidden" in json.loads(body)["content"]
        self.send({"errors": [{"message": "forbidden"}] if bad else [], "warnings": []}, status=400 if bad else 200)

    def preupload(self, repo, body):
        modes = [
            {
                "path": f["path"],
                "uploadMode": "lfs" if f["path"] in self.server.large else "regular",
                "shouldIgnore": False,
            }
            for f in json.loads(body)["files"]
        ]
        self.send({"files": modes})

    def batch(self, repo, body):
        asked = json.loads(body)["objects"]
        uploads = [{"upload": {"href": f"{self.server.url}/put/{thing['oid']}"}} for thing in asked]
        objects = [{**thing, "actions": actions} for thing, actions in zip(asked, uploads, strict=True)]
        self.send({"transfer": "basic", "objects": objects})

    def put(self, oid, body):
        self.server.uploaded[oid] = body
        self.send(b"")

    def commit(self, repo, body):
        if not self.allowed():
            return
        lines = [json.loads(line) for line in body.splitlines()]
        files = dict(self.server.repos[repo]["main"])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                files[value["path"]] = self.server.uploaded[value["oid"]]
        sha = self.server.commit(repo, files)
        self.server.message = lines[0]["value"]["summary"]
        self.send({"commitUrl": f"{self.server.url}/{repo}/commit/{sha}", "commitOid": sha, "success": True})


REPO = r"([^/]+/[^/]+)"
ROUTES = {
    rf"GET /api/models/{REPO}/revision/([^/]+)": Handler.revision,
    rf"GET /api/models/{REPO}/tree/([^/]+)": Handler.tree,
    rf"(?:GET|HEAD) /{REPO}/resolve/([^/]+)/(.+)": Handler.resolve,
    r"POST /api/repos/create": Handler.create,
    r"POST /api/validate-yaml": Handler.validate,
    rf"POST /api/models/{REPO}/preupload/main": Handler.preupload,
    rf"POST /{REPO}\.git/info/lfs/objects/batch": Handler.batch,
    r"PUT /put/(\w+)": Handler.put,
    rf"POST /api/models/{REPO}/commit/main": Handler.commit,
}


@contextmanager
def serving() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A hub, and an empty cache. The library reads where its cache is once, when it is imported."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def checkpoint():
    made = make_checkpoint(vocabulary=("<S>", "</S>", "<UNK>", "the"))
    return Checkpoint(made.config, made.arrays, made.vocabulary, card="# A tiny model\n")


@pytest.fixture(scope="module")
def native(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("native") / "tiny"
    write_native(checkpoint, folder)
    return folder


@pytest.fixture(scope="module")
def allennlp_files(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("allennlp") / "tiny"
    allennlp.write(tiny, folder)
    return contents(folder)


# ---------------------------------------------------------------- resolving


def test_our_own_format_is_fetched(server, native, checkpoint):
    server.commit("me/tiny", contents(native))
    assert_same(formats.read(hub.resolve("me/tiny")), checkpoint)


def test_options_and_weights_are_fetched(server, allennlp_files, tiny):
    server.commit("me/tiny", allennlp_files)
    assert_same(formats.read(hub.resolve("me/tiny")), tiny)


def test_only_the_files_of_a_model_are_fetched(server, native):
    others = {"pytorch_model.bin": b"pickle", "run.py": b"print()", "big.h5": b"", "weights.th": b"pickle"}
    server.commit("me/tiny", {**contents(native), **others})
    assert set(contents(hub.resolve("me/tiny"))) == set(contents(native))
    assert not [asked for asked in server.asked if any(name in asked for name in others)]


def test_a_revision_is_a_branch_or_a_commit(server, native, allennlp_files):
    old = server.commit("me/tiny", allennlp_files)
    server.commit("me/tiny", contents(native))
    server.repos["me/tiny"]["try"] = server.repos["me/tiny"][old]
    assert "options.json" in contents(hub.resolve("me/tiny", revision=old))
    assert "options.json" in contents(hub.resolve("me/tiny", revision="try"))
    assert "config.json" in contents(hub.resolve("me/tiny"))


def test_what_is_in_the_cache_is_not_fetched_again(server, native):
    server.commit("me/tiny", contents(native))
    first = hub.resolve("me/tiny")
    fetched = [asked for asked in server.asked if "/resolve/" in asked]
    assert hub.resolve("me/tiny") == first
    assert [asked for asked in server.asked if "/resolve/" in asked] == fetched


def test_offline_opens_what_is_in_the_cache_and_asks_nobody(server, native):
    server.commit("me/tiny", contents(native))
    first = hub.resolve("me/tiny")
    server.asked.clear()
    assert hub.resolve("me/tiny", offline=True) == first
    assert server.asked == []


def test_offline_says_what_is_not_in_the_cache(server, native):
    server.commit("me/tiny", contents(native))
    with pytest.raises(DownloadError, match="me/tiny is not in the hub's cache, and this is offline"):
        hub.resolve("me/tiny", offline=True)


def test_a_hub_out_of_reach_opens_what_is_in_the_cache(server, native, monkeypatch):
    server.commit("me/tiny", contents(native))
    first = hub.resolve("me/tiny")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert hub.resolve("me/tiny") == first
    with pytest.raises(DownloadError, match="me/other cannot be fetched from the hub"):
        hub.resolve("me/other")


def test_a_missing_repository_or_revision_is_an_unknown_model(server, native):
    with pytest.raises(UnknownModel, match="there is no repository me/tiny on the hub that you may see"):
        hub.resolve("me/tiny")
    server.commit("me/tiny", contents(native))
    with pytest.raises(UnknownModel, match="me/tiny on the hub has no revision 'nowhere'"):
        hub.resolve("me/tiny", revision="nowhere")


def test_a_private_repository_needs_the_token(server, native, checkpoint):
    server.commit("me/tiny", contents(native))
    server.private.add("me/tiny")
    with pytest.raises(UnknownModel, match="pass a token"):
        hub.resolve("me/tiny")
    assert_same(formats.read(hub.resolve("me/tiny", token=TOKEN)), checkpoint)


def test_a_gated_repository_says_so(server, native):
    server.commit("me/tiny", contents(native))
    server.gated.add("me/tiny")
    with pytest.raises(DownloadError, match="me/tiny on the hub asks for consent"):
        hub.resolve("me/tiny")


@pytest.mark.parametrize("config", [b'{"model_type": "bert"}', b"[]", None])
def test_another_kind_of_model_is_refused_before_its_weights_come(server, config):
    files = {"model.safetensors": b"gigabytes", "tokenizer.json": b"{}"}
    server.commit("me/bert", {**files, **({"config.json": config} if config else {})})
    with pytest.raises(
        FormatError, match=r"me/bert on the hub is no ELMo: expected config.json with model.safetensors"
    ):
        hub.resolve("me/bert")
    assert not [asked for asked in server.asked if "model.safetensors" in asked]


def test_a_repository_without_weights_is_refused(server):
    server.commit("me/half", {"options.json": b"{}"})
    with pytest.raises(FormatError, match=r"me/half on the hub holds options.json, expected config.json with model"):
        hub.resolve("me/half")


def test_a_damaged_description_is_a_format_error(server):
    server.commit("me/bad", {"config.json": b"{"})
    with pytest.raises(FormatError, match=r"me/bad on the hub, config.json: expected JSON"):
        hub.resolve("me/bad")


@pytest.mark.parametrize("name", ["a/b/c", "../x/y", "a b/c", "me/tiny..", ""])
def test_what_cannot_be_a_repository_is_an_unknown_model(server, name):
    with pytest.raises(UnknownModel, match="cannot name a repository of the hub"):
        hub.resolve(name)


def test_what_is_neither_a_path_nor_a_repository(server, monkeypatch):
    with pytest.raises(
        UnknownModel, match=r"^there is no path my/model, and there is no repository my/model on the hub"
    ):
        catalog.locate("my/model")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match=r"^there is no path my/model, and my/model cannot be fetched from the hub"):
        catalog.locate("my/model")


def test_repository_names_are_told_from_other_names():
    assert all(map(hub.is_repo_id, ["me/tiny", "allenai/ELMo-5.5B", "a_b/c.d"]))
    assert not any(map(hub.is_repo_id, ["tiny", "a/b/c", "./tiny", "../tiny", "/tiny", "me/", "a b/c", "me\\tiny"]))


ENVIRONMENT = """
import os, sys
from elmokit import hub
from elmokit.errors import DownloadError
try:
    print(hub.resolve(sys.argv[1]))
except DownloadError as error:
    print(error)
"""


def test_the_environment_says_where_the_hub_and_its_cache_are_and_whether_to_be_offline(server, native, tmp_path):
    server.commit("me/tiny", contents(native))
    server.commit("me/other", contents(native))

    def run(repo, **environment):
        place = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), **environment}
        command = [sys.executable, "-W", "error", "-c", ENVIRONMENT, repo]
        return subprocess.run(command, env=place, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    first = run("me/tiny")
    assert first.startswith(str(tmp_path / "home"))
    server.asked.clear()
    assert run("me/tiny", HF_HUB_OFFLINE="1") == first
    assert "is not in the hub's cache, and this is offline" in run("me/other", HF_HUB_OFFLINE="1")
    assert server.asked == []


# ---------------------------------------------------------------- pushing


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the library's own, when it sends large files
@pytest.mark.parametrize("large", [(), ("model.safetensors",)])
def test_what_is_pushed_can_be_opened(server, native, checkpoint, large):
    server.large = large
    address = hub.push(native, "me/new", token=TOKEN, message="First")
    assert re.fullmatch(rf"{server.url}/me/new/commit/[0-9a-f]{{40}}", address)
    assert server.message == "First"
    assert len(server.uploaded) == len(large)
    found = formats.read(hub.resolve("me/new"))
    assert_same(Checkpoint(found.config, found.arrays, found.vocabulary, checkpoint.card), checkpoint)


def test_a_model_sends_itself(server, native, checkpoint):
    address = Elmo(formats.read(native)).push_to_hub("me/new", token=TOKEN)
    assert address.startswith(f"{server.url}/me/new/commit/")
    assert server.message == "Send with elmokit"
    found = formats.read(hub.resolve("me/new"))
    assert_same(Checkpoint(found.config, found.arrays, found.vocabulary, checkpoint.card), checkpoint)


def test_a_model_that_spells_in_code_points_comes_back_with_its_lexicon(server, tmp_path):
    source = formats.read(manylangs_folder.write(manylangs_folder.make(), tmp_path / "theirs"))
    write_native(source, tmp_path / "ours")
    hub.push(tmp_path / "ours", "me/new", token=TOKEN)
    found = formats.read(hub.resolve("me/new"))
    assert found.characters == source.characters
    assert found.speller() == source.speller()


def test_a_head_in_its_own_file_comes_back(server, checkpoint, tmp_path):
    allennlp.write(checkpoint, tmp_path)
    hub.push(tmp_path, "me/new", token=TOKEN)
    assert_same(formats.read(hub.resolve("me/new")), checkpoint)


def test_options_and_weights_can_be_pushed(server, allennlp_files, tiny, tmp_path):
    for name, content in {**allennlp_files, "notes.txt": b"", "model.th": b"pickle"}.items():
        (tmp_path / name).write_bytes(content)
    hub.push(tmp_path, "me/new", token=TOKEN)
    assert set(server.repos["me/new"]["main"]) == {*allennlp_files, "README.md"}
    assert server.message == "Send with elmokit"


def test_the_card_goes_with_it_tagged_for_the_hub(server, native, allennlp_files, tmp_path):
    hub.push(native, "me/new", token=TOKEN)
    card = server.repos["me/new"]["main"]["README.md"].decode()
    assert card.startswith("---\nlibrary_name: elmokit\ntags:\n- elmo\n")
    assert card.endswith("---\n\n# A tiny model\n")
    for name, content in {**allennlp_files, "README.md": b"---\ntags: [mine]\n---\n# Mine\n"}.items():
        (tmp_path / name).write_bytes(content)
    hub.push(tmp_path, "me/mine", token=TOKEN)
    assert server.repos["me/mine"]["main"]["README.md"] == b"---\ntags: [mine]\n---\n# Mine\n"


def test_a_model_without_a_card_gets_one_that_says_how_to_open_it(server, allennlp_files, tmp_path):
    for name, content in allennlp_files.items():
        (tmp_path / name).write_bytes(content)
    hub.push(tmp_path, "me/new", token=TOKEN)
    assert b'`elmokit.load("me/new")`' in server.repos["me/new"]["main"]["README.md"]


def test_a_repository_can_be_private_and_may_be_there_already(server, native):
    hub.push(native, "me/new", token=TOKEN, private=True)
    hub.push(native, "me/new", token=TOKEN, private=True)
    assert server.private == {"me/new"}


def test_a_folder_without_a_model_is_not_pushed(server, tmp_path):
    with pytest.raises(
        FormatError, match=r"holds nothing, expected config.json with model.safetensors, or options.json"
    ):
        hub.push(tmp_path / "nowhere", "me/new", token=TOKEN)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(FormatError, match=r"holds notes.txt"):
        hub.push(tmp_path, "me/new", token=TOKEN)
    assert server.asked == []


def test_a_push_that_is_refused_says_why(server, native, tmp_path, allennlp_files):
    with pytest.raises(DownloadError, match=r"the hub did not do as asked for me/new \(.*401"):
        hub.push(native, "me/new")
    with pytest.raises(UnknownModel, match="cannot name a repository"):
        hub.push(native, "a/b/c", token=TOKEN)
    for name, content in {**allennlp_files, "README.md": b"---\nforbidden: 1\n---\n"}.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DownloadError, match="Invalid metadata"):
        hub.push(tmp_path, "me/new", token=TOKEN)


def test_a_push_to_a_hub_out_of_reach_says_so(server, native, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match="the hub did not do as asked for me/new"):
        hub.push(native, "me/new", token=TOKEN)
