"""What a service asks of its live runs and changes: a task's, one by its id, or all of them.

Verbs on a line (a task's address), on ids, or on the service; each names it. None commits.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text

from scheduler import codec
from scheduler.db import Conn, ms
from scheduler.run import Line, Started, bucket_in

BEGUN = """CASE WHEN jsonb_typeof(attempts -> 0 -> 'started_at') = 'number' THEN
            to_timestamp(CAST(attempts -> 0 ->> 'started_at' AS double precision) / 1000) END"""
"""When a run's first attempt began, null where there was none."""

FUTURE = text("""
DELETE FROM run WHERE task_key = :key AND bucket = :bucket AND service_id = :service_id
    AND kind = 'task' AND claimed_by IS NULL AND attempts_n = 0 AND scheduled_for > :after
    AND replayed_at IS NULL AND NOT cancelled
RETURNING id
""")

# An instant that was cancelled before it came stays cancelled, whatever the edit. One statement:
# a run that moves from the one table to the other is in exactly one of them.
STANDING = text("""
SELECT id, scheduled_for, version,
       attempts_n > 0 OR cancelled OR replayed_at IS NOT NULL AS fixed
FROM run WHERE task_key = :key AND bucket = :bucket AND service_id = :service_id
    AND kind = 'task' AND scheduled_for > :after
UNION ALL
SELECT id, scheduled_for, version, true
FROM history WHERE task_key = :key AND bucket = :bucket AND service_id = :service_id
    AND kind = 'task' AND scheduled_for > :after AND (gap_from IS NULL OR count = 1)
""")

# What was due before the edit stays due, as the task stands now, and so does what someone asked for
# by hand; of the instants that some replica holds for later only the wanted ones. The rest keeps
# its old version: that is how the holder knows.
REVERSION = text("""
UPDATE run SET version = :version, overlap = :overlap, lanes = :lanes, priority = :priority
WHERE task_key = :key AND bucket = :bucket AND service_id = :service_id AND id = ANY(ARRAY(
    SELECT id FROM run WHERE task_key = :key AND bucket = :bucket AND service_id = :service_id
      AND (scheduled_for <= :now OR id = ANY(:wanted) OR kind <> 'task' OR attempts_n > 0
           OR cancelled OR replayed_at IS NOT NULL)
    ORDER BY id FOR UPDATE))
""")

LOCK_LINE = text("""
SELECT id FROM run WHERE task_key = :key AND bucket = :bucket AND service_id = :service_id
    AND (claimed_by IS NOT NULL OR attempts_n > 0 OR due <= :ahead)
ORDER BY id FOR UPDATE
""")

LOCK_LINES = text("""
SELECT id FROM run WHERE task_key = ANY(:keys) ORDER BY id FOR UPDATE
""")

IN_FLIGHT = text("""
SELECT EXISTS (SELECT FROM run WHERE task_key = :key AND bucket = :bucket
    AND service_id = :service_id AND (attempts_n > 0 OR claimed_by IS NOT NULL AND due <= :now))
""")

UNCLAIMED = """id = ANY(ARRAY(
    SELECT id FROM run WHERE task_key = :key AND bucket = :bucket AND service_id = :service_id
        AND claimed_by IS NULL
    ORDER BY id FOR UPDATE))"""
REMOVE_FUTURE = text(f"""
DELETE FROM run WHERE task_key = :key AND bucket = :bucket AND service_id = :service_id
    AND {UNCLAIMED}
    AND claimed_by IS NULL AND attempts_n = 0 AND due > :now AND replayed_at IS NULL
""")

CANCEL_OVERDUE = text(f"""
WITH d AS (DELETE FROM run WHERE task_key = :key AND bucket = :bucket AND service_id = :service_id
               AND {UNCLAIMED}
               AND claimed_by IS NULL RETURNING *)
INSERT INTO history (id, bucket, service_id, task_key, task_id, kind, version, scheduled_for,
                     state, reason, attempts, attempts_n, created_at, started_at, finished_at,
                     truncated, count)
SELECT id, bucket, service_id, task_key, task_id, kind, version, scheduled_for, 'cancelled',
       'the task was deleted', attempts, attempts_n, created_at,
       {BEGUN},
       :now, false, 1
FROM d
RETURNING id
""")

