"""Waiting for the end of a process, for as long as its caller does."""

import asyncio
import contextlib
from typing import Any
from uuid import UUID

from litestar import Request

from scheduler.engine import Engine
from scheduler.errors import UserError
from scheduler.processes import status
from scheduler.processes.status import Standing

WAIT_MOST_S = 60
HELD_LOOK_S = 10.0
"""How often a run that this process holds is looked for besides: another may have freed it."""
LOOK_S, LOOK_GROWTH, LOOK_MOST_S = 0.05, 1.5, 2.0
"""How soon a run that nobody here holds is looked for, and how that grows."""

AnyRequest = Request[Any, Any, Any]


async def standing(engine: Engine, service_id: UUID, trace_id: str) -> Standing:
    """Return a service's process as it stands. Raises NotFound."""
    async with engine.database.api.connect() as connection:
        conn = await connection.execution_options(isolation_level="REPEATABLE READ")
        return await status.find(conn, service_id, trace_id)


async def ended(
    engine: Engine, service_id: UUID, trace_id: str, seconds: float, request: AnyRequest
) -> Standing:
    """Return a service's process once it has ended, or as it stands after so many seconds.

    Raises NotFound.
    """
    found = await standing(engine, service_id, trace_id)
    if found.ended is not None or not seconds:
        return found
    loop, dispatcher, key = asyncio.get_running_loop(), engine.dispatcher, found.of.run_id
    until, look = loop.time() + seconds, LOOK_S
    settled, gone = dispatcher.wait_for(key), asyncio.ensure_future(_gone(request))
    try:
        while found.ended is None and loop.time() < until and not gone.done():
            wait = HELD_LOOK_S if dispatcher.holds(key) else look
            look = min(look * LOOK_GROWTH, LOOK_MOST_S)
            either: list[asyncio.Future[Any]] = [settled, gone]
            wait = max(min(wait, until - loop.time()), 0)
            await asyncio.wait(either, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            if settled.done():  # from before the look on: a retry may end meanwhile
                settled = dispatcher.wait_for(key)
            found = await standing(engine, service_id, trace_id)
        return found
    finally:
        dispatcher.give_up(key, settled)
        gone.cancel()


async def _gone(request: AnyRequest) -> None:
    """Return once the caller has gone; what it sends of a body is let go of."""
    with contextlib.suppress(UserError):  # one that is too large is not read on
        while (await request.receive())["type"] != "http.disconnect":
            pass
