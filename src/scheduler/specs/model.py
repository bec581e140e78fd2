"""Specs: their tables, and the verbs on them."""

from uuid import UUID

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

from scheduler.db import Conn, metadata, times_check
from scheduler.run import bucket_of

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


KEY_OF = text("""
SELECT key FROM spec
WHERE bucket = :bucket AND service_id = :service_id AND trace_id = :trace_id
""")


async def key_of(conn: Conn, service_id: UUID, trace_id: str) -> UUID | None:
    """Return the key of a service's spec, or None."""
    values = {"service_id": service_id, "trace_id": trace_id, "bucket": home(service_id)}
    found: UUID | None = (await conn.execute(KEY_OF, values)).scalar_one_or_none()
    return found
