"""How each task stands when nothing of it is running, for lists and filters.

A row follows what happens at most a second late, and says the same however often it is told; one
task's page is computed, and exact.
"""

from uuid import UUID

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
    Uuid,
    text,
)

from scheduler.db import Conn, metadata, times_check

TASK_STATE = Table(
    "task_state",
    metadata,
    Column("key", Uuid, nullable=False),
    Column("bucket", SmallInteger, nullable=False),
    Column("service_id", Uuid, nullable=False),
    Column("state", Text, nullable=False),
    Column("last", Text),
    Column("last_at", DateTime(timezone=True)),
    Column("failures", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("key", "bucket", name="task_state_pkey"),
    CheckConstraint(
        "state IN ('created', 'pending', 'completed', 'failed')", name="task_state_state_check"
    ),
    CheckConstraint("last IN ('succeeded', 'failed', 'expired')", name="task_state_last_check"),
    times_check("task_state", "last_at", "created_at"),
    Index("task_state_list", "service_id", "state", "created_at", "key"),
)


OF_SERVICE = (
    """FROM task_state WHERE service_id = :service_id ORDER BY state, created_at LIMIT :most"""
)
REMOVE_SERVICE = text(
    "DELETE FROM task_state WHERE service_id = :service_id AND key = ANY(ARRAY("
    f"SELECT key {OF_SERVICE} FOR UPDATE SKIP LOCKED))"
)
LEFT_OF_SERVICE = text(f"SELECT EXISTS (SELECT FROM (SELECT key {OF_SERVICE}) AS left_over)")


async def remove_service(conn: Conn, service_id: UUID, most: int) -> bool:
    """Delete at most so many of a service's states of tasks; say whether any are left."""
    await conn.execute(REMOVE_SERVICE, {"service_id": service_id, "most": most})
    left = await conn.execute(LEFT_OF_SERVICE, {"service_id": service_id, "most": 1})
    return bool(left.scalar_one())
