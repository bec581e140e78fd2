"""Task versions: what runs show of their task, where an edit or a delete has replaced it since.

A row is written for the version that goes, and only where what runs show of it goes too: it holds
for the versions before it as well, back to the row before it. What has no such row yet shows the
task as it stands.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType
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

from scheduler.actions import Command, Http, Operation
from scheduler.actions.step import Step
from scheduler.db import Conn, metadata, times_check
from scheduler.definition import Definition
from scheduler.masking import MASK, mask
from scheduler.triggers import kind_of

TASK_VERSION = Table(
    "task_version",
    metadata,
    Column("key", Uuid, nullable=False),
    Column("bucket", SmallInteger, nullable=False),
    Column("service_id", Uuid, nullable=False),
    Column("version", Integer, nullable=False),
    Column("trigger", Text),
    Column("request", JSONB),
    Column("replaced_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("key", "bucket", "version", name="task_version_pkey"),
    times_check("task_version", "replaced_at"),
    Index("task_version_service", "service_id"),
    Index("task_version_replaced", "replaced_at"),
)

Params = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": ["object", "null"]})]
"""An object as it was written, or null."""
Body = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={})]
"""Any JSON as it was written."""
Version = tuple[UUID, int, int]
"""Of a task: its key, its bucket, and the version."""


class ShownRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent to the target, but for the headers that every call carries.

    Of a command it is what the shell is given: `command` and `env`, and nothing else. Of an
    operation what it is called with: `url` is there where the caller names it.
    """

    method: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    header: dict[str, str] | UnsetType = UNSET
    payload: str | UnsetType | None = UNSET
    command: str | UnsetType = UNSET
    env: dict[str, str] | UnsetType = UNSET
    service: str | UnsetType = UNSET
    endpoint: str | UnsetType = UNSET
    headers: dict[str, str] | UnsetType = UNSET
    query_params: Params | UnsetType = UNSET
    url_params: Params | UnsetType = UNSET
    req_body: Body | UnsetType = UNSET


class Face(msgspec.Struct, frozen=True):
    """What runs show of the task they were made of; None for what cannot be read."""

    trigger: str | None
    """The word for the kind."""
    request: ShownRequest | None


def face(of: Definition, since: Definition | None = None) -> Face:
    """Return what runs show of a task, secrets masked: those of what it was edited to as well."""
    action = of.action
    if of.damaged or isinstance(action, Step):
        return Face(None, None)
    if isinstance(action, Command):
        return Face(kind_of(of.trigger), ShownRequest(command=action.command, env=action.masked()))
    header = action.masked()
    if since is not None and isinstance(since.action, Http):
        secret = since.action.secrets(header)
        header = {k: MASK if k in secret else v for k, v in header.items()}
    if isinstance(action, Operation):
        shown = msgspec.structs.replace(called(action), headers=header)
        return Face(kind_of(of.trigger), shown)
    request = ShownRequest(
        method=action.verb, url=mask(action.url), header=header, payload=action.payload
    )
    return Face(kind_of(of.trigger), request)


def called(action: Operation) -> ShownRequest:
    """Return what a run shows of a call through a spec, secrets masked."""
    return ShownRequest(
        service=action.service,
        method=action.method,
        endpoint=action.endpoint,
        headers=action.masked(),
        query_params=raw(action.query_params),
        url_params=raw(action.url_params),
        req_body=raw(action.req_body),
        url=UNSET if action.url is None else mask(action.url),
    )


def raw(text: str | None) -> msgspec.Raw:
    """Return a JSON text as it is answered: null where there is none."""
    return msgspec.Raw(b"null" if text is None else text.encode())


# One task -----------------------------------------------------------------------------------------

INSERT = text("""
INSERT INTO task_version (key, bucket, service_id, version, trigger, request, replaced_at)
VALUES (:key, :bucket, :service_id, :version, :trigger, :request, :now)
ON CONFLICT DO NOTHING
""")
GET = text("""
SELECT trigger, request FROM task_version
WHERE key = :key AND bucket = :bucket AND service_id = :service_id AND version >= :version
ORDER BY version LIMIT 1
""")
HIDE = text("""
UPDATE task_version SET request = jsonb_set(request, '{header}', (
    SELECT coalesce(jsonb_object_agg(h.name, CASE WHEN lower(h.name) = ANY(:names)
                    THEN to_jsonb(CAST(:mask AS text)) ELSE h.value END), '{}')
    FROM jsonb_each(request -> 'header') AS h (name, value)))
WHERE key = :key AND bucket = :bucket AND service_id = :service_id
    AND jsonb_typeof(request -> 'header') = 'object'
""")


