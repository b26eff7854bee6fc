"""The server over a real port: vectors, batches of many clients, limits of waiting, a graceful end, what it tells."""

import asyncio
import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from elmokit.cli import main
from elmokit.errors import MismatchError, OutputError
from elmokit.lm import LanguageModel, perplexity_of
from elmokit.serve import Limits, Settings, run
from serving import PATIENCE, make_hosted, metric, post, send, served, until

SENTENCES = [["the", "cat", "sat", "."], ["it", "purred", "."], [], ["mat"]]


@pytest.fixture(scope="module")
def tiny():
    return make_hosted()


@pytest.fixture(scope="module")
def other():
    return make_hosted("other", vocabulary=None, dim=6, projection_dim=3)


@pytest.fixture(scope="module")
def address(tiny, other):
    with served(tiny, other) as address:
        yield address


# ---------------------------------------------------------------- our own protocol


@pytest.mark.parametrize("pool", ["none", "mean", "max"])
@pytest.mark.parametrize("layers", ["average", "top", "all", 1, [0.5, 0.25, -1.0]])
@pytest.mark.parametrize("form", ["json", "base64", "npz", "arrow"])
def test_vectors_are_those_of_embed(address, tiny, form, layers, pool):
    wanted = {"sentences": SENTENCES, "layers": layers, "pool": pool, "format": form}
    reply = post(address, "/embed", wanted)
    assert reply.status_code == 200, reply.text
    expected = list(tiny.elmo.embed(SENTENCES, layers=layers, pool=pool))
    for found, vectors in zip(decoded(reply, form, expected), expected, strict=True):
        np.testing.assert_array_equal(found, vectors)


def decoded(reply, form, expected):
    if form == "npz":
        return arrays(reply)
    if form == "arrow":
        return from_arrow(reply.content, expected)
    sentences = reply.json()["sentences"]
    assert [s["tokens"] for s in sentences] == SENTENCES
    if form == "base64":
        return [np.frombuffer(base64.b64decode(s["vectors"]), "<f4").reshape(s["shape"]) for s in sentences]
    return [np.array(s["vectors"], np.float32).reshape(s["shape"]) for s in sentences]


def from_arrow(content, expected):
    import pyarrow as pa

    table = pa.ipc.open_stream(content).read_all()
    assert table["tokens"].to_pylist() == SENTENCES
    names = [name for name in table.column_names if name not in ("sentence", "tokens")]
    rows = zip(*(table[name].to_pylist() for name in names), strict=True)
    return [np.array(row, np.float32).reshape(array.shape) for row, array in zip(rows, expected, strict=True)]


def test_raw_text_is_split(address):
    reply = post(address, "/embed", {"texts": ["The cat sat. It purred!", "", "Mat"]}).json()
    assert [(s["text"], s["tokens"]) for s in reply["sentences"]] == [
        (0, ["The", "cat", "sat", "."]),
        (0, ["It", "purred", "!"]),
        (2, ["Mat"]),
    ]


def test_another_model_by_its_name(address, other):
    reply = post(address, "/embed", {"model": "other", "sentences": [["cat"]]}).json()
    assert (reply["model"], reply["dim"]) == ("other", other.elmo.dim)
    assert post(address, "/embed", {"model": "third", "sentences": [["cat"]]}).status_code == 404


def test_substitutes(address, tiny):
    reply = post(address, "/substitutes", {"sentence": SENTENCES[0], "place": 1, "k": 3}).json()
    expected = LanguageModel(tiny.elmo).substitutes(SENTENCES[0], 1, 3)
    assert [s["word"] for s in reply["substitutes"]] == [s.word for s in expected]
    np.testing.assert_allclose([s["probability"] for s in reply["substitutes"]], [s.probability for s in expected])


def test_perplexity(address, tiny):
    reply = post(address, "/perplexity", {"sentences": SENTENCES}).json()
    scores = list(LanguageModel(tiny.elmo).score(SENTENCES))
    expected = perplexity_of(scores)
    found = reply["perplexity"]
    assert found == pytest.approx({name: getattr(expected, name) for name in ("forward", "backward", "mean")})
    for sentence, score in zip(reply["sentences"], scores, strict=True):
        np.testing.assert_allclose(sentence["forward"], score.surprisal()[0])
        np.testing.assert_allclose(sentence["backward"], score.surprisal()[1])


@pytest.mark.parametrize("path", ["/substitutes", "/perplexity"])
def test_a_model_without_a_head_says_so(address, path):
    wanted = {"sentence": ["cat"], "place": 0} if path == "/substitutes" else {"sentences": [["cat"]]}
    reply = post(address, path, {"model": "other", **wanted})
    assert (reply.status_code, reply.json()) == (
        422, {"error": "the model 'other' has no softmax head, so it cannot predict words"}
    )  # fmt: skip


