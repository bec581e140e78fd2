"""A wall-clock rule in a zone; where the clock is put forward or back, the user's rule decides.

Times are whole seconds since 1970. RFC 5545, 3.3.10 and 3.3.5: a time that does not exist is read
with the offset before the gap (`shift`), one that comes twice means the first.
"""

from collections.abc import Iterator
from heapq import merge
from typing import Literal, NamedTuple

from scheduler.triggers.rrule_walls import Walls
from scheduler.triggers.zones import CEILING, DAY, FLOOR, Part, Stretch, stretch_at

DstGap = Literal["skip", "shift", "end"]
DstOverlap = Literal["first", "second", "both"]
ALL_TIME = Stretch(FLOOR - 4 * DAY, CEILING + 4 * DAY, 0, FLOOR - 4 * DAY, FLOOR - 4 * DAY)


def stretch_in(zone: str, at: int) -> Stretch:
    """Return the stretch that holds an instant; UTC is one."""
    return ALL_TIME if zone == "UTC" else stretch_at(zone, min(max(at, FLOOR), CEILING - 1))


def again_from(zone: str, stretch: Stretch) -> int:
    """Return the wall time from which on a stretch's times come again after it; else its end."""
    after, end = stretch, stretch.end + stretch.offset
    while after.end < min(stretch.end + DAY, CEILING):
        after = stretch_at(zone, after.end)
        end = min(end, after.start + after.offset)
    return end


