"""The task: its table, a row for each, and every verb on it."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError

from scheduler import db, exclusions
from scheduler.actions import Action, Http
from scheduler.db import Conn, metadata, times_check
from scheduler.definition import Definition, Policy
from scheduler.errors import Conflict, NotFound
from scheduler.run import Line, bucket_of
from scheduler.triggers import Bounds, Trigger

SPEC, CALLS_SPEC = text("(action ->> 'service')"), text("action ->> 'kind' = 'operation'")
TASK = Table(
    "task",
    metadata,
    Column("key", Uuid, nullable=False),
    Column("bucket", SmallInteger, nullable=False),
    Column("service_id", Uuid, nullable=False),
    Column("id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("tags", JSONB, nullable=False),
    Column("status", Text, nullable=False),
    Column("trigger", JSONB),
    Column("action", JSONB, nullable=False),
    Column("policy", JSONB, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("bounds", JSONB),
    Column("paused_until", DateTime(timezone=True)),
    PrimaryKeyConstraint("key", "bucket", name="task_pkey"),
    UniqueConstraint("service_id", "id", "bucket", name="task_id_key"),
    CheckConstraint("status IN ('active', 'paused', 'disabled')", name="task_status_check"),
    CheckConstraint("version > 0", name="task_version_check"),
    times_check("task", "created_at", "updated_at", "paused_until"),
    Index("task_newest", "service_id", "created_at", "key"),
    Index(
        "task_resting",
        "service_id",
        "status",
        "created_at",
        "key",
        postgresql_where=text("status <> 'active'"),
    ),
    Index(
        "task_trigger",
        "service_id",
        text("coalesce(trigger ->> 'kind', 'none')"),
        "created_at",
        "key",
    ),
    Index(
        "task_action",
        "service_id",
        text("(action ->> 'kind')"),
        "created_at",
        "key",
        postgresql_where=text("action ->> 'kind' <> 'http'"),
    ),
    Index("task_operation", "service_id", SPEC, "created_at", "key", postgresql_where=CALLS_SPEC),
    Index(
        "task_tags",
        text(
            "string_to_array(('s' || substr(service_id::text, 29)) || replace(btrim(tags::text, "
            "'[]'), ', ', ', ' || ('s' || substr(service_id::text, 29))), ', ')"
        ),
        postgresql_using="gin",
        postgresql_where=text("tags <> '[]'"),
    ),
    Index(
        "task_words",
        text(
            r"to_tsvector('simple', regexp_replace(((' ' || name) || ' ') || coalesce(action ->> "
            r"'url', ''), '[\W_]+', ' s' || substr(service_id::text, 29), 'g'))"
        ),
        postgresql_using="gin",
    ),
    Index(
        "task_calendars",
        text(
            "string_to_array(('s' || substr(service_id::text, 29)) || replace("
            "btrim((bounds -> 'calendars')::text, '[]'), ', ', "
            "', ' || ('s' || substr(service_id::text, 29))), ', ')"
        ),
        postgresql_using="gin",
        postgresql_where=text("bounds ? 'calendars'"),
    ),
)
COLUMNS = """key, bucket, service_id, id, version, name, description, tags, status, trigger, action,
          policy, created_at, updated_at, bounds, paused_until"""
OUTLINE = """CASE jsonb_typeof(action) WHEN 'object' THEN action - CAST(
    '{header,payload,headers,query_params,url_params,req_body}' AS text[])
    ELSE action END AS action,"""


# One task -----------------------------------------------------------------------------------------

INSERT = text(f"""
INSERT INTO task ({COLUMNS})
VALUES (:key, :bucket, :service_id, :id, :version, :name, :description, :tags, :status, :trigger,
        :action, :policy, :created_at, :updated_at, :bounds, :paused_until)
