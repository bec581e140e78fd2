"""The calendars of a service: what each excludes in a year, and what a change of it would do."""

from typing import Any
from urllib.parse import quote

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath

from scheduler import audit, dependents, exclusions
from scheduler.calendars import acts, model
from scheduler.dashboard import caller, carried, door, page
from scheduler.dashboard.calendars import calendar_effect, calendar_form, calendar_year
from scheduler.dashboard.calendars.calendar_form import Sent
from scheduler.dashboard.door import Visitor
from scheduler.engine import Engine
from scheduler.errors import Conflict, UserError, ValidationFailed

HOME = "/dashboard/calendars"
NEW = "/dashboard/new-calendar"
"""Beside the calendars, which may have any word for a name."""
CHANGES = 5
TASKS_MOST = 20
"""Tasks that are shown of those that name a calendar."""

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Visitor]
Machine = NamedDependency[Engine]

SAID = {
    "created": "The calendar is there. Tasks keep clear of it that name it.",
    "changed": "The calendar is changed; it holds at once, also for runs that are planned.",
    "deleted": "The calendar is gone.",
}


@get(HOME, include_in_schema=False)
async def show_calendars(request: AnyRequest, visitor: Who, engine: Machine) -> Response[Any]:
    """Return the calendars, by name: a service has a hundred at most."""
    async with engine.database.api.connect() as conn:
        found = await exclusions.page(conn, visitor.service.id, offset=0, most=acts.CALENDARS_MOST)
    return await page.large(
        "calendars.html",
        visitor=visitor,
        now=engine.clock.now_ms(),
        calendars=[model.shown(each, whole=False) for each in found],
        week_words=calendar_form.week_words,
        said=SAID.get(request.query_params.get("done", ""), ""),
        url=caller.asked_at(request, engine.settings),
    )


@get(f"{HOME}/{{name:str}}", include_in_schema=False)
async def show_calendar(
    name: FromPath[str], request: AnyRequest, visitor: Who, engine: Machine
) -> Response[Any]:
    """Return a calendar: a year of it, and the tasks that name it."""
    now, service_id = engine.clock.now_ms(), visitor.service.id
    async with engine.database.api.connect() as conn:
        of = await exclusions.get(conn, service_id, name)
        users = await dependents.keeping_clear(conn, service_id, name, TASKS_MOST + 1)
        told = await audit.page(conn, service_id, name, kind="calendar", before=None, most=CHANGES)
    year = calendar_year.year_of(request.query_params.get("year", ""), of.rules.timezone, now)
    return await page.large(
        "calendar.html",
        visitor=visitor,
        now=now,
        of=model.shown(of, whole=False),
        at=_at(name),
        week_words=calendar_form.week_words,
        year=year,
        months=await calendar_year.months(of.rules, year),
        tasks=users[:TASKS_MOST],
        more=len(users) > TASKS_MOST,
        changes=told,
        said=SAID.get(request.query_params.get("done", ""), ""),
    )


def _at(name: str) -> str:
    return f"{HOME}/{quote(name, safe='')}"


# Making and changing -----------------------------------------------------------------------------


@get(NEW, include_in_schema=False)
async def ask_calendar(visitor: Who, engine: Machine) -> Response[Any]:
    """Return an empty form."""
    return await _form(visitor, engine, None, {"timezone": "UTC"})


@post(NEW, status_code=200, request_max_body_size=calendar_form.FORM_MOST, include_in_schema=False)
async def create_calendar(
    request: AnyRequest, state: State, visitor: Who, engine: Machine
) -> Response[Any]:
    """Create a calendar; then its page."""
    sent: Sent = {}
    try:
        sent = await _sent(request, state, visitor)
        if carried.AGAIN in sent:
            return await _form(door.told(visitor), engine, None, sent)
        made = await acts.create(engine, visitor.service, calendar_form.read(sent, new=True))
    except (ValidationFailed, Conflict) as e:
        return await _form(visitor, engine, None, sent, e)
    return page.leading(f"{_at(made.name)}?done=created")


async def _sent(request: AnyRequest, state: State, visitor: Visitor) -> Sent:
    sent = await calendar_form.sent(request)
    await door.check(request, state, visitor, sent, again=True)
    return sent


