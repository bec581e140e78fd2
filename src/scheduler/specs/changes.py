"""Specs: everything that writes them, and what of them is under way.

A draft is one document that was sent. Whatever goes on with one names its number: when a newer one
has come, nothing is written. None commits; `now` is in ms since 1970.
"""

import re
import uuid
from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from scheduler import db
from scheduler.clock import Slice
from scheduler.db import Conn, utc
from scheduler.documents.client import Operation
from scheduler.documents.messages import Compiled
from scheduler.errors import Conflict
from scheduler.specs.model import COLUMNS, OF_DRAFT, OF_SERVICE, Status, Stored, home, stored

ERROR_MOST = 2000
"""Characters of a finding that are kept."""
ARCHIVED_MOST = 1000
"""Deleted specs of a service that are kept, the newest."""
ARCHIVED_BYTES = 64 << 20
"""Of their documents; the largest that there may be is as long."""
PIECE = 500
"""Operations that are written at once."""


# What is asked for --------------------------------------------------------------------------------

CREATE = text("""
INSERT INTO spec (key, bucket, service_id, trace_id, name, version, draft, status, reached, headers,
                  url, created_at, updated_at)
VALUES (:key, :bucket, :service_id, :trace_id, :name, 1, 1, 'WAITING', 'WAITING', :headers, :url,
        :now, :now)
""")
SEND = text("""
INSERT INTO spec_document (spec_key, bucket, service_id, draft, sha256, source, created_at)
VALUES (:key, :bucket, :service_id, :draft, :sha256, :source, :now)
""")
OF_SPEC = f"{OF_SERVICE} AND key = :key"
RENAME = text(f"""
UPDATE spec SET name = :name, headers = :headers, url = :url, version = version + 1,
    updated_at = :now
WHERE {OF_SPEC}
""")
RENEW = text(f"""
UPDATE spec SET draft = :draft, status = 'WAITING', reached = 'WAITING', error = NULL,
    updated_at = :now
WHERE {OF_SPEC}
""")
SHA256 = text(f"SELECT sha256 FROM spec_document WHERE {OF_DRAFT}")
COUNT = text(f"SELECT count(*) FROM (SELECT FROM spec WHERE {OF_SERVICE} LIMIT :most) AS s")


class Sent(msgspec.Struct, frozen=True):
    """A document, as it was sent."""

    source: bytes
    sha256: str


class NewSpec(msgspec.Struct, kw_only=True, frozen=True):
    """A spec to be."""

    trace_id: str
    name: str
    headers: dict[str, str]
    """Sealed."""
    url: str | None
    sent: Sent


async def count(conn: Conn, service_id: UUID, most: int) -> int:
    """Return how many specs a service has, counted to `most`."""
    values = {"bucket": home(service_id), "service_id": service_id, "most": most}
    return int((await conn.execute(COUNT, values)).scalar_one())


async def create(conn: Conn, service_id: UUID, new: NewSpec, now: int) -> UUID:
    """Create a spec; return its key. Raises Conflict where its name is taken."""
    key = uuid.uuid4()
    address = {"key": key, "bucket": home(service_id), "service_id": service_id}
    values = {"trace_id": new.trace_id, "name": new.name, "url": new.url}
    await _named(
        conn,
        CREATE,
        {**address, **values, "headers": _json(new.headers), "now": utc(now)},
        new.name,
    )
    await _send(conn, address, 1, new.sent, now)
    return key


async def sha256(conn: Conn, of: Stored) -> str | None:
    """Return the SHA-256 of the document that came last, in 64 characters."""
    found: str | None = (await conn.execute(SHA256, {**of.values, "draft": of.draft})).scalar()
    return found


async def rename(
    conn: Conn, of: Stored, *, name: str, headers: dict[str, str], url: str | None, now: int
) -> None:
    """Change what is no document; it is locked. Raises Conflict where the name is taken."""
    values = {"name": name, "headers": _json(headers), "url": url, "now": utc(now)}
    await _named(conn, RENAME, {**of.values, **values}, name)
    if name != of.name:  # so is its Python client
        await conn.execute(UNPACK, of.values)


