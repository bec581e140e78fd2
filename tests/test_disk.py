"""A disk that is nearly full: nothing more is started, nothing is lost, and `/ready` says so."""

import asyncio

from conftest import eventually
from scheduler.db import ms
from test_dispatcher import arrived, once, stored
from test_queue import now_ms


async def test_a_halted_dispatcher_gives_back_what_is_unsent_and_goes_on_when_all_reasons_are_gone(
    replica, receiver, conn
):
    engine = await replica()
    await stored(engine.database, *[once(receiver, n, now_ms() + 1000) for n in range(20)])
    engine.dispatcher.wake()

    def all_held() -> None:
        assert engine.dispatcher.held == 20

    await eventually(all_held)
    engine.dispatcher.halt("disk", "the disk is full")
    engine.dispatcher.halt("test", "somebody said so")

    async def all_free() -> None:
        assert await conn.fetchval("SELECT count(*) FROM run WHERE claimed_by IS NULL") == 20

    await eventually(all_free)
    engine.dispatcher.halt("disk", None)
    due = await conn.fetchval("SELECT max(due) FROM run")
    await asyncio.sleep(max(engine.clock.until_s(ms(due)), 0) + 0.2)  # several polls past it
    assert engine.dispatcher.held == 0
    assert receiver.requests == []
    engine.dispatcher.halt("test", None)
    await eventually(arrived(receiver, 20))
    assert len(receiver.requests) == 20
