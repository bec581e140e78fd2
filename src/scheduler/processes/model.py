"""Processes: their table, and the verbs on it."""

from uuid import UUID

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

from scheduler.db import Conn, metadata, times_check
from scheduler.run import bucket_of

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
    Index("process_service", "service_id"),
    Index("process_created", "created_at"),
    Index(
        "process_callback",
        "scheduled_at",
        postgresql_where=text("callback_url IS NOT NULL AND called_at IS NULL"),
    ),
)

KEY_OF = text("""
SELECT key FROM process
WHERE bucket = :bucket AND service_id = :service_id AND trace_id = :trace_id
""")


async def key_of(conn: Conn, service_id: UUID, trace_id: str) -> UUID | None:
    """Return the key of a service's process, or None."""
    values = {"service_id": service_id, "trace_id": trace_id}
    values["bucket"] = bucket_of(service_id, trace_id)
    found: UUID | None = (await conn.execute(KEY_OF, values)).scalar_one_or_none()
    return found
