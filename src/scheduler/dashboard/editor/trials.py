"""Test calls: how many a service may make, and what came of one."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import msgspec

from scheduler.dashboard.tries import Recent
from scheduler.errors import TooManyRequests

MOST_AT_ONCE = 2
"""Test calls of a service that are under way at once, in this process."""
MOST_EACH_MINUTE = 20
"""Test calls that a service may begin in a minute, in this process."""
MOST_OF_ALL = 8
"""Test calls of all services that are under way at once, in this process."""
TIMEOUT_S = 30.0
"""What a test call may take, whatever its task may."""
REMEMBERED = 10_000
MINUTE_S = 60.0


class Result(msgspec.Struct, frozen=True):
    """What came of a test call."""

    what: str
    """What was done, in a line."""
    state: str
    """`succeeded` or `failed`."""
    status_code: int | None
    error: str | None
    body: str | None
    size: int
    """Bytes of the body that were read."""
    truncated: bool
    took_ms: int


class Trials:
    """Counts test calls, by service."""

    def __init__(self) -> None:
        self._under_way: Counter[UUID] = Counter()
        self._begun = Recent(MOST_EACH_MINUTE, MINUTE_S, REMEMBERED)

    @contextmanager
    def turn(self, service_id: UUID, now: float) -> Iterator[None]:
        """Let a test call be made, at `now` (seconds of any clock). Raises TooManyRequests."""
        self._begin(service_id, now)
        self._under_way[service_id] += 1
        try:
            yield
        finally:
            self._under_way[service_id] -= 1
            if not self._under_way[service_id]:
                del self._under_way[service_id]

    def _begin(self, service_id: UUID, now: float) -> None:
        if self._under_way[service_id] >= MOST_AT_ONCE:
            raise TooManyRequests(
                f"{MOST_AT_ONCE} test calls of this service are under way; wait for one to end",
                retry_after=1,
            )
        if self._under_way.total() >= MOST_OF_ALL:
            raise TooManyRequests(
                f"{MOST_OF_ALL} test calls are under way here; try again in a moment", retry_after=1
            )
        wait = self._begun.add(service_id, now)
        if wait is not None:
            raise TooManyRequests(
                f"a service may make {MOST_EACH_MINUTE} test calls a minute; try again in {wait} s",
                retry_after=wait,
            )
