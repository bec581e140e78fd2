"""Specs: their tables, and the verbs on them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal
from uuid import UUID

import msgspec
from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from scheduler import db, sealing
from scheduler.clock import Slice
from scheduler.db import Conn, metadata, times_check
from scheduler.documents.client import Client, Operation
from scheduler.run import bucket_of
from scheduler.sealing import Vault

SPEC = Table(
    "spec",
    metadata,
    Column("key", Uuid, nullable=False),
    Column("bucket", SmallInteger, nullable=False),
    Column("service_id", Uuid, nullable=False),
    Column("trace_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("draft", Integer, nullable=False),
    Column("serving", Integer),
    Column("status", Text, nullable=False),
    Column("reached", Text, nullable=False),
    Column("error", Text),
    Column("headers", JSONB, nullable=False),
    Column("url", Text),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("key", "bucket", name="spec_pkey"),
    UniqueConstraint("bucket", "service_id", "name", name="spec_name_key"),
    UniqueConstraint("bucket", "service_id", "trace_id", name="spec_trace_key"),
    CheckConstraint(
        "status IN ('WAITING', 'IN_PROGRESS', 'READY_YAML', 'READY_CLIENT', 'SUCCESS', 'ERROR')",
        name="spec_status_check",
    ),
    CheckConstraint("(status = 'ERROR') = (error IS NOT NULL)", name="spec_error_check"),
    CheckConstraint("version > 0 AND draft > 0 AND serving <= draft", name="spec_numbers_check"),
    times_check("spec", "created_at", "updated_at"),
    Index("spec_created", "service_id", "created_at", "key"),
    Index("spec_unfinished", "key", postgresql_where=text("status NOT IN ('SUCCESS', 'ERROR')")),
)
DOCUMENT = Table(
    "spec_document",
    metadata,
    Column("spec_key", Uuid, nullable=False),
    Column("bucket", SmallInteger, nullable=False),
    Column("service_id", Uuid, nullable=False),
    Column("draft", Integer, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("source", LargeBinary, nullable=False),
    Column("document", LargeBinary),
    Column("client", JSONB),
    Column("refused", JSONB),
    Column("package", LargeBinary),
    Column("created_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("spec_key", "bucket", "draft", name="spec_document_pkey"),
    times_check("spec_document", "created_at"),
    Index("spec_document_service", "service_id"),
)
OPERATION = Table(
    "spec_operation",
    metadata,
    Column("spec_key", Uuid, nullable=False),
    Column("bucket", SmallInteger, nullable=False),
    Column("service_id", Uuid, nullable=False),
    Column("draft", Integer, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("place", Integer, nullable=False),
    Column("operation", JSONB, nullable=False),
    PrimaryKeyConstraint("spec_key", "bucket", "draft", "endpoint", name="spec_operation_pkey"),
    Index("spec_operation_service", "service_id"),
)
ARCHIVE = Table(
    "spec_archive",
    metadata,
    Column("key", Uuid, nullable=False),
    Column("bucket", SmallInteger, nullable=False),
    Column("service_id", Uuid, nullable=False),
    Column("trace_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("content", JSONB, nullable=False),
    Column("source", LargeBinary, nullable=False),
    Column("archived_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("key", "bucket", name="spec_archive_pkey"),
    times_check("spec_archive", "archived_at"),
    Index("spec_archive_service", "service_id", "archived_at"),
)


def home(service_id: UUID) -> int:
    """Return the bucket that all specs of a service live in."""
    return bucket_of(service_id, "spec")


def fold(name: str) -> str:
    """Return a spec's name as it is stored and matched."""
    return name.strip().lower()


Status = Literal["WAITING", "IN_PROGRESS", "READY_YAML", "READY_CLIENT", "SUCCESS", "ERROR"]


class Stored(msgspec.Struct, kw_only=True, frozen=True):
    """A spec as its row has it; times in ms since 1970."""

    key: UUID
    service_id: UUID
    trace_id: str
    name: str
    version: int
    draft: int
    """The number of the document that came last."""
    serving: int | None
    """The number of the document that calls go through."""
    status: Status
    reached: Status
    """How far the last document came; where the status is ERROR, before that."""
    error: str | None
    headers: dict[str, str]
    """Sealed; `opened` opens them."""
    url: str | None
    created_at: int
    updated_at: int

    @property
    def bucket(self) -> int:
        """Return the bucket of its rows."""
        return home(self.service_id)

    @property
    def values(self) -> dict[str, Any]:
        """Its address, as the parameters of statements."""
        return {"key": self.key, "bucket": self.bucket, "service_id": self.service_id}


class Called(msgspec.Struct, kw_only=True, frozen=True):
    """What a call through a spec needs of it, as it stands."""

    spec: UUID
    """Its key."""
    version: int
    """Grows with everything that a call depends on."""
    draft: int
    serving: int | None
    status: Status
    headers: dict[str, str]
    """As they were sent."""
    url: str | None
    operation: Operation | None
    """None where the spec serves no such endpoint."""


