"""`preview`: what a trigger yields, in words and in instants, of a task saved or not."""

from typing import Any

import msgspec
from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIFormat, OpenAPIType, Schema
from litestar.params import FromPath
from msgspec import UNSET

from scheduler import (
    asked,
    clock,
    outlook,
    planning,
    task,
)
from scheduler.clock import Slice
from scheduler.db import rfc3339
from scheduler.definition import Definition
from scheduler.engine import Engine
from scheduler.errors import ValidationFailed
from scheduler.instant import LAST
from scheduler.openapi import asks, whole
from scheduler.service import Service
from scheduler.tasks import model, written
from scheduler.tasks.acting import NAMED_BY
from scheduler.tasks.keeping import with_calendars
from scheduler.tasks.model import Spent, TaskFields
from scheduler.triggers import Bounds, Cron, Interval, Once, Rrule
from scheduler.triggers.zones import local

COUNT = 10
BUDGET_S = 2.0
"""CPU time that a preview may take in all: it shares the loop with runs that are due."""

GAPS = {
    "skip": "is left out",
    "shift": "is as much later as the clock leaps",
    "end": "is due when the clock has leapt",
}
OVERLAPS = {"first": "the first time", "second": "the second time", "both": "both times"}

AnyRequest = Request[Any, Any, Any]
Caller = NamedDependency[Service]
Machine = NamedDependency[Engine]


PLACE = "http://preview.invalid/"
"""What is called where a body names nothing."""
INSTANT = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME)
COUNTED = whole(1, asked.PAGE_MOST)


class Occurrence(msgspec.Struct):
    """An instant in UTC and in the task's zone; `note` says what daylight saving did to it."""

    at: str
    local: str
    note: str | None


class Preview(msgspec.Struct):
    """What a trigger yields."""

    timezone: str
    description: str
    occurrences: list[Occurrence]


@get(
    "/{task_id:str}/preview",
    summary="What a task's trigger yields",
    operation_class=asks(count=COUNTED, from_=INSTANT),
)
async def preview_task(
    task_id: FromPath[str], request: AnyRequest, service: Caller, engine: Machine
) -> Preview:
    """Return the next instants of a task, whatever its status; `from` may lie in the past.

    100 years from now at most, either way.
    """
    async with engine.database.api.connect() as conn:
        of = await task.get(conn, service.id, task_id)
        planned = (await outlook.planned(conn, service.id, [of.key])).get(of.key)
    spent = None if planned is None else (planned.runs, planned.until)
    now = engine.clock.now_ms()
    return await _preview(of, request, now, spent)


@post(
    "/preview",
    status_code=200,
    summary="What the trigger of a task not saved would yield",
    operation_class=asks(TaskFields, count=COUNTED, from_=INSTANT),
)
async def preview_new_task(
    request: AnyRequest,
    service: Caller,
    engine: Machine,
) -> Preview:
    """Return the first instants of a task that is not saved; it needs no name and no url.

    How far jitter moves it is known once it is saved: the instants are those of the trigger.
    """
    fields = model.read_fields(await request.body())
    named = msgspec.structs.replace(
        fields,
        name="preview" if fields.name is UNSET else fields.name,
        url=fields.url if any(getattr(fields, each) for each in NAMED_BY) else PLACE,
    )
    async with engine.database.api.connect() as conn:
        now = await clock.database_ms(conn)
    made = (await written.drafted(engine, service, named, now)).task
    if made.bounds.calendars:
        async with engine.database.api.connect() as conn:
            made = await with_calendars(conn, made)
    unshifted = msgspec.structs.replace(made.bounds, jitter_ms=0)
    of = msgspec.structs.replace(made, bounds=unshifted)
    return await _preview(of, request, now, (0, now), described=made)


