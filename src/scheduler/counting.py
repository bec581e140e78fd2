"""Counting: keeps the tally true to history, a piece at a time.

The last minutes are counted again and again: runs are written a little after they ended, and what
is replayed leaves history. A count replaces what was there, so that it may be done twice.
"""

import time

from scheduler import history, ledger, partitions, tally
from scheduler.clock import Clock
from scheduler.db import Database, utc
from scheduler.tally import Mark

SECONDS = 10.0
FRESH_MS = 8000
"""What another replica counted so long ago is not counted again."""
HELD_BACK_MS = 30_000
"""What ended while the database was away is written within this, once it is back."""
MINUTE, HOUR = 60_000, 3_600_000
LATE_MS = 5 * MINUTE
"""So long after a run ended it may be written, while the database is there."""
PIECE_MS, WIDE_MS = 10 * MINUTE, 2 * HOUR
"""What is counted at once, to begin with, and at most."""
SHORT_S, LONG_S = 0.2, 1.0
"""What took less is followed by a piece twice as wide, what took more by one half as wide."""
PIECES = 300
"""Pieces that one step counts, at most: two days and more."""
BY_MINUTE_MS = 48 * HOUR
"""What is older is told by the hour."""
ROLLED = 200
"""Hours that one step makes of minutes, at most."""


class Counting:
    """Counts what ended, for all services."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        fresh_ms: int = FRESH_MS,
        held_back_ms: int = HELD_BACK_MS,
        pieces: int = PIECES,
    ) -> None:
        self._database = database
        self._clock = clock
        self._fresh_ms = fresh_ms
        self._held_back_ms = held_back_ms
        self._pieces = pieces
        self._wide = PIECE_MS
        self._minute = 0
        """When all of the last minutes, and not only the newest, were counted last."""
        self._behind: int | None = None
        """When it was first seen that nobody had counted for a while."""

    async def step(self) -> None:
        """Count what is new; once a minute roll up what is old, and drop what history forgot.

        Bounded on purpose: after a downtime it takes several steps.
        """
        now = self._clock.now_ms()
        minute = now - now % MINUTE
        async with self._database.auto.connect() as conn:
            mark = await tally.read(conn)
            kept_from = await ledger.kept_from(conn)
        ago = now - (mark.counted_at or 0)
        if kept_from is None or 0 <= ago < self._fresh_ms:  # less: the clock was stepped back
            return
        if self._waits(mark, minute, now):
            return
        whole = minute != self._minute
        if whole:
            await partitions.summarize(self._database, utc(now))
        since = _since(mark, minute, whole=whole)
        since = kept_from if since is None else max(since, kept_from)
        if await self._count(since, minute + MINUTE, minute) and whole:
            self._minute = minute
            await self._tidy(minute, kept_from)

    def _waits(self, mark: Mark, minute: int, now: int) -> bool:
        """Say whether what was held back while nobody counted may still be on its way."""
        if mark.until is None or minute - mark.until <= LATE_MS:
            self._behind = None
            return False
        self._behind = self._behind or now
        return now - self._behind < self._held_back_ms

    async def _count(self, since: int, until: int, closed: int) -> bool:
        """Count [since, until), as far as one step goes; say whether that was all.

        Minutes from `closed` on are not over, and counted again.
        """
        for _ in range(self._pieces):
            began, wide = time.perf_counter(), self._wide
            self._wide = MINUTE  # where this one cannot be counted in time
            end = min(since + wide, until)
            async with self._database.engine.begin() as conn:
                mark = await tally.take(conn)
                if mark is None:  # another replica is at it
                    self._wide = wide
                    return False
                found = await history.ended_by_minute(conn, utc(since), utc(end))
                await tally.write(conn, utc(since), utc(end), found)
                reached = max(min(end, closed), min(mark.until or 0, closed))
                await tally.move(conn, reached, self._clock.now_ms())
            self._wide = _next_wide(wide, time.perf_counter() - began)
            since = end
            if since >= until:
                return True
        return False

    async def _tidy(self, minute: int, kept_from: int) -> None:
        until = minute - BY_MINUTE_MS
        for _ in range(ROLLED):
            async with self._database.engine.begin() as conn:
                if await tally.take(conn) is None:
                    return
                oldest = await tally.oldest(conn, tally.MINUTE_S)
                if oldest is None or oldest - oldest % HOUR + HOUR > until:
                    break
                hour = oldest - oldest % HOUR
                await tally.roll(conn, utc(hour), utc(hour + HOUR))
        for seconds in (tally.MINUTE_S, tally.HOUR_S):
            left = True
            while left:
                async with self._database.engine.begin() as conn:
                    left = await tally.prune(conn, seconds, utc(kept_from))


def _next_wide(wide: int, took_s: float) -> int:
    """Return how much (ms) to count at once after a piece that took so long: whole minutes."""
    if took_s < SHORT_S:
        return min(wide * 2, WIDE_MS)
    half = wide // 2 // MINUTE * MINUTE
    return max(half, MINUTE) if took_s > LONG_S else wide


def _since(mark: Mark, minute: int, *, whole: bool) -> int | None:
    """Return from where on a step counts (ms since 1970); None for everything."""
    if mark.until is None:
        return None
    since = min(mark.until, minute) - (LATE_MS if whole else 0)
    # By then its hour may have been rolled up.
    return since - since % HOUR if minute - since > BY_MINUTE_MS - 2 * HOUR else since
