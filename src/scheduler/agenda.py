"""The agenda of a service: what makes its tasks due, said once for all that are due alike."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text

from scheduler import db
from scheduler.clock import Slice
from scheduler.db import Conn
from scheduler.triggers import Bounds, Trigger

NAMED = 10
"""Tasks that are named of those that are alike."""
AGENDA = text(f"""
SELECT trigger, bounds, status, paused_until, count(*) AS tasks,
       (array_agg(id))[1:{NAMED}] AS ids, (array_agg(name))[1:{NAMED}] AS names,
       CASE WHEN jsonb_exists(bounds, 'max_runs') THEN array_agg(key) END AS keys
FROM task
WHERE service_id = :service_id AND trigger IS NOT NULL
  AND (status = 'active' OR (status = 'paused' AND paused_until IS NOT NULL))
GROUP BY jsonb_hash_extended(trigger, 0), trigger, bounds, status, paused_until
ORDER BY tasks DESC LIMIT :most
""")
"""The hash comes first, as triggers that are sorted by it alone are hardly ever compared."""
PIECE = 250
LONG = 1000
"""Characters of a trigger; a longer one may take milliseconds to read, beside the loop."""


class Alike(msgspec.Struct, frozen=True):
    """Tasks with the same trigger and bounds, that are due or will be."""

    trigger: Trigger
    bounds: Bounds
    begin: int | None
    """When their pause ends (ms since 1970), where they are paused."""
    tasks: int
    named: Sequence[tuple[str, str]]
    """The ids and names of some of them."""
    keys: Sequence[UUID] = ()
    """Of all of them, where `max_runs` bounds them."""


class Agenda(msgspec.Struct):
    """What a service has to do; `damaged` tasks have a row that cannot be read."""

    alike: list[Alike]
    damaged: int = 0

    @property
    def tasks(self) -> int:
        """How many tasks it tells of."""
        return sum(each.tasks for each in self.alike)


async def read(conn: Conn, service_id: UUID, most: int) -> Agenda:
    """Return what a service has to do, the most frequent first, so many kinds at most."""
    found, turn = Agenda([]), Slice()
    values, few = {"service_id": service_id, "most": most}, {"yield_per": PIECE}
    async with conn.stream(AGENDA, values, execution_options=few) as rows:
        async for some in rows.partitions():
            for row in some:
                long = len(row.trigger) > LONG
                alike = await asyncio.to_thread(_alike, row) if long else _alike(row)
                if alike is None:
                    found.damaged += row.tasks
                else:
                    found.alike.append(alike)
                await turn.give_way()
    return found


_trigger = msgspec.json.Decoder(Trigger)
_bounds = msgspec.json.Decoder(Bounds)


def _alike(row: Any) -> Alike | None:
    try:
        trigger = _trigger.decode(row.trigger)
        bounds = Bounds() if row.bounds is None else _bounds.decode(row.bounds)
    except (msgspec.DecodeError, RecursionError, TypeError):
        return None
    begin = None if row.status == "active" else db.ms(row.paused_until)
    named = sorted(zip(row.ids, row.names, strict=True))
    return Alike(trigger, bounds, begin, row.tasks, named, row.keys or ())
