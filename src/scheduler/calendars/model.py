"""Calendars as the outside sees them: what is sent in, and what is answered."""

import re
from datetime import date
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from scheduler.db import rfc3339
from scheduler.errors import Detail
from scheduler.exclusions import Stored
from scheduler.triggers.calendar import Rules, Weekly
from scheduler.triggers.zones import check_zone

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
DATES_MOST = 1000
WEEKLY_MOST = 50
DESCRIPTION_MOST = 10_000
DAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00", re.ASCII)
EPOCH_DAY = date(1970, 1, 1).toordinal()
FIRST_YEAR, LAST_YEAR = 3, 9997

Text = str | UnsetType | None


class Dates(msgspec.Struct, forbid_unknown_fields=True):
    """Days from the first to the last, both excluded."""

    from_: str = msgspec.field(name="from")
    to: str


class Week(msgspec.Struct, forbid_unknown_fields=True):
    """A part of some days of each week; without times all of the day.

    One that ends before it begins goes on into the next day.
    """

    days: list[str]
    from_: str | None = msgspec.field(name="from", default=None)
    to: str | None = None


class CalendarFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What can be sent of a calendar; an edit changes exactly the fields it sends."""

    name: Text = UNSET
    description: Text = UNSET
    timezone: Text = UNSET
    dates: list[str | Dates] | UnsetType | None = UNSET
    weekly: list[Week] | UnsetType | None = UNSET
    ical: Text = UNSET
    service_id: Any = UNSET
    events: Any = UNSET
    created_at: Any = UNSET
    updated_at: Any = UNSET


class Calendar(msgspec.Struct, kw_only=True):
    """A calendar as it is answered."""

    name: str
    service_id: str
    description: str | None
    timezone: str
    dates: list[str | Dates]
    weekly: list[Week]
    events: int
    ical: str | UnsetType | None = UNSET
    created_at: str | None
    updated_at: str | None


class Stretch(msgspec.Struct):
    """A time that is excluded: from, included, to, not included; both also in the zone there."""

    from_: str = msgspec.field(name="from")
    to: str
    local_from: str
    local_to: str


def shown(of: Stored, *, whole: bool = True) -> Calendar:
    """Return a calendar as it is answered; in lists without its file."""
    return Calendar(
        name=of.name,
        service_id=str(of.service_id),
        description=of.description,
        timezone=of.rules.timezone,
        dates=[_dates_shown(first, last) for first, last in of.rules.dates],
        weekly=[_week_shown(each) for each in of.rules.weekly],
        events=len(of.rules.events),
        ical=of.ical if whole else UNSET,
        created_at=rfc3339(of.created_at),
        updated_at=rfc3339(of.updated_at),
    )


def _dates_shown(first: int, last: int) -> str | Dates:
    begin, end = (date.fromordinal(day + EPOCH_DAY).isoformat() for day in (first, last))
    return begin if begin == end else Dates(begin, end)


def _week_shown(each: Weekly) -> Week:
    days = [DAYS[day] for day in each.days]
    if (each.start, each.end) == (0, 1440):
        return Week(days)
    return Week(days, _clock(each.start), _clock(each.end))


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


# Reading -----------------------------------------------------------------------------------------


def read_rules(fields: CalendarFields, before: Rules) -> tuple[Rules, list[Detail]]:
    """Return what the fields make of the rules, but for the events; and what is wrong."""
    wrong, zone = list[Detail](), before.timezone
    if fields.timezone is not UNSET:
        try:
            zone = check_zone(fields.timezone or "UTC")
        except ValueError as e:
            wrong.append(Detail("timezone", str(e)))
    dates, weekly = before.dates, before.weekly
    if fields.dates is not UNSET:
        dates = _read_dates(fields.dates or [], wrong)
    if fields.weekly is not UNSET:
        weekly = _read_weekly(fields.weekly or [], wrong)
    return Rules(zone, dates, weekly, before.events), wrong


def _read_dates(sent: list[str | Dates], wrong: list[Detail]) -> tuple[tuple[int, int], ...]:
    if len(sent) > DATES_MOST:
        wrong.append(
            Detail("dates", f"must be at most {DATES_MOST}; a range is one, and so is an iCal rule")
        )
        return ()
    found = set[tuple[int, int]]()
    for place, each in enumerate(sent):
        begin, end = (each, each) if isinstance(each, str) else (each.from_, each.to)
        try:
            first, last = _day(begin), _day(end)
        except ValueError as e:
            wrong.append(Detail(f"dates[{place}]", str(e)))
            continue
        if last < first:
            wrong.append(Detail(f"dates[{place}].to", "must not lie before from"))
        found.add((first, last))
    return tuple(sorted(found))


def _day(text: str) -> int:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        raise ValueError('must be a date like "2026-12-25", or {"from": a date, "to": a date}')
    try:
        day = date.fromisoformat(text)
    except ValueError as e:
        raise ValueError(f"is no date that exists: {e}") from None
    if not FIRST_YEAR <= day.year <= LAST_YEAR:
        raise ValueError(f"must have a year from {FIRST_YEAR} to {LAST_YEAR}")
    return day.toordinal() - EPOCH_DAY


def _read_weekly(sent: list[Week], wrong: list[Detail]) -> tuple[Weekly, ...]:
    if len(sent) > WEEKLY_MOST:
        wrong.append(Detail("weekly", f"must be at most {WEEKLY_MOST}; one may name several days"))
        return ()
    found = list[Weekly]()
    for place, each in enumerate(sent):
        days = {day.strip().upper()[:3] for day in each.days if day.strip().upper() in DAYS}
        if not each.days or len(days) < len({day.strip().upper() for day in each.days}):
            wrong.append(Detail(f"weekly[{place}].days", f"must be some of {', '.join(DAYS)}"))
            continue
        times = _times(each, f"weekly[{place}]", wrong)
        if times is not None:
            found.append(Weekly(tuple(n for n, day in enumerate(DAYS) if day in days), *times))
    return tuple(dict.fromkeys(found))


def _times(each: Week, field: str, wrong: list[Detail]) -> tuple[int, int] | None:
    """Return when a part of a day begins and ends, in minutes."""
    if not each.from_ and not each.to:
        return 0, 1440
    start, end = _minutes(each.from_ or "00:00"), _minutes(each.to or "24:00")
    for name, minutes in (("from", start), ("to", end)):
        if minutes is None or (name == "from" and minutes == 1440):
            wrong.append(Detail(f"{field}.{name}", 'must be a time of the day like "22:00"'))
            return None
    if start == end:
        wrong.append(Detail(f"{field}.to", "must differ from from; leave both out for whole days"))
        return None
    return start or 0, end or 1440


def _minutes(text: str) -> int | None:
    if not TIME.fullmatch(text):
        return None
    return int(text[:2]) * 60 + int(text[3:])
