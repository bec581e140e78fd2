"""Passes: planning until nothing is left to plan, or enough for now."""

import time
from collections.abc import Callable, Sequence
from uuid import UUID

from scheduler import metrics, planner, queue, services
from scheduler.clock import Clock
from scheduler.db import Conn, Database, utc

PASSES = 200
"""Planning passes a tick, at most."""


class Passes:
    """Plans up to `window_ms` ahead, `batch` tasks at a time.

    `recheck` gets the tasks whose state may be another now, `wake` when the first run is due (ms).
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        window_ms: int,
        batch: int,
        recheck: Callable[[Sequence[UUID]], None],
        wake: Callable[[int], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._window_ms = window_ms
        self._batch = batch
        self._recheck = recheck
        self._wake = wake

    async def step(self) -> None:
        """Plan what is to be planned now."""
        async with self._database.auto.connect() as conn:
            if not await planner.anything(conn, self._clock.now_ms(), window_ms=self._window_ms):
                return
        await self._passes(overdue=False)
        await self._passes(overdue=True)

    async def _passes(self, *, overdue: bool) -> None:
        """Plan until nothing is left, or enough: what is overdue is made as it is worked off."""
        for _ in range(PASSES):
            started = time.perf_counter()
            async with self._database.engine.begin() as conn:
                now = self._clock.now_ms()
                passed = await planner.tick(
                    conn,
                    now,
                    window_ms=self._window_ms,
                    batch=self._batch,
                    overdue=overdue,
                    crowded=await _crowded(conn, now) if overdue else (),
                )
            if not passed.tasks:
                return
            metrics.PLAN.observe(time.perf_counter() - started)
            self._recheck(passed.lapsed)
            if passed.earliest is not None:
                self._wake(passed.earliest)


async def _crowded(conn: Conn, now: int) -> list[UUID]:
    """Return the services of which so much is due that no overdue runs are made."""
    most = planner.CATCH_UP_MOST
    if await queue.depth(conn, utc(now)) < most:
        return []
    return await queue.crowded(conn, await services.ids(conn), utc(now), most)