async def renew(conn: Conn, of: Stored, sent: Sent, now: int) -> int:
    """Have a spec begin anew with another document; return its number. The spec is locked."""
    draft = of.draft + 1
    await conn.execute(RENEW, {**of.values, "draft": draft, "now": utc(now)})
    await _send(conn, of.values, draft, sent, now)
    await _forget(conn, of.values, [draft, of.serving or draft])
    return draft


async def _named(conn: Conn, statement: Any, values: dict[str, Any], name: str) -> None:
    try:
        await conn.execute(statement, values)
    except IntegrityError as e:
        if db.violated(e) == "spec_name_key":
            raise Conflict(
                f"there is a spec {name} already; change that one, or name this one otherwise"
            ) from None
        raise


async def _send(conn: Conn, address: dict[str, Any], draft: int, sent: Sent, now: int) -> None:
    values = {"draft": draft, "sha256": sent.sha256, "source": sent.source, "now": utc(now)}
    await conn.execute(SEND, {**address, **values})


# On its way ---------------------------------------------------------------------------------------

ORDER = ("WAITING", "IN_PROGRESS", "READY_YAML", "READY_CLIENT", "SUCCESS")
BEFORE: dict[Status, list[str]] = {
    "IN_PROGRESS": ["WAITING", "IN_PROGRESS"],
    "READY_YAML": ["IN_PROGRESS", "READY_YAML"],
    "READY_CLIENT": ["READY_YAML"],
    "SUCCESS": ["READY_CLIENT"],
}
"""Where a draft must have come to, to go on to a status; some may be reached again."""
OF_LAST = f"{OF_SPEC} AND draft = :draft AND reached = ANY(:before)"
BY_KEY = text(f"SELECT {COLUMNS} FROM spec WHERE {OF_SPEC}")
SOURCE = text(f"SELECT source FROM spec_document WHERE {OF_DRAFT}")
OPERATIONS = text(f"SELECT operation FROM spec_operation WHERE {OF_DRAFT} ORDER BY place")
REACH = text(f"""
UPDATE spec SET status = :status, reached = :status, error = NULL, updated_at = :now
WHERE {OF_LAST}
RETURNING {COLUMNS}
""")
SERVE = text(f"""
UPDATE spec SET status = 'SUCCESS', reached = 'SUCCESS', error = NULL, serving = draft,
    version = version + 1, updated_at = :now
WHERE {OF_LAST}
RETURNING {COLUMNS}
""")
FAIL = text(f"""
UPDATE spec SET status = 'ERROR', error = :error, updated_at = :now
WHERE {OF_LAST} AND status <> 'ERROR'
RETURNING key
""")
TOUCH = text(f"UPDATE spec SET updated_at = :now WHERE {OF_SPEC}")
COMPILED = text(f"""
UPDATE spec_document SET document = :document, client = :client, refused = NULL, package = NULL
WHERE {OF_DRAFT}
""")
CLEAR = text(f"DELETE FROM spec_operation WHERE {OF_DRAFT}")
ADD = text("""
INSERT INTO spec_operation (spec_key, bucket, service_id, draft, endpoint, place, operation)
SELECT :key, :bucket, :service_id, :draft, o.endpoint, o.place, CAST(o.operation AS jsonb)
FROM unnest(CAST(:endpoints AS text[]), CAST(:places AS int[]), CAST(:operations AS text[]))
    AS o (endpoint, place, operation)
""")
REVIEWED = text(f"UPDATE spec_document SET refused = :refused WHERE {OF_DRAFT}")
FORGET = text(f"""
DELETE FROM spec_document WHERE {OF_SERVICE} AND spec_key = :key AND draft <> ALL(:kept)
""")
FORGET_OPERATIONS = text(f"""
DELETE FROM spec_operation WHERE {OF_SERVICE} AND spec_key = :key AND draft <> ALL(:kept)
""")


async def by_key(conn: Conn, service_id: UUID, key: UUID) -> Stored | None:
    """Return a service's spec, or None."""
    values = {"bucket": home(service_id), "service_id": service_id, "key": key}
    row = (await conn.execute(BY_KEY, values)).first()
    return None if row is None else stored(row)


