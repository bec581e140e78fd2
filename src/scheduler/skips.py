"""Skips: planned runs that nobody starts any more, moved from the queue to history as gaps.

None commits. Times are parameters, in database time. Rows are locked as queue.py says.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import text

from scheduler.db import Conn, ms, utc
from scheduler.run import Line

# A gap is one row: the id of its first instant, how many, from when to when.
GAP = """
INSERT INTO history (id, bucket, service_id, task_key, task_id, kind, version, scheduled_for,
                     state, reason, attempts, attempts_n, created_at, finished_at, truncated,
                     count, gap_from, gap_to)
SELECT (array_agg(id ORDER BY scheduled_for))[1], bucket, service_id, task_key, task_id, 'task',
       max(version), min(scheduled_for), {end}, '[]', 0, min(created_at), :now, false,
       count(*), min(scheduled_for), max(scheduled_for)
FROM d GROUP BY task_key, bucket, service_id, task_id
RETURNING count
"""

# What fell due while a run of the task was under way: in (since, until] of each.
SKIP_OVERLAPPED = text(
    """
WITH w AS (
    SELECT * FROM unnest(CAST(:keys AS uuid[]), CAST(:since AS timestamptz[]),
                         CAST(:until AS timestamptz[])) AS w (key, since, until)),
d AS (DELETE FROM run WHERE id = ANY(ARRAY(
          SELECT r.id FROM w JOIN run r ON r.task_key = w.key
          WHERE r.scheduled_for > w.since AND r.scheduled_for <= w.until AND r.kind = 'task'
            AND r.overlap = 'skip' AND r.claimed_by IS NULL AND r.attempts_n = 0
            AND r.replayed_at IS NULL
          FOR UPDATE OF r SKIP LOCKED))
      RETURNING *)"""
    + GAP.format(end="'skipped', 'overlap'")
)

UNTOUCHED = """NOT EXISTS (
                SELECT FROM run h WHERE h.task_key = r.task_key AND h.bucket = r.bucket
                    AND (h.claimed_by IS NOT NULL
                         OR h.attempts_n > 0 AND h.replayed_at IS NULL))"""

# Judge what was planned, and then stood unclaimed for longer than its grace: with `skip` it is
# too late; with `latest` only the last due instant of the task is still wanted, of those that its
# calendars do not exclude. What waits for a run under way was not missed, nor what waits in a queue
# but where nobody claimed.
SWEEP_MISFIRED = text(
    """
WITH d AS (DELETE FROM run WHERE id = ANY(ARRAY(
          SELECT r.id FROM unnest(CAST(:keys AS uuid[]), CAST(:before AS timestamptz[]),
                                  CAST(:latest AS boolean[]), CAST(:last AS timestamptz[]))
                   AS j (key, before, latest, last)
          JOIN run r ON r.task_key = j.key
          WHERE r.scheduled_for < j.before AND r.kind = 'task' AND r.claimed_by IS NULL
            AND r.attempts_n = 0 AND r.replayed_at IS NULL
            AND (r.overlap = 'allow' OR (r.overlap = 'skip' OR :idle) AND """
    + UNTOUCHED
    + """)
            AND (NOT j.latest OR EXISTS (
                SELECT FROM run n WHERE n.task_key = r.task_key AND n.bucket = r.bucket
                    AND n.kind = 'task' AND n.scheduled_for > r.scheduled_for
                    AND n.scheduled_for <= j.last))
          FOR UPDATE OF r SKIP LOCKED))
      RETURNING *)"""
    + GAP.format(end="'skipped', 'misfire'")
)

DUE = text("""
SELECT r.task_key, r.scheduled_for FROM unnest(CAST(:keys AS uuid[])) AS k (key)
CROSS JOIN LATERAL (
    SELECT task_key, scheduled_for FROM run
    WHERE task_key = k.key AND kind = 'task' AND scheduled_for <= :now
    ORDER BY scheduled_for DESC LIMIT :most) AS r
ORDER BY r.scheduled_for DESC
""")

# What was planned before a plan fell behind its time, and is too late: but of what waits in a
# queue only where its head is not under way, for that is what it waits for.
TAKE_LATE = text(
    """
DELETE FROM run WHERE id = ANY(ARRAY(
    SELECT r.id FROM unnest(CAST(:keys AS uuid[]), CAST(:buckets AS smallint[]),
                            CAST(:before AS timestamptz[])) AS j (key, bucket, before)
    JOIN run r ON r.task_key = j.key AND r.bucket = j.bucket
    WHERE r.scheduled_for < j.before AND r.kind = 'task' AND r.claimed_by IS NULL
      AND r.attempts_n = 0 AND r.replayed_at IS NULL AND NOT r.cancelled
      AND (r.overlap <> 'queue' OR """
    + UNTOUCHED
    + """)
    FOR UPDATE OF r SKIP LOCKED))
