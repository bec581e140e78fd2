"""The planner: turns triggers into runs a little ahead, and judges what came too late.

`task_plan` says, for each task, up to when its runs are made (`planned_until`, which only grows)
and when there is something to do next (`next_plan_at`): its cost follows what falls due, never
what is stored.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

import msgspec
import structlog
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Index,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Uuid,
    text,
)

from scheduler import clock, history, metrics, queue, task
from scheduler.db import LAST, Conn, metadata, ms, times_check, utc
from scheduler.history import Gap
from scheduler.queue import Judgement
from scheduler.run import Line, NewRun, run_id
from scheduler.task import Definition

log = structlog.get_logger()

PLAN = Table(
    "task_plan",
    metadata,
    Column("key", Uuid, nullable=False),
    Column("bucket", SmallInteger, nullable=False),
    Column("service_id", Uuid, nullable=False),
    Column("next_plan_at", DateTime(timezone=True)),
    Column("planned_until", DateTime(timezone=True), nullable=False),
    Column("planned_runs", BigInteger, nullable=False),
    PrimaryKeyConstraint("key", "bucket", name="task_plan_pkey"),
    times_check("task_plan", "next_plan_at", "planned_until"),
    Index("task_plan_next", "next_plan_at"),
    Index("task_plan_service", "service_id", "next_plan_at"),
)

MOST_AT_ONCE = 1000
"""Instants of one task that one pass makes; the next pass makes more."""
MOST_A_PASS = 5000
"""Runs that one pass makes, about."""
INSERT_AT_ONCE = 500
CATCH_UP_PASSES = 20
"""How much of an overdue task an edit makes up for; the rest is a gap."""
SLICE_S = 0.002
"""How long the loop is held in one go."""
SET_ASIDE_MS = 3_600_000
"""How long a task that cannot be planned is left alone."""

TAKE = text("""
SELECT key, bucket, service_id, planned_until FROM task_plan
WHERE next_plan_at <= :until ORDER BY next_plan_at LIMIT :room FOR UPDATE SKIP LOCKED
""")
ANYTHING = text("""
SELECT EXISTS (SELECT FROM (SELECT next_plan_at FROM task_plan
    WHERE next_plan_at <= :until ORDER BY next_plan_at LIMIT 1) AS due)
""")
ADVANCE = text("""
UPDATE task_plan p SET next_plan_at = u.next_plan_at,
    planned_until = u.planned_until, planned_runs = p.planned_runs + u.runs
FROM unnest(CAST(:keys AS uuid[]), CAST(:buckets AS smallint[]),
            CAST(:next_plan_at AS timestamptz[]), CAST(:planned_until AS timestamptz[]),
            CAST(:runs AS bigint[]))
     AS u (key, bucket, next_plan_at, planned_until, runs)
