"""By the calendar and the clock on the wall: a cron expression in a time zone.

Daylight saving, as Debian's cron and cronsim have it: a fixed time (five fields, neither the
minute nor the hour beginning with a star) that the clock leaps over is due at the end of the gap,
one that comes twice is due the first time, and instants that meet are one. Everything else, six
fields too, is due whenever the wall clock shows a match: it follows elapsed time.

A question costs about 10 µs, and 30 µs for each year that it spans, however often it is due.
"""

from collections.abc import Iterator
from datetime import date

import msgspec

from scheduler.triggers.pattern import EPOCH_DAY, Pattern, pattern
from scheduler.triggers.zones import CEILING, DAY, FLOOR, Stretch, check_zone, stretch_at

NAMED_MOST = 3
"""How many wall times a note names."""


class Cron(msgspec.Struct, tag_field="kind", tag="cron", frozen=True, gc=False):
    """Due as `expression` says, on the wall clock of `timezone` (IANA); raises ValueError."""

    expression: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        pattern(self.expression)
        check_zone(self.timezone)

    def next(self, after: int) -> int | None:
        """Return the first instant later than `after`."""
        rule, at = pattern(self.expression), max(after // 1000 + 1, FLOOR)
        while at < CEILING:
            stretch = stretch_at(self.timezone, at)
            if at == stretch.start and _leapt(rule, stretch):
                return at * 1000
            wall = rule.first(max(at + stretch.offset, _begin(rule, stretch)))
            if wall is None:
                return None
            if wall < stretch.end + stretch.offset:
                return (wall - stretch.offset) * 1000
            # No clock is two days off: until then there is nothing in any other stretch either, but
            # for what was behind us here, and comes again there.
            at = stretch.end if self._goes_back(stretch, at) else max(stretch.end, wall - 2 * DAY)
        return None

    def last(self, after: int, until: int) -> int | None:
        """Return the last instant in (after, until]."""
        rule, least = pattern(self.expression), max(after // 1000 + 1, FLOOR)
        at = min(until // 1000, CEILING - 1)
        while at >= least:
            stretch = stretch_at(self.timezone, at)
            wall = rule.last(at + stretch.offset + 1)
            if wall is not None and wall >= _begin(rule, stretch):
                found = wall - stretch.offset
                return found * 1000 if found >= least else None
            if _leapt(rule, stretch):
                return stretch.start * 1000 if stretch.start >= least else None
            if wall is None:
                return None
            came_before = at + stretch.offset + 1 < stretch.fresh
            at = stretch.start - 1 if came_before else min(stretch.start - 1, wall + 2 * DAY)
        return None

    def count(self, after: int, until: int) -> int:
        """Return how many instants lie in (after, until]."""
        rule, at = pattern(self.expression), max(after // 1000 + 1, FLOOR)
        end, total = min(until // 1000 + 1, CEILING), 0
        while at < end:
            stretch = stretch_at(self.timezone, at)
            start = max(at + stretch.offset, _begin(rule, stretch))
            total += rule.count(start, min(end, stretch.end) + stretch.offset)
            if at == stretch.start and _leapt(rule, stretch):
                # Where the gap's end is named as well, the two are one.
                total += rule.first(at + stretch.offset) != at + stretch.offset
            at = stretch.end
        return total

    def between(self, after: int, until: int) -> Iterator[int]:
        """Yield the instants in (after, until], the earliest first."""
        at = self.next(after)
        while at is not None and at <= until:
            yield at
            at = self.next(at)

    def explain(self) -> str:
        """Return the expression in words."""
        return pattern(self.expression).explain()

    def note(self, at: int) -> str | None:
        """Return what daylight saving did to an instant (ms); None where it did nothing."""
        rule, second = pattern(self.expression), at // 1000
        stretch = stretch_at(self.timezone, second)
        wall = second + stretch.offset
        if rule.fixed:
            if second == stretch.start and _leapt(rule, stretch):
                names, many = _lost(rule, stretch, wall // DAY)
                return f"{names}; {'fire once, at' if many else 'fires at'} {_face(wall)}"
            twice, times = self._comes_again(stretch, wall), "the first time"
        elif rule.hourly:
            return None  # it follows elapsed time, and nobody expects another
        else:
            twice, times = wall < stretch.fresh or self._comes_again(stretch, wall), "both times"
        if twice:
            return f"{_face(wall)} comes twice on this day; fires {times}"
        return self._dropped(rule, stretch, second)

    def _goes_back(self, stretch: Stretch, at: int) -> bool:
        """Say whether the clock is put back at the end of a stretch, to before its time at `at`."""
        after = stretch_at(self.timezone, min(stretch.end, CEILING - 1))
        return after.start + after.offset < at + stretch.offset

    def _comes_again(self, stretch: Stretch, wall: int) -> bool:
        """Say whether the clock is put back at the end of a stretch, behind a wall time."""
        after = stretch_at(self.timezone, min(stretch.end, CEILING - 1))
        return after.start + after.offset <= wall < after.fresh

    def _dropped(self, rule: Pattern, stretch: Stretch, second: int) -> str | None:
        """Return which wall times between the instant before and this one never were."""
        start = stretch.start + stretch.offset
        if rule.fixed or not rule.count(stretch.missing, start):
            return None
        if rule.first(start) != second + stretch.offset:
            return None  # another instant stands between
        names, many = _lost(rule, stretch, second // DAY)
        return f"before it, {names}; {'are' if many else 'is'} dropped"


def _begin(rule: Pattern, stretch: Stretch) -> int:
    """Return the wall time from which on a stretch's matches count."""
    return stretch.fresh if rule.fixed else stretch.start + stretch.offset


def _leapt(rule: Pattern, stretch: Stretch) -> bool:
    """Say whether a fixed time lies in the gap before a stretch, and so is due at its start."""
    end = stretch.start + stretch.offset
    if not rule.fixed or stretch.missing == end:
        return False
    wall = rule.first(stretch.missing)
    return wall is not None and wall < end


def _lost(rule: Pattern, stretch: Stretch, today: int) -> tuple[str, bool]:
    """Return the wall times in the gap before a stretch, in words, and whether they are many."""
    end = stretch.start + stretch.offset
    count, walls = rule.count(stretch.missing, end), [rule.first(stretch.missing) or 0]
    while len(walls) < min(count, NAMED_MOST):
        walls.append(rule.first(walls[-1] + 1) or 0)
    names = [_face(wall) for wall in walls]
    if count > NAMED_MOST:
        names.append(f"{count - NAMED_MOST} more")
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if count > 1 else names)
    day = stretch.missing // DAY
    on = "this day" if day == today else date.fromordinal(day + EPOCH_DAY).isoformat()
    return f"{listed} {'do' if count > 1 else 'does'} not exist on {on}", count > 1


def _face(wall: int) -> str:
    hour, minute, second = wall // 3600 % 24, wall // 60 % 60, wall % 60
    return f"{hour:02}:{minute:02}" + (f":{second:02}" if second else "")
