"""How the commands that work on the installation come to its database."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from scheduler import migrate, server
from scheduler.config import Settings
from scheduler.db import Database
from scheduler.embedded import EmbeddedPostgres
from scheduler.errors import StartupError

T = TypeVar("T")


def with_url(settings: Settings, work: Callable[[str], Coroutine[Any, Any, T]]) -> T:
    """Do `work(url)` on the database in use; an embedded one is joined, or started meanwhile."""
    if settings.database.url:
        return asyncio.run(work(settings.database.url))
    base = server.data_dir(settings)
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
    settings: Settings, work: Callable[[Database], Awaitable[T]], *, make: bool = False
) -> T:
    """Do `work(database)` on a schema that is current, or with `make` is brought there.

    Raises StartupError where it is not current.
    """

    async def on(url: str) -> T:
        if make:
            await migrate.up(settings.database.listen_url or url)
        status = await migrate.status(url)
        if not status.is_current:
            raise StartupError(
                f"the database's schema is at {status.current or 'nothing'}, this version needs "
                f"{status.head}; run `scheduler migrate up`"
            )
        database = Database(url, settings.database)
        try:
            return await work(database)
        finally:
            await database.close()

    return with_url(settings, on)
