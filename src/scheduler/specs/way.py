"""The way of calls to the database: a part of the machine's connections, and never all of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scheduler.db import Conn, Database
from scheduler.sealing import Vault

AT_ONCE = 2
"""Connections; the others are for claims, settling, and the beat."""


class Way:
    """Connections for single statements, so many at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turns = asyncio.Semaphore(AT_ONCE)

    @property
    def vault(self) -> Vault:
        """Return what seals secrets in the database."""
        return self._database.vault

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Conn]:
        """Open a connection without a transaction. Raises what `db.is_away` knows."""
        async with self._turns, self._database.auto.connect() as conn:
            yield conn
