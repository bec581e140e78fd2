"""The planner: turns triggers into runs a little ahead, and judges what came too late.

`task_plan` says, for each task, up to when its runs are made (`planned_until`, which only grows)
and when there is something to do next (`next_plan_at`): its cost follows what falls due, never
what is stored.
"""

from collections.abc import Iterable, Iterator, Sequence
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

from scheduler import clock, history, lines, metrics, queue, task
from scheduler.db import FIRST, LAST, Conn, metadata, ms, times_check, utc
from scheduler.definition import Definition
from scheduler.errors import NotFound
from scheduler.history import Gap
from scheduler.lines import Stance
from scheduler.queue import Judgement
from scheduler.run import Line, NewRun, run_id
from scheduler.triggers import Bounded, Instants, without

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
OVERDUE_MS = 60_000
"""A task whose next instant lies further back is caught up with apart."""
CATCH_UP_MOST = 10_000
"""While so many runs are due, no overdue ones are made: a backlog waits as what it is, a plan."""
LONG_AGO = datetime.min.replace(tzinfo=UTC)
LEAST_AT_ONCE = 10
"""As few where many tasks are behind: one that can skip waits for nobody's catching up."""
MOST_A_PASS = 5000
"""Runs that one pass makes, about."""
INSERT_AT_ONCE = 500
CATCH_UP_PASSES = 20
"""How much of an overdue task an edit makes up for; the rest is a gap."""
NOBODY = UUID(int=0)
SET_ASIDE_MS = 3_600_000
"""How long a task that cannot be planned is left alone."""

