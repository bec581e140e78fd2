"""A cron expression on a wall clock that nobody ever puts forward or back.

Times are the wall clock's face in whole seconds, read as if it were UTC. cronsim reads the
expression and knows its words; times and days are counted here, without walking them.
"""

import calendar
import re
from bisect import bisect_left
from datetime import UTC, date, datetime
from functools import lru_cache

from cronsim import CronSim, CronSimError

from scheduler.triggers.zones import DAY

LONGEST = 200
YEARS = 50
"""How far an instant is looked for. 29 February on one weekday is 40 years apart at most."""
START = datetime(1970, 1, 1, tzinfo=UTC)
"""In UTC cronsim moves nothing for daylight saving: that is done in cron.py."""
NEVER = "is never due: no month that it names has such a day"
EPOCH_DAY = date(1970, 1, 1).toordinal()
LAST_DAY = date.max.toordinal() - EPOCH_DAY
NAMED = {
    "@YEARLY": "0 0 1 1 *",
    "@ANNUALLY": "0 0 1 1 *",
    "@MONTHLY": "0 0 1 * *",
    "@WEEKLY": "0 0 * * 0",
    "@DAILY": "0 0 * * *",
    "@MIDNIGHT": "0 0 * * *",
    "@HOURLY": "0 * * * *",
}
FIELDS = {
    "second": "0 to 59",
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31, ?, L for the last day, LW for the last weekday",
    "month": "1 to 12 or JAN to DEC",
    "day-of-week": "0 to 7 or SUN to SAT, ?, 5L for the last Friday, 5#2 for the second",
}
"""In the order of six fields; five have no seconds."""
FORM = (
    "takes five fields (minute, hour, day of month, month, day of week), six with seconds first,"
    f" or {', '.join(name.lower() for name in NAMED)}"
)
EVERY = "is no expression; for every so long send frequency and unit instead, like 1 and hour"


@lru_cache(20_000)
def pattern(text: str) -> "Pattern":
    """Return what an expression means; shared, never changed. Raises ValueError with the reason."""
    if len(text) > LONGEST:
        raise ValueError(f"must have at most {LONGEST} characters, has {len(text)}")
    if not re.fullmatch(r"[\t -~]*", text, re.ASCII):
        raise ValueError("must hold nothing but plain letters, digits and signs")
    plain = text.strip()
    if plain.startswith("@"):
        if plain.upper().startswith("@EVERY"):
            raise ValueError(EVERY)
        if plain.upper() not in NAMED:
            raise ValueError(FORM)
        plain = NAMED[plain.upper()]
    fields = plain.split()
    if len(fields) not in (5, 6):
        raise ValueError(f"{FORM}; has {len(fields)} fields")
    for day in (-3, -1):  # Quartz and Kubernetes say so
        fields[day] = "*" if fields[day] == "?" else fields[day]
    found = Pattern(" ".join(fields))
    if found.first(0) is None:
        raise ValueError(NEVER)
    return found


class Pattern:
    """The days and the times of day that an expression names. Raises ValueError.

    What many expressions have in common they share: reading a field takes longer than finding it.
    """

    __slots__ = ("dates", "fixed", "hourly", "hours", "minutes", "seconds", "text", "times")

    def __init__(self, text: str) -> None:
        fields = text.split()
        try:
            self.dates = _dates(" ".join(fields[-3:]))
            self.hours = _places(2, fields[-4])
            self.minutes = _places(1, fields[-5])
            self.seconds = _places(0, fields[0]) if len(fields) == 6 else (0,)
        except CronSimError:
            _simulated(text)
            raise
        self.text = text
        self.times = len(self.hours) * len(self.minutes) * len(self.seconds)
        """How many times of day there are."""
        self.fixed = len(fields) == 5 and not any(field.startswith("*") for field in fields[:2])
        """It names times of day. Those keep to the wall clock, as in Debian's cron (and cronsim);
        all others follow elapsed time, also six fields."""
        self.hourly = len(self.hours) == 24

    def explain(self) -> str:
        """Return the expression in words."""
        return re.sub(r"\b(\d*)([123])th\b", _ordinal, _simulated(self.text).explain())

    def first(self, at: int) -> int | None:
        """Return the first match at or after `at`."""
        day, clock = divmod(at, DAY)
        rank = self._rank(clock)
        if rank < self.times and self.dates.named(day):
            return day * DAY + self._time(rank)
        found = self.dates.first(day + 1)
        return None if found is None else found * DAY + self._time(0)

    def last(self, before: int) -> int | None:
        """Return the last match before `before`."""
        day, clock = divmod(before, DAY)
        rank = self._rank(clock)
        if rank and self.dates.named(day):
            return day * DAY + self._time(rank - 1)
        found = self.dates.last(day)
        return None if found is None else found * DAY + self._time(self.times - 1)

    def count(self, start: int, end: int) -> int:
        """Return how many matches lie in [start, end)."""
        if end <= start:
            return 0
        (low, early), (high, late) = divmod(start, DAY), divmod(end, DAY)
        whole = self.dates.within(low, high) * self.times
        skipped = self._rank(early) if self.dates.named(low) else 0
        begun = self._rank(late) if self.dates.named(high) else 0
        return whole - skipped + begun

    def _rank(self, clock: int) -> int:
        """Return how many times of day come before one."""
        hour, minute, second = clock // 3600, clock // 60 % 60, clock % 60
        h = bisect_left(self.hours, hour)
        m = s = 0
        if h < len(self.hours) and self.hours[h] == hour:
            m = bisect_left(self.minutes, minute)
            if m < len(self.minutes) and self.minutes[m] == minute:
                s = bisect_left(self.seconds, second)
        return (h * len(self.minutes) + m) * len(self.seconds) + s

    def _time(self, rank: int) -> int:
        """Return the time of day that so many come before."""
        rest, s = divmod(rank, len(self.seconds))
        h, m = divmod(rest, len(self.minutes))
        return self.hours[h] * 3600 + self.minutes[m] * 60 + self.seconds[s]


