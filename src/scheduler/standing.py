"""How tasks stand: gathers what ended, and writes it to `task_state` once a second.

What a process that died had not written is worked out again from history.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

import structlog

from scheduler import (
    history,
    lines,
    outlook,
    state,
    task,
)
from scheduler.clock import Clock
from scheduler.db import Conn, Database, utc
from scheduler.definition import Definition
from scheduler.instant import FIRST
from scheduler.planning import Planned
from scheduler.run import End, Line, Run
from scheduler.state import Tally

log = structlog.get_logger()

GROUP = 500
KNOWN_MOST = 100_000
NOTHING = (FIRST, UUID(int=0), None, 0)
"""What ended of a task of which nothing did."""
FOREVER_MS = 10 * 365 * 86_400_000
SLICE_MS = 60_000
"""How much of history one statement of a repair looks at."""


def awaits(
    of: Definition,
    now: int,
    planned: Planned | None = None,
    gone: Iterable[int] = (),
    *,
    at_once: bool = False,
) -> bool:
    """Say whether a task has an instant after `now` (ms), or with `at_once` one now.

    With `max_runs` by what is left; none of those that are `gone`: they ended before they came.
    """
    if at_once and of.due is not None:
        return True
    at = of.coming(now, gone, excluded=True)
    if at is None:
        return False
    most = of.bounds.max_runs
    return most is None or planned is None or planned.runs < most or at <= planned.until


async def limited(conn: Conn, service_id: UUID, tasks: Iterable[Definition]) -> dict[UUID, Planned]:
    """Return how far those of a service's tasks are planned that have a `max_runs`."""
    keys = [of.key for of in tasks if of.bounds.max_runs is not None]
    return await outlook.planned(conn, service_id, keys) if keys else {}


async def ended_ahead(
    conn: Conn, service_id: UUID, tasks: Iterable[Definition], now: int
) -> dict[UUID, list[int]]:
    """Map a service's tasks to what ended of their instants before it came."""
    keys = [of.key for of in tasks if of.trigger is not None and of.status != "disabled"]
    return await history.ended_ahead(conn, service_id, keys, utc(now)) if keys else {}


