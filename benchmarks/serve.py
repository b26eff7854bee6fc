"""Measure `elmo serve`: throughput beside offline `embed`, and times of reply beside naive serving.

    python benchmarks/serve.py --text TEXT

Every round runs, one after the other: `elmo serve` and `serve_naive.py` with each number of clients and of sentences
a request, and before and after each of them `Elmo.embed` over the text in this process, with which it is compared, so
that a busy spell of the machine falls on both. The load comes from wrk (apt install wrk), in a process of its own; each
client sends its next request when it has its answer. All compute with one thread; vectors are means over words, sent in
base64. Processor time is that of the server.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import random_model
import torch

import elmokit
from elmokit.model import WordVectors

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "serve.json"
PORTS = {"elmo serve": 8471, "naive": 8472}
WRK = """
local bodies = {}
for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end
local n = 0
request = function()
  n = n % #bodies + 1
  return wrk.format("POST", "/embed", {["Content-Type"] = "application/json"}, bodies[n])
end
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests": %d, "seconds": %f, "failed": %d, "p50_ms": %f, "p95_ms": %f, "p99_ms": %f}\\n',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3))
end
"""


def main() -> None:
    arguments = parse()
    if not shutil.which("wrk"):
        sys.exit("the load comes from wrk, which is not installed: apt install wrk")
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    sentences = [
        line.split() for line in arguments.text.read_text("utf-8").splitlines()[: arguments.limit] if line.strip()
    ]
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(arguments, sentences, Path(folder))
    RESULTS.write_text(json.dumps(measured, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(json.dumps(measured["summary"], indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True, help="one tokenised sentence a line")
    parser.add_argument("--limit", type=int, default=2000, help="only the first so many sentences")
    parser.add_argument("--shape", choices=sorted(random_model.SHAPES), default="small")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of each load")
    parser.add_argument(
        "--loads",
        nargs="+",
        default=["1x1", "8x1", "64x1", "256x1", "8x32"],
        help="clients x sentences a request",
    )
    arguments = parser.parse_args()
    arguments.loads = [tuple(map(int, load.split("x"))) for load in arguments.loads]
    return arguments


def measure(arguments: argparse.Namespace, sentences: list[list[str]], folder: Path) -> dict[str, Any]:
    random_model.write(folder / "model", arguments.shape, seed=1)
    (folder / "load.lua").write_text(WRK)
    elmo = elmokit.load(folder / "model")
    words = elmo.word_vectors()
    tokens = {size: bodies(folder / f"{size}.jsonl", sentences, size) for _, size in arguments.loads}
    rounds: dict[str, list[dict[str, float]]] = {}
    with servers(folder) as processes:
        offline(elmo, sentences, words)
        for name, process in processes.items():  # words are learnt, weights packed
            load(PORTS[name], 4, arguments.seconds, folder, f"{max(tokens)}.jsonl", process, tokens[max(tokens)])
        for number in range(arguments.rounds):
            for name, found in one_round(arguments, elmo, words, sentences, processes, tokens, folder):
                rounds.setdefault(name, []).append(found)
                print(number, name, found, file=sys.stderr, flush=True)
    return {
        "text": {"sentences": len(sentences), "tokens": sum(map(len, sentences))},
        "shape": arguments.shape,
        "seconds": arguments.seconds,
        "rounds": rounds,
        "summary": summary(rounds),
        "machine": {"processor": processor(), "python": platform.python_version(), "load": os.getloadavg()[1]},
        "versions": {name: version(name) for name in ("elmokit", "torch", "fastapi", "uvicorn", "numpy")},
    }


def one_round(
    arguments: argparse.Namespace,
    elmo: elmokit.Elmo,
    words: WordVectors,
    sentences: list[list[str]],
    processes: dict[str, psutil.Process],
    tokens: dict[int, list[int]],
    folder: Path,
) -> Iterator[tuple[str, dict[str, float]]]:
    before = offline(elmo, sentences, words)
    for clients, size in arguments.loads:
        for name, process in processes.items():
            found = load(PORTS[name], clients, arguments.seconds, folder, f"{size}.jsonl", process, tokens[size])
            after = offline(elmo, sentences, words)
            yield "offline", after
            for key in ("tokens_per_s", "tokens_per_cpu_s"):
                found[f"{key}_of_offline"] = found[key] / statistics.mean((before[key], after[key]))
            yield f"{name}, {clients} clients, {size} sentences", found
            before = after


def offline(elmo: elmokit.Elmo, sentences: list[list[str]], words: WordVectors) -> dict[str, float]:
    """Embed the text; what words are spelled like is known from the first round, as it is to the server."""
    start, spent = time.perf_counter(), time.process_time()
    for _ in elmo.embed(sentences, pool="mean", words=words):
        pass
    seconds, tokens = time.perf_counter() - start, sum(map(len, sentences))
    return {"tokens_per_s": tokens / seconds, "tokens_per_cpu_s": tokens / (time.process_time() - spent)}


def load(
    port: int, clients: int, seconds: int, folder: Path, file: str, process: psutil.Process, tokens: list[int]
) -> dict[str, float]:
    """Send requests for some seconds; return what wrk saw, and tokens by the clock and by the server's processor."""
    spent = sum(process.cpu_times()[:2])
    command = [
        "wrk",
        "-t1",
        f"-c{clients}",
        f"-d{seconds}s",
        "--timeout",
        "60s",
        "-s",
        "load.lua",
        f"http://127.0.0.1:{port}",
    ]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True, env={**os.environ, "BODIES": file}
    )
    settle(process)  # of what was begun for clients that are gone
    found = json.loads(done.stdout.rpartition("RESULT ")[2])
    spent = sum(process.cpu_times()[:2]) - spent
    rounds, rest = divmod(found["requests"], len(tokens))
    answered = rounds * sum(tokens) + sum(tokens[:rest])
    return {**found, "tokens_per_s": answered / found["seconds"], "tokens_per_cpu_s": answered / spent}