async def source(conn: Conn, of: Stored, draft: int) -> bytes | None:
    """Return a document as it was sent; None where there is none (any more)."""
    found: bytes | None = (await conn.execute(SOURCE, {**of.values, "draft": draft})).scalar()
    return found


async def operations(conn: Conn, of: Stored, draft: int) -> list[bytes]:
    """Return the operations of a document as JSON, in its order, as they were compiled."""
    found, turn = list[bytes](), Slice()
    for written in (await conn.execute(OPERATIONS, {**of.values, "draft": draft})).scalars():
        found.append(written.encode())
        await turn.give_way()
    return found


async def reach(conn: Conn, of: Stored, status: Status, now: int) -> Stored | None:
    """Have the draft `of` names come to a status; None where a newer one came, or it is past it."""
    values = {"draft": of.draft, "before": BEFORE[status], "status": status, "now": utc(now)}
    row = (await conn.execute(REACH, {**of.values, **values})).first()
    return None if row is None else stored(row)


async def keep(conn: Conn, of: Stored, compiled: Compiled) -> None:
    """Keep what the draft compiled to. The spec is locked: it was just brought to READY_CLIENT.

    Raises msgspec.ValidationError for what is no operation: it comes from a child.
    """
    address = {**of.values, "draft": of.draft}
    values = {"document": compiled.document, "client": _json(compiled.client)}
    await conn.execute(COMPILED, {**address, **values})
    await conn.execute(CLEAR, address)
    turn = Slice()
    for begin in range(0, len(compiled.operations), PIECE):
        some = compiled.operations[begin : begin + PIECE]
        endpoints, written = list[str](), list[str]()
        for operation in some:
            endpoints.append(_plain(_operations.decode(operation).endpoint))
            written.append(_without_nul(operation))
            await turn.give_way()
        values = {
            "endpoints": endpoints,
            "places": list(range(begin, begin + len(some))),
            "operations": written,
        }
        await conn.execute(ADD, {**address, **values})


async def serve(conn: Conn, of: Stored, refused: dict[str, str], now: int) -> Stored | None:
    """Have calls go through the draft; None where a newer one came."""
    values = {"draft": of.draft, "before": BEFORE["SUCCESS"], "now": utc(now)}
    row = (await conn.execute(SERVE, {**of.values, **values})).first()
    if row is None:
        return None
    await review(conn, of, of.draft, refused)
    await _forget(conn, of.values, [of.draft])
    return stored(row)


async def review(conn: Conn, of: Stored, draft: int, refused: dict[str, str]) -> None:
    """Keep why endpoints of a document cannot be called."""
    values = {"draft": draft, "refused": _json(refused) if refused else None}
    await conn.execute(REVIEWED, {**of.values, **values})


async def touch(conn: Conn, of: Stored, now: int) -> None:
    """Say that what is told of a spec was written anew."""
    await conn.execute(TOUCH, {**of.values, "now": utc(now)})


async def fail(conn: Conn, of: Stored, error: str, now: int) -> bool:
    """End the draft with what was found; say whether that changed anything.

    One that has gone on since `of` was read, or that a newer one has followed, stays as it is.
    """
    values = {"draft": of.draft, "before": [of.reached], "now": utc(now)}
    values["error"] = _plain(error)[:ERROR_MOST] or "it failed, and nothing says why"
    return (await conn.execute(FAIL, {**of.values, **values})).first() is not None


async def _forget(conn: Conn, address: dict[str, Any], kept: Sequence[int]) -> None:
    """Delete what belongs to other drafts than these."""
    await conn.execute(FORGET, {**address, "kept": list(kept)})
    await conn.execute(FORGET_OPERATIONS, {**address, "kept": list(kept)})


PACKAGE = text(f"SELECT package FROM spec_document WHERE {OF_DRAFT}")
PACK = text(f"""
UPDATE spec_document SET package = :package
WHERE {OF_DRAFT} AND EXISTS (
    SELECT FROM spec WHERE {OF_SPEC} AND name = :name)
""")
UNPACK = text(f"UPDATE spec_document SET package = NULL WHERE {OF_SERVICE} AND spec_key = :key")


