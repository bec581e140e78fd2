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
from sqlalchemy.exc import DBAPIError

from scheduler import db
from scheduler.db import Conn, Database, metadata
from scheduler.errors import StartupError

INSTALLATION = Table(
    "installation",
    metadata,
    Column("one", Boolean, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("place", Text),
    Column("secret_fingerprint", Text),
    Column("sealed_at", DateTime(timezone=True)),
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


class Pause(msgspec.Struct, frozen=True):
    """Since when nothing is run, and why."""

    at: datetime
    reason: str


class Installation(msgspec.Struct, frozen=True):
    """The row, as far as this program acts by it."""

    place: str | None
    """The Postgres and the database in it that it lives in."""
    fingerprint: str | None
    """Of the key that seals its secrets."""
    sealed_at: datetime | None
    """Since when nothing secret is stored open."""
    pause: Pause | None


COLUMNS = "place, secret_fingerprint, sealed_at, paused_at, paused_reason"
READ = text(f"SELECT {COLUMNS} FROM installation")
LOCK = text(f"SELECT {COLUMNS} FROM installation FOR UPDATE")
ADOPT = text("UPDATE installation SET secret_fingerprint = :fingerprint")
SEALED = text("UPDATE installation SET sealed_at = now() WHERE sealed_at IS NULL")
OPENED = text("UPDATE installation SET sealed_at = NULL WHERE sealed_at IS NOT NULL")


async def read(conn: Conn) -> Installation:
    """Return the installation. Raises StartupError where its row is gone."""
    return await _read(conn, READ)


async def lock(conn: Conn) -> Installation:
    """Return the installation, and hold off whoever else locks it until the commit."""
    return await _read(conn, LOCK)


async def _read(conn: Conn, statement: object) -> Installation:
    row = (await conn.execute(statement)).first()  # type: ignore[call-overload]
    if row is None:
        raise StartupError(
            "the table installation has lost its row; restore it from a backup, or run "
            "INSERT INTO installation (runs_with) VALUES ('0003')"
        )
    pause = None if row.paused_at is None else Pause(row.paused_at, row.paused_reason or "")
    return Installation(row.place, row.secret_fingerprint, row.sealed_at, pause)


async def adopt(conn: Conn, fingerprint: str | None) -> None:
    """Write down which key seals from now on."""
    await conn.execute(ADOPT, {"fingerprint": fingerprint})


async def note_sealed(conn: Conn, *, sealed: bool) -> None:
    """Write down whether everything that is secret is sealed."""
    await conn.execute(SEALED if sealed else OPENED)


# The pause ----------------------------------------------------------------------------------------

PAUSE = text("UPDATE installation SET paused_at = now(), paused_reason = :reason")
PAUSE_COPY = text("""
UPDATE installation SET paused_at = now(), paused_reason = :reason
WHERE paused_at IS NULL AND place = :place
""")
RESUME = text("""
UPDATE installation SET paused_at = NULL, paused_reason = NULL, place = coalesce(:place, place)
""")


async def pause(conn: Conn, reason: str) -> None:
    """Let no replica run anything until `resume`; each hears of it within a second or so."""
    await conn.execute(PAUSE, {"reason": reason})


async def pause_copy(conn: Conn, place: str, reason: str) -> None:
    """Pause an installation that was made in `place`, unless somebody has dealt with it since."""
    await conn.execute(PAUSE_COPY, {"place": place, "reason": reason})


async def resume(conn: Conn, place: str | None) -> None:
    """End a pause; `place` is where the database lives from now on."""
    await conn.execute(RESUME, {"place": place})


# The place ----------------------------------------------------------------------------------------

HERE = """
SELECT c.system_identifier || '/' || d.oid
FROM pg_control_system() AS c, pg_database AS d WHERE d.datname = current_database()
"""
PLACE = text(HERE)
LIVE = text("UPDATE installation SET place = :place")


async def place(database: Database) -> str | None:
    """Return what tells this database from a copy of it; None where Postgres will not say.

    The system identifier of its Postgres, which initdb makes, and the number of the database.
    """
    async with database.auto.connect() as conn:
        try:
            return str((await conn.execute(PLACE)).scalar_one())
        except DBAPIError as e:
            if db.sqlstate(e) != "42501":  # insufficient_privilege
                raise
            return None


async def settle(conn: Conn, here: str) -> None:
    """Write down that the installation lives here."""
    await conn.execute(LIVE, {"place": here})


def copied(of: Installation, here: str | None) -> str | None:
    """Return why an installation is not to run here; None where this is its place."""
    if here is None or of.place in (None, here):
        return None
    return (
        f"this database was copied from another installation (made in {of.place}, found in {here})"
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

AT_HOME = f"SELECT place = ({HERE}) FROM installation"
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
