"""Whichever process is killed, the one that fills an index or the server that keeps it: nothing is lost or doubled."""

import os
import subprocess
import sys
import time

import pytest

from elmokit.checkpoint import write_native
from elmokit.errors import OutputError
from elmokit.search import Changes, Index, settings_of

pytest.importorskip("lancedb")

LINES = [f"sentence number {n} of the old bank" for n in range(600)]
# The command with small commits, each after a while, so that there is a middle to kill it in.
SLOWLY = """
import sys, time
from elmokit.search import texts
from elmokit.search.index import Index
commit = Index._commit
def slowly(*args):
    time.sleep(0.05)
    return commit(*args)
Index._commit, texts._COMMIT = slowly, 20
from elmokit.cli import main
main()
"""


@pytest.fixture
def model(tiny, tmp_path):
    write_native(tiny, tmp_path / "tiny")
    return tmp_path / "tiny"


def killed_in_the_middle(arguments, rows, least):
    """Start the command, kill it when the index has this many rows at least, and return how many it has then."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, *map(str, arguments)], stderr=subprocess.PIPE, env=environment
    )
    deadline = time.monotonic() + 120
    with process:
        try:
            while rows() < least:
                assert process.poll() is None, process.stderr.read().decode()
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            process.kill()
    return rows()


@pytest.mark.parametrize("store", ["lance", "postgres"])
def test_a_killed_run_is_repeated(store, request, model, tiny_elmo, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(LINES))
    address = request.getfixturevalue("server").address if store == "postgres" else str(tmp_path / "index")
    arguments = ["index", text, address, "--model", model, "--name", "killed"]

    def rows():
        if settings_of(address, name="killed") is None:
            return 0
        with Index.open(address, tiny_elmo, name="killed") as index:
            return index.count()

    first = killed_in_the_middle(arguments, rows, 50)
    second = killed_in_the_middle(arguments, rows, first + 50)
    assert 50 <= first < second < len(LINES)
    with Index.open(address, tiny_elmo, name="killed") as index:
        kept = {hit.key: hit.text for hit in index.search("bank", count=1000, exact=True)}
        assert kept == {f"{text}:{n}": line for n, line in enumerate(LINES[:second], 1)}
        changes = index.update(str(text), [line.split() for line in LINES])
        assert changes == Changes(added=len(LINES) - second, unchanged=second)
        index.optimize()
        found = [(hit.key, hit.text) for hit in index.search("bank", count=1000, exact=True)]
        assert sorted(found) == sorted((f"{text}:{n}", line) for n, line in enumerate(LINES, 1))


def test_a_killed_server_has_lost_nothing(server, tiny_elmo):
    """What was committed is there when it is started again, and the same `Index` goes on."""
    texts = [line.split() for line in LINES[:200]]
    with Index.create(server.address, tiny_elmo, name="power_cut") as index:
        index.add("a", texts)
        before = index.search("the bank", count=200)
        server.kill()
        with pytest.raises(OutputError, match="the server of the index"):
            index.search("the bank")
        server.start()
        assert index.search("the bank", count=200) == before
        assert len(before) == len({hit.key for hit in before}) == 200
        assert index.add("a", texts) == Changes(unchanged=200)
        assert index.add("a", [["new"]], first=201) == Changes(added=1)
    with Index.open(server.address, tiny_elmo, name="power_cut") as again:
        assert again.count() == 201


def test_no_server_is_one_sentence(server, tiny_elmo):
    with pytest.raises(OutputError, match=r"the server of the index cannot be reached .*; check the address"):
        Index.open("postgresql://postgres@127.0.0.1:1/postgres", tiny_elmo)
