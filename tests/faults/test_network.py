"""A network that breaks under `elmo fetch`: the model is whole or not there, and fetching again goes on.

What a server can do wrong, and what one process makes of it, is in tests/test_catalog.py, whose server this is.
"""

import random
import socket
import time

import jobs
import pytest
from jobs import sentence

import test_catalog
from elmokit import catalog
from test_catalog import WEIGHTS, names, ranges

server, publish, tiny = test_catalog.server, test_catalog.publish, test_catalog.tiny


def folder():
    return catalog.cache_folder() / "tiny"


def fetch_whole(elmo):
    assert elmo(["fetch", "tiny"])[0] == 0
    assert names(folder()) == ["fetched.json", "options.json", "weights.hdf5"]
    assert (folder() / "weights.hdf5").read_bytes() == WEIGHTS


@pytest.mark.parametrize("moments", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_cut_at_random_places(tiny, elmo, moments):
    """Every answer breaks off somewhere; nothing is asked for twice, and the file is what the server has."""
    choose = random.Random(moments)
    cuts = [choose.randrange(1, len(WEIGHTS) // moments) for _ in range(moments)]
    tiny.pages["/weights.hdf5"].cuts = list(cuts)
    fetch_whole(elmo)
    starts = [int(asked[6:-1]) if asked else 0 for asked in ranges(tiny)]
    assert starts == [sum(cuts[:n]) for n in range(moments + 1)]


def test_a_file_that_is_gone_for_a_while(tiny, elmo):
    page = tiny.pages.pop("/weights.hdf5")
    assert "404" in sentence(*elmo(["fetch", "tiny"]))
    assert "weights.hdf5" not in names(folder())
    tiny.pages["/weights.hdf5"] = page
    fetch_whole(elmo)


def test_nobody_listens(tiny, publish, elmo):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = {"name": "weights.hdf5", "role": "weights", "urls": [f"http://127.0.0.1:{port}/weights.hdf5"]}
    publish(weights=file)
    assert "refused" in sentence(*elmo(["fetch", "tiny"]))
    assert not (folder() / "weights.hdf5").exists()


def test_a_name_that_nobody_knows(tiny, publish, elmo):
    publish(weights={"name": "weights.hdf5", "role": "weights", "urls": ["http://no-such-host.invalid/weights.hdf5"]})
    message = sentence(*elmo(["fetch", "tiny"]))
    assert "no-such-host.invalid cannot be reached" in message
    assert not (folder() / "weights.hdf5").exists()


@pytest.mark.parametrize("moments", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_random_moments(tiny, elmo, moments, monkeypatch):
    """A process that is killed while it fetches leaves what it has, and the next one asks for the rest."""
    tiny.pages["/weights.hdf5"].pause = 0.05
    choose = random.Random(moments)
    for _ in range(moments):
        running = jobs.start(["fetch", "tiny"], catalog=catalog.CATALOG, cache=catalog.cache_folder())
        jobs.wait_for(folder() / "weights.hdf5.partial", running)
        time.sleep(choose.uniform(0, 0.5))
        running.kill()
        code, errors = running.finish()
        assert code in (0, -9), errors
        if (folder() / "weights.hdf5").exists():
            assert (folder() / "weights.hdf5").read_bytes() == WEIGHTS
            (folder() / "weights.hdf5").unlink()
    tiny.pages["/weights.hdf5"].pause = 0.0
    fetch_whole(elmo)