LIVE = text("""
SELECT task_key,
       bool_or(attempts_n > 0 OR claimed_by IS NOT NULL AND due <= :now) AS running
FROM run WHERE task_key = ANY(:keys) AND service_id = :service_id GROUP BY task_key
""")

# What `state` of a task calls running: under way, or waiting for a retry, which moved its `due`.
RUNNING = text("""
SELECT task_key FROM (
    SELECT task_key FROM run WHERE service_id = :service_id AND due <= :now
        AND (claimed_by IS NOT NULL OR attempts_n > 0) AND kind IN ('task', 'manual')
    UNION
    SELECT task_key FROM run WHERE service_id = :service_id AND due <> scheduled_for
        AND attempts_n > 0 AND kind IN ('task', 'manual')) AS r
WHERE task_key IS NOT NULL LIMIT :most
""")

STARTED = """
SELECT id, kind, task_key, task_id, version, scheduled_for, due, attempts, attempts_n,
       created_at, claimed_by IS NOT NULL AS claimed, replayed_at IS NOT NULL AS replayed
FROM run WHERE bucket = :bucket AND service_id = :service_id AND """
OF_TASK = text(
    STARTED
    + """task_key = :key
    AND (attempts_n > 0 OR claimed_by IS NOT NULL AND due <= :now)
ORDER BY scheduled_for DESC, id LIMIT 1000
"""
)
BY_ID = text(STARTED + "id = :id")


async def take_back(conn: Conn, line: Line, after: datetime) -> set[UUID]:
    """Delete a task's unclaimed future runs; return their ids."""
    return set((await conn.execute(FUTURE, {**line.values, "after": after})).scalars())


class Standing(msgspec.Struct, frozen=True):
    """An instant of a task, `at` in ms since 1970, that is a row whatever an edit says."""

    id: UUID
    at: int
    version: int
    fixed: bool
    """It has ended, was tried, or someone decided about it: no edit takes it back."""


async def standing(conn: Conn, line: Line, after: datetime) -> list[Standing]:
    """Return a task's instants later than `after` that are held by some replica, or ended."""
    rows = await conn.execute(STANDING, {**line.values, "after": after})
    return [Standing(row.id, ms(row.scheduled_for), row.version, row.fixed) for row in rows]


class Stance(msgspec.Struct, frozen=True):
    """What a run's row says of its task's definition."""

    version: int
    overlap: str
    lanes: int | None
    priority: int


async def reversion(
    conn: Conn, line: Line, stance: Stance, now: datetime, wanted: Iterable[UUID]
) -> None:
    """Give a task's runs a new stance, but for those claimed for later that nobody wants now."""
    values = {**msgspec.structs.asdict(stance), "now": now, "wanted": list(wanted)}
    await conn.execute(REVERSION, {**line.values, **values})


async def lock_line(conn: Conn, line: Line, now: datetime, ahead_s: float) -> bool:
    """Hold off claims of a task until the commit; say whether one of its runs is in flight."""
    ahead = now + timedelta(seconds=ahead_s + 1)
    await conn.execute(LOCK_LINE, {**line.values, "ahead": ahead})
    return bool((await conn.execute(IN_FLIGHT, {**line.values, "now": now})).scalar_one())


async def lock_lines(conn: Conn, keys: Sequence[UUID]) -> None:
    """Hold what lives of tasks of any service: at once, as one after the other is no order."""
    await conn.execute(LOCK_LINES, {"keys": list(keys)})


async def remove(conn: Conn, line: Line, now: datetime) -> None:
    """Take a deleted task's unclaimed runs away: future ones go, the others end cancelled."""
    await conn.execute(REMOVE_FUTURE, {**line.values, "now": now})
    await conn.execute(CANCEL_OVERDUE, {**line.values, "now": now})