class Wall(NamedTuple):
    """A rule of DAILY or more: its instants."""

    walls: Walls
    zone: str
    gap: DstGap
    overlap: DstOverlap
    until: int = CEILING
    """The last instant that may be one."""

    def first(self, at: int) -> int | None:
        """Return the first instant at or after `at`."""
        at = max(at, FLOOR)
        while at <= self.until and at < CEILING:
            stretch = stretch_in(self.zone, at)
            wall = self.walls.first(max(at + stretch.offset, self._begin(stretch)))
            moved = self._moved(stretch, at)
            if wall is not None and wall < self._stop(stretch):
                found = wall - stretch.offset
                found = found if moved is None else min(found, moved)
                return found if found <= self.until else None
            if moved is not None:
                return moved if moved <= self.until else None
            after = stretch_in(self.zone, stretch.end)
            back = after.start + after.offset < at + stretch.offset  # and some come again
            if wall is None and not back:
                return None
            at = stretch.end if back or wall is None else max(stretch.end, wall - 2 * DAY)
        return None

    def last(self, before: int) -> int | None:
        """Return the last instant before `before`."""
        at = min(before - 1, self.until, CEILING - 1)
        while at >= FLOOR:
            stretch = stretch_in(self.zone, at)
            end = at + stretch.offset + 1
            wall = self.walls.last(min(end, self._stop(stretch)))
            found = None if wall is None or wall < self._begin(stretch) else wall - stretch.offset
            moved = self._moved_last(stretch, at)
            if found is not None or moved is not None:
                return max(each for each in (found, moved) if each is not None)
            came_before = end < stretch.fresh
            if wall is None and not came_before:
                return None
            jump = stretch.start - 1 if wall is None or came_before else wall + 2 * DAY
            at = min(stretch.start - 1, jump)
        return None

    def within(self, low: int, high: int) -> int:
        """Return how many instants lie in [low, high)."""
        return sum(
            self.walls.within(part.low, part.high) + len(part.moved)
            for part in self.parts(low, high)
        )

    def parts(self, low: int, high: int) -> Iterator[Part]:
        """Yield the parts of [low, high) in which the wall clock is as far off."""
        low, high = self._bounded(low, high)
        while low < high:
            stretch = stretch_in(self.zone, low)
            moved = list[int]()
            if stretch.missing < stretch.start + stretch.offset and low < _reach(stretch):
                moved = [at for at in self._alone(stretch) if low <= at < high]
            yield Part(
                max(low + stretch.offset, self._begin(stretch)),
                min(high + stretch.offset, self._stop(stretch)),
                stretch.offset,
                moved,
            )
            low = stretch.end

    def walk(self, low: int, high: int) -> Iterator[int]:
        """Yield the instants in [low, high)."""
        low, high = self._bounded(low, high)
        while low < high:
            stretch = stretch_in(self.zone, low)
            offset = stretch.offset
            walls = self.walls.walk(
                max(low + offset, self._begin(stretch)), min(high + offset, self._stop(stretch))
            )
            instants = (wall - offset for wall in walls)
            if stretch.missing < stretch.start + offset and low < _reach(stretch):
                moved = [at for at in self._alone(stretch) if low <= at < high]
                yield from merge(instants, moved)
            else:
                yield from instants
            low = stretch.end

    def _bounded(self, low: int, high: int) -> tuple[int, int]:
        """Return the part of a range that may hold instants: no clock is two days off."""
        low = max(low, FLOOR, self.walls.start - 2 * DAY)
        return low, min(high, self.until + 1, self.walls.end + 2 * DAY, CEILING)

    def _begin(self, stretch: Stretch) -> int:
        """Return the wall time from which on a stretch's count."""
        return stretch.fresh if self.overlap == "first" else stretch.start + stretch.offset

    def _stop(self, stretch: Stretch) -> int:
        """Return the wall time until which a stretch's count."""
        if self.overlap == "second" and self.zone != "UTC":
            return again_from(self.zone, stretch)
        return stretch.end + stretch.offset

    def _moved(self, stretch: Stretch, at: int) -> int | None:
        """Return the first instant, at or after `at`, of a time in the gap before a stretch."""
        lost, end = stretch.missing, stretch.start + stretch.offset
        if lost == end or self.gap == "skip" or at >= _reach(stretch):
            return None
        if self.gap == "end":
            wall = self.walls.first(lost) if at <= stretch.start else None
            return stretch.start if wall is not None and wall < end else None
        wall = self.walls.first(lost + max(at - stretch.start, 0))
        return None if wall is None or wall >= end else stretch.start + wall - lost

    def _moved_last(self, stretch: Stretch, at: int) -> int | None:
        """Return the last instant, at or before `at`, of a time in the gap before a stretch."""
        lost, end = stretch.missing, stretch.start + stretch.offset
        if lost == end or self.gap == "skip":
            return None
        if self.gap == "end":
            wall = self.walls.first(lost)
            return stretch.start if wall is not None and wall < end else None
        wall = self.walls.last(min(lost + at - stretch.start + 1, end))
        return None if wall is None or wall < lost else stretch.start + wall - lost

    def _alone(self, stretch: Stretch) -> list[int]:
        """Return the instants of times in the gap before a stretch that no other time has."""
        lost, end = stretch.missing, stretch.start + stretch.offset
        if self.gap == "skip":
            return []
        if self.gap == "end":
            first = self.walls.first(lost)
            there = first is not None and first < end and self.walls.first(end) != end
            return [stretch.start] if there else []
        ahead = end - lost
        own = set(self.walls.walk(end, end + ahead))
        return [
            stretch.start + wall - lost
            for wall in self.walls.walk(lost, end)
            if wall + ahead not in own
        ]


def _reach(stretch: Stretch) -> int:
    """Return the instant until which the times in the gap before a stretch may be moved."""
    return stretch.start + stretch.start + stretch.offset - stretch.missing


def instants_of(zone: str, wall: int, gap: DstGap, overlap: DstOverlap) -> list[int]:
    """Return the instants that a wall time has: none, one, or two."""
    if zone == "UTC":
        return [wall]
    found, at = [], wall - DAY
    while at < min(wall + DAY, CEILING):
        stretch = stretch_in(zone, at)
        here = wall - stretch.offset
        if stretch.start <= here < stretch.end:
            found.append(here)
        elif stretch.missing <= wall < stretch.start + stretch.offset and gap != "skip":
            moved = stretch.start + (wall - stretch.missing if gap == "shift" else 0)
            found.append(moved)
        at = stretch.end
    if len(found) > 1 and overlap != "both":
        return found[:1] if overlap == "first" else found[-1:]
    return found
