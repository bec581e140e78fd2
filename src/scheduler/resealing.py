"""Resealing: gives what is stored of secrets another form, a service and a piece at a time.

In the background it seals what an older version wrote; by the operator's word it opens all again,
or gives up what is sealed with a key that is lost.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text

from scheduler import installation, services, signing
from scheduler.actions import Command, Http
from scheduler.clock import Slice
from scheduler.db import Conn, Database
from scheduler.errors import StartupError
from scheduler.sealing import (
    LOST,
    SIGNING,
    SealError,
    Vault,
    header,
    is_sealed,
    is_sealed_bytes,
    variable,
)
from scheduler.service import Service

PIECE = 500
START = (datetime.min.replace(tzinfo=UTC), UUID(int=0))

VALUES = text("""
SELECT created_at, key, bucket, action ->> 'kind' AS kind, action ->> 'secret_headers' AS named,
       CASE action ->> 'kind' WHEN 'command' THEN action ->> 'env'
                              ELSE action ->> 'header' END AS stored
FROM task
WHERE service_id = :service_id AND (created_at, key) > (:created_at, :after)
ORDER BY created_at, key LIMIT :most
""")

# What an edit, or the planner, holds is left for the next walk: nobody waits for this in a ring.
REPLACE = text("""
UPDATE task SET action = jsonb_set(action, ARRAY[u.field], CAST(u.after AS jsonb))
FROM unnest(CAST(:keys AS uuid[]), CAST(:buckets AS smallint[]), CAST(:fields AS text[]),
            CAST(:before AS text[]), CAST(:after AS text[]))
    AS u (key, bucket, field, before, after)
WHERE task.key = u.key AND task.bucket = u.bucket AND task.service_id = :service_id
    AND task.action -> u.field = CAST(u.before AS jsonb)
    AND task.key = ANY(ARRAY(SELECT key FROM task
        WHERE key = ANY(:keys) AND service_id = :service_id FOR UPDATE SKIP LOCKED))
""")

Change = Callable[[UUID, str, str], str]
"""(service, what it is, stored value) -> the value to be stored; of those that are secret."""
Place = tuple[datetime, UUID]


class Step(msgspec.Struct):
    """What one piece came to."""

    after: Place | None
    """Where the next piece begins; None at the end."""
    changed: int = 0
    """Tasks."""
    left: int = 0
    """Tasks that somebody held."""


async def piece(conn: Conn, service_id: UUID, after: Place, change: Change) -> Step:
    """Change the secret headers and variables of some of a service's tasks."""
    values = {"service_id": service_id, "created_at": after[0], "after": after[1], "most": PIECE}
    rows = (await conn.execute(VALUES, values)).all()
    step = Step((rows[-1].created_at, rows[-1].key) if len(rows) == PIECE else None)
    changed, turn = [], Slice()
    for row in rows:
        new = _changed(service_id, row, change)
        if new is not None:
            changed.append((row, new))
        await turn.give_way()
    if changed:
        values = {
            "service_id": service_id,
            "keys": [row.key for row, _ in changed],
            "buckets": [row.bucket for row, _ in changed],
            "fields": ["env" if row.kind == "command" else "header" for row, _ in changed],
            "before": [row.stored for row, _ in changed],
            "after": [new for _, new in changed],
        }
        step.changed = (await conn.execute(REPLACE, values)).rowcount
        step.left = len(changed) - step.changed
    return step


def _changed(service_id: UUID, row: Any, change: Change) -> str | None:
    """Return a task's headers, or variables, as they are to be stored; None where they are so."""
    if row.stored is None:
        return None
    what: Callable[[str], str]
    try:
        before = msgspec.json.decode(row.stored, type=dict[str, str])
        if row.kind == "command":
            secret, what = Command("", before).secrets(before), variable
        else:
            named = msgspec.json.decode(row.named or "[]", type=list[str])
            secret, what = Http("", header=before, secret_headers=named).secrets(before), header
    except (msgspec.DecodeError, RecursionError):  # damaged by hand: it is never sent
        return None
    after = {
        name: change(service_id, what(name), value) if name in secret or is_sealed(value) else value
        for name, value in before.items()
    }
    return None if after == before else msgspec.json.encode(after).decode()