NEWEST = text("""
SELECT id FROM (
    (SELECT id, scheduled_for FROM run
     WHERE task_key = :key AND bucket = :bucket AND service_id = :service_id AND kind = 'task'
       AND scheduled_for <= :now
     ORDER BY scheduled_for DESC LIMIT 1)
    UNION ALL
    (SELECT id, scheduled_for FROM history
     WHERE task_key = :key AND bucket = :bucket AND service_id = :service_id AND kind = 'task'
       AND scheduled_for <= :now
     ORDER BY scheduled_for DESC LIMIT 1)) AS newest
ORDER BY scheduled_for DESC LIMIT 1
""")

DUE_AT_ONCE = 500
DUE_TASKS = text("""
SELECT task_key, min(scheduled_for) AS at FROM run
WHERE service_id = :service_id AND due >= :since AND due <= :until AND attempts_n = 0
    AND kind IN ('task', 'manual') AND task_key IS NOT NULL
GROUP BY task_key ORDER BY at, task_key LIMIT :most
""")


async def newest(conn: Conn, line: Line, now: datetime) -> UUID | None:
    """Return the id of a task's latest instant that has come, live or finished, or None."""
    values = {**line.values, "now": now}
    found: UUID | None = (await conn.execute(NEWEST, values)).scalar_one_or_none()
    return found


async def due_tasks(
    conn: Conn, service_id: UUID, since: datetime, until: datetime, most: int
) -> AsyncIterator[tuple[UUID, int]]:
    """Yield a service's tasks that have live runs due in [since, until], and the first (ms).

    The soonest first, a few at a time.
    """
    values = {"service_id": service_id, "since": since, "until": until, "most": most}
    async with conn.stream(DUE_TASKS, values) as rows:
        async for some in rows.partitions(DUE_AT_ONCE):
            for row in some:
                yield row.task_key, ms(row.at)


async def live(
    conn: Conn, service_id: UUID, keys: Sequence[UUID], now: datetime
) -> dict[UUID, bool]:
    """Map the task keys that have live runs to whether one is running or waits for a retry."""
    values = {"keys": list(keys), "service_id": service_id, "now": now}
    return {row.task_key: row.running for row in await conn.execute(LIVE, values)}


async def running(conn: Conn, service_id: UUID, now: datetime, most: int) -> list[UUID]:
    """Return the keys of a service's tasks that are running at `now`, `most` at most."""
    values = {"service_id": service_id, "now": now, "most": most}
    return list((await conn.execute(RUNNING, values)).scalars())


async def of_task(conn: Conn, line: Line, now: datetime) -> list[Started]:
    """Return a task's live runs that were tried, or are being tried, the newest first."""
    return [codec.started(row) for row in await conn.execute(OF_TASK, {**line.values, "now": now})]


async def get(conn: Conn, service_id: UUID, run_id: UUID) -> Started | None:
    """Return a live run of a service, or None."""
    values = {"id": run_id, "bucket": bucket_in(run_id), "service_id": service_id}
    row = (await conn.execute(BY_ID, values)).first()
    return codec.started(row) if row else None


# Cancel -------------------------------------------------------------------------------------------

CANCEL = text(f"""
WITH d AS (DELETE FROM run WHERE id = ANY(:ids) AND bucket = ANY(:buckets)
               AND service_id = :service_id AND claimed_by IS NULL RETURNING *)
INSERT INTO history (id, bucket, service_id, task_key, task_id, kind, version, scheduled_for,
                     state, reason, attempts, attempts_n, created_at, started_at, finished_at,
                     truncated, count)
SELECT id, bucket, service_id, task_key, task_id, kind, version, scheduled_for, 'cancelled',
       CASE WHEN attempts @? '$[*] ? (@.outcome == "unknown")'
            THEN 'someone cancelled it; the call may have arrived'
            ELSE 'someone cancelled it' END,
       attempts, attempts_n, created_at,
       {BEGUN},
       :now, false, 1
FROM d
RETURNING id
""")

