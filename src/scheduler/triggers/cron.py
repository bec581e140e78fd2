"""By the calendar and the clock on the wall: a cron expression in a time zone.

Daylight saving: a fixed time (five fields, neither the minute nor the hour beginning with a star)
that the clock leaps over is due as `dst_gap` says, one that comes twice as `dst_overlap` says, and
instants that meet are one. Unless told otherwise, at the end of the gap and the first time, as
Debian's cron and cronsim have it. Everything else, six fields too, is due whenever the wall clock
shows a match: it follows elapsed time.

A question costs about 10 µs, and 30 µs for each year that it spans, however often it is due.
"""

from collections.abc import Iterator
from datetime import date
from typing import NamedTuple

import msgspec

from scheduler.triggers.pattern import EPOCH_DAY, Pattern, pattern
from scheduler.triggers.rrule import DstGap, DstOverlap
from scheduler.triggers.zones import CEILING, DAY, FLOOR, Part, Stretch, check_zone, stretch_at

NAMED_MOST = 3
"""How many wall times a note names."""
TIMES = {"first": "the first time", "second": "the second time", "both": "both times"}


class Gap(NamedTuple):
    """Wall times [first, end) that the clock leaps over at the instant `at`, in seconds."""

    at: int
    first: int
    end: int


class Cron(msgspec.Struct, tag_field="kind", tag="cron", frozen=True, gc=False):
    """Due as `expression` says, on the wall clock of `timezone` (IANA); raises ValueError."""

    expression: str
    timezone: str = "UTC"
    dst_gap: DstGap = "end"
    """Of a fixed time that does not exist: not due, as much later as the clock leaps, or due when
    the clock has leapt."""
    dst_overlap: DstOverlap = "first"

    def __post_init__(self) -> None:
        pattern(self.expression)
        check_zone(self.timezone)

    def next(self, after: int) -> int | None:
        """Return the first instant later than `after`."""
        rule, at = pattern(self.expression), max(after // 1000 + 1, FLOOR)
        while at < CEILING:
            stretch = stretch_at(self.timezone, at)
            wall = rule.first(max(at + stretch.offset, self._begin(rule, stretch)))
            found = [] if wall is None else [wall - stretch.offset]
            if wall is not None and wall >= self._end(rule, stretch):
                found = []
            leapt = self._leapt(rule, stretch, at, stretch.end)
            found += [] if leapt is None else [leapt]
            if found:
                return min(found) * 1000
            if wall is None:
                return None
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
            wall = rule.last(min(at + stretch.offset + 1, self._end(rule, stretch)))
            found = [] if wall is None else [wall - stretch.offset]
            if wall is not None and wall < self._begin(rule, stretch):
                found = []
            leapt = self._last_leapt(rule, stretch, at)
            found += [] if leapt is None else [leapt]
            if found:
                return max(found) * 1000 if max(found) >= least else None
            if wall is None:
                return None
            came_before = at + stretch.offset + 1 < stretch.fresh
            at = stretch.start - 1 if came_before else min(stretch.start - 1, wall + 2 * DAY)
        return None

    def count(self, after: int, until: int) -> int:
        """Return how many instants lie in (after, until]."""
        rule, total = pattern(self.expression), 0
        for part in self.parts(after, until):
            total += rule.count(part.low, part.high) + len(part.moved)
        return total

    def parts(self, after: int, until: int) -> Iterator[Part]:
        """Yield the parts of (after, until] in which the wall clock is as far off."""
        rule, at = pattern(self.expression), max(after // 1000 + 1, FLOOR)
        end = min(until // 1000 + 1, CEILING)
        while at < end:
            stretch = stretch_at(self.timezone, at)
            low = max(at + stretch.offset, self._begin(rule, stretch))
            cut = min(end, stretch.end)
            high = min(cut + stretch.offset, self._end(rule, stretch))
            moved, leapt = list[int](), self._leapt(rule, stretch, at, cut)
            while leapt is not None:
                wall = leapt + stretch.offset  # where it is named as well, the two are one
                if not (low <= wall < high and rule.first(wall) == wall):
                    moved.append(leapt)
                leapt = self._leapt(rule, stretch, leapt + 1, cut)
            yield Part(low, high, stretch.offset, moved)
            at = stretch.end

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
            if self._leapt(rule, stretch, second, second + 1) is not None:
                return self._late(rule, second, wall)
            twice, times = self._comes_twice(stretch, wall), TIMES[self.dst_overlap]
        elif rule.hourly:
            return None  # it follows elapsed time, and nobody expects another
        else:
            twice, times = self._comes_twice(stretch, wall), "both times"
        if twice:
            return f"{_face(wall)} comes twice on this day; fires {times}"
        return self._dropped(rule, stretch, second)

    def _goes_back(self, stretch: Stretch, at: int) -> bool:
        """Say whether the clock is put back at the end of a stretch, to before its time at `at`."""
        after = stretch_at(self.timezone, min(stretch.end, CEILING - 1))
        return after.start + after.offset < at + stretch.offset

    def _comes_twice(self, stretch: Stretch, wall: int) -> bool:
        """Say whether the clock shows a wall time of a stretch a second time, or has done so."""
        return wall < stretch.fresh or wall >= _again(self.timezone, stretch)

    def _begin(self, rule: Pattern, stretch: Stretch) -> int:
        """Return the wall time from which on a stretch's matches count."""
        once = rule.fixed and self.dst_overlap == "first"
        return stretch.fresh if once else stretch.start + stretch.offset

    def _end(self, rule: Pattern, stretch: Stretch) -> int:
        """Return the wall time before which a stretch's matches count."""
        if rule.fixed and self.dst_overlap == "second":
            return _again(self.timezone, stretch)
        return stretch.end + stretch.offset

    def _leapt(self, rule: Pattern, stretch: Stretch, at: int, end: int) -> int | None:
        """Return the first instant in [at, end), a part of a stretch, that a leap has moved there.

        A fixed time may lie in the gap before the stretch.
        """
        gap = self._gap(rule, stretch)
        if gap is None:
            return None
        if self.dst_gap == "end":
            wall = rule.first(gap.first) if at <= gap.at < end else None
            return gap.at if wall is not None and wall < gap.end else None
        wall = rule.first(gap.first + max(at - gap.at, 0))
        if wall is None or wall >= gap.end:
            return None
        found = gap.at + wall - gap.first
        return found if found < end else None

    def _last_leapt(self, rule: Pattern, stretch: Stretch, at: int) -> int | None:
        """Return the last instant of a stretch up to `at` that a leap has moved there."""
        gap = self._gap(rule, stretch)
        if gap is None or self.dst_gap == "end":
            return self._leapt(rule, stretch, stretch.start, at + 1)
        wall = rule.last(min(gap.first + at - gap.at + 1, gap.end))
        if wall is None or wall < gap.first:
            return None
        found = gap.at + wall - gap.first
        return found if found >= stretch.start else None

    def _gap(self, rule: Pattern, stretch: Stretch) -> Gap | None:
        """Return the gap whose fixed times are due in a stretch, if any."""
        if not rule.fixed or self.dst_gap == "skip":
            return None
        before = stretch
        if stretch.missing == stretch.start + stretch.offset:  # it may be cut off from its gap
            before = stretch_at(self.timezone, max(stretch.start - 1, FLOOR))
            if before.offset != stretch.offset:
                return None
        end = before.start + before.offset
        return None if before.missing == end else Gap(before.start, before.missing, end)

    def _late(self, rule: Pattern, second: int, wall: int) -> str:
        """Return which wall times that never were make an instant due."""
        before = stretch_at(self.timezone, second)
        gap = self._gap(rule, before)
        if gap is None or self.dst_gap == "end":
            names, many = _lost(rule, before, wall // DAY)
            return f"{names}; {'fire once, at' if many else 'fires at'} {_face(wall)}"
        lost = gap.first + second - gap.at
        return f"{_face(lost)} does not exist on {_on(lost, wall)}; fires at {_face(wall)}"

    def _dropped(self, rule: Pattern, stretch: Stretch, second: int) -> str | None:
        """Return which wall times between the instant before and this one never were."""
        start = stretch.start + stretch.offset
        kept = rule.fixed and self.dst_gap != "skip"
        if kept or not rule.count(stretch.missing, start):
            return None
        if rule.first(start) != second + stretch.offset:
            return None  # another instant stands between
        names, many = _lost(rule, stretch, second // DAY)
        return f"before it, {names}; {'are' if many else 'is'} dropped"


def _again(zone: str, stretch: Stretch) -> int:
    """Return the wall time of a stretch from which on the clock shows all once more after it.

    That is its end, where the clock is not put back there.
    """
    after = stretch_at(zone, min(stretch.end, CEILING - 1))
    if after.offset == stretch.offset and after.end < stretch.end + DAY:  # it was cut in two
        after = stretch_at(zone, min(after.end, CEILING - 1))
    return min(stretch.end + stretch.offset, after.start + after.offset)


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
    on = _on(stretch.missing, today * DAY)
    return f"{listed} {'do' if count > 1 else 'does'} not exist on {on}", count > 1


def _on(wall: int, today: int) -> str:
    """Return the day of a wall time, as one says it on the day of another."""
    day = wall // DAY
    return "this day" if day == today // DAY else date.fromordinal(day + EPOCH_DAY).isoformat()


def _face(wall: int) -> str:
    hour, minute, second = wall // 3600 % 24, wall // 60 % 60, wall % 60
    return f"{hour:02}:{minute:02}" + (f":{second:02}" if second else "")
