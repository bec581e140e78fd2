"""A recurrence set (RFC 5545, 3.8.5): what rules and dates name together, but for the exceptions.

Times are whole seconds since 1970, ranges [low, high).
"""

from bisect import bisect_left
from collections.abc import Iterator
from heapq import merge
from typing import NamedTuple

from scheduler.triggers.rrule_clock import DstGap, DstOverlap, Wall, instants_of, stretch_in
from scheduler.triggers.rrule_days import EVERY_DAY
from scheduler.triggers.rrule_parts import Costly, Parts
from scheduler.triggers.rrule_steps import Steps, steps_of
from scheduler.triggers.rrule_text import Stamp, Text, read_stamp
from scheduler.triggers.rrule_walls import Walls, walls_of
from scheduler.triggers.zones import CEILING, DAY, FLOOR

EXCLUDED_MOST = 4500
"""So many instants in a row may be taken away."""
ONE_BY_ONE, AT_ONCE = 6, 3500
"""The first of those are asked about apart; the others together, so many at most."""
COUNTED_MOST = 100_000
"""So many are looked at one by one where rules overlap."""
WALLS_REACH, STEPS_REACH = 1500 * 366 * DAY, 40 * 366 * DAY
"""So long after DTSTART the end is sought that COUNT makes."""
PROVEN, PROVEN_DAYS, OVERLAPS_MOST = 50, 100, 20_000
"""A set is accepted that gives so many instants ahead, and whose rules meet no more than that."""
AHEAD_DAYS, PROBE_DAYS, PROBE_MOST = 400, 25, 3000
"""For so long it is looked at what the rules take from each other, and every so many days whether
there is an instant near: what is taken away may lie in another season."""

Rule = Wall | Steps


class Place(NamedTuple):
    """Where a rule is at home: what its text leaves open."""

    zone: str
    start: int
    """DTSTART, a wall time of the zone."""
    gap: DstGap
    overlap: DstOverlap


class Dates(NamedTuple):
    """Instants, and whole days of a zone."""

    at: tuple[int, ...]
    days: frozenset[int] = frozenset()
    zone: str = "UTC"

    def hold(self, at: int) -> bool:
        """Say whether an instant is one of them."""
        if self.days and (at + stretch_in(self.zone, at).offset) // DAY in self.days:
            return True
        place = bisect_left(self.at, at)
        return place < len(self.at) and self.at[place] == at


