"""A year of a calendar: which days it excludes, whole or in part, and why."""

import calendar
import re
from collections import deque
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from scheduler.calendars.model import FIRST_YEAR, LAST_YEAR
from scheduler.clock import Slice
from scheduler.triggers.calendar import Rules, Span, merged
from scheduler.triggers.excluded import BLOCK_MS

PARTS_MOST = 4
"""Hours that are named of a day."""


class Day(msgspec.Struct, frozen=True):
    """A day; `excluded` is `all`, `part` or empty, `why` in words."""

    number: int
    excluded: str
    why: str


class Month(msgspec.Struct, frozen=True):
    """A month: weeks from Monday on, None for the days of another month."""

    name: str
    weeks: list[list[Day | None]]
    excluded: int
    """Days that are, at least in part."""


def year_of(text: str, zone: str, now: int) -> int:
    """Return the year that is asked for, or the one there is now (ms) in a zone."""
    if re.fullmatch(r"\d{4}", text, re.ASCII) and FIRST_YEAR < int(text) < LAST_YEAR:
        return int(text)
    return datetime.fromtimestamp(now / 1000, ZoneInfo(zone)).year


async def months(rules: Rules, year: int) -> list[Month]:
    """Return the months of a year, as the calendar's zone has its days."""
    zone, turn = ZoneInfo(rules.timezone), Slice()
    days = [
        date(year, 1, 1) + timedelta(days=n) for n in range(366 if calendar.isleap(year) else 365)
    ]
    starts = [_midnight(day, zone) for day in (*days, date(year + 1, 1, 1))]
    kinds = (
        ("a date", Rules(rules.timezone, dates=rules.dates)),
        ("every week", Rules(rules.timezone, weekly=rules.weekly)),
        ("an event of the file", Rules(rules.timezone, events=rules.events)),
    )
    found = dict[date, Day]()
    spans = {name: deque(await excluded(of, starts[0], starts[-1], turn)) for name, of in kinds}
    for day, start, end in zip(days, starts, starts[1:], strict=False):
        found[day] = _day(day, (start, end), spans, zone)
        await turn.give_way()
    return [_month(year, number, found) for number in range(1, 13)]


async def excluded(rules: Rules, since: int, until: int, turn: Slice) -> list[Span]:
    """Return what rules exclude of [since, until), in ms: in order, apart, worked out in pieces."""
    found = list[Span]()
    if rules.dates or rules.weekly or rules.events:
        for start in range(since, until, BLOCK_MS):
            found += rules.between(start, min(start + BLOCK_MS, until))
            await turn.give_way()
    return merged(found)


def _midnight(day: date, zone: ZoneInfo) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 1000


def _day(day: date, whole: Span, spans: dict[str, deque[Span]], zone: ZoneInfo) -> Day:
    """Return a day; the spans before it are taken out of the lists: it is asked in order."""
    why, all_of_it = list[str](), list[Span]()
    for name, left in spans.items():
        while left and left[0][1] <= whole[0]:
            left.popleft()
        inside = list[Span]()
        for start, end in left:
            if start >= whole[1]:
                break
            inside.append((max(start, whole[0]), min(end, whole[1])))
        if inside:
            why.append(name if inside == [whole] else f"{name}, {_hours(inside, whole, zone)}")
        all_of_it += inside
    covered = merged(all_of_it)
    word = "" if not covered else "all" if covered == [whole] else "part"
    return Day(day.day, word, "; ".join(why))


def _hours(parts: list[Span], whole: Span, zone: ZoneInfo) -> str:
    shown = [
        f"{_clock(start, zone)} to {'24:00' if end == whole[1] else _clock(end, zone)}"
        for start, end in parts[:PARTS_MOST]
    ]
    more = f" and {len(parts) - PARTS_MOST} more" if len(parts) > PARTS_MOST else ""
    return f"{', '.join(shown)}{more}"


def _clock(at: int, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(at / 1000, zone).strftime("%H:%M")


def _month(year: int, number: int, found: dict[date, Day]) -> Month:
    weeks = [
        [found[date(year, number, day)] if day else None for day in week]
        for week in calendar.Calendar().monthdayscalendar(year, number)
    ]
    touched = sum(1 for week in weeks for day in week if day is not None and day.excluded)
    return Month(calendar.month_name[number], weeks, touched)