""")
GET = text(f"""
SELECT {COLUMNS} FROM task
WHERE service_id = :service_id AND id = :id AND bucket = :bucket
""")
UPDATE = text("""
UPDATE task SET version = :version, name = :name, description = :description, tags = :tags,
    status = :status, trigger = :trigger, action = :action, policy = :policy,
    updated_at = :updated_at, bounds = :bounds, paused_until = :paused_until
WHERE key = :key AND bucket = :bucket AND service_id = :service_id
""")
RESUME = text("""
UPDATE task SET status = 'active', paused_until = NULL, version = version + 1
WHERE key = :key AND bucket = :bucket AND service_id = :service_id
""")
DELETE = text("""
DELETE FROM task WHERE key = :key AND bucket = :bucket AND service_id = :service_id
""")


async def create(conn: Conn, task: Definition) -> None:
    """Insert a task. Raises Conflict where its id is taken."""
    try:
        await conn.execute(INSERT, _values(task))
    except IntegrityError as e:
        if db.violated(e) == "task_id_key":
            raise Conflict(f"there is a task {task.id} already") from None
        raise


async def get(conn: Conn, service_id: UUID, task_id: str) -> Definition:
    """Return a service's task. Raises NotFound."""
    found = await find(conn, service_id, task_id)
    if found is None:
        raise NotFound(f"there is no task {task_id}")
    return found


async def find(conn: Conn, service_id: UUID, task_id: str) -> Definition | None:
    """Return a service's task, or None."""
    if "\x00" in task_id:  # no text in Postgres can hold one
        return None
    bucket = bucket_of(service_id, task_id)
    values = {"service_id": service_id, "id": task_id, "bucket": bucket}
    row = (await conn.execute(GET, values)).first()
    return (await exclusions.attach(conn, [definition(row)]))[0] if row else None


async def change(conn: Conn, task: Definition) -> None:
    """Write a task as an edit made it."""
    await conn.execute(UPDATE, _values(task))


async def resume(conn: Conn, of: Definition) -> Definition:
    """End a task's pause, whose time has come; return the task as it is then."""
    await conn.execute(RESUME, of.line.values)
    return msgspec.structs.replace(of, status="active", paused_until=None, version=of.version + 1)


async def remove(conn: Conn, line: Line) -> None:
    """Delete a task's row."""
    await conn.execute(DELETE, line.values)


# Many tasks ---------------------------------------------------------------------------------------

INSERT_MANY = text(f"""
INSERT INTO task ({COLUMNS})
SELECT u.key, u.bucket, u.service_id, u.id, u.version, u.name, u.description,
       CAST(u.tags AS jsonb), u.status, CAST(u.trigger AS jsonb), CAST(u.action AS jsonb),
       CAST(u.policy AS jsonb), u.created_at, u.updated_at, CAST(u.bounds AS jsonb), u.paused_until
FROM unnest(CAST(:key AS uuid[]), CAST(:bucket AS smallint[]), CAST(:service_id AS uuid[]),
            CAST(:id AS text[]), CAST(:version AS int[]), CAST(:name AS text[]),
            CAST(:description AS text[]), CAST(:tags AS text[]), CAST(:status AS text[]),
            CAST(:trigger AS text[]), CAST(:action AS text[]), CAST(:policy AS text[]),
            CAST(:created_at AS timestamptz[]), CAST(:updated_at AS timestamptz[]),
            CAST(:bounds AS text[]), CAST(:paused_until AS timestamptz[]))
     AS u ({COLUMNS})
""")
TAKEN = text("""
SELECT id FROM task
WHERE service_id = :service_id AND id = ANY(:ids) AND bucket = ANY(:buckets) LIMIT 100
""")
BY_KEYS = text(f"SELECT {COLUMNS} FROM task WHERE key = ANY(:keys)")
# A payload may be megabytes, and so may headers; who damaged a row is none of an object, perhaps.
OUTLINES = text(f"""
SELECT {COLUMNS.replace("description,", "NULL AS description,").replace("action,", OUTLINE)}
FROM task WHERE key = ANY(:keys) AND service_id = :service_id
""")
TRIGGERS = text("""
SELECT key, version, coalesce(trigger ->> 'kind', 'none') AS kind FROM task
WHERE key = ANY(:keys) AND service_id = :service_id
""")
TRIGGERED = text(f"""
SELECT {COLUMNS} FROM task
WHERE service_id = :service_id AND (created_at, key) >= (:created_at, :key)
  AND trigger IS NOT NULL AND status = 'active'
ORDER BY created_at, key LIMIT :most
""")
OUTLINES_OF_ALL = text(f"""
SELECT {COLUMNS.replace("description,", "NULL AS description,").replace("action,", OUTLINE)}
FROM task WHERE key = ANY(:keys)
""")
BY_KEY = text("""
SELECT key, coalesce(trigger ->> 'timezone', 'UTC') <> 'UTC' AS zoned FROM task
WHERE key > :after ORDER BY key LIMIT :most
""")
COUNT = text("""
SELECT count(*) FROM (SELECT FROM task WHERE service_id = :service_id LIMIT :most) AS t
""")
OF_SERVICE = """FROM task WHERE service_id = :service_id ORDER BY created_at LIMIT :most"""
REMOVE_SERVICE = text(
    "DELETE FROM task WHERE service_id = :service_id AND key = ANY(ARRAY("
    f"SELECT key {OF_SERVICE} FOR UPDATE SKIP LOCKED))"
)
LEFT_OF_SERVICE = text(f"SELECT EXISTS (SELECT FROM (SELECT key {OF_SERVICE}) AS left_over)")


