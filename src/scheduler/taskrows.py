"""A page of the dashboard's list of tasks, in one statement: filtered, sorted, counted.

What is sorted by anything but age, or stands in a state, is looked at to a bound, which is told.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text

from scheduler import exclusions, lines, tasklist, undo
from scheduler.clock import Slice
from scheduler.db import Conn, ms, utc
from scheduler.definition import Definition
from scheduler.planning import Planned
from scheduler.run import Line, bucket_of
from scheduler.task import COLUMNS, OUTLINE, definition
from scheduler.tasklist import ACTIONS, NEWEST, TOTAL_MOST, Filter, Lead

SORTS = ("newest", "name", "next", "failing")
MOST = TOTAL_MOST
"""Tasks that are looked at to sort them, to count them, or for those in a state."""
OUTLINES = COLUMNS.replace("description,", "NULL AS description,").replace("action,", OUTLINE)
RUNNING = f"key = ANY(ARRAY({lines.RUNNING.text}))"
STANDING = f"""key = ANY(ARRAY(
    SELECT key FROM task_state WHERE service_id = :service_id AND state = :word
      AND key <> ALL(ARRAY({lines.RUNNING.text}))
    ORDER BY created_at DESC, key DESC LIMIT :most))"""
RUNS = """(SELECT r.scheduled_for FROM run r WHERE r.task_key = f.key AND r.kind = 'task'
        AND r.service_id = :service_id AND r.scheduled_for > :now
        ORDER BY r.scheduled_for LIMIT 1)"""
PLAN = """(SELECT p.next_plan_at FROM task_plan p
        WHERE p.key = f.key AND p.bucket = f.bucket AND p.service_id = :service_id)"""
FAILURES = """(SELECT s.failures FROM task_state s
        WHERE s.key = f.key AND s.bucket = f.bucket AND s.service_id = :service_id)"""
ORDERS = {
    "newest": "f.created_at DESC, f.key DESC",
    "name": "lower(f.name), f.created_at DESC, f.key",
    "next": f"""CASE f.status WHEN 'active' THEN least({RUNS}, {PLAN})
                              WHEN 'paused' THEN f.paused_until END, f.created_at DESC, f.key""",
    "failing": f"coalesce({FAILURES}, 0) DESC, f.created_at DESC, f.key",
}
"""What is asked of each task for a sort goes by its key: a join would read the whole table."""


class Listed(msgspec.Struct):
    """A page of tasks in outline; `total` is None where they are more than 10,000."""

    tasks: list[Definition]
    total: int | None


async def page(
    conn: Conn,
    service_id: UUID,
    wanted: Filter,
    word: str | None,
    sort: str,
    now: int,
    *,
    offset: int,
    count: int,
) -> Listed:
    """Return a page of a service's tasks that fit, and stand in a state, at `now` (ms).

    Without what may be long: description, headers and payload. Beyond the 10,000th only the list
    of the newest goes on.
    """
    if wanted.action is not None and wanted.action not in ACTIONS:
        return Listed([], 0)
    by = None if word is None else RUNNING if word == "running" else STANDING
    led = await tasklist.lead(conn, service_id, wanted, by=by)
    values = led.values | {"now": utc(now), "word": word, "most": MOST + 1}
    values |= {"offset": offset, "count": count}
    deep = sort == "newest" and word is None and offset + count > MOST
    statement = _deep(led.where) if deep else _bounded(led, sort)
    rows = (await conn.execute(text(statement), values)).all()
    tasks = await exclusions.attach(conn, [definition(row) for row in rows])
    return Listed(tasks, _total(rows, offset, deep=deep))


def _total(rows: Sequence[Any], offset: int, *, deep: bool) -> int | None:
    if deep or (not rows and offset):
        return None
    found = int(rows[0].total) if rows else 0
    return found if found <= MOST else None


def _bounded(led: Lead, sort: str) -> str:
    bound = "" if led.few else f"{NEWEST} LIMIT :most"
    return f"""
WITH fit AS MATERIALIZED (
    SELECT key, bucket, created_at, name, status, paused_until FROM task WHERE {led.where}
    {bound}),
chosen AS MATERIALIZED (
    SELECT f.key, row_number() OVER (ORDER BY {ORDERS[sort]}) AS place FROM fit f
    ORDER BY place OFFSET :offset LIMIT :count)
SELECT {OUTLINES}, (SELECT count(*) FROM fit) AS total
FROM task JOIN (SELECT key AS chosen_key, place FROM chosen) AS c ON chosen_key = key
WHERE service_id = :service_id AND key = ANY(ARRAY(SELECT key FROM chosen)) ORDER BY place
"""


def _deep(where: str) -> str:
    return f"""
