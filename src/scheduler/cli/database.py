"""How the commands that work on the installation come to its database."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import click

from scheduler import home, migrate, opening
from scheduler.config import Settings
from scheduler.db import Database
from scheduler.embedded import EmbeddedPostgres
from scheduler.errors import StartupError

T = TypeVar("T")


def with_url(settings: Settings, work: Callable[[str], Coroutine[Any, Any, T]]) -> T:
    """Do `work(url)` on the database in use; an embedded one is joined, or started meanwhile."""
    if settings.database.url:
        return asyncio.run(work(settings.database.url))
    base = home.data_dir(settings)
    running = EmbeddedPostgres.join(base)
    if running is not None:
        return asyncio.run(work(running))
    postgres = EmbeddedPostgres(base)
    postgres.start()
    try:
        return asyncio.run(work(postgres.url))
    finally:
        postgres.stop()


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
            await migrate.up(settings.database.listen_url or url)
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

    return with_url(settings, on)
