"""Times of day, in seconds since midnight: a few as a list, many as a mask that C looks through."""

from bisect import bisect_left
from collections.abc import Iterator
from functools import lru_cache
from itertools import compress
from math import gcd
from typing import NamedTuple

from scheduler.triggers.zones import DAY

FEW = 720
"""As many are kept as a list; more as a byte for each second of the day."""
LIVE_MOST = 4096
EVERY_HOUR, EVERY_MINUTE = tuple(range(24)), tuple(range(60))


class Few(NamedTuple):
    """Some times of day."""

    times: tuple[int, ...]

    def first(self, at: int) -> int | None:
        """Return the first time at or after `at`."""
        place = bisect_left(self.times, at)
        return self.times[place] if place < len(self.times) else None

    def last(self, before: int) -> int | None:
        """Return the last time before `before`."""
        place = bisect_left(self.times, before)
        return self.times[place - 1] if place else None

    def within(self, low: int, high: int) -> int:
        """Return how many times lie in [low, high)."""
        return max(bisect_left(self.times, high) - bisect_left(self.times, low), 0)

    def walk(self, low: int, high: int) -> Iterator[int]:
        """Yield the times in [low, high)."""
        yield from self.times[bisect_left(self.times, low) : bisect_left(self.times, high)]


class Many(NamedTuple):
    """Many times of day."""

    mask: bytes
    """A 1 for each second of the day that is one, else a 0."""

    def first(self, at: int) -> int | None:
        """Return the first time at or after `at`."""
        found = self.mask.find(1, at)
        return None if found < 0 else found

    def last(self, before: int) -> int | None:
        """Return the last time before `before`."""
        found = self.mask.rfind(1, 0, max(before, 0))
        return None if found < 0 else found

    def within(self, low: int, high: int) -> int:
        """Return how many times lie in [low, high)."""
        return self.mask.count(1, low, max(high, 0))

    def walk(self, low: int, high: int) -> Iterator[int]:
        """Yield the times in [low, high)."""
        yield from compress(range(low, min(high, DAY)), self.mask[low:high])


Times = Few | Many


class Clock(NamedTuple):
    """What a rule says of the time of day; empty lists say nothing."""

    hours: tuple[int, ...] = ()
    minutes: tuple[int, ...] = ()
    seconds: tuple[int, ...] = ()

    def shows(self, time: int) -> bool:
        """Say whether a time of day is one."""
        return (
            (not self.hours or time // 3600 in self.hours)
            and (not self.minutes or time // 60 % 60 in self.minutes)
            and (not self.seconds or time % 60 in self.seconds)
        )

    @property
    def size(self) -> int:
        """How many times of day it shows."""
        return (len(self.hours) or 24) * (len(self.minutes) or 60) * (len(self.seconds) or 60)


def times_of(clock: Clock | Few) -> Times:
    """Return all times that a clock shows."""
    if isinstance(clock, Few):
        return clock
    return Many(_mask(clock)) if clock.size > FEW else _shown_few(clock)


@lru_cache(8192)
def _shown_few(clock: Clock) -> Few:
    return Few(tuple(_shown(clock)))


def _shown(clock: Clock) -> Iterator[int]:
    for hour in clock.hours or EVERY_HOUR:
        for minute in clock.minutes or EVERY_MINUTE:
            for second in clock.seconds or EVERY_MINUTE:
                yield hour * 3600 + minute * 60 + second


@lru_cache(64)
def _mask(clock: Clock) -> bytes:
    minute = bytes(second in clock.seconds or not clock.seconds for second in range(60))
    hour = b"".join(
        minute if each in clock.minutes or not clock.minutes else bytes(60) for each in range(60)
    )
    return b"".join(
        hour if each in clock.hours or not clock.hours else bytes(3600) for each in range(24)
    )


class Grid(NamedTuple):
    """Steps over elapsed time, each with the same times in it, as a clock shows them or not."""

    unit: int
    """How long each step is (s)."""
    step: int
    """How far apart they begin (s)."""
    offsets: tuple[int, ...]
    """The times in each (s since it began)."""
    clock: Clock

    def times(self, phase: int) -> Times:
        """Return the times of a day whose first step begins `phase` after midnight."""
        if len(self.offsets) * (DAY // self.step + 1) > FEW:
            return _many(self, phase)
        return _few(self, phase)


@lru_cache(8192)
def _few(grid: Grid, phase: int) -> Few:
    starts = range(phase - grid.step, DAY, grid.step)  # the step before reaches into the day
    found = {start + offset for start in starts for offset in grid.offsets}
    shows = grid.clock.shows
    return Few(tuple(sorted(time for time in found if 0 <= time < DAY and shows(time))))


@lru_cache(128)
def _many(grid: Grid, phase: int) -> Many:
    mask = bytearray(DAY)
    for offset in grid.offsets:
        first = (phase + offset) % grid.step
        mask[first :: grid.step] = b"\1" * len(range(first, DAY, grid.step))
    if any(grid.clock):
        both = int.from_bytes(mask, "big") & int.from_bytes(_mask(grid.clock), "big")
        return Many(both.to_bytes(DAY, "big"))
    return Many(bytes(mask))


@lru_cache(1024)
def live_days(grid: Grid, origin: int) -> tuple[int, tuple[int, ...] | None]:
    """Return after how many days all repeats, and the days, modulo those, on which steps show.

    They are sorted; None where it is no question, or there are too many times to look at: then
    there are no long gaps. `origin` is where a step begins on the wall clock (s).
    """
    clock, unit, common = grid.clock, grid.unit, gcd(DAY, grid.step)
    cycle = grid.step // common
    whole = clock._replace(
        minutes=clock.minutes if unit <= 60 else (0,), seconds=clock.seconds if unit == 1 else (0,)
    )
    if origin % unit or whole.size > LIVE_MOST or not any(clock):
        return cycle, None
    inverse = pow(DAY // common, -1, cycle) if cycle > 1 else 0
    found = {
        (origin - time) // common * inverse % cycle
        for time in _shown(whole)
        if (origin - time) % common == 0
    }
    return cycle, tuple(sorted(found))
