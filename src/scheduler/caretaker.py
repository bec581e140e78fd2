"""The caretaker: hears each second whether the installation is paused, and sees to its secrets."""

import asyncio
from collections.abc import Callable

import structlog

from scheduler import installation
from scheduler.db import Database
from scheduler.installation import Installation, Pause
from scheduler.replicas import Membership
from scheduler.resealing import Sealing
from scheduler.sealing import short

log = structlog.get_logger()

WHO = "key"
QUIET_S = 30.0
"""How long nobody older has been seen before what is open is sealed: others may not know yet."""


class Caretaker:
    """One replica's. `on_pause(reason)` is called when a pause begins, with None when it ends.

    `halt(who, sentence)` where secrets are sealed with another key than this process has, with None
    when they are not any more.
    """

    def __init__(
        self,
        database: Database,
        membership: Membership,
        on_pause: Callable[[str | None], None],
        halt: Callable[[str, str | None], None] = lambda _who, _why: None,
    ) -> None:
        self.pause: Pause | None = None
        self.due = asyncio.Event()
        """Set it to seal now what is stored open; it is, once, at the start."""
        self.due.set()
        self._database = database
        self._membership = membership
        self._on_pause = on_pause
        self._halt = halt
        self._strange: str | None = None
        """The key of somebody else that is the database's now."""
        self._sealing = Sealing(database)
        self._sealed = False
        self._quiet_since: float | None = None
        self._seen_older = False

    async def look(self, *, anew: bool = False) -> None:
        """Read what the installation says now.

        `anew` where the database was away: another one may stand in its place. A copy that does
        is paused, as at a start.
        """
        database = self._database
        if anew:
            database.place = await installation.place(database)
        async with database.auto.connect() as conn:
            found = await installation.read(conn)
            self._heed_key(found)
            vault, older = database.vault, self._membership.older
            vault.sealing = not older and vault.fingerprint == found.fingerprint
            self._seen_older = self._seen_older or older
            self._sealed = found.sealed_at is not None and vault.sealing
            if not vault.sealing and found.sealed_at is not None:
                await installation.note_sealed(conn, sealed=False)  # what is written now is open
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

    def _heed_key(self, found: Installation) -> None:
        """Start nothing where this process cannot open what is sealed: it slept through a reset."""
        mine, theirs = self._database.vault.fingerprint, found.fingerprint
        strange = theirs if theirs != mine else None
        if strange == self._strange:
            return
        self._strange = strange
        if strange is None:
            self._halt(WHO, None)
            return
        why = (
            f"secrets in the database are sealed with the key {short(strange)} now, and this "
            f"process has {short(mine) if mine else 'none'}: start it anew, with that key"
        )
        log.error("another key seals in the database; nothing more is started", why=why)
        self._halt(WHO, why)

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
