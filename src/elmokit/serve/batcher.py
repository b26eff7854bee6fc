"""Requests of many clients, computed together.

    run -> arrived -> spell -> spelled, by task -> compute -> whoever awaits the run

Two threads: one spells what has arrived while the other computes what is spelled. What is computed together is of one
task, taken in the order of arrival up to `batch` tokens, so that a long request does not hold up short ones; sorting it
by length is left to `compute`. Everything else runs in the event loop, so nothing here is locked.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

Task: TypeAlias = Any  # hashable; equal tasks are computed together
Item: TypeAlias = Any


# Seconds that may be waited for clients to ask again, and between two looks whether they have.
_LONGEST_GATHERING = 0.02
_GLANCE = 0.0005


class Full(Exception):
    """As much as may wait is waiting; `seconds`: when to come again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"full for {seconds} s")
        self.seconds = seconds


class Observer(Protocol):
    """Who is told of each batch."""

    def computed(self, *, items: int, tokens: int, seconds: float) -> None:
        """Note what was computed together."""


@dataclass(eq=False)
class _Run:
    """What one caller asked for. `left`: results still missing; `gone`: nobody waits for it any more."""

    task: Task
    items: Sequence[Item]
    sizes: Sequence[int]
    done: asyncio.Future[list[Any]]
    results: list[Any] = field(default_factory=list)
    left: int = 0
    gone: bool = False


@dataclass(frozen=True)
class _Piece:
    """One item of a run: the n-th."""

    run: _Run
    n: int

    @property
    def item(self) -> Item:
        return self.run.items[self.n]

    @property
    def size(self) -> int:
        return self.run.sizes[self.n]


