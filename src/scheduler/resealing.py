"""Resealing: gives what is stored of secrets another form, a service and a piece at a time.

In the background it seals what an older version wrote; by the operator's word it opens all again,
or gives up what is sealed with a key that is lost.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import TextClause, text

from scheduler import installation, services, signing
from scheduler.actions import Command, Http, Operation
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
from scheduler.service import By, Service

PIECE = 500
BY = By("command line")
UNOPENED = "the secrets key that it was sealed with is given up"
START = (datetime.min.replace(tzinfo=UTC), UUID(int=0))

VALUES = text("""
SELECT created_at, key, bucket, action ->> 'kind' AS kind, action ->> 'secret_headers' AS named,
       CASE action ->> 'kind' WHEN 'command' THEN action ->> 'env'
                              WHEN 'operation' THEN action ->> 'headers'
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

SPEC_VALUES = text("""
SELECT created_at, key, bucket, 'call' AS kind, CAST(headers AS text) AS stored FROM spec
WHERE service_id = :service_id AND (created_at, key) > (:created_at, :after)
ORDER BY created_at, key LIMIT :most
""")
SPEC_REPLACE = text("""
UPDATE spec SET headers = CAST(u.after AS jsonb)
FROM unnest(CAST(:keys AS uuid[]), CAST(:buckets AS smallint[]), CAST(:before AS text[]),
            CAST(:after AS text[])) AS u (key, bucket, before, after)
WHERE spec.key = u.key AND spec.bucket = u.bucket AND spec.service_id = :service_id
    AND spec.headers = CAST(u.before AS jsonb)
    AND spec.key = ANY(ARRAY(SELECT key FROM spec
        WHERE key = ANY(:keys) AND service_id = :service_id FOR UPDATE SKIP LOCKED))
""")
PROCESS_VALUES = text("""
SELECT created_at, key, bucket, 'call' AS kind, CAST(headers AS text) AS stored FROM process
WHERE service_id = :service_id AND (created_at, key) > (:created_at, :after)
ORDER BY created_at, key LIMIT :most
""")
PROCESS_REPLACE = text("""
UPDATE process SET headers = CAST(u.after AS jsonb)
FROM unnest(CAST(:keys AS uuid[]), CAST(:buckets AS smallint[]), CAST(:before AS text[]),
            CAST(:after AS text[])) AS u (key, bucket, before, after)
WHERE process.key = u.key AND process.bucket = u.bucket AND process.service_id = :service_id
    AND process.headers = CAST(u.before AS jsonb)
    AND process.key = ANY(ARRAY(SELECT key FROM process
        WHERE key = ANY(:keys) AND service_id = :service_id FOR UPDATE SKIP LOCKED))
""")

ARCHIVE_VALUES = text("""
SELECT archived_at AS created_at, key, bucket, 'call' AS kind, content ->> 'headers' AS stored
FROM spec_archive
WHERE service_id = :service_id AND (archived_at, key) > (:created_at, :after)
ORDER BY archived_at, key LIMIT :most
""")
ARCHIVE_REPLACE = text("""
UPDATE spec_archive SET content = jsonb_set(content, '{headers}', CAST(u.after AS jsonb))
FROM unnest(CAST(:keys AS uuid[]), CAST(:buckets AS smallint[]), CAST(:before AS text[]),
            CAST(:after AS text[])) AS u (key, bucket, before, after)
WHERE spec_archive.key = u.key AND spec_archive.bucket = u.bucket
    AND spec_archive.service_id = :service_id
    AND spec_archive.content -> 'headers' = CAST(u.before AS jsonb)
    AND spec_archive.key = ANY(ARRAY(SELECT key FROM spec_archive
        WHERE key = ANY(:keys) AND service_id = :service_id FOR UPDATE SKIP LOCKED))
""")

UNDO_VALUES = text("""
SELECT created_at, key, bucket, kind, named, CASE kind WHEN 'command' THEN action ->> 'env'
           WHEN 'operation' THEN action ->> 'headers' ELSE action ->> 'header' END AS stored
FROM (SELECT at AS created_at, key, bucket, before -> 'task' -> 'action' AS action,
             before -> 'task' -> 'action' ->> 'kind' AS kind,
             before -> 'task' -> 'action' ->> 'secret_headers' AS named
      FROM undo WHERE service_id = :service_id AND (at, key) > (:created_at, :after)
      ORDER BY at, key LIMIT :most) AS u
ORDER BY created_at, key
""")
UNDO_REPLACE = text("""
UPDATE undo SET before = jsonb_set(undo.before, ARRAY['task', 'action', u.field],
                                   CAST(u.after AS jsonb))
FROM unnest(CAST(:keys AS uuid[]), CAST(:buckets AS smallint[]), CAST(:fields AS text[]),
            CAST(:before AS text[]), CAST(:after AS text[]))
    AS u (key, bucket, field, before, after)
WHERE undo.key = u.key AND undo.bucket = u.bucket AND undo.service_id = :service_id
    AND undo.before -> 'task' -> 'action' -> u.field = CAST(u.before AS jsonb)
    AND undo.key = ANY(ARRAY(SELECT key FROM undo
        WHERE key = ANY(:keys) AND service_id = :service_id FOR UPDATE SKIP LOCKED))
""")

FIELDS = {"command": "env", "operation": "headers"}
"""Where a kind of action has its secrets; the others have them in `header`."""