async def create_many(conn: Conn, tasks: Sequence[Definition]) -> None:
    """Insert tasks of one service. Raises Conflict where an id is taken; `taken` says which."""
    rows = [_values(of) for of in tasks]
    try:
        await conn.execute(INSERT_MANY, {name: [row[name] for row in rows] for name in rows[0]})
    except IntegrityError as e:
        if db.violated(e) == "task_id_key":
            raise Conflict("one of the ids was taken a moment ago") from None
        raise


async def taken(conn: Conn, service_id: UUID, ids: Sequence[str]) -> list[str]:
    """Return those ids of a service that have a task; a hundred at most."""
    values = {"service_id": service_id, "ids": list(ids)}
    values["buckets"] = list({bucket_of(service_id, task_id) for task_id in ids})
    return list((await conn.execute(TAKEN, values)).scalars())


async def definitions(conn: Conn, keys: Sequence[UUID]) -> dict[UUID, Definition]:
    """Return tasks by key, of any service: the machine performs them all."""
    return await _by_key(conn, await conn.execute(BY_KEYS, {"keys": list(keys)}))


async def outlines(conn: Conn, service_id: UUID, keys: Sequence[UUID]) -> dict[UUID, Definition]:
    """Map a service's tasks to their definitions, but for description, header and payload."""
    values = {"keys": list(keys), "service_id": service_id}
    return await _by_key(conn, await conn.execute(OUTLINES, values))


async def triggers(
    conn: Conn, service_id: UUID, keys: Sequence[UUID]
) -> dict[UUID, tuple[int, str]]:
    """Map a service's tasks to their version and the word for their kind of trigger."""
    rows = await conn.execute(TRIGGERS, {"keys": list(keys), "service_id": service_id})
    return {row.key: (row.version, row.kind) for row in rows}


async def triggered(
    conn: Conn, service_id: UUID, start: tuple[datetime, UUID], most: int
) -> list[Definition]:
    """Return a service's active tasks that have a trigger, the oldest first, from `start` on."""
    values = {"service_id": service_id, "created_at": start[0], "key": start[1], "most": most}
    rows = await conn.execute(TRIGGERED, values)
    return await exclusions.attach(conn, [definition(row) for row in rows])


async def outlines_of_all(conn: Conn, keys: Sequence[UUID]) -> dict[UUID, Definition]:
    """Return tasks by key, of any service, but for description, header and payload: never to be
    written back, nor performed. Those may be long, and the machine reads hundreds at once.
    """
    return await _by_key(conn, await conn.execute(OUTLINES_OF_ALL, {"keys": list(keys)}))