WHERE p.key = u.key AND p.bucket = u.bucket
""")
INSERT = text("""
INSERT INTO task_plan (key, bucket, service_id, next_plan_at, planned_until, planned_runs)
VALUES (:key, :bucket, :service_id, :next_plan_at, :planned_until, :runs)
""")
LOCK = text("""
SELECT planned_until FROM task_plan
WHERE key = :key AND bucket = :bucket AND service_id = :service_id FOR UPDATE
""")
REMOVE = text("""
DELETE FROM task_plan WHERE key = :key AND bucket = :bucket AND service_id = :service_id
""")


class Plan(msgspec.Struct):
    """What one pass makes of one task; times in ms since 1970."""

    task: Definition
    instants: list[int]
    planned_until: int
    next_plan_at: int | None
    gap: Gap | None = None
    line: Line | None = None
    """The plan's own row, where that is not the task's: someone moved it by hand."""

    @property
    def runs(self) -> Iterator[NewRun]:
        """The instants as runs."""
        return (new_run(self.task, at) for at in self.instants)


def new_run(of: Definition, at: int) -> NewRun:
    """Return the run that an instant of a task becomes."""
    return NewRun(
        id=run_id(of.key, of.bucket, "task", at),
        bucket=of.bucket,
        service_id=of.service_id,
        task_key=of.key,
        task_id=of.id,
        kind="task",
        version=of.version,
        overlap=of.overlap,
        at=at,
    )


def plan(of: Definition, planned_until: int, now: int, horizon: int) -> Plan:
    """Decide what to make of the instants in (planned_until, horizon]. Pure.

    Instants that nobody planned in time (the database or every replica was away) are judged by
    the task's misfire rule; those that are passed over become one gap.
    """
    trigger = of.due
    if trigger is None:
        return Plan(of, [], planned_until, None)
    start, gap = _judge(of, planned_until, now)
    instants = list(islice(trigger.between(start, min(horizon, LAST)), MOST_AT_ONCE))
    until = instants[-1] if len(instants) == MOST_AT_ONCE else horizon
    return Plan(of, instants, max(until, planned_until), _next(of, until), gap)


def _next(of: Definition, after: int) -> int | None:
    at = of.due.next(after) if of.due else None
    return at if at is not None and at <= LAST else None


def _judge(of: Definition, planned_until: int, now: int) -> tuple[int, Gap | None]:
    """Return from when on instants are made, and the gap before it."""
    rule = of.policy.misfire or "latest"
    too_late = now - of.misfire_grace_ms
    trigger = of.due
    if trigger is None or rule == "all" or planned_until >= too_late:
        return planned_until, None
    if not trigger.count(planned_until, too_late):
        return planned_until, None
    start = too_late
    if rule == "latest":
        last = trigger.last(planned_until, now)
        start = too_late if last is None or last > too_late else last - 1
    return start, gap(of, planned_until, start, "misfire")


def gap(of: Definition, after: int, until: int, reason: str) -> Gap | None:
    """Return the gap row for the instants of a task's trigger in (after, until], if any."""
    instants = of.instants
    if instants is None:
        return None
    count = instants.count(after, until)
    first, last = instants.next(after), instants.last(after, until)
    if not count or first is None or last is None:
        return None
    return Gap(
        line=of.line,
        task_id=of.id,
        version=of.version,
        reason=reason,
        count=count,
        first=first,
        last=last,
    )


class Passed(msgspec.Struct):
    """What a pass did."""

    tasks: int = 0
    """How many plans it moved ahead."""
    runs: int = 0
    earliest: int | None = None
    """The earliest instant it made, in ms since 1970."""
    lapsed: list[UUID] = []
    """Tasks that have nothing to come, and whose last instants were passed over."""