# Between the next two statements a claim or a release would hide a run from both.
LOCK_RUNS = text("""
SELECT id FROM run WHERE id = ANY(:ids) AND bucket = ANY(:buckets) AND service_id = :service_id
ORDER BY id FOR UPDATE
""")
OF_TASKS = text("""
SELECT DISTINCT task_key FROM run
WHERE id = ANY(:ids) AND bucket = ANY(:buckets) AND service_id = :service_id
    AND kind IN ('task', 'manual') AND task_key IS NOT NULL
""")

MARK = text("""
UPDATE run SET cancelled = true
WHERE id = ANY(:ids) AND bucket = ANY(:buckets) AND service_id = :service_id
    AND claimed_by IS NOT NULL
RETURNING id, due <= :now AS running
""")


class Marked(msgspec.Struct, frozen=True):
    """A claimed run that its holder is to cancel."""

    id: UUID
    running: bool


async def cancel(
    conn: Conn, service_id: UUID, ids: Sequence[UUID], now: datetime
) -> tuple[list[UUID], list[Marked]]:
    """Cancel runs of a service; return those that ended here, and those that their holder ends.

    What has ended already, and what is another's, is in neither.
    """
    values = {**_named(service_id, ids), "now": now}
    await conn.execute(LOCK_RUNS, values)
    done = list((await conn.execute(CANCEL, values)).scalars())
    marked = [Marked(row.id, row.running) for row in await conn.execute(MARK, values)]
    return done, marked


async def tasks_of(conn: Conn, service_id: UUID, ids: Sequence[UUID]) -> list[UUID]:
    """Return the keys of the tasks that live runs are of."""
    return list((await conn.execute(OF_TASKS, _named(service_id, ids))).scalars())


def _named(service_id: UUID, ids: Sequence[UUID]) -> dict[str, Any]:
    buckets = list({bucket_in(run_id) for run_id in ids})
    return {"ids": list(ids), "buckets": buckets, "service_id": service_id}


# All of a service ---------------------------------------------------------------------------------

OF_SERVICE = """FROM run WHERE service_id = :service_id ORDER BY due LIMIT :most"""
REMOVE_SERVICE = text(
    "DELETE FROM run WHERE service_id = :service_id AND id = ANY(ARRAY("
    f"SELECT id {OF_SERVICE} FOR UPDATE SKIP LOCKED)) "
    "RETURNING task_key, claimed_by IS NOT NULL AS claimed"
)
LEFT_OF_SERVICE = text(f"SELECT EXISTS (SELECT FROM (SELECT id {OF_SERVICE}) AS left_over)")
UNDER_WAY = text("""
SELECT count(*) FROM (
    SELECT FROM run WHERE service_id = :service_id AND due <= :now AND claimed_by IS NOT NULL
    ORDER BY due LIMIT :most) AS r
""")
NEXT_SERVICE = text("""
SELECT service_id FROM run WHERE service_id > :after ORDER BY service_id LIMIT 1
""")


async def next_service(conn: Conn, after: UUID) -> UUID | None:
    """Return the service after this one that has live runs, by id; None where none has."""
    found: UUID | None = (await conn.execute(NEXT_SERVICE, {"after": after})).scalar_one_or_none()
    return found


async def remove_service(conn: Conn, service_id: UUID, most: int) -> tuple[set[UUID], bool]:
    """Delete at most so many of a service's live runs, the claimed ones too; what runs is dropped.

    Return the tasks of the claimed ones, to be recalled, and whether any runs are left.
    """
    gone = await conn.execute(REMOVE_SERVICE, {"service_id": service_id, "most": most})
    recalled = {row.task_key for row in gone if row.claimed and row.task_key}
    left = await conn.execute(LEFT_OF_SERVICE, {"service_id": service_id, "most": 1})
    return recalled, bool(left.scalar_one())


async def under_way(conn: Conn, service_id: UUID, now: datetime, most: int) -> int:
    """Return how many of a service's runs are being performed, counted to `most`."""
    values = {"service_id": service_id, "now": now, "most": most}
    return int((await conn.execute(UNDER_WAY, values)).scalar_one())