# ---------------------------------------------------------------- many clients


def test_a_hundred_clients_get_what_each_gets_alone(tiny):
    """Of all lengths and layers; asked again, when all words are known, the answers are equal to the last bit.

    What words are spelled like is the sum of products whose widths in so small a model leave rounding to the batch.
    """
    generator = np.random.default_rng(0)
    words = "the cat sat on a mat . it purred and the dog barked".split()
    requests = [
        {
            "sentences": [
                list(generator.choice(words, generator.integers(1, 30))) for _ in range(generator.integers(1, 5))
            ],
            "layers": ["average", "top", 1][n % 3],
            "format": "npz",
        }
        for n in range(100)
    ]

    async def all_at_once(address):
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=str(address), timeout=300, limits=limits) as client:
            return await asyncio.gather(*(client.post("/embed", json=request) for request in requests))

    with served(tiny, settings=Settings(timeout=300)) as address:
        together = asyncio.run(all_at_once(address))
        assert metric(address, "elmo_batch_sentences_count") < 100  # they were computed together
        assert metric(address, "elmo_queue_tokens") == 0
        one_by_one = [post(address, "/embed", request) for request in requests]
        again = asyncio.run(all_at_once(address))
    for request, *replies in zip(requests, together, one_by_one, again, strict=True):
        assert [reply.status_code for reply in replies] == [200] * 3
        first, alone, last = map(arrays, replies)
        for n, vectors in enumerate(tiny.elmo.embed(request["sentences"], layers=request["layers"])):
            np.testing.assert_allclose(first[n], vectors, rtol=0, atol=2e-6)
            np.testing.assert_array_equal(alone[n], last[n])


def arrays(reply):
    with np.load(io.BytesIO(reply.content)) as file:
        return [file[str(n)] for n in range(len(file))]


class Gate:
    """Holds the computing thread of a model until it is opened."""

    def __init__(self, hosted, monkeypatch):
        self.open, self.reached = threading.Event(), threading.Event()
        compute = hosted.compute

        def waiting(task, items):
            self.reached.set()
            assert self.open.wait(PATIENCE)
            return compute(task, items)

        monkeypatch.setattr(hosted, "compute", waiting)


@pytest.fixture
def gate(tiny, monkeypatch):
    gate = Gate(tiny, monkeypatch)
    yield gate
    gate.open.set()


def in_thread(function, *arguments):
    result = []
    thread = threading.Thread(target=lambda: result.append(function(*arguments)))
    thread.start()
    return thread, result


def test_full_means_503_and_when_to_come_again(tiny, gate):
    small = Settings(queue_tokens=10, limits=Limits(request_tokens=10))
    with served(tiny, settings=small) as address:
        thread, taken = in_thread(post, address, "/embed", {"sentences": [["a"] * 8]})
        assert gate.reached.wait(PATIENCE)
        refused = post(address, "/embed", {"sentences": [["a"] * 3]})
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert "busy" in refused.json()["error"]
        gate.open.set()
        thread.join()
        assert taken[0].status_code == 200
        assert post(address, "/embed", {"sentences": [["a"] * 3]}).status_code == 200


def test_a_request_that_takes_too_long_is_told_so(tiny, gate):
    with served(tiny, settings=Settings(timeout=3)) as address:
        reply = post(address, "/embed", {"sentences": [["a"]]})
        assert (reply.status_code, reply.json()) == (
            504, {"error": "the answer took longer than 3 s; ask for less at once"}
        )  # fmt: skip
        assert metric(address, "elmo_queue_tokens") == 0
        gate.open.set()


def test_a_client_that_goes_away_frees_its_place(tiny, gate):
    with served(tiny) as address:
        thread, taken = in_thread(post, address, "/embed", {"sentences": [["first"]]})
        assert gate.reached.wait(PATIENCE)
        body = json.dumps({"sentences": [["unwanted"] * 50]}).encode()
        head = "POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        port = int(address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(head.encode() + body)
            until(lambda: metric(address, "elmo_queue_tokens") == 51)
        until(lambda: metric(address, "elmo_queue_tokens") == 1)
        gate.open.set()
        thread.join()
        assert taken[0].status_code == 200
        assert metric(address, "elmo_batch_tokens_sum") == 1  # what nobody waits for is not computed


