"""What somebody should look at, of what the page about the installation has read."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Literal

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from scheduler import catalog, migrate, partitions
from scheduler.catalog import Catalog
from scheduler.db import utc
from scheduler.engine import Engine
from scheduler.replicas import Seen
from scheduler.usage import Queue

LATE_MS = 60_000
MANY_DUE = 1000
CLOCK_MS = 100.0
"""An error of the clock from which on a run may be that late."""


class Note(msgspec.Struct, frozen=True):
    """Something that is not as it should be; `todo` is what to do about it."""

    state: Literal["warn", "fail"]
    said: str
    todo: str
    inside: bool = False
    """Only for an admin: it says something of the machine, or of what others do."""


def notes(engine: Engine, seen: list[Seen], about: Catalog, queue: Queue, now: int) -> list[Note]:
    """Return what is not as it should be, at `now` (ms); nothing where all is well."""
    return [
        *_replicas(seen),
        *_halts(engine),
        *_database(engine, about, now),
        *_queue(queue, now),
        *_clock(engine),
    ]


def _replicas(seen: list[Seen]) -> Iterator[Note]:
    living = [each for each in seen if each.beats]
    dead = len(seen) - len(living)
    if not living:
        yield Note("fail", "No replica beats: nothing is run.", "Start `scheduler serve`.")
    if dead:
        said = f"{dead} of {len(seen)} replicas have not beaten for a while."
        yield Note("warn", said, "They died, and others take their runs; look why.")
    versions = sorted({each.version for each in living})
    if len(versions) > 1:
        said = f"Replicas are of different versions: {', '.join(versions)}."
        yield Note("warn", said, "Bring all to one, once the new one is trusted.")


def _halts(engine: Engine) -> Iterator[Note]:
    if engine.paused is not None:
        said = f"Paused: {engine.paused}. Nothing is run."
        yield Note("warn", said, "An admin, or `scheduler resume`, ends that.")
    for why in (why for who, why in engine.dispatcher.halted.items() if who != "pause"):
        yield Note("fail", "This replica starts nothing.", "An admin sees why.")
        yield Note("fail", f"Halted: {why}", "", inside=True)


def _database(engine: Engine, about: Catalog, now: int) -> Iterator[Note]:
    head = migrate.head()
    if about.revision != head:
        said = f"The schema is at {about.revision}, this version knows {head}."
        yield Note("warn", said, "Bring all replicas to the newer version.")
    there = {each.name for each in about.weeks}
    week = partitions.week_of(utc(now))
    for ahead in range(2):
        name = partitions.partition_of(week + timedelta(weeks=ahead))
        if name not in there:
            said = f"History has no table {name}: what ends in that week cannot be kept."
            yield Note("warn" if ahead else "fail", said, "A replica's log says why.", inside=True)
    for name in catalog.SETTINGS:
        if about.settings[name] == "off":
            todo = "A crash of the machine may lose or damage what is there."
            todo = "The queue's table grows; turn it on." if name == "autovacuum" else todo
            yield Note("warn", f"Postgres has {name} off.", todo, inside=True)
    used, most = pool(engine.database.api)
    if used >= most:
        said = f"All {most} connections of the API are in use."
        yield Note("warn", said, "Raise DATABASE_API_POOL, or add a replica.", inside=True)


def _queue(queue: Queue, now: int) -> Iterator[Note]:
    late = queue.since is not None and now - queue.since > LATE_MS
    if late and queue.due > MANY_DUE:
        said = f"{queue.due:,} runs are due, the oldest for over a minute."
        yield Note("warn", said, "Add a replica, or see which target is slow.")


def _clock(engine: Engine) -> Iterator[Note]:
    if engine.clock.error_ms > CLOCK_MS:
        said = f"The database's time is known to {engine.clock.error_ms:.0f} ms only."
        yield Note("warn", said, "Look at the network to the database.")


def pool(of: AsyncEngine) -> tuple[int, int]:
    """Return how many connections of a pool are in use, and how many it may have."""
    return of.pool.checkedout(), of.pool.size()  # type: ignore[attr-defined]
