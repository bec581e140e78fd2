"""The caretaker: hears each second whether the installation is paused, and sees to its secrets."""

import asyncio
from collections.abc import Callable

import structlog

from scheduler import installation
from scheduler.db import Database
from scheduler.installation import Installation, Pause
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
        self._seen_older = False

    async def look(self, *, anew: bool = False) -> None:
        """Read what the installation says now.

        `anew` where the database was away: another one may stand in its place. A copy that does
        is paused, as at a start.
        """
        database, older = self._database, self._membership.older
        if anew:
            database.place = await installation.place(database)
        async with database.auto.connect() as conn:
            found = await installation.read(conn)
            database.vault.sealing = not older
            self._seen_older = self._seen_older or older
            self._sealed = found.sealed_at is not None and not older
            if older and found.sealed_at is not None:
                await installation.note_sealed(conn, sealed=False)  # what it writes is open
        if found.pause is None and installation.copied(found, database.place):
            found = await self._found_copied(found)
        before, self.pause = self.pause, found.pause
        why = None if found.pause is None else found.pause.reason
        if why == (None if before is None else before.reason):
            return
        self._on_pause(why)
        if why is not None:
            log.warning("paused: nothing is run until `scheduler resume`", why=why)
        else:
            log.warning("resumed: what was missed is judged, and runs are claimed again")

    async def _found_copied(self, found: Installation) -> Installation:
        """Pause an installation that has come into this database from elsewhere."""
        database = self._database
        database.place = await installation.place(database)  # what is known may be what is old
        reason = installation.copied(found, database.place)
        async with database.auto.connect() as conn:
            if reason is not None and found.place is not None:
                await installation.pause_copy(conn, found.place, reason)
            return await installation.read(conn)

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
            # An older one that was seen may only have hung: it comes back, under another name.
            at_once = self._membership.alone and not self._seen_older
            self._quiet_since = float("-inf") if at_once else now
        return now - self._quiet_since >= QUIET_S
