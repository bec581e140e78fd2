"""What there is of one instant of a task: in its plan, the queue and history, by one statement."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text

from scheduler import codec
from scheduler.db import Conn, ms, utc, walk_in_order
from scheduler.history import Finished, finished
from scheduler.ledger import SCAN
from scheduler.planning import Planned
from scheduler.run import Line, Started


class Moment(msgspec.Struct, kw_only=True):
    """An instant of a task, as its rows tell it."""

    planned: Planned | None = None
    """None where the task has no plan: it was deleted just now."""
    own: dict[UUID, Started | Finished] = msgspec.field(default_factory=dict)
    """Runs of the ids that were asked for."""
    covering: Finished | None = None
    """The row of skipped instants that it lies in, where it has no run."""
    ahead: Started | None = None
    """A live run that was under way then, where that is why it was skipped."""
    before: Finished | None = None
    """The same, of those that have ended."""
    busy: Started | None = None
    """A run of the task that is under way now."""


OF_TASK = "task_key = :key AND bucket = :bucket AND service_id = :service_id"
LIVE = """id, kind, task_key, task_id, version, NULL AS state, NULL AS reason, scheduled_for, due,
    created_at, CAST(NULL AS timestamptz) AS started_at, CAST(NULL AS timestamptz) AS finished_at,
    attempts, attempts_n, claimed_by IS NOT NULL AS claimed, replayed_at IS NOT NULL AS replayed,
    CAST(NULL AS bytea) AS response, false AS truncated, 1 AS count,
    CAST(NULL AS timestamptz) AS gap_from, CAST(NULL AS timestamptz) AS gap_to"""
ENDED = """id, kind, task_key, task_id, version, state, reason, scheduled_for,
    CAST(NULL AS timestamptz) AS due, created_at, started_at, finished_at, attempts, attempts_n,
    false AS claimed, false AS replayed, CAST(NULL AS bytea) AS response, truncated, count,
    gap_from, gap_to"""
STARTED = f"""SELECT {LIVE} FROM run
    WHERE {OF_TASK} AND (attempts_n > 0 OR claimed_by IS NOT NULL AND due <= """
# What ended after the instant, and stands before it: the newest so many.
BEFORE = f"""SELECT {ENDED} FROM history
    WHERE {OF_TASK} AND scheduled_for <= :at AND finished_at >= :at"""
NEWEST = "ORDER BY scheduled_for DESC, id DESC LIMIT"
SEEN = text(f"""
WITH own AS MATERIALIZED (
    SELECT 'live' AS part, {LIVE} FROM run
    WHERE id = ANY(:ids) AND bucket = :bucket AND service_id = :service_id
    UNION ALL
    SELECT 'ended', {ENDED} FROM history
    WHERE id = ANY(:ids) AND bucket = :bucket AND service_id = :service_id
), covering AS MATERIALIZED (
    SELECT 'covering' AS part, * FROM ({BEFORE} AND :named AND NOT EXISTS (SELECT FROM own)
        {NEWEST} :most) AS h
    WHERE state = 'skipped' AND gap_to >= :at LIMIT 1
), overlapped AS MATERIALIZED (
    SELECT FROM own WHERE reason = 'overlap' UNION ALL
    SELECT FROM covering WHERE reason = 'overlap'
)
SELECT * FROM own
UNION ALL SELECT * FROM covering
UNION ALL (SELECT 'before', * FROM ({BEFORE} AND EXISTS (SELECT FROM overlapped)
    {NEWEST} :most) AS h WHERE started_at <= :at AND scheduled_for < :at LIMIT 1)
UNION ALL (SELECT 'ahead', * FROM ({STARTED} :at) AND scheduled_for < :at AND due <= :at
    AND EXISTS (SELECT FROM overlapped) {NEWEST} 1) AS r)
UNION ALL (SELECT 'busy', * FROM ({STARTED} :now) AND :now < :at {NEWEST} 1) AS r)
UNION ALL (SELECT 'plan', key, NULL, NULL, NULL, planned_runs, NULL, NULL, planned_until, NULL,
    NULL, NULL, NULL, NULL, 0, false, false, NULL, false, 1, NULL, NULL
    FROM task_plan WHERE key = :key AND bucket = :bucket AND service_id = :service_id)
""")


async def seen(
    conn: Conn, line: Line, ids: Sequence[UUID], at: int, now: int, *, named: bool
) -> Moment:
    """Return what there is of an instant at `at` (ms), whose run may have these ids.

    `named` says that the trigger yields it, so that it may lie in a row of skipped ones.
    """
    values = {**line.values, "ids": list(ids), "at": utc(at), "now": utc(now)}
    await walk_in_order(conn)
    found = Moment()
    for row in await conn.execute(SEEN, {**values, "named": named, "most": SCAN}):
        _add(found, row)
    return found


def _add(found: Moment, row: Any) -> None:
    match row.part:
        case "plan":
            found.planned = Planned(ms(row.scheduled_for), row.version)
        case "live":
            found.own[row.id] = codec.started(row)
        case "ended":
            found.own.setdefault(row.id, finished(row))
        case "covering":
            found.covering = finished(row)
        case "before":
            found.before = finished(row)
        case "ahead":
            found.ahead = codec.started(row)
        case _:
            found.busy = codec.started(row)