def test_a_model_that_fails_costs_its_client_only(tiny, monkeypatch, caplog):
    compute = tiny.compute

    def failing(task, items):
        if ["poison"] in items:
            raise RuntimeError("secret details of a path /etc/secret")
        return compute(task, items)

    monkeypatch.setattr(tiny, "compute", failing)
    with served(tiny) as address:
        reply = post(address, "/embed", {"sentences": [["poison"]]}, headers={"X-Request-Id": "mine-1"})
        assert (reply.status_code, reply.json()) == (
            500, {"error": "the server failed to answer; its log says more under mine-1"}
        )  # fmt: skip
        assert "secret details" in caplog.text
        assert post(address, "/embed", {"sentences": [["fine"]]}).status_code == 200


# ---------------------------------------------------------------- what it tells


def test_health_says_which_models(address):
    assert send("GET", f"{address}/health").json() == {"status": "ok", "models": ["tiny", "other"]}


def test_health_fails_when_nothing_is_computed(tiny):
    with served(tiny) as address:
        stages = address.app.state.service._batcher._stages
        stages[1].get_loop().call_soon_threadsafe(stages[1].cancel)
        until(lambda: stages[1].done())
        reply = send("GET", f"{address}/health")
        assert (reply.status_code, "error" in reply.json()) == (503, True)
        reply = post(address, "/embed", {"sentences": [["a"]]})  # at once, not when its time is up
        assert (reply.status_code, reply.json()) == (
            503,
            {"error": "the server is not computing; look at its log and start it again"},
        )


def test_metrics_count_requests_tokens_and_batches(tiny):
    with served(tiny) as address:
        post(address, "/embed", {"sentences": [["a", "b"], ["c"]]})
        post(address, "/embed", {"sentences": "wrong"})
        assert metric(address, 'elmo_requests_total{route="/embed",status="200"}') == 1
        assert metric(address, 'elmo_requests_total{route="/embed",status="422"}') == 1
        assert metric(address, 'elmo_tokens_total{model="tiny",task="vectors"}') == 3
        assert metric(address, "elmo_batch_tokens_sum") == 3
        assert metric(address, "elmo_batch_sentences_sum") == 2
        assert metric(address, 'elmo_request_seconds_count{route="/embed"}') == 2
        assert metric(address, "elmo_queue_tokens") == 0


def test_a_line_of_the_log_for_each_request(tiny, caplog):
    caplog.set_level("INFO", "elmokit.serve")
    with served(tiny) as address:
        own = send("GET", f"{address}/health", headers={"X-Request-Id": "mine.42"})
        assert own.headers["x-request-id"] == "mine.42"
        made = send("GET", f"{address}/health", headers={"X-Request-Id": "a\tforged line"})
        assert made.headers["x-request-id"] not in ("", "a\tforged line")
    records = [record for record in caplog.records if record.getMessage() == "answered"]
    assert [record.request for record in records] == ["mine.42", made.headers["x-request-id"]]
    assert [record.status for record in records] == [200, 200]


# ---------------------------------------------------------------- settings, beginning and end


def test_a_queue_smaller_than_a_request_is_refused():
    with pytest.raises(MismatchError, match="the queue holds 5 tokens"):
        Settings(queue_tokens=5)


def test_an_address_that_is_taken_is_one_sentence(tiny):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OutputError, match=f"127.0.0.1 port {port} cannot be had"):
            run([tiny], Settings(port=port))


