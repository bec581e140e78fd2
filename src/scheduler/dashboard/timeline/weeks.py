"""The weeks of the timeline: days in rows and hours in columns, as one zone's clocks have them.

Pure. Times are ms since 1970.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from scheduler.triggers.excluded import Calendar
from scheduler.triggers.zones import Stretch, stretch_at

HOUR = 3_600_000
DAYS = 7
LEVELS = 4


class Cell(msgspec.Struct):
    """An hour on the wall clock of one day; `length` is none where the clock leaps over it."""

    begin: int
    length: int = 0
    ended: int = 0
    failed: int = 0
    due: int = 0
    level: int = 0
    """How full it is, from 0 to LEVELS, beside others of its kind."""
    counts: dict[str, int] = {}
    """What ended, by state."""


class Day(msgspec.Struct):
    """A day, with 24 hours whatever the clock does."""

    date: date
    cells: list[Cell]


class Change(msgspec.Struct, frozen=True):
    """The clocks of a zone are put from one time to another."""

    at: int
    zone: str
    before: str
    after: str
    """What the wall clock shows, to the minute."""

    @property
    def forward(self) -> bool:
        """Say whether the clock is put forward."""
        return self.after > self.before


class Shut(msgspec.Struct, frozen=True):
    """A calendar excludes a day, all of it or a part."""

    date: date
    name: str
    whole: bool


def span(now: int, zone: str) -> tuple[int, int]:
    """Return the past week and the coming one, from midnight to midnight, and today between."""
    info = ZoneInfo(zone)
    today = local(now, info).date()
    return _midnight(today - timedelta(DAYS), info), _midnight(today + timedelta(DAYS + 1), info)


def _midnight(day: date, info: ZoneInfo) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=info).timestamp()) * 1000


def local(at: int, info: ZoneInfo) -> datetime:
    """Return what a zone's wall clock shows at an instant, to the second."""
    return datetime.fromtimestamp(at // 1000, info)


def grid(since: int, until: int, zone: str) -> tuple[list[Day], list[Cell]]:
    """Return the days of [since, until), and the cell of each hour from `since` on.

    An hour that comes twice is one cell, twice as long.
    """
    info, days = ZoneInfo(zone), dict[date, Day]()
    by_hour = []
    for begin in range(since, until, HOUR):
        wall = local(begin, info)
        day = days.get(wall.date())
        if day is None:
            day = days[wall.date()] = Day(wall.date(), [Cell(begin) for _ in range(24)])
        cell = day.cells[wall.hour]
        cell.begin = cell.begin if cell.length else begin
        cell.length += HOUR
        by_hour.append(cell)
    return list(days.values()), by_hour


def graded(cells: Sequence[Cell], now: int) -> None:
    """Say of each cell how full it is: what ended beside what ended, what comes beside that."""
    for coming in (False, True):
        group = [cell for cell in cells if (cell.begin + cell.length > now) == coming]
        most = max((cell.ended + cell.due for cell in group), default=0)
        for cell in group:
            cell.level = _level(cell.ended + cell.due, most)


def _level(many: int, most: int) -> int:
    """Return a level; each holds twice as many as the one below."""
    if not many:
        return 0
    return max(LEVELS - (most // many).bit_length() + 1, 1)


def changes(zones: Iterable[str], since: int, until: int) -> list[Change]:
    """Return when clocks are changed, of the zones that are in use."""
    found = [each for zone in zones for each in _changes(zone, since // 1000, until // 1000)]
    return sorted(found, key=lambda each: (each.at, each.zone))


def _changes(zone: str, since: int, until: int) -> Iterator[Change]:
    at: Stretch = stretch_at(zone, since)
    while at.end < until:
        after = stretch_at(zone, at.end)
        if after.offset != at.offset:
            before, now = at.end + at.offset, at.end + after.offset
            yield Change(at.end * 1000, zone, _face(before), _face(now))
        at = after


def _face(wall: int) -> str:
    return f"{datetime.fromtimestamp(wall, UTC):%Y-%m-%d %H:%M}"


def shut(calendars: Sequence[Calendar], days: Sequence[Day]) -> Iterator[Shut]:
    """Yield which days calendars exclude, asked in the middle of each hour."""
    for day in days:
        for each in calendars:
            asked = [c.begin + c.length // 2 for c in day.cells if c.length]
            held = sum(each.at(at) is not None for at in asked)
            if held:
                yield Shut(day.date, each.name, held == len(asked))
