"""What the page of one task asks of its plan, the queue and history: all in one statement.

One statement is one snapshot: a run that ends meanwhile is in exactly one of the two tables.
"""

from typing import Any, Literal
from uuid import UUID

import msgspec
from sqlalchemy import text

from scheduler.db import Conn, ms, utc, walk_in_order
from scheduler.ledger import TOP, Place
from scheduler.planning import Planned
from scheduler.run import Line

GONE_MOST = 1000
LIVE_MOST = 25
"""Runs under way that are shown; what waits for its first try is not."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A run as a row of the page; times in ms since 1970."""

    id: UUID
    kind: str
    state: str
    reason: str | None
    scheduled_for: int
    lag_ms: int | None
    duration_ms: int | None
    """What the last attempt took."""
    attempts: int
    count: int
    """Of instants that were passed over: how many."""


class Seen(msgspec.Struct, kw_only=True):
    """What a task's page shows of its runs."""

    planned: Planned | None = None
    """None where the task has no plan: it was deleted just now."""
    stance: Literal["running", "waiting"] | None = None
    """Of what is live; None where nothing is."""
    gone: list[int] = msgspec.field(default_factory=list)
    """Instants to come that have ended already (ms)."""
    last: tuple[str, int] | None = None
    """How the last run ended, and when that was due (ms)."""
    live: list[Row] = msgspec.field(default_factory=list)
    ended: list[Row] = msgspec.field(default_factory=list)
    following: Place | None = None
    """Where the next page of what has ended begins."""


OF_TASK = "task_key = :key AND bucket = :bucket AND service_id = :service_id"
ROWS = text(f"""
(SELECT 'plan' AS part, key AS id, NULL AS kind, NULL AS state, NULL AS reason,
        planned_until AS scheduled_for, NULL::timestamptz AS started_at, planned_runs AS attempts_n,
        NULL::jsonb AS last, 1 AS count
 FROM task_plan WHERE key = :key AND bucket = :bucket AND service_id = :service_id)
UNION ALL
(SELECT 'stance', NULL, NULL, CASE WHEN bool_or(attempts_n > 0
            OR claimed_by IS NOT NULL AND due <= :now) THEN 'running' ELSE 'waiting' END,
        NULL, NULL, NULL, 0, NULL, 1
 FROM run WHERE {OF_TASK} HAVING count(*) > 0)
UNION ALL
(SELECT 'live', id, kind, CASE WHEN claimed_by IS NOT NULL AND due <= :now THEN 'running'
        ELSE 'retrying' END, NULL, scheduled_for, CASE WHEN attempts_n = 0 THEN due END,
        attempts_n + CAST(claimed_by IS NOT NULL AND due <= :now AS int), attempts -> 0, 1
 FROM run WHERE {OF_TASK} AND :first AND (attempts_n > 0 OR claimed_by IS NOT NULL AND due <= :now)
 ORDER BY scheduled_for DESC, id DESC LIMIT :live)
UNION ALL
(SELECT 'gone', id, NULL, NULL, NULL, scheduled_for, NULL, 0, NULL, 1
 FROM history WHERE {OF_TASK} AND scheduled_for > :now AND kind = 'task'
   AND (gap_from IS NULL OR count = 1)
 ORDER BY scheduled_for DESC, id DESC LIMIT :gone)
UNION ALL
(SELECT 'last', id, NULL, state, NULL, scheduled_for, NULL, 0, NULL, 1
 FROM history WHERE {OF_TASK} AND state IN ('succeeded', 'failed', 'expired')
 ORDER BY scheduled_for DESC, id DESC LIMIT 1)
UNION ALL
(SELECT 'ended', id, kind, state, reason, scheduled_for, started_at, attempts_n, attempts -> -1,
        count
 FROM history WHERE {OF_TASK} AND (scheduled_for, id) < (:at, :id)
 ORDER BY scheduled_for DESC, id DESC LIMIT :most)
""")


async def seen(conn: Conn, line: Line, now: int, *, after: Place | None, most: int) -> Seen:
    """Return what a task's page shows at `now` (ms): with `after`, runs from there on alone.

    `line` is that of a task that was read from its service's row, or from its audit.
    """
    at, run = after or TOP
    values = {**line.values, "now": utc(now), "first": after is None, "at": at, "id": run}
    values |= {"live": LIVE_MOST, "gone": GONE_MOST, "most": most + 1}
    await walk_in_order(conn)
    found = Seen()
    for row in await conn.execute(ROWS, values):
        _add(found, row)
    if len(found.ended) > most:
        found.ended = found.ended[:most]
        found.following = place(found.ended[-1])
    return found


def place(run: Row) -> Place:
    """Return where a run stands in the list."""
    return utc(run.scheduled_for), run.id


def _add(found: Seen, row: Any) -> None:
    match row.part:
        case "plan":
            found.planned = Planned(ms(row.scheduled_for), row.attempts_n)
        case "stance":
            found.stance = row.state
        case "gone":
            found.gone.append(ms(row.scheduled_for))
        case "last":
            found.last = (row.state, ms(row.scheduled_for))
        case "live":
            found.live.append(_row(row))
        case _:
            found.ended.append(_row(row))


class _Times(msgspec.Struct):
    """Of an attempt, in ms since 1970."""

    started_at: int | None = None
    finished_at: int | None = None


def _row(row: Any) -> Row:
    """Read a run; of one that someone damaged by hand nobody knows how long it took."""
    try:
        times = msgspec.json.decode(row.last or "{}", type=_Times)
    except (msgspec.DecodeError, RecursionError):
        times = _Times()
    at, started = ms(row.scheduled_for), None if row.started_at is None else ms(row.started_at)
    took = None
    if row.part == "live":
        started = times.started_at if started is None else started
    elif times.started_at is not None and times.finished_at is not None:
        took = times.finished_at - times.started_at
    return Row(
        id=row.id,
        kind=row.kind,
        state=row.state,
        reason=row.reason,
        scheduled_for=at,
        lag_ms=None if started is None else started - at,
        duration_ms=took,
        attempts=row.attempts_n,
        count=row.count,
    )