async def _form(
    visitor: Visitor,
    engine: Engine,
    name: str | None,
    sent: Sent,
    refused: UserError | None = None,
    effect: calendar_effect.Effect | None = None,
    events: int = 0,
) -> Response[Any]:
    wrong = {} if refused is None else {"name": refused.message}
    if isinstance(refused, ValidationFailed):
        wrong = calendar_form.errors(refused)
    return await page.large(
        "calendar_form.html",
        status=200 if refused is None else refused.status,
        visitor=visitor,
        now=engine.clock.now_ms(),
        calendar=name,
        at=NEW if name is None else f"{_at(name)}/edit",
        back=HOME if name is None else _at(name),
        sent=sent,
        wrong=wrong,
        effect=effect,
        events=events,
        hints=(calendar_form.DATES, calendar_form.WEEKLY),
    )


@get(f"{HOME}/{{name:str}}/edit", include_in_schema=False)
async def ask_change(name: FromPath[str], visitor: Who, engine: Machine) -> Response[Any]:
    """Return the form, filled in."""
    async with engine.database.api.connect() as conn:
        of = await exclusions.get(conn, visitor.service.id, name)
    sent = calendar_form.written(of)
    return await _form(visitor, engine, name, sent, events=len(of.rules.events))


@post(
    f"{HOME}/{{name:str}}/edit",
    status_code=200,
    request_max_body_size=calendar_form.FORM_MOST,
    include_in_schema=False,
)
async def change_calendar(
    name: FromPath[str], request: AnyRequest, state: State, visitor: Who, engine: Machine
) -> Response[Any]:
    """Change a calendar; then its page. Or show what the change would do, and the form again."""
    service_id, sent, events = visitor.service.id, Sent(), 0
    try:
        sent = await _sent(request, state, visitor)
        if carried.AGAIN in sent:
            return await _form(door.told(visitor), engine, name, sent)
        fields = calendar_form.read(sent, new=False)
        if "preview" in sent:
            return await _previewed(visitor, engine, name, sent, fields)
        await acts.change(engine, visitor.service, name, fields)
    except ValidationFailed as e:
        async with engine.database.api.connect() as conn:
            before = await exclusions.get(conn, service_id, name)
        shown = sent or calendar_form.written(before)
        events = len(before.rules.events)
        return await _form(visitor, engine, name, shown, e, events=events)
    return page.leading(f"{_at(name)}?done=changed")


async def _previewed(
    visitor: Visitor, engine: Engine, name: str, sent: Sent, fields: model.CalendarFields
) -> Response[Any]:
    service_id = visitor.service.id
    async with engine.database.api.connect() as conn:
        before = await exclusions.get(conn, service_id, name)
        tasks = await dependents.keeping_clear(conn, service_id, name, TASKS_MOST)
    after = await acts.edited(before, fields)
    async with engine.database.api.connect() as conn:
        now = engine.clock.now_ms()
        effect = await calendar_effect.of_change(conn, tasks, before, after.rules, now)
    events = len(before.rules.events)
    return await _form(visitor, engine, name, sent, effect=effect, events=events)


# Deleting ----------------------------------------------------------------------------------------


@get(f"{HOME}/{{name:str}}/delete", include_in_schema=False)
async def ask_delete(name: FromPath[str], visitor: Who, engine: Machine) -> Response[Any]:
    """Return what stands against a deletion, or ask whether it is meant."""
    return await _ask_delete(name, visitor, engine)


async def _ask_delete(
    name: str, visitor: Visitor, engine: Engine, refused: UserError | None = None
) -> Response[Any]:
    async with engine.database.api.connect() as conn:
        of = await exclusions.get(conn, visitor.service.id, name)
        users = await dependents.keeping_clear(conn, visitor.service.id, name, TASKS_MOST + 1)
    return page.answer(
        "calendar_delete.html",
        status=200 if refused is None else refused.status,
        visitor=visitor,
        of=of,
        at=_at(name),
        tasks=users[:TASKS_MOST],
        more=len(users) > TASKS_MOST,
        refused="" if refused is None else refused.message,
    )


@post(f"{HOME}/{{name:str}}/delete", status_code=200, include_in_schema=False)
async def delete_calendar(
    name: FromPath[str], request: AnyRequest, state: State, visitor: Who, engine: Machine
) -> Response[Any]:
    """Delete a calendar that no task names."""
    await door.own_form(request, state, visitor)
    try:
        await acts.delete(engine.database, visitor.service, name)
    except Conflict as e:
        return await _ask_delete(name, visitor, engine, e)
    return page.leading(f"{HOME}?done=deleted")


HANDLERS = (
    show_calendars,
    show_calendar,
    ask_calendar,
    create_calendar,
    ask_change,
    change_calendar,
    ask_delete,
    delete_calendar,
)
