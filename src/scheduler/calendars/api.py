"""`/calendars`: the calendars that tasks keep clear of."""

from typing import Any

from litestar import Request, Response, Router, delete, get, post, route
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIFormat, OpenAPIType, Schema
from litestar.params import FromPath

from scheduler import asked, exclusions
from scheduler.calendars import acts, model
from scheduler.calendars.model import Calendar, CalendarFields, Stretch
from scheduler.clock import Slice
from scheduler.db import rfc3339
from scheduler.engine import Engine
from scheduler.errors import ValidationFailed
from scheduler.openapi import asks, whole
from scheduler.service import Service
from scheduler.triggers.calendar import merged
from scheduler.triggers.excluded import BLOCK_MS
from scheduler.triggers.zones import local

DAY_MS = 86_400_000
RANGE_MS = 365 * DAY_MS
RANGE_MOST_MS = 3660 * DAY_MS
STRETCHES_MOST = 1000

AnyRequest = Request[Any, Any, Any]
Caller = NamedDependency[Service]
Machine = NamedDependency[Engine]
INSTANT = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME)


@post("/", summary="Create a calendar", operation_class=asks(CalendarFields))
async def create_calendar(request: AnyRequest, service: Caller, engine: Machine) -> Calendar:
    """Create a calendar: dates, parts of each week, and events of an iCalendar file."""
    fields = asked.body(await request.body(), CalendarFields)
    return model.shown(await acts.create(engine, service, fields))


@get(
    "/",
    summary="The calendars, by name",
    operation_class=asks(pageNumber=whole(0, acts.CALENDARS_MOST), count=whole(1, asked.PAGE_MOST)),
)
async def list_calendars(
    request: AnyRequest, service: Caller, engine: Machine
) -> Response[list[Calendar]]:
    """Return a page of calendars, without their files."""
    page, count = asked.page(request.query_params, acts.CALENDARS_MOST)
    async with engine.database.api.connect() as conn:
        total = await exclusions.count(conn, service.id, acts.CALENDARS_MOST + 1)
        found = await exclusions.page(conn, service.id, offset=page * count, most=count)
    shown = [model.shown(each, whole=False) for each in found]
    return Response(shown, headers={"X-Total-Count": str(total)})


@get("/{calendar:str}", summary="One calendar")
async def get_calendar(calendar: FromPath[str], service: Caller, engine: Machine) -> Calendar:
    """Return a calendar."""
    async with engine.database.api.connect() as conn:
        return model.shown(await exclusions.get(conn, service.id, calendar))


@route(
    "/{calendar:str}",
    http_method=["PUT", "PATCH"],
    status_code=200,
    summary="Change the fields sent of a calendar",
    operation_class=asks(CalendarFields),
)
async def change_calendar(
    calendar: FromPath[str], request: AnyRequest, service: Caller, engine: Machine
) -> Calendar:
    """Change a calendar; it holds at once, also for runs that are planned."""
    fields = asked.body(await request.body(), CalendarFields)
    return model.shown(await acts.change(engine, service, calendar, fields))


@delete("/{calendar:str}", status_code=204, summary="Delete a calendar that no task names")
async def delete_calendar(calendar: FromPath[str], service: Caller, engine: Machine) -> None:
    """Delete a calendar."""
    await acts.delete(engine.database, service, calendar)


@get(
    "/{calendar:str}/excluded",
    summary="What a calendar excludes",
    operation_class=asks(from_=INSTANT, to=INSTANT),
)
async def list_excluded(
    calendar: FromPath[str], request: AnyRequest, service: Caller, engine: Machine
) -> list[Stretch]:
    """Return the times in [from, to) that are excluded, in order, the first 1,000.

    By default those of the next 365 days; `to` lies 10 years after `from` at most.
    """
    async with engine.database.api.connect() as conn:
        of = await exclusions.get(conn, service.id, calendar)
    since, until = _range(request.query_params, engine.clock.now_ms())
    found, turn, zone = list[tuple[int, int]](), Slice(), of.rules.timezone
    for start in range(since, until, BLOCK_MS):
        found = merged([*found, *of.rules.between(start, min(start + BLOCK_MS, until))])
        if len(found) > STRETCHES_MOST:
            break
        await turn.give_way()
    return [
        Stretch(rfc3339(start) or "", rfc3339(end) or "", local(zone, start), local(zone, end))
        for start, end in found[:STRETCHES_MOST]
    ]


def _range(sent: Any, now: int) -> tuple[int, int]:
    since, until = asked.near(sent, "from", now), asked.near(sent, "to", now)
    since = now if since is None else since
    until = since + RANGE_MS if until is None else until
    if not since <= until <= since + RANGE_MOST_MS:
        raise ValidationFailed.of("to", "must lie after from, and at most 3,660 days after it")
    return since // 1000 * 1000, -(-until // 1000) * 1000


router = Router(
    "/calendars",
    route_handlers=[
        create_calendar,
        list_calendars,
        get_calendar,
        change_calendar,
        delete_calendar,
        list_excluded,
    ],
)