async def keep(conn: Conn, before: Definition, after: Definition | None, now: datetime) -> None:
    """Write what an edit, or a delete (None), takes away of what runs show; else nothing.

    A header that becomes secret is masked in what older runs show, too.
    """
    gone = face(before, after)
    if after is not None:
        known = _names(before)
        if names := [name for name in _names(after) if name not in known]:
            await conn.execute(HIDE, {**before.line.values, "names": names, "mask": MASK})
        if gone == face(after):
            return
    request = None if gone.request is None else _written(gone.request)
    values = {"version": before.version, "trigger": gone.trigger, "request": request, "now": now}
    await conn.execute(INSERT, {**before.line.values, **values})


def _names(of: Definition) -> list[str]:
    action = of.action
    return [name.lower() for name in action.secret_headers] if isinstance(action, Http) else []


RAW = ("query_params", "url_params", "req_body")


def _written(request: ShownRequest) -> str:
    """Return what is stored: JSON that others wrote as a text, for jsonb takes not all of JSON."""
    raws = {name: each for name in RAW if isinstance(each := getattr(request, name), msgspec.Raw)}
    texts = {name: raw(msgspec.json.encode(bytes(each).decode()).decode())
             for name, each in raws.items()}  # fmt: skip
    return msgspec.json.encode(msgspec.structs.replace(request, **texts)).decode()


async def find(conn: Conn, service_id: UUID, of: Version) -> Face | None:
    """Return what runs of a version show, or None where nothing has replaced it."""
    key, bucket, version = of
    values = {"key": key, "bucket": bucket, "service_id": service_id, "version": version}
    row = (await conn.execute(GET, values)).first()
    return None if row is None else Face(row.trigger, _read(row.request))


def _read(stored: str | None) -> ShownRequest | None:
    if stored is None:
        return None
    try:
        found = msgspec.json.decode(stored, type=ShownRequest)
        texts = {
            name: raw(msgspec.json.decode(each, type=str))
            for name in RAW
            if isinstance(each := getattr(found, name), msgspec.Raw)
        }
    except (msgspec.DecodeError, RecursionError):  # damaged by hand
        return None
    named = found.url or found.command or found.service
    return msgspec.structs.replace(found, **texts) if named else None


# Many ---------------------------------------------------------------------------------------------

TRIGGERS = text("""
SELECT w.key, w.bucket, w.version, v.trigger
FROM unnest(CAST(:keys AS uuid[]), CAST(:buckets AS smallint[]), CAST(:versions AS int[]))
     AS w (key, bucket, version), LATERAL (
    SELECT t.trigger FROM task_version t
    WHERE t.key = w.key AND t.bucket = w.bucket AND t.service_id = :service_id
      AND t.version >= w.version
    ORDER BY t.version LIMIT 1) AS v
""")


async def triggers(
    conn: Conn, service_id: UUID, wanted: Collection[Version]
) -> dict[Version, str | None]:
    """Map versions that have been replaced to the word for their kind of trigger."""
    keys, buckets, numbers = (list(part) for part in zip(*wanted, strict=True))
    values = {"keys": keys, "buckets": buckets, "versions": numbers, "service_id": service_id}
    rows = await conn.execute(TRIGGERS, values)
    return {(row.key, row.bucket, row.version): row.trigger for row in rows}


# Those that are gone ------------------------------------------------------------------------------

OUTLIVED = timedelta(days=2)
"""How long after an edit a run of the version before may end: a timeout is a day at most."""
PIECE = 2000
OLDEST = text("""
SELECT max(replaced_at) AS until, count(*) AS number FROM (
    SELECT replaced_at FROM task_version WHERE replaced_at < :before
    ORDER BY replaced_at LIMIT :most) AS oldest
""")
PRUNE = text("DELETE FROM task_version WHERE replaced_at <= :until")
OF_SERVICE = """FROM task_version WHERE service_id = :service_id LIMIT :most"""
REMOVE_SERVICE = text(
    "DELETE FROM task_version WHERE service_id = :service_id AND key = ANY(ARRAY("
    f"SELECT key {OF_SERVICE} FOR UPDATE SKIP LOCKED))"
)
LEFT_OF_SERVICE = text(f"SELECT EXISTS (SELECT FROM (SELECT key {OF_SERVICE}) AS left_over)")


async def prune(conn: Conn, kept_from: datetime, most: int = PIECE) -> bool:
    """Delete a piece of what was replaced before any run that is kept; say whether more is left.

    `kept_from` is when the oldest week of history begins.
    """
    values = {"before": kept_from - OUTLIVED, "most": most}
    oldest = (await conn.execute(OLDEST, values)).one()
    if oldest.until is not None:
        await conn.execute(PRUNE, {"until": oldest.until})
    return bool(oldest.number == most)


async def remove_service(conn: Conn, service_id: UUID, most: int) -> bool:
    """Delete at most so many of a service's versions, about; say whether any are left."""
    await conn.execute(REMOVE_SERVICE, {"service_id": service_id, "most": most})
    left = await conn.execute(LEFT_OF_SERVICE, {"service_id": service_id, "most": 1})
    return bool(left.scalar_one())