async def _preview(
    of: Definition,
    request: AnyRequest,
    now: int,
    spent: Spent | None,
    described: Definition | None = None,
) -> Preview:
    sent = request.query_params
    count = asked.whole(sent.get("count"), "count", COUNT, 1, asked.PAGE_MOST)
    start = asked.near(sent, "from", now)
    return await yields(of, now if start is None else start, count, spent, described)


async def yields(
    of: Definition,
    start: int,
    count: int,
    spent: Spent | None,
    described: Definition | None = None,
) -> Preview:
    """Return what a task's trigger yields from an instant (ms) on. Raises where it takes long."""
    zone = of.trigger.timezone if isinstance(of.trigger, Cron | Rrule) else "UTC"
    found: list[Occurrence] = []
    turn = Slice()
    left, at = await _left(of, start, spent, turn), _following(of, start - 1)
    while at is not None and len(found) < count:
        if spent is not None and at > spent[1] and left is not None:
            if left <= 0:
                break
            left -= 1
        found.append(_occurrence(of, zone, at))
        at = _following(of, at)
        await turn.give_way()
        if turn.used_s > BUDGET_S:
            raise ValidationFailed.of("count", f"{count} take too long; ask for fewer")
    return Preview(zone, describe(described or of), found)


def _following(of: Definition, after: int) -> int | None:
    at = of.instants.next(after) if of.instants is not None else None
    return at if at is not None and at <= LAST else None


async def _left(of: Definition, start: int, spent: Spent | None, turn: Slice) -> int | None:
    """Return how many instants that nobody has planned yet are left from `start` on.

    None for any number. Those before `spent` ends were counted when they were planned.
    """
    most = of.bounds.max_runs
    if most is None or spent is None or of.instants is None:
        return None
    left = most - spent[0]
    return left - await planning.counted(of.instants, spent[1], start - 1, left, turn)


def _occurrence(of: Definition, zone: str, at: int) -> Occurrence:
    note = None
    if isinstance(of.trigger, Cron | Rrule):
        note = of.trigger.note(at - of.bounds.offset(of.key))
    stretch = of.excluded.at(at) if of.excluded else None
    if stretch:
        suppressed = f"skipped: calendar {stretch.name}"
        note = f"{note}; {suppressed}" if note else suppressed
    return Occurrence(rfc3339(at) or "", local(zone, at), note)


def describe(of: Definition) -> str:
    """Return in words when a task is due."""
    trigger = of.trigger
    if trigger is None:
        return "By hand only"
    if isinstance(trigger, Cron | Rrule):
        said = f"{trigger.explain()}, {trigger.timezone} time" + _dst(trigger)
    elif isinstance(trigger, Interval):
        said = f"Every {_so_many(trigger.frequency, trigger.unit)}"
    else:
        said = f"Once, at {rfc3339(trigger.at)}"
    return said + _bounded(of.bounds, once=isinstance(trigger, Once))


def _dst(trigger: Cron | Rrule) -> str:
    """Return in words what a trigger makes of daylight saving, where that is not the default."""
    words = ""
    if trigger.dst_gap != ("end" if isinstance(trigger, Cron) else "shift"):
        words += f", a time that does not exist {GAPS[trigger.dst_gap]}"
    if trigger.dst_overlap != "first":
        words += f", one that comes twice is due {OVERLAPS[trigger.dst_overlap]}"
    return words


def _bounded(bounds: Bounds, *, once: bool) -> str:
    words = ""
    if bounds.start_at is not None:
        words += f", from {rfc3339(bounds.start_at)}"
    if bounds.end_at is not None:
        words += (" " if words else ", ") + f"until {rfc3339(bounds.end_at)}"
    if bounds.max_runs is not None and not once:
        words += f", at most {_times(bounds.max_runs)}"
    if bounds.jitter_ms:
        words += f", up to {bounds.jitter_ms / 1000:.15g} s later"
    return words


def _so_many(number: int, unit: str) -> str:
    return unit if number == 1 else f"{number} {unit}s"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
