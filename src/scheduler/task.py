"""The task: what a user wrote, one row each."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import structlog
from msgspec import Meta
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

from scheduler import db
from scheduler.actions import Action, Expected
from scheduler.db import LAST, Conn, metadata, times_check
from scheduler.errors import Conflict, NotFound
from scheduler.run import Line, Overlap, bucket_of
from scheduler.triggers import Bounded, Bounds, Instants, Once, Trigger

log = structlog.get_logger()

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
        "task_tags",
        "tags",
        postgresql_using="gin",
        postgresql_ops={"tags": "jsonb_path_ops"},
        postgresql_where=text("tags <> '[]'"),
    ),
    Index(
        "task_words",
        text(
            r"to_tsvector('simple', regexp_replace((name || ' ') || coalesce(action ->> 'url', "
            r"''), '[\W_]+', ' ', 'g'))"
        ),
        postgresql_using="gin",
    ),
)

Status = Literal["active", "paused", "disabled"]
Misfire = Literal["latest", "all", "skip"]


Seconds = Annotated[float, Meta(ge=0, le=31_536_000)]
"""At most a year."""


MOST_CONCURRENT = 1000


class Backoff(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The wait before the next try: initial * factor ** tries, at most `max_seconds`."""

    initial_seconds: Seconds = 1.0
    factor: Annotated[float, Meta(ge=1, le=100)] = 2.0
    max_seconds: Seconds = 300.0

    def ceiling_s(self, tries: int) -> float:
        """Return the longest wait after so many tries; full jitter takes any part of it."""
        # Beyond 2 ** 64 the cap has long been met; a float would overflow.
        grown = self.initial_seconds * self.factor ** min(tries, 64 if self.factor <= 2 else 20)
        return min(grown, self.max_seconds)


