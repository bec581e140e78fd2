"""How each task stands when nothing of it is running, for lists and filters.

A row follows what happens at most a second late, and says the same however often it is told; one
task's page is computed, and exact.
"""

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
)

from scheduler.db import metadata, times_check

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
