"""A server that is killed while it answers: no answer is half of one, and the next server gives the same."""

import http.client
import json
import random
import threading
import time
import urllib.error
import urllib.request

import jobs
import pytest

pytest.importorskip("fastapi", reason="the server needs the extra serve")
BODY = json.dumps({"sentences": [["the", "cat", "sees", "Bäume", "."]] * 20, "pool": "mean"}).encode()


def serving(here):
    """Start a server; it and its address."""
    running = jobs.start(["serve", f"tiny={here / 'model'}", "--port", "0", "--threads", "1"])
    for _ in range(6000):
        for line in running.errors.read_text("utf-8").splitlines():
            if '"serving"' in line:
                return running, json.loads(line)["address"]
        assert running.process.is_alive(), running.errors.read_text("utf-8")
        time.sleep(0.02)
    raise TimeoutError


def ask(address):
    request = urllib.request.Request(f"{address}/embed", BODY, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())["sentences"]


def ask_until_it_is_gone(address, answers):
    """Ask again and again; what comes of it is a whole answer, or the connection breaks."""
    try:
        while True:
            answers.append(ask(address))
    except (urllib.error.URLError, ConnectionError, http.client.HTTPException):
        return


@pytest.mark.parametrize("moments", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_random_moments(moments, here):
    choose, answers, expected = random.Random(moments), [], None
    for _ in range(moments):
        running, address = serving(here)
        expected = expected or ask(address)
        client = threading.Thread(target=ask_until_it_is_gone, args=(address, answers))
        client.start()
        time.sleep(choose.uniform(0, 0.3))
        running.kill()
        assert running.finish()[0] == -9
        client.join(60)
        assert not client.is_alive()
    assert answers
    assert all(answer == expected for answer in answers)
