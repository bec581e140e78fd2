"""What goes with a service: all of its rows, and what is left of one that is gone.

A service goes in pieces, a table at a time. Nothing points at its row but its tokens: whatever was
made of it past that, by a version that did not hold the row or by hand, is found by a walk.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from scheduler import (
    audit,
    exclusions,
    history,
    lines,
    outlook,
    planner,
    services,
    state,
    tally,
    task,
    undo,
    versions,
)
from scheduler.db import Conn, Database

log = structlog.get_logger()

Recall = Callable[[UUID], None]
Remove = Callable[[Conn, UUID, int], Awaitable[bool]]
"""Deletes at most so many of a service's rows of a table; says whether any are left."""

BATCH = 2000
"""Rows that one transaction deletes."""
PAUSE_S = 0.005
"""Between two pieces; what is left may be what somebody else has locked."""


async def wipe(engine: AsyncEngine, service: UUID, recall: Recall, rooms: Sequence[Remove]) -> None:
    """Delete a service's rows in the order in which one makes the next: plans make runs.

    What somebody has locked is waited for. `recall` is told the tasks whose runs some replica
    holds. `rooms` delete what the machine does not know.
    """

    async def runs(conn: Conn, service_id: UUID, most: int) -> bool:
        recalled, left = await lines.remove_service(conn, service_id, most)
        for key in recalled:
            recall(key)
        return left

    for verb in (
        *rooms,
        planner.remove_service,
        task.remove_service,
        state.remove_service,
        runs,
        history.remove_service,
        tally.remove_service,
        versions.remove_service,
        audit.remove_service,
        undo.remove_service,
        exclusions.remove_service,
    ):
        left = True
        while left:
            async with engine.begin() as conn:
                left = await verb(conn, service, BATCH)
            await asyncio.sleep(PAUSE_S if left else 0)


class Strays:
    """Looks for rows of services that are gone, and deletes them.

    Bounded on purpose: a step asks each table for so many services at most. What a step finds goes
    at the next one: a database that is being restored has the services last.
    """

    PIECE = 100
    START = UUID(int=0)

    def __init__(self, database: Database, recall: Recall, rooms: Sequence[Remove]) -> None:
        self._rooms = rooms
        self._engine = database.engine
        self._auto = database.auto
        self._recall = recall
        self._after = dict.fromkeys(
            (outlook.next_service, task.next_service, lines.next_service), self.START
        )
        self._suspects: set[UUID] = set()

    async def step(self) -> int:
        """Delete what is left of the services found gone before, and look on; return how many."""
        suspects, self._suspects = self._suspects, set()
        async with self._auto.connect() as conn:
            gone = suspects - await services.there(conn, suspects) if suspects else set()
            found = await self._walk(conn)
            self._suspects = found - await services.there(conn, found)
        for service in gone:
            log.warning("rows of a service that is gone are deleted", service_id=str(service))
            await wipe(self._engine, service, self._recall, self._rooms)
        self._suspects -= gone
        return len(gone)

    async def _walk(self, conn: Conn) -> set[UUID]:
        found: set[UUID] = set()
        for verb, place in self._after.items():
            at: UUID | None = place
            for _ in range(self.PIECE):
                at = await verb(conn, at or self.START)
                if at is None:
                    break
                found.add(at)
            self._after[verb] = at or self.START
        return found
