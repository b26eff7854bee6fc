"""What a stranger may send: limits, keys, other origins, slow and idle connections, and whatever a fuzzer thinks of."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest

from elmokit.errors import MismatchError
from elmokit.serve import Limits, Settings
from elmokit.serve.connections import ImpatientProtocol
from elmokit.serve.service import _split
from serving import KEY, PATIENCE, make_hosted, post, send, served, until


@pytest.fixture(scope="module")
def tiny():
    return make_hosted()


SMALL = Limits(body=4000, sentences=3, tokens=20, request_tokens=40, characters=8, values=400)


@pytest.fixture(scope="module")
def address(tiny):
    with served(tiny, settings=Settings(limits=SMALL)) as address:
        yield address


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"sentences": [["a"]] * 4}, "the request has 4 sentences, at most 3 are taken; send fewer"),
        ({"sentences": [[], ["a"] * 21]}, "sentence 1 has 21 tokens, at most 20 are taken; cut it into sentences"),
        ({"sentences": [["a"] * 20, ["a"] * 20, ["a"]]}, "the request has 41 tokens, at most 40 are taken"),
        ({"sentences": [["a", "b" * 9]]}, "a token of sentence 0 has more than 8 characters"),
        ({"sentences": [["a"] * 18], "layers": "all"}, "the reply would hold 432 numbers, at most 400 are sent"),
        ({"sentences": [["a"]], "layers": 9}, "layer 9 does not exist; this model has layers 0 to 2"),
        ({"sentences": [["a"]], "layers": [1.0]}, "expected 3 layer weights"),
        ({"sentences": [["a"]], "texts": ["b"]}, "the body: expected either 'sentences' or 'texts'"),
        ({"sentences": [["a"]], "layers": 1.5}, "layers: expected 'average', 'top', 'all', the number of a layer, or"),
        ({"sentences": [["a"]], "layers": [float("nan")]}, "layers: expected 'average', 'top', 'all', the number of"),
        ({"sentences": [["a"]], "colour": "red"}, "colour: "),
        ({"texts": [""] * 4}, "the request has 4 texts, at most 3 are taken; send fewer"),
        ({"texts": ["a " * 321]}, "the texts have 642 characters, at most 640 are split in one request"),
        ({"texts": ["A b. " * 7, "A b. " * 7]}, "the texts have more than 40 tokens, which is the most; send them in"),
        ({"sentences": [["\ud800"]]}, "sentence 0 holds half of a surrogate pair"),
        ({"sentences": [["a"]], "\ud800": 1}, "the body: "),
        ({"sentences": [[1]]}, "sentences.0.0: "),
        ({}, "expected either"),
        ([], "the body: "),
    ],
)
def test_what_is_too_much_or_wrong_is_one_sentence(address, wanted, message):
    reply = httpx.post(
        timeout=PATIENCE,
        url=f"{address}/embed",
        content=json.dumps(wanted),
        headers={"Content-Type": "application/json"},
    )
    assert reply.status_code == 422
    assert message in reply.json()["error"]
    assert "\n" not in reply.json()["error"]


@pytest.mark.parametrize(
    ("path", "wanted", "message"),
    [
        ("/embed", {"sentences": [[1] * 900]}, "sentences.0.0: Input should be a valid string"),
        ("/embed", {"sentences": [1] * 900}, "sentences.0: Input should be a valid list"),
        ("/embed", {"texts": [1] * 900}, "texts.0: Input should be a valid string"),
        ("/embed", {"texts": ["a"], **{str(n): 1 for n in range(300)}}, "0: Extra inputs are not permitted"),
        ("/substitutes", {"sentence": [1] * 900, "place": 0}, "sentence.0: Input should be a valid string"),
        ("/search", {"sentence": [1] * 900}, "sentence.0: Input should be a valid string"),
        ("/v1/embeddings", {"model": "tiny", "input": [None] * 600}, "input: expected a text or a list of texts"),
    ],
)
def test_what_is_wrong_in_every_item_is_said_once(address, path, wanted, message):
    """Noting it for each of a million took seconds, in which nobody was answered, and gigabytes."""
    reply = post(address, path, wanted)
    error = reply.json()["error"]
    assert (reply.status_code, error["message"] if isinstance(error, dict) else error) == (422, message)


def test_a_request_is_not_quoted_at_length(address):
    reply = post(address, "/embed", {"model": "m" * 3500, "sentences": []})
    assert (reply.status_code, len(reply.json()["error"])) == (404, 1004)


def test_openais_param_is_the_name_of_a_field(address):
    reply = post(address, "/v1/embeddings", {"model": "tiny", "input": {"a": 1}})
    assert reply.json()["error"]["param"] == "input"


@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "text/plain"])
def test_json_that_is_not_called_json(address, kind):
    """What curl -d sends by itself."""
    headers = {"Content-Type": kind} if kind else {}
    reply = send("POST", f"{address}/embed", content=b'{"sentences": [["a"]]}', headers=headers)
    assert (reply.status_code, reply.json()["error"]) == (
        422, 'the body is read as JSON only if it is called so; send "Content-Type: application/json"'
    )  # fmt: skip


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings", "/v1/models/tiny:predict", "/v2/models/tiny/infer"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large(address, path, chunked):
    body = b"x" * 5000
    content = iter([body[:1000]] * 5) if chunked else body
    reply = httpx.post(
        timeout=PATIENCE, url=f"{address}{path}", content=content, headers={"Content-Type": "application/json"}
    )
    assert reply.status_code == 413
    assert "the body of the request is larger than 4000 bytes" in reply.text


def test_bodies_that_fill_memory_together_are_refused(tiny):
    """Each is within its limit; while so many are not whole there is no room for another, until one has gone."""
    body = b'{"texts": ["' + b" " * 990 + b'"]}'
    begun = b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n" + b" " * 999
    headers = {"Content-Type": "application/json"}
    patient = Settings(limits=Limits(body=1010), body_timeout=PATIENCE)
    with served(tiny, settings=patient) as address, ExitStack() as stack:
        held = [stack.enter_context(connect(address)) for _ in range(32)]
        for client in held:
            client.sendall(begun)
        until(lambda: send("POST", f"{address}/embed", content=body, headers=headers).status_code == 503)
        refused = send("POST", f"{address}/embed", content=body, headers=headers)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "busy with requests that are large" in refused.json()["error"]
        assert send("GET", f"{address}/health").status_code == 200
        held[0].close()
        until(lambda: send("POST", f"{address}/embed", content=body, headers=headers).status_code == 200)


def test_a_length_of_thousands_of_digits(address):
    """Python refuses to read so many; most of them are zeros, so that it is a length for all that."""
    with connect(address) as client:
        length = b"0" * 5000 + b"4"
        client.sendall(
            b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + length + b"\r\n\r\n[[]]"
        )
        assert b"HTTP/1.1 400 " in client.recv(1000)


def test_a_row_of_padding_counts_in_the_reply(address):
    wanted = {"signature_name": "tokens", "inputs": {"tokens": [[""] * 200], "sequence_len": [1]}}
    reply = post(address, "/v1/models/tiny:predict", wanted)
    assert (reply.status_code, "padding included" in reply.json()["error"]) == (422, True)


def test_a_body_that_is_no_json(address):
    reply = httpx.post(
        timeout=PATIENCE, url=f"{address}/embed", content=b"{", headers={"Content-Type": "application/json"}
    )
    assert reply.status_code == 422
    assert re.fullmatch("the body of the request is no JSON: .* at character 1", reply.json()["error"])


def test_nesting_does_not_break_it(address):
    content = b'{"sentences": ' + b"[" * 3900
    assert httpx.post(
        timeout=PATIENCE, url=f"{address}/embed", content=content, headers={"Content-Type": "application/json"}
    ).status_code in (400, 422)


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/page/..%2f..%2fetc%2fpasswd", "/page/%00", "/v1/models/..%2f..", "//etc/passwd"]
)
def test_no_path_leads_to_a_file(address, path):
    reply = send("GET", f"{address}{path}")
    assert reply.status_code in (400, 404)
    assert "root:" not in reply.text


def test_nobody_is_sent_elsewhere(address):
    """Nor to the host that the request names, for a slash too many."""
    reply = send("GET", f"{address}/health/", headers={"Host": "localhost:1"})
    assert (reply.status_code, reply.json()) == (
        404, {"error": "there is nothing at /health/; /openapi.json lists what there is"}
    )  # fmt: skip


@pytest.mark.parametrize("host", ["elsewhere.example", "elsewhere.example:8000", "10.0.0.1", "localhost.example", "x"])
def test_a_name_that_leads_here_is_no_way_around_the_browser(address, host):
    """A page of another site may have its own name point to this machine; its browser still says the name."""
    reply = send("GET", f"{address}/v1/models", headers={"Host": host})
    assert reply.status_code == 403
    assert "names of its own machine" in reply.json()["error"]["message"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:9", "127.1.2.3", "[::1]", "[::1]:8000"])
def test_this_machine_has_several_names(address, host):
    assert send("GET", f"{address}/health", headers={"Host": host}).status_code == 200


def test_with_a_key_any_name_will_do():
    with served(make_hosted(), settings=Settings(api_key="secret")) as address:
        headers = {"Host": "elmo.example", "Authorization": "Bearer secret"}
        assert send("GET", f"{address}/v1/models", headers=headers).status_code == 200


def test_no_module_of_the_server_opens_files():
    """The page is read once, when it is imported, from places that no request names."""
    folder = Path(sys.modules["elmokit.serve"].__file__).parent
    for path in folder.glob("*.py"):
        assert not re.search(r"(?<![.\w])open\(|Path\(|FileResponse|StaticFiles", path.read_text("utf-8")), path


# ---------------------------------------------------------------- key, other origins


def test_nothing_is_told_without_the_key(tiny):
    with (
        served(tiny, settings=Settings(api_key=KEY)) as address,
        httpx.Client(base_url=str(address), timeout=PATIENCE) as client,
    ):
        for path in ("/v1/models", "/metrics", "/openapi.json", "/v2", "/nothing", "/healthy"):
            for header in (
                {},
                {"Authorization": KEY},
                {"Authorization": f"Bearer {KEY}x"},
                {"Authorization": "Bearer é".encode()},
            ):
                reply = client.get(path, headers=header)
                assert reply.status_code == 401, (path, header)
                assert reply.headers["www-authenticate"] == "Bearer"
            assert client.get(path, headers={"Authorization": f"Bearer {KEY}"}).status_code in (200, 404)
        for path in ("/", "/health", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200, path


@pytest.mark.parametrize("key", ["schlüssel", "from a file\n", "two words", "\t"])
def test_a_key_that_cannot_be_sent_is_refused(key):
    """A secret made with echo ends in a line: no client could ever present it."""
    with pytest.raises(MismatchError, match="the API key holds a space, the end of a line or a letter beyond ASCII"):
        Settings(api_key=key)


def test_the_key_is_compared_in_constant_time(tiny, monkeypatch):
    """By what the library has for it, and by nothing else."""
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda *both: compared.append(both) or True)
    with served(tiny, settings=Settings(api_key=KEY)) as address:
        assert send("GET", f"{address}/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 200
    assert compared == [(b"Bearer wrong", f"Bearer {KEY}".encode())]


def test_other_origins_are_told_nothing_unless_they_are_named(tiny):
    origin = {"Origin": "https://elsewhere.example"}
    asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    with served(tiny) as address:
        assert "access-control-allow-origin" not in send("GET", f"{address}/health", headers=origin).headers
        assert send("OPTIONS", f"{address}/embed", headers=asked).status_code == 405
    settings = Settings(cors_origins=("https://elsewhere.example",), api_key=KEY)
    with served(tiny, settings=settings) as address:
        assert (
            send("OPTIONS", f"{address}/embed", headers=asked).headers["access-control-allow-origin"]
            == origin["Origin"]
        )
        other = {**asked, "Origin": "https://third.example"}
        assert "access-control-allow-origin" not in send("OPTIONS", f"{address}/embed", headers=other).headers


# ---------------------------------------------------------------- slow and idle connections


def connect(address):
    return socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=20)


def closed(connection):
    """Whether the other side has ended it."""
    try:
        return connection.recv(1000) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("begun", [b"", b"POST /embed HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
def test_headers_that_never_end_are_not_waited_for(tiny, begun):
    """A byte now and then keeps nothing open."""
    with served(tiny, settings=Settings(header_timeout=0.5)) as address, connect(address) as slow:
        slow.sendall(begun)
        end = time.monotonic() + 10
        slow.settimeout(0.1)
        while time.monotonic() < end:
            try:
                slow.sendall(b"a" if begun else b"")
                if slow.recv(10) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert time.monotonic() < end
        assert send("GET", f"{address}/health").status_code == 200


def test_a_second_request_may_not_be_slow_either(tiny):
    with served(tiny, settings=Settings(header_timeout=0.5)) as address, connect(address) as slow:
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in slow.recv(1000)
        time.sleep(0.7)  # idle between two requests, it stays
        slow.sendall(b"GET /health HTT")
        assert closed(slow)


def test_the_end_of_a_line_before_a_request_keeps_nothing_open(tiny):
    """It begins no request, and stops the clock that uvicorn has for what is idle."""
    with served(tiny, settings=Settings(header_timeout=0.5)) as address, connect(address) as idle:
        idle.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in idle.recv(1000)
        idle.sendall(b"\r\n")
        assert closed(idle)


def test_the_body_of_a_request_without_the_key_is_not_taken(tiny):
    with served(tiny, settings=Settings(api_key=KEY)) as address, connect(address) as stranger:
        stranger.sendall(b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert b" 401 " in stranger.recv(1000)
        assert closed(stranger)


def test_raw_text_that_nobody_waits_for_is_not_split_to_the_end():
    given_up = threading.Event()
    given_up.set()
    assert _split(["The cat sat. " * 1000], Limits(), given_up) == []
    assert len(_split(["The cat sat. " * 10], Limits(), threading.Event())[0]) == 10


def test_texts_that_wait_to_be_split_have_a_bound_together(tiny):
    slow = {"texts": ["a. " * 3000]}
    with (
        served(tiny, settings=Settings(limits=Limits(request_tokens=600))) as address,
        ThreadPoolExecutor(8) as clients,
    ):
        replies = list(clients.map(lambda _: post(address, "/embed", slow), range(24)))
    assert {reply.status_code for reply in replies} == {422, 503}
    assert all("busy splitting" in reply.json()["error"] for reply in replies if reply.status_code == 503)


def test_a_body_that_never_ends_is_not_waited_for(tiny):
    with served(tiny, settings=Settings(body_timeout=0.3)) as address, connect(address) as slow:
        slow.sendall(
            b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        reply = slow.recv(1000)
        assert b" 408 " in reply
        assert b"connection: close" in reply.lower()


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: ",
        b"GET /",
        b"POST /embed HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Trailer: ",
        b"POST /embed HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2;extension=",
    ],
    ids=["header", "address", "trailer", "chunk"],
)
def test_what_is_no_body_may_not_be_without_end(tiny, begun):
    patient = Settings(header_timeout=PATIENCE, body_timeout=PATIENCE)
    with served(tiny, settings=patient) as address, connect(address) as client:
        with suppress(ConnectionError):  # it may be closed while more is sent
            client.sendall(begun)
            for _ in range(64):
                client.sendall(b"a" * (1 << 14))
        assert closed(client)
        assert send("GET", f"{address}/health", headers={"X-Long": "a" * 30_000}).status_code == 200


def test_a_request_behind_a_long_one_is_not_slow(tiny, monkeypatch):
    """Three requests at once, the third not whole: the server keeps it waiting, not it the server."""
    opened, compute = threading.Event(), tiny.compute
    monkeypatch.setattr(tiny, "compute", lambda task, items: opened.wait(PATIENCE) and compute(task, items))
    body = b'{"sentences": [["a"]], "pool": "mean"}'
    head = b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    first = head + b"Content-Length: %d\r\n\r\n" % len(body)
    others = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2
    with served(tiny, settings=Settings(header_timeout=0.3)) as address, connect(address) as client:
        client.sendall(first + body + others[:-4])
        time.sleep(1.5)
        opened.set()
        client.sendall(others[-4:])
        found = b""
        while found.count(b"200 OK") < 3:
            more = client.recv(10_000)
            assert more, found
            found += more


def ask_for_much(address):
    """A connection with a small buffer that has asked for 8 MB."""
    body = json.dumps({"sentences": [["a"] * 1000] * 32, "layers": "all"}).encode()
    head = b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    client = connect(address)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    return client


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
@pytest.mark.parametrize("apart", [b"", b"HTTP2-Settings\r", b"HTTP2-Settings\r\nUpgr", b"AAMAAABk\r\n\r\n"])
def test_an_offer_of_another_protocol_is_not_taken_up(address, protocol, apart):
    """Java's client offers HTTP/2 with every request; the body counts for all that, and so does the next request."""
    body = b'\r\n\r\n{"sentences": [["a"]], "pool": "mean"}'
    head = b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(
        body
    )
    offer = b"connection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\nHTTP2-Settings: AAMAAABk\r\n\r\n" % protocol
    with connect(address) as client:
        for _ in range(2):
            request = head + offer + body
            cut = request.index(apart) + len(apart)
            client.sendall(request[:cut])
            time.sleep(0.2)
            client.sendall(request[cut:])
            assert b"HTTP/1.1 200 OK" in client.recv(10_000)


