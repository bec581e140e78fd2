"""Database time on the monotonic clock; the local wall clock is never asked.

One reading brackets a `clock_timestamp()` between two readings of the monotonic clock, so the
offset is known to half the round trip (Cristian's algorithm, 1989). The reading with the smallest
round trip of the last minute counts. A reading that contradicts it (the database's clock was
stepped, or another server answers now) replaces it at once.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from sqlalchemy import text

from scheduler.db import Conn, ms

WINDOW_S = 60.0
DRIFT = 100e-6
"""How much two healthy clocks drift apart: seconds per second."""

NOW = text("SELECT clock_timestamp()")


class Clock:
    """Estimates the database's time. `monotonic` returns seconds."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.monotonic = monotonic
        self._readings: deque[tuple[float, float, float]] = deque()  # at, offset, error
        self._at = self._offset = 0.0
        self._error = float("inf")

    @property
    def error_ms(self) -> float:
        """How far off the estimate may be."""
        return self._error * 1000

    def read(self, before: float, database_ms: float, after: float) -> None:
        """Take in one reading: `before` and `after` on the monotonic clock, in seconds."""
        error = (after - before) / 2
        offset = database_ms / 1000 - (before + error)
        if self._readings and self._contradicts(after, offset, error):
            self._readings.clear()
        self._readings.append((after, offset, error))
        while self._readings[0][0] < after - WINDOW_S:
            self._readings.popleft()
        # A reading is worth less the older it is: the clocks drift apart.
        self._at, self._offset, self._error = min(
            self._readings, key=lambda r: r[2] + DRIFT * (after - r[0])
        )

    def _contradicts(self, at: float, offset: float, error: float) -> bool:
        slack = self._error + error + DRIFT * (at - self._at) + 0.001
        return abs(offset - self._offset) > slack

    async def sample(self, conn: Conn) -> None:
        """Read the database's clock once."""
        before = self.monotonic()
        now = (await conn.execute(NOW)).scalar_one()
        self.read(before, ms(now) + now.microsecond % 1000 / 1000, self.monotonic())

    def now_ms(self) -> int:
        """Return the database's time, best guess, in milliseconds since 1970."""
        return int((self.monotonic() + self._offset) * 1000)

    def earliest_ms(self) -> float:
        """Return the earliest time that the database's clock may show now."""
        now = self.monotonic()
        return (now + self._offset - self._error - DRIFT * (now - self._at)) * 1000

    def until_s(self, at_ms: int) -> float:
        """Return how long until `at_ms` has certainly come, in seconds; negative when past."""
        return (at_ms - self.earliest_ms()) / 1000


class Slice:
    """A turn on the event loop, 2 ms at most: long work gives way to what must fire."""

    LENGTH_S = 0.002

    def __init__(self) -> None:
        self.used_s = 0.0
        """CPU time of the turns that are over, in seconds."""
        self._begin()

    def _begin(self) -> None:
        self._end, self._cpu = time.perf_counter() + self.LENGTH_S, time.thread_time()

    async def give_way(self) -> None:
        """Let others run, where this turn has been long enough."""
        if time.perf_counter() > self._end:
            self.used_s += time.thread_time() - self._cpu
            await asyncio.sleep(0)
            self._begin()


async def database_ms(conn: Conn) -> int:
    """Return the database's clock, in milliseconds since 1970, rounded down."""
    return ms((await conn.execute(NOW)).scalar_one())
