"""Answers of targets: those that are longer than what a run keeps, and those that are shared."""

from sqlalchemy import (
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
)

from scheduler.db import metadata, times_check

RESPONSE = Table(
    "response",
    metadata,
    Column("id", Uuid, nullable=False),
    Column("bucket", SmallInteger, nullable=False),
    Column("service_id", Uuid, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("id", "bucket", name="response_pkey"),
    times_check("response", "created_at"),
    Index("response_service", "service_id"),
    Index("response_created", "created_at"),
)
CACHE = Table(
    "response_cache",
    metadata,
    Column("key", LargeBinary, nullable=False),
    Column("bucket", SmallInteger, nullable=False),
    Column("service_id", Uuid, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("content_type", Text),
    Column("body", LargeBinary),
    Column("response_id", Uuid),
    Column("size", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("key", "bucket", name="response_cache_pkey"),
    times_check("response_cache", "created_at", "expires_at"),
    Index("response_cache_service", "service_id"),
    Index("response_cache_expires", "expires_at"),
    prefixes=["UNLOGGED"],
)
