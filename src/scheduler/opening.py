"""Opening an installation: the key that fits it, and whether this database is its own."""

from pathlib import Path
from urllib.parse import urlsplit

import structlog

from scheduler import installation, keys, replicas, services
from scheduler.config import Settings
from scheduler.db import Conn, Database
from scheduler.egress import Rules
from scheduler.errors import StartupError, ValidationFailed
from scheduler.installation import Installation
from scheduler.sealing import fingerprint, short

log = structlog.get_logger()

FROM_FLAG = "started with --paused"


def judge(settings: Settings) -> None:
    """Raise StartupError for a setting whose type alone does not show that it is wrong.

    Asked before anything is made or started.
    """
    for name in ("url", "listen_url"):
        url = getattr(settings.database, name)
        if url and not _is_postgres(url):
            raise StartupError(
                f"database.{name} (DATABASE_{name.upper()}): expected a URL like "
                "postgresql://user:password@host:5432/name"
            )
    Rules(settings.egress)
    if settings.secret.key:
        keys.parse(settings.secret.key, "secret.key (SECRET_KEY)")
    name = settings.auth.bootstrap_service
    try:
        services.check_name(name or "default")
    except ValidationFailed as e:
        raise StartupError(
            f"auth.bootstrap_service (AUTH_BOOTSTRAP_SERVICE): {e.details[0].message}, is {name!r}"
        ) from None


def _is_postgres(url: str) -> bool:
    try:
        return urlsplit(url).scheme in ("postgres", "postgresql", "postgresql+asyncpg")
    except ValueError:
        return False


async def unlock(database: Database, settings: Settings, folder: Path) -> str | None:
    """Give the database's vault its key; return what the operator is to be told, if anything.

    `folder` is the data directory. A key is made once, for a database that has none and nothing
    sealed. Raises StartupError for a key that is not the database's, or is missing.
    """
    async with database.api.begin() as conn:
        found = await installation.lock(conn)  # of two at once, one makes the key
        here = keys.here(settings.secret.key, folder)
        told = None
        if here is None:
            await _may_make(conn, found, settings, folder)
            here = keys.make(folder)
            told = _made(settings, folder)
        mine = fingerprint(here)
        if found.fingerprint is None:
            await installation.adopt(conn, mine)
        elif found.fingerprint != mine:
            raise StartupError(_differs(found.fingerprint, mine, settings, folder))
        database.vault.sealing = not await replicas.any_older(conn)
        if not database.vault.sealing:
            await installation.note_sealed(conn, sealed=False)
    database.vault.unlock(here)
    return told


async def _may_make(conn: Conn, found: Installation, settings: Settings, folder: Path) -> None:
    """Raise StartupError where a new key would be a silent one, or one that nobody else has."""
    if found.fingerprint is not None:
        raise StartupError(
            f"secrets in the database are sealed with the key {short(found.fingerprint)}, and "
            f"there is none here: set SECRET_KEY, or put the file back at {folder / keys.FILE}; "
            "another replica has it, or your backup. If it is lost for good: "
            "`scheduler secrets reset`"
        )
    if settings.database.url and not await services.is_empty(conn):
        raise StartupError(
            "the database is not empty, and there is no key to seal its secrets with: set "
            "SECRET_KEY, for example to what `scheduler secrets key` prints, the same on every "
            "replica, and keep a copy"
        )


def _made(settings: Settings, folder: Path) -> str:
    others = " Every other replica needs the same key." if settings.database.url else ""
    return (
        f"A key that seals stored secrets was made: {folder / keys.FILE}. Keep a copy apart from "
        f"the database's backups: without it they cannot be read.{others}"
    )


def _differs(theirs: str, mine: str, settings: Settings, folder: Path) -> str:
    at = "SECRET_KEY" if settings.secret.key else str(folder / keys.FILE)
    return (
        f"secrets in the database are sealed with the key {short(theirs)}, but {at} is "
        f"{short(mine)}: use the key that the other replicas, or your backup, have. If it is lost "
        "for good: `scheduler secrets reset`"
    )


async def settle_in(database: Database, *, paused: bool) -> str | None:
    """See whose database this is, and pause the installation where it is a copy.

    `paused` pauses it in any case. Return why it is paused now, if it is.
    """
    here = database.place = await installation.place(database)
    if here is None:
        log.info("this Postgres does not let us see whether the database is a copy")
    async with database.api.begin() as conn:
        found = await installation.lock(conn)
        if found.place is None and here is not None:
            await installation.settle(conn, here)
        reason = installation.copied(found, here)
        before = found.pause.reason if found.pause else None
        reason = reason or before or (FROM_FLAG if paused else None)
        if reason is not None and reason != before:
            await installation.pause(conn, reason)
    return reason


def told_paused(reason: str) -> str:
    """Return what the operator is told of a pause."""
    return f"PAUSED: {reason}. The API and the pages work; nothing is run until `scheduler resume`."
