"""What services use at the moment: many of them at once, in one statement; read, never written.

Each count stops at a limit, so that a service with a great deal costs no more than that.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import text

from scheduler.db import Conn, ms, utc
from scheduler.service import Service

COUNT_MOST = 10_000
"""What is counted of one service, of each kind, where only it is asked for."""

OF_SERVICES = text("""
SELECT s.id,
       (SELECT count(*) FROM (SELECT FROM task t WHERE t.service_id = s.id LIMIT :most) AS t)
           AS tasks,
       q.due, q.in_flight, q.since,
       (SELECT greatest(0, u.level - s.rate
                   * greatest(0, extract(epoch FROM statement_timestamp() - u.at)))
        FROM service_usage u WHERE u.service_id = s.id) AS level,
       (SELECT max(t.last_used_at) FROM token t WHERE t.service_id = s.id) AS last_used_at
FROM unnest(CAST(:services AS uuid[]), CAST(:rates AS float8[])) AS s (id, rate), LATERAL (
    SELECT count(*) AS due, count(r.claimed_by) AS in_flight, min(r.due) AS since FROM (
        SELECT due, claimed_by FROM run WHERE service_id = s.id AND due <= :now
        ORDER BY due LIMIT :most) AS r) AS q
""")
OF_ALL = text("""
SELECT count(*) AS due, count(r.claimed_by) AS in_flight, min(r.due) AS since
FROM (SELECT due, claimed_by FROM run WHERE due <= :now ORDER BY due LIMIT :most) AS r
""")


class Queue(msgspec.Struct, frozen=True):
    """What is due and has not ended: `in_flight` of it is claimed; `since` is the oldest, in ms."""

    due: int
    in_flight: int
    since: int | None

    @property
    def waiting(self) -> int:
        """How many are due, and nobody has claimed them."""
        return self.due - self.in_flight


class Used(msgspec.Struct, frozen=True):
    """What a service uses; counts as far as they were counted."""

    tasks: int
    queue: Queue
    runs_per_minute: int
    """What of the last minute's runs still counts; 0 where nothing limits them."""
    last_used_at: datetime | None
    """When one of its tokens was used last."""


async def of_services(
    conn: Conn, services: Sequence[Service], now: int, most: int = COUNT_MOST
) -> dict[UUID, Used]:
    """Return what services use, by their ids; their limits must be those in force. `now` in ms."""
    values = {
        "services": [each.id for each in services],
        "rates": [each.limits.max_runs_per_minute / 60 for each in services],
        "now": utc(now),
        "most": most,
    }
    return {
        row.id: Used(row.tasks, _queue(row), math.ceil(row.level or 0), row.last_used_at)
        for row in await conn.execute(OF_SERVICES, values)
    }


async def of_all(conn: Conn, now: int) -> Queue:
    """Return what is due of all services together, counted to 10,000. `now` in ms."""
    return _queue((await conn.execute(OF_ALL, {"now": utc(now), "most": COUNT_MOST})).one())


def _queue(row: object) -> Queue:
    since: datetime | None = row.since  # type: ignore[attr-defined]
    due, in_flight = row.due, row.in_flight  # type: ignore[attr-defined]
    return Queue(due, in_flight, None if since is None else ms(since))