class Dates:
    """The days that three fields name: day of month, month, day of week. Raises CronSimError."""

    def __init__(self, text: str) -> None:
        self.sim = CronSim(f"0 0 {text}", START)
        days = {day % 7 for day in self.sim.weekdays if isinstance(day, int)}
        self.daily = (
            len(self.sim.months) == 12 and len(days) == 7 and self.sim.days >= set(range(1, 32))
        )
        self._days: dict[tuple[int, int], list[int]] = {}

    def named(self, day: int) -> bool:
        """Say whether a day, counted from 1970, is one of them."""
        if self.daily:
            return True
        if not -EPOCH_DAY < day <= LAST_DAY:
            return False
        on = date.fromordinal(day + EPOCH_DAY)
        return on.day in self._in_month(on.year, on.month)

    def _in_month(self, year: int, month: int) -> list[int]:
        """Return the days that are named of a month; there are but 28 kinds of months."""
        if month not in self.sim.months:
            return []
        kind = calendar.monthrange(year, month)
        if kind not in self._days:
            self._days[kind] = [
                day for day in range(1, kind[1] + 1) if self.sim.match_day(date(year, month, day))
            ]
        return self._days[kind]

    def first(self, day: int) -> int | None:
        """Return the first day at or after `day`."""
        if day > LAST_DAY:
            return None
        if self.daily:
            return day
        start = date.fromordinal(day + EPOCH_DAY)
        for n in range(start.month - 1, start.month + YEARS * 12):
            year, month = start.year + n // 12, n % 12 + 1
            if year > date.max.year:
                return None
            days = self._in_month(year, month)
            at = bisect_left(days, start.day) if n == start.month - 1 else 0
            if at < len(days):
                return date(year, month, days[at]).toordinal() - EPOCH_DAY
        return None

    def last(self, day: int) -> int | None:
        """Return the last day before `day`."""
        if self.daily:
            return day - 1
        start = date.fromordinal(day + EPOCH_DAY)
        for n in range(start.month - 1, start.month - YEARS * 12, -1):
            year, month = start.year + n // 12, n % 12 + 1
            if year < date.min.year:
                return None
            days = self._in_month(year, month)
            at = bisect_left(days, start.day) if n == start.month - 1 else len(days)
            if at:
                return date(year, month, days[at - 1]).toordinal() - EPOCH_DAY
        return None

    def within(self, low: int, high: int) -> int:
        """Return how many days lie in [low, high)."""
        if self.daily or low >= high:
            return high - low
        start, end = (date.fromordinal(day + EPOCH_DAY) for day in (low, high))
        total = 0
        for n in range(start.month - 1, end.month + 12 * (end.year - start.year) - 1):
            total += len(self._in_month(start.year + n // 12, n % 12 + 1))
        total -= bisect_left(self._in_month(start.year, start.month), start.day)
        return total + bisect_left(self._in_month(end.year, end.month), end.day)


@lru_cache(2048)
def _dates(text: str) -> Dates:
    return Dates(text)


@lru_cache(8192)
def _places(place: int, text: str) -> tuple[int, ...]:
    """Return what the field for seconds, minutes or hours names. Raises CronSimError."""
    fields = ["*"] * 6
    fields[place] = text
    found = CronSim(" ".join(fields), START)
    return tuple(sorted((found.seconds, found.minutes, found.hours)[place]))


def _simulated(text: str) -> CronSim:
    """Return cronsim's reading of an expression. Raises ValueError with the field that is wrong."""
    try:
        return CronSim(text, START)
    except CronSimError as e:
        field = str(e).removeprefix("Bad ")
    sent = text.split()
    if field == "day-of-month" and _is_day(sent[-3]):
        raise ValueError(NEVER)
    value = sent[list(FIELDS).index(field) - len(FIELDS)]
    raise ValueError(
        f"the {field} field is wrong, {value}: it takes {FIELDS[field]}; and *, lists like 1,2,"
        " ranges that run upwards like 1-5, steps like */15"
    )


def _is_day(text: str) -> bool:
    try:
        CronSim(f"0 0 {text} * *", START)
    except CronSimError:
        return False
    return True


def _ordinal(found: re.Match[str]) -> str:
    """Write 1st, 2nd, 3rd, where cronsim writes 1th, 2th, 3th; 11th to 13th are right."""
    tens, last = found.groups()
    ending = {"1": "st", "2": "nd", "3": "rd"}[last]
    return found[0] if tens.endswith("1") else f"{tens}{last}{ending}"
