"""How the commands that work on the installation come to its database."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import click
from sqlalchemy.exc import DBAPIError

from scheduler import db, home, logs, migrate, opening, reaching
from scheduler.config import Settings, secrets
from scheduler.db import Database
from scheduler.doctor.finding import words
from scheduler.embedded import EmbeddedPostgres
from scheduler.errors import StartupError

T = TypeVar("T")

CLOSER = "`scheduler doctor` looks closer"


def with_url(
    settings: Settings, work: Callable[[str], Coroutine[Any, Any, T]], *, make: bool = False
) -> T:
    """Do `work(url)` on the database in use; an embedded one is joined, or started meanwhile.

    Only with `make` an embedded one that is not there is made: a data directory may be mistyped.
    Raises StartupError where the database cannot be had, or refuses the work.
    """
    logs.configure(settings.log, known=secrets(settings))
    opening.judge(settings)
    if settings.database.url:
        return asyncio.run(_on(settings, settings.database.url, work))
    base = home.data_dir(settings)
    running = EmbeddedPostgres.join(base)
    if running is not None:
        return asyncio.run(_on(settings, running, work))
    if not make:
        _there(base)
    postgres = EmbeddedPostgres(base)
    postgres.start()
    try:
        return asyncio.run(_on(settings, postgres.url, work))
    finally:
        postgres.stop()


def _there(base: Path) -> None:
    """Raise StartupError where no database is."""
    if not (base / "postgres" / "data" / "PG_VERSION").exists():
        raise StartupError(
            f"there is no database in {base} yet: `scheduler serve` makes one; if yours is "
            "elsewhere, say where with DATA_DIR or DATABASE_URL"
        )


async def _on(settings: Settings, url: str, work: Callable[[str], Awaitable[T]]) -> T:
    await _answers(url, "DATABASE_URL" if settings.database.url else "the data directory")
    try:
        return await work(url)
    except DBAPIError as e:
        if e.connection_invalidated or db.is_away(e):
            raise StartupError(f"the database went away ({words(e)}); {CLOSER}") from None
        if db.sqlstate(e) != asyncpg.InsufficientPrivilegeError.sqlstate:
            raise  # a mistake of ours
        raise StartupError(
            f"the database refuses this: {words(e)}; let the user of DATABASE_URL own the tables"
        ) from None


async def _answers(url: str, name: str) -> None:
    """Raise StartupError where a database cannot be reached; `name` is what leads to it."""
    try:
        conn = await asyncpg.connect(db.plain(url), timeout=10, statement_cache_size=0)
    except reaching.REFUSED as e:
        raise StartupError(f"the database refuses us: {words(e)}; check {name}") from None
    except (ValueError, asyncpg.InterfaceError) as e:
        raise StartupError(f"{name} cannot be read: {words(e)}") from None
    except (OSError, asyncpg.PostgresError) as e:
        if not db.is_away(e):
            raise StartupError(f"the database refuses us: {words(e)}; check {name}") from None
        at = ", ".join(f"{host}:{port}" for host, port in reaching.database_addresses(url))
        raise StartupError(
            f"the database{at and f' at {at}'} cannot be reached ({words(e)}): does it run, and "
            f"is {name} right? {CLOSER}"
        ) from None
    await conn.close(timeout=2)


def with_database(
    settings: Settings,
    work: Callable[[Database], Awaitable[T]],
    *,
    make: bool = False,
    unlock: bool = False,
) -> T:
    """Do `work(database)` on a schema that is current, or with `make` is brought there.

    With `unlock` it reads or writes secrets. Raises StartupError where the schema is not current,
    or the secrets key is missing or another one.
    """

    async def on(url: str) -> T:
        if make:
            await migrate.up(await reaching.direct(settings.database.listen_url, url))
        status = await migrate.status(url)
        if not status.fits:
            raise StartupError(
                f"the database's schema is at {status.current or 'nothing'}, this version needs "
                f"{status.head}; run `scheduler migrate up`"
            )
        database = Database(url, settings.database)
        try:
            if unlock:
                told = await opening.unlock(database, settings, home.data_dir(settings))
                if told is not None:
                    click.echo(told, err=True)
            return await work(database)
        finally:
            await database.close()

    return with_url(settings, on, make=make)
