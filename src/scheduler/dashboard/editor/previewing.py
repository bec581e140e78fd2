"""The preview of a form: when the task would be due, in words and times, while it is typed."""

from collections.abc import Collection
from datetime import datetime

import msgspec

from scheduler.clock import Slice
from scheduler.dashboard.editor import fields
from scheduler.dashboard.editor.fields import Draft
from scheduler.definition import Definition
from scheduler.engine import Engine
from scheduler.errors import UserError, ValidationFailed
from scheduler.service import Service
from scheduler.tasks import model, preview, written
from scheduler.tasks.keeping import with_calendars
from scheduler.tasks.model import TaskFields

COUNT = 10


class Instant(msgspec.Struct, frozen=True):
    """An instant, and what stands on the wall of the task's zone."""

    at: str
    there: str
    """Like `Mon 2027-03-29 09:00:00 +02:00`."""
    note: str | None


class Coming(msgspec.Struct, frozen=True):
    """What a form's trigger yields."""

    description: str
    zone: str
    instants: list[Instant]


async def previewed(
    engine: Engine,
    service: Service,
    draft: Draft,
    before: Definition | None,
    changed: Collection[str] | None,
) -> Coming:
    """Return when a task would be due. Raises ValidationFailed, and other UserErrors."""
    now, sent = engine.clock.now_ms(), fields.timing(draft, changed)
    spent: model.Spent | None = None
    if before is not None and not sent:
        made = before
    elif before is not None:
        made = (await written.redrafted(engine, service, before, _fields(sent), now)).task
    else:
        named = {**sent, "name": "preview", "url": preview.PLACE}
        made, spent = (await written.drafted(engine, service, _fields(named), now)).task, (0, now)
    if made.bounds.calendars and made is not before:
        async with engine.database.api.connect() as conn:
            made = await with_calendars(conn, made, before.bounds.calendars if before else ())
    of = made
    if before is None:  # how far jitter moves it is known once it is saved
        of = msgspec.structs.replace(made, bounds=msgspec.structs.replace(made.bounds, jitter_ms=0))
    found = await preview.yields(of, now, COUNT, spent, made)
    turn, instants = Slice(), list[Instant]()
    for each in found.occurrences:
        instants.append(Instant(each.at, _there(each.local), each.note))
        await turn.give_way()
    return Coming(found.description, found.timezone, instants)


def _fields(sent: object) -> TaskFields:
    return model.read_fields(msgspec.json.encode(sent))


def _there(local: str) -> str:
    """Return a local time (RFC 3339) with its day of the week."""
    day = datetime.fromisoformat(local).strftime("%a")
    return f"{day} {local[:10]} {local[11:19]} {local[-6:]}"


def reasons(e: UserError) -> list[str]:
    """Return what is wrong, where it is wrong with no field."""
    return [] if isinstance(e, ValidationFailed) and e.details else [e.message]