class Standing:
    """Hears of every end that this process wrote. `alone` says that no other process writes any."""

    def __init__(self, database: Database, clock: Clock, alone: Callable[[], bool]) -> None:
        self._database = database
        self._clock = clock
        self._alone = alone
        self._open: dict[UUID, Tally] = {}
        self._again: dict[UUID, None] = {}
        self._known: dict[UUID, int] = {}
        """Versions of tasks whose row says for ever: pending, and the last run succeeded."""
        self._flushing = asyncio.Lock()

    def note(self, end: End) -> None:
        """Take in an end that was written."""
        run = end.run
        if run.task_key is None or not run.of_task:
            return
        if end.state == "cancelled":
            self.recheck([run.task_key])
            return
        known = self._known.get(run.task_key) == run.version and self._alone()
        if end.state in ("succeeded", "skipped") and known:
            return
        if end.state == "skipped":  # the run before it is still the last
            self.recheck([run.task_key])
            return
        self._known.pop(run.task_key, None)
        self._add(_tally(run, end.state))

    def recheck(self, keys: Iterable[UUID]) -> None:
        """Look at tasks again: runs of theirs went away without an end that was noted."""
        self._again.update(dict.fromkeys(keys))

    def _add(self, new: Tally) -> None:
        old = self._open.get(new.line.key)
        self._open[new.line.key] = new if old is None else _joined(old, new)

    async def flush(self) -> None:
        """Write what was gathered, after what another flush has in hand.

        What cannot be written now is kept.
        """
        async with self._flushing:
            await self._flush()

    async def _flush(self) -> None:
        if not self._alone():
            self._known.clear()
        gathered, self._open = self._open, {}
        again, self._again = self._again, {}
        left = list(gathered.values())
        try:
            for group in _groups(list(gathered.values())):
                await self._write(group)
                del left[: len(group)]
            for keys in _groups(list(again)):
                await self._stand(keys)
        except BaseException:
            later, self._open = self._open, {}
            for tally in (*left, *later.values()):
                self._add(tally)
            self.recheck(again)
            raise

    async def _write(self, tallies: Sequence[Tally]) -> None:
        async with self._database.engine.begin() as conn:
            # Locked first: an edit between the reading and the writing has the last word.
            await state.lock(conn, [t.line.key for t in tallies])
            tasks = await self._tasks(conn, [t.line.key for t in tallies])
            for tally in tallies:
                tally.pending = tasks.get(tally.line.key, (None, False))[1]
            await state.settle(conn, [t for t in tallies if t.line.key in tasks])
        self._learn(tallies, {key: of for key, (of, _) in tasks.items()})

    async def _stand(self, keys: Sequence[UUID]) -> None:
        async with self._database.engine.begin() as conn:
            await state.lock(conn, keys)
            tasks = await self._tasks(conn, keys)
            await state.stand(conn, [(of.line, pending) for of, pending in tasks.values()])
            # A replay takes an end back; but what is about to be written was counted already.
            resting = (key for key, (_, pending) in tasks.items() if not pending)
            await rest(conn, {key: tasks[key] for key in resting if key not in self._open})

    async def _tasks(self, conn: Conn, keys: Sequence[UUID]) -> dict[UUID, tuple[Definition, bool]]:
        """Return tasks by key, each with whether something of it is to come."""
        now = self._clock.now_ms()
        tasks = await task.outlines_of_all(conn, keys)
        services: dict[UUID, list[Definition]] = defaultdict(list)
        for of in tasks.values():
            services[of.service_id].append(of)
        waiting: set[UUID] = set()
        for service_id, some in services.items():
            waiting |= await _awaiting(conn, service_id, some, now)
            resting = [of.key for of in some if of.key not in waiting]
            if resting:
                live = (await lines.live(conn, service_id, resting, utc(now))).keys()
                self.recheck(live)  # it may go away without an end: dropped, skipped, cancelled
                waiting |= live
        return {key: (of, key in waiting) for key, of in tasks.items()}

    def _learn(self, tallies: Sequence[Tally], tasks: dict[UUID, Definition]) -> None:
        if not self._alone():
            return
        if len(self._known) > KNOWN_MOST:
            self._known.clear()
        later = self._clock.now_ms() + FOREVER_MS
        for tally in tallies:
            of = tasks.get(tally.line.key)
            if of is None or tally.last != "succeeded" or of.bounds.max_runs is not None:
                continue
            if awaits(of, later):
                self._known[of.key] = of.version

    # Repair --------------------------------------------------------------------------------------

    async def repair(self, since: int, until: int) -> int:
        """Work out again how tasks stand of which something ended in [since, until) (ms).

        Return how many those were.
        """
        repaired = 0
        for start in range(since, until, SLICE_MS):
            end = min(start + SLICE_MS, until)
            async with self._database.engine.connect() as conn:
                keys = await history.ended_between(conn, utc(start), utc(end))
            for group in _groups(keys):
                await self._repair(group)
                repaired += len(group)
        return repaired

    async def _repair(self, keys: Sequence[UUID]) -> None:
        async with self._database.engine.begin() as conn:
            await state.lock(conn, keys)
            tasks = await self._tasks(conn, keys)
            await rest(conn, tasks)


async def rest(conn: Conn, tasks: dict[UUID, tuple[Definition, bool]]) -> None:
    """Write how tasks stand by what is left of them in history; each with whether it is pending."""
    if not tasks:
        return
    streaks = await history.streaks(conn, list(tasks))
    rows = []
    for key, (of, pending) in tasks.items():
        at, run, last, failures = streaks.get(key, NOTHING)
        tally = Tally(of.line, (at, run), last, failures, True, pending)
        rows.append((tally, of.created_at))
    await state.restore(conn, rows)


async def _awaiting(
    conn: Conn, service_id: UUID, tasks: Sequence[Definition], now: int
) -> set[UUID]:
    """Return those of a service's tasks that have an instant after `now` (ms)."""
    plans = await limited(conn, service_id, tasks)
    found = [of for of in tasks if awaits(of, now, plans.get(of.key))]
    # What never comes to an end has another one, whatever became of the next.
    gone = await ended_ahead(conn, service_id, [of for of in found if of.runs_out], now)
    return {of.key for of in found if awaits(of, now, plans.get(of.key), gone.get(of.key, ()))}


def _groups(things: Sequence[Any]) -> Iterable[Any]:
    return (things[n : n + GROUP] for n in range(0, len(things), GROUP))


def _tally(run: Run, word: str) -> Tally:
    line = Line(run.task_key or UUID(int=0), run.bucket, run.service_id)
    succeeded = word == "succeeded"
    return Tally(line, (run.scheduled_for, run.id), word, int(not succeeded), succeeded)


def _joined(old: Tally, new: Tally) -> Tally:
    if new.at < old.at:  # it was due before what is known to have ended last
        return old
    new.failures += 0 if new.fresh or new.at == old.at else old.failures
    new.fresh = new.fresh or old.fresh
    return new