class Batcher:
    """Spells and computes items. `spell(task, items)` prepares; `compute(task, items)` returns a result for each.

    `batch`: tokens computed together, but for a longer item; `queue`: tokens that may wait. To be made in a running
    event loop.
    """

    def __init__(
        self,
        spell: Callable[[Task, list[Item]], None],
        compute: Callable[[Task, list[Item]], Sequence[Any]],
        *,
        batch: int,
        queue: int,
        observer: Observer,
    ) -> None:
        self.waiting = 0  # tokens of all runs that are not done
        self._spell, self._compute, self._batch, self._queue, self._observer = spell, compute, batch, queue, observer
        self._open = 0  # runs that are not done
        self._arrived: list[_Run] = []
        self._being_spelled: list[_Run] = []
        self._spelled: dict[Task, deque[_Piece]] = {}  # a task's place is that of its oldest piece
        self._arrival, self._readiness = asyncio.Event(), asyncio.Event()
        self._rate = 10_000.0  # tokens a second, as measured
        self._threads = [ThreadPoolExecutor(1, f"elmo-{name}") for name in ("spell", "compute")]
        self._stages = [asyncio.create_task(stage()) for stage in (self._spelling, self._computing)]

    @property
    def alive(self) -> bool:
        """Whether both stages are at work."""
        return not any(stage.done() for stage in self._stages)

    async def run(self, task: Task, items: Sequence[Item], sizes: Sequence[int]) -> list[Any]:
        """Return the results of items of these sizes in tokens, in order; raises `Full`, and what computing raises.

        Who is cancelled while waiting gives back its place, and what is not yet computed never is.
        """
        size = sum(sizes)
        if self.waiting and self.waiting + size > self._queue:
            raise Full(max(1, math.ceil(self.waiting / self._rate)))
        run = _Run(task, items, sizes, asyncio.get_running_loop().create_future())
        run.results, run.left = [None] * len(items), len(items)
        if not items:
            return []
        self._open, self.waiting = self._open + 1, self.waiting + size
        self._arrived.append(run)
        self._arrival.set()
        try:
            return await run.done
        finally:
            self._open, self.waiting = self._open - 1, self.waiting - size
            run.gone = True

    async def close(self) -> None:
        """Stop both stages; what still waits is cancelled."""
        for stage in self._stages:
            stage.cancel()
        for stage in self._stages:
            with suppress(asyncio.CancelledError):
                await stage
        for thread in self._threads:
            thread.shutdown(wait=True)

    # ------------------------------------------------------------ the stages

    async def _spelling(self) -> None:
        while True:
            await self._arrival.wait()
            self._arrival.clear()
            runs, self._arrived = [run for run in self._arrived if not run.gone], []
            self._being_spelled = runs
            for task in dict.fromkeys(run.task for run in runs):
                await self._spell_together(task, [run for run in runs if run.task == task])
            self._being_spelled = []

    async def _spell_together(self, task: Task, runs: list[_Run]) -> None:
        try:
            await self._in_thread(0, self._spell, task, [item for run in runs for item in run.items])
        except Exception as error:
            if len(runs) == 1:
                return _fail(runs[0], error)
            for run in runs:
                await self._spell_together(task, [run])
            return None
        pieces = (_Piece(run, n) for run in runs for n in range(len(run.items)))
        self._spelled.setdefault(task, deque()).extend(pieces)
        self._readiness.set()
        return None

    async def _computing(self) -> None:
        while True:
            await self._readiness.wait()
            if pieces := self._next():
                start = time.perf_counter()
                await self._compute_together(pieces)
                await self._gather(time.perf_counter() - start)
            else:
                self._readiness.clear()

    async def _gather(self, seconds: float) -> None:
        """Give clients that were just answered a moment to ask again, a tenth of the time that computing took.

        Clients that wait for their answers would else fall into two groups that take turns, each in a batch of half the
        size, which takes much more than half the time.
        """
        expected = self._open  # those that were just answered are still counted
        end = time.perf_counter() + min(0.1 * seconds, _LONGEST_GATHERING)
        await asyncio.sleep(0)
        while (self._open < expected or self._arrived or self._being_spelled) and time.perf_counter() < end:
            await asyncio.sleep(_GLANCE)

    def _next(self) -> list[_Piece]:
        """Take the oldest pieces of the task that waits longest; a task with pieces left goes to the end."""
        for task in list(self._spelled):
            pieces = self._spelled.pop(task)
            taken = _take(pieces, self._batch)
            if pieces:
                self._spelled[task] = pieces
            if taken:
                return taken
        return []

    async def _compute_together(self, pieces: list[_Piece]) -> None:
        start = time.perf_counter()
        try:
            found = await self._in_thread(1, self._compute, pieces[0].run.task, [piece.item for piece in pieces])
        except Exception as error:
            runs = list(dict.fromkeys(piece.run for piece in pieces))
            if len(runs) == 1:
                return _fail(runs[0], error)
            for run in runs:  # one client's text must not cost another its answer
                await self._compute_together([piece for piece in pieces if piece.run is run])
            return None
        seconds, tokens = time.perf_counter() - start, sum(piece.size for piece in pieces)
        self._rate += 0.1 * (tokens / seconds - self._rate)
        self._observer.computed(items=len(pieces), tokens=tokens, seconds=seconds)
        for piece, result in zip(pieces, found, strict=True):
            _answer(piece, result)
        return None

    async def _in_thread(self, number: int, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads[number], function, *arguments)


def _take(pieces: deque[_Piece], most: int) -> list[_Piece]:
    """Take pieces that somebody waits for, up to so many tokens, at least one."""
    taken: list[_Piece] = []
    while pieces and (not taken or most >= pieces[0].size):
        piece = pieces.popleft()
        if not piece.run.gone:
            taken.append(piece)
            most -= piece.size
    return taken


def _answer(piece: _Piece, result: Any) -> None:
    run = piece.run
    run.results[piece.n] = result
    run.left -= 1
    if not run.left and not run.done.done():
        run.done.set_result(run.results)


def _fail(run: _Run, error: Exception) -> None:
    run.gone = True
    if not run.done.done():
        run.done.set_exception(error)
