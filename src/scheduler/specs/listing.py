"""Lists of specs, and what their answers hold beside the row; it writes nothing."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text

from scheduler.clock import Slice
from scheduler.db import Conn
from scheduler.documents.client import Client, Operation
from scheduler.specs.model import COLUMNS, OF_SERVICE, Status, Stored, home, stored

PAGE_BYTES = 8 << 20
"""Of what the specs of a page hold, where that is asked for; it ends there, after one at least."""
SIZE = "octet_length(d.source)"
CLIENT_SIZE = """(SELECT coalesce(sum(pg_column_size(o.operation)), 0) FROM spec_operation o
    WHERE o.bucket = s.bucket AND o.service_id = s.service_id AND o.spec_key = s.key
        AND o.draft = s.serving)
    + coalesce((SELECT CAST(c.client ->> 'size' AS bigint) FROM spec_document c
    WHERE c.bucket = s.bucket AND c.service_id = s.service_id AND c.spec_key = s.key
        AND c.draft = s.serving), 0)"""
# octet_length and pg_column_size read no value that lies outside of its row. Compressed, though, an
# operation may be a hundredth of what it takes.
SIZES = text(f"""
SELECT s.key, {SIZE} AS source, {CLIENT_SIZE} AS client
FROM spec s JOIN spec_document d
    ON d.bucket = s.bucket AND d.service_id = s.service_id AND d.spec_key = s.key
    AND d.draft = s.draft
WHERE s.bucket = :bucket AND s.service_id = :service_id AND s.key = ANY(:keys)
""")
PAGE = text(f"""
SELECT {COLUMNS} FROM spec WHERE {OF_SERVICE}
ORDER BY created_at DESC, key DESC OFFSET :offset LIMIT :most
""")
TOTAL = text(f"SELECT count(*) FROM spec WHERE {OF_SERVICE}")
# What moves, or has moved just now: all that a page need be told of.
MOVING = text(f"""
SELECT trace_id, status FROM spec
WHERE {OF_SERVICE} AND (status NOT IN ('SUCCESS', 'ERROR') OR updated_at >= :since)
ORDER BY updated_at DESC LIMIT :most
""")
SOURCES = text("""
SELECT s.key, d.source
FROM spec s JOIN spec_document d
    ON d.bucket = s.bucket AND d.service_id = s.service_id AND d.spec_key = s.key
    AND d.draft = s.draft
WHERE s.bucket = :bucket AND s.service_id = :service_id AND s.key = ANY(:keys)
""")
CLIENTS = text("""
SELECT s.key, d.client, d.refused
FROM spec s JOIN spec_document d
    ON d.bucket = s.bucket AND d.service_id = s.service_id AND d.spec_key = s.key
    AND d.draft = s.serving
WHERE s.bucket = :bucket AND s.service_id = :service_id AND s.key = ANY(:keys)
""")
OPERATIONS = text("""
SELECT s.key, o.operation
FROM spec s JOIN spec_operation o
    ON o.bucket = s.bucket AND o.service_id = s.service_id AND o.spec_key = s.key
    AND o.draft = s.serving
WHERE s.bucket = :bucket AND s.service_id = :service_id AND s.key = ANY(:keys)
ORDER BY s.key, o.place
""")
CHOICES = text(f"""
SELECT s.name, CASE WHEN s.name = :name THEN ARRAY(
    SELECT o.endpoint FROM spec_operation o
    WHERE o.bucket = s.bucket AND o.service_id = s.service_id AND o.spec_key = s.key
        AND o.draft = s.serving
    ORDER BY o.place LIMIT :most) END AS endpoints
