"""The past week and the coming one, hour by hour: what ended, what comes due, what meets."""

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency

from scheduler import (
    agenda,
    asked,
    exclusions,
    outlook,
    tally,
)
from scheduler.agenda import Agenda
from scheduler.clock import Slice
from scheduler.dashboard import page, typed
from scheduler.dashboard.door import Visitor
from scheduler.dashboard.timeline import ahead, forecast, weeks
from scheduler.dashboard.timeline.forecast import Forecast
from scheduler.dashboard.timeline.weeks import HOUR, Cell, Change, Day, Shut
from scheduler.db import Conn, rfc3339
from scheduler.engine import Engine
from scheduler.errors import ValidationFailed
from scheduler.planning import Planned
from scheduler.tally import Span
from scheduler.triggers.excluded import Calendar, Excluded
from scheduler.triggers.zones import check_zone

Who = NamedDependency[Visitor]
Machine = NamedDependency[Engine]
AnyRequest = Request[Any, Any, Any]

KINDS_MOST = 10_000
"""So many kinds of tasks, by trigger and bounds, are reckoned with."""
LIMITED_MOST = 1000
"""Tasks whose runs are counted, of those with `max_runs`."""
CALENDARS_MOST, ZONES_MOST = 20, 1000


class Known(msgspec.Struct, frozen=True):
    """What the database has to say of the two weeks."""

    ended: list[Span]
    agenda: Agenda
    plans: dict[UUID, Planned]
    calendars: dict[str, Calendar]


@get("/dashboard/timeline", include_in_schema=False)
async def show_timeline(request: AnyRequest, visitor: Who, engine: Machine) -> Response[Any]:
    """Return the page; `zone` says whose days, `hour` which one's tasks are listed."""
    now = engine.clock.now_ms()
    own = typed.readers_zone(request)
    zone = _zone(request.query_params.get("zone") or own)
    since, until = weeks.span(now, zone)
    hour = _hour(request, since, until, now)
    async with engine.database.api.connect() as conn:
        known = await _known(conn, visitor.service.id, since, now)
    clear = {name: Excluded(each) for name, each in known.calendars.items()}
    these = await ahead.ahead(known.agenda.alike, clear, known.plans)
    skip = _skip(request)
    coming = await forecast.forecast(these, now, since, until, hour, skip)
    turn = Slice()
    days, cells = weeks.grid(since, until, zone)
    await turn.give_way()
    _fill(cells, known.ended, coming)
    weeks.graded([cell for day in days for cell in day.cells], now)
    await turn.give_way()
    zones = await _zones(known, zone, turn)
    notes = await _notes(days, weeks.changes(zones, since, until), known, zone, turn)
    return await page.large(
        "timeline.html",
        visitor=visitor,
        now=now,
        zone=zone,
        zones=sorted({"UTC", own, zone, *zones}),
        days=days,
        today=_date(now, zone),
        notes=notes,
        unlooked=max(len(known.calendars) - CALENDARS_MOST, 0),
        coming=coming,
        hour=hour,
        further=_further(zone, hour, skip) if coming.more else None,
        total=known.agenda.tasks,
        damaged=known.agenda.damaged,
        kinds=len(known.agenda.alike) > KINDS_MOST,
        leading=lambda cell: _leading(cell, now, zone),
        said=lambda day, cell: _said(day, cell, now),
    )


def _zone(name: str) -> str:
    try:
        return check_zone(name)
    except ValueError as e:
        raise ValidationFailed.of("zone", str(e)) from None


def _hour(request: AnyRequest, since: int, until: int, now: int) -> int | None:
    at = asked.near(request.query_params, "hour", now)
    if at is None:
        return None
    if not since <= at < until or at + HOUR <= now:
        raise ValidationFailed.of("hour", "must lie in the week to come")
    return at


def _skip(request: AnyRequest) -> int:
    sent = request.query_params.get("skip") or "0"
    if not re.fullmatch(r"\d{1,6}", sent, re.ASCII):
        raise ValidationFailed.of("skip", "must be a whole number, of what is listed before")
    return int(sent)


