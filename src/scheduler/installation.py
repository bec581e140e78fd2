"""The installation: what a database knows of the scheduler that lives in it. One row."""

from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)

from scheduler.db import Conn, metadata

INSTALLATION = Table(
    "installation",
    metadata,
    Column("one", Boolean, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("place", Text),
    Column("secret_fingerprint", Text),
    Column("tzdata", Text),
    Column("tzdata_at", DateTime(timezone=True)),
    Column("tzdata_next", Text),
    Column("tzdata_after", Uuid),
    Column("runs_with", Text, nullable=False),
    Column("paused_at", DateTime(timezone=True)),
    Column("paused_reason", Text),
    Column("created_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("one", name="installation_pkey"),
    CheckConstraint("one", name="installation_one_check"),
)


# What a backup says of it -------------------------------------------------------------------------

THERE = text("SELECT to_regclass('installation') IS NOT NULL")
ABOUT = text("SELECT id, tzdata, secret_fingerprint FROM installation")


class About(msgspec.Struct, frozen=True):
    """What tells one installation from another."""

    id: str
    tzdata: str | None
    secret_fingerprint: str | None


async def about(conn: Conn) -> About | None:
    """Return whose database this is; None where its schema is older than that."""
    if not (await conn.execute(THERE)).scalar_one():
        return None
    row = (await conn.execute(ABOUT)).first()
    return None if row is None else About(str(row.id), row.tzdata, row.secret_fingerprint)


# Another Postgres with the same data --------------------------------------------------------------

AT_HOME = """
SELECT place = (SELECT c.system_identifier || '/' || d.oid
                FROM pg_control_system() AS c, pg_database AS d
                WHERE d.datname = current_database())
FROM installation
"""
MOVE = "UPDATE installation SET place = NULL"
"""For a database that moved, and is no copy: its next start takes the new place for its own."""


# The time zones -----------------------------------------------------------------------------------

ZONES = text("SELECT tzdata, tzdata_at FROM installation")
TURN = text("""
SELECT tzdata, tzdata_next, tzdata_after FROM installation FOR UPDATE SKIP LOCKED
""")
ADVANCE = text("UPDATE installation SET tzdata_next = :version, tzdata_after = :after")
ARRIVE = text("""
UPDATE installation
SET tzdata = :version, tzdata_at = clock_timestamp(), tzdata_next = NULL, tzdata_after = NULL
""")


class Zones(msgspec.Struct, frozen=True):
    """The version of the time-zone data that zoned tasks are planned with, and since when."""

    version: str | None
    since: datetime | None


class Turn(msgspec.Struct, frozen=True):
    """How far zoned tasks are worked out anew: for which version, up to the task `after`."""

    version: str | None
    next: str | None
    after: UUID | None


async def zones(conn: Conn) -> Zones:
    """Return what zoned tasks are planned with."""
    row = (await conn.execute(ZONES)).first()
    return Zones(None, None) if row is None else Zones(row.tzdata, row.tzdata_at)


async def take_turn(conn: Conn) -> Turn | None:
    """Hold the place where zoned tasks are being worked out, until the commit.

    None where another replica holds it.
    """
    row = (await conn.execute(TURN)).first()
    return None if row is None else Turn(row.tzdata, row.tzdata_next, row.tzdata_after)


async def advance(conn: Conn, version: str, after: UUID | None) -> None:
    """Write down up to which task they are worked out."""
    await conn.execute(ADVANCE, {"version": version, "after": after})


async def arrive(conn: Conn, version: str) -> None:
    """Write down that all of them are planned with a version, from now on."""
    await conn.execute(ARRIVE, {"version": version})
