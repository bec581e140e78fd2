"""Kept: how many bytes services keep, as counted every so often; never on the way of a run."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec
from sqlalchemy import Boolean, CheckConstraint, Column, DateTime, PrimaryKeyConstraint, Table, text

from scheduler.db import Conn, metadata

MARK = Table(
    "kept_mark",
    metadata,
    Column("one", Boolean, nullable=False),
    Column("counted_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("one", name="kept_mark_pkey"),
    CheckConstraint("one", name="kept_mark_one_check"),
)

TAKE = text("""
UPDATE kept_mark SET counted_at = now()
WHERE counted_at IS NULL OR counted_at < now() - CAST(:seconds AS float8) * interval '1 second'
RETURNING one
""")
SERVICES = text("SELECT id FROM service WHERE id > :after ORDER BY id LIMIT :most")
# A service that somebody holds is written the next time.
WRITE = text("""
UPDATE service s SET kept_bytes = u.kept
FROM unnest(CAST(:ids AS uuid[]), CAST(:kept AS bigint[])) AS u (id, kept)
WHERE s.id = u.id AND s.id = ANY(ARRAY(
    SELECT id FROM service WHERE id = ANY(:ids) FOR NO KEY UPDATE SKIP LOCKED))
    AND s.kept_bytes <> u.kept
""")
READ = text("""
SELECT s.id, s.kept_bytes, s.max_kept_bytes FROM service s
WHERE s.kept_bytes > 0 OR s.max_kept_bytes IS NOT NULL
""")
AGE = text("SELECT CAST(extract(epoch FROM now() - counted_at) AS float8) FROM kept_mark")


async def take(conn: Conn, seconds: float) -> bool:
    """Say whether it is the caller's turn to count: nobody did for so many seconds."""
    return (await conn.execute(TAKE, {"seconds": seconds})).first() is not None


async def services(conn: Conn, after: UUID, most: int) -> list[UUID]:
    """Return the next services in the order of their ids."""
    return list((await conn.execute(SERVICES, {"after": after, "most": most})).scalars())


async def write(conn: Conn, counted: Mapping[UUID, int]) -> None:
    """Write down what services keep."""
    await conn.execute(WRITE, {"ids": list(counted), "kept": list(counted.values())})


class Known(msgspec.Struct, frozen=True):
    """What is known of all services: how long ago it was counted, and what was found."""

    age_s: float
    kept: dict[UUID, int]
    limits: dict[UUID, int]
    """Services' own; 0 for none."""


async def read(conn: Conn) -> Known:
    """Return what all services keep; those of which nothing is to be said are left out."""
    age_s = (await conn.execute(AGE)).scalar_one_or_none()
    rows: Sequence[object] = (await conn.execute(READ)).all()
    kept = {row.id: row.kept_bytes for row in rows}  # type: ignore[attr-defined]
    limits = {row.id: row.max_kept_bytes for row in rows}  # type: ignore[attr-defined]
    own = {each: most for each, most in limits.items() if most is not None}
    return Known(0.0 if age_s is None else age_s, kept, own)