def _further(zone: str, hour: int | None, skip: int) -> str:
    """Return where what is due in an hour is listed on."""
    sent = {"zone": zone, "hour": rfc3339(hour), "skip": skip + forecast.LISTED}
    return f"/dashboard/timeline?{urlencode(sent)}#hour"


async def _known(conn: Conn, service_id: UUID, since: int, now: int) -> Known:
    minute = now - now % 60_000 + 60_000
    ended, _ = await tally.series(conn, service_id, since, minute, HOUR // 1000, minute)
    found = await agenda.read(conn, service_id, KINDS_MOST + 1)
    keys = [key for each in found.alike for key in each.keys][:LIMITED_MOST]
    plans = await outlook.planned(conn, service_id, keys) if keys else {}
    wanted = {(service_id, name) for each in found.alike for name in each.bounds.calendars}
    calendars = await exclusions.current(conn, wanted) if wanted else {}
    return Known(ended, found, plans, {name: each for (_, name), each in calendars.items()})


def _fill(cells: list[Cell], ended: list[Span], coming: Forecast) -> None:
    for span in ended:
        cell = cells[(span.at - coming.since) // HOUR]
        counts = {word: many for word, many in span.counts.items() if many}
        cell.counts = {word: cell.counts.get(word, 0) + many for word, many in counts.items()}
        cell.ended += sum(counts.values())
        cell.failed += counts.get("failed", 0) + counts.get("expired", 0)
    for cell, due in zip(cells, coming.hours, strict=True):
        cell.due += due


async def _zones(known: Known, zone: str, turn: Slice) -> list[str]:
    """Return the zones in use, the reader's first."""
    found = dict.fromkeys([zone])
    for each in known.agenda.alike:
        found[getattr(each.trigger, "timezone", "UTC")] = None
        await turn.give_way()
    found |= dict.fromkeys(each.rules.timezone for each in known.calendars.values())
    return list(found)[:ZONES_MOST]


class Note(msgspec.Struct, frozen=True):
    """What is special about a day: clocks that change, or a calendar that excludes it."""

    change: Change | None = None
    shut: Shut | None = None


async def _notes(
    days: list[Day], changes: Iterable[Change], known: Known, zone: str, turn: Slice
) -> dict[str, list[Note]]:
    """Map days, as in 2026-11-22, to what is special about them."""
    found: dict[str, list[Note]] = {}
    for change in changes:
        found.setdefault(_date(change.at, zone), []).append(Note(change=change))
        await turn.give_way()
    for calendar in list(known.calendars.values())[:CALENDARS_MOST]:
        for day in days:
            for shut in weeks.shut([calendar], [day]):
                found.setdefault(shut.date.isoformat(), []).append(Note(shut=shut))
            await turn.give_way()
    return dict(sorted(found.items()))


def _date(at: int, zone: str) -> str:
    return weeks.local(at, ZoneInfo(zone)).date().isoformat()


def _leading(cell: Cell, now: int, zone: str) -> str | None:
    """Return where an hour leads: to its runs, or to the tasks that come due in it."""
    if cell.begin + cell.length <= now:
        span = {"from": rfc3339(cell.begin), "to": rfc3339(cell.begin + cell.length)}
        return f"/dashboard/runs?{urlencode(span)}" if cell.ended else None
    sent = {"zone": zone, "hour": rfc3339(cell.begin)}
    return f"/dashboard/timeline?{urlencode(sent)}#hour" if cell.due else None


def _said(day: Day, cell: Cell, now: int) -> str:
    hour = day.cells.index(cell)
    words = f"{day.date:%a %d %b}, {hour:02}:00 to {(hour + 1) % 24:02}:00"
    if cell.length > HOUR:
        words += ", which comes twice"
    ended = ", ".join(f"{many:,} {word}" for word, many in cell.counts.items())
    said = [ended] if ended else []
    if cell.begin + cell.length > now:
        said.append(f"{cell.due:,} to come")
    return f"{words}: {'; '.join(said) or 'nothing'}"