# In the background --------------------------------------------------------------------------------

LOCK = text("SELECT pg_try_advisory_xact_lock(hashtext('scheduler reseal'))")


class Sealing:
    """Walks every service, and seals what is stored open; a few pieces a step."""

    PIECES = 20

    def __init__(self, database: Database) -> None:
        self._database = database
        self._services: list[UUID] | None = None
        self._after: Place = START
        self._left = 0

    async def step(self) -> bool:
        """Seal some; return True once all is sealed, which is written down then."""
        for _ in range(self.PIECES):
            async with self._database.engine.begin() as conn:
                if not (await conn.execute(LOCK)).scalar_one():
                    return False  # another replica is at it
                if await self._piece(conn):
                    return True
        return False

    async def _piece(self, conn: Conn) -> bool:
        if self._services is None:
            self._services, self._after, self._left = await services.ids(conn), START, 0
        if not self._services:
            done, self._services = not self._left, None
            if done:
                await installation.note_sealed(conn, sealed=True)
            return done
        service = self._services[-1]
        if self._after == START:
            self._left += not await seal_signing(conn, self._database.vault, service)
        step = await piece(conn, service, self._after, sealer(self._database.vault))
        self._left += step.left
        self._after = step.after or START
        if step.after is None:
            self._services.pop()
        return False


def sealer(vault: Vault) -> Change:
    """Return the change that seals."""
    return lambda service, what, value: vault.seal(value, service, what)


async def seal_signing(conn: Conn, vault: Vault, service_id: UUID) -> bool:
    """Seal a service's signing secret; False where it changed meanwhile."""
    before = (await signing.stored(conn, [service_id])).get(service_id)
    if before is None or is_sealed_bytes(before):
        return True
    after = vault.seal_bytes(before, service_id, SIGNING)
    return await signing.replace(conn, service_id, before, after)


# By the operator's word, with every replica stopped -----------------------------------------------


class Given(msgspec.Struct):
    """What was given up, or opened, of one service."""

    service: str
    tasks: int
    lost: int = 0
    """What did not open with the key: headers, variables, and the signing secret."""


async def unseal(conn: Conn, vault: Vault) -> list[Given]:
    """Store everything open again, and forget the key. Raises StartupError.

    What does not open is marked as lost; a signing secret that does not is made anew.
    """
    lost = 0

    def opened(service: UUID, what: str, value: str) -> str:
        nonlocal lost
        try:
            return vault.open(value, service, what)
        except SealError:
            lost += 1
            return LOST

    found = []
    for service in await services.list_all(conn):
        lost = 0
        tasks = await _whole(conn, service, opened)
        before = (await signing.stored(conn, [service.id]))[service.id]
        try:
            after = vault.open_bytes(before, service.id, SIGNING)
            await signing.replace(conn, service.id, before, after)
        except SealError:
            lost += 1
            await signing.rotate_secret(conn, Vault(), service.id)
        found.append(Given(service.name, tasks, lost))
    await installation.note_sealed(conn, sealed=False)
    await installation.adopt(conn, None)
    return found


async def give_up(conn: Conn, vault: Vault) -> list[Given]:
    """Mark what is sealed as lost, make new signing secrets, and adopt the vault's key.

    Raises StartupError.
    """

    def lost(_service: UUID, _what: str, value: str) -> str:
        return LOST if is_sealed(value) else value

    found = []
    for service in await services.list_all(conn):
        found.append(Given(service.name, await _whole(conn, service, lost)))
        await signing.rotate_secret(conn, vault, service.id)
    await installation.note_sealed(conn, sealed=False)
    await installation.adopt(conn, vault.fingerprint)
    return found


async def _whole(conn: Conn, service: Service, change: Change) -> int:
    """Change all of a service's tasks; return how many were. Raises StartupError."""
    tasks, after = 0, START
    while True:
        step = await piece(conn, service.id, after, change)
        if step.left:
            raise StartupError(
                f"{step.left} tasks of the service {service.name} are held by another connection "
                "to the database; end it, and run this again: nothing was changed"
            )
        tasks += step.changed
        if step.after is None:
            return tasks
        after = step.after
