"""The installation: what a database knows of the scheduler that lives in it. One row."""

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
)

from scheduler.db import metadata

INSTALLATION = Table(
    "installation",
    metadata,
    Column("one", Boolean, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("place", Text),
    Column("secret_fingerprint", Text),
    Column("tzdata", Text),
    Column("runs_with", Text, nullable=False),
    Column("paused_at", DateTime(timezone=True)),
    Column("paused_reason", Text),
    Column("created_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("one", name="installation_pkey"),
    CheckConstraint("one", name="installation_one_check"),
)
