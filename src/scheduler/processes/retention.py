"""Retention: a process goes with what history keeps of its run."""

import asyncio

from scheduler import ledger, queue
from scheduler.db import Conn, Database
from scheduler.processes import model
from scheduler.processes.model import START, Due, Place

BATCH = 500
SECONDS = 600.0
PAUSE_S = 0.005
"""Between two pieces."""


class Retention:
    """Deletes processes of which nothing is known any more."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def step(self) -> None:
        """Delete, a piece at a time, what was made before the oldest week of history and has ended.

        What was made before it and is still to come, or ended since, is looked at and stays.
        """
        async with self._database.auto.connect() as conn:
            before = await ledger.kept_from(conn)
        after: Place | None = START if before is not None else None
        while after is not None and before is not None:
            async with self._database.engine.begin() as conn:
                found, after = await model.old(conn, before, after, BATCH)
                if gone := await _gone(conn, found):
                    await model.delete(conn, gone)
            await asyncio.sleep(PAUSE_S)


async def _gone(conn: Conn, found: list[Due]) -> list[Due]:
    """Return those of whose runs nothing is known, and of whose end nobody is being told."""
    if not found:
        return []
    known = await queue.known(conn, [of.run_id for of in found])
    left = [of for of in found if of.run_id not in known]
    telling = await queue.live(conn, [of.callback_id for of in left]) if left else set()
    return [of for of in left if of.callback_id not in telling]
