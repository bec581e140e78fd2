"""What can be done to a service: over HTTP and from the command line it is the same.

Each takes the database, for each is one transaction or, where a service goes, many.
"""

import asyncio
import time
from collections.abc import Callable
from uuid import UUID

import msgspec
from msgspec import UNSET

from scheduler import config, db, installation, quotas, services, tokens, wipe
from scheduler.admin import told
from scheduler.admin.model import (
    ServiceFields,
    ShownService,
    shown,
    shown_created,
    shown_tokens,
)
from scheduler.db import Conn, Database
from scheduler.errors import Conflict, ValidationFailed
from scheduler.installation import Pause
from scheduler.processes import model as processes
from scheduler.sealing import SIGNING, SealError, Vault
from scheduler.service import By, Created, Quotas, Service
from scheduler.signing import make_secret, rotate_secret, shown_secret, stored
from scheduler.specs import model as specs
from scheduler.specs import responses

REQUEST_S = 0.5
"""What a request that was let in may still take."""
ROOMS = (processes.remove_service, specs.remove_service, responses.remove_service)
"""What deletes a service's rows in the tables of the rooms."""


async def create(
    database: Database,
    by: By,
    fields: ServiceFields,
    token: str | None = None,
    secret: bytes | None = None,
) -> ShownService:
    """Create a service, with random secrets unless they are given.

    Raises ValidationFailed and Conflict.
    """
    if fields.name is UNSET:
        raise ValidationFailed.of("name", "is needed: 1 to 200 printable characters")
    async with database.api.begin() as conn:
        made = await services.create(
            conn,
            fields.name,
            allow_commands=fields.allow_commands is True,
            quotas=Quotas(**fields.quotas()),
            token=token,
            vault=database.vault,
            secret=secret,
        )
        await told.tell_made(conn, by, made)
    return shown_created(made)


async def bootstrap(
    conn: Conn, auth: config.Auth, *, allow_commands: bool, vault: Vault
) -> Created | None:
    """Create the first service of an empty database; None where there is one.

    Raises StartupError for preset values that cannot be.
    """
    made = await services.bootstrap(conn, auth, allow_commands=allow_commands, vault=vault)
    if made is not None:
        await told.tell_made(conn, By(), made)
    return made


async def list_all(database: Database) -> list[ShownService]:
    """Return every service, by name."""
    async with database.api.connect() as conn:
        return [shown(service) for service in await services.list_all(conn)]


async def show(database: Database, settings: config.Quotas, ref: str) -> ShownService:
    """Return a service with its tokens, its limits, and what it uses. Raises NotFound."""
    async with database.api.connect() as conn:
        return await _whole(conn, settings, ref)


async def _whole(conn: Conn, settings: config.Quotas, ref: str) -> ShownService:
    service = await services.get(conn, ref)
    service = msgspec.structs.replace(service, limits=service.quotas.within(settings))
    face = shown(service)
    face.tokens = shown_tokens(await tokens.of_service(conn, service.id))
    face.limits = service.limits
    face.usage = await quotas.usage(conn, service)
    return face


async def signing_secret(database: Database, ref: str) -> str:
    """Return a service's signing secret. Raises NotFound, and Conflict for one not to be opened."""
    async with database.api.connect() as conn:
        service = await services.get(conn, ref)
        found = await stored(conn, [service.id])
    try:
        return shown_secret(database.vault.open_bytes(found[service.id], service.id, SIGNING))
    except SealError as e:
        raise Conflict(f"{e}: rotate it") from None


@db.again
async def update(
    database: Database, by: By, settings: config.Quotas, ref: str, fields: ServiceFields
) -> ShownService:
    """Change what was sent. Raises ValidationFailed, Conflict and NotFound."""
    async with database.api.begin() as conn:
        service = await services.get(conn, ref)
        before, after = await services.update(
            conn,
            service.id,
            name=None if fields.name is UNSET else fields.name,
            allow_commands=None if fields.allow_commands is UNSET else fields.allow_commands,
            quotas=fields.quotas(),
        )
        await told.tell(conn, service.id, by, told.edited(before, after))
        return await _whole(conn, settings, str(service.id))


