"""`/api/schedules`: schedules and their events.

A schedule is a task whose trigger is an RRULE, and everything of it is in `/tasks` and `/runs` too.
"""

from collections.abc import Mapping
from typing import Any, Literal
from uuid import UUID

import msgspec
from litestar import Request, Router, delete, get, post, route
from litestar.di import NamedDependency
from litestar.openapi.spec import Schema
from litestar.params import FromPath

from scheduler import asked, task, tasklist
from scheduler.db import Conn
from scheduler.definition import Definition
from scheduler.engine import Engine
from scheduler.errors import NotFound, ValidationFailed
from scheduler.openapi import asks
from scheduler.schedules import events, model
from scheduler.schedules.events import Event
from scheduler.schedules.model import Schedule, ScheduleFields
from scheduler.service import Service
from scheduler.tasklist import Filter
from scheduler.tasks import pages, written
from scheduler.triggers import Rrule

LIMIT = 10
PAGE_MOST = 1_000_000_000
OF_SCHEDULES = Filter(trigger="rrule")

AnyRequest = Request[Any, Any, Any]
Caller = NamedDependency[Service]
Machine = NamedDependency[Engine]
Paged = asks(
    page=Schema(description="From 1; what is no page is 1."),
    limit=Schema(description=f"At most {asked.PAGE_MOST}; what is no limit is {LIMIT}."),
)


class CreatedSchedule(msgspec.Struct):
    """A schedule just created."""

    id: str


class Updated(msgspec.Struct):
    """What an update answers."""

    message: Literal["Schedule updated successfully."]


class Deleted(msgspec.Struct):
    """What a deletion answers."""

    message: Literal["Schedule and associated events deleted."]


class Schedules(msgspec.Struct):
    """A page of schedules, the newest first."""

    schedules: list[Schedule]
    page: int
    limit: int
    total: int


class Events(msgspec.Struct):
    """A page of a schedule's events."""

    events: list[Event]
    page: int
    limit: int
    total: int


@post("/", summary="Create a schedule", operation_class=asks(ScheduleFields))
async def create_schedule(request: AnyRequest, service: Caller, engine: Machine) -> CreatedSchedule:
    """Create a schedule: it calls `callback_url` at each instant of its RRULE."""
    fields = model.new(model.read_body(await request.body()))
    try:
        made = await written.created(engine, service, fields)
    except ValidationFailed as e:
        raise model.renamed(e) from None
    return CreatedSchedule(made.shown.id)


@get("/", summary="List schedules, the newest first", operation_class=Paged)
async def list_schedules(request: AnyRequest, service: Caller, engine: Machine) -> Schedules:
    """Return a page of schedules.

    One that would hold more than 8 MB ends early: its `limit` is then the smaller one that it was
    read with, and the page after it, with that limit, goes on where it ends.
    """
    page, limit = _page(request.query_params)
    offset = (page - 1) * limit
    async with engine.database.api.connect() as connection:
        conn = await connection.execution_options(isolation_level="REPEATABLE READ")
        listed = await tasklist.page(conn, service.id, OF_SCHEDULES, offset=offset, count=limit + 1)
        total = listed.total
        if total is None:
            total = await tasklist.total(conn, service.id, OF_SCHEDULES)
    cut = pages.cut(listed.tasks, page - 1, limit)
    if cut.following is not None and cut.following[1] < limit:
        page, limit = cut.following
    now = engine.clock.now_ms()
    return Schedules([model.shown(of, now) for of in cut.tasks], page, limit, total)


@get("/{schedule_id:str}", summary="One schedule")
async def get_schedule(schedule_id: FromPath[str], service: Caller, engine: Machine) -> Schedule:
    """Return a schedule."""
    async with engine.database.api.connect() as conn:
        of = await _schedule(conn, service.id, schedule_id)
    return model.shown(of, engine.clock.now_ms())