async def anything(conn: Conn, now: int, *, window_ms: int) -> bool:
    """Say whether a pass would find something to do: one probe, where nothing falls due."""
    values = {"until": utc(now + window_ms // 2)}
    return bool((await conn.execute(ANYTHING, values)).scalar_one())


async def tick(conn: Conn, now: int, *, window_ms: int, batch: int) -> Passed:
    """Make the runs of up to `batch` tasks that fall due within half a window.

    A task whose row someone damaged is pushed ahead by an hour, with a failed run that says why:
    it cannot stop the others.
    """
    values = {"until": utc(now + window_ms // 2), "room": batch}
    rows = (await conn.execute(TAKE, values)).all()
    if not rows:
        return Passed()
    tasks = await task.definitions(conn, [row.key for row in rows])
    plans: list[Plan] = []
    made, slice_end = 0, time.perf_counter() + SLICE_S
    for row in rows:
        of = tasks.get(row.key)
        if of is None:  # deleted by hand
            await conn.execute(REMOVE, _line(row).values)
            continue
        made_of = await _planned(conn, of, ms(row.planned_until), now, now + window_ms)
        made_of.line = _line(row)
        plans.append(made_of)
        made += len(plans[-1].instants)
        if made >= MOST_A_PASS:
            break
        if time.perf_counter() > slice_end:
            await asyncio.sleep(0)
            slice_end = time.perf_counter() + SLICE_S
    return await _write(conn, plans, utc(now))


async def _planned(conn: Conn, of: Definition, planned_until: int, now: int, horizon: int) -> Plan:
    if of.damaged:
        return await _set_aside(conn, of, planned_until, now)
    try:
        return plan(of, planned_until, now, horizon)
    except (ArithmeticError, ValueError, TypeError) as e:
        reason = f"the task's trigger cannot be planned: {e}"
        broken = msgspec.structs.replace(of, damaged=reason)
        return await _set_aside(conn, broken, planned_until, now)


async def _set_aside(conn: Conn, of: Definition, planned_until: int, now: int) -> Plan:
    metrics.SET_ASIDE.inc()
    log.error("task set aside", task=of.id, service_id=str(of.service_id), error=of.damaged)
    reason = of.damaged or "the task cannot be planned"
    await history.record_damaged(conn, of.line, of.id, of.version, reason, utc(now))
    return Plan(of, [], planned_until, now + SET_ASIDE_MS)


async def _write(conn: Conn, plans: Sequence[Plan], now: datetime) -> Passed:
    earliest = None
    for runs in batched((run for plan in plans for run in plan.runs), INSERT_AT_ONCE):
        await queue.enqueue(conn, runs, now)
        first = min(run.at for run in runs)
        earliest = first if earliest is None else min(earliest, first)
    await history.record_gaps(conn, [p.gap for p in plans if p.gap], now)
    moved = await conn.execute(
        ADVANCE,
        {
            "keys": [p.task.key for p in plans],
            "buckets": [(p.line or p.task.line).bucket for p in plans],
            "next_plan_at": [_maybe_utc(p.next_plan_at) for p in plans],
            "planned_until": [utc(p.planned_until) for p in plans],
            "runs": [len(p.instants) for p in plans],
        },
    )
    lapsed = [p.task.key for p in plans if p.gap and not p.instants and p.next_plan_at is None]
    return Passed(moved.rowcount, sum(len(p.instants) for p in plans), earliest, lapsed)


def batched(runs: Iterator[NewRun], size: int) -> Iterator[list[NewRun]]:
    """Yield lists of at most `size` runs."""
    while chunk := list(islice(runs, size)):
        yield chunk


def _maybe_utc(at: int | None) -> datetime | None:
    return None if at is None else utc(at)


def _line(row: Any) -> Line:
    return Line(row.key, row.bucket, row.service_id)


async def create(
    conn: Conn, of: Definition, now: int, *, window_ms: int, at_once: bool
) -> int | None:
    """Plan a new task; `at_once` makes one run now besides. Return the earliest instant made."""
    made = plan(of, now, now, now + window_ms)
    runs = list(made.runs)
    if at_once and of.due is not None:
        runs.insert(0, new_run(of, now))
    await queue.enqueue(conn, runs, utc(now))
    await conn.execute(
        INSERT,
        {
            **of.line.values,
            "next_plan_at": _maybe_utc(made.next_plan_at),
            "planned_until": utc(made.planned_until),
            "runs": len(runs),
        },
    )
    return runs[0].at if runs else None


async def lock(conn: Conn, line: Line) -> int | None:
    """Lock a task's plan against the planner and other edits; return `planned_until` in ms.

    None where the task is gone.
    """
    row = (await conn.execute(LOCK, line.values)).first()
    return None if row is None else ms(row.planned_until)


async def replan(
    conn: Conn, before: Definition, after: Definition, planned_until: int, *, window_ms: int,
    at_once: bool = False,
) -> int | None:  # fmt: skip
    """Make the runs of an edited task, whose plan is locked; return the earliest instant made.

    What was due before the edit stays due; what some replica holds already and is still wanted
    gets the new version, and the holder drops the rest when it hears of it. The clock is read
    after the old runs are gone: an instant that passes meanwhile comes back if it is still wanted.
    """
    start = await clock.database_ms(conn)
    gaps = await _catch_up(conn, before, planned_until, start)
    taken = await queue.take_back(conn, after.line, utc(start))
    held = await queue.claimed(conn, after.line, utc(start))
    now = await clock.database_ms(conn)
    passed = before.due.between(start, now) if before.due else ()
    runs = [run for run in (new_run(after, at) for at in passed) if run.id in taken]
    made = plan(after, now, now, now + window_ms)
    runs += [run for run in made.runs if run.id not in held]
    if at_once and after.due is not None:
        runs.insert(0, new_run(after, now))
    await queue.enqueue(conn, runs, utc(now))
    wanted = {run_id(after.key, after.bucket, "task", at) for at in made.instants}
    await queue.reversion(conn, after.line, after.version, after.overlap, utc(now), wanted)
    await history.record_gaps(conn, gaps, utc(now))
    await _write(conn, [Plan(after, [], made.planned_until, made.next_plan_at)], utc(now))
    return runs[0].at if runs else None


async def _catch_up(conn: Conn, before: Definition, planned_until: int, now: int) -> list[Gap]:
    """Settle what the task owed before an edit: overdue instants, or the gap of a pause."""
    if before.status == "paused":
        paused = gap(before, planned_until, now, "paused")
        return [paused] if paused else []
    gaps: list[Gap] = []
    for _ in range(CATCH_UP_PASSES):
        if before.due is None or planned_until >= now:
            return gaps
        owed = plan(before, planned_until, now, now)
        await queue.enqueue(conn, list(owed.runs), utc(now))
        gaps += [owed.gap] if owed.gap else []
        planned_until = owed.planned_until
    rest = gap(before, planned_until, now, "misfire")
    return [*gaps, rest] if rest else gaps


PLANNED = text("""
SELECT key, planned_until, planned_runs FROM task_plan
WHERE key = ANY(:keys) AND service_id = :service_id
""")


async def planned(
    conn: Conn, service_id: UUID, keys: Sequence[UUID]
) -> dict[UUID, tuple[int, int]]:
    """Map a service's tasks to up to when their runs are made (ms), and how many were made."""
    rows = await conn.execute(PLANNED, {"keys": list(keys), "service_id": service_id})
    return {row.key: (ms(row.planned_until), row.planned_runs) for row in rows}


async def remove(conn: Conn, line: Line) -> None:
    """Forget a task's plan."""
    await conn.execute(REMOVE, line.values)


class Sweep:
    """Walks the overdue, unclaimed runs a piece at a time and applies the misfire rules.

    Bounded on purpose: a backlog of any size costs one piece a tick.
    """

    PIECE = 2000
    OVERDUE_MS = 5000
    """Younger ones are about to be claimed."""
    START = (datetime.min.replace(tzinfo=utc(0).tzinfo), UUID(int=0))

    def __init__(self, queue_most: int) -> None:
        self._queue_most = queue_most
        self._after = self.START
        self.judged: list[UUID] = []
        """The tasks of the last piece."""

    async def step(self, conn: Conn, now: int) -> tuple[int, bool]:
        """Judge one piece; return how many were skipped, and whether the walk came to its end."""
        rows = await queue.overdue(conn, self._after, utc(now - self.OVERDUE_MS), self.PIECE)
        done = len(rows) < self.PIECE
        self._after = self.START if done else (rows[-1][1], rows[-1][2])
        keys = self.judged = list({key for key, _, _ in rows})
        skipped = 0
        if keys:
            skipped += await queue.cut_queues(conn, keys, self._queue_most, utc(now))
            judged = [_judgement(of, now) for of in (await task.definitions(conn, keys)).values()]
            wanted = [j for j in judged if j is not None]
            if wanted:
                skipped += await queue.sweep_misfired(conn, wanted, utc(now))
        return skipped, done


def _judgement(of: Definition, now: int) -> Judgement | None:
    rule = of.policy.misfire or "latest"
    if rule == "all" or of.damaged:
        return None
    return Judgement(of.key, now - of.misfire_grace_ms, rule == "latest")
