"""What the tests of the server share: a server on a real port, and models small enough to be at hand."""

import socket
import threading
import time
from contextlib import contextmanager

import httpx
import uvicorn

from conftest import make_checkpoint, make_config
from elmokit.model import Elmo
from elmokit.serve import Hosted, Settings, make_app
from elmokit.serve.run import configured

WORDS = ("<S>", "</S>", "<UNK>", "the", "cat", "sat", ".", "it", "purred", "dog", "on", "mat")
KEY = "a-key-of-the-tests"
# Seconds that a reply may take on a machine that is busy with all else.
PATIENCE = 120


def make_hosted(name="tiny", *, vocabulary=WORDS, **shape):
    """A small model; with a softmax head, unless there is no vocabulary."""
    return Hosted(name, Elmo(make_checkpoint(make_config(**shape), vocabulary=vocabulary)))


class Address(str):
    """Where a server listens; `app` is its application."""

    __slots__ = ("app", "server")


@contextmanager
def served(*models, settings=None):
    """Serve models in a thread of this process; yield the address."""
    settings = settings or Settings()
    app = make_app(models or [make_hosted()], settings)
    server = uvicorn.Server(configured(app, settings))
    listener = socket.create_server(("127.0.0.1", 0))
    address = Address(f"http://127.0.0.1:{listener.getsockname()[1]}")
    address.app, address.server = app, server
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        until(lambda: server.started)
        yield address
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the server did not end"


def until(holds, *, seconds=PATIENCE):
    """Wait for what must come true."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def post(address, path, content, **options):
    """The reply to one request."""
    with httpx.Client(base_url=str(address), timeout=PATIENCE) as client:
        return client.post(path, json=content, **options)


def send(method, url, **options):
    """The reply to one request, of any content."""
    return httpx.request(method, url, timeout=PATIENCE, **options)


def metric(address, name, **options):
    """The value of a line of /metrics."""
    for line in send("GET", f"{address}/metrics", **options).text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.rpartition(" ")[2])
    return None