class Recurrence(NamedTuple):
    """The rules, the dates, and what is taken away from both."""

    rules: tuple[Rule, ...]
    dates: Dates
    exrules: tuple[Rule, ...]
    exdates: Dates

    def first(self, at: int, most: int = EXCLUDED_MOST) -> int | None:
        """Return the first instant at or after `at`; `most` may be taken away. Raises Costly."""
        begin: int | None = None
        for _ in range(ONE_BY_ONE):
            found = self._first(at)
            if found is None or not self.excludes(found):
                return found
            begin, at = begin or found, found + 1
        reach, left = at - (begin or at), most
        while found is not None:
            low, high = found, min(found + reach, CEILING)
            clear, looked = self._clear(low, high)
            if clear:
                return clear[0]
            if looked > AT_ONCE:
                reach = max(reach // 2, 1)
                continue
            left, reach = _left(left, looked, most), reach * 2
            found = self._first(high)
        return None

    def last(self, before: int) -> int | None:
        """Return the last instant before `before`. Raises Costly."""
        end: int | None = None
        for _ in range(ONE_BY_ONE):
            found = self._last(before)
            if found is None or not self.excludes(found):
                return found
            end, before = end or found, found
        reach, left = (end or before) - before + 1, EXCLUDED_MOST
        while found is not None:
            low, high = max(found + 1 - reach, FLOOR), found + 1
            clear, looked = self._clear(low, high)
            if clear:
                return clear[-1]
            if looked > AT_ONCE:
                reach = max(reach // 2, 1)
                continue
            left, reach = _left(left, looked, EXCLUDED_MOST), reach * 2
            found = self._last(low)
        return None

    def _clear(self, low: int, high: int) -> tuple[list[int], int]:
        """Return what is not taken away of [low, high), and how many instants were looked at.

        More than AT_ONCE are not: then there are none.
        """
        every = [*self.rules, *self.exrules]
        looked = max(rule.within(low, high) for rule in every) if high - low > AT_ONCE else 0
        if looked > AT_ONCE:
            return [], looked
        named = set(self._walk(low, high))
        looked = max(looked, len(named))
        for rule in self.exrules:
            named.difference_update(rule.walk(low, high))
        return sorted(at for at in named if not self.exdates.hold(at)), looked

    def within(self, low: int, high: int) -> int:
        """Return how many instants lie in [low, high). Raises Costly."""
        low, high = max(low, FLOOR), min(high, CEILING)
        counts = [rule.within(low, high) for rule in self.rules]
        total, looked = max(counts, default=0), sum(counts)
        if len(self.rules) > 1 or self.dates.at:
            # Of several, the one with the most is counted, and the others looked through.
            most = counts.index(total) if counts else -1
            others = [rule for n, rule in enumerate(self.rules) if n != most]
            known = self.rules[most] if counts else None
            extra = _merged([*(r.walk(low, high) for r in others), self._dates(low, high)])
            _affordable(looked - total)
            total += sum(known is None or not has(known, at) for at in extra)
        return total - self._excluded(low, high, total)

    def walk(self, low: int, high: int) -> Iterator[int]:
        """Yield the instants in [low, high)."""
        found = self._walk(low, high)
        if not (self.exrules or any(self.exdates[:2])):
            return found
        return (at for at in found if not self.excludes(at))

    def has(self, at: int) -> bool:
        """Say whether an instant is one of the set."""
        return self._named(at) and not self.excludes(at)

    @property
    def dead(self) -> bool:
        """Say whether one of its rules names no day."""
        every = (*self.rules, *self.exrules)
        days = (rule.days if isinstance(rule, Steps) else rule.walls.days for rule in every)
        return any(each.first(0) is None for each in days)

    def prove(self, now: int) -> None:
        """Ask what will be asked from `now` on. Raises Costly."""
        self.last(now)
        at = self.first(now)
        begin = now if at is None else at
        for low in range(begin, begin + AHEAD_DAYS * DAY, PROVEN_DAYS * DAY):
            overlaps = self._overlaps(low, low + PROVEN_DAYS * DAY)
            if overlaps > OVERLAPS_MOST:
                raise Costly(f"its rules meet {overlaps} times in {PROVEN_DAYS} days; use BY parts")
        if self.exrules:
            for low in range(begin, begin + AHEAD_DAYS * DAY, PROBE_DAYS * DAY):
                self.first(low, PROBE_MOST)
        for _ in range(PROVEN):
            at = None if at is None else self.first(at + 1)
        passed = now
        for gone in (*self.exdates.at, *(day * DAY for day in sorted(self.exdates.days))):
            if gone > passed:  # the next of those that are taken away in a row
                at = self.first(gone - 2 * DAY)
                passed = gone if at is None else max(at, gone)

    def _overlaps(self, low: int, high: int) -> int:
        """Return how many instants are looked at one by one where they are counted."""
        counts = sorted(rule.within(low, high) for rule in self.rules)
        excluded = sum(rule.within(low, high) for rule in self.exrules)
        return sum(counts[:-1]) + min(sum(counts), excluded)

    def excludes(self, at: int) -> bool:
        """Say whether an instant is taken away."""
        return self.exdates.hold(at) or any(has(rule, at) for rule in self.exrules)

    def _named(self, at: int) -> bool:
        return any(has(rule, at) for rule in self.rules) or self.dates.hold(at)

    def _first(self, at: int) -> int | None:
        found = [rule.first(at) for rule in self.rules]
        found += self.dates.at[(place := bisect_left(self.dates.at, at)) : place + 1]
        return min((each for each in found if each is not None), default=None)

    def _last(self, before: int) -> int | None:
        found = [rule.last(before) for rule in self.rules]
        place = bisect_left(self.dates.at, before)
        found += self.dates.at[max(place - 1, 0) : place]
        return max((each for each in found if each is not None), default=None)

    def _walk(self, low: int, high: int) -> Iterator[int]:
        if len(self.rules) == 1 and not self.dates.at:
            return self.rules[0].walk(low, high)
        return _merged([*(rule.walk(low, high) for rule in self.rules), self._dates(low, high)])

    def _dates(self, low: int, high: int) -> Iterator[int]:
        at = self.dates.at
        return iter(at[bisect_left(at, low) : bisect_left(at, high)])

    def _excluded(self, low: int, high: int, total: int) -> int:
        """Return how many of the named instants are taken away."""
        if not self.exrules:
            return self._dated_out(low, high)
        excluded = sum(rule.within(low, high) for rule in self.exrules)
        if total <= excluded:
            _affordable(total)
            return sum(self.excludes(at) for at in self._walk(low, high))
        _affordable(excluded)
        taken_away = _merged([rule.walk(low, high) for rule in self.exrules])
        gone = sum(self._named(at) and not self.exdates.hold(at) for at in taken_away)
        return gone + self._dated_out(low, high)

    def _dated_out(self, low: int, high: int) -> int:
        """Return how many of the named instants EXDATE takes away."""
        taken = {at for at in self.exdates.at if low <= at < high}
        for day in self.exdates.days:
            begin = day * DAY - 2 * DAY
            near = self._walk(max(begin, low), min(begin + 5 * DAY, high))
            taken.update(at for at in near if self._is_on(at, day))
        return sum(self._named(at) for at in taken)

    def _is_on(self, at: int, day: int) -> bool:
        zone = self.exdates.zone
        return (at + stretch_in(zone, at).offset) // DAY == day


def has(rule: Rule, at: int) -> bool:
    """Say whether an instant is one of a rule's."""
    return rule.first(at) == at


def _left(left: int, looked: int, most: int) -> int:
    """Return how many more instants may be taken away in a row. Raises Costly."""
    if looked >= left:
        raise Costly(f"EXRULE or EXDATE takes away {most} instants in a row")
    return left - looked


def _affordable(steps: int) -> None:
    if steps > COUNTED_MOST:
        raise Costly(f"counting takes more than {COUNTED_MOST} steps")


def _merged(streams: list[Iterator[int]]) -> Iterator[int]:
    """Yield what sorted streams hold, each instant once."""
    before = None
    for at in merge(*streams):
        if at != before:
            yield at
        before = at


def compiled(text: Text, place: Place, ends: tuple[int | None, ...]) -> Recurrence:
    """Return the set that a text means. Raises ValueError.

    `ends` has for each RRULE, and then each EXRULE, the last time that COUNT leaves, on the wall
    clock (an instant, for those that step over elapsed time); where it has nothing, that is sought.
    """
    bounds = ends or (None,) * (len(text.rules) + len(text.exrules))
    rules = [rule_of(parts, place, end) for parts, end in zip(text.rules, bounds, strict=False)]
    after = bounds[len(text.rules) :]
    exrules = [rule_of(parts, place, end) for parts, end in zip(text.exrules, after, strict=False)]
    kept = dict.fromkeys(rule for rule in rules if rule not in exrules)
    dates = Dates(tuple(sorted({at for stamp in text.rdates for at in _instants(stamp, place)})))
    both = place._replace(gap="shift" if place.gap == "skip" else place.gap, overlap="both")
    gone = {at for s in text.exdates if not s.dated for at in _instants(s, both)}
    days = frozenset(stamp.wall // DAY for stamp in text.exdates if stamp.dated)
    exdates = Dates(tuple(sorted(gone)), days, place.zone)
    return Recurrence(tuple(kept), dates, tuple(dict.fromkeys(exrules)), exdates)


def _instants(stamp: Stamp, place: Place) -> list[int]:
    return instants_of(stamp.zone or place.zone, stamp.wall, place.gap, place.overlap)


def rule_of(parts: Parts, place: Place, end: int | None) -> Rule:
    """Return the instants that one rule means. Raises ValueError."""
    until = None if parts.until is None else read_stamp("UNTIL", parts.until)
    zone = place.zone
    if parts.elapsed:
        (start,) = instants_of(zone, place.start, "shift", "first")
        steps = steps_of(parts, zone, start)
        if until is not None:
            end = max(instants_of(until.zone or zone, _inclusive(until), "shift", "both"))
        elif parts.count is not None and end is None:
            end = _nth(steps, start, parts.count)
        return steps if end is None else steps._replace(until=min(end, CEILING))
    walls = walls_of(parts, place.start)
    last = CEILING
    if until is not None and until.zone is not None:
        last, end = until.wall, until.wall + 2 * DAY  # no clock is further ahead: nothing is sought
    elif until is not None:
        end = _inclusive(until)
    elif parts.count is not None and end is None:
        end = _nth(walls, place.start, parts.count)
    if end is not None:
        walls = walls._replace(end=min(end, CEILING))
    return Wall(walls, zone, place.gap, place.overlap, last)


def _inclusive(until: Stamp) -> int:
    """Return the last second that UNTIL leaves: a date bounds inclusively, the day is in it."""
    return until.wall + DAY - 1 if until.dated else until.wall


def _nth(of: Walls | Steps, start: int, count: int) -> int:
    """Return the time of the `count`-th from `start` on; the end of time where that is too far."""
    cheap = of.plain if isinstance(of, Steps) else of.days.named == EVERY_DAY and not of.setpos
    reach_most = STEPS_REACH if isinstance(of, Steps) else WALLS_REACH
    limit = CEILING if cheap else min(start + reach_most, CEILING)
    low, reach, left = start, 400 * DAY, count
    while (found := of.within(low, low + reach)) < left:
        low, reach, left = low + reach, reach * 2, left - found
        if low >= CEILING:
            return CEILING
        if low >= limit:
            raise Costly("COUNT leaves too many instants to count; send UNTIL instead")
    high = low + reach
    while high - low > 1:
        middle = (low + high) // 2
        found = of.within(low, middle)
        if found < left:
            low, left = middle, left - found
        else:
            high = middle
    return low


def ends_of(text: Text, place: Place) -> tuple[int | None, ...]:
    """Return where COUNT ends each rule, as `compiled` takes it."""
    return tuple(
        None if parts.count is None else _end(rule_of(parts, place, None))
        for parts in (*text.rules, *text.exrules)
    )


def _end(rule: Rule) -> int:
    return rule.until if isinstance(rule, Steps) else rule.walls.end
