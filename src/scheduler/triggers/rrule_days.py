"""Which days a rule names: python-dateutil expands a year of them, once for each kind of year.

Days are counted from 1970. What stands in a year depends on the weekday that it begins with, on its
length, and on that of the year before (weeks): there are 28 kinds. What INTERVAL leaves of it is
arithmetic; so no question walks from DTSTART, and the calendar's rarest day, a weekday on 29
February, is forty looks at a table away.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from functools import lru_cache
from itertools import compress
from typing import NamedTuple

from dateutil.rrule import YEARLY, rrule, weekday

from scheduler.triggers.rrule_parts import Parts
from scheduler.triggers.rrule_text import EPOCH_DAY

YEAR_LAST = 9998
WEEKS_FEW = 8
"""With steps of more weeks it is worth a look whether a year has any."""
MONTHS = {
    length: [date(year, month, 1).timetuple().tm_yday - 1 for month in range(1, 13)] + [length]
    for length, year in ((365, 2001), (366, 2000))
}
"""Where the months begin in a year of so many days."""


class Named(NamedTuple):
    """What a rule says of days, whatever its INTERVAL."""

    bymonth: tuple[int, ...] = ()
    bymonthday: tuple[int, ...] = ()
    byyearday: tuple[int, ...] = ()
    byweekno: tuple[int, ...] = ()
    byday: tuple[tuple[int, int], ...] = ()
    wkst: int = 0
    """Of the weeks that BYWEEKNO counts."""


class Days(NamedTuple):
    """The days of a rule; those before DTSTART, too, as if it had always been."""

    freq: str
    interval: int
    phase: int
    """The day, week, month or year since 1970 that DTSTART lies in, modulo `interval`."""
    wkst: int
    named: Named

    def first(self, day: int) -> int | None:
        """Return the first day at or after `day`."""
        year = self._step(year_of(day), 1)
        while year <= YEAR_LAST:
            days = self.in_year(year)
            if days and days[-1] >= day:
                return days[bisect_left(days, day)]
            year = self._step(year + 1, 1)
        return None

    def last(self, before: int) -> int | None:
        """Return the last day before `before`."""
        year = self._step(year_of(before), -1)
        while year >= 1:
            days = self.in_year(year)
            if days and days[0] < before:
                return days[bisect_left(days, before) - 1]
            year = self._step(year - 1, -1)
        return None

    def within(self, low: int, high: int) -> int:
        """Return how many days lie in [low, high)."""
        if low >= high:
            return 0
        if self.freq == "DAILY" and self.named == EVERY_DAY:
            return (high - 1 - self.phase) // self.interval - (
                low - 1 - self.phase
            ) // self.interval
        total, last = 0, year_of(high)
        year = self._step(year_of(low), 1)
        while year <= last:
            days = self.in_year(year)
            if days:
                total += bisect_left(days, high) - bisect_left(days, low)
            year = self._step(year + 1, 1)
        return total

    def walk(self, low: int, high: int) -> Iterator[int]:
        """Yield the days in [low, high)."""
        day = self.first(low)
        while day is not None and day < high:
            yield day
            day = self.first(day + 1)

    def in_year(self, year: int) -> Sequence[int]:
        """Return the days in a year."""
        if self.freq == "DAILY" and self.named == EVERY_DAY:
            start = _january(year)
            first = start + (self.phase - start) % self.interval
            return range(first, start + _length(year), self.interval)
        named = marks(self.named, KINDS[year % 400])
        if not named or (self.interval > 1 and not self._meets(named, year)):
            return ()
        return _in_year(self, year)

    def periods(self, year: int) -> Iterator[Sequence[int]]:
        """Yield the days of each period (a week, a month, a year) that begins in a year."""
        if self.freq == "WEEKLY":
            start = _january(year)
            low = start + (self.wkst - start - 3) % 7  # 1 January 1970 was a Thursday
            for week in range(low, start + _length(year), 7):
                if not (week_of(week, self.wkst) - self.phase) % self.interval:
                    both = (*self.in_year(year_of(week)), *self.in_year(year_of(week) + 1))
                    yield both[bisect_left(both, week) : bisect_left(both, week + 7)]
            return
        days = self.in_year(year)
        if self.freq == "YEARLY":
            yield days
            return
        start, begins = _january(year), MONTHS[_length(year)]
        for month in range(12):
            low, high = start + begins[month], start + begins[month + 1]
            yield days[bisect_left(days, low) : bisect_left(days, high)]

    def _meets(self, named: bytes, year: int) -> bool:
        """Say whether INTERVAL leaves any of the days that are named in a year."""
        if self.freq == "YEARLY":
            return not (year - 1970 - self.phase) % self.interval
        start, every = _january(year), self.interval
        if self.freq == "DAILY":
            return 1 in named[(self.phase - start) % every :: every]
        if self.freq == "WEEKLY" and every > WEEKS_FEW:
            week = week_of(start, self.wkst)
            first = (week + (self.phase - week) % every) * 7 + self.wkst - 3 - start
            weeks = range(first, len(named), 7 * every)
            return any(1 in named[max(at, 0) : at + 7] for at in weeks)
        return True

    def _step(self, year: int, way: int) -> int:
        """Return the next year, itself included, in which there may be days."""
        if self.freq != "YEARLY":
            return year
        off = (self.phase - (year - 1970)) % self.interval
        return year + off if way > 0 or not off else year + off - self.interval


EVERY_DAY = Named()
YEAR_STARTS = [date(year, 1, 1).toordinal() - EPOCH_DAY for year in range(1, 10_000)]
YEAR_STARTS.append(date.max.toordinal() - EPOCH_DAY + 1)


def days_of(parts: Parts, start: int) -> Days:
    """Return the days of a rule that begins on a day; what it leaves out comes from that day."""
    on = date.fromordinal(start + EPOCH_DAY)
    bymonth, bymonthday, byday = parts.bymonth, parts.bymonthday, parts.byday
    if not (parts.byweekno or parts.byyearday or bymonthday or byday):
        if parts.freq == "YEARLY":
            bymonth, bymonthday = bymonth or (on.month,), (on.day,)
        elif parts.freq == "MONTHLY":
            bymonthday = (on.day,)
        elif parts.freq == "WEEKLY":
            byday = ((0, on.weekday()),)
    if parts.freq == "MONTHLY" and any(ordinal for ordinal, _ in byday):
        bymonth = bymonth or tuple(range(1, 13))  # numbered in each month, and not in the year
    if {weekday for ordinal, weekday in byday if not ordinal} == set(range(7)):
        byday = ()
    named = Named(bymonth, bymonthday, parts.byyearday, parts.byweekno, byday,
                  parts.wkst if parts.byweekno else 0)  # fmt: skip
    if not any(named):
        named = EVERY_DAY
    if parts.elapsed:
        return Days("DAILY", 1, 0, 0, named)
    period = {
        "DAILY": start,
        "WEEKLY": week_of(start, parts.wkst),
        "MONTHLY": (on.year - 1970) * 12 + on.month - 1,
        "YEARLY": on.year - 1970,
    }[parts.freq]
    return Days(parts.freq, parts.interval, period % parts.interval, parts.wkst, named)


def year_of(day: int) -> int:
    """Return the year that a day lies in, of those that Python knows."""
    return date.fromordinal(min(max(day + EPOCH_DAY, 1), date.max.toordinal())).year


def week_of(day: int, wkst: int) -> int:
    """Return the number of the week that a day lies in, where weeks begin with `wkst`."""
    return (day + 3 - wkst) // 7


def _january(year: int) -> int:
    return YEAR_STARTS[year - 1]


def _length(year: int) -> int:
    return YEAR_STARTS[year] - YEAR_STARTS[year - 1]


def _kinds() -> list[int]:
    """Return for each year, modulo 400, one that is like it."""
    first: dict[tuple[int, bool, bool], int] = {}
    found = [0] * 400
    for year in range(2000, 2400):
        lengths = [_length(each) == 366 for each in (year, year - 1)]
        kind = (date(year, 1, 1).weekday(), lengths[0], lengths[1])
        found[year % 400] = first.setdefault(kind, year)
    return found


KINDS = _kinds()


@lru_cache(65_536)
def marks(named: Named, year: int) -> bytes:
    """Return a 1 for each day of a year that is named, else a 0; nothing where none is."""
    numbered = tuple(each for each in named.byday if each[0])
    plain = tuple(each for each in named.byday if not each[0])
    found = bytearray(_length(year))
    for byday in (numbered, plain) if numbered and plain else (named.byday,):
        for at in _expanded(named, byday, year):
            found[at.timetuple().tm_yday - 1] = 1
    return bytes(found) if any(found) else b""


def _expanded(named: Named, byday: tuple[tuple[int, int], ...], year: int) -> rrule:
    """Return the days of one year: the next that the rule would look at is beyond the last."""
    return rrule(
        YEARLY,
        datetime(year, 1, 1),  # noqa: DTZ001
        interval=10_000,
        wkst=named.wkst,
        bymonth=named.bymonth or None,
        bymonthday=named.bymonthday or None,
        byyearday=named.byyearday or None,
        byweekno=named.byweekno or None,
        byweekday=[weekday(day, n or None) for n, day in byday or [(0, day) for day in range(7)]],
        byhour=0,
        byminute=0,
        bysecond=0,
    )


@lru_cache(16_384)
def _in_year(of: Days, year: int) -> Sequence[int]:
    named, start = marks(of.named, KINDS[year % 400]), _january(year)
    chosen: Iterable[int]
    if of.freq == "DAILY":
        first = (of.phase - start) % of.interval
        chosen = compress(range(first, len(named), of.interval), named[first :: of.interval])
    elif of.freq == "MONTHLY" and of.interval > 1:
        begins, month = MONTHS[len(named)], (year - 1970) * 12
        fitting = range((of.phase - month) % of.interval, 12, of.interval)
        months = (range(begins[n], begins[n + 1]) for n in fitting)
        chosen = (day for days in months for day in days if named[day])
    else:
        chosen = compress(range(len(named)), named)
    days = (start + day for day in chosen)
    if of.freq == "WEEKLY" and of.interval > 1:
        days = (d for d in days if not (week_of(d, of.wkst) - of.phase) % of.interval)
    return array("i", days)
