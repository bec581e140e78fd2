"""Bringing the schema up to date, and down again."""

import asyncio
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import asyncpg
import msgspec
import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy import Connection, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from scheduler import db
from scheduler.errors import StartupError

LOCK = 0x5C4ED01E
"""The advisory lock under which one replica at a time migrates."""
TRY = text("SELECT pg_try_advisory_xact_lock(:key)")
AGAIN_S = 0.1
PATIENT = """
SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true),
       set_config('idle_in_transaction_session_timeout', '0', true)
"""


RUNS_WITH = text("SELECT runs_with FROM installation")

log = structlog.get_logger()


class Status(msgspec.Struct, frozen=True):
    """Where a database stands: the revision it has, and the newest this program knows."""

    current: str | None
    head: str
    runs_with: str | None = None
    """Where a newer version has migrated: the oldest revision whose program still runs on it."""

    @property
    def is_current(self) -> bool:
        """Say whether there is nothing to do."""
        return self.current == self.head

    @property
    def is_newer(self) -> bool:
        """Say whether a newer version has migrated, on whose schema this program still runs."""
        return self.runs_with is not None and self.head >= self.runs_with

    @property
    def fits(self) -> bool:
        """Say whether this program runs on the schema as it stands."""
        return self.is_current or self.is_newer


def scripts() -> Path:
    """Return the folder of the migrations: beside the package when installed, else the tree's."""
    installed = Path(__file__).parent / "_migrations"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "migrations"


async def up(url: str) -> Status:
    """Migrate to the newest revision.

    Where a newer version has migrated, and this one may still run on that, it changes nothing;
    else it raises StartupError.
    """
    return await _locked(url, lambda c: command.upgrade(_config(c), "head"), newer=True)


async def down(url: str, revision: str) -> Status:
    """Migrate back to `revision`; `base` is the empty database. Raises StartupError."""
    try:
        return await _locked(url, lambda c: command.downgrade(_config(c, revision), revision))
    except CommandError as e:
        raise StartupError(f"cannot migrate down to {revision}: {e}") from None


async def lost(url: str, revision: str) -> dict[str, int]:
    """Return what `down` to a revision drops for good: tables and columns, and how many rows of it.

    Not what is counted again of the rest. Nothing where there is no such way: `down` refuses it.
    Raises StartupError.
    """
    engine = _engine(url)
    async with engine.connect() as conn:
        return await conn.run_sync(lambda c: _lost(c, revision))


DROPPED = re.compile(r"^(?:DROP TABLE (\w+)|DELETE FROM (\w+) (WHERE .*?));$", re.MULTILINE)
ALTERED = re.compile(r"^ALTER TABLE (\w+)\s([^;]*);$", re.MULTILINE)


def _lost(connection: Connection, revision: str) -> dict[str, int]:
    found: dict[str, int] = {}
    refuse_newer(status_on(connection))
    current = MigrationContext.configure(connection).get_current_revision()
    directory = ScriptDirectory.from_config(_config(connection))
    try:
        passed = list(directory.iterate_revisions(current, revision, select_for_downgrade=True))
    except (CommandError, RevisionError):
        return {}  # there is no such way, as `down` says
    for each in passed:
        again = getattr(each.module, "COUNTED_AGAIN", ())
        for table, of, which in DROPPED.findall(each.module.DOWN):
            if table not in again:
                rows = f"SELECT count(*) FROM {table or of} {which}"
                found[table or of] = connection.execute(text(rows)).scalar_one()
        for table, columns in ALTERED.findall(each.module.DOWN):
            for column in re.findall(r"DROP COLUMN (\w+)", columns):
                if f"{table}.{column}" not in again:
                    rows = f"SELECT count({column}) FROM {table}"
                    found[f"{table}.{column}"] = connection.execute(text(rows)).scalar_one()
    return {table: count for table, count in found.items() if count}


async def status(url: str) -> Status:
    """Return where the database stands; changes nothing."""
    engine = _engine(url)
    async with engine.connect() as conn:
        return await conn.run_sync(status_on)


def _engine(url: str) -> AsyncEngine:
    """Return an engine that leaves nothing behind on a connection: a pooler may be in between."""

    async def create() -> asyncpg.Connection:
        return await asyncpg.connect(db.plain(url), timeout=10, statement_cache_size=0)

    made = create_async_engine(
        "postgresql+asyncpg://",
        connect_args={
            "async_creator_fn": create,
            "prepared_statement_cache_size": 0,
            **db.NAMELESS,
        },
        poolclass=NullPool,
    )
    event.listen(made.sync_engine, "begin", _patient)
    return made


def _patient(conn: Connection) -> None:
    """Let DDL wait and scan, and the lock's transaction rest, whatever the role's settings are."""
    conn.exec_driver_sql(PATIENT)


async def _locked(url: str, change: Callable[[Connection], None], *, newer: bool = False) -> Status:
    # The lock is a transaction's, on a connection beside: a session's would not outlive a
    # transaction behind a pooler, and each migration is one.
    engine = _engine(url)
    async with engine.connect() as guard, engine.connect() as conn:
        # Who waits gives its place up: behind a pooler there may be few.
        while not (await guard.execute(TRY, {"key": LOCK})).scalar_one():
            await guard.rollback()
            await asyncio.sleep(AGAIN_S)
        before = await conn.run_sync(status_on)
        if newer and before.is_newer:
            log.warning("a newer version has migrated the database", at=before.current)
            return before
        refuse_newer(before)
        await conn.run_sync(change)
        await conn.commit()
        return await conn.run_sync(status_on)


def refuse_newer(status: Status) -> None:
    """Raise StartupError where a version that this program does not know has migrated."""
    if status.current is not None and status.current not in known():
        raise StartupError(
            f"the database is at revision {status.current}, which this version does not know; "
            "start the newer version, or migrate down with it first"
        )


def known() -> frozenset[str]:
    """Return every revision that this program can migrate from."""
    return _revisions(scripts()).known


def head() -> str:
    """Return the newest revision that this program knows."""
    return _revisions(scripts()).head


class Revisions(NamedTuple):
    """What a folder of migrations holds: every revision, and the newest."""

    known: frozenset[str]
    head: str


@lru_cache(8)
def _revisions(folder: Path) -> Revisions:
    """Read a folder once: `/ready` asks each time, in the loop that fires."""
    config = Config()
    config.set_main_option("script_location", str(folder))
    directory = ScriptDirectory.from_config(config)
    head = directory.get_current_head()
    assert head is not None  # noqa: S101  (there is always a first migration)
    return Revisions(frozenset(each.revision for each in directory.walk_revisions()), head)


def _config(connection: Connection, to: str = "head") -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts()))
    config.attributes |= {"connection": connection, "to": to}
    return config


def status_on(connection: Connection) -> Status:
    """Return where the database behind an open connection stands."""
    current = MigrationContext.configure(connection).get_current_revision()
    head = _revisions(scripts()).head
    if current is None or current <= head or current in known():
        return Status(current, head)
    there = connection.execute(text("SELECT to_regclass('installation')")).scalar_one()
    runs_with = connection.execute(RUNS_WITH).scalar() if there else None
    return Status(current, head, runs_with)
