"""The crew: workers that perform one run after the other, and who is busy with what."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar
from uuid import UUID

from scheduler.clock import Clock
from scheduler.run import Run

STALL_S = 1.0
"""A service that has its share under way, and for so long got nothing done, is stalled."""
LONG_MS = 60_000
"""How long a head runs until what it overlaps is skipped while it runs: a gap is one row, as far as
it goes, and nothing piles up."""

T = TypeVar("T")


class Crew(Generic[T]):
    """`count` workers, of which one service keeps at most `share(service)` busy; and of `slots`,
    which commands need besides, `slots_each`.

    A worker asks `find()` for a run when it is free, awaits `perform(run)`, and hands what came of
    it to `done(run, result)`.
    """

    def __init__(
        self,
        clock: Clock,
        count: int,
        share: Callable[[UUID], int],
        *,
        slots: int = 1,
        slots_each: int = 1,
        find: Callable[[], Run | None],
        perform: Callable[[Run], Awaitable[T]],
        done: Callable[[Run, T], None],
    ) -> None:
        self.count, self.share = count, share
        self.busy: Counter[UUID] = Counter()
        """Calls under way, by service."""
        self.lines: Counter[UUID] = Counter()
        """How many runs of a task are under way, where they wait for each other."""
        self.slotted: Counter[UUID] = Counter()
        """Commands under way, by service: of them only so many may be at once."""
        self._slots, self._slots_each, self._slotted = slots, slots_each, set[Run]()
        self.quiet = asyncio.Event()
        """Set while nothing is under way."""
        self.quiet.set()
        self._clock = clock
        self._find, self._perform, self._report = find, perform, done
        self._in_flight: dict[Run, int] = {}
        """With when they started, in ms."""
        self._long: dict[Run, int] = {}
        """Until when what a long run overlaps has been skipped, in ms since 1970."""
        self._at: dict[Run, asyncio.Task[None]] = {}
        """Who performs it."""
        self._moved: dict[UUID, float] = {}
        """When a call of a service last began or ended."""
        self._idle: list[asyncio.Future[Run]] = []
        self._workers: list[asyncio.Task[None]] = []
        self._cut = False

    @property
    def in_flight(self) -> int:
        """How many calls are under way."""
        return len(self._in_flight)

    @property
    def has_idle(self) -> bool:
        """Say whether a worker waits for work."""
        return bool(self._idle)

    def slot_share(self, service: UUID) -> int:
        """Return how many commands of a service may be under way, as things are."""
        full = len(self._slotted) >= self._slots or self.busy[service] >= self.share(service)
        return 0 if full else self._slots_each

    def start(self) -> None:
        """Set the workers to work."""
        self._workers = [asyncio.create_task(self._work()) for _ in range(self.count)]

    async def cut(self) -> None:
        """Cut short what is under way, and end the workers."""
        self._cut = True
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    def pump(self) -> None:
        """Give runs to idle workers while there are any of both."""
        while self._idle:
            run = self._find()
            if run is None:
                return
            place = self._idle.pop()
            self._begin(run)
            place.set_result(run)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._cut:
            run = self._find()
            if run is None:
                place: asyncio.Future[Run] = loop.create_future()
                self._idle.append(place)
                try:
                    run = await place
                except asyncio.CancelledError:
                    if place in self._idle:
                        self._idle.remove(place)
                    raise
            else:
                self._begin(run)
            worker = asyncio.current_task()
            assert worker is not None  # noqa: S101  (for the types: this is one)
            self._at[run] = worker
            result = await self._perform(run)
            while worker.cancelling():  # else a later timeout would be taken for another cancel
                worker.uncancel()
            self._end(run)
            self._report(run, result)

    def abort(self, run: Run) -> None:
        """Cut one call short, if it is under way; `perform` still says what came of it."""
        worker = self._at.get(run)
        if worker is not None and not worker.cancelling():
            worker.cancel()

    def _begin(self, run: Run) -> None:
        self.busy[run.service_id] += 1
        self._moved[run.service_id] = time.monotonic()
        self._in_flight[run] = self._clock.now_ms()
        self.quiet.clear()
        if run.slotted:
            self._slotted.add(run)
            self.slotted[run.service_id] += 1
        if run.in_line and run.task_key:
            self.lines[run.task_key] += 1

    def _end(self, run: Run) -> None:
        del self._in_flight[run], self._at[run]
        self._long.pop(run, None)
        if run in self._slotted:  # whatever it has become since
            self._slotted.remove(run)
            self.slotted[run.service_id] -= 1
            if not self.slotted[run.service_id]:
                del self.slotted[run.service_id]
        self.busy[run.service_id] -= 1
        self._moved[run.service_id] = time.monotonic()
        if not self.busy[run.service_id]:
            del self.busy[run.service_id], self._moved[run.service_id]
        if run.in_line and run.task_key:
            self.lines[run.task_key] -= 1
            if not self.lines[run.task_key]:
                del self.lines[run.task_key]
        if not self._in_flight:
            self.quiet.set()

    @property
    def hung(self) -> bool:
        """Say whether every worker has been at the same call for a while."""
        since = time.monotonic() - STALL_S
        return not self._idle and all(moved < since for moved in self._moved.values())

    def stalled(self) -> set[UUID]:
        """Return the services that have their share under way, in calls that do not end."""
        since = time.monotonic() - STALL_S
        full = (service for service, n in self.busy.items() if n >= self.share(service))
        return {service for service in full if self._moved[service] < since}

    def long_runs(self) -> list[tuple[UUID, int, int]]:
        """Return (task key, since, until) of runs under way for over a minute more, in ms.

        Of those only whose overlap is `skip`: what falls due meanwhile is skipped, but for what
        falls due while one runs that a backfill made.
        """
        now, spans = self._clock.now_ms(), []
        for run, started in self._in_flight.items():
            since = self._long.get(run, started)
            skips = run.overlap == "skip" and not run.backfilled
            if skips and run.task_key and now - since > LONG_MS:
                spans.append((run.task_key, since, now))
                self._long[run] = now
        return spans