@db.again
async def rotate(
    database: Database,
    by: By,
    ref: str,
    *,
    signing: bool,
    newest: UUID | None = None,
    token: str | None = None,
) -> ShownService:
    """Make a new token, or a new signing secret, and show it once; a `token` that is given, once.

    Raises NotFound; Conflict where the `newest` token is not the newest one any more.
    """
    async with database.api.begin() as conn:
        service = await services.get(conn, ref)
        face = shown(service)
        if signing:
            secret = await rotate_secret(conn, database.vault, service.id, by)
            face.signing_secret = shown_secret(secret)
        else:
            await services.lock(conn, service.id)
            rotated = await tokens.rotate(conn, service.id, newest, token)
            issued = rotated.issued
            entries = [told.token(each, "revoked") for each in rotated.revoked]
            entries += [told.token(issued.id, "made")] if rotated.made else []
            face.token, face.token_id = issued.token, str(issued.id)
            await told.tell(conn, service.id, by, entries)
            face.tokens = shown_tokens(await tokens.of_service(conn, service.id))
    return face


@db.again
async def make_signing(
    database: Database, by: By, ref: str, secret: bytes, check: Callable[[bytes], None]
) -> ShownService:
    """Give a service this signing secret, once, and show it.

    `check` is asked about the one before, and raises where it is not to go. Raises NotFound.
    """
    async with database.api.begin() as conn:
        service = await services.get(conn, ref)
        await make_secret(conn, database.vault, service.id, by, secret, check)
        face = shown(service)
        face.signing_secret = shown_secret(secret)
    return face


@db.again
async def revoke(
    database: Database, by: By, ref: str, token_id: UUID | None, *, last: bool = True
) -> ShownService:
    """Revoke a token, or every live one but the newest. Raises NotFound.

    Unless the `last` live one may go, too, Conflict for that.
    """
    async with database.api.begin() as conn:
        service = await services.get(conn, ref)
        await services.lock(conn, service.id)
        gone = await tokens.revoke(conn, service.id, token_id, last=last)
        await told.tell(conn, service.id, by, [told.token(each, "revoked") for each in gone])
        face = shown(service)
        face.tokens = shown_tokens(await tokens.of_service(conn, service.id))
    return face


async def delete(
    database: Database,
    by: By,
    auth: config.Auth,
    ref: str,
    recall: Callable[[UUID], None] = lambda _task_key: None,
) -> UUID:
    """Delete a service and everything of it; return its id. Raises NotFound.

    Its tokens are revoked first, so nothing new comes in; then its rows go, a piece at a time;
    the service itself goes last, so that a call that was cut short can be made again. Calls under
    way end and are dropped; `recall` is told the tasks whose runs some replica holds.
    """
    service = await _closed(database, ref)
    # Every replica believes a token for so long, and a request let in late still writes.
    quiet_at = time.monotonic() + auth.cache_seconds + REQUEST_S
    await wipe.wipe(database.api, service.id, recall, ROOMS)
    await asyncio.sleep(max(quiet_at - time.monotonic(), 0))
    await wipe.wipe(database.api, service.id, recall, ROOMS)
    await _remove(database, by, service)
    await wipe.wipe(database.api, service.id, recall, ROOMS)  # what was being made when it went
    return service.id


@db.again
async def _closed(database: Database, ref: str) -> Service:
    """Revoke a service's tokens; return it."""
    async with database.api.begin() as conn:
        service = await services.get(conn, ref)
        await tokens.revoke_all(conn, service.id)
    return service


async def _remove(database: Database, by: By, service: Service) -> None:
    """Delete a service's row, once nobody who makes something of it holds it any more."""
    gone = False
    while not gone:
        async with database.api.begin() as conn:
            gone = await services.remove(conn, service.id)
            if gone:
                await told.tell_gone(conn, by, service)
        await asyncio.sleep(0 if gone else wipe.PAUSE_S)


# The installation ---------------------------------------------------------------------------------

BY_HAND = "someone paused it"


async def pause(database: Database, reason: str | None) -> Pause | None:
    """Let no replica run anything until `resume`; return the pause that there was before.

    Without a reason one that there is stays as it is.
    """
    async with database.api.begin() as conn:
        before = (await installation.lock(conn)).pause
        if before is None or reason is not None:
            await installation.pause(conn, reason or BY_HAND)
    return before


async def resume(database: Database) -> Pause | None:
    """End the pause, and return it; where the database lives now is its place from then on."""
    here = await installation.place(database)
    async with database.api.begin() as conn:
        before = (await installation.lock(conn)).pause
        await installation.resume(conn, here)
    return before