SELECT {OUTLINES} FROM task
WHERE service_id = :service_id AND key = ANY(ARRAY(
    SELECT key FROM task WHERE {where} {NEWEST} OFFSET :offset LIMIT :count))
{NEWEST}
"""


# Names -------------------------------------------------------------------------------------------


class Named(msgspec.Struct, frozen=True):
    """A task by its address, its id and its name."""

    line: Line
    id: str
    name: str


NAMED_AT_ONCE = 500
NAMES = "SELECT key, bucket, service_id, id, name FROM task WHERE "


async def names(
    conn: Conn,
    service_id: UUID,
    wanted: Filter,
    most: int,
    among: Sequence[UUID] | None = None,
) -> list[Named]:
    """Return a service's tasks that fit, `most` at most, the newest first; `among` narrows it."""
    if wanted.action is not None and wanted.action not in ACTIONS:
        return []
    led = await tasklist.lead(conn, service_id, wanted, among)
    statement = f"""WITH led AS MATERIALIZED (
        SELECT key, bucket, service_id, id, name, created_at FROM task WHERE {led.where}
        {"" if led.few else f"{NEWEST} LIMIT :most"})
    SELECT * FROM led {NEWEST} LIMIT :most"""
    turn, found = Slice(), []
    async with conn.stream(text(statement), led.values | {"most": most}) as rows:
        async for some in rows.partitions(NAMED_AT_ONCE):
            found += [_named(row) for row in some]
            await turn.give_way()
    return found


OF_IDS = text(
    f"{NAMES}service_id = :service_id AND id = ANY(:ids) AND bucket = ANY(:buckets) {NEWEST}"
)


async def of_ids(conn: Conn, service_id: UUID, ids: Sequence[str]) -> list[Named]:
    """Return those of a service's tasks that have one of these ids."""
    plain = [each for each in ids if "\x00" not in each]
    values = {"service_id": service_id, "ids": plain}
    values["buckets"] = list({bucket_of(service_id, each) for each in plain})
    return [_named(row) for row in await conn.execute(OF_IDS, values)]


def _named(row: Any) -> Named:
    return Named(Line(row.key, row.bucket, row.service_id), row.id, row.name)


# How they stand ----------------------------------------------------------------------------------


class Facts(msgspec.Struct, frozen=True):
    """What tells how a task stands; times in ms since 1970."""

    live: bool | None
    """Of its live runs, whether one is under way; None where it has none."""
    planned: Planned | None
    gone: Sequence[int]
    """Instants to come that have ended already."""
    last: tuple[str, int] | None
    """How its last run ended, and when that was due."""
    ends: list[str] = []
    """How its newest runs ended, the oldest first."""


STRIP = 12
FACTS = """
SELECT k.key, l.running, p.planned_until, p.planned_runs, e.state, e.scheduled_for,
       (SELECT array_agg(g.scheduled_for) FROM history g
        WHERE g.task_key = k.key AND g.service_id = :service_id AND g.scheduled_for > :now
          AND g.kind = 'task' AND (g.gap_from IS NULL OR g.count = 1)) AS gone,
       (SELECT array_agg(h.state) FROM (SELECT state FROM history
        WHERE task_key = k.key AND service_id = :service_id
        ORDER BY scheduled_for DESC, id DESC LIMIT :strip) AS h) AS ends
FROM unnest(CAST(:keys AS uuid[])) AS k (key)
LEFT JOIN task_plan p ON p.key = k.key AND p.service_id = :service_id
LEFT JOIN LATERAL (
    SELECT bool_or(attempts_n > 0 OR claimed_by IS NOT NULL AND due <= :now) AS running
    FROM run WHERE task_key = k.key AND service_id = :service_id) AS l ON true
LEFT JOIN LATERAL (
    SELECT state, scheduled_for FROM history
    WHERE task_key = k.key AND service_id = :service_id
      AND state IN ('succeeded', 'failed', 'expired')
    ORDER BY scheduled_for DESC, id DESC LIMIT 1) AS e ON true
"""
ONE = text(FACTS)
NOTED = text(f"SELECT *, ({undo.COUNTED}) AS noted FROM ({FACTS}) AS facts")


async def facts(
    conn: Conn, service_id: UUID, keys: Sequence[UUID], now: int, act: UUID | None
) -> tuple[dict[UUID, Facts], undo.Count | None]:
    """Map tasks to what tells how they stand at `now` (ms); and how far an act has come."""
    if not keys:
        return {}, None if act is None else await undo.count(conn, service_id, act)
    values = {"keys": list(keys), "service_id": service_id, "now": utc(now), "strip": STRIP}
    statement = ONE if act is None else NOTED
    rows = (await conn.execute(statement, values | ({} if act is None else {"act": act}))).all()
    noted = None if act is None else undo.counted(rows[0].noted)
    return {row.key: _facts(row) for row in rows}, noted


def _facts(row: Any) -> Facts:
    planned = row.planned_until and Planned(ms(row.planned_until), row.planned_runs)
    return Facts(
        live=row.running,
        planned=planned,
        gone=[ms(at) for at in row.gone or ()],
        last=None if row.state is None else (row.state, ms(row.scheduled_for)),
        ends=list(reversed(row.ends or ())),
    )
