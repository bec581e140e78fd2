"""Gauges: what a replica says of itself every so often."""

import asyncio

from scheduler import metrics, queue
from scheduler.clock import Clock
from scheduler.db import Database, utc
from scheduler.dispatcher import Dispatcher
from scheduler.replicas import Membership
from scheduler.settler import Settler


async def measure(
    database: Database,
    clock: Clock,
    membership: Membership,
    dispatcher: Dispatcher,
    settler: Settler,
) -> None:
    """Set the gauges, and see how late the loop wakes a timer."""
    loop = asyncio.get_running_loop()
    before = loop.time()
    await asyncio.sleep(0.05)
    metrics.LOOP_LAG.observe(max(loop.time() - before - 0.05, 0))
    metrics.HELD.set(dispatcher.held)
    metrics.IN_FLIGHT.set(dispatcher.crew.in_flight)
    metrics.UNSETTLED.set(settler.unsettled)
    metrics.REPLICAS.set(len(membership.others) + 1)
    metrics.CLOCK_ERROR.set(clock.error_ms / 1000)
    for name, engine in (("engine", database.engine), ("api", database.api)):
        metrics.POOL.labels(name).set(engine.pool.checkedout())  # type: ignore[attr-defined]
    async with database.auto.connect() as conn:
        metrics.QUEUE_DEPTH.set(await queue.depth(conn, utc(clock.now_ms())))
