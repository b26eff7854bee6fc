"""The batcher alone, with arithmetic in place of a model: what is together, in what order, who gets which answer."""

import asyncio
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elmokit.serve.batcher import Batcher, Full


class Log:
    """What was computed together, and a gate to hold the computing thread at."""

    def __init__(self):
        self.batches, self.spelled, self.gate = [], [], threading.Event()
        self.gate.set()
        self.seconds = 0.0

    def spell(self, task, items):
        self.spelled.append((task, list(items)))
        if "unspeakable" in items:
            raise ValueError("cannot spell it")

    def compute(self, task, items):
        self.gate.wait(10)
        time.sleep(self.seconds)
        self.batches.append((task, list(items)))
        if "poison" in items:
            raise ArithmeticError("cannot compute it")
        return [(task, item) for item in items]

    def computed(self, *, items, tokens, seconds):
        self.last = items, tokens


def batching(scenario, *, batch=10, queue=100):
    """Run `scenario(batcher, log)` in an event loop of its own."""

    async def main():
        log = Log()
        batcher = Batcher(log.spell, log.compute, batch=batch, queue=queue, observer=log)
        try:
            return await asyncio.wait_for(scenario(batcher, log), 20)
        finally:
            log.gate.set()
            await batcher.close()

    return asyncio.run(main())


async def held(batcher, log):
    """Let the computing thread stand at the gate with one small item."""
    log.gate.clear()
    first = asyncio.ensure_future(batcher.run("t", ["first"], [1]))
    while not log.spelled:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)
    return first


def test_what_arrives_together_is_computed_together():
    async def scenario(batcher, log):
        first = await held(batcher, log)
        others = [asyncio.ensure_future(batcher.run("t", [n], [2])) for n in range(7)]
        await asyncio.sleep(0.05)
        log.gate.set()
        assert await asyncio.gather(first, *others) == [[("t", "first")], *([("t", n)] for n in range(7))]
        assert log.batches[1:] == [("t", [0, 1, 2, 3, 4]), ("t", [5, 6])]  # ten tokens together

    batching(scenario)


def test_a_long_request_does_not_hold_up_a_short_one():
    async def scenario(batcher, log):
        first = await held(batcher, log)
        long = asyncio.ensure_future(batcher.run("t", list(range(30)), [2] * 30))
        await asyncio.sleep(0.02)
        other = asyncio.ensure_future(batcher.run("u", ["short"], [1]))
        await asyncio.sleep(0.02)
        log.gate.set()
        await other
        assert not long.done()
        assert len(await long) == 30
        await first

    batching(scenario)


def test_no_more_than_the_queue_holds():
    async def scenario(batcher, log):
        first = await held(batcher, log)
        second = asyncio.ensure_future(batcher.run("t", ["b"], [99]))
        await asyncio.sleep(0.02)
        assert batcher.waiting == 100
        with pytest.raises(Full) as full:
            await batcher.run("t", ["c"], [1])
        assert full.value.seconds >= 1
        log.gate.set()
        await asyncio.gather(first, second)
        assert batcher.waiting == 0
        assert await batcher.run("t", ["c"], [1]) == [("t", "c")]

    batching(scenario)


def test_who_gives_up_frees_the_place_and_is_not_computed():
    async def scenario(batcher, log):
        first = await held(batcher, log)
        second = asyncio.ensure_future(batcher.run("t", ["unwanted"], [99]))
        await asyncio.sleep(0.02)
        second.cancel()
        await asyncio.sleep(0.02)
        assert batcher.waiting == 1
        third = asyncio.ensure_future(batcher.run("t", ["wanted"], [99]))
        await asyncio.sleep(0.02)
        log.gate.set()
        assert await third == [("t", "wanted")]
        await first
        assert not any("unwanted" in items for _, items in log.batches)

    batching(scenario)


@pytest.mark.parametrize(("bad", "error"), [("poison", ArithmeticError), ("unspeakable", ValueError)])
def test_what_fails_fails_alone(bad, error):
    async def scenario(batcher, log):
        first = await held(batcher, log)
        runs = [asyncio.ensure_future(batcher.run("t", [item], [1])) for item in ("a", bad, "b")]
        await asyncio.sleep(0.05)
        log.gate.set()
        found = await asyncio.gather(*runs, return_exceptions=True)
        assert found[0] == [("t", "a")]
        assert found[2] == [("t", "b")]
        assert isinstance(found[1], error)
        await first
        assert batcher.alive
        assert batcher.waiting == 0

    batching(scenario)


def test_clients_that_ask_again_stay_together():
    """Eight clients, each asking when it is answered: not one batch of one and one of seven in turns."""

    async def scenario(batcher, log):
        log.seconds = 0.1

        async def client(n):
            await asyncio.sleep(0.02 * n)
            for _ in range(8):
                await batcher.run("t", [n], [1])

        await asyncio.gather(*(client(n) for n in range(8)))
        assert len(log.batches) <= 13

    batching(scenario)


def test_nothing_asked_is_answered_at_once():
    async def scenario(batcher, log):
        assert await batcher.run("t", [], []) == []

    batching(scenario)


@settings(max_examples=30, deadline=None)
@given(
    runs=st.lists(
        st.tuples(st.sampled_from("tuv"), st.lists(st.integers(1, 12), max_size=6), st.booleans()), max_size=12
    )
)
def test_everybody_gets_the_own_answers(runs):
    """Whatever is asked in whatever sizes, some of it given up: answers are the own, in order; no place is lost."""

    async def scenario(batcher, log):
        wanted = [[f"{n}.{i}" for i in range(len(sizes))] for n, (_, sizes, _) in enumerate(runs)]
        tasks = [
            asyncio.ensure_future(batcher.run(task, items, sizes))
            for (task, sizes, _), items in zip(runs, wanted, strict=True)
        ]
        await asyncio.sleep(0)
        for task, (_, _, gives_up) in zip(tasks, runs, strict=True):
            if gives_up:
                task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        for (task, _, gives_up), items, answer in zip(runs, wanted, found, strict=True):
            assert answer == [(task, item) for item in items] or (
                gives_up and isinstance(answer, asyncio.CancelledError)
            )
        assert batcher.waiting == 0
        sizes = {
            item: size
            for (_, row, _), items in zip(runs, wanted, strict=True)
            for item, size in zip(items, row, strict=True)
        }
        for _, items in log.batches:
            assert sum(sizes[item] for item in items) <= 10 or len(items) == 1

    batching(scenario, queue=10_000)
