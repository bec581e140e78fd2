"""Sessions of admins: which browser holds the admin token's trust, and until when.

The cookie holds 256 random bits, the table their hash. A session stands on the admin token that
opened it: with another one it is none.
"""

import hashlib
import hmac
import secrets

from sqlalchemy import Column, DateTime, Index, LargeBinary, PrimaryKeyConstraint, Table, text

from scheduler.dashboard.sessions import digest
from scheduler.db import Conn, metadata

ADMIN_SESSION = Table(
    "admin_session",
    metadata,
    Column("hash", LargeBinary, nullable=False),
    Column("proof", LargeBinary, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("used_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("hash", name="admin_session_pkey"),
    Index("admin_session_expires", "expires_at"),
)

LASTS_S = 8 * 3600
"""A working day of somebody who may do everything."""
IDLE_S = 3600
"""One that nobody used for so long is over."""
MOST = 100
"""Sessions of all admins; the oldest go first."""

INSERT = text("""
INSERT INTO admin_session (hash, proof, created_at, used_at, expires_at)
VALUES (:hash, :proof, now(), now(), now() + make_interval(secs => :lasts))
""")
USE = text("""
UPDATE admin_session SET used_at = now()
WHERE hash = :hash AND proof = :proof AND expires_at > now()
  AND used_at > now() - make_interval(secs => :idle)
""")
END = text("DELETE FROM admin_session WHERE hash = :hash")
PRUNE = text("""
DELETE FROM admin_session WHERE hash = ANY(ARRAY(
    SELECT hash FROM admin_session
    WHERE expires_at <= now() OR used_at <= now() - make_interval(secs => :idle)
    UNION ALL (SELECT hash FROM admin_session ORDER BY expires_at DESC OFFSET :most)))
""")


async def begin(conn: Conn, token: str) -> str:
    """Begin a session that stands on the admin token; return what its cookie holds."""
    cookie = secrets.token_urlsafe(32)
    values = {"hash": digest(cookie), "proof": _proof(cookie, token), "lasts": LASTS_S}
    await conn.execute(INSERT, values)
    await conn.execute(PRUNE, {"idle": IDLE_S, "most": MOST})
    return cookie


async def use(conn: Conn, cookie: str, token: str) -> bool:
    """Say whether a cookie opens a session of this admin token; if so, it was used just now."""
    values = {"hash": digest(cookie), "proof": _proof(cookie, token), "idle": IDLE_S}
    return bool((await conn.execute(USE, values)).rowcount)


async def end(conn: Conn, cookie: str) -> None:
    """End a session; one that has ended stays ended."""
    await conn.execute(END, {"hash": digest(cookie)})


def _proof(cookie: str, token: str) -> bytes:
    """Return what ties a session to the token: without the cookie nobody can try tokens by it."""
    return hmac.new(cookie.encode("utf-8", "replace"), token.encode(), hashlib.sha256).digest()