@route(
    "/{schedule_id:str}",
    http_method=["PUT", "PATCH"],
    status_code=200,
    summary="Change the fields sent of a schedule",
    operation_class=asks(ScheduleFields),
)
async def change_schedule(
    schedule_id: FromPath[str], request: AnyRequest, service: Caller, engine: Machine
) -> Updated:
    """Change a schedule; what was due before stays due, and events to come follow the change."""
    sent = model.read_body(await request.body())
    async with engine.database.api.connect() as conn:
        before = await _schedule(conn, service.id, schedule_id)
    fields = model.changes(sent, before)
    try:
        await written.changed(engine, service, schedule_id, fields, check=_check)
    except ValidationFailed as e:
        raise model.renamed(e) from None
    return Updated("Schedule updated successfully.")


@delete("/{schedule_id:str}", status_code=200, summary="Delete a schedule and its events to come")
async def delete_schedule(schedule_id: FromPath[str], service: Caller, engine: Machine) -> Deleted:
    """Delete a schedule; what runs ends and is recorded, and what ran stays in `/runs`."""
    async with engine.database.api.connect() as conn:
        await _schedule(conn, service.id, schedule_id)
    await written.removed(engine, service, schedule_id)
    return Deleted("Schedule and associated events deleted.")


@get(
    "/{schedule_id:str}/events/pending",
    summary="A schedule's events that have not ended, the soonest first",
    operation_class=Paged,
)
async def list_pending_events(
    schedule_id: FromPath[str], request: AnyRequest, service: Caller, engine: Machine
) -> Events:
    """Return a page of what is queued, under way or waiting for a retry, and of what is to come.

    All events of the next `prequeuer.event_timeframe_minutes` are there.
    """
    page, limit = _page(request.query_params)
    frame_ms = engine.settings.prequeuer.event_timeframe_minutes * 60_000
    async with engine.database.api.connect() as connection:
        conn = await connection.execution_options(isolation_level="REPEATABLE READ")
        of = await _schedule(conn, service.id, schedule_id)
        found, total = await events.pending(
            conn,
            of,
            engine.clock.now_ms(),
            frame_ms,
            offset=(page - 1) * limit,
            count=limit,
        )
    return Events(found, page, limit, total)


@get(
    "/{schedule_id:str}/events/history",
    summary="A schedule's events that have ended, the newest first",
    operation_class=Paged,
)
async def list_past_events(
    schedule_id: FromPath[str], request: AnyRequest, service: Caller, engine: Machine
) -> Events:
    """Return a page of what has ended: completed, error, skipped, expired or cancelled.

    A gap of events that were skipped one after the other is one of them.
    """
    page, limit = _page(request.query_params)
    frame_ms = engine.settings.prequeuer.event_timeframe_minutes * 60_000
    async with engine.database.api.connect() as connection:
        conn = await connection.execution_options(isolation_level="REPEATABLE READ")
        of = await _schedule(conn, service.id, schedule_id)
        found, total = await events.past(conn, of, frame_ms, offset=(page - 1) * limit, count=limit)
    return Events(found, page, limit, total)


async def _schedule(conn: Conn, service_id: UUID, schedule_id: str) -> Definition:
    """Return the task that a schedule is. Raises NotFound."""
    of = await task.find(conn, service_id, schedule_id)
    if of is None:
        raise NotFound(f"there is no schedule {schedule_id}")
    _check(of)
    return of


def _check(of: Definition) -> None:
    """Refuse a task that is no schedule. Raises NotFound."""
    if not isinstance(of.trigger, Rrule):
        raise NotFound(f"there is no schedule {of.id}; the task of that id has no RRULE")


def _page(sent: Mapping[str, str]) -> tuple[int, int]:
    """Return `page` and `limit`; a bad page is 1, a bad limit 10, more than 1,000 is 1,000."""
    page, limit = _number(sent.get("page"), 1), _number(sent.get("limit"), LIMIT)
    return min(page, PAGE_MOST), min(limit, asked.PAGE_MOST)


def _number(sent: str | None, default: int) -> int:
    """Return a whole number from 1 on, or what stands for one that is none."""
    if not sent or not (sent.isascii() and sent.isdecimal()):
        return default
    return int(sent[:20]) or default


router = Router(
    "/api/schedules",
    route_handlers=[
        create_schedule,
        list_schedules,
        get_schedule,
        change_schedule,
        delete_schedule,
        list_pending_events,
        list_past_events,
    ],
)