RETURNING task_key, scheduled_for
"""
)

# Of a task whose instants queue, those that are due beyond the first so many.
CUT_QUEUES = text(
    """
WITH q AS (
    SELECT r.id, row_number() OVER (PARTITION BY r.task_key ORDER BY r.scheduled_for) AS place
    FROM unnest(CAST(:keys AS uuid[])) AS k (key) JOIN run r ON r.task_key = k.key
    WHERE r.overlap = 'queue' AND r.kind = 'task' AND r.claimed_by IS NULL AND r.attempts_n = 0
      AND r.scheduled_for <= :now AND r.replayed_at IS NULL),
d AS (DELETE FROM run WHERE id = ANY(ARRAY(
          SELECT id FROM run WHERE id = ANY(ARRAY(SELECT id FROM q WHERE place > :most))
              AND claimed_by IS NULL
          FOR UPDATE SKIP LOCKED))
      RETURNING *)"""
    + GAP.format(end="'skipped', 'overlap'")
)
OVERDUE = text("""
SELECT task_key, due, id FROM run
WHERE (due, id) > (:after, :after_id) AND due <= :before AND claimed_by IS NULL
  AND kind = 'task' AND attempts_n = 0 AND replayed_at IS NULL
ORDER BY due, id LIMIT :room
""")


async def skip_overlapped(conn: Conn, spans: Iterable[tuple[UUID, int, int]], now: datetime) -> int:
    """Skip what fell due in (since, until] of each task key; return how many."""
    keys, since, until = zip(*spans, strict=True)
    values = {"keys": list(keys), "now": now}
    values |= {"since": [utc(s) for s in since], "until": [utc(u) for u in until]}
    return sum((await conn.execute(SKIP_OVERLAPPED, values)).scalars())


class Judgement(msgspec.Struct, gc=False):
    """A task's misfire rule applied: instants before `before` (ms) are too late."""

    task_key: UUID
    before: int
    latest: bool
    """Keep the last due instant, however late."""
    last: int
    """The last that may be kept (ms): now, or what is later is all excluded."""


async def sweep_misfired(
    conn: Conn, judgements: Sequence[Judgement], now: datetime, *, idle: bool = False
) -> int:
    """Skip planned runs that stood unclaimed too long; return how many."""
    rows = await conn.execute(
        SWEEP_MISFIRED,
        {
            "keys": [j.task_key for j in judgements],
            "before": [utc(j.before) for j in judgements],
            "latest": [j.latest for j in judgements],
            "last": [utc(j.last) for j in judgements],
            "idle": idle,
            "now": now,
        },
    )
    return sum(rows.scalars())


async def due(conn: Conn, keys: Sequence[UUID], now: datetime, most: int) -> dict[UUID, list[int]]:
    """Return the instants of tasks that have a run and are due, `most` of each: the last first."""
    found: dict[UUID, list[int]] = {}
    for row in await conn.execute(DUE, {"keys": list(keys), "now": now, "most": most}):
        found.setdefault(row.task_key, []).append(ms(row.scheduled_for))
    return found


async def take_late(conn: Conn, lines: Sequence[tuple[Line, int]]) -> dict[UUID, list[int]]:
    """Delete the untried, unclaimed runs of each line's instants before a time (ms); return them.

    To be called in the transaction that makes them a gap.
    """
    values = {
        "keys": [line.key for line, _ in lines],
        "buckets": [line.bucket for line, _ in lines],
        "before": [utc(before) for _, before in lines],
    }
    found: dict[UUID, list[int]] = {}
    for row in await conn.execute(TAKE_LATE, values):
        found.setdefault(row.task_key, []).append(ms(row.scheduled_for))
    return found


async def cut_queues(conn: Conn, keys: Sequence[UUID], most: int, now: datetime) -> int:
    """Skip what is due beyond the first `most` in each task's queue; return how many."""
    rows = await conn.execute(CUT_QUEUES, {"keys": list(keys), "most": most, "now": now})
    return sum(rows.scalars())


async def overdue(
    conn: Conn, after: tuple[datetime, UUID], before: datetime, room: int
) -> list[tuple[UUID, datetime, UUID]]:
    """Return (task key, due, id) of untried unclaimed runs, in order, `room` at most."""
    values = {"after": after[0], "after_id": after[1], "before": before, "room": room}
    return [tuple(row) for row in await conn.execute(OVERDUE, values)]
