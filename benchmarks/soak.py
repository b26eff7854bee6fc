"""Load `elmo serve` for long: no request may fail, no answer may be wrong, memory must stay flat.

    python benchmarks/soak.py --hours 1

Clients ask, as fast as they are answered, for vectors, substitutes and perplexities of sentences whose answers were
computed before without a server; some go away in the middle. Prints what was seen as JSON; the exit code is 1 where
anything failed, or where the memory of the last quarter of the time is over that of the second by more than 3 % and
8 MB. Before the clock starts each question is asked once, and the first quarter is left out: words are learnt and
caches filled.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO, Any

import httpx
import numpy as np
import psutil
import torch

import elmokit
from elmokit.lm import LanguageModel

# What a model has read: words in every order make sentences without end, all of which the model can spell.
WORDS = "the a cat dog bank river money sat put lent on in of its left his She He . , ?".split()
TOLERANCE = 1e-4


def main() -> None:
    arguments = parse()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    elmo = elmokit.load(arguments.model)
    questions = [Question(elmo, random.Random(seed)) for seed in range(arguments.questions)]
    source = "bundled" if arguments.model is None else str(arguments.model)
    command = [sys.executable, "-m", "elmokit", "serve", f"model={source}", "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            report = asyncio.run(soak(arguments, address_of(server), psutil.Process(server.pid), questions))
        finally:
            server.terminate()
    report["exit_code"] = server.wait()
    print(json.dumps(report, indent=1))
    sys.exit(int(bool(report["failed"] or report["wrong"] or report["grew"] or report["exit_code"])))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--model", type=Path, help="default: the bundled one")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--questions", type=int, default=200, help="different requests")
    return parser.parse_args()


class Question:
    """A request, and its answer by the model alone."""

    def __init__(self, elmo: elmokit.Elmo, draw: random.Random) -> None:
        sentences = [draw.choices(WORDS, k=draw.randint(1, 40)) for _ in range(draw.randint(1, 4))]
        kind = draw.choice(["/embed", "/embed", "/embed", "/perplexity", "/substitutes"])
        self.path, self.content = kind, {"sentences": sentences}
        reader = LanguageModel(elmo)
        if kind == "/embed":
            layers, pool = draw.choice(["average", "top", 0]), draw.choice(["none", "mean"])
            self.content |= {"layers": layers, "pool": pool}
            self.expected = np.concatenate([v.ravel() for v in elmo.embed(sentences, layers=layers, pool=pool)])
        elif kind == "/perplexity":
            self.expected = np.concatenate([np.concatenate(score.surprisal()) for score in reader.score(sentences)])
        else:
            self.content = {"sentence": sentences[0], "place": 0, "k": 5}
            self.expected = np.array([one.probability for one in reader.substitutes(sentences[0], 0, 5)])

    def is_answered_by(self, reply: dict[str, Any]) -> bool:
        if self.path == "/embed":
            found = np.concatenate([np.ravel(sentence["vectors"]) for sentence in reply["sentences"]])
        elif self.path == "/perplexity":
            found = np.concatenate([sentence["forward"] + sentence["backward"] for sentence in reply["sentences"]])
        else:
            found = np.array([one["probability"] for one in reply["substitutes"]])
        return found.shape == self.expected.shape and bool(np.allclose(found, self.expected, rtol=0, atol=TOLERANCE))


async def soak(
    arguments: argparse.Namespace, address: str, process: psutil.Process, questions: list[Question]
) -> dict[str, Any]:
    counts = {"answered": 0, "failed": 0, "wrong": 0, "gone_away": 0}
    samples: list[float] = []
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=httpx.Limits(max_connections=None)) as http:
        for first in range(0, len(questions), arguments.clients):
            together = questions[first : first + arguments.clients]
            await asyncio.gather(*(http.post(question.path, json=question.content) for question in together))
        end = time.monotonic() + arguments.hours * 3600
        clients = [client(http, questions, counts, end, random.Random(n)) for n in range(arguments.clients)]
        await asyncio.gather(watch(process, samples, end), *clients)
    quarter = len(samples) // 4
    second, last = (statistics.median(part) for part in (samples[quarter : 2 * quarter], samples[-quarter:]))
    memory = {"memory_mb": {"second_quarter": round(second, 1), "last_quarter": round(last, 1)}}
    return {**counts, **memory, "grew": last > second * 1.03 and last > second + 8, "hours": arguments.hours}


async def client(
    http: httpx.AsyncClient, questions: list[Question], counts: dict[str, int], end: float, draw: random.Random
) -> None:
    while time.monotonic() < end:
        question = draw.choice(questions)
        asking = asyncio.ensure_future(http.post(question.path, json=question.content))
        if draw.random() < 0.02:
            await asyncio.sleep(draw.random() * 0.02)
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError, httpx.HTTPError):
                await asking
            counts["gone_away"] += 1
            continue
        try:
            reply = await asking
        except httpx.HTTPError:
            counts["failed"] += 1
            continue
        if reply.status_code != 200:
            counts["failed"] += 1
        else:
            counts["answered" if question.is_answered_by(reply.json()) else "wrong"] += 1


async def watch(process: psutil.Process, samples: list[float], end: float) -> None:
    while time.monotonic() < end:
        samples.append(process.memory_info().rss / 1e6)
        await asyncio.sleep(0.5)


def address_of(server: subprocess.Popen[str]) -> str:
    """Return where the server listens; what it logs after that is read and dropped."""
    assert server.stderr
    for line in server.stderr:
        if found := re.search(r'"address": "([^"]+)"', line):
            threading.Thread(target=drop, args=(server.stderr,), daemon=True).start()
            return found[1]
    sys.exit("the server did not start")


def drop(stream: IO[str]) -> None:
    """Read to the end, so that nobody who writes has to wait."""
    with contextlib.suppress(ValueError):  # closed when the server has ended
        deque(stream, maxlen=0)


if __name__ == "__main__":
    main()
