"""Backfills: rows for instants that have passed without one, due one after the other from now on.

Such a run is of kind `task`, and its row says `replayed_at = created_at`: someone asked for it, so
that no rule about lateness ends it, and a replay of an earlier run is later than its creation.
In its task's line it stands behind whatever else is due, see queue.py. None commits.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from scheduler.db import Conn, ms, utc
from scheduler.lines import BEGUN, Stance
from scheduler.run import Line, run_id

# One statement: a run that moves from the one table to the other is in exactly one of them.
FOUND = text("""
SELECT id, false AS skipped FROM run
WHERE id = ANY(:ids) AND bucket = :bucket AND service_id = :service_id
UNION ALL
SELECT id, state = 'skipped' FROM history
WHERE id = ANY(:ids) AND bucket = :bucket AND service_id = :service_id
""")
MAKE = text("""
INSERT INTO run (id, bucket, service_id, task_key, task_id, kind, version, overlap, priority,
                 scheduled_for, due, attempts, attempts_n, created_at, lanes, replayed_at)
SELECT u.id, :bucket, :service_id, :key, :task_id, 'task', :version, :overlap, :priority,
       u.at, u.due, '[]', 0, :now, :lanes, :now
FROM unnest(CAST(:ids AS uuid[]), CAST(:at AS timestamptz[]), CAST(:due AS timestamptz[]))
     AS u (id, at, due)
ON CONFLICT (id, bucket) DO NOTHING
RETURNING id
""")
UNTRIED = """task_key = :key AND bucket = :bucket AND service_id = :service_id
    AND replayed_at = created_at AND claimed_by IS NULL AND attempts_n = 0"""
WAITING = text(f"""
SELECT max(due) AS due, max(scheduled_for) AS at FROM run WHERE {UNTRIED}
""")
LOCK_WAITING = text(f"SELECT id FROM run WHERE {UNTRIED} ORDER BY id FOR UPDATE")
PACE = text(f"""
UPDATE run SET due = w.due FROM (
    SELECT id, CAST(:begin AS timestamptz) + interval '1 millisecond'
           * floor((row_number() OVER (ORDER BY scheduled_for) - 1) * CAST(:step AS float8)) AS due
    FROM run WHERE {UNTRIED}) AS w
WHERE run.id = w.id AND run.bucket = :bucket AND run.service_id = :service_id
""")
STOP = text(f"""
WITH d AS (DELETE FROM run WHERE task_key = :key AND bucket = :bucket
               AND service_id = :service_id AND id = ANY(ARRAY(
               SELECT id FROM run WHERE task_key = :key AND bucket = :bucket
                   AND service_id = :service_id AND replayed_at = created_at
                   AND claimed_by IS NULL
               ORDER BY id FOR UPDATE))
               AND claimed_by IS NULL RETURNING *)
INSERT INTO history (id, bucket, service_id, task_key, task_id, kind, version, scheduled_for,
                     state, reason, attempts, attempts_n, created_at, started_at, finished_at,
                     truncated, count)
SELECT id, bucket, service_id, task_key, task_id, kind, version, scheduled_for, 'cancelled',
       'the task was disabled', attempts, attempts_n, created_at,
       {BEGUN},
       :now, false, 1
FROM d
RETURNING id
""")


def ids_of(line: Line, at: int) -> tuple[UUID, UUID]:
    """Return the ids that an instant's run may have (ms): its own, and the one that a backfill
    gives it where its own is that of a row that says it was skipped.
    """
    kinds = ("task", "backfill")
    own, other = (run_id(line.key, line.bucket, kind, at) for kind in kinds)
    return own, other


async def lacking(conn: Conn, line: Line, instants: Sequence[int]) -> dict[int, UUID]:
    """Map those of a task's instants (ms) that have no run to the ids they would have."""
    ids = {at: ids_of(line, at) for at in instants}
    values = {**line.values, "ids": [each for pair in ids.values() for each in pair]}
    skipped = {row.id: row.skipped for row in await conn.execute(FOUND, values)}
    found = dict[int, UUID]()
    for at, (own, other) in ids.items():
        if other in skipped:
            continue
        if own not in skipped:
            found[at] = own
        elif skipped[own]:
            found[at] = other
    return found


async def make(
    conn: Conn, line: Line, task_id: str, stance: Stance, runs: Sequence[tuple[UUID, int, int]],
    now: datetime,
) -> list[UUID]:  # fmt: skip
    """Insert runs, (id, instant, due) each in ms; return the ids that are new."""
    values: dict[str, Any] = {
        **line.values,
        "task_id": task_id,
        "version": stance.version,
        "overlap": stance.overlap,
        "lanes": stance.lanes,
        "priority": stance.priority,
        "ids": [run for run, _, _ in runs],
        "at": [utc(at) for _, at, _ in runs],
        "due": [utc(due) for _, _, due in runs],
        "now": now,
    }
    return list((await conn.execute(MAKE, values)).scalars())


async def waiting(conn: Conn, line: Line) -> tuple[int, int] | None:
    """Return when the last of a task's backfilled runs is due, of those that wait for their first
    try, and the latest instant among them, in ms; None where none waits.
    """
    row = (await conn.execute(WAITING, line.values)).one()
    return None if row.due is None else (ms(row.due), ms(row.at))


async def pace(conn: Conn, line: Line, begin: int, step_ms: float) -> None:
    """Let a task's waiting backfilled runs fall due in the order of their instants, from `begin`.

    A claim finds who stands before a run by instant: it would walk by every run that is earlier
    and due later, again for each that is due.
    """
    await conn.execute(LOCK_WAITING, line.values)
    await conn.execute(PACE, {**line.values, "begin": utc(begin), "step": step_ms})


async def stop(conn: Conn, line: Line, now: datetime) -> None:
    """End those of a task's backfilled runs as cancelled that nobody has claimed."""
    await conn.execute(STOP, {**line.values, "now": now})
