"""The outlook: how far tasks are planned, and what is not planned yet; the planner keeps it."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text

from scheduler.db import Conn, ms, utc
from scheduler.instant import FIRST
from scheduler.planning import Coming, Planned

PLANNED = text("""
SELECT key, planned_until, planned_runs FROM task_plan
WHERE key = ANY(:keys) AND service_id = :service_id
""")
PLANS = text("""
SELECT key, next_plan_at, planned_until, planned_runs FROM task_plan WHERE key = ANY(:keys)
""")
COMING = text("""
SELECT key, next_plan_at, planned_runs FROM task_plan
WHERE service_id = :service_id AND (next_plan_at, key) > (:after, :key) AND next_plan_at <= :until
ORDER BY next_plan_at, key LIMIT :most
""")
NOBODY = UUID(int=0)


UNPLANNED = text("SELECT min(next_plan_at) FROM task_plan WHERE service_id = :service_id")


async def unplanned(conn: Conn, service_id: UUID) -> int | None:
    """Return the first instant (ms) of a service's tasks that may not be planned yet, or None."""
    at = (await conn.execute(UNPLANNED, {"service_id": service_id})).scalar_one()
    return None if at is None else ms(at)


async def planned(conn: Conn, service_id: UUID, keys: Sequence[UUID]) -> dict[UUID, Planned]:
    """Map a service's tasks to how far they are planned."""
    rows = await conn.execute(PLANNED, {"keys": list(keys), "service_id": service_id})
    return {row.key: Planned(ms(row.planned_until), row.planned_runs) for row in rows}


class Standing(msgspec.Struct, frozen=True):
    """A task's plan as it stands: how far it goes, and when there is something to do next (ms)."""

    planned: Planned
    next: int | None


async def plans(conn: Conn, keys: Sequence[UUID]) -> dict[UUID, Standing]:
    """Return the plans of tasks of any service."""
    rows = await conn.execute(PLANS, {"keys": list(keys)})
    return {
        row.key: Standing(
            Planned(ms(row.planned_until), row.planned_runs),
            None if row.next_plan_at is None else ms(row.next_plan_at),
        )
        for row in rows
    }


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


NEXT_SERVICE = text("""
SELECT service_id FROM task_plan WHERE service_id > :after ORDER BY service_id LIMIT 1
""")


async def next_service(conn: Conn, after: UUID) -> UUID | None:
    """Return the service after this one that has plans, by id; None where none has."""
    found: UUID | None = (await conn.execute(NEXT_SERVICE, {"after": after})).scalar_one_or_none()
    return found
