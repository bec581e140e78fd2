"""Quotas: what a service may use, and how much of it is used.

Each check costs nothing where the quota is not set. What a check takes is given back where the
transaction does not commit.
"""

import math
from uuid import UUID

import msgspec
from sqlalchemy import (
    Column,
    DateTime,
    Double,
    ForeignKeyConstraint,
    PrimaryKeyConstraint,
    Table,
    Uuid,
    text,
)

from scheduler import clock, lines, services, task
from scheduler.db import Conn, metadata, utc
from scheduler.errors import TooManyRequests
from scheduler.service import Service

USAGE = Table(
    "service_usage",
    metadata,
    Column("service_id", Uuid, nullable=False),
    Column("level", Double, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("service_id", name="service_usage_pkey"),
    ForeignKeyConstraint(
        ["service_id"], ["service.id"], name="service_usage_service_fkey", ondelete="CASCADE"
    ),
)

TASKS_RETRY_S = 60
"""Nobody knows when a task will be deleted."""
IN_FLIGHT_RETRY_S = 1
KEPT_RETRY_S = 60
"""It is counted so often."""
COUNT_MOST = 10_000
"""What is shown as used is counted so far."""

# The bucket leaks `rate` a second; what overflows is refused. A transaction that began before the
# one that wrote last sees no time pass, and never a negative one.
LEVEL = """greatest(0, u.level - CAST(:rate AS float8)
        * greatest(0, CAST(extract(epoch FROM {now} - u.at) AS float8)))"""
FILLED = LEVEL.format(now="excluded.at") + " + CAST(:n AS float8)"
TAKE = text(f"""
INSERT INTO service_usage AS u (service_id, level, at)
VALUES (:service_id, :n, statement_timestamp())
ON CONFLICT (service_id) DO UPDATE SET level = {FILLED}, at = greatest(u.at, excluded.at)
    WHERE {FILLED} <= CAST(:most AS float8)
RETURNING level
""")
READ = text(f"""
SELECT {LEVEL.format(now="statement_timestamp()")} FROM service_usage u
WHERE u.service_id = :service_id
""")


async def check_tasks(conn: Conn, service: Service, more: int = 1) -> None:
    """Let no service have more tasks than it may, however many create at once.

    To be called in the transaction that creates them. Raises TooManyRequests.
    """
    most = service.limits.max_tasks
    if not most:
        return
    await services.lock(conn, service.id)
    if await task.count(conn, service.id, most) + more > most:
        raise TooManyRequests(
            f"this service may have {most} tasks (max_tasks); delete some first",
            retry_after=TASKS_RETRY_S,
        )


async def take_runs(conn: Conn, service: Service, n: int = 1) -> None:
    """Take so many runs out of this minute's; those of triggers are not counted.

    Raises TooManyRequests that says when there will be enough.
    """
    most = service.limits.max_runs_per_minute
    if not most or not n:
        return
    if n > most:
        raise TooManyRequests(
            f"{n} runs at once are more than the {most} a minute that this service may make "
            "(max_runs_per_minute)",
            retry_after=60,
        )
    values = {"service_id": service.id, "rate": most / 60, "n": float(n), "most": float(most)}
    if (await conn.execute(TAKE, values)).first() is None:
        level = await _level(conn, service.id, most)
        raise TooManyRequests(
            f"this service may make {most} runs a minute (max_runs_per_minute)",
            retry_after=max(1, math.ceil((level + n - most) * 60 / most)),
        )


async def _level(conn: Conn, service_id: UUID, most: int) -> float:
    values = {"service_id": service_id, "rate": most / 60}
    return float((await conn.execute(READ, values)).scalar_one_or_none() or 0.0)


def check_kept(service: Service, found: int, more: int = 1) -> None:
    """Let no service keep so many bytes more, where it keeps `found`. Raises TooManyRequests."""
    most = service.limits.max_kept_bytes
    if most and found + more > most:
        raise TooManyRequests(too_much(found, most), retry_after=KEPT_RETRY_S)


def too_much(found: int, most: int) -> str:
    """Say that a service keeps too much, and what to do."""
    return (
        f"this service keeps {found:,} bytes of specs and answers, and may keep {most:,} "
        "(max_kept_bytes); delete specs, or wait until answers are older than "
        "history.retention_days, or have more allowed"
    )


async def check_in_flight(conn: Conn, service: Service) -> None:
    """Start no run by hand while so many of the service's are under way.

    To be called in the transaction that makes it. Raises TooManyRequests.
    """
    most = service.limits.max_in_flight
    if not most:
        return
    await services.lock(conn, service.id)
    now = utc(await clock.database_ms(conn))
    if await lines.under_way(conn, service.id, now, most) >= most:
        raise TooManyRequests(
            f"{most} runs of this service are under way (max_in_flight); wait until one ends",
            retry_after=IN_FLIGHT_RETRY_S,
        )


class Usage(msgspec.Struct):
    """What a service uses at the moment; tasks and runs under way are counted to 10,000."""

    tasks: int
    runs_per_minute: int
    """What of the last minute's runs still counts; 0 where nothing limits them."""
    in_flight: int
    kept_bytes: int
    """Of specs and answers, as counted a minute ago at most."""


async def usage(conn: Conn, service: Service) -> Usage:
    """Return what a service uses, to be read beside its limits."""
    most = service.limits.max_runs_per_minute
    level = await _level(conn, service.id, most) if most else 0.0
    now = utc(await clock.database_ms(conn))
    return Usage(
        tasks=await task.count(conn, service.id, COUNT_MOST),
        runs_per_minute=math.ceil(level),
        in_flight=await lines.under_way(conn, service.id, now, COUNT_MOST),
        kept_bytes=service.kept_bytes,
    )
