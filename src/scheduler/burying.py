"""Burying: what is done about replicas that are gone, and what they left unwritten."""

from collections.abc import Callable, Sequence
from datetime import datetime

import structlog

from scheduler.clock import Clock
from scheduler.db import Database, ms, utc
from scheduler.replicas import STILL_S, Membership
from scheduler.standing import Standing

log = structlog.get_logger()

REPAIR_MS = 60_000
"""How long around its last beat a replica may have settled what it did not add up."""


class Burying:
    """Frees the runs of the dead, and has `standing` add up what they did not."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        membership: Membership,
        standing: Standing,
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._membership = membership
        self._standing = standing
        self._wake = wake
        self._repairs = list[tuple[int, int]]()

    async def bury_all(self) -> None:
        """Free what others held: none can be there."""
        async with self._database.engine.begin() as conn:
            self._repair_around(await self._membership.last_beats(conn))
            freed = await self._membership.bury_all(conn)
        log.info("started alone", freed=freed)

    async def bury(self, dead: object, beat: int) -> None:
        """Free what a replica held that stands still since a beat."""
        async with self._database.engine.begin() as conn:
            freed = await self._membership.bury(conn, dead, beat)  # type: ignore[arg-type]
        if freed is not None:
            self._repair_around([utc(self._clock.now_ms() - int(STILL_S * 1000))])
            log.warning("a replica is gone; its runs are free", replica=str(dead), freed=freed)
            self._wake()

    def _repair_around(self, beats: Sequence[datetime]) -> None:
        """Have the state tick work out what replicas had not written when they last beat."""
        self._repairs += [(ms(at) - REPAIR_MS, ms(at) + REPAIR_MS) for at in beats]

    async def repair(self) -> None:
        """Work out how tasks stand of which a dead replica has not said it."""
        while self._repairs:
            since, until = self._repairs[0]
            await self._standing.repair(since, until)
            self._repairs.pop(0)