def test_a_reply_that_nobody_takes_is_not_kept(tiny):
    with served(tiny, settings=Settings(reply_timeout=0.5)) as address, ask_for_much(address) as client:
        assert client.recv(10).startswith(b"HTTP/1.1")
        until(lambda: not address.server.server_state.connections)


def test_a_reply_that_is_taken_slowly_is_kept():
    """What waits is looked at now and then: cut off is who took nothing in between."""
    connection = Mock(_unsent=0, _reply_timeout=1)
    for unsent in (5000, 4000, 0, 0, 4000, 3999):
        connection.transport.get_write_buffer_size.return_value = unsent
        ImpatientProtocol._look_at_reply(connection)
        connection.transport.abort.assert_not_called()
    ImpatientProtocol._look_at_reply(connection)
    connection.transport.abort.assert_called_once()


def idle_connections(address, count):
    """A process that holds so many connections, half of them with headers begun, until its input ends."""
    program = """
import socket, sys
port, count = map(int, sys.argv[1:])
held = []
for n in range(count):
    held.append(socket.create_connection(("127.0.0.1", port), timeout=60))
    if n % 2:
        held[-1].sendall(b"POST /embed HTTP/1.1\\r\\nX: ")
print("held", flush=True)
sys.stdin.read()
"""
    port = address.rpartition(":")[2]
    return subprocess.Popen(
        [sys.executable, "-c", program, port, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def check_idle(tiny, count):
    with served(tiny, settings=Settings(header_timeout=120.0)) as address:
        holder = idle_connections(address, count)
        try:
            assert holder.stdout.readline() == "held\n"
            until(lambda: len(address.server.server_state.connections) >= count, seconds=60)
            for _ in range(20):
                start = time.perf_counter()
                assert post(address, "/embed", {"sentences": [["the", "cat"]]}).status_code == 200
                assert time.perf_counter() - start < 5
        finally:
            holder.communicate("")
        until(lambda: len(address.server.server_state.connections) < 10, seconds=60)


def test_idle_connections_do_not_stop_others(tiny):
    check_idle(tiny, 500)


@pytest.mark.slow
def test_ten_thousand_idle_connections_do_not_stop_others(tiny):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 11_000:
        pytest.skip(f"this system allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        check_idle(tiny, 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---------------------------------------------------------------- fuzzing


def fuzzed(address, tmp_path, examples, phases):
    """Run schemathesis' own command against the server; return its report."""
    (tmp_path / "schemathesis.toml").write_text("")
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(tmp_path / "schemathesis.toml"),
        "run", f"{address}/openapi.json", "--max-examples", str(examples), "--seed", "1", "--no-color",
        "--generation-deterministic", "--request-timeout", str(PATIENCE), "--phases", phases, "--checks", "all",
        "--exclude-checks", "positive_data_acceptance,unsupported_method",
    ]  # fmt: skip
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=900,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip


def test_the_fuzzer_finds_nothing(tiny, tmp_path):
    """Every operation of the server's own OpenAPI document, with what fits it and what does not."""
    with served(tiny) as address:
        done = fuzzed(address, tmp_path, 5, "coverage,fuzzing")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"Selected: (\d+)/\1\n\s+Tested: \1\n", done.stdout)


@pytest.mark.slow
def test_the_fuzzer_finds_nothing_for_long(tiny, tmp_path):
    with served(tiny) as address:
        done = fuzzed(address, tmp_path, 300, "coverage,fuzzing,stateful")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
