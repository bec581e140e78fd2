"""The audit: who changed what, and when. A row for each change, written in its transaction.

Secrets are masked before a row is made. A replica of a version that knows no audit writes none.
"""

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import (
    Column,
    DateTime,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from scheduler.db import Conn, metadata, ms, rfc3339
from scheduler.definition import Definition
from scheduler.masking import MASK
from scheduler.run import bucket_of
from scheduler.service import By

AUDIT = Table(
    "audit",
    metadata,
    Column("id", Uuid, nullable=False),
    Column("bucket", SmallInteger, nullable=False),
    Column("service_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("ref", Text, nullable=False),
    Column("key", Uuid),
    Column("version", Integer),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("verb", Text, nullable=False),
    Column("way", Text, nullable=False),
    Column("token_id", Uuid),
    Column("changes", JSONB, nullable=False),
    Column("reason", Text),
    Column("act", Uuid),
    PrimaryKeyConstraint("id", "bucket", name="audit_pkey"),
    Index("audit_of", "service_id", "kind", "ref", "id"),
    Index("audit_of_service", "service_id", "kind", "id", postgresql_where=text("act IS NULL")),
    Index(
        "audit_by_hand",
        "service_id",
        "id",
        postgresql_where=text("act IS NULL AND way <> 'api'"),
    ),
    Index("audit_of_admin", "id", postgresql_where=text("kind IN ('service', 'token')")),
)
INSTALLATION = UUID(int=0)
"""Has what is told of a service that is gone, with all that was told of it."""


class Change(msgspec.Struct, frozen=True, array_like=True):
    """A field that became another, in words; None where there is none. Secrets are masked."""

    name: str
    before: str | None
    after: str | None


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A change to be written."""

    ref: str
    """What was changed, by the id that its service knows; of a run, its task, if it is of one."""
    verb: str
    """What was done, in the past: `created`, `edited`, `paused`."""
    kind: str = "task"
    key: UUID | None = None
    version: int | None = None
    """The version that it made."""
    changes: Sequence[Change] = ()
    reason: str | None = None
    """Why, where someone said it."""


class Found(msgspec.Struct, frozen=True):
    """A change that was written; `at` in ms since 1970."""

    id: UUID
    key: UUID | None
    version: int | None
    at: int
    verb: str
    by: By
    changes: list[Change]
    reason: str | None
    kind: str
    ref: str
    service_id: UUID


class Touched(msgspec.Struct, frozen=True):
    """A task to which something was done: the change's id, the task's key and id, what."""

    change: UUID
    key: UUID
    ref: str
    verb: str


INSERT = text("""
INSERT INTO audit (id, bucket, service_id, kind, ref, key, version, at, verb, way, token_id,
                   changes, reason, act)
SELECT u.id, u.bucket, :service_id, u.kind, u.ref, u.key, u.version, :at, u.verb, :way, :token_id,
       CAST(u.changes AS jsonb), u.reason, :act
FROM unnest(CAST(:id AS uuid[]), CAST(:bucket AS smallint[]), CAST(:kind AS text[]),
            CAST(:ref AS text[]), CAST(:key AS uuid[]), CAST(:version AS int[]),
            CAST(:verb AS text[]), CAST(:changes AS text[]), CAST(:reason AS text[]))
     AS u (id, bucket, kind, ref, key, version, verb, changes, reason)
""")
CREATED = text("""
INSERT INTO audit (id, bucket, service_id, kind, ref, key, version, at, verb, way, token_id,
                   changes, act)
SELECT u.id, u.bucket, :service_id, 'task', u.ref, u.key, 1, :at, 'created', :way, :token_id, '[]',
       :act
FROM unnest(CAST(:id AS uuid[]), CAST(:bucket AS smallint[]), CAST(:ref AS text[]),
            CAST(:key AS uuid[]))
     AS u (id, bucket, ref, key)
""")
HIDE = text("""
UPDATE audit SET changes = (
    SELECT jsonb_agg(CASE WHEN c ->> 0 = :field THEN jsonb_build_array(
                     c -> 0, CAST(:mask AS text), CAST(:mask AS text)) ELSE c END ORDER BY n)
    FROM jsonb_array_elements(changes) WITH ORDINALITY AS e (c, n))
WHERE service_id = :service_id AND kind = 'task' AND ref = :ref AND bucket = :bucket
    AND changes @> jsonb_build_array(jsonb_build_array(CAST(:field AS text)))
""")
COLUMNS = "id, key, version, at, verb, way, token_id, changes, reason, kind, ref, service_id"
OF_ANY = f"""
SELECT {COLUMNS} FROM audit
WHERE service_id = :service_id AND ref = :ref AND bucket = :bucket"""
OF = f"{OF_ANY} AND kind = :kind"
# Of a task also what was done to its runs.
OF_RUNS = f"{OF_ANY} AND kind = 'run' AND :kind = 'task'"
PAGE = text(f"""
SELECT * FROM (({OF} AND id < :before ORDER BY id DESC LIMIT :most)
    UNION ALL ({OF_RUNS} AND id < :before ORDER BY id DESC LIMIT :most)) AS of_both
ORDER BY id DESC LIMIT :most
""")
# Of a task that is paused: why, however many edits there were since.
NEWEST = text(f"""
SELECT * FROM (({OF} ORDER BY id DESC LIMIT :most)
    UNION ({OF} AND verb = 'paused' ORDER BY id DESC LIMIT 1)
    UNION ALL ({OF_RUNS} ORDER BY id DESC LIMIT :most)) AS newest
ORDER BY id DESC
""")
# One walk of what was written lately, for all that are asked for: ids are in the order of time.
LATELY = text("""
SELECT id, service_id, key, ref, verb FROM (
    SELECT *, row_number() OVER (PARTITION BY service_id ORDER BY id DESC) AS place
    FROM (SELECT id, service_id, kind, key, ref, verb FROM audit
          WHERE id >= :since ORDER BY id DESC LIMIT :looked) AS newest
    WHERE service_id = ANY(:services) AND kind = 'task' AND key IS NOT NULL) AS placed
WHERE place <= :most ORDER BY id
""")
LOOKED = 20_000
"""Changes, of all services, that are looked at for those made lately of some."""
FIRST, LAST = UUID(int=0), UUID(int=(1 << 128) - 1)
VERSIONS = 1 << 12
RANDOM = (1 << 62) - 1
"""The bits of a UUID that are random, of versions 4 and 7 alike."""


def _id(at: int, version: int | None) -> UUID:
    """Return a UUIDv7 (RFC 9562, 5.7) of a time in ms, whose rand_a is the version."""
    order = (version or 0) % VERSIONS
    return UUID(int=at << 80 | 7 << 76 | order << 64 | 2 << 62 | secrets.randbits(62))


async def write(
    conn: Conn, service_id: UUID, by: By, entries: Sequence[Entry], now: datetime
) -> None:
    """Write changes that `by` made of what a service has, by one statement."""
    if not entries:
        return
    values: dict[str, Any] = {
        "service_id": service_id,
        "at": now,
        "way": by.way,
        "token_id": by.token_id,
        "act": by.act,
        "id": [_id(ms(now), each.version) for each in entries],
        "bucket": [bucket_of(service_id, each.ref) for each in entries],
        "changes": [_json(each.changes) for each in entries],
    }
    for name in ("kind", "ref", "key", "version", "verb", "reason"):
        values[name] = [getattr(each, name) for each in entries]
    await conn.execute(INSERT, values)


async def hide(conn: Conn, service_id: UUID, ref: str, field: str) -> None:
    """Mask what was told of a field of a task, which holds a secret now."""
    values = {"service_id": service_id, "ref": ref, "bucket": bucket_of(service_id, ref)}
    await conn.execute(HIDE, {**values, "field": field, "mask": MASK})


async def created(
    conn: Conn, service_id: UUID, by: By, tasks: Sequence[Definition], now: datetime
) -> None:
    """Write that `by` created tasks of a service: what they are like, they say themselves.

    Ten thousand may be created at once: the entries have the random bits of the tasks' keys.
    """
    begin = ms(now) << 80 | 7 << 76 | 1 << 64 | 2 << 62
    values = {
        "service_id": service_id,
        "at": now,
        "way": by.way,
        "token_id": by.token_id,
        "act": by.act,
        "id": [UUID(int=begin | of.key.int & RANDOM) for of in tasks],
        "bucket": [of.bucket for of in tasks],
        "ref": [of.id for of in tasks],
        "key": [of.key for of in tasks],
    }
    await conn.execute(CREATED, values)


def _json(changes: Sequence[Change]) -> str:
    """Return changes as JSON text that jsonb takes: it refuses U+0000."""
    return msgspec.json.encode(changes).decode().replace("\\u0000", "\\ufffd") if changes else "[]"


async def page(
    conn: Conn, service_id: UUID, ref: str, *, kind: str = "task", before: UUID | None, most: int
) -> list[Found]:
    """Return the changes of one thing, the newest first; those before an entry, if one is named.

    Of a task also what was done to its runs.
    """
    values = {"before": before or LAST, "most": most, **_named(service_id, kind, ref)}
    return [read(row) for row in await conn.execute(PAGE, values)]


async def newest(conn: Conn, service_id: UUID, ref: str, most: int) -> list[Found]:
    """Return the newest changes of a task, and as many of what was done to its runs.

    Also its last pause, which may lie further back.
    """
    values = {"most": most, **_named(service_id, "task", ref)}
    return [read(row) for row in await conn.execute(NEWEST, values)]


async def lately(
    conn: Conn, services: Sequence[UUID], since: int, most: int
) -> dict[UUID, list[Touched]]:
    """Map services to what was done to their tasks since a time (ms), the oldest first.

    Of each the newest `most`; what many others did at once may hide some.
    """
    values = {"services": list(services), "since": UUID(int=max(since, 0) << 80)}
    found: dict[UUID, list[Touched]] = {service: [] for service in services}
    for row in await conn.execute(LATELY, {**values, "most": most, "looked": LOOKED}):
        found[row.service_id].append(Touched(row.id, row.key, row.ref, row.verb))
    return found


def _named(service_id: UUID, kind: str, ref: str) -> dict[str, Any]:
    ref = ref.replace("\x00", "\ufffd")  # no text in Postgres can hold one
    bucket = bucket_of(service_id, ref)
    return {"service_id": service_id, "kind": kind, "ref": ref, "bucket": bucket}


def read(row: Any) -> Found:
    """Return a row of COLUMNS."""
    try:
        changes = msgspec.json.decode(row.changes, type=list[Change])
    except (msgspec.DecodeError, RecursionError):  # damaged by hand
        changes = []
    by = By(row.way, row.token_id)
    told = row.verb, by, changes, row.reason
    return Found(row.id, row.key, row.version, ms(row.at), *told, row.kind, row.ref, row.service_id)


# What many are told of ----------------------------------------------------------------------------

PUT = text("""
INSERT INTO audit (id, bucket, service_id, kind, ref, key, at, verb, way, token_id, changes)
VALUES (:id, :bucket, :service_id, :kind, :ref, :key, :at, :verb, :way, :token_id,
        CAST(:changes AS jsonb))
ON CONFLICT (id, bucket) DO UPDATE SET changes = EXCLUDED.changes
""")


class Act:
    """What one call does to many things, told by one entry, a transaction after the other.

    Each writes how far the act has come with it, so that a crash leaves what was done until then.
    """

    def __init__(self, service_id: UUID, by: By, now: datetime) -> None:
        self._service_id, self._by, self._now = service_id, by, now
        self._id = _id(ms(now), None)

    async def tell(self, conn: Conn, entry: Entry) -> None:
        """Write the entry as it stands with this transaction; its version and reason are not."""
        values = {
            "id": self._id,
            **_named(self._service_id, entry.kind, entry.ref),
            "key": entry.key,
            "at": self._now,
            "verb": entry.verb,
            "way": self._by.way,
            "token_id": self._by.token_id,
            "changes": _json(entry.changes),
        }
        await conn.execute(PUT, values)


# Those that are gone ------------------------------------------------------------------------------

PIECE = 2000
# What explains a state that still holds stays: of a task the pause, or the end, that nothing has
# followed, and whose time is not up. A task that was deleted, and brought back, is as it was.
OLD = text("""
SELECT a.id, a.verb NOT IN ('paused', 'disabled') OR a.kind <> 'task'
    OR coalesce(jsonb_path_exists(
        a.changes, 'strict $[*] ? (@[0] == "paused_until" && @[2] < $now)',
        jsonb_build_object('now', CAST(:now AS text)), true), false)
    OR EXISTS (
        SELECT FROM audit b
        WHERE b.service_id = a.service_id AND b.kind = 'task' AND b.ref = a.ref
            AND b.bucket = a.bucket AND b.id > a.id
            AND (b.verb IN ('paused', 'resumed', 'disabled') OR b.verb = 'deleted' AND NOT EXISTS (
                SELECT FROM audit c
                WHERE c.service_id = b.service_id AND c.kind = 'task' AND c.ref = b.ref
                    AND c.bucket = b.bucket AND c.id > b.id AND c.verb = 'brought back'))) AS over
FROM audit a WHERE a.id > :after AND a.id < :before ORDER BY a.id LIMIT :most
""")
PRUNE = text("DELETE FROM audit WHERE id = ANY(:ids)")
OF_SERVICE = "FROM audit WHERE service_id = :service_id LIMIT :most"
REMOVE_SERVICE = text(
    "DELETE FROM audit WHERE service_id = :service_id AND id = ANY(ARRAY("
    f"SELECT id {OF_SERVICE} FOR UPDATE SKIP LOCKED))"
)
LEFT_OF_SERVICE = text(f"SELECT EXISTS (SELECT FROM (SELECT id {OF_SERVICE}) AS left_over)")


async def prune(
    conn: Conn, kept_from: datetime, after: UUID = FIRST, most: int = PIECE
) -> UUID | None:
    """Look at a piece of what was written before `kept_from`, and delete what explains nothing.

    Return the entry to go on `after`, or None at the end.
    """
    values = {"before": UUID(int=ms(kept_from) << 80), "now": rfc3339(ms(kept_from))}
    rows = (await conn.execute(OLD, {**values, "after": after, "most": most})).all()
    gone = [row.id for row in rows if row.over]
    if gone:
        await conn.execute(PRUNE, {"ids": gone})
    return rows[-1].id if len(rows) == most else None


async def remove_service(conn: Conn, service_id: UUID, most: int) -> bool:
    """Delete at most so many of a service's rows; say whether any are left."""
    await conn.execute(REMOVE_SERVICE, {"service_id": service_id, "most": most})
    left = await conn.execute(LEFT_OF_SERVICE, {"service_id": service_id, "most": 1})
    return bool(left.scalar_one())
