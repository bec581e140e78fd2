"""The planner: keeps `task_plan`, and in passes turns triggers into runs a little ahead.

The table says, for each task, up to when its runs are made (`planned_until`, which only grows)
and when there is something to do next (`next_plan_at`): its cost follows what falls due, never
what is stored.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
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

from scheduler import clock, history, lines, metrics, planning, queue, skips, task
from scheduler.db import Conn, metadata, ms, times_check, utc
from scheduler.definition import Definition
from scheduler.errors import NotFound
from scheduler.lines import Stance
from scheduler.planning import FirstPlan, Plan, Planned
from scheduler.run import Line, NewRun

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


# The pass -----------------------------------------------------------------------------------------

OVERDUE_MS = 60_000
"""A task whose next instant lies further back is caught up with apart."""
CATCH_UP_MOST = 10_000
"""While so many runs of a service are due, no overdue ones of it are made: a backlog waits as what
it is, a plan."""
LONG_AGO = datetime.min.replace(tzinfo=UTC)
LEAST_AT_ONCE = 10
"""As few where many tasks are behind: one that can skip waits for nobody's catching up."""
MOST_A_PASS = 5000
"""Runs that one pass makes, about."""
INSERT_AT_ONCE = 500
SET_ASIDE_MS = 3_600_000
"""How long a task that cannot be planned is left alone."""
COLUMNS = "key, bucket, service_id, next_plan_at, planned_until, planned_runs"
TAKE = text(f"""
SELECT {COLUMNS} FROM task_plan
WHERE next_plan_at > :since AND next_plan_at <= :until AND service_id <> ALL(:crowded)
ORDER BY next_plan_at LIMIT :room FOR UPDATE SKIP LOCKED
""")
TAKE_BEHIND = text(f"""
SELECT {COLUMNS} FROM task_plan
WHERE key = ANY(:keys) AND next_plan_at <= :now FOR UPDATE SKIP LOCKED
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


class Passed(msgspec.Struct):
    """What a pass did."""

    tasks: int = 0
    """How many plans it moved ahead."""
    runs: int = 0
    skipped: int = 0
    earliest: int | None = None
    """The earliest instant it made, in ms since 1970."""
    lapsed: list[UUID] = []
    """Tasks whose instants were passed over, with nothing to come, or that a pause held."""


async def anything(conn: Conn, now: int, *, window_ms: int) -> bool:
    """Say whether a pass would find something to do: one probe, where nothing falls due."""
    values = {"until": utc(now + window_ms // 2)}
    return bool((await conn.execute(ANYTHING, values)).scalar_one())


async def tick(
    conn: Conn,
    now: int,
    *,
    window_ms: int,
    batch: int,
    overdue: bool = False,
    crowded: Sequence[UUID] = (),
) -> Passed:
    """Make the runs of up to `batch` tasks that fall due within half a window.

    With `overdue` of those that nobody planned in time: apart, so that a backlog of any length
    stands before nobody's next instant. Those of `crowded` services wait.
    A task whose row someone damaged is pushed ahead by an hour, with a failed run that says why:
    it cannot stop the others.
    """
    since, until = utc(now - OVERDUE_MS), utc(now + window_ms // 2)
    since, until = (LONG_AGO, since) if overdue else (since, until)
    values = {"since": since, "until": until, "room": batch, "crowded": list(crowded)}
    rows = (await conn.execute(TAKE, values)).all()
    at_once = max(LEAST_AT_ONCE, MOST_A_PASS // max(len(rows), 1)) if overdue else None
    return await _pass(conn, rows, now, now + window_ms, at_once)


async def catch_up(conn: Conn, keys: Sequence[UUID], now: int, *, window_ms: int) -> Passed:
    """Make the runs of those of these tasks whose plans lie behind `now` (ms)."""
    rows = (await conn.execute(TAKE_BEHIND, {"keys": list(keys), "now": utc(now)})).all()
    return await _pass(conn, rows, now, now + window_ms, LEAST_AT_ONCE)


async def _pass(
    conn: Conn, rows: Sequence[Any], now: int, horizon: int, at_once: int | None
) -> Passed:
    """Move the plans ahead that are locked; `at_once` instants are made of each at most."""
    if not rows:
        return Passed()
    tasks = await task.outlines_of_all(conn, [row.key for row in rows])
    behind: list[Definition] = []
    plans: list[Plan] = []
    ending = [of.key for of in tasks.values() if _has_ended(of, now)]
    if ending:
        await lines.lock_lines(conn, ending)
    made, turn = 0, clock.Slice()
    for row in rows:
        of = tasks.get(row.key)
        if of is None:  # deleted by hand
            await conn.execute(REMOVE, _line(row).values)
            continue
        made_of = await _planned(conn, of, row, now, horizon, at_once)
        made_of.line = _line(row)
        if ms(row.next_plan_at) <= now and of.due is not None:
            behind.append(of)
        plans.append(made_of)
        made += len(plans[-1].instants)
        if made >= MOST_A_PASS:
            break
        await turn.give_way()
    late = await late_of(conn, behind, now)
    for plan in plans:
        plan.pass_over(late.get(plan.task.key, ()), now)
    return await write(conn, plans, utc(now))


async def late_of(conn: Conn, tasks: Sequence[Definition], now: int) -> dict[UUID, list[int]]:
    """Take back what was planned of tasks before their plans fell behind, and is too late now.

    Return the instants by task key, to be passed over with those that nobody planned: of one
    stretch of time the misfire rule keeps one instant, and makes one gap.
    """
    judged = [of for of in tasks if (of.policy.misfire or "latest") != "all"]
    if not judged:
        return {}
    return await skips.take_late(conn, [(of.line, now - of.misfire_grace_ms) for of in judged])


async def _planned(
    conn: Conn, of: Definition, row: Any, now: int, horizon: int, at_once: int | None
) -> Plan:
    planned_until, spent = ms(row.planned_until), row.planned_runs
    if of.damaged:
        return await _set_aside(conn, of, planned_until, now)
    try:
        if of.status == "paused":
            return await _resumed(conn, of, planned_until, spent, now, horizon)
        return planning.plan(of, planned_until, spent, now, horizon, at_once=at_once)
    except (ArithmeticError, ValueError, TypeError) as e:
        reason = f"the task's trigger cannot be planned: {e}"
        broken = msgspec.structs.replace(of, damaged=reason)
        return await _set_aside(conn, broken, planned_until, now)


def _has_ended(of: Definition, now: int) -> bool:
    """Say whether a task's pause is over."""
    return of.status == "paused" and of.paused_until is not None and of.paused_until <= now


async def _resumed(
    conn: Conn, of: Definition, planned_until: int, spent: int, now: int, horizon: int
) -> Plan:
    """Plan a paused task from the end of its pause on, where that has come."""
    if of.paused_until is None or not _has_ended(of, now):
        return Plan(of, [], planned_until, planning.resume_at(of, now, horizon - now))
    gone = await kept(conn, of, planned_until)
    last = of.paused_until - 1  # an instant at its very end is due
    paused = planning.paused(of, planned_until, spent, last, gone)
    since = max(planned_until, last)
    of = await task.resume(conn, of)
    made = planning.plan(
        of, since, spent + sum(gap.count for gap in paused), now, horizon, gone=gone
    )
    await lines.reversion(conn, of.line, stance_of(of), utc(now), made.ids)
    made.gaps = paused + made.gaps
    made.resumed = True
    return made


async def kept(conn: Conn, of: Definition, after: int) -> list[int]:
    """Return the instants of a paused task later than `after` that have a row and keep it.

    What the pause took back, and a replica has not dropped yet, is none of them.
    """
    rows = await lines.standing(conn, of.line, utc(after))
    return [row.at for row in rows if row.fixed or row.version >= of.version]


def stance_of(of: Definition) -> Stance:
    """Return what the runs of a task carry of its definition."""
    return Stance(of.version, of.overlap, of.lanes, of.policy.priority)


async def _set_aside(conn: Conn, of: Definition, planned_until: int, now: int) -> Plan:
    metrics.SET_ASIDE.inc()
    log.error("task set aside", task=of.id, service_id=str(of.service_id), error=of.damaged)
    reason = of.damaged or "the task cannot be planned"
    await history.record_damaged(conn, of.line, of.id, of.version, reason, utc(now))
    return Plan(of, [], planned_until, now + SET_ASIDE_MS)


async def write(conn: Conn, plans: Sequence[Plan], now: datetime) -> Passed:
    """Write what plans make, runs and gaps, and move their rows ahead."""
    earliest = None
    for runs in batched((run for plan in plans for run in plan.runs), INSERT_AT_ONCE):
        await queue.enqueue(conn, runs, now)
        first = min(run.at for run in runs)
        earliest = first if earliest is None else min(earliest, first)
    await history.record_gaps(conn, [gap for p in plans for gap in p.gaps], now)
    moved = await conn.execute(
        ADVANCE,
        {
            "keys": [p.task.key for p in plans],
            "buckets": [(p.line or p.task.line).bucket for p in plans],
            "next_plan_at": [_maybe_utc(p.next_plan_at) for p in plans],
            "planned_until": [utc(p.planned_until) for p in plans],
            "runs": [p.spent for p in plans],
        },
    )
    lapsed = [
        p.task.key
        for p in plans
        if p.resumed
        or p.task.status == "paused"
        or (p.gaps and not p.instants and p.next_plan_at is None)
    ]
    made, skipped = sum(len(p.instants) for p in plans), sum(g.count for p in plans for g in p.gaps)
    return Passed(moved.rowcount, made, skipped, earliest, lapsed)


def batched(runs: Iterator[NewRun], size: int) -> Iterator[list[NewRun]]:
    """Yield lists of at most `size` runs."""
    while chunk := list(islice(runs, size)):
        yield chunk


def _maybe_utc(at: int | None) -> datetime | None:
    return None if at is None else utc(at)


def _line(row: Any) -> Line:
    return Line(row.key, row.bucket, row.service_id)


# New tasks ----------------------------------------------------------------------------------------


INSERT = text("""
INSERT INTO task_plan (key, bucket, service_id, next_plan_at, planned_until, planned_runs)
VALUES (:key, :bucket, :service_id, :next_plan_at, :planned_until, :runs)
""")
INSERT_MANY = text("""
INSERT INTO task_plan (key, bucket, service_id, next_plan_at, planned_until, planned_runs)
SELECT * FROM unnest(CAST(:key AS uuid[]), CAST(:bucket AS smallint[]),
                     CAST(:service_id AS uuid[]), CAST(:next_plan_at AS timestamptz[]),
                     CAST(:planned_until AS timestamptz[]), CAST(:runs AS bigint[]))
""")


async def create(
    conn: Conn, of: Definition, now: int, *, window_ms: int, at_once: bool
) -> int | None:
    """Plan a new task; `at_once` makes one run now besides. Return the earliest instant made."""
    first = planning.first_plan(of, now, window_ms=window_ms, at_once=at_once)
    await queue.enqueue(conn, first.runs, utc(now))
    await history.record_gaps(conn, first.gaps, utc(now))
    await conn.execute(INSERT, first.row)
    return first.runs[0].at if first.runs else None


async def restore(conn: Conn, line: Line, planned: Planned, ahead: int | None) -> None:
    """Write the plan of a task again that was deleted; `ahead` is when to look at it (ms)."""
    values = {"planned_until": utc(planned.until), "next_plan_at": _maybe_utc(ahead)}
    await conn.execute(INSERT, {**line.values, **values, "runs": planned.runs})


async def create_many(conn: Conn, plans: Sequence[FirstPlan], now: int) -> None:
    """Write what `first_plan` made of many tasks."""
    rows = [plan.row for plan in plans]
    await conn.execute(INSERT_MANY, {name: [row[name] for row in rows] for name in rows[0]})
    runs = (run for plan in plans for run in plan.runs)
    for some in batched(runs, len(rows)):  # as many as the caller finds bearable
        await queue.enqueue(conn, some, utc(now))
    await history.record_gaps(conn, [gap for plan in plans for gap in plan.gaps], utc(now))


# Locks --------------------------------------------------------------------------------------------

LOCK = text("""
SELECT planned_until, planned_runs FROM task_plan
WHERE key = :key AND bucket = :bucket AND service_id = :service_id FOR UPDATE
""")
LOCK_MANY = text("""
SELECT key FROM task_plan WHERE key = ANY(:keys) AND service_id = :service_id
ORDER BY key FOR UPDATE
""")


async def locked(conn: Conn, service_id: UUID, task_id: str) -> tuple[Definition, Planned]:
    """Lock a task against the planner and other edits, and read it under the lock.

    Raises NotFound.
    """
    seen = await task.get(conn, service_id, task_id)
    planned = await lock(conn, seen.line)
    current = await task.get(conn, service_id, task_id)
    if planned is None or current.key != seen.key:
        raise NotFound(f"there is no task {task_id}")
    return current, planned


async def lock(conn: Conn, line: Line) -> Planned | None:
    """Lock a task's plan against the planner and other edits; None where the task is gone."""
    row = (await conn.execute(LOCK, line.values)).first()
    return None if row is None else Planned(ms(row.planned_until), row.planned_runs)


async def lock_many(conn: Conn, service_id: UUID, keys: Sequence[UUID]) -> None:
    """Lock tasks against the planner and edits; one that is gone stays so."""
    await conn.execute(LOCK_MANY, {"keys": list(keys), "service_id": service_id})


# Tasks that are gone ------------------------------------------------------------------------------

REMOVE = text("""
DELETE FROM task_plan WHERE key = :key AND bucket = :bucket AND service_id = :service_id
""")
OF_SERVICE = """FROM task_plan WHERE service_id = :service_id ORDER BY next_plan_at LIMIT :most"""
REMOVE_SERVICE = text(
    "DELETE FROM task_plan WHERE service_id = :service_id AND key = ANY(ARRAY("
    f"SELECT key {OF_SERVICE} FOR UPDATE SKIP LOCKED))"
)
LEFT_OF_SERVICE = text(f"SELECT EXISTS (SELECT FROM (SELECT key {OF_SERVICE}) AS left_over)")


async def remove(conn: Conn, line: Line) -> None:
    """Forget a task's plan."""
    await conn.execute(REMOVE, line.values)


async def remove_service(conn: Conn, service_id: UUID, most: int) -> bool:
    """Delete at most so many of a service's plans; say whether any are left."""
    await conn.execute(REMOVE_SERVICE, {"service_id": service_id, "most": most})
    left = await conn.execute(LEFT_OF_SERVICE, {"service_id": service_id, "most": 1})
    return bool(left.scalar_one())
