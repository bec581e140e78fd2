"""A glance: what is under way, late and failing of a service, each by a bounded look.

A number that reached its bound says so: it is `most`, and there may be more.
"""

from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import text

from scheduler.db import Conn, ms, utc, walk_in_order

MOST = 20_000
"""Runs that are due, and tasks, are counted to this."""
FAILURES, SAMPLE = 10_000, 5000
"""So many of the newest failures are looked at for the tasks that fail most, and so many of the
newest runs for the slowest."""
LATE_MS = 1000
"""What is due for less is about to begin."""
SHOWN = 5
STREAK = 3
"""Failures in a row that someone should look at."""

NOW = text("""
WITH due AS MATERIALIZED (
    SELECT task_key, due, claimed_by IS NOT NULL AS claimed, attempts_n FROM run
    WHERE service_id = :service_id AND due <= :hour ORDER BY due LIMIT :most),
resting AS MATERIALIZED (
    SELECT key, id, name, status, paused_until FROM task
    WHERE service_id = :service_id AND status <> 'active'
    ORDER BY status DESC, created_at DESC LIMIT :most),
coming AS (
    (SELECT key FROM task_plan WHERE service_id = :service_id AND next_plan_at <= :hour
     ORDER BY next_plan_at LIMIT :most)
    UNION SELECT task_key FROM due WHERE due > :now AND task_key IS NOT NULL)
SELECT (SELECT count(*) FROM coming WHERE key NOT IN (SELECT key FROM resting)),
       (SELECT count(*) FROM due),
       (SELECT count(*) FROM due WHERE claimed AND due <= :now),
       (SELECT count(*) FROM due WHERE NOT claimed AND due <= :late AND attempts_n = 0),
       (SELECT min(due) FROM due WHERE NOT claimed AND due <= :late AND attempts_n = 0),
       (SELECT count(*) FROM due WHERE NOT claimed AND attempts_n > 0),
       (SELECT count(*) FROM resting WHERE status = 'paused'),
       EXISTS (SELECT FROM task WHERE service_id = :service_id),
       ARRAY(SELECT ARRAY[id, name, CAST(paused_until AS text)] FROM resting
             WHERE status = 'paused' AND paused_until IS NULL LIMIT :shown)
""")


class Now(msgspec.Struct, frozen=True):
    """How a service stands; `oldest` in ms since 1970."""

    coming: int
    """Tasks that are due within the hour."""
    due: int
    running: int
    late: int
    oldest: int | None
    """When that was due which waits longest."""
    retrying: int
    paused: int
    any: bool
    """There is a task."""
    endless: list[tuple[str, str]]
    """Some tasks, (id, name), that are paused until somebody resumes them."""

    @property
    def cut(self) -> bool:
        """Say whether there may be more than was looked at."""
        return self.due >= MOST or self.coming >= MOST


async def now(conn: Conn, service_id: UUID, at: int) -> Now:
    """Return how a service stands at a time (ms since 1970)."""
    await walk_in_order(conn)
    values = {"service_id": service_id, "now": utc(at), "hour": utc(at + 3_600_000)}
    values |= {"late": utc(at - LATE_MS), "most": MOST, "shown": SHOWN}
    coming, due, running, late, oldest, retrying, paused, there, endless = (
        await conn.execute(NOW, values)
    ).one()
    return Now(
        coming, due, running, late, None if oldest is None else ms(oldest), retrying, paused,
        there, [(each[0], each[1]) for each in endless],
    )  # fmt: skip


FAILING = text("""
WITH newest AS MATERIALIZED (
    SELECT task_key, scheduled_for, reason FROM history
    WHERE service_id = :service_id AND state = 'failed' AND scheduled_for >= :since
    ORDER BY scheduled_for DESC, id DESC LIMIT :most),
each AS (
    SELECT task_key, count(*) AS failed, max(scheduled_for) AS last,
           (array_agg(reason ORDER BY scheduled_for DESC))[1] AS reason
    FROM newest WHERE task_key IS NOT NULL GROUP BY task_key),
ranked AS (
    SELECT e.*, s.failures, row_number() OVER (ORDER BY e.failed DESC, e.task_key) AS place,
           row_number() OVER (ORDER BY s.failures DESC, e.task_key) AS streak
    FROM each e JOIN task_state s ON s.key = e.task_key AND s.service_id = :service_id)
SELECT t.id, t.name, t.status, r.failed, r.failures, r.last, left(r.reason, 500) AS reason, r.place,
       (SELECT count(*) FROM newest) AS looked
FROM ranked r JOIN task t ON t.key = r.task_key AND t.service_id = :service_id
WHERE r.place <= :shown OR r.streak <= :shown ORDER BY r.place
""")


class Failing(msgspec.Struct, frozen=True):
    """A task that fails: how often, how often in a row, when last (ms), and why."""

    id: str
    name: str
    status: str
    failed: int
    streak: int
    last: int
    reason: str | None
    place: int
    """1 for the one that fails most."""
    looked: int
    """So many failures were looked at, of all tasks."""


async def failing(conn: Conn, service_id: UUID, since: datetime) -> list[Failing]:
    """Return the tasks that failed most since a time, and those with the longest streaks."""
    await walk_in_order(conn)
    values = {"service_id": service_id, "since": since, "most": FAILURES, "shown": SHOWN}
    return [
        Failing(
            row.id, row.name, row.status, row.failed, row.failures, ms(row.last), row.reason,
            row.place, row.looked,
        )
        for row in await conn.execute(FAILING, values)
    ]  # fmt: skip


SLOWEST = text("""
WITH newest AS MATERIALIZED (
    SELECT task_key, started_at, finished_at FROM history
    WHERE service_id = :service_id AND scheduled_for >= :since
    ORDER BY scheduled_for DESC, id DESC LIMIT :sample),
each AS (
    SELECT task_key, count(*) AS runs,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY finished_at - started_at) AS half,
           max(finished_at - started_at) AS longest
    FROM newest WHERE started_at IS NOT NULL AND task_key IS NOT NULL GROUP BY task_key),
top AS MATERIALIZED (SELECT * FROM each ORDER BY half DESC, task_key LIMIT :shown)
SELECT t.id, t.name, o.runs, extract(epoch FROM o.half) * 1000 AS half,
       extract(epoch FROM o.longest) * 1000 AS longest, (SELECT count(*) FROM newest) AS looked
FROM top o JOIN task t ON t.key = o.task_key AND t.service_id = :service_id ORDER BY half DESC
""")


class Slow(msgspec.Struct, frozen=True):
    """A task that takes long; half of its runs took `half` ms or less, with their retries."""

    id: str
    name: str
    runs: int
    half: int
    longest: int
    looked: int
    """So many runs were looked at, of all tasks."""


async def slowest(conn: Conn, service_id: UUID, since: datetime) -> list[Slow]:
    """Return the tasks whose runs take longest, among the newest."""
    await walk_in_order(conn)
    values = {"service_id": service_id, "since": since, "sample": SAMPLE, "shown": SHOWN}
    return [
        Slow(row.id, row.name, row.runs, round(row.half), round(row.longest), row.looked)
        for row in await conn.execute(SLOWEST, values)
    ]
