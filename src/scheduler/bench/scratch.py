"""A database for the time of a measurement, on the same server."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from scheduler import db
from scheduler.doctor.finding import words
from scheduler.errors import StartupError

PREFIX = "scheduler_bench_"


@asynccontextmanager
async def scratch(url: str) -> AsyncIterator[str]:
    """Make a database beside the one at `url`, yield its address, and drop it, come what may.

    Raises StartupError where the role may not.
    """
    name = PREFIX + secrets.token_hex(4)
    try:
        await _do(url, f"CREATE DATABASE {name}")
    except asyncpg.InsufficientPrivilegeError:
        raise StartupError(
            "this role may not make a database to measure in: ALTER ROLE ... CREATEDB, or set "
            "DATABASE_URL to one on the same server that may"
        ) from None
    except (OSError, asyncpg.PostgresError) as e:
        raise StartupError(f"no database to measure in could be made: {words(e)}") from None
    parts = urlsplit(db.plain(url))
    try:
        yield urlunsplit(parts._replace(path=f"/{name}")) if parts.netloc else _bare(parts, name)
    finally:
        await asyncio.shield(_do(url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))


def _bare(parts: object, name: str) -> str:
    # urlunsplit leaves out the // of an address that names no host.
    return f"postgresql:///{name}?{parts.query}"  # type: ignore[attr-defined]


async def _do(url: str, statement: str) -> None:
    conn = await asyncpg.connect(db.plain(url), timeout=10, statement_cache_size=0)
    try:
        await conn.execute(statement)
    finally:
        await conn.close(timeout=5)
