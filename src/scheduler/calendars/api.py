"""`/calendars`: the calendars that tasks keep clear of."""

from typing import Any

import msgspec
from litestar import Request, Response, Router, delete, get, post, route
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIFormat, OpenAPIType, Schema
from litestar.params import FromPath
from msgspec import UNSET

from scheduler import asked, audit, clock, db, exclusions, services, tasklist
from scheduler.audit import Entry
from scheduler.calendars import cost, ical, model
from scheduler.calendars.model import Calendar, CalendarFields, Stretch
from scheduler.clock import Slice
from scheduler.db import Conn, rfc3339, utc
from scheduler.engine import Engine
from scheduler.errors import Conflict, Detail, ValidationFailed
from scheduler.exclusions import Stored
from scheduler.openapi import asks, whole
from scheduler.service import Service
from scheduler.triggers.calendar import Rules, merged
from scheduler.triggers.excluded import BLOCK_MS
from scheduler.triggers.zones import local

CALENDARS_MOST = 100
"""Calendars of one service."""
USERS_SHOWN = 3
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
    name, description, wrong = fields.name or "", fields.description or None, list[Detail]()
    if not model.NAME.fullmatch(name):
        wrong.append(
            Detail("name", "1 to 64 letters, digits, - and _, the first a letter or digit")
        )
    rules, file = await _read(fields, Rules(), None, wrong)
    return model.shown(await _created(engine, service, name, description, rules, file))


@db.again
async def _created(
    engine: Engine,
    service: Service,
    name: str,
    description: str | None,
    rules: Rules,
    file: str | None,
) -> Stored:
    async with engine.database.api.begin() as conn:
        now = await services.hold(conn, service.id)
        if await exclusions.count(conn, service.id, CALENDARS_MOST) >= CALENDARS_MOST:
            raise Conflict(f"a service has at most {CALENDARS_MOST} calendars; delete one first")
        made = await exclusions.create(
            conn, service.id, name, rules, now=now, description=description, ical=file
        )
        await _told(conn, service, made, "created", now)
        return made


@get(
    "/",
    summary="The calendars, by name",
    operation_class=asks(pageNumber=whole(0, CALENDARS_MOST), count=whole(1, asked.PAGE_MOST)),
)
async def list_calendars(
    request: AnyRequest, service: Caller, engine: Machine
) -> Response[list[Calendar]]:
    """Return a page of calendars, without their files."""
    page, count = asked.page(request.query_params, CALENDARS_MOST)
    async with engine.database.api.connect() as conn:
        total = await exclusions.count(conn, service.id, CALENDARS_MOST + 1)
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
    changed = await _changed(engine, service, calendar, fields)
    engine.recall_calendars(service.id)
    return model.shown(changed)


@db.again
async def _changed(
    engine: Engine, service: Service, calendar: str, fields: CalendarFields
) -> Stored:
    async with engine.database.api.begin() as conn:
        before = await exclusions.get(conn, service.id, calendar, lock=True)
        wrong = list[Detail]()
        if fields.name is not UNSET and fields.name != calendar:
            wrong.append(Detail("name", "stays as it is: tasks name it; make another calendar"))
        rules, file = await _read(fields, before.rules, before.ical, wrong)
        after = msgspec.structs.replace(before, rules=rules, ical=file)
        if fields.description is not UNSET:
            after = msgspec.structs.replace(after, description=fields.description or None)
        now = await clock.database_ms(conn)
        changed = await exclusions.change(conn, after, now)
        await _told(conn, service, changed, "edited", now)
        return changed


@delete("/{calendar:str}", status_code=204, summary="Delete a calendar that no task names")
@db.again
async def delete_calendar(calendar: FromPath[str], service: Caller, engine: Machine) -> None:
    """Delete a calendar."""
    async with engine.database.api.begin() as conn:
        of = await exclusions.get(conn, service.id, calendar, lock=True)
        await _check_free(conn, of)
        await exclusions.remove(conn, of)
        await _told(conn, service, of, "deleted", await clock.database_ms(conn))


async def _told(conn: Conn, service: Service, of: Stored, verb: str, now: int) -> None:
    """Write who changed a calendar."""
    entry = Entry(kind="calendar", ref=of.name, verb=verb, version=of.version)
    await audit.write(conn, service.id, service.by, [entry], utc(now))


async def _check_free(conn: Conn, of: Stored) -> None:
    users = await tasklist.naming(conn, of.service_id, of.name, USERS_SHOWN + 1)
    if users:
        more = " and others" if len(users) > USERS_SHOWN else ""
        named = ", ".join(users[:USERS_SHOWN])
        raise Conflict(f"tasks keep clear of {of.name}: {named}{more}; take it from them first")


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


async def _read(
    fields: CalendarFields, before: Rules, file: str | None, wrong: list[Detail]
) -> tuple[Rules, str | None]:
    """Return what the fields make of the rules and of the file. Raises ValidationFailed."""
    if len(fields.description or "") > model.DESCRIPTION_MOST:
        wrong.append(Detail("description", f"at most {model.DESCRIPTION_MOST} characters"))
    texts = {"description": fields.description or "", "ical": fields.ical or ""}
    nul = (name for name, text in texts.items() if "\x00" in text)
    wrong += [Detail(name, "must not hold a NUL character") for name in nul]
    rules, more = model.read_rules(fields, before)
    wrong += more
    sent = file if fields.ical is UNSET else fields.ical or None
    if not wrong and (sent != file or rules.timezone != before.timezone):
        try:
            events = () if sent is None else await ical.read_events(sent, rules.timezone)
            rules = msgspec.structs.replace(rules, events=events)
        except cost.Refused as e:
            wrong.append(Detail("ical", str(e)))
    if wrong:
        raise ValidationFailed.all(wrong)
    return rules, sent


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