class Policy(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """How a task's runs are performed; None is the default that the settings name."""

    max_retries: Annotated[int, Meta(ge=0, le=100)] | None = None
    retry_backoff: Backoff | None = None
    timeout_seconds: Seconds | None = None
    overlap: Overlap | None = None
    misfire: Misfire | None = None
    misfire_grace_seconds: Seconds | None = None
    max_age_seconds: Seconds | None = None
    expected_status: tuple[tuple[int, int], ...] | None = None
    max_concurrency: Annotated[int, Meta(ge=1, le=MOST_CONCURRENT)] | None = None
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0


TIMEOUT_S = 30.0
MISFIRE_GRACE_S = 60.0


class Definition(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """A task as it stands."""

    key: UUID
    bucket: int
    service_id: UUID
    id: str
    version: int
    name: str
    description: str | None
    tags: list[str]
    status: Status
    trigger: Trigger | None
    action: Action
    policy: Policy
    created_at: datetime
    updated_at: datetime
    bounds: Bounds = Bounds()
    paused_until: int | None = None
    """In ms since 1970."""
    damaged: str | None = None
    """Why the row cannot be read as it should, where someone broke it."""

    @property
    def line(self) -> Line:
        """The address of its runs."""
        return Line(self.key, self.bucket, self.service_id)

    @property
    def overlap(self) -> Overlap:
        """What happens to an instant that comes while a run is under way."""
        return self.policy.overlap or "skip"

    @property
    def timeout_s(self) -> float:
        """How long one attempt may take."""
        return self.policy.timeout_seconds or TIMEOUT_S

    @property
    def expected(self) -> Expected:
        """The statuses that are a success."""
        ranges = self.policy.expected_status
        return Expected(ranges) if ranges else Expected()

    @property
    def lanes(self) -> int | None:
        """How many of its runs may be under way at once; None for any number."""
        most = self.policy.max_concurrency
        return 1 if self.overlap == "skip" or (self.overlap == "queue" and not most) else most

    @property
    def instants(self) -> Instants | None:
        """What its trigger yields within its bounds, whatever its status."""
        if self.trigger is None:
            return None
        bounds = self.bounds
        offset = 0 if isinstance(self.trigger, Once) else bounds.offset(self.key)
        if not offset and bounds.start_at is None and bounds.end_at is None:
            return self.trigger
        return Bounded(self.trigger, offset, bounds.start_at, bounds.end_at)

    @property
    def due(self) -> Instants | None:
        """Its instants, where it makes anything due now."""
        return self.instants if self.status == "active" and not self.damaged else None

    def coming(self, now: int) -> int | None:
        """Return the next due instant in ms; that of a paused task is the one it resumes with.

        Whether `max_runs` leaves it is the plan's to say.
        """
        if self.instants is None or self.status == "disabled" or self.damaged:
            return None
        resumes = self.paused_until if self.status == "paused" else None
        at = self.instants.next(now if resumes is None else max(now, resumes - 1))
        return None if at is None or at > LAST else at

    @property
    def misfire_grace_ms(self) -> int:
        """How late an instant may be and still count as on time."""
        grace = self.policy.misfire_grace_seconds
        return int((MISFIRE_GRACE_S if grace is None else grace) * 1000)


COLUMNS = """key, bucket, service_id, id, version, name, description, tags, status, trigger, action,
          policy, created_at, updated_at, bounds, paused_until"""

INSERT = text(f"""
INSERT INTO task ({COLUMNS})
VALUES (:key, :bucket, :service_id, :id, :version, :name, :description, :tags, :status, :trigger,
        :action, :policy, :created_at, :updated_at, :bounds, :paused_until)
""")
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
UPDATE = text("""
UPDATE task SET version = :version, name = :name, description = :description, tags = :tags,
    status = :status, trigger = :trigger, action = :action, policy = :policy,
    updated_at = :updated_at, bounds = :bounds, paused_until = :paused_until
WHERE key = :key AND bucket = :bucket AND service_id = :service_id
""")
DELETE = text("""
DELETE FROM task WHERE key = :key AND bucket = :bucket AND service_id = :service_id
""")
GET = text(f"""
SELECT {COLUMNS} FROM task
WHERE service_id = :service_id AND id = :id AND bucket = :bucket
""")
BY_KEYS = text(f"SELECT {COLUMNS} FROM task WHERE key = ANY(:keys)")


async def create(conn: Conn, task: Definition) -> None:
    """Insert a task. Raises Conflict where its id is taken."""
    try:
        await conn.execute(INSERT, _values(task))
    except IntegrityError as e:
        if db.violated(e) == "task_id_key":
            raise Conflict(f"there is a task {task.id} already") from None
        raise


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
    return definition(row) if row else None


async def change(conn: Conn, task: Definition) -> None:
    """Write a task as an edit made it."""
    await conn.execute(UPDATE, _values(task))


RESUME = text("""
UPDATE task SET status = 'active', paused_until = NULL, version = version + 1
WHERE key = :key AND bucket = :bucket AND service_id = :service_id
""")


async def resume(conn: Conn, of: Definition) -> Definition:
    """End a task's pause, whose time has come; return the task as it is then."""
    await conn.execute(RESUME, of.line.values)
    return msgspec.structs.replace(of, status="active", paused_until=None, version=of.version + 1)


async def remove(conn: Conn, line: Line) -> None:
    """Delete a task's row."""
    await conn.execute(DELETE, line.values)


async def definitions(conn: Conn, keys: Sequence[UUID]) -> dict[UUID, Definition]:
    """Return tasks by key, of any service: the machine performs them all."""
    rows = await conn.execute(BY_KEYS, {"keys": list(keys)})
    return {row.key: definition(row) for row in rows}


TRIGGERS = text("""
SELECT key, version, coalesce(trigger ->> 'kind', 'none') AS kind FROM task
WHERE key = ANY(:keys) AND service_id = :service_id
""")


async def triggers(
    conn: Conn, service_id: UUID, keys: Sequence[UUID]
) -> dict[UUID, tuple[int, str]]:
    """Map a service's tasks to their version and the word for their kind of trigger."""
    rows = await conn.execute(TRIGGERS, {"keys": list(keys), "service_id": service_id})
    return {row.key: (row.version, row.kind) for row in rows}


TRIGGERED = text(f"""
SELECT {COLUMNS} FROM task
WHERE service_id = :service_id AND (created_at, key) >= (:created_at, :key)
  AND trigger IS NOT NULL AND status = 'active'
ORDER BY created_at, key LIMIT :most
""")


async def triggered(
    conn: Conn, service_id: UUID, start: tuple[datetime, UUID], most: int
) -> list[Definition]:
    """Return a service's active tasks that have a trigger, the oldest first, from `start` on."""
    values = {"service_id": service_id, "created_at": start[0], "key": start[1], "most": most}
    return [definition(row) for row in await conn.execute(TRIGGERED, values)]


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
        read = {"tags": [], "trigger": None, "action": Action(url=""), "policy": Policy()}
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


OF_SERVICE = """FROM task WHERE service_id = :service_id ORDER BY created_at LIMIT :most"""
REMOVE_SERVICE = text(
    "DELETE FROM task WHERE service_id = :service_id AND key = ANY(ARRAY("
    f"SELECT key {OF_SERVICE} FOR UPDATE SKIP LOCKED))"
)
LEFT_OF_SERVICE = text(f"SELECT EXISTS (SELECT FROM (SELECT key {OF_SERVICE}) AS left_over)")


async def remove_service(conn: Conn, service_id: UUID, most: int) -> bool:
    """Delete at most so many of a service's tasks; say whether any are left."""
    await conn.execute(REMOVE_SERVICE, {"service_id": service_id, "most": most})
    left = await conn.execute(LEFT_OF_SERVICE, {"service_id": service_id, "most": 1})
    return bool(left.scalar_one())


COUNT = text("""
SELECT count(*) FROM (SELECT FROM task WHERE service_id = :service_id LIMIT :most) AS t
""")


async def count(conn: Conn, service_id: UUID, most: int) -> int:
    """Return how many tasks a service has, counted to `most`."""
    found = await conn.execute(COUNT, {"service_id": service_id, "most": most})
    return int(found.scalar_one())
