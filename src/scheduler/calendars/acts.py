"""What can be done to a calendar: over HTTP and on pages it is the same."""

import msgspec
from msgspec import UNSET

from scheduler import clock, db, dependents, exclusions, services
from scheduler.calendars import cost, ical, model, told
from scheduler.calendars.model import CalendarFields
from scheduler.db import Conn, Database
from scheduler.engine import Engine
from scheduler.errors import Conflict, Detail, ValidationFailed
from scheduler.exclusions import Stored
from scheduler.service import Service
from scheduler.triggers.calendar import Rules

CALENDARS_MOST = 100
"""Calendars of one service."""
USERS_SHOWN = 3


async def create(engine: Engine, service: Service, fields: CalendarFields) -> Stored:
    """Create a calendar. Raises ValidationFailed, Conflict where there is one, or are too many."""
    name, description, wrong = fields.name or "", fields.description or None, list[Detail]()
    if not model.NAME.fullmatch(name):
        wrong.append(
            Detail("name", "1 to 64 letters, digits, - and _, the first a letter or digit")
        )
    rules, file = await read(fields, Rules(), None, wrong)
    return await _created(engine, service, name, description, rules, file)


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
        await told.tell(conn, service, "created", None, made, now)
        return made


async def change(engine: Engine, service: Service, calendar: str, fields: CalendarFields) -> Stored:
    """Change what was sent; it holds at once, also for runs that are planned.

    Raises ValidationFailed and NotFound.
    """
    changed = await _changed(engine, service, calendar, fields)
    engine.recall_calendars(service.id)
    return changed


@db.again
async def _changed(
    engine: Engine, service: Service, calendar: str, fields: CalendarFields
) -> Stored:
    async with engine.database.api.begin() as conn:
        before = await exclusions.get(conn, service.id, calendar, lock=True)
        after = await edited(before, fields)
        now = await clock.database_ms(conn)
        changed = await exclusions.change(conn, after, now)
        await told.tell(conn, service, "edited", before, changed, now)
        return changed


async def edited(before: Stored, fields: CalendarFields) -> Stored:
    """Return a calendar as the fields would make it. Raises ValidationFailed."""
    wrong = list[Detail]()
    if fields.name is not UNSET and fields.name != before.name:
        wrong.append(Detail("name", "stays as it is: tasks name it; make another calendar"))
    rules, file = await read(fields, before.rules, before.ical, wrong)
    after = msgspec.structs.replace(before, rules=rules, ical=file)
    if fields.description is not UNSET:
        after = msgspec.structs.replace(after, description=fields.description or None)
    return after


@db.again
async def delete(database: Database, service: Service, calendar: str) -> None:
    """Delete a calendar. Raises NotFound, Conflict where tasks name it."""
    async with database.api.begin() as conn:
        of = await exclusions.get(conn, service.id, calendar, lock=True)
        await _check_free(conn, of)
        await exclusions.remove(conn, of)
        await told.tell(conn, service, "deleted", of, None, await clock.database_ms(conn))


async def _check_free(conn: Conn, of: Stored) -> None:
    users = await dependents.naming(conn, of.service_id, of.name, USERS_SHOWN + 1)
    if users:
        more = " and others" if len(users) > USERS_SHOWN else ""
        named = ", ".join(users[:USERS_SHOWN])
        raise Conflict(f"tasks keep clear of {of.name}: {named}{more}; take it from them first")


async def read(
    fields: CalendarFields, before: Rules, file: str | None, wrong: list[Detail]
) -> tuple[Rules, str | None]:
    """Return what the fields make of the rules and of the file.

    Raises ValidationFailed, with what was `wrong` before, too.
    """
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