async def _by_key(conn: Conn, rows: Iterable[Any]) -> dict[UUID, Definition]:
    tasks = await exclusions.attach(conn, [definition(row) for row in rows])
    return {of.key: of for of in tasks}


async def zoned_after(conn: Conn, after: UUID, most: int) -> list[tuple[UUID, bool]]:
    """Return the tasks after a key, of any service, and whether each has a time zone of its own."""
    rows = await conn.execute(BY_KEY, {"after": after, "most": most})
    return [(row.key, row.zoned) for row in rows]


async def count(conn: Conn, service_id: UUID, most: int) -> int:
    """Return how many tasks a service has, counted to `most`."""
    found = await conn.execute(COUNT, {"service_id": service_id, "most": most})
    return int(found.scalar_one())


NEXT_SERVICE = text("""
SELECT service_id FROM task WHERE service_id > :after ORDER BY service_id LIMIT 1
""")


async def next_service(conn: Conn, after: UUID) -> UUID | None:
    """Return the service after this one that has tasks, by id; None where none has."""
    found: UUID | None = (await conn.execute(NEXT_SERVICE, {"after": after})).scalar_one_or_none()
    return found


async def remove_service(conn: Conn, service_id: UUID, most: int) -> bool:
    """Delete at most so many of a service's tasks; say whether any are left."""
    await conn.execute(REMOVE_SERVICE, {"service_id": service_id, "most": most})
    left = await conn.execute(LEFT_OF_SERVICE, {"service_id": service_id, "most": 1})
    return bool(left.scalar_one())


# Rows ---------------------------------------------------------------------------------------------


def _values(task: Definition) -> dict[str, Any]:
    return {
        "key": task.key,
        "bucket": task.bucket,
        "service_id": task.service_id,
        "id": task.id,
        "version": task.version,
        "name": task.name,
        "description": task.description,
        "tags": _json(task.tags),
        "status": task.status,
        "trigger": None if task.trigger is None else _json(task.trigger),
        "action": _json(task.action),
        "policy": _json(task.policy),
        "created_at": task.created_at,
        "updated_at": task.updated_at,
        "bounds": None if task.bounds == Bounds() else _json(task.bounds),
        "paused_until": None if task.paused_until is None else db.utc(task.paused_until),
    }


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


_trigger = msgspec.json.Decoder(Trigger)
_action = msgspec.json.Decoder(Action)
_tags = msgspec.json.Decoder(list[str])
_bounds = msgspec.json.Decoder(Bounds)


@lru_cache(1024)
def _policy(raw: str) -> Policy:
    """Read a policy; few are told apart, and most are empty."""
    return msgspec.json.decode(raw, type=Policy)


def definition(row: Any) -> Definition:
    """Read a row; one that someone damaged by hand is read as far as it goes."""
    try:
        read: dict[str, Any] = {
            "tags": [] if row.tags == "[]" else _tags.decode(row.tags),
            "trigger": None if row.trigger is None else _trigger.decode(row.trigger),
            "action": _action.decode(row.action),
            "policy": _policy(row.policy),
            "bounds": Bounds() if row.bounds is None else _bounds.decode(row.bounds),
        }
        damaged = None
    except (msgspec.DecodeError, RecursionError, TypeError) as e:
        read = {"tags": [], "trigger": None, "action": Http(url=""), "policy": Policy()}
        damaged = f"the task's row cannot be read: {e}"
    return Definition(
        key=row.key,
        bucket=row.bucket,
        service_id=row.service_id,
        id=row.id,
        version=row.version,
        name=row.name,
        description=row.description,
        status=row.status,
        created_at=row.created_at,
        updated_at=row.updated_at,
        paused_until=None if row.paused_until is None else db.ms(row.paused_until),
        damaged=damaged,
        **read,
    )