FROM spec s WHERE {OF_SERVICE} ORDER BY s.name LIMIT :most
""")


class Serving(msgspec.Struct):
    """The client that a spec serves."""

    client: Client
    """With its operations."""
    refused: dict[str, str]
    """By endpoint, why it cannot be called."""


class Whole(msgspec.Struct):
    """A spec, and what was asked for beside."""

    of: Stored
    source: bytes | None = None
    """The document that came last, as it was sent."""
    serving: Serving | None = None


async def page(conn: Conn, service_id: UUID, *, offset: int, most: int) -> tuple[int, list[Stored]]:
    """Return how many specs a service has, and some of them, the newest first."""
    address = _address(service_id)
    total = int((await conn.execute(TOTAL, address)).scalar_one())
    rows = await conn.execute(PAGE, {**address, "offset": offset, "most": most})
    return total, [stored(row) for row in rows]


async def moving(
    conn: Conn, service_id: UUID, since: datetime, most: int
) -> list[tuple[str, Status]]:
    """Return trace_id and status of a service's specs that are under way, or were since a time."""
    rows = await conn.execute(MOVING, {**_address(service_id), "since": since, "most": most})
    return [(row.trace_id, row.status) for row in rows]


async def choices(
    conn: Conn, service_id: UUID, name: str, most: int
) -> tuple[list[str], list[str]]:
    """Return names of specs, and the endpoints, like `GET /pets/{id}`, of the one so called.

    Of each `most` at most.
    """
    called = "" if "\x00" in name else name  # no text in Postgres can hold one
    values = {**_address(service_id), "name": called, "most": most}
    rows = (await conn.execute(CHOICES, values)).all()
    endpoints: list[str] = next((row.endpoints for row in rows if row.endpoints is not None), [])
    return [row.name for row in rows], list(endpoints)


async def whole(
    conn: Conn, service_id: UUID, found: Sequence[Stored], *, source: bool, client: bool
) -> list[Whole]:
    """Return specs with what is asked for of them, as many as a page holds.

    Ask in one snapshot: a newer document may begin to serve between two statements.
    """
    if source or client:
        found = await _fitting(conn, service_id, found, source=source, client=client)
    keys = [of.key for of in found]
    sources = await _sources(conn, service_id, keys) if source else {}
    clients = await _clients(conn, service_id, keys) if client else {}
    return [Whole(of, sources.get(of.key), clients.get(of.key)) for of in found]


async def _fitting(
    conn: Conn, service_id: UUID, found: Sequence[Stored], *, source: bool, client: bool
) -> list[Stored]:
    values = {**_address(service_id), "keys": [of.key for of in found]}
    sizes = {
        row.key: source * row.source + client * int(row.client)
        for row in await conn.execute(SIZES, values)
    }
    fit, size = list[Stored](), 0
    for of in found:
        size += sizes.get(of.key, 0)
        if fit and size > PAGE_BYTES:
            break
        fit.append(of)
    return fit


async def _sources(conn: Conn, service_id: UUID, keys: Sequence[UUID]) -> dict[UUID, bytes]:
    rows = await conn.execute(SOURCES, {**_address(service_id), "keys": list(keys)})
    return {row.key: row.source for row in rows}


async def _clients(conn: Conn, service_id: UUID, keys: Sequence[UUID]) -> dict[UUID, Serving]:
    values = {**_address(service_id), "keys": list(keys)}
    operations: dict[UUID, list[Operation]] = {key: [] for key in keys}
    turn = Slice()
    for row in await conn.execute(OPERATIONS, values):
        operations[row.key].append(_operation.decode(row.operation))
        await turn.give_way()
    found = dict[UUID, Serving]()
    for row in await conn.execute(CLIENTS, values):
        if row.client is not None:
            of = msgspec.structs.replace(_client.decode(row.client), operations=operations[row.key])
            found[row.key] = Serving(of, _refused.decode(row.refused or "{}"))
    return found


def _address(service_id: UUID) -> dict[str, Any]:
    return {"bucket": home(service_id), "service_id": service_id}


_client = msgspec.json.Decoder(Client)
_operation = msgspec.json.Decoder(Operation)
_refused = msgspec.json.Decoder(dict[str, str])
