"""A schedule's events: the runs of a task under older names, and those that are to come.

A page of pending events joins what is live with what is computed: beyond what the planner has
made, an event has no row yet. Its id is that which its row will have.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text

from scheduler import (
    db,
    outlook,
    planning,
)
from scheduler.clock import Slice
from scheduler.db import Conn, ms, rfc3339, utc
from scheduler.definition import Definition
from scheduler.instant import LAST
from scheduler.planning import Planned
from scheduler.run import Line, run_id
from scheduler.standing import ended_ahead
from scheduler.triggers import Instants, without

COMPUTED_MOST = 1_000_000
"""So many events that are not queued yet are seen ahead at most."""
REACH_MS = 60_000
AT_ONCE = 200
"""Instants that are walked in one turn of the loop, about."""
BETWEEN_MOST = 10_000
"""Live rows that are merged with computed events; those beyond stand after them."""

ENDED = {
    "succeeded": "completed",
    "failed": "error",
    "skipped": "skipped",
    "expired": "expired",
    "cancelled": "cancelled",
}


class EventStatus(msgspec.Struct):
    """What became of an event, and when."""

    time: str | None
    status: str
    message: str


class Event(msgspec.Struct):
    """One event of a schedule, pending or past; its status list grows."""

    id: str = msgspec.field(name="_id")
    schedule_id: str
    run_time: str | None
    status: list[EventStatus]
    created_at: str | None


class _Seen(msgspec.Struct):
    """An event; times in ms since 1970."""

    id: UUID
    at: int
    created: int
    started: int | None = None
    ended: tuple[int, str, str] | None = None
    """When, the word, and the message."""


def _shown(of: Definition, seen: _Seen) -> Event:
    created = rfc3339(seen.created)
    status = [EventStatus(created, "ready_queue", "Event pre-queued for ready queue")]
    if seen.started is not None:
        said = "Event dispatched to worker queue"
        status.append(EventStatus(rfc3339(seen.started), "worker_queue", said))
    if seen.ended is not None:
        at, word, message = seen.ended
        status.append(EventStatus(rfc3339(at), word, message))
    return Event(str(seen.id), of.id, rfc3339(seen.at), status, created)


def _created(of: Definition, at: int, frame_ms: int, row: Any = None) -> int:
    """Return when an event came into sight: the same before it has a row and after."""
    seen = max(ms(of.created_at), at - frame_ms)
    if row is None:
        return seen
    made = ms(row.created_at)
    late = made > at and row.gap_from is None  # a backfill, or nothing could plan it in time
    return made if late or row.kind != "task" else min(made, seen)


# Pending -----------------------------------------------------------------------------------------

OF_TASK = "FROM run WHERE task_key = :key AND bucket = :bucket AND service_id = :service_id"
COUNT = text(f"""
SELECT count(*) AS total, count(*) FILTER (WHERE scheduled_for <= :edge) AS before {OF_TASK}
""")
BETWEEN = text(f"""
SELECT scheduled_for, kind {OF_TASK} AND scheduled_for > :edge AND scheduled_for <= :until
ORDER BY scheduled_for, id LIMIT :most
""")
LIVE = text(f"""
SELECT id, kind, scheduled_for, due, created_at, attempts_n, NULL AS gap_from,
       claimed_by IS NOT NULL AND due <= :now AS running,
       CAST(jsonb_path_query_first(attempts, '$[*].started_at ? (@.type() == "number")')
            AS double precision) AS started
{OF_TASK} ORDER BY scheduled_for, id OFFSET :offset LIMIT :count
""")


class Ahead(msgspec.Struct):
    """Instants in (since, until] that have no row yet, in ms since 1970."""

    instants: Instants | None
    since: int
    until: int

    async def page(self, first: int, count: int, turn: Slice) -> tuple[list[int], int]:
        """Return `count` of them from place `first` on, and how many there are in all."""
        found, total, after, reach = list[int](), 0, self.since, REACH_MS
        while self.instants is not None and after < self.until and total < COMPUTED_MOST:
            end = min(after + reach, self.until)
            n = self.instants.count(after, end)
            skip, want = max(first - total, 0), count - len(found)
            if want and skip < n:
                if n > AT_ONCE and reach > 1:
                    reach //= 2
                    continue
                found += islice(self.instants.between(after, end), skip, skip + want)
            total, after = total + n, end
            reach = reach * 2 if n < AT_ONCE // 4 else reach
            await turn.give_way()
        return found, total

    async def before(self, at: int, turn: Slice) -> int:
        """Return how many of them are earlier than `at`."""
        until = min(at - 1, self.until)
        return (await Ahead(self.instants, self.since, until).page(0, 0, turn))[1]


def ahead(of: Definition, planned: Planned, gone: Sequence[int], now: int, until: int) -> Ahead:
    """Return what will become rows up to `until` (ms), if nothing changes. Pure."""
    since = max(planned.until, now)
    if of.status == "paused" and of.paused_until is not None:
        since = max(since, of.paused_until - 1)  # an instant at its very end is due
        of = msgspec.structs.replace(of, status="active")
    due = without(of.due, gone)
    if due is not None and since < until:
        due = planning.within(of, due, planned.until, planned.runs, until)
    return Ahead(due, since, until)


async def pending(
    conn: Conn, of: Definition, now: int, frame_ms: int, *, offset: int, count: int
) -> tuple[list[Event], int]:
    """Return a page of a schedule's events that have not ended, the soonest first; and how many
    there are. Ask in one snapshot; `now` in ms.

    Those of the next `frame_ms` are computed where they are not queued yet.
    """
    turn, until = Slice(), min(now + frame_ms, LAST)
    known = (await outlook.planned(conn, of.service_id, [of.key])).get(of.key)
    planned = known or Planned(now, 0)
    gone = (await ended_ahead(conn, of.service_id, [of], now)).get(of.key, [])
    values = {**of.line.values, "edge": utc(planned.until), "until": utc(until)}
    live = (await conn.execute(COUNT, values)).one()
    between = list[tuple[int, str]]()
    if live.total > live.before:
        found = await conn.execute(BETWEEN, {**values, "most": BETWEEN_MOST})
        between = [(ms(row.scheduled_for), row.kind) for row in found]
    gone = [*gone, *(at for at, kind in between if kind == "task")]
    to_come = ahead(of, planned, gone, now, until)
    times = [at for at, _ in between]
    place = await _place(to_come, offset - live.before, times, turn)
    skipped = live.before + place if offset > live.before else offset
    computed, total = await to_come.page(max(offset - skipped, 0), count, turn)
    if offset - skipped > total:  # all that are computed lie before this page
        skipped = offset - total
    rows = await _live(conn, of, now, frame_ms, offset=skipped, count=count)
    made = [
        _Seen(run_id(of.key, of.bucket, "task", at), at, _created(of, at, frame_ms))
        for at in computed
    ]
    merged = sorted([*rows, *made], key=lambda seen: seen.at)  # stable: rows come first
    return [_shown(of, seen) for seen in merged[:count]], live.total + total


async def _place(to_come: Ahead, offset: int, times: Sequence[int], turn: Slice) -> int:
    """Return how many of some live rows, by their times, stand before place `offset` among the
    events that are computed. A row stands before an event of the same time.
    """
    low, high = 0, min(len(times), max(offset, 0))
    while low < high:
        middle = (low + high) // 2
        if middle + await to_come.before(times[middle], turn) < offset:
            low = middle + 1
        else:
            high = middle
    return low


async def _live(
    conn: Conn, of: Definition, now: int, frame_ms: int, *, offset: int, count: int
) -> list[_Seen]:
    values = {**of.line.values, "now": utc(now), "offset": offset, "count": count}
    found = list[_Seen]()
    for row in await conn.execute(LIVE, values):
        at = ms(row.scheduled_for)
        started = None
        if row.running or row.attempts_n:
            started = ms(row.due) if row.started is None else int(row.started)
        found.append(_Seen(row.id, at, _created(of, at, frame_ms, row), started))
    return found


# Past --------------------------------------------------------------------------------------------

# Both are answered by the index alone, which holds no service: of a key that was read from its
# service's row just before.
TOTAL = text("SELECT count(*) FROM history WHERE task_key = :key")
PAGE = text("""
SELECT id, scheduled_for FROM history WHERE task_key = :key
ORDER BY scheduled_for DESC, id DESC OFFSET :offset LIMIT :count
""")
ROWS = text("""
SELECT id, kind, state, reason, scheduled_for, created_at, started_at, finished_at, count,
       gap_from, gap_to
