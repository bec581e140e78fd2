"""Reading an iCalendar file (RFC 5545): its events, as a calendar excludes them.

The lines are ours to bound, and an event at a time is the package icalendar's to read: so a file of
any kind holds the loop for a few milliseconds at most.
"""

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import icalendar
import msgspec

from scheduler.calendars.cost import EVENTS_MOST, TOO_MANY, Load, Refused, ended, judge
from scheduler.clock import Slice
from scheduler.triggers.calendar import Event
from scheduler.triggers.zones import CEILING, DAY, FLOOR, check_zone

SIZE_MOST = 262_144
"""Characters of a file."""
EVENT_MOST = 8192
"""Characters of one event's times."""
QUICK = 500
"""Characters of times that take the package no longer than others may wait."""
DEPTH_MOST = 8
BREATH = 500
LENGTH_MOST = 366 * DAY
"""Of an event that recurs."""
WITHOUT_MOST = 10_000
"""Recurrences that are taken away, of all events together."""
READ = re.compile(
    r"(DTSTART|DTEND|DURATION|RRULE|EXRULE|RDATE|EXDATE|UID|RECURRENCE-ID|STATUS)[;:]",
    re.IGNORECASE,
)
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  (a wall clock's face)
RULES = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")


class Found(msgspec.Struct):
    """An event's lines in a file."""

    line: int
    """That of its BEGIN, from 1."""
    lines: list[str]
    size: int = 0


class Read(msgspec.Struct):
    """An event as it was read."""

    line: int
    uid: str
    events: list[Event]
    replaces: int | None = None
    """The start of the recurrence that it stands in the place of."""
    cancelled: bool = False


async def read_events(text: str, timezone: str) -> tuple[Event, ...]:
    """Return the events of a file; a time without a zone is one in `timezone`.

    Raises Refused.
    """
    if len(text) > SIZE_MOST:
        raise Refused(f"must have at most {SIZE_MOST} characters, has {len(text)}")
    turn, read, load = Slice(), list[Read](), Load()
    for found in _found(text):
        await turn.give_way()
        if found is None:
            continue
        if len(read) >= EVENTS_MOST:
            raise Refused(TOO_MANY)
        try:
            zone = ZoneInfo(timezone)
            if found.size > QUICK:
                each = await asyncio.to_thread(_read, found, zone)
            else:
                each = _read(found, zone)
            load.take(each.events)
            for place, event in enumerate(each.events):
                each.events[place] = await ended(event, turn)
                load.cost_s += judge(each.events[place])
                await turn.give_way()
            load.check()
        except Refused as e:
            raise Refused(f"{e}, in the event of line {found.line}") from None
        read.append(each)
    return await _settled(read, turn)


# Lines -------------------------------------------------------------------------------------------


def _found(text: str) -> Iterator[Found | None]:
    """Yield the events of a file, with those of their lines that are read; None now and then."""
    inside, event = list[str](), None
    for number, line in _unfolded(text):
        if not line:
            yield None
            continue
        word, _, name = line.partition(":")
        word, name = word.strip().upper(), name.strip().upper()
        if word == "BEGIN" or not inside:
            _open(inside, number, name if word == "BEGIN" else "")
            if inside == ["VCALENDAR", "VEVENT"]:
                event = Found(number, [])
        elif word == "END":
            if name != inside.pop():
                raise Refused(f"line {number}: ends {name[:40]}, which did not begin there")
            if event is not None and inside == ["VCALENDAR"]:
                yield event
                event = None
        elif event is not None and inside[2:] == [] and READ.match(line):
            event.lines.append(line)
            event.size += len(line)
            if event.size > EVENT_MOST:
                raise Refused(f"line {number}: an event's times take more than {EVENT_MOST} bytes")
    if inside:
        raise Refused(f"ends before END:{inside[-1][:40]}")


def _open(inside: list[str], number: int, name: str) -> None:
    """Go into a component; the outermost must be a VCALENDAR."""
    if not inside and name != "VCALENDAR":
        raise Refused(f"line {number}: must begin with BEGIN:VCALENDAR")
    inside.append(name)
    if len(inside) > DEPTH_MOST:
        raise Refused(f"line {number}: is nested more than {DEPTH_MOST} deep")


def _unfolded(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their numbers; one that is folded is one.

    Now and then a blank one, for others to take their turn.
    """
    if not text.lstrip("\ufeff").strip():
        raise Refused("is empty; must begin with BEGIN:VCALENDAR")
    start, parts = 0, list[str]()
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text.lstrip("\ufeff")), 1):
        if number % BREATH == 0:
            yield number, ""
        if line[:1] in (" ", "\t") and parts:
            parts.append(line[1:])
            continue
        if parts:
            yield start, "".join(parts)
        start, parts = number, [line] if line.strip() else []
    if parts:
        yield start, "".join(parts)


# One event ---------------------------------------------------------------------------------------


def _read(found: Found, floating: ZoneInfo) -> Read:
    text = "\r\n".join(["BEGIN:VEVENT", *found.lines, "END:VEVENT", ""])
    try:
        event = icalendar.Event.from_ical(text)
        return _times(event, found.line, floating)
    except Refused:
        raise
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError) as e:
        said = str(e).splitlines()[0][:200] if str(e) else type(e).__name__
        raise Refused(f"cannot be read: {said}") from None


def _times(event: Any, line: int, floating: ZoneInfo) -> Read:
    begins = _one(event, "DTSTART")
    if begins is None:
        raise Refused("needs a DTSTART")
    zone = _zone(begins)
    clock = floating if zone is None else ZoneInfo(zone)
    start, dated = _wall(begins.dt, clock), not isinstance(begins.dt, datetime)
    end = _end(event, start, clock, dated=dated)
    length = end - start
    gone = tuple(_on(each.dt, clock, start) for each in _listed(event, "EXDATE"))
    if event.get("EXRULE") is not None:
        raise Refused("EXRULE is not understood; name the dates with EXDATE")
    rules = [_rule(each, clock) for each in _all(event, "RRULE")]
    if rules and length > LENGTH_MOST:
        raise Refused("recurs, and so must last 366 days at most")
    events = [Event(start, end, zone, rule, gone) for rule in rules]
    if not rules and start not in gone:
        events.append(Event(start, end, zone))
    for each in _listed(event, "RDATE"):
        at, until = each.dt if isinstance(each.dt, tuple) else (each.dt, None)
        first = _on(at, clock, start)
        last = first + length if until is None else _until(at, until, clock)
        if first not in gone:
            events.append(Event(first, last, zone))
    replaces = _one(event, "RECURRENCE-ID")
    cancelled = str(event.get("STATUS", "")).upper() == "CANCELLED"
    return Read(
        line,
        str(event.get("UID", "")),
        [] if cancelled else events,
        None if replaces is None else _on(replaces.dt, clock, start),
        cancelled,
    )


def _end(event: Any, start: int, clock: ZoneInfo, *, dated: bool) -> int:
    ends, lasts = _one(event, "DTEND"), _one(event, "DURATION")
    if ends is not None:
        end = _wall(ends.dt, clock)
        if end < start:
            raise Refused("DTEND lies before DTSTART")
        return end
    if lasts is not None:
        if lasts.dt < timedelta(0):
            raise Refused("DURATION must not be negative")
        return _known(start + int(lasts.dt.total_seconds()))
    return start + DAY if dated else start  # RFC 5545, 3.6.1


def _rule(rule: Any, clock: ZoneInfo) -> str:
    """Return an RRULE as it stands on the wall clock of its event."""
    freq = [str(each).upper() for each in rule.get("FREQ", [])]
    if len(freq) != 1 or freq[0] not in RULES:
        raise Refused(f"an RRULE must have a FREQ of {', '.join(RULES)}")
    if any(int(each) < 1 for each in rule.get("INTERVAL", [])):
        raise Refused("an RRULE must have an INTERVAL of 1 or more")
    until = rule.get("UNTIL")
    if until:
        each = until[0]
        wall = _wall(each, clock) + (0 if isinstance(each, datetime) else DAY - 1)
        rule["UNTIL"] = [(EPOCH + timedelta(seconds=wall)).replace(tzinfo=UTC)]
    text: str = rule.to_ical().decode()
    return f"RRULE:{text}"


def _until(at: Any, until: Any, clock: ZoneInfo) -> int:
    """Return the end of a PERIOD, which is a time or a duration."""
    if isinstance(until, timedelta):
        return _known(_wall(at, clock) + int(until.total_seconds()))
    return _wall(until, clock)


def _on(at: Any, clock: ZoneInfo, start: int) -> int:
    """Return the start that a date or time names; of a date at the time that DTSTART has."""
    return _wall(at, clock) + (0 if isinstance(at, datetime) else start % DAY)


def _wall(at: Any, clock: ZoneInfo) -> int:
    """Return what a clock on the wall shows at a time, in seconds; at a date, its midnight."""
    if not isinstance(at, date):
        raise Refused("has a time where a date, or a date and time, belongs")
    if not isinstance(at, datetime):
        return _known((at - EPOCH.date()).days * DAY)
    face = at.replace(tzinfo=None) if at.tzinfo is None else at.astimezone(clock)
    return _known(int((face.replace(tzinfo=None) - EPOCH).total_seconds()))


def _known(wall: int) -> int:
    if not FLOOR <= wall <= CEILING:
        raise Refused("has a year that is not from 3 to 9997")
    return wall


def _zone(prop: Any) -> str | None:
    """Return the zone that a time is in; None where it names none."""
    named = prop.params.get("TZID")
    if not isinstance(prop.dt, datetime):
        return None
    if prop.dt.tzinfo is None:
        if named:
            raise Refused(f"TZID {str(named)[:60]} is no IANA time zone, like Europe/Berlin")
        return None
    zone = getattr(prop.dt.tzinfo, "key", None) or str(prop.dt.tzinfo)
    try:
        return check_zone(zone)
    except ValueError as e:
        raise Refused(f"TZID {zone[:60]} {e}") from None


def _one(event: Any, name: str) -> Any:
    found = event.get(name)
    if isinstance(found, list):
        raise Refused(f"has more than one {name}")
    return found


def _all(event: Any, name: str) -> list[Any]:
    found = event.get(name)
    return found if isinstance(found, list) else [] if found is None else [found]


def _listed(event: Any, name: str) -> list[Any]:
    return [each for some in _all(event, name) for each in some.dts]


# All of them -------------------------------------------------------------------------------------


async def _settled(read: list[Read], turn: Slice) -> tuple[Event, ...]:
    """Return the events; what stands in the place of a recurrence takes that one away."""
    replaced = dict[str, set[int]]()
    for each in read:
        if each.replaces is not None:
            replaced.setdefault(each.uid, set()).add(each.replaces)
    events, taken = list[Event](), 0
    for each in read:
        gone = replaced.get(each.uid, set()) if each.replaces is None else set()
        for event in each.events:
            if event.end <= event.start or (event.rule is None and event.start in gone):
                continue
            without = tuple(sorted(gone.union(event.without))) if event.rule else ()
            taken += len(without)
            if taken > WITHOUT_MOST:
                raise Refused(f"takes away more than {WITHOUT_MOST} recurrences of its events")
            events.append(msgspec.structs.replace(event, without=without))
            await turn.give_way()
    return tuple(events)