def test_what_the_command_is_told_is_what_the_server_does(model_folder, monkeypatch):
    """Each by its option and by its variable."""
    options = {
        "host": "::1",
        "port": 1,
        "api_key": "k",
        "batch_tokens": 2,
        "queue_tokens": 50_000,
        "timeout": 3.5,
        "drain": 4.0,
    }
    limits = {
        "max_body": 5, "max_sentences": 6, "max_tokens": 7, "max_request_tokens": 8, "max_characters": 9,
        "max_values": 10,
    }  # fmt: skip
    taken = []
    monkeypatch.setattr("elmokit.serve.run", lambda hosted, settings, *, ready: taken.append(settings))
    given = {**options, **limits, "cors_origin": "https://a.example"}
    told = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    command(monkeypatch, str(model_folder), *told)
    for name, value in {**given, "cors_origins": given["cors_origin"]}.items():
        monkeypatch.setenv(f"ELMO_{name.upper()}", str(value))
    command(monkeypatch, str(model_folder))
    expected = Settings(
        **options,
        cors_origins=("https://a.example",),
        limits=Limits(**{name.removeprefix("max_"): value for name, value in limits.items()}),
    )
    assert taken == [expected, expected]


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["elmo", "serve", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (None, 0)


@pytest.mark.parametrize("host", ["::1", "0.0.0.0"])
def test_other_addresses_to_listen_on(model_folder, host):
    """Beyond this machine it answers to any name, as told; on this machine to its own names only."""
    if host == "::1" and not (socket.has_ipv6 and can_bind("::1")):
        pytest.skip("this machine has no IPv6")
    process, line = start(model_folder, "--host", host, "--port", 0)
    try:
        port = line["address"].rsplit(":", 1)[1]
        assert line["address"] == (f"http://[::1]:{port}" if host == "::1" else f"http://0.0.0.0:{port}")
        near = f"http://{'[::1]' if host == '::1' else '127.0.0.1'}:{port}/v1/models"
        assert send("GET", near).status_code == 200
        elsewhere = send("GET", near, headers={"Host": "elmo.example"})
        assert elsewhere.status_code == (403 if host == "::1" else 200)
    finally:
        end(process)


def can_bind(host):
    try:
        socket.create_server((host, 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.fixture
def model_folder(tiny, tmp_path):
    tiny.elmo.save(tmp_path / "small")
    return tmp_path / "small"


def start(*arguments, **variables):
    """`elmo serve` in a process of its own, and the line in which it says that it serves."""
    command = [sys.executable, "-m", "elmokit", "serve", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    for line in process.stderr:
        if '"serving"' in line:
            return process, json.loads(line)
    raise AssertionError(f"it ended with {process.wait()}")


def end(process):
    process.kill()
    process.communicate()


def test_stopped_it_finishes_what_it_took(model_folder):
    """Variables and flags; a request under way when SIGTERM comes is answered, and the end is a good one."""
    process, line = start(
        f"mine={model_folder}",
        "bundled",
        "--port",
        0,
        ELMO_API_KEY="hush",
        ELMO_MAX_TOKENS="5000",
        ELMO_HOST="127.0.0.1",
        ELMO_DRAIN=str(PATIENCE),
    )
    try:
        assert line["models"] == ["mine", "bundled"]
        header = {"Authorization": "Bearer hush"}
        assert post(line["address"], "/embed", {"sentences": [["a"]]}).status_code == 401
        long = {"model": "mine", "sentences": [["word"] * 3000] * 4, "pool": "mean"}
        thread, taken = in_thread(lambda: post(line["address"], "/embed", long, headers=header))
        until(lambda: metric(line["address"], "elmo_queue_tokens", headers=header))
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=PATIENCE)
        thread.join()
        assert taken[0].status_code == 200
        assert len(taken[0].json()["sentences"]) == 4
        assert process.returncode == 0
        assert [json.loads(one)["path"] for one in log.splitlines() if '"answered"' in one].count("/embed") == 2
    finally:
        end(process)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a=bundled", "a=bundled"], "two models are called 'a'"),
        (["a b=bundled"], "a model cannot be called 'a b'"),
        (["mine/original-5.5b.tar.gz", "original-5.5b"], "two models are called 'original-5.5b'"),
        (["--queue-tokens", "3"], "the queue holds 3 tokens"),
        (["nosuchmodel"], "nosuchmodel"),
        (["--api-key", ""], "the API key holds nothing"),
    ],
)
def test_wrong_arguments_are_one_sentence(monkeypatch, capsys, arguments, message):
    assert message in refused(monkeypatch, capsys, *arguments)


def test_an_empty_key_does_not_open_the_server(monkeypatch, capsys):
    monkeypatch.setenv("ELMO_API_KEY", "")
    assert "the API key holds nothing" in refused(monkeypatch, capsys)


def refused(monkeypatch, capsys, *arguments):
    """Return the one sentence with which `elmo serve` ends."""
    monkeypatch.setattr(sys, "argv", ["elmo", "serve", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    return told


# ---------------------------------------------------------------- traces


@contextmanager
def collector():
    """A place where traces are sent to: yields its address and the spans that have come."""
    spans = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent = ExportTraceServiceRequest.FromString(body)
            spans.extend(s for r in sent.resource_spans for scope in r.scope_spans for s in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", spans
        server.shutdown()
        thread.join()


def test_requests_are_parts_of_their_clients_traces(tiny, monkeypatch):
    with collector() as (place, spans):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", place)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        with served(tiny, settings=Settings(tracing=True)) as address:
            parent = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
            assert post(address, "/embed", {"sentences": [["a"]]}, headers=parent).status_code == 200
            until(lambda: spans)
    assert spans[0].trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert spans[0].parent_span_id.hex() == "b7ad6b7169203331"
    assert spans[0].name == "POST /embed"
