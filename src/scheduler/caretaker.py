"""The caretaker: hears each second whether the installation is paused, and sees to its secrets."""

import asyncio
from collections.abc import Callable

import structlog

from scheduler import installation
from scheduler.db import Database
from scheduler.installation import Pause
from scheduler.replicas import Membership
from scheduler.resealing import Sealing

log = structlog.get_logger()

QUIET_S = 30.0
"""How long nobody older has been seen before what is open is sealed: others may not know yet."""


class Caretaker:
    """One replica's. `on_pause(reason)` is called when a pause begins, with None when it ends."""

    def __init__(
        self, database: Database, membership: Membership, on_pause: Callable[[str | None], None]
    ) -> None:
        self.pause: Pause | None = None
        self.due = asyncio.Event()
        """Set it to seal now what is stored open; it is, once, at the start."""
        self.due.set()
        self._database = database
        self._membership = membership
        self._on_pause = on_pause
        self._sealing = Sealing(database)
        self._sealed = False
        self._quiet_since: float | None = None

    async def look(self) -> None:
        """Read what the installation says now."""
        async with self._database.auto.connect() as conn:
            found = await installation.read(conn)
            older = self._membership.older
            self._database.vault.sealing = not older
            self._sealed = found.sealed_at is not None and not older
            if older and found.sealed_at is not None:
                await installation.note_sealed(conn, sealed=False)  # what it writes is open
        before, self.pause = self.pause, found.pause
        why = None if found.pause is None else found.pause.reason
        if why == (None if before is None else before.reason):
            return
        self._on_pause(why)
        if why is not None:
            log.warning("paused: nothing is run until `scheduler resume`", why=why)
        else:
            log.warning("resumed: what was missed is judged, and runs are claimed again")

    async def seal(self) -> None:
        """Seal some of what is stored open; nothing to do where all is sealed."""
        if self._sealed or not self._database.vault.seals or not self._is_quiet():
            return
        self._sealed = await self._sealing.step()

    def _is_quiet(self) -> bool:
        """Say whether nobody can be about to write what is open."""
        now = self._membership.monotonic()
        if self._membership.older:
            self._quiet_since = None
            return False
        if self._quiet_since is None:
            self._quiet_since = float("-inf") if self._membership.alone else now
        return now - self._quiet_since >= QUIET_S