def opened(vault: Vault, service_id: UUID, headers: Mapping[str, str]) -> dict[str, str]:
    """Return a spec's headers as they were sent. Raises SealError."""
    return {
        name: vault.open(value, service_id, sealing.header(name)) for name, value in headers.items()
    }


def sealed(vault: Vault, service_id: UUID, headers: Mapping[str, str]) -> dict[str, str]:
    """Return a spec's headers as they are stored: every value may be a secret."""
    return {
        name: vault.seal(value, service_id, sealing.header(name)) for name, value in headers.items()
    }


# One spec -----------------------------------------------------------------------------------------

COLUMNS = """key, service_id, trace_id, name, version, draft, serving, status, reached, error,
          headers, url, created_at, updated_at"""
OF_SERVICE = "bucket = :bucket AND service_id = :service_id"
GET = text(f"SELECT {COLUMNS} FROM spec WHERE {OF_SERVICE} AND trace_id = :trace_id")
LOCK = text(GET.text + " FOR UPDATE")

CALL = text("""
SELECT s.key, s.version, s.draft, s.serving, s.status, s.headers, s.url, o.operation,
       d.refused ->> o.endpoint AS refused
FROM spec s
LEFT JOIN spec_operation o
    ON o.spec_key = s.key AND o.bucket = s.bucket AND o.service_id = s.service_id
    AND o.draft = s.serving AND o.endpoint = :endpoint
LEFT JOIN spec_document d
    ON d.spec_key = s.key AND d.bucket = s.bucket AND d.service_id = s.service_id
    AND d.draft = s.serving
WHERE s.bucket = :bucket AND s.service_id = :service_id AND s.name = :name
""")


async def called(
    conn: Conn, vault: Vault, service_id: UUID, name: str, endpoint: str
) -> Called | None:
    """Return what a call of an endpoint, like `GET /pets/{id}`, needs; None where no spec has the
    name. Raises SealError.
    """
    values = {"bucket": home(service_id), "service_id": service_id}
    values |= {"name": _text(fold(name)), "endpoint": _text(endpoint)}
    row = (await conn.execute(CALL, values)).first()
    if row is None:
        return None
    return Called(
        spec=row.key,
        version=row.version,
        draft=row.draft,
        serving=row.serving,
        status=row.status,
        headers=opened(vault, service_id, _headers.decode(row.headers)),
        url=row.url,
        operation=None if row.operation is None else _operation(row),
    )


async def of_trace(
    conn: Conn, service_id: UUID, trace_id: str, *, lock: bool = False
) -> Stored | None:
    """Return a service's spec by its trace_id, or None; `lock` holds it until the commit."""
    values = {"bucket": home(service_id), "service_id": service_id, "trace_id": _text(trace_id)}
    row = (await conn.execute(LOCK if lock else GET, values)).first()
    return None if row is None else stored(row)


def stored(row: Any) -> Stored:
    """Read a row of COLUMNS."""
    return Stored(
        key=row.key,
        service_id=row.service_id,
        trace_id=row.trace_id,
        name=row.name,
        version=row.version,
        draft=row.draft,
        serving=row.serving,
        status=row.status,
        reached=row.reached,
        error=row.error,
        headers=_headers.decode(row.headers),
        url=row.url,
        created_at=db.ms(row.created_at),
        updated_at=db.ms(row.updated_at),
    )


def _text(sent: str) -> str:
    """Return a text that Postgres can hold; what has a NUL in it is nothing's name."""
    return sent.replace("\x00", "\ufffd")


# What a document compiled to ----------------------------------------------------------------------

OF_DRAFT = f"{OF_SERVICE} AND spec_key = :key AND draft = :draft"
DOCUMENT_OF = text(f"SELECT document FROM spec_document WHERE {OF_DRAFT}")
OPERATIONS_OF = text("""
SELECT o.operation, d.refused ->> o.endpoint AS refused
FROM spec_operation o
LEFT JOIN spec_document d
    ON d.spec_key = o.spec_key AND d.bucket = o.bucket AND d.service_id = o.service_id
    AND d.draft = o.draft
WHERE o.bucket = :bucket AND o.service_id = :service_id AND o.spec_key = :key AND o.draft = :draft
ORDER BY o.place
""")
CLIENT_OF = text("""
SELECT CASE WHEN row_number() OVER (ORDER BY o.place) = 1 THEN d.client END AS client,
       o.operation, d.refused ->> o.endpoint AS refused
FROM spec_document d
LEFT JOIN spec_operation o
    ON o.spec_key = d.spec_key AND o.bucket = d.bucket AND o.service_id = d.service_id
    AND o.draft = d.draft
WHERE d.bucket = :bucket AND d.service_id = :service_id AND d.spec_key = :key AND d.draft = :draft
ORDER BY o.place
""")