def settle(process: psutil.Process) -> None:
    """Wait until a server has nothing to do."""
    before = -1.0
    while (now := sum(process.cpu_times()[:2])) > before + 0.03:
        before = now
        time.sleep(1)


def bodies(path: Path, sentences: list[list[str]], size: int) -> list[int]:
    """Write a request a line; return the tokens of each."""
    parts = [sentences[i : i + size] for i in range(0, len(sentences) - size + 1, size)]
    lines = [json.dumps({"sentences": part, "pool": "mean", "format": "base64"}) for part in parts]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [sum(map(len, part)) for part in parts]


@contextmanager
def servers(folder: Path) -> Iterator[dict[str, psutil.Process]]:
    ports = {name: str(port) for name, port in PORTS.items()}
    serve = ["-m", "elmokit", "serve", f"model={folder / 'model'}", "--port", ports["elmo serve"], "--threads", "1"]
    naive = [str(HERE / "serve_naive.py"), str(folder / "model"), ports["naive"]]
    started = [subprocess.Popen([sys.executable, *command], stderr=subprocess.DEVNULL) for command in (serve, naive)]
    try:
        for port in PORTS.values():
            until_it_listens(port)
        yield {name: psutil.Process(one.pid) for name, one in zip(PORTS, started, strict=True)}
    finally:
        for one in started:
            one.terminate()
            one.wait()


def until_it_listens(port: int) -> None:
    for _ in range(600):
        with suppress(URLError, ConnectionError):
            try:
                urlopen(f"http://127.0.0.1:{port}/health").close()
            except URLError as error:
                if getattr(error, "code", 0) != 404:
                    raise
            return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")


def summary(rounds: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Return the median of every figure."""
    found = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in rounds.items()
    }
    return {name: {key: round(value, 3) for key, value in figures.items()} for name, figures in found.items()}


def processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.processor()


if __name__ == "__main__":
    main()
