"""Which tasks an act is about: those that were chosen one by one, or all that fit a filter."""

import hashlib
from collections.abc import Sequence
from uuid import UUID

from scheduler import lines, state, tasklist, taskrows
from scheduler.clock import Slice
from scheduler.db import Conn, utc
from scheduler.errors import Conflict
from scheduler.tasklist import Filter
from scheduler.taskrows import Named

MOST = 10_000
"""Tasks of one act."""


async def fitting(
    conn: Conn, service_id: UUID, wanted: Filter, word: str | None, now: int
) -> list[Named]:
    """Return all tasks that fit a filter, and stand in a state; the newest first.

    Raises Conflict where those are too many for one act.
    """
    among = None if word is None else await _standing(conn, service_id, wanted, word, now)
    found = await taskrows.names(conn, service_id, wanted, MOST + 1, among)
    if len(found) > MOST or (among is not None and len(among) > MOST):
        raise Conflict(f"More than {MOST:,} tasks fit; narrow the filter, and do it in parts.")
    return found


async def _standing(
    conn: Conn, service_id: UUID, wanted: Filter, word: str, now: int
) -> list[UUID]:
    running = await lines.running(conn, service_id, utc(now), MOST + 1)
    if word == "running":
        return running
    few = None if wanted == Filter() else await tasklist.few(conn, service_id, wanted)
    if few is not None:
        return list(await state.among(conn, service_id, word, few) - set(running))
    return await state.page(conn, service_id, word, running, offset=0, count=MOST + 1)


async def digest(tasks: Sequence[Named]) -> str:
    """Return what tells these tasks from any others, whatever their order."""
    made, turn = hashlib.sha256(), Slice()
    for key in sorted(each.line.key.bytes for each in tasks):
        made.update(key)
        await turn.give_way()
    return f"{len(tasks)}-{made.hexdigest()[:32]}"
