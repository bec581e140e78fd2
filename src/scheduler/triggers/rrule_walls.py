"""A rule on a wall clock that nobody puts forward or back: days, and times on each of them.

Times are whole seconds of the clock's face, read as UTC.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from scheduler.triggers.rrule_days import YEAR_LAST, Days, days_of, year_of
from scheduler.triggers.rrule_parts import Costly, Parts
from scheduler.triggers.rrule_times import FEW, Clock, Few, Times, times_of
from scheduler.triggers.zones import CEILING, DAY

PICKS_MOST = 50
"""BYSETPOS may pick as many from a period, where days have several times."""
SEARCHED_MOST = 128
"""In so many years, of those that have days, a pick is looked for."""


class Walls(NamedTuple):
    """The wall times of a rule from its DTSTART, until the last that COUNT or UNTIL leaves."""

    days: Days
    clock: Clock | Few
    setpos: tuple[int, ...]
    start: int
    end: int = CEILING

    def first(self, at: int) -> int | None:
        """Return the first wall time at or after `at`."""
        at = max(at, self.start)
        if at > self.end:
            return None
        found = self._first_picked(at) if self.setpos else self._first(at)
        return found if found is not None and found <= self.end else None

    def last(self, before: int) -> int | None:
        """Return the last wall time before `before`."""
        before = min(before, self.end + 1)
        found = self._last_picked(before) if self.setpos else self._last(before)
        return found if found is not None and found >= self.start else None

    def within(self, low: int, high: int) -> int:
        """Return how many wall times lie in [low, high)."""
        low, high = max(low, self.start), min(high, self.end + 1)
        if low >= high:
            return 0
        if self.setpos:
            buckets = self._buckets(low, high)
            return sum(bisect_left(each, high) - bisect_left(each, low) for each in buckets)
        times, days = times_of(self.clock), self.days
        (day, early), (end, late) = divmod(low, DAY), divmod(high, DAY)
        total = days.within(day, end) * times.within(0, DAY)
        if early and days.within(day, day + 1):
            total -= times.within(0, early)
        if late and days.within(end, end + 1):
            total += times.within(0, late)
        return total

    def walk(self, low: int, high: int) -> Iterator[int]:
        """Yield the wall times in [low, high)."""
        low, high = max(low, self.start), min(high, self.end + 1)
        if low >= high:
            return
        if self.setpos:
            for each in self._buckets(low, high):
                yield from each[bisect_left(each, low) : bisect_left(each, high)]
            return
        times = times_of(self.clock)
        for day in self.days.walk(low // DAY, -(-high // DAY)):
            begin = day * DAY
            for time in times.walk(max(low - begin, 0), min(high - begin, DAY)):
                yield begin + time

    def _first(self, at: int) -> int | None:
        times, (day, clock) = times_of(self.clock), divmod(at, DAY)
        found = self.days.first(day)
        if found == day:
            time = times.first(clock)
            if time is not None:
                return day * DAY + time
            found = self.days.first(day + 1)
        return None if found is None else found * DAY + (times.first(0) or 0)

    def _last(self, before: int) -> int | None:
        times, (day, clock) = times_of(self.clock), divmod(before, DAY)
        found = self.days.last(day + 1)
        if found == day:
            time = times.last(clock)
            if time is not None:
                return day * DAY + time
            found = self.days.last(day)
        return None if found is None else found * DAY + (times.last(DAY) or 0)

    def _first_picked(self, at: int) -> int | None:
        return self._sought(
            range(year_of(at // DAY - 7), min(year_of(self.end // DAY), YEAR_LAST) + 1), at, 1
        )

    def _last_picked(self, before: int) -> int | None:
        least = year_of(self.start // DAY - 7)
        return self._sought(range(year_of(before // DAY), least - 1, -1), before, -1)

    def _sought(self, years: range, at: int, way: int) -> int | None:
        """Return the first pick at or after `at`, or the last before it."""
        left = SEARCHED_MOST
        for year in years:
            walls = _picked(self, year)
            if walls is None:
                continue
            place = bisect_left(walls, at) - (way < 0)
            if 0 <= place < len(walls):
                return walls[place]
            left -= 1
            if not left:
                raise Costly(f"BYSETPOS finds nothing in {SEARCHED_MOST} years; leave it out")
        return None

    def _buckets(self, low: int, high: int) -> Iterator[Sequence[int]]:
        for year in range(year_of(low // DAY - 7), min(year_of(high // DAY), YEAR_LAST) + 1):
            yield _picked(self, year) or ()


def _picked(of: Walls, year: int) -> Sequence[int] | None:
    """Return the picks of the periods that begin in a year; None where no days are."""
    days = of.days
    if days.in_year(year) or (days.freq == "WEEKLY" and days.in_year(year + 1)):
        return _picks(of._replace(end=0), year)
    return None


@lru_cache(2048)
def _picks(of: Walls, year: int) -> Sequence[int]:
    times = _listed(times_of(of.clock))
    many, found = len(times), array("q")
    for days in of.days.periods(year):
        # The week of DTSTART begins with it, as dateutil has it.
        first = bisect_left(days, of.start // DAY) if of.days.freq == "WEEKLY" else 0
        chosen = days[first:]
        total = len(chosen) * many
        for place in sorted({pos - 1 if pos > 0 else total + pos for pos in of.setpos}):
            if 0 <= place < total:
                found.append(chosen[place // many] * DAY + times[place % many])
    return found


def _listed(times: Times) -> Sequence[int]:
    return times.times if isinstance(times, Few) else tuple(times.walk(0, DAY))


def walls_of(parts: Parts, start: int) -> Walls:
    """Return the wall times of a rule of DAILY or more that begins at a wall time."""
    time, setpos = start % DAY, parts.bysetpos
    clock = Clock(
        parts.byhour or (time // 3600,),
        parts.byminute or (time // 60 % 60,),
        parts.bysecond or (time % 60,),
    )
    if setpos and clock.size > FEW:
        raise ValueError(
            f"BYSETPOS takes at most {FEW} times a day beside it; they are {clock.size}"
        )
    days = days_of(parts, start // DAY)
    if setpos and parts.freq == "DAILY":
        return Walls(days, picked_times(times_of(clock), setpos), (), start)
    if clock.size > 1 and len(setpos) > PICKS_MOST:
        raise ValueError(f"BYSETPOS takes at most {PICKS_MOST} places beside several times a day")
    return Walls(days, clock, setpos, start)


def picked_times(times: Times, setpos: tuple[int, ...]) -> Few:
    """Return what BYSETPOS picks from the times of a day. Raises ValueError where that is none."""
    listed = _listed(times)
    places = {pos - 1 if pos > 0 else len(listed) + pos for pos in setpos}
    found = sorted(listed[place] for place in places if 0 <= place < len(listed))
    if not found:
        raise ValueError(f"BYSETPOS picks from {len(listed)} a day, and names none of those")
    return Few(tuple(found))
