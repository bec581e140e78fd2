"""Reaching the database at a start: waiting for it, its version, and its schema."""

import asyncio
import os
from urllib.parse import parse_qs, urlsplit

import asyncpg
import structlog

from scheduler import config, db, migrate
from scheduler.config import Settings
from scheduler.errors import StartupError
from scheduler.masking import mask

log = structlog.get_logger()

OLDEST = 14
"""Of Postgres."""
WAIT_S = 2.0
REFUSED = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)


async def prepared(settings: Settings, url: str) -> None:
    """Wait for the database and bring its schema up to date. Raises StartupError.

    Before the server runs: a signal still ends the waiting.
    """
    await reachable(url, settings.database)
    status = await migrate.status(url)
    if status.is_current:
        return
    if settings.database.migrate:
        await migrate.up(await direct(settings.database.listen_url, url))
    elif not status.fits:
        migrate.refuse_newer(status)
        raise StartupError(
            f"the database's schema is at {status.current}, this version needs {status.head}; "
            "run `scheduler migrate up`, or set DATABASE_MIGRATE=true"
        )


async def direct(wanted: str, url: str) -> str:
    """Return the way past a pooler, where there is one and it is not away.

    Raises StartupError for one that is no way at all.
    """
    if not wanted:
        return url
    try:
        await _connect(wanted, {}, "DATABASE_LISTEN_URL")
    except Exception as e:
        if not db.is_away(e):
            raise
        log.warning(
            "database.listen_url cannot be reached; migrating by database.url", error=str(e)
        )
        return url
    return wanted


async def reachable(url: str, settings: config.Database | None = None) -> None:
    """Wait until the database answers. Raises StartupError where waiting cannot help."""
    session = db.session(settings or Settings().database, "start")
    while True:
        try:
            await _connect(url, session, "DATABASE_URL")
        except Exception as e:
            if not db.is_away(e):
                raise
            at = ", ".join(f"{host}:{port}" for host, port in database_addresses(url))
            log.warning("waiting for the database", at=at, error=str(e) or type(e).__name__)
            await asyncio.sleep(WAIT_S)
        else:
            return


async def _connect(url: str, session: dict[str, str], name: str) -> None:
    """Connect once; `name` is the setting that the URL is from.

    Raises StartupError where another try will meet the same, else what it met.
    """
    try:
        conn = await asyncpg.connect(db.plain(url), timeout=10, server_settings=session)
    except REFUSED as e:
        raise StartupError(f"the database refuses us: {e}; check {name}") from None
    except asyncpg.UndefinedObjectError:  # a setting that is younger than the server
        raise StartupError("this Postgres is too old; 14 to 18 will do") from None
    except (ValueError, asyncpg.InterfaceError) as e:
        raise StartupError(f"{name} cannot be read: {mask(str(e))}") from None
    except Exception as e:
        if "unsupported startup parameter" in str(e):
            raise StartupError(
                f"{name} leads to PgBouncer: set DATABASE_STATEMENT_CACHE=0, and "
                "DATABASE_LISTEN_URL to the Postgres behind it; see docs/operating.md"
            ) from None
        raise
    version = conn.get_server_version()
    await conn.close()
    if version.major < OLDEST:
        raise StartupError(f"Postgres {version.major} is too old; 14 to 18 will do")


def database_addresses(url: str) -> list[tuple[str, int]]:
    """Return the hosts and ports that a libpq URL, or else the environment, names.

    PostgreSQL manual, 34.1.1.2 and 34.15.
    """
    split = urlsplit(url)
    found = [_host_and_port(part) for part in split.netloc.rpartition("@")[2].split(",") if part]
    query = parse_qs(split.query)
    ports = [p for value in query.get("port", []) for p in value.split(",")]
    named = [h for key in ("host", "hostaddr") for v in query.get(key, []) for h in v.split(",")]
    if not found and not named:
        named = os.environ.get("PGHOST", "").split(",")
    default = os.environ.get("PGPORT", "5432").split(",")
    for n, host in enumerate(named):
        port = (ports or default)[min(n, len(ports or default) - 1)]
        inner, inner_port = _host_and_port(host)
        found.append((inner, int(port) if port.isdecimal() else inner_port))
    return [(host, port) for host, port in found if host and not host.startswith("/")]


def _host_and_port(part: str) -> tuple[str, int]:
    host, colon, port = part.rpartition(":")
    if not colon or port.endswith("]") or not port.isdecimal():
        host, port = part, "5432"
    return host.strip("[]"), int(port)
