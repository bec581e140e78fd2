"""Settling: outcomes are gathered for a few milliseconds and written in one statement.

Nothing is dropped: a database that is away is waited for, a group that is refused for its data is
halved until the bad one is alone, and that one is written without its body.
"""

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import islice
from uuid import UUID

import msgspec
import structlog
from sqlalchemy.exc import DBAPIError

from scheduler import db, metrics, partitions, queue, skips
from scheduler.clock import Clock
from scheduler.db import Conn, Database, utc
from scheduler.run import Attempt, End, Later, Retry, Run

log = structlog.get_logger()

GATHER_S = 0.003
GROUP = 500
BACKOFF_MOST_S = 5.0
STUCK_S = 60.0
"""When an outcome that the database refuses in any form is tried again."""


class Outcome(msgspec.Struct, eq=False, gc=False):
    """What becomes of a run: an end, or another try; and what it kept from running meanwhile."""

    to: End | Retry | Later
    overlapped: tuple[UUID, int, int] | None = None
    """(task key, since, until): skip what fell due in that span, in ms since 1970."""

    @property
    def run(self) -> Run:
        """The run it is of."""
        return self.to.run


class Settler:
    """Writes outcomes. `on_settled(outcome)` is called once each has been written."""

    def __init__(
        self, database: Database, clock: Clock, on_settled: Callable[[Outcome], None]
    ) -> None:
        self._database = database
        self._clock = clock
        self._on_settled = on_settled
        self._open: dict[Outcome, None] = {}
        """In order; by identity, as a run that was freed and claimed again may be here twice."""
        self._more = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def unsettled(self) -> int:
        """How many outcomes are not written yet."""
        return len(self._open)

    def add(self, outcome: Outcome) -> None:
        """Take in an outcome; returns at once."""
        self._open[outcome] = None
        self._empty.clear()
        self._more.set()

    async def drained(self) -> None:
        """Return once every outcome has been written."""
        await self._empty.wait()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            if not self._open:  # it may have been interrupted with work left
                await self._more.wait()
            await asyncio.sleep(GATHER_S)
            self._more.clear()
            while self._open:
                await self._write(list(islice(self._open, GROUP)))
            self._empty.set()

    async def _write(self, group: Sequence[Outcome]) -> None:
        wait, again = 0.05, False
        while True:
            try:
                started = time.perf_counter()
                await self._settle(group, again=again)
                metrics.SETTLE.observe(time.perf_counter() - started)
            except Exception as e:  # noqa: BLE001  (judged by _mend, and logged there)
                if not await self._mend(e):
                    await self._halve(group, e)
                    return
                await asyncio.sleep(wait)
                wait, again = min(wait * 2, BACKOFF_MOST_S), True
            else:
                break
        for outcome in group:
            del self._open[outcome]
            self._on_settled(outcome)
        _count(group)

    async def _mend(self, error: Exception) -> bool:
        """Say whether the same group may pass later, having done what there is to do."""
        if db.is_away(error):
            log.warning("outcomes wait for the database", unsettled=self.unsettled)
            metrics.ERRORS.labels("settle").inc()
            return True
        if db.lacks_partition(error):
            with contextlib.suppress(*db.AWAY, DBAPIError):  # the settle itself will say
                await partitions.make(self._database.engine, utc(self._clock.now_ms()))
            return True
        return False

    async def _halve(self, group: Sequence[Outcome], error: Exception) -> None:
        metrics.ERRORS.labels("settle").inc()
        if len(group) > 1:
            middle = len(group) // 2
            await self._write(group[:middle])
            await self._write(group[middle:])
            return
        run, to = group[0].run, group[0].to
        log.error("outcome refused by the database", run=str(run.id), error=str(error))
        if _bare(to):
            # Not even so: the row waits with its claim, and nobody waits for it.
            del self._open[group[0]]
            asyncio.get_running_loop().call_later(STUCK_S, self.add, group[0])
            return
        run.attempts = [_plain(attempt) for attempt in run.attempts]
        if isinstance(to, End):
            to.response, to.truncated = None, to.truncated or to.response is not None
            to.reason = None if to.reason is None else _ascii(to.reason)
        await self._write(group)

    async def _settle(self, group: Sequence[Outcome], *, again: bool = False) -> None:
        """Write a group; `again` says that it may have been written, and the answer lost."""
        by_holder: dict[UUID, list[Outcome]] = defaultdict(list)
        for outcome in group:
            by_holder[outcome.run.claimed_by].append(outcome)
        for me, outcomes in by_holder.items():
            ends = [o.to for o in outcomes if isinstance(o.to, End)]
            if again:
                await self._settle_again(me, outcomes)
            elif len(ends) == len(outcomes) and not any(o.overlapped for o in outcomes):
                async with self._database.auto.connect() as conn:
                    await self._end(conn, me, ends)
            else:
                await self._settle_mixed(me, outcomes)

    async def _settle_mixed(self, me: UUID, outcomes: Sequence[Outcome]) -> None:
        async with self._database.engine.begin() as conn:
            await self._mixed(conn, me, outcomes)

    async def _settle_again(self, me: UUID, outcomes: Sequence[Outcome]) -> None:
        """Write what has not been written: a run that was may have been replayed since."""
        async with self._database.engine.begin() as conn:
            since = await queue.replayed(conn, me, [o.run.id for o in outcomes])
            left = [
                o for o in outcomes if since.get(o.run.id, o.run.replayed_at) == o.run.replayed_at
            ]
            await self._mixed(conn, me, left)

    async def _mixed(self, conn: Conn, me: UUID, outcomes: Sequence[Outcome]) -> None:
        """Skip what was overlapped as its head leaves the line: in between it was claimable.

        It is skipped last, for that waits for nobody: see queue.py.
        """
        ends = [o.to for o in outcomes if isinstance(o.to, End)]
        retries = [o.to for o in outcomes if isinstance(o.to, Retry)]
        laters = [o.to for o in outcomes if isinstance(o.to, Later)]
        if laters:
            others = [to.run for to in retries] + [to.run for to in ends]
            _note_lost(laters, await queue.postpone(conn, me, laters, others))
        if retries:
            _note_lost(retries, await queue.retry(conn, me, retries, ends))
        if ends:
            await self._end(conn, me, ends)
        spans = [o.overlapped for o in outcomes if o.overlapped]
        if spans:
            await skip(conn, spans, utc(self._clock.now_ms()))

    async def _end(self, conn: Conn, me: UUID, ends: Sequence[End]) -> None:
        _note_lost(ends, await queue.settle(conn, me, ends))


