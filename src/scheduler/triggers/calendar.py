"""What a calendar excludes, by its rules: days, hours of the week, events; pure.

A rule speaks of the clock on the wall: an instant is excluded where that shows a time in the rule's
range. So an hour that comes twice is excluded twice, and a day is as long as it is there.
Inside, times are whole seconds since 1970; a wall clock's are what its face would be, read as UTC.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache

import msgspec

from scheduler.triggers.rrule import Rrule
from scheduler.triggers.rrule_text import read_text
from scheduler.triggers.zones import CEILING, DAY, FLOOR, stretch_at

WEEK = 7 * DAY
MONDAY = -3 * DAY
"""29 December 1969, the Monday before 1970 began."""
MARGIN = 2 * DAY
"""No clock is further off than that."""
GO = 28 * DAY + 2 * MARGIN
"""What is worked out in one go, with what lies about it."""

Span = tuple[int, int]
"""[start, end)."""


class Weekly(msgspec.Struct, frozen=True, gc=False):
    """A part of some days of each week; `start` and `end` in minutes of the day.

    One that ends where it starts, or before, goes on into the next day.
    """

    days: tuple[int, ...]
    """From 0, Monday, to 6."""
    start: int = 0
    end: int = 1440


class Event(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An event, [start, end) on the wall clock of `zone`; `rule` is an RRULE, by which it recurs.

    `zone` is None where it is the calendar's. None of those that start at a time in `without`.
    """

    start: int
    end: int
    zone: str | None = None
    rule: str | None = None
    without: tuple[int, ...] = ()

    @property
    def spans_most(self) -> int:
        """How many of a rule's may lie in what is worked out in one go, at the very most."""
        if self.rule is None:
            return 0
        days = GO // DAY + -(-(self.end - self.start) // DAY)
        return days * max(parts.times_most for parts in read_text(self.rule).rules)

    def between(self, since: int, until: int) -> Iterator[Span]:
        """Yield those that lie at least in part in [since, until), on the wall clock."""
        length = self.end - self.start
        if self.rule is None:
            if self.start < until and self.end > since:
                yield self.start, self.end
            return
        gone = frozenset(self.without)
        for at in _rule(self.rule, self.start).between((since - length) * 1000, until * 1000 - 1):
            if at // 1000 not in gone:
                yield at // 1000, at // 1000 + length


@lru_cache(4096)
def _rule(text: str, start: int) -> Rrule:
    """Return a rule on a clock that is never put forward or back: a wall's face is all it knows."""
    return Rrule(text, "UTC", start * 1000)


class Rules(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a calendar excludes, on the wall clock of `timezone` where nothing else is said."""

    timezone: str = "UTC"
    dates: tuple[Span, ...] = ()
    """Days since 1970, first and last."""
    weekly: tuple[Weekly, ...] = ()
    events: tuple[Event, ...] = ()

    @property
    def work(self) -> int:
        """How many times are looked at to work out a month, at the very most."""
        weeks = GO // WEEK + 2
        recurring = sum(event.spans_most for event in self.events)
        return weeks * len(_week(self.weekly)) + len(self.dates) + len(self.events) + recurring

    def between(self, since: int, until: int) -> list[Span]:
        """Return what is excluded of [since, until), in ms since 1970: in order, and apart."""
        start, end = max(since // 1000, FLOOR), min(until // 1000, CEILING)
        walls = defaultdict[str, list[Span]](list)
        low, high = start - MARGIN, end + MARGIN
        walls[self.timezone] += self._dates(low, high)
        walls[self.timezone] += self._weekly(low, high)
        for event in self.events:
            walls[event.zone or self.timezone] += event.between(low, high)
        found = list[Span]()
        for zone, spans in walls.items():
            found += _instants(zone, merged(spans), start, end)
        return [(s * 1000, e * 1000) for s, e in merged(found)]

    def dwell(self, event: Event, since: int, until: int) -> None:
        """Work out when an event recurs about [since, until), so that it is known."""
        for _ in event.between(since // 1000 - MARGIN, until // 1000 + MARGIN):
            pass

    def _dates(self, low: int, high: int) -> list[Span]:
        spans = ((first * DAY, (last + 1) * DAY) for first, last in self.dates)
        return [(s, e) for s, e in spans if s < high and e > low]

    def _weekly(self, low: int, high: int) -> Iterator[Span]:
        parts = _week(self.weekly)
        if not parts:
            return
        for monday in range((low - MONDAY) // WEEK * WEEK + MONDAY - WEEK, high, WEEK):
            for start, end in parts:
                yield monday + start, monday + end


@lru_cache(1024)
def _week(weekly: tuple[Weekly, ...]) -> list[Span]:
    """Return the parts of a week, in seconds from Monday on; the last may reach into the next."""
    parts = list[Span]()
    for each in weekly:
        length = each.end - each.start
        length += 0 if length > 0 else 1440
        parts += [
            (day * DAY + each.start * 60, day * DAY + (each.start + length) * 60)
            for day in each.days
        ]
    return merged(parts)


def merged(spans: Iterable[Span]) -> list[Span]:
    """Return spans in order, those that touch made one."""
    found = list[Span]()
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        elif start < end:
            found.append((start, end))
    return found


def _instants(zone: str, walls: list[Span], start: int, end: int) -> Iterator[Span]:
    """Yield when in [start, end) a zone's wall clock shows a time in one of these spans."""
    while walls and start < end:
        stretch = stretch_at(zone, start)
        until = min(stretch.end, end)
        for low, high in walls:
            first, last = max(low - stretch.offset, start), min(high - stretch.offset, until)
            if first < last:
                yield first, last
        start = until
