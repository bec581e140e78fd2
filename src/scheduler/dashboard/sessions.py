"""Sessions: who is signed in, in which browser, until when.

The cookie holds 256 random bits, the table their hash: what is read of the table opens nothing. A
session stands on the token that opened it, and ends with it.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import (
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Uuid,
    text,
)

from scheduler.db import Conn, metadata

SESSION = Table(
    "session",
    metadata,
    Column("hash", LargeBinary, nullable=False),
    Column("service_id", Uuid, nullable=False),
    Column("token_id", Uuid, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("hash", name="session_pkey"),
    ForeignKeyConstraint(["token_id"], ["token.id"], name="session_token_fkey", ondelete="CASCADE"),
    Index("session_token", "token_id", "created_at"),
    Index("session_expires", "expires_at"),
)

LASTS_S = 12 * 3600
"""A working day; then one signs in again."""
MOST = 100
"""Sessions of one token; the oldest go first."""
SHOWN_MOST = 50
"""Sessions that are shown of a service."""
PRUNED = 100
"""Expired ones that a sign-in takes away."""

INSERT = text("""
INSERT INTO session (hash, service_id, token_id, created_at, expires_at)
VALUES (:hash, :service_id, :token_id, now(), now() + make_interval(secs => :lasts))
""")
CROWD_OUT = text("""
DELETE FROM session WHERE service_id = :service_id AND hash = ANY(ARRAY(
    SELECT hash FROM session WHERE token_id = :token_id AND service_id = :service_id
    ORDER BY created_at DESC OFFSET :most))
""")
END = text("DELETE FROM session WHERE hash = :hash AND service_id = :service_id")
OF_TOKENS = text("""
SELECT hash, token_id, created_at, expires_at FROM session
WHERE token_id = ANY(:tokens) AND service_id = :service_id AND expires_at > now()
ORDER BY created_at DESC, hash LIMIT :most
""")
END_HASH = text("""
DELETE FROM session
WHERE hash = :hash AND token_id = ANY(:tokens) AND service_id = :service_id
""")
END_OTHERS = text("""
DELETE FROM session
WHERE token_id = ANY(:tokens) AND service_id = :service_id AND hash <> :hash
""")
PRUNE = text("""
DELETE FROM session WHERE hash = ANY(ARRAY(
    SELECT hash FROM session WHERE expires_at < now() ORDER BY expires_at LIMIT :most
    FOR UPDATE SKIP LOCKED))
""")
OPEN = text("""
SELECT x.service_id, x.hash FROM session x JOIN token t ON t.id = x.token_id
WHERE x.hash = ANY(:hashes) AND x.service_id = ANY(:services) AND x.expires_at > now()
    AND t.revoked_at IS NULL
""")


def digest(cookie: str) -> bytes:
    """Return what is stored of a cookie."""
    return hashlib.sha256(cookie.encode("utf-8", "replace")).digest()


def form_token(cookie: str) -> str:
    """Return what each form of a session sends along, which only our own pages hold."""
    return hmac.new(cookie.encode("utf-8", "replace"), b"form", hashlib.sha256).hexdigest()


async def begin(conn: Conn, service_id: UUID, token_id: UUID) -> str:
    """Begin a session; return what its cookie holds. Some expired ones go."""
    cookie = secrets.token_urlsafe(32)
    values = {"service_id": service_id, "token_id": token_id}
    await conn.execute(INSERT, {**values, "hash": digest(cookie), "lasts": LASTS_S})
    await conn.execute(CROWD_OUT, {**values, "most": MOST})
    await _prune(conn)
    return cookie


async def still_open(
    conn: Conn, services: Sequence[UUID], hashes: Sequence[bytes]
) -> set[tuple[UUID, bytes]]:
    """Return which of these sessions are open, each with its service: of who watches, by `live`."""
    rows = await conn.execute(OPEN, {"services": list(services), "hashes": list(hashes)})
    return {(row.service_id, row.hash) for row in rows}


async def _prune(conn: Conn) -> None:
    await conn.execute(PRUNE, {"most": PRUNED})


async def end(conn: Conn, service_id: UUID, cookie: str) -> None:
    """End a session; one that has ended stays ended."""
    await conn.execute(END, {"hash": digest(cookie), "service_id": service_id})


# Those of a service -------------------------------------------------------------------------------


class Session(msgspec.Struct, frozen=True):
    """A browser that is signed in; its hash opens nothing."""

    hash: bytes
    token_id: UUID
    created_at: datetime
    expires_at: datetime

    @property
    def name(self) -> str:
        """What it is called in a form."""
        return self.hash.hex()


async def of_tokens(conn: Conn, service_id: UUID, tokens: Sequence[UUID]) -> list[Session]:
    """Return the sessions that stand on a service's live tokens, the newest first."""
    values = {"service_id": service_id, "tokens": list(tokens), "most": SHOWN_MOST}
    return [Session(*row) for row in await conn.execute(OF_TOKENS, values)]


async def end_named(conn: Conn, service_id: UUID, tokens: Sequence[UUID], name: str) -> None:
    """End the session of a service that a form names; one that has ended stays ended."""
    try:
        hashed = bytes.fromhex(name)
    except ValueError:
        return
    values = {"service_id": service_id, "tokens": list(tokens), "hash": hashed}
    await conn.execute(END_HASH, values)


async def end_others(conn: Conn, service_id: UUID, tokens: Sequence[UUID], cookie: str) -> None:
    """End all sessions on a service's tokens but the one of this cookie."""
    values = {"service_id": service_id, "tokens": list(tokens), "hash": digest(cookie)}
    await conn.execute(END_OTHERS, values)
