"""Room: what services may still keep of specs and answers, counted beside the runs."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from scheduler import kept, quotas
from scheduler.db import Conn
from scheduler.service import Service
from scheduler.specs import model, responses
from scheduler.specs.way import Way

PIECE = 100
"""Services counted in one statement."""
PAUSE_S = 0.005
"""Between two pieces."""
START = UUID(int=0)


class Room:
    """One replica's view. Between two counts it adds what it keeps itself."""

    SECONDS = 60.0
    """How often all look, and one counts."""

    def __init__(self, default: int, way: Way) -> None:
        """`default` is the limit of services that have none of their own; 0 for none."""
        self._default = default
        self._way = way
        self._known = kept.Known(0.0, {}, {})
        self._taken: defaultdict[UUID, list[tuple[float, int]]] = defaultdict(list)
        """When on the loop's clock, and how much."""

    async def look(self) -> None:
        """Count where it is this replica's turn, and read what was counted last."""
        async with self._way.open() as conn:
            turn = await kept.take(conn, self.SECONDS / 2)
        after: UUID | None = START if turn else None
        while after is not None:
            async with self._way.open() as conn:
                some = await kept.services(conn, after, PIECE)
                if some:
                    await kept.write(conn, await counted(conn, some))
            after = some[-1] if len(some) == PIECE else None
            await asyncio.sleep(PAUSE_S)
        async with self._way.open() as conn:
            self._known = await kept.read(conn)
        since = asyncio.get_running_loop().time() - self._known.age_s
        for service_id in list(self._taken):
            later = [each for each in self._taken[service_id] if each[0] > since]
            self._taken[service_id] = later
            if not later:
                del self._taken[service_id]

    def full(self, service_id: UUID, more: int = 1) -> str | None:
        """Return why a service may not keep so many bytes more; None where it may."""
        most = self._known.limits.get(service_id, self._default)
        found = self._known.kept.get(service_id, 0)
        found += sum(size for _, size in self._taken.get(service_id, ()))
        return quotas.too_much(found, most) if most and found + more > most else None

    def take(self, service_id: UUID, size: int) -> str | None:
        """Note that a service keeps so many bytes more; return why it may not, if so."""
        why = self.full(service_id, size)
        if why is None:
            self._taken[service_id].append((asyncio.get_running_loop().time(), size))
        return why


async def counted(conn: Conn, services: Sequence[UUID]) -> dict[UUID, int]:
    """Return how many bytes services keep of specs and answers, about."""
    specs, answers = await model.kept(conn, services), await responses.kept(conn, services)
    return {each: specs.get(each, 0) + answers.get(each, 0) for each in services}


async def check(conn: Conn, service: Service, more: int) -> None:
    """Let no service keep more than it may, counted now: a document is large, and comes seldom.

    To be called in the transaction that keeps it. Raises TooManyRequests.
    """
    if service.limits.max_kept_bytes:
        found = (await counted(conn, [service.id]))[service.id]
        quotas.check_kept(service, found, more)
