"""Calendars: their table, and what those that a task names exclude."""

import uuid
from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec
import structlog
from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError

from scheduler import db
from scheduler.clock import Slice
from scheduler.db import Conn, metadata, times_check, utc
from scheduler.definition import Definition
from scheduler.errors import Conflict, NotFound
from scheduler.triggers.calendar import Rules
from scheduler.triggers.excluded import Calendar, Excluded

log = structlog.get_logger()

CALENDAR = Table(
    "calendar",
    metadata,
    Column("id", Uuid, nullable=False),
    Column("service_id", Uuid, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("description", Text),
    Column("definition", JSONB, nullable=False),
    Column("ical", Text),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("id", name="calendar_pkey"),
    UniqueConstraint("service_id", "name", name="calendar_name_key"),
    CheckConstraint("version > 0", name="calendar_version_check"),
    times_check("calendar", "created_at", "updated_at"),
)


class Stored(msgspec.Struct, kw_only=True, frozen=True):
    """A calendar as its row has it; times in ms since 1970."""

    key: UUID
    service_id: UUID
    name: str
    version: int
    description: str | None
    rules: Rules
    ical: str | None
    """The file as it was sent; its events are among the rules."""
    created_at: int
    updated_at: int


# One calendar -------------------------------------------------------------------------------------

COLUMNS = """id, service_id, name, version, description, definition, ical, created_at, updated_at"""
INSERT = text(f"""
INSERT INTO calendar ({COLUMNS})
VALUES (:id, :service_id, :name, 1, :description, :definition, :ical, :now, :now)
""")
GET = text(f"SELECT {COLUMNS} FROM calendar WHERE service_id = :service_id AND name = :name")
LOCK = text(GET.text + " FOR UPDATE")
UPDATE = text("""
UPDATE calendar SET version = version + 1, description = :description, definition = :definition,
    ical = :ical, updated_at = :now
WHERE id = :id AND service_id = :service_id
""")
DELETE = text("DELETE FROM calendar WHERE id = :id AND service_id = :service_id")
# Without the files, which may be 100 large ones.
LIST = text(f"""
SELECT {COLUMNS.replace(" ical,", " NULL AS ical,")} FROM calendar WHERE service_id = :service_id
ORDER BY name OFFSET :offset LIMIT :most
""")
COUNT = text("""
SELECT count(*) FROM (SELECT FROM calendar WHERE service_id = :service_id LIMIT :most) AS c
""")


async def create(
    conn: Conn,
    service_id: UUID,
    name: str,
    rules: Rules,
    *,
    now: int,
    description: str | None = None,
    ical: str | None = None,
) -> Stored:
    """Create a calendar. Raises Conflict where its name is taken."""
    values: dict[str, Any] = {"id": uuid.uuid4(), "service_id": service_id, "name": name}
    values |= {"description": description, "definition": _json(rules), "ical": ical}
    try:
        await conn.execute(INSERT, values | {"now": utc(now)})
    except IntegrityError as e:
        if db.violated(e) == "calendar_name_key":
            raise Conflict(f"there is a calendar {name} already") from None
        raise
    return await get(conn, service_id, name)


async def get(conn: Conn, service_id: UUID, name: str, *, lock: bool = False) -> Stored:
    """Return a service's calendar; `lock` holds it, and holds off tasks that would name it.

    Raises NotFound.
    """
    values = {"service_id": service_id, "name": name.replace("\x00", "")}
    row = (await conn.execute(LOCK if lock else GET, values)).first()
    if row is None or row.name != name:
        raise NotFound(f"there is no calendar {name}")
    return _stored(row)


async def change(conn: Conn, of: Stored, now: int) -> Stored:
    """Write a calendar as an edit made it; it is locked."""
    values = {"id": of.key, "service_id": of.service_id, "description": of.description}
    rules = {"definition": _json(of.rules), "ical": of.ical}
    await conn.execute(UPDATE, {**values, **rules, "now": utc(now)})
    return msgspec.structs.replace(of, version=of.version + 1, updated_at=now)


async def remove(conn: Conn, of: Stored) -> None:
    """Delete a calendar."""
    await conn.execute(DELETE, {"id": of.key, "service_id": of.service_id})


async def page(conn: Conn, service_id: UUID, *, offset: int, most: int) -> list[Stored]:
    """Return a service's calendars, by name, without their files."""
    values = {"service_id": service_id, "offset": offset, "most": most}
    found, turn = list[Stored](), Slice()
    for row in await conn.execute(LIST, values):
        found.append(_stored(row))
        await turn.give_way()
    return found


async def count(conn: Conn, service_id: UUID, most: int) -> int:
    """Return how many calendars a service has, counted to `most`."""
    found = await conn.execute(COUNT, {"service_id": service_id, "most": most})
    return int(found.scalar_one())


OF_SERVICE = """FROM calendar WHERE service_id = :service_id ORDER BY name LIMIT :most"""
REMOVE_SERVICE = text(
    "DELETE FROM calendar WHERE service_id = :service_id AND id = ANY(ARRAY("
    f"SELECT id {OF_SERVICE} FOR UPDATE SKIP LOCKED))"
)
LEFT_OF_SERVICE = text(f"SELECT EXISTS (SELECT FROM (SELECT id {OF_SERVICE}) AS left_over)")
NAMES = text(f"SELECT name {OF_SERVICE}")


async def names(conn: Conn, service_id: UUID, most: int) -> list[str]:
    """Return the names of a service's calendars, in their order, `most` at most."""
    found = await conn.execute(NAMES, {"service_id": service_id, "most": most})
    return list(found.scalars())


async def remove_service(conn: Conn, service_id: UUID, most: int) -> bool:
    """Delete at most so many of a service's calendars; say whether any are left."""
    await conn.execute(REMOVE_SERVICE, {"service_id": service_id, "most": most})
    left = await conn.execute(LEFT_OF_SERVICE, {"service_id": service_id, "most": 1})
    return bool(left.scalar_one())


# What tasks keep clear of -------------------------------------------------------------------------

KNOWN_MOST = 2000
EVENTS_MOST = 50_000
"""Calendars kept in memory: so many, and of their events so many."""
# Those that are known as they stand come without what they exclude.
CURRENT = text("""
SELECT c.id, c.service_id, c.name, c.version, now() AS now,
       CASE WHEN k.id IS NULL THEN c.definition END AS definition
FROM unnest(CAST(:services AS uuid[]), CAST(:names AS text[])) AS w (service_id, name)
JOIN calendar c ON c.service_id = w.service_id AND c.name = w.name
LEFT JOIN unnest(CAST(:ids AS uuid[]), CAST(:versions AS int[])) AS k (id, version)
    ON k.id = c.id AND k.version = c.version
""")
HOLD = text("""
SELECT id, service_id, name, version, now() AS now, definition FROM calendar
WHERE service_id = :service_id AND name = ANY(:names) ORDER BY name FOR KEY SHARE
""")

Wanted = tuple[UUID, str]
"""A service, and a calendar's name."""


class Known:
    """The calendars that this process has read: they are worked out once."""

    def __init__(self) -> None:
        self._found: dict[Wanted, Calendar] = {}
        self._events = 0

    def get(self, wanted: Wanted) -> Calendar | None:
        """Return a calendar as it was when it was last read."""
        return self._found.get(wanted)

    def learn(self, row: Any) -> Calendar:
        """Take in a row; `definition` is None where nothing has changed."""
        wanted = row.service_id, row.name
        known = self._found.get(wanted)
        if known is not None and (known.key, known.version) == (row.id, row.version):
            return known
        rules = _rules(row)
        if known is not None:
            self._events -= len(known.rules.events)
        if len(self._found) >= KNOWN_MOST or self._events + len(rules.events) > EVENTS_MOST:
            self._found.clear()
            self._events = 0
        found = self._found[wanted] = Calendar(row.id, row.version, row.name, rules)
        self._events += len(rules.events)
        return found


_known = Known()


async def attach(conn: Conn, tasks: Sequence[Definition]) -> list[Definition]:
    """Return tasks with what their calendars exclude, as those stand now.

    One statement, and none where no task names any. A calendar that is gone, which only a hand in
    the database can bring about, excludes nothing.
    """
    wanted = {(of.service_id, name) for of in tasks for name in of.bounds.calendars}
    if not wanted:
        return list(tasks)
    found = await current(conn, wanted)
    return [with_excluded(of, found) for of in tasks]


def with_excluded(of: Definition, found: dict[Wanted, Calendar]) -> Definition:
    """Return a task with what those of its calendars exclude that were found."""
    if not of.bounds.calendars:
        return of if of.excluded is None else msgspec.structs.replace(of, excluded=None)
    named = (found.get((of.service_id, name)) for name in of.bounds.calendars)
    calendars = tuple(each for each in named if each is not None)
    if of.excluded is not None and of.excluded.calendars == calendars:
        return of
    return msgspec.structs.replace(of, excluded=Excluded(*calendars) if calendars else None)


async def current(conn: Conn, wanted: Collection[Wanted]) -> dict[Wanted, Calendar]:
    """Return calendars of any service as they stand now: the machine works for all."""
    known = [each for pair in wanted if (each := _known.get(pair)) is not None]
    rows = await conn.execute(
        CURRENT,
        {
            "services": [service_id for service_id, _ in wanted],
            "names": [name for _, name in wanted],
            "ids": [each.key for each in known],
            "versions": [each.version for each in known],
        },
    )
    return await _learned(rows)


async def held(conn: Conn, service_id: UUID, names: Collection[str]) -> dict[Wanted, Calendar]:
    """Return those of a service's calendars, held against their deletion until the commit."""
    rows = await conn.execute(HOLD, {"service_id": service_id, "names": list(names)})
    return await _learned(rows)


async def _learned(rows: Iterable[Any]) -> dict[Wanted, Calendar]:
    """Take in rows; what is new is worked out for now, and in pieces: no run waits for it then."""
    found, turn = dict[Wanted, Calendar](), Slice()
    for row in rows:
        known = _known.get((row.service_id, row.name))
        each = found[row.service_id, row.name] = _known.learn(row)
        if each is not known:
            for step in each.warm(db.ms(row.now)):
                step()
                await turn.give_way()
    return found


# Rows ---------------------------------------------------------------------------------------------

_decoder = msgspec.json.Decoder(Rules)


def _json(rules: Rules) -> str:
    return msgspec.json.encode(rules).decode()


def _rules(row: Any) -> Rules:
    """Read what a calendar excludes; one that someone damaged by hand excludes nothing."""
    try:
        return _decoder.decode(row.definition)
    except (msgspec.DecodeError, RecursionError, TypeError) as e:
        log.error("a calendar's row cannot be read", calendar=row.name, error=str(e))  # noqa: TRY400
        return Rules()


def _stored(row: Any) -> Stored:
    return Stored(
        key=row.id,
        service_id=row.service_id,
        name=row.name,
        version=row.version,
        description=row.description,
        rules=_rules(row),
        ical=row.ical,
        created_at=db.ms(row.created_at),
        updated_at=db.ms(row.updated_at),
    )