FROM history WHERE task_key = :key AND bucket = :bucket AND service_id = :service_id
    AND scheduled_for = ANY(:at) AND id = ANY(:ids)
""")


async def past(
    conn: Conn, of: Definition, frame_ms: int, *, offset: int, count: int
) -> tuple[list[Event], int]:
    """Return a page of a schedule's events that have ended, the newest first; and how many there
    are. Ask in one snapshot.
    """
    await db.walk_in_order(conn)
    total = await _total(conn, of.line)
    if offset >= total:
        return [], total
    rows = await _rows(conn, of.line, offset=offset, count=count)
    return [_shown(of, _ended(of, row, frame_ms)) for row in rows], total


async def _total(conn: Conn, line: Line) -> int:
    return int((await conn.execute(TOTAL, {"key": line.key})).scalar_one())


async def _rows(conn: Conn, line: Line, *, offset: int, count: int) -> list[Any]:
    values = {"key": line.key, "offset": offset, "count": count}
    where = (await conn.execute(PAGE, values)).all()
    named = {"ids": [row.id for row in where], "at": [row.scheduled_for for row in where]}
    found = (await conn.execute(ROWS, {**line.values, **named})).all()
    return sorted(found, key=lambda row: (row.scheduled_for, row.id), reverse=True)


def _ended(of: Definition, row: Any, frame_ms: int) -> _Seen:
    at = ms(row.scheduled_for)
    started = None if row.started_at is None else ms(row.started_at)
    ended = (ms(row.finished_at), ENDED[row.state], _message(row))
    return _Seen(row.id, at, _created(of, at, frame_ms, row), started, ended)


def _message(row: Any) -> str:
    if row.state == "succeeded":
        return "Event successfully processed"
    if row.state == "failed":
        return f"Callback failed after max retries: {row.reason}"
    if row.gap_from is not None and row.count > 1:
        first, last = rfc3339(row.gap_from), rfc3339(row.gap_to)
        return f"{row.reason}: {row.count} events, from {first} to {last}"
    return str(row.reason)