async def package(conn: Conn, of: Stored, draft: int) -> bytes | None:
    """Return the Python client of a document, where it was written before."""
    found: bytes | None = (await conn.execute(PACKAGE, {**of.values, "draft": draft})).scalar()
    return found


async def pack(conn: Conn, of: Stored, draft: int, written: bytes) -> None:
    """Keep the Python client of a document, where the spec is still called as it was."""
    values = {"draft": draft, "package": written, "name": of.name}
    await conn.execute(PACK, {**of.values, **values})


# Its end ------------------------------------------------------------------------------------------

ARCHIVE = text("""
INSERT INTO spec_archive (key, bucket, service_id, trace_id, name, content, source, archived_at)
SELECT s.key, s.bucket, s.service_id, s.trace_id, s.name,
       jsonb_build_object('version', s.version, 'draft', s.draft, 'serving', s.serving,
           'status', s.status, 'reached', s.reached, 'error', s.error, 'headers', s.headers,
           'url', s.url, 'sha256', d.sha256,
           'created_at', floor(extract(epoch FROM s.created_at) * 1000)::bigint,
           'updated_at', floor(extract(epoch FROM s.updated_at) * 1000)::bigint),
       d.source, :now
FROM spec s JOIN spec_document d
    ON d.spec_key = s.key AND d.bucket = s.bucket AND d.service_id = s.service_id
    AND d.draft = s.draft
WHERE s.bucket = :bucket AND s.service_id = :service_id AND s.key = :key
""")
DELETE = text(f"DELETE FROM spec WHERE {OF_SPEC}")
CUT = text(f"""
DELETE FROM spec_archive WHERE {OF_SERVICE} AND key = ANY(ARRAY(
    SELECT key FROM (
        SELECT key, row_number() OVER newest AS place,
               sum(octet_length(source)) OVER newest AS size
        FROM spec_archive WHERE {OF_SERVICE}
        WINDOW newest AS (ORDER BY archived_at DESC, key ROWS UNBOUNDED PRECEDING)) AS archived
    WHERE place > :most OR size > :bytes))
""")


async def archive(conn: Conn, of: Stored, now: int) -> None:
    """Move a spec and its last document to the archive; what it compiled to goes. It is locked."""
    await conn.execute(ARCHIVE, {**of.values, "now": utc(now)})
    await conn.execute(DELETE, of.values)
    await _forget(conn, of.values, [])
    values = {"bucket": of.bucket, "service_id": of.service_id}
    await conn.execute(CUT, {**values, "most": ARCHIVED_MOST, "bytes": ARCHIVED_BYTES})


# The machine's ------------------------------------------------------------------------------------

THERE = text("SELECT key FROM spec WHERE key = ANY(:keys) AND bucket = ANY(:buckets)")
UNFINISHED = text(f"""
SELECT {COLUMNS} FROM spec
WHERE status NOT IN ('SUCCESS', 'ERROR') AND key > :after ORDER BY key LIMIT :most
""")


async def there(conn: Conn, keys: Collection[UUID], buckets: Collection[int]) -> set[UUID]:
    """Return which of these specs there are."""
    values = {"keys": list(keys), "buckets": list(buckets)}
    return set((await conn.execute(THERE, values)).scalars())


async def unfinished(conn: Conn, after: UUID, most: int) -> list[Stored]:
    """Return specs of any service that are on their way, in the order of their keys."""
    values = {"after": after, "most": most}
    return [stored(row) for row in await conn.execute(UNFINISHED, values)]


# Rows ---------------------------------------------------------------------------------------------

_operations = msgspec.json.Decoder(Operation)
NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def _json(of: Any) -> str:
    return _without_nul(msgspec.json.encode(of))


def _without_nul(written: bytes) -> str:
    """Return JSON as jsonb takes it: it can hold no NUL."""
    return NUL.sub(r"\1\\ufffd", written.decode())


def _plain(sent: str) -> str:
    return sent.replace("\x00", "\ufffd")
