"""A rule of HOURLY, MINUTELY or SECONDLY: it steps over elapsed time, from DTSTART on.

Its other parts are tested on the wall clock of each step. Times are whole seconds since 1970.
"""

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from scheduler.triggers.rrule_clock import stretch_in
from scheduler.triggers.rrule_days import EVERY_DAY, Days, days_of
from scheduler.triggers.rrule_parts import UNITS, Costly, Parts
from scheduler.triggers.rrule_times import Clock, Grid, Times, live_days
from scheduler.triggers.zones import CEILING, DAY, FLOOR, Stretch

SEARCHED_MOST = 1000
"""So many days are looked at for an instant."""
A_STRETCH = 10
"""A stretch of a zone costs as much as so many days."""
LOOKED_MOST = 2000
"""So many days, and years without any, are looked at for a day that may have an instant."""
COUNTED_MOST = 40_000
"""So many days are counted one by one."""
SELDOM = "its days and its times of day meet too seldom"
ALL_PLACES = tuple(range(60))


class Steps(NamedTuple):
    """Its instants from DTSTART, until the last that COUNT or UNTIL leaves."""

    zone: str
    start: int
    """DTSTART, an instant."""
    origin: int
    """When the step that DTSTART lies in began."""
    grid: Grid
    days: Days
    turned: bool
    """The times in a step are the wall clock's, also where that is off by part of a step."""
    offset: int
    """Of the zone, at DTSTART."""
    plain: bool
    """Each step is an instant, and nothing else is."""
    until: int = CEILING
    """The last instant that may be one."""

    def first(self, at: int) -> int | None:
        """Return the first instant at or after `at`. Raises Costly."""
        at = max(at, self.start, FLOOR)
        if self.plain:
            found = self.origin + self.grid.offsets[0]
            found += -(-(at - found) // self.grid.step) * self.grid.step
            return found if found <= self.until else None
        left = SEARCHED_MOST
        while at <= self.until:
            stretch = stretch_in(self.zone, at)
            wall, day = None, (at + stretch.offset) // DAY
            end = min(stretch.end, self.until + 1) + stretch.offset
            for on in self._days_from(stretch, day, end):
                wall = self._times(stretch, on).first(max(at + stretch.offset - on * DAY, 0))
                if wall is not None:
                    wall += on * DAY
                    break
                left -= 1
                if left <= 0:
                    raise Costly(SELDOM)
            if wall is not None and wall < end:
                return wall - stretch.offset
            following = self.days.first(end // DAY - 2)
            if following is None:
                return None
            left -= A_STRETCH
            if left <= 0:
                raise Costly(SELDOM)
            at = max(stretch.end, following * DAY - 2 * DAY)
        return None

    def last(self, before: int) -> int | None:
        """Return the last instant before `before`. Raises Costly."""
        at = min(before - 1, self.until, CEILING - 1)
        if self.plain:
            found = self.origin + self.grid.offsets[0]
            found += (at - found) // self.grid.step * self.grid.step
            return found if found >= self.start else None
        left = SEARCHED_MOST
        while at >= self.start:
            stretch = stretch_in(self.zone, at)
            begin = max(stretch.start, self.start) + stretch.offset
            wall, end = None, at + stretch.offset + 1
            for on in self._days_to(stretch, (end - 1) // DAY, begin):
                wall = self._times(stretch, on).last(min(end - on * DAY, DAY))
                if wall is not None:
                    wall += on * DAY
                    break
                left -= 1
                if left <= 0:
                    raise Costly(SELDOM)
            if wall is not None and wall >= begin:
                return wall - stretch.offset
            day = self.days.last(begin // DAY + 1)
            if day is None:
                return None
            left -= A_STRETCH
            if left <= 0:
                raise Costly(SELDOM)
            at = min(stretch.start - 1, day * DAY + 3 * DAY)
        return None

    def within(self, low: int, high: int) -> int:
        """Return how many instants lie in [low, high)."""
        low, high = max(low, self.start, FLOOR), min(high, self.until + 1, CEILING)
        if low >= high:
            return 0
        if self.plain:
            before = self.origin + self.grid.offsets[0] + 1
            step = self.grid.step
            return (high - before) // step - (low - before) // step
        total = 0
        while low < high:
            stretch = stretch_in(self.zone, low)
            offset = stretch.offset
            total += self._count(stretch, low + offset, min(high, stretch.end) + offset)
            low = stretch.end
        return total

    def walk(self, low: int, high: int) -> Iterator[int]:
        """Yield the instants in [low, high)."""
        low, high = max(low, self.start, FLOOR), min(high, self.until + 1, CEILING)
        first = self.first(low) if self.plain and low < high else None
        if self.plain:
            if first is not None:
                yield from range(first, high, self.grid.step)
            return
        while low < high:
            stretch = stretch_in(self.zone, low)
            offset, end = stretch.offset, min(high, stretch.end) + stretch.offset
            for on in self._days_from(stretch, (low + offset) // DAY, end):
                begin = on * DAY
                times = self._times(stretch, on)
                clocks = times.walk(max(low + offset - begin, 0), min(end - begin, DAY))
                for clock in clocks:
                    yield begin + clock - offset
            low = stretch.end

    def daily(self, stretch: Stretch) -> Times | None:
        """Return its times on each of its days in a stretch; None where days are not alike."""
        return None if DAY % self.grid.step else self._times(stretch, 0)

    def lost(self, stretch: Stretch) -> list[int]:
        """Return the wall times in the gap before a stretch that it would have without the gap."""
        if stretch.missing == stretch.start + stretch.offset:
            return []
        before = stretch_in(self.zone, stretch.start - 1)
        low = max(stretch.missing, self.start + before.offset)
        high = min(stretch.start + stretch.offset, self.until + before.offset + 1)
        return [
            on * DAY + clock
            for on in self._days_from(before, low // DAY, high)
            for clock in self._times(before, on).walk(
                max(low - on * DAY, 0), min(high - on * DAY, DAY)
            )
        ]

    def _count(self, stretch: Stretch, low: int, high: int) -> int:
        """Return how many there are in a stretch, in [low, high) of its wall clock."""
        (day, early), (end, late) = divmod(low, DAY), divmod(high, DAY)
        if DAY % self.grid.step == 0:  # all days are alike
            times = self._times(stretch, day)
            total = self.days.within(day, end) * times.within(0, DAY)
        else:
            total = self._days_count(stretch, day, end)
        if early and self.days.within(day, day + 1):
            total -= self._times(stretch, day).within(0, early)
        if late and self.days.within(end, end + 1):
            total += self._times(stretch, end).within(0, late)
        return total

    def _days_count(self, stretch: Stretch, day: int, end: int) -> int:
        """Return how many there are on the days in [day, end). Raises Costly."""
        cycle, live = self._live(stretch)
        if self.days.named == EVERY_DAY and end - day > 2 * cycle:
            whole = self._days_count(stretch, day, day + cycle) * ((end - day) // cycle)
            return whole + self._days_count(stretch, end - (end - day) % cycle, end)
        if live == ():
            return 0
        if end - day > COUNTED_MOST:
            raise Costly(
                f"counting takes more than {COUNTED_MOST} days; UNTIL takes less than COUNT"
            )
        days = self._days_from(stretch, day, end * DAY)
        return sum(self._times(stretch, on).within(0, DAY) for on in days)

    def _times(self, stretch: Stretch, day: int) -> Times:
        """Return the times of a day, if all of it lay in a stretch."""
        grid = self._turned(stretch)
        return grid.times((self.origin + stretch.offset - day * DAY) % grid.step)

    def _turned(self, stretch: Stretch) -> Grid:
        grid = self.grid
        off = (stretch.offset - self.offset) % grid.unit if self.turned else 0
        if not off:
            return grid
        return grid._replace(
            offsets=tuple(sorted((each - off) % grid.unit for each in grid.offsets))
        )

    def _days_from(self, stretch: Stretch, day: int, end: int) -> Iterator[int]:
        """Yield the days from `day` on that may have an instant, to before the wall time `end`."""
        cycle, live = self._live(stretch)
        found, left = day, 0 if live == () else LOOKED_MOST
        while left > 0:
            if live:
                found += _ahead(live, cycle, found)
            following = self.days.first(found)
            if following is None or following * DAY >= end:
                return
            left -= 1 + (following - found) // 366
            if following == found or live is None:
                yield following
                following, left = following + 1, max(left, LOOKED_MOST // 2)
            found = following
        if live != ():
            raise Costly(SELDOM)

    def _days_to(self, stretch: Stretch, day: int, begin: int) -> Iterator[int]:
        """Yield the days from `day` back that may have an instant, to the wall time `begin`."""
        cycle, live = self._live(stretch)
        found, left = day, 0 if live == () else LOOKED_MOST
        while left > 0:
            if live:
                found -= _behind(live, cycle, found)
            following = self.days.last(found + 1)
            if following is None or following * DAY + DAY <= begin:
                return
            left -= 1 + (found - following) // 366
            if following == found or live is None:
                yield following
                following, left = following - 1, max(left, LOOKED_MOST // 2)
            found = following
        if live != ():
            raise Costly(SELDOM)

    def _live(self, stretch: Stretch) -> tuple[int, tuple[int, ...] | None]:
        """Return as `live_days` does; where all days are alike, none or any may be live."""
        if DAY % self.grid.step == 0:
            return 1, None if self._times(stretch, 0).within(0, DAY) else ()
        origin = (self.origin + stretch.offset) % self.grid.step
        return live_days(self.grid, origin)


def _ahead(live: tuple[int, ...], cycle: int, day: int) -> int:
    """Return how many days it is to the next day that is live."""
    now = day % cycle
    place = bisect_left(live, now)
    return live[place] - now if place < len(live) else live[0] + cycle - now


def _behind(live: tuple[int, ...], cycle: int, day: int) -> int:
    """Return how many days it is back to the last day that is live."""
    now = day % cycle
    place = bisect_left(live, now + 1)
    return now - live[place - 1] if place else now + cycle - live[-1]


def steps_of(parts: Parts, zone: str, start: int) -> Steps:
    """Return the instants of a rule that begins at an instant. Raises ValueError."""
    unit = UNITS[parts.freq]
    offset = stretch_in(zone, start).offset
    within = (start + offset) % unit
    clock = Clock(
        parts.byhour,
        parts.byminute if unit <= 60 else (),
        parts.bysecond if unit == 1 else (),
    )
    offsets: tuple[int, ...] = (0,)
    if unit > 1:
        minutes = (parts.byminute or (within // 60,)) if unit == 3600 else (0,)
        offsets = tuple(60 * m + s for m in minutes for s in parts.bysecond or (within % 60,))
    if parts.bysetpos:
        many = len(offsets)
        places = {pos - 1 if pos > 0 else many + pos for pos in parts.bysetpos}
        offsets = tuple(offsets[place] for place in sorted(places) if 0 <= place < many)
        if not offsets:
            raise ValueError(f"BYSETPOS picks from {many} a step, and names none of those")
    explicit = parts.byminute if unit == 3600 else parts.bysecond if unit == 60 else ()
    turned = bool(explicit) and zone != "UTC"
    grid, days = Grid(unit, parts.interval * unit, offsets, clock), days_of(parts, start // DAY)
    plain = len(offsets) == 1 and not any(clock) and days.named == EVERY_DAY and not turned
    return Steps(zone, start, start - within, grid, days, turned, offset, plain)
