"""The claims: what a process takes from the queue, a little ahead and as much as it soon gets done.

On time first, whoever's it is; then what is late, services in turn, so that a backlog stands
before nobody. No service takes all the room, and what it has stalled is left to other replicas.
"""

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from uuid import UUID

import structlog

from scheduler import config, metrics, queue, services
from scheduler.db import Conn
from scheduler.holdings import Holdings, Rate
from scheduler.replicas import Membership
from scheduler.run import Run

log = structlog.get_logger()

ADOPT_S = 10.0
SERVICES_S = 5.0
LATE_EVERY_S = 2.0
"""How often late runs are looked for where there were none: they are late anyway."""
LATE_PIECE = 500
"""Late runs of one service held at a time."""
CROWDED = 0.75
"""The part of what may be held that one service takes before others' runs go first."""


class Claims:
    """Fills one process's holdings. `hold(conn, runs)` takes in what was claimed."""

    def __init__(
        self,
        membership: Membership,
        holdings: Holdings,
        rate: Rate,
        settings: config.Worker,
        hold: Callable[[Conn, Sequence[Run]], Awaitable[None]],
    ) -> None:
        self.expected: set[UUID] = set()
        """Runs about to be inserted as claimed by this process."""
        self.more = False
        """The last look left something behind, for want of room."""
        self._membership = membership
        self._holdings = holdings
        self._rate = rate
        self._settings = settings
        self._hold = hold
        self._adopt_at = self._late_at = self._services_at = 0.0
        self._services: list[UUID] = []

    @property
    def at_once(self) -> int:
        """How many runs a claim takes, where there is room."""
        return min(self._rate.room, self._settings.claim_batch)

    def room(self) -> int:
        """Return how many runs to claim at once.

        Of a service only its crowd counts: what it held before a slow second shuts nobody out.
        """
        holdings, crowd = self._holdings, self._crowd
        counted = sum(min(n, crowd) for n in holdings.waiting_of.values())
        most = self._settings.max_held - len(holdings.waiting)
        return min(self._rate.room - counted, most, self._settings.claim_batch)

    @property
    def _crowd(self) -> int:
        """How many runs of one service may be held."""
        return max(1, int(self._rate.room * CROWDED))

    async def on_time(self, conn: Conn, now: int, stalled: Collection[UUID]) -> None:
        """Claim what is due about `now` (ms), but of no service that is stalled."""
        ahead = int(self._settings.ahead_seconds * 1000)
        waiting_of = self._holdings.waiting_of
        self.more = True
        while (room := self.room()) > 0:
            crowded = [key for key, n in waiting_of.items() if n >= self._crowd]
            most = max((n for n in waiting_of.values() if n < self._crowd), default=0)
            # They may all be of one service; but a burst is not claimed row by row.
            room = min(room, max(self._crowd - most, self._rate.room // 20))
            started = time.perf_counter()
            me = self._membership.me
            runs = await queue.claim_on_time(
                conn, me, now, ahead_ms=ahead, room=room, crowded=[*crowded, *stalled]
            )
            await self._take_in(conn, runs, started)
            if len(runs) < room:
                self.more = bool(crowded)
                return

    async def late(self, conn: Conn, now: int, stalled: Collection[UUID]) -> None:
        """Claim what is overdue at `now` (ms), a piece of each service that is not stalled."""
        if self.room() <= 0 or time.monotonic() < self._late_at:
            return
        if not await queue.any_late(conn, now):
            self._late_at = time.monotonic() + LATE_EVERY_S
            return
        if time.monotonic() - self._services_at > SERVICES_S:
            self._services = await services.ids(conn)
            self._services_at = time.monotonic()
        able = [service for service in self._services if service not in stalled]
        for service in await queue.late_services(conn, able, now):
            piece = min(LATE_PIECE, self._crowd)
            room = min(self.room(), piece - self._holdings.waiting_of[service])
            if room <= 0:
                self.more = True
                continue
            started = time.perf_counter()
            me = self._membership.me
            runs = await queue.claim_late(conn, me, now, service=service, room=room)
            await self._take_in(conn, runs, started)
            self.more |= len(runs) == room

    def doubt(self) -> None:
        """Adopt at the next look: a claim may have been committed, and its answer lost."""
        self._adopt_at = 0.0

    @property
    def in_doubt(self) -> bool:
        """Say whether it is time to adopt; without a cause it is every ten seconds."""
        return time.monotonic() >= self._adopt_at

    async def adopt(self, conn: Conn) -> None:
        """Take in runs that name this process and that it does not know: a lost answer."""
        held, expected = self._holdings.held, self.expected
        known = held.keys() | expected  # one that is settled meanwhile is still in the answer
        runs = await queue.adopt(conn, self._membership.me)
        lost = [r for r in runs if r.id not in known and r.id not in held and r.id not in expected]
        if lost:
            log.info("claimed runs adopted", runs=len(lost))
            await self._take_in(conn, lost, time.perf_counter())
        self._adopt_at = time.monotonic() + ADOPT_S

    async def _take_in(self, conn: Conn, runs: Sequence[Run], started: float) -> None:
        if runs:
            metrics.CLAIM.observe(time.perf_counter() - started)
            await self._hold(conn, runs)