TAKE = text("""
SELECT key, bucket, service_id, planned_until, planned_runs FROM task_plan
WHERE next_plan_at > :since AND next_plan_at <= :until
ORDER BY next_plan_at LIMIT :room FOR UPDATE SKIP LOCKED
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
SELECT planned_until, planned_runs FROM task_plan
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
    gaps: list[Gap] = []
    line: Line | None = None
    """The plan's own row, where that is not the task's: someone moved it by hand."""
    back: int = 0
    """How many instants an edit took back."""
    resumed: bool = False
    """It ends a pause."""

    @property
    def spent(self) -> int:
        """How many instants it makes of those that `max_runs` counts; skipped ones are some."""
        return len(self.instants) + sum(gap.count for gap in self.gaps) - self.back

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
        lanes=of.lanes,
        priority=of.policy.priority,
    )


def plan(
    of: Definition,
    planned_until: int,
    spent: int,
    now: int,
    horizon: int,
    *,
    gone: Iterable[int] = (),
    at_once: int | None = None,
) -> Plan:
    """Decide what to make of the instants in (planned_until, horizon] that are not `gone`. Pure.

    Instants that nobody planned in time (the database or every replica was away) are judged by
    the task's misfire rule; those that are passed over become one gap. `spent` is how many
    instants were made before, those that are gone too, of the `max_runs` that ever will be; of
    the present ones `at_once` are made at most.
    """
    due = _within(of, without(of.due, gone), planned_until, spent, max(now, horizon))
    if due is None:
        return Plan(of, [], planned_until, _resume_at(of, horizon - now))
    at_once = at_once or MOST_AT_ONCE
    start, gap = _judge(of, due, planned_until, now)
    instants = list(islice(due.between(start, min(horizon, LAST)), at_once))
    until = instants[-1] if len(instants) == at_once else horizon
    made = Plan(of, instants, max(until, planned_until), None, [gap] if gap else [])
    most = of.bounds.max_runs
    if most is None or spent + made.spent < most:
        made.next_plan_at = _next(due, until)
    else:  # none is due after the last that was made
        last = max([planned_until, *instants[-1:], *(gap.last for gap in made.gaps)])
        made.planned_until = last
    return made


def _resume_at(of: Definition, window_ms: int) -> int | None:
    """Return when to look at a paused task again; what is taken is taken half a window ahead."""
    if of.status != "paused" or of.paused_until is None:
        return None
    return min(of.paused_until + window_ms // 2, LAST)


def _next(due: Instants, after: int) -> int | None:
    at = due.next(after)
    return at if at is not None and at <= LAST else None


def _within(
    of: Definition, instants: Instants | None, after: int, spent: int, until: int
) -> Instants | None:
    """Return a task's instants up to the last one that `max_runs` leaves; None where none is."""
    most = of.bounds.max_runs
    if instants is None or most is None:
        return instants
    if spent >= most:
        return None
    if instants.count(after, until) <= most - spent:
        return instants
    return Bounded(instants, 0, None, _nth(instants, after, until, most - spent))


def _nth(instants: Instants, after: int, until: int, n: int) -> int:
    """Return the `n`-th instant later than `after`; there are more of them up to `until`."""
    low, high = after, until
    while low < high:
        middle = (low + high) // 2
        if instants.count(after, middle) < n:
            low = middle + 1
        else:
            high = middle
    return low


def _judge(of: Definition, due: Instants, planned_until: int, now: int) -> tuple[int, Gap | None]:
    """Return from when on instants are made, and the gap before it."""
    rule = of.policy.misfire or "latest"
    too_late = now - of.misfire_grace_ms
    if rule == "all" or planned_until >= too_late:
        return planned_until, None
    if not due.count(planned_until, too_late):
        return planned_until, None
    start = too_late
    if rule == "latest":
        last = due.last(planned_until, now)
        start = too_late if last is None or last > too_late else last - 1
    return start, gap(of, due, planned_until, start, "misfire")


def gap(
    of: Definition, instants: Instants | None, after: int, until: int, reason: str
) -> Gap | None:
    """Return the gap row for a task's instants in (after, until], if there are any."""
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


class Planned(msgspec.Struct, frozen=True):
    """How far a task is planned: up to when (ms), and how many instants were made so far."""

    until: int
    runs: int


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


async def tick(
    conn: Conn, now: int, *, window_ms: int, batch: int, overdue: bool = False
) -> Passed:
    """Make the runs of up to `batch` tasks that fall due within half a window.

    With `overdue` of those that nobody planned in time: apart, so that a backlog of any length
    stands before nobody's next instant.
    A task whose row someone damaged is pushed ahead by an hour, with a failed run that says why:
    it cannot stop the others.
    """
    since, until = utc(now - OVERDUE_MS), utc(now + window_ms // 2)
    since, until = (LONG_AGO, since) if overdue else (since, until)
    values = {"since": since, "until": until, "room": batch}
    rows = (await conn.execute(TAKE, values)).all()
    if not rows:
        return Passed()
    tasks = await task.definitions(conn, [row.key for row in rows])
    plans: list[Plan] = []
    at_once = MOST_AT_ONCE
    if overdue:
        at_once = max(LEAST_AT_ONCE, MOST_A_PASS // len(rows))
    made, turn = 0, clock.Slice()
    for row in rows:
        of = tasks.get(row.key)
        if of is None:  # deleted by hand
            await conn.execute(REMOVE, _line(row).values)
            continue
        made_of = await _planned(conn, of, row, now, now + window_ms, at_once)
        made_of.line = _line(row)
        plans.append(made_of)
        made += len(plans[-1].instants)
        if made >= MOST_A_PASS:
            break
        await turn.give_way()
    return await _write(conn, plans, utc(now))


async def _planned(
    conn: Conn, of: Definition, row: Any, now: int, horizon: int, at_once: int
) -> Plan:
    planned_until, spent = ms(row.planned_until), row.planned_runs
    if of.damaged:
        return await _set_aside(conn, of, planned_until, now)
    try:
        if of.status == "paused":
            return await _resumed(conn, of, planned_until, spent, now, horizon)
        return plan(of, planned_until, spent, now, horizon, at_once=at_once)
    except (ArithmeticError, ValueError, TypeError) as e:
        reason = f"the task's trigger cannot be planned: {e}"
        broken = msgspec.structs.replace(of, damaged=reason)
        return await _set_aside(conn, broken, planned_until, now)


async def _resumed(
    conn: Conn, of: Definition, planned_until: int, spent: int, now: int, horizon: int
) -> Plan:
    """Plan a paused task from the end of its pause on, where that has come."""
    if of.paused_until is None or of.paused_until > now:
        return Plan(of, [], planned_until, _resume_at(of, horizon - now))
    gone = await _gone(conn, of, planned_until)
    last = of.paused_until - 1  # an instant at its very end is due
    paused = _paused(of, planned_until, spent, last, gone)
    since = max(planned_until, last)
    of = await task.resume(conn, of)
    made = plan(of, since, spent + sum(gap.count for gap in paused), now, horizon, gone=gone)
    await lines.reversion(conn, of.line, stance_of(of), utc(now), _ids(made))
    made.gaps = paused + made.gaps
    made.resumed = True
    return made


async def _gone(conn: Conn, of: Definition, after: int) -> list[int]:
    """Return the instants of a paused task later than `after` that have a row and keep it.

    What the pause took back, and a replica has not dropped yet, is none of them.
    """
    rows = await lines.standing(conn, of.line, utc(after))
    return [row.at for row in rows if row.fixed or row.version >= of.version]


def _ids(made: Plan) -> set[UUID]:
    return {run.id for run in made.runs}


def _paused(
    of: Definition, planned_until: int, spent: int, until: int, gone: Iterable[int]
) -> list[Gap]:
    """Return the gap of a pause up to `until`; what ended or runs by itself is not in it."""
    instants = _within(of, without(of.instants, gone), planned_until, spent, until)
    passed = gap(of, instants, planned_until, until, "paused")
    return [passed] if passed else []


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
        if p.resumed or (p.gaps and not p.instants and p.next_plan_at is None)
    ]
    return Passed(moved.rowcount, sum(len(p.instants) for p in plans), earliest, lapsed)


def batched(runs: Iterator[NewRun], size: int) -> Iterator[list[NewRun]]:
    """Yield lists of at most `size` runs."""
    while chunk := list(islice(runs, size)):
        yield chunk


def _maybe_utc(at: int | None) -> datetime | None:
    return None if at is None else utc(at)


def _line(row: Any) -> Line:
    return Line(row.key, row.bucket, row.service_id)


INSERT_MANY = text("""
INSERT INTO task_plan (key, bucket, service_id, next_plan_at, planned_until, planned_runs)
SELECT * FROM unnest(CAST(:key AS uuid[]), CAST(:bucket AS smallint[]),
                     CAST(:service_id AS uuid[]), CAST(:next_plan_at AS timestamptz[]),
                     CAST(:planned_until AS timestamptz[]), CAST(:runs AS bigint[]))
""")


async def create_many(
    conn: Conn, rows: Sequence[dict[str, Any]], runs: Sequence[NewRun], now: int
) -> None:
    """Write what `first_plan` made of many tasks."""
    await conn.execute(INSERT_MANY, {name: [row[name] for row in rows] for name in rows[0]})
    for some in batched(iter(runs), len(rows)):  # as many as the caller finds bearable
        await queue.enqueue(conn, some, utc(now))


LOCK_MANY = text("""
SELECT key FROM task_plan WHERE key = ANY(:keys) AND service_id = :service_id
ORDER BY key FOR UPDATE
""")


async def lock_many(conn: Conn, service_id: UUID, keys: Sequence[UUID]) -> None:
    """Lock tasks against the planner and edits; one that is gone stays so."""
    await conn.execute(LOCK_MANY, {"keys": list(keys), "service_id": service_id})


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


async def create(
    conn: Conn, of: Definition, now: int, *, window_ms: int, at_once: bool
) -> int | None:
    """Plan a new task; `at_once` makes one run now besides. Return the earliest instant made."""
    row, runs = first_plan(of, now, window_ms=window_ms, at_once=at_once)
    await queue.enqueue(conn, runs, utc(now))
    await conn.execute(INSERT, row)
    return runs[0].at if runs else None


def first_plan(
    of: Definition, now: int, *, window_ms: int, at_once: bool
) -> tuple[dict[str, Any], list[NewRun]]:
    """Return a new task's row in `task_plan`, and its first runs. Pure."""
    at_once = at_once and of.due is not None
    made = plan(of, now, int(at_once), now, now + window_ms)
    runs = list(made.runs)
    if at_once:
        runs.insert(0, new_run(of, now))
    row = {
        **of.line.values,
        "next_plan_at": _maybe_utc(made.next_plan_at),
        "planned_until": utc(made.planned_until),
        "runs": len(runs),
    }
    return row, runs


async def lock(conn: Conn, line: Line) -> Planned | None:
    """Lock a task's plan against the planner and other edits; None where the task is gone."""
    row = (await conn.execute(LOCK, line.values)).first()
    return None if row is None else Planned(ms(row.planned_until), row.planned_runs)


async def replan(
    conn: Conn, before: Definition, after: Definition, planned: Planned, *, window_ms: int,
    at_once: bool = False, asked: int | None = None,
) -> int | None:  # fmt: skip
    """Make the runs of an edited task, whose plan is locked; return the earliest instant made.

    What was due before the edit stays due; what some replica holds already and is still wanted
    gets the new version, and the holder drops the rest when it hears of it. An instant of the new
    trigger that passes while this waits for locks is due: `asked` is when the edit was read, in ms.
    """
    start = await clock.database_ms(conn) if asked is None else asked
    owed = await _catch_up(conn, before, planned, start)
    taken = await lines.take_back(conn, after.line, utc(start))
    standing = await lines.standing(conn, after.line, utc(start))
    now = await clock.database_ms(conn)
    passed = before.due.between(start, now) if before.due else ()
    runs = [run for run in (new_run(after, at) for at in passed) if run.id in taken]
    # What is planned anew counts anew: not what passed meanwhile, has ended, or was never counted,
    # because the edit before this one did not want it.
    held = {s.id for s in standing if not s.fixed and s.at > now}
    again = sum(s.id in held and s.version >= before.version for s in standing)
    at_once = at_once and after.due is not None
    kept = planned.runs + owed.spent - len(taken) - again + len(runs) + at_once
    gone = [s.at for s in standing if s.id not in held] + [run.at for run in runs]
    made = plan(after, start, kept, start, start + window_ms, gone=gone)
    runs += [new_run(after, now)] if at_once else []
    # In this order: what its holder drops before is made again, and after it is not dropped.
    await lines.reversion(conn, after.line, stance_of(after), utc(now), _ids(made))
    runs += made.runs
    await queue.enqueue(conn, runs, utc(now))
    counted = Plan(after, [], made.planned_until, made.next_plan_at, owed.gaps)
    counted.back = planned.runs + sum(g.count for g in owed.gaps) - kept - len(made.instants)
    await _write(conn, [counted], utc(now))
    return min((run.at for run in runs), default=None)


def stance_of(of: Definition) -> Stance:
    """Return what the runs of a task carry of its definition."""
    return Stance(of.version, of.overlap, of.lanes, of.policy.priority)


class Owed(msgspec.Struct):
    """What an edit settled of the time before it."""

    gaps: list[Gap]
    made: int = 0
    """Overdue instants that became runs."""

    @property
    def spent(self) -> int:
        """How many instants that is."""
        return self.made + sum(gap.count for gap in self.gaps)


async def _catch_up(conn: Conn, before: Definition, planned: Planned, now: int) -> Owed:
    """Settle what the task owed before an edit: overdue instants, or the gap of a pause."""
    planned_until, owed, gone = planned.until, Owed([]), list[int]()
    if before.status == "paused":
        until = now if before.paused_until is None else min(now, before.paused_until - 1)
        gone = await _gone(conn, before, planned_until)
        owed.gaps += _paused(before, planned_until, planned.runs, until, gone)
        if until == now:
            return owed
        # The pause is over, and no tick has come by yet.
        before = msgspec.structs.replace(before, status="active", paused_until=None)
        planned_until = max(planned_until, until)
    for _ in range(CATCH_UP_PASSES):
        if before.due is None or planned_until >= now:
            return owed
        made = plan(before, planned_until, planned.runs + owed.spent, now, now, gone=gone)
        await queue.enqueue(conn, list(made.runs), utc(now))
        owed.gaps += made.gaps
        owed.made += len(made.instants)
        if made.next_plan_at is None or made.planned_until == planned_until:
            return owed
        planned_until = made.planned_until
    due = _within(before, before.due, planned_until, planned.runs + owed.spent, now)
    rest = gap(before, due, planned_until, now, "misfire")
    owed.gaps += [rest] if rest else []
    return owed


COMING = text("""
SELECT key, next_plan_at, planned_runs FROM task_plan
WHERE service_id = :service_id AND (next_plan_at, key) > (:after, :key) AND next_plan_at <= :until
ORDER BY next_plan_at, key LIMIT :most
""")


class Coming(msgspec.Struct, frozen=True):
    """A task with instants that are not planned yet, the first of them at `at` (ms).

    A paused task's is when it is looked at again.
    """

    key: UUID
    at: int
    runs: int
    """How many instants were made so far."""

    def first(self, of: Definition, since: int, until: int) -> int | None:
        """Return the first of them in [since, until], if nothing changes until then."""
        begin = self.at
        if of.status == "paused":
            if of.paused_until is None or of.damaged:
                return None
            begin = of.paused_until
            of = msgspec.structs.replace(of, status="active")
        due = _within(of, of.due, begin - 1, self.runs, until)
        at = due.next(max(begin, since) - 1) if due else None
        return at if at is not None and at <= until else None


async def coming(
    conn: Conn, service_id: UUID, after: Coming | None, until: int, most: int
) -> list[Coming]:
    """Return a service's tasks with unplanned instants up to `until` (ms), the soonest first.

    `after` is the last of the page before.
    """
    values: dict[str, Any] = {"service_id": service_id, "until": utc(until), "most": most}
    values |= {"after": utc(after.at if after else FIRST), "key": after.key if after else NOBODY}
    rows = await conn.execute(COMING, values)
    return [Coming(row.key, ms(row.next_plan_at), row.planned_runs) for row in rows]


PLANNED = text("""
SELECT key, planned_until, planned_runs FROM task_plan
WHERE key = ANY(:keys) AND service_id = :service_id
""")


async def planned(conn: Conn, service_id: UUID, keys: Sequence[UUID]) -> dict[UUID, Planned]:
    """Map a service's tasks to how far they are planned."""
    rows = await conn.execute(PLANNED, {"keys": list(keys), "service_id": service_id})
    return {row.key: Planned(ms(row.planned_until), row.planned_runs) for row in rows}


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


OF_SERVICE = """FROM task_plan WHERE service_id = :service_id ORDER BY next_plan_at LIMIT :most"""
REMOVE_SERVICE = text(
    "DELETE FROM task_plan WHERE service_id = :service_id AND key = ANY(ARRAY("
    f"SELECT key {OF_SERVICE} FOR UPDATE SKIP LOCKED))"
)
LEFT_OF_SERVICE = text(f"SELECT EXISTS (SELECT FROM (SELECT key {OF_SERVICE}) AS left_over)")


async def remove_service(conn: Conn, service_id: UUID, most: int) -> bool:
    """Delete at most so many of a service's plans; say whether any are left."""
    await conn.execute(REMOVE_SERVICE, {"service_id": service_id, "most": most})
    left = await conn.execute(LEFT_OF_SERVICE, {"service_id": service_id, "most": 1})
    return bool(left.scalar_one())