async def document(conn: Conn, service_id: UUID, key: UUID, draft: int) -> bytes | None:
    """Return a document in JSON, with its aliases gone; None where there is none (any more)."""
    values = {"bucket": home(service_id), "service_id": service_id, "key": key, "draft": draft}
    found: bytes | None = (await conn.execute(DOCUMENT_OF, values)).scalar()
    return found


async def operations(conn: Conn, service_id: UUID, key: UUID, draft: int) -> list[Operation]:
    """Return the operations of a document, in its order."""
    values = {"bucket": home(service_id), "service_id": service_id, "key": key, "draft": draft}
    found, turn = list[Operation](), Slice()
    for row in await conn.execute(OPERATIONS_OF, values):
        found.append(_operation(row))
        await turn.give_way()
    return found


async def client(conn: Conn, of: Stored, draft: int) -> Client | None:
    """Return what a document compiled to, with its operations; None where it did not yet."""
    rows, turn = (await conn.execute(CLIENT_OF, {**of.values, "draft": draft})).all(), Slice()
    if not rows or rows[0].client is None:
        return None
    operations = list[Operation]()
    for row in rows:
        if row.operation is not None:
            operations.append(_operation(row))
        await turn.give_way()
    return msgspec.structs.replace(_clients.decode(rows[0].client), operations=operations)


def _operation(row: Any) -> Operation:
    of = _operations.decode(row.operation)
    return of if row.refused is None else msgspec.structs.replace(of, refused=row.refused)


# A service's --------------------------------------------------------------------------------------

# octet_length reads no value that lies outside of its row. Of operations the document knows. What
# is archived has a bound of its own: nobody could delete it to make room.
KEPT = text("""
SELECT service_id, CAST(sum(octet_length(source) + coalesce(octet_length(document), 0)
       + coalesce(octet_length(package), 0)
       + coalesce(CAST(client ->> 'size' AS bigint), 0)) AS bigint) AS size
FROM spec_document WHERE bucket = ANY(:buckets) AND service_id = ANY(:services)
GROUP BY service_id
""")


async def kept(conn: Conn, services: Sequence[UUID]) -> dict[UUID, int]:
    """Return how many bytes the specs of services take, about; not those of deleted ones."""
    values = {"buckets": list({home(each) for each in services}), "services": list(services)}
    return {row.service_id: row.size for row in await conn.execute(KEPT, values)}


DOCUMENTS_MOST = 20
"""Of so many specs the documents are deleted at once: they may be large."""
REMOVE_SPECS = text(f"""
DELETE FROM spec WHERE {OF_SERVICE} AND key = ANY(ARRAY(
    SELECT key FROM spec WHERE {OF_SERVICE} ORDER BY key LIMIT :most FOR UPDATE SKIP LOCKED))
""")
REMOVE_OPERATIONS = text(f"""
DELETE FROM spec_operation WHERE {OF_SERVICE} AND spec_key = ANY(ARRAY(
    SELECT spec_key FROM spec_operation WHERE {OF_SERVICE} ORDER BY spec_key LIMIT 1))
""")
REMOVE_DOCUMENTS = text(f"""
DELETE FROM spec_document WHERE {OF_SERVICE} AND spec_key = ANY(ARRAY(
    SELECT spec_key FROM spec_document WHERE {OF_SERVICE} ORDER BY spec_key LIMIT :most))
""")
REMOVE_ARCHIVED = text(f"""
DELETE FROM spec_archive WHERE {OF_SERVICE} AND key = ANY(ARRAY(
    SELECT key FROM spec_archive WHERE {OF_SERVICE} ORDER BY key LIMIT :most))
""")
LEFT_OF_SERVICE = text(f"""
SELECT EXISTS (SELECT FROM spec WHERE {OF_SERVICE})
    OR EXISTS (SELECT FROM spec_operation WHERE {OF_SERVICE})
    OR EXISTS (SELECT FROM spec_document WHERE {OF_SERVICE})
    OR EXISTS (SELECT FROM spec_archive WHERE {OF_SERVICE})
""")


async def remove_service(conn: Conn, service_id: UUID, most: int) -> bool:
    """Delete at most so many of a service's specs, and what belongs to them; say whether any of it
    is left.
    """
    values = {"bucket": home(service_id), "service_id": service_id}
    few = {**values, "most": min(most, DOCUMENTS_MOST)}
    await conn.execute(REMOVE_SPECS, {**values, "most": most})
    await conn.execute(REMOVE_OPERATIONS, values)
    await conn.execute(REMOVE_DOCUMENTS, few)
    await conn.execute(REMOVE_ARCHIVED, few)
    return bool((await conn.execute(LEFT_OF_SERVICE, values)).scalar_one())


_headers = msgspec.json.Decoder(dict[str, str])
_operations = msgspec.json.Decoder(Operation)
_clients = msgspec.json.Decoder(Client)