class Kept(msgspec.Struct, frozen=True):
    """A table with secrets in it."""

    name: str
    values: TextClause
    replace: TextClause


TASKS = Kept("tasks", VALUES, REPLACE)
SPECS = Kept("specs", SPEC_VALUES, SPEC_REPLACE)
PROCESSES = Kept("processes", PROCESS_VALUES, PROCESS_REPLACE)
ARCHIVED = Kept("archived specs", ARCHIVE_VALUES, ARCHIVE_REPLACE)
UNDO = Kept("deleted tasks", UNDO_VALUES, UNDO_REPLACE)
KEPT = (TASKS, SPECS, PROCESSES, ARCHIVED, UNDO)

Change = Callable[[UUID, str, str], str]
"""(service, what it is, stored value) -> the value to be stored; of those that are secret."""
Place = tuple[datetime, UUID]


class Step(msgspec.Struct):
    """What one piece came to."""

    after: Place | None
    """Where the next piece begins; None at the end."""
    changed: int = 0
    """Rows."""
    left: int = 0
    """Rows that somebody held."""


async def piece(
    conn: Conn, service_id: UUID, after: Place, change: Change, kept: Kept = TASKS
) -> Step:
    """Change the secret headers and variables of some of a service's rows."""
    values = {"service_id": service_id, "created_at": after[0], "after": after[1], "most": PIECE}
    rows = (await conn.execute(kept.values, values)).all()
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
            "before": [row.stored for row, _ in changed],
            "after": [new for _, new in changed],
        }
        if kept in (TASKS, UNDO):
            values["fields"] = [FIELDS.get(row.kind, "header") for row, _ in changed]
        step.changed = (await conn.execute(kept.replace, values)).rowcount
        step.left = len(changed) - step.changed
    return step


def _changed(service_id: UUID, row: Any, change: Change) -> str | None:
    """Return a row's headers, or variables, as they are to be stored; None where they are so."""
    if row.stored is None:
        return None
    what = variable if row.kind == "command" else header
    try:
        before = msgspec.json.decode(row.stored, type=dict[str, str])
        secret = _secrets(row, before)
    except (msgspec.DecodeError, RecursionError):  # damaged by hand: it is never sent
        return None
    after = {
        name: change(service_id, what(name), value) if name in secret or is_sealed(value) else value
        for name, value in before.items()
    }
    return None if after == before else msgspec.json.encode(after).decode()


def _secrets(row: Any, names: dict[str, str]) -> set[str]:
    """Return those of a row's names whose values are sealed; of a spec, or a process, all are."""
    if row.kind == "call":
        return set(names)
    if row.kind == "command":
        return Command("", names).secrets(names)
    if row.kind == "operation":
        return Operation("", "").secrets(names)
    named = msgspec.json.decode(row.named or "[]", type=list[str])
    return Http("", header=names, secret_headers=named).secrets(names)


# In the background --------------------------------------------------------------------------------

LOCK = text("SELECT pg_try_advisory_xact_lock(hashtext('scheduler reseal'))")


class Sealing:
    """Walks every service, and seals what is stored open; a few pieces a step."""

    PIECES = 20

    def __init__(self, database: Database) -> None:
        self._database = database
        self._services: list[UUID] | None = None
        self._after: Place = START
        self._kept = list(KEPT)
        """What is left of the service that it is at, the last of them next."""
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
            self._kept = list(KEPT)
        if not self._services:
            done, self._services = not self._left, None
            if done:
                await installation.note_sealed(conn, sealed=True)
            return done
        service = self._services[-1]
        vault = self._database.vault
        if self._after == START and len(self._kept) == len(KEPT):
            self._left += not await seal_signing(conn, vault, service)
        step = await piece(conn, service, self._after, sealer(vault), self._kept[-1])
        self._left += step.left
        self._after = step.after or START
        if step.after is None:
            self._kept.pop()
        if not self._kept:
            self._kept = list(KEPT)
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
    changed: dict[str, int]
    """How many tasks, specs and so on, by that name."""
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
        changed = await _whole(conn, service, opened)
        before = (await signing.stored(conn, [service.id]))[service.id]
        try:
            after = vault.open_bytes(before, service.id, SIGNING)
            await signing.replace(conn, service.id, before, after)
        except SealError:
            lost += 1
            await signing.rotate_secret(conn, Vault(), service.id, BY, UNOPENED)
        found.append(Given(service.name, changed, lost))
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
        await signing.rotate_secret(conn, vault, service.id, BY, UNOPENED)
    await installation.note_sealed(conn, sealed=False)
    await installation.adopt(conn, vault.fingerprint)
    return found


async def _whole(conn: Conn, service: Service, change: Change) -> dict[str, int]:
    """Change everything of a service; return how many were, by name. Raises StartupError."""
    return {kept.name: await _all(conn, service, change, kept) for kept in KEPT}


async def _all(conn: Conn, service: Service, change: Change, kept: Kept) -> int:
    """Change all of a service's rows in a table; return how many were. Raises StartupError."""
    changed, after = 0, START
    while True:
        step = await piece(conn, service.id, after, change, kept)
        if step.left:
            raise StartupError(
                f"{step.left} {kept.name} of the service {service.name} are held by another "
                "connection to the database; end it, and run this again: nothing was changed"
            )
        changed += step.changed
        if step.after is None:
            return changed
        after = step.after