def _note_lost(outcomes: Sequence[End | Retry | Later], ours: Sequence[UUID]) -> None:
    lost = {o.run.id for o in outcomes}.difference(ours)
    if lost:
        metrics.LOST_FENCE.inc(len(lost))
        log.warning("outcomes came after their runs were freed", runs=len(lost))


async def skip(conn: Conn, spans: Sequence[tuple[UUID, int, int]], now: datetime) -> None:
    """Skip what fell due while a run of the task was under way."""
    skipped = await skips.skip_overlapped(conn, spans, now)
    metrics.RUNS.labels("skipped").inc(skipped)


def _count(group: Sequence[Outcome]) -> None:
    """Count a group at once: a counter's lock costs as much as a run's row."""
    states = Counter(o.to.state for o in group if isinstance(o.to, End))
    for state, runs in states.items():
        metrics.RUNS.labels(state).inc(runs)
    attempts = Counter(
        o.run.attempts[-1].outcome for o in group if o.run.attempts and not isinstance(o.to, Later)
    )
    for outcome, made in attempts.items():
        metrics.ATTEMPTS.labels(outcome).inc(made)


def _bare(to: End | Retry | Later) -> bool:
    """Say whether nothing of the target's own words is left."""
    attempts = all(a == _plain(a) for a in to.run.attempts)
    if not isinstance(to, End):
        return attempts
    plain = to.reason is None or to.reason == _ascii(to.reason)
    return attempts and plain and to.response is None


def _plain(attempt: Attempt) -> Attempt:
    error = None if attempt.error is None else _ascii(attempt.error)
    cut = attempt.truncated or attempt.response is not None
    return msgspec.structs.replace(attempt, response=None, truncated=cut, error=error)


def _ascii(words: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in words)[:1000]
