"""Processes: their table, and the verbs on it."""

import re
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Double,
    Index,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from scheduler import sealing
from scheduler.db import Conn, metadata, ms, times_check, utc
from scheduler.instant import FIRST
from scheduler.masking import MASK
from scheduler.run import bucket_of, run_id
from scheduler.sealing import SealError, Vault

TRACE_ID = re.compile("[A-Za-z0-9]{16}")

PROCESS = Table(
    "process",
    metadata,
    Column("key", Uuid, nullable=False),
    Column("bucket", SmallInteger, nullable=False),
    Column("service_id", Uuid, nullable=False),
    Column("trace_id", Text, nullable=False),
    Column("service", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("query_params", Text),
    Column("url_params", Text),
    Column("req_body", Text),
    Column("url", Text),
    Column("max_retries", SmallInteger),
    Column("timeout_seconds", Double),
    Column("cache", Boolean),
    Column("priority", SmallInteger, nullable=False),
    Column("callback_url", Text),
    Column("called_at", DateTime(timezone=True)),
    Column("scheduled_at", DateTime(timezone=True), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("key", "bucket", name="process_pkey"),
    UniqueConstraint("bucket", "service_id", "trace_id", name="process_trace_key"),
    times_check("process", "scheduled_at", "created_at"),
    Index("process_service", "service_id", "created_at", "key"),
    Index("process_created", "created_at"),
    Index(
        "process_callback",
        "scheduled_at",
        postgresql_where=text("callback_url IS NOT NULL AND called_at IS NULL"),
    ),
)


class Process(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """A call as its service wrote it; times in ms since 1970."""

    key: UUID
    bucket: int
    service_id: UUID
    trace_id: str
    service: str
    """The name of the spec, in lower case."""
    method: str
    endpoint: str
    headers: dict[str, str]
    query_params: str | None = None
    """An object, as its JSON text."""
    url_params: str | None = None
    req_body: str | None = None
    """Any value, as its JSON text; None for no body."""
    url: str | None = None
    max_retries: int | None = None
    timeout_seconds: float | None = None
    cache: bool | None = None
    priority: int = 0
    callback_url: str | None = None
    scheduled_at: int
    created_at: int
    damaged: str | None = None
    """Why the row cannot be read as it should, where someone broke it."""

    @property
    def run_id(self) -> UUID:
        """The id of its run."""
        return run_id(self.key, self.bucket, "process", self.scheduled_at)

    @property
    def size(self) -> int:
        """How many bytes its call sends, about."""
        texts = (self.endpoint, self.query_params, self.url_params, self.req_body, self.url)
        header = sum(len(name) + len(value.encode()) for name, value in self.headers.items())
        return header + sum(len(each.encode()) for each in texts if each)


class Due(msgspec.Struct, frozen=True, gc=False):
    """The address of a process, and when its call was due, in ms since 1970."""

    key: UUID
    bucket: int
    service_id: UUID
    trace_id: str
    priority: int
    scheduled_at: int

    @property
    def run_id(self) -> UUID:
        """The id of its run."""
        return run_id(self.key, self.bucket, "process", self.scheduled_at)

    @property
    def callback_id(self) -> UUID:
        """The id of the run that tells of its end."""
        return callback_id(self.key, self.bucket)


def callback_id(key: UUID, bucket: int) -> UUID:
    """Return the id of the run that tells of a process's end: there is one, whoever makes it."""
    return run_id(key, bucket, "process", 0, "callback")


# One process --------------------------------------------------------------------------------------

INSERT = text("""
INSERT INTO process (key, bucket, service_id, trace_id, service, method, endpoint, headers,
                     query_params, url_params, req_body, url, max_retries, timeout_seconds, cache,
                     priority, callback_url, scheduled_at, created_at)
VALUES (:key, :bucket, :service_id, :trace_id, :service, :method, :endpoint,
        CAST(:headers AS jsonb), :query_params, :url_params, :req_body, :url, :max_retries,
        :timeout_seconds, :cache, :priority, :callback_url, :scheduled_at, :created_at)
ON CONFLICT (bucket, service_id, trace_id) DO NOTHING
RETURNING key
""")
COLUMNS = """key, bucket, service_id, trace_id, service, method, endpoint, headers, query_params,
       url_params, req_body, url, max_retries, timeout_seconds, cache, priority, callback_url,
       scheduled_at, created_at"""
FIND = text(f"""
SELECT {COLUMNS} FROM process
WHERE bucket = :bucket AND service_id = :service_id AND trace_id = :trace_id
""")
BY_KEYS = text(f"""
SELECT {COLUMNS} FROM process WHERE bucket = ANY(:buckets) AND key = ANY(:keys)
""")

_headers = msgspec.json.Decoder(dict[str, str])


async def insert(conn: Conn, of: Process, vault: Vault) -> bool:
    """Store a process, its headers sealed; say whether its trace_id is new."""
    values = msgspec.structs.asdict(of)
    del values["damaged"]
    headers = {
        name: vault.seal(value, of.service_id, sealing.header(name))
        for name, value in of.headers.items()
    }
    values["headers"] = msgspec.json.encode(headers).decode()
    values["scheduled_at"], values["created_at"] = utc(of.scheduled_at), utc(of.created_at)
    return (await conn.execute(INSERT, values)).first() is not None


async def find(conn: Conn, service_id: UUID, trace_id: str) -> Process | None:
    """Return a service's process, its headers as they are stored, or None."""
    if not TRACE_ID.fullmatch(trace_id):
        return None
    values = {"service_id": service_id, "trace_id": trace_id}
    row = (await conn.execute(FIND, {**values, "bucket": bucket_of(service_id, trace_id)})).first()
    return None if row is None else _process(row)


async def key_of(conn: Conn, service_id: UUID, trace_id: str) -> UUID | None:
    """Return the key of a service's process, or None."""
    found = await find(conn, service_id, trace_id)
    return None if found is None else found.key


async def by_keys(conn: Conn, places: Iterable[tuple[UUID, int]]) -> dict[UUID, Process]:
    """Return processes of any service by their (key, bucket)."""
    keys, buckets = zip(*places, strict=True)
    values = {"keys": list(keys), "buckets": list(set(buckets))}
    return {row.key: _process(row) for row in await conn.execute(BY_KEYS, values)}


def _process(row: Any) -> Process:
    values = row._asdict()
    values["scheduled_at"], values["created_at"] = ms(row.scheduled_at), ms(row.created_at)
    try:
        values["headers"] = {} if row.headers == "{}" else _headers.decode(row.headers)
    except msgspec.DecodeError as e:
        values["headers"] = {}
        values["damaged"] = f"the headers on the process's row cannot be read: {e}"
    return Process(**values)


def opened(of: Process, vault: Vault) -> dict[str, str]:
    """Return a process's headers as they were sent; masked where the key to them is lost."""
    found = dict[str, str]()
    for name, value in of.headers.items():
        try:
            found[name] = vault.open(value, of.service_id, sealing.header(name))
        except SealError:
            found[name] = MASK
    return found


# Callbacks ----------------------------------------------------------------------------------------

DUE_COLUMNS = "key, bucket, service_id, trace_id, priority, scheduled_at"
# In the order of its index, which holds only what waits for its callback.
UNCALLED = text(f"""
SELECT {DUE_COLUMNS} FROM process
WHERE callback_url IS NOT NULL AND called_at IS NULL
  AND scheduled_at >= :since AND (scheduled_at, key) > (:since, :after) AND scheduled_at <= :until
ORDER BY scheduled_at, key LIMIT :most
""")
CALL = text(f"""
UPDATE process SET called_at = :now
WHERE bucket = ANY(:buckets) AND called_at IS NULL AND key = ANY(ARRAY(
    SELECT key FROM process
    WHERE bucket = ANY(:buckets) AND key = ANY(:keys)
      AND callback_url IS NOT NULL AND called_at IS NULL
    ORDER BY key FOR UPDATE SKIP LOCKED))
RETURNING {DUE_COLUMNS}
""")

Place = tuple[int, UUID]
"""Where a process stands by (scheduled_at, key)."""
START: Place = (FIRST + 86_400_000, UUID(int=0))


async def uncalled(conn: Conn, until: int, after: Place, most: int) -> list[Due]:
    """Return processes of any service, due at `until` (ms) or before, that have a callback to make.

    So many after a place at most, the earliest first; some have not ended.
    """
    values = {"since": utc(after[0]), "after": after[1], "until": utc(until), "most": most}
    return [_due(row) for row in await conn.execute(UNCALLED, values)]


async def call(conn: Conn, places: Iterable[tuple[UUID, int]], now: int) -> list[Due]:
    """Note that somebody is told of the end of processes; return those that this did it for.

    What has no callback, what another replica notes at the same moment, and what was noted
    before, is left out. `places` are (key, bucket).
    """
    keys, buckets = zip(*places, strict=True)
    values = {"keys": list(keys), "buckets": list(set(buckets)), "now": utc(now)}
    return [_due(row) for row in await conn.execute(CALL, values)]


def _due(row: Any) -> Due:
    return Due(
        row.key, row.bucket, row.service_id, row.trace_id, row.priority, ms(row.scheduled_at)
    )


# What goes ----------------------------------------------------------------------------------------

OLD = text(f"""
SELECT {DUE_COLUMNS}, created_at FROM process
WHERE created_at >= :since AND (created_at, key) > (:since, :after) AND created_at < :before
ORDER BY created_at, key LIMIT :most
""")
DELETE = text("""
DELETE FROM process WHERE bucket = ANY(:buckets) AND key = ANY(ARRAY(
    SELECT key FROM process WHERE bucket = ANY(:buckets) AND key = ANY(:keys)
    ORDER BY key FOR UPDATE SKIP LOCKED))
""")
OF_SERVICE = "FROM process WHERE service_id = :service_id LIMIT :most"
REMOVE_SERVICE = text(
    "DELETE FROM process WHERE service_id = :service_id AND key = ANY(ARRAY("
    f"SELECT key {OF_SERVICE} FOR UPDATE SKIP LOCKED))"
)
LEFT_OF_SERVICE = text(f"SELECT EXISTS (SELECT FROM (SELECT key {OF_SERVICE}) AS left_over)")


async def old(conn: Conn, before: int, after: Place, most: int) -> tuple[list[Due], Place | None]:
    """Return processes of any service that were made before a time (ms), the oldest first.

    So many after a place by (created_at, key) at most, and the place to go on at; None at the end.
    """
    values = {"since": utc(after[0]), "after": after[1], "before": utc(before), "most": most}
    rows = (await conn.execute(OLD, values)).all()
    following = (ms(rows[-1].created_at), rows[-1].key) if len(rows) == most else None
    return [_due(row) for row in rows], following


async def delete(conn: Conn, gone: Sequence[Due]) -> None:
    """Delete processes whose runs are gone."""
    values = {"keys": [of.key for of in gone], "buckets": list({of.bucket for of in gone})}
    await conn.execute(DELETE, values)


async def remove_service(conn: Conn, service_id: UUID, most: int) -> bool:
    """Delete at most so many of a service's processes; say whether any are left."""
    await conn.execute(REMOVE_SERVICE, {"service_id": service_id, "most": most})
    left = await conn.execute(LEFT_OF_SERVICE, {"service_id": service_id, "most": 1})
    return bool(left.scalar_one())
