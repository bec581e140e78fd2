"""Tokens: their rows, and every verb on them. Of a token the hash is kept, and nothing else."""

import hashlib
import secrets
import uuid
from collections.abc import Sequence
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
    UniqueConstraint,
    Uuid,
    text,
)

from scheduler.db import Conn, metadata
from scheduler.errors import Conflict, NotFound
from scheduler.service import Issued, Token

TOKEN = Table(
    "token",
    metadata,
    Column("id", Uuid, nullable=False),
    Column("service_id", Uuid, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("last_used_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("id", name="token_pkey"),
    UniqueConstraint("hash", name="token_hash_key"),
    ForeignKeyConstraint(
        ["service_id"], ["service.id"], name="token_service_fkey", ondelete="CASCADE"
    ),
    Index("token_service", "service_id"),
)

REVOKED_KEPT = 10
"""Revoked tokens of a service that are still listed."""

# Made under the service's lock, so that the clock, and not the transaction's start, orders them.
INSERT_TOKEN = text("""
INSERT INTO token (id, service_id, hash, created_at)
VALUES (:id, :service_id, :hash, clock_timestamp())
""")
TOKENS = text("""
SELECT id, created_at, last_used_at, revoked_at FROM token WHERE service_id = :service_id
ORDER BY created_at DESC, id
""")
MADE = text("SELECT id, revoked_at FROM token WHERE service_id = :service_id AND hash = :hash")
REVOKE = text("""
UPDATE token SET revoked_at = now()
WHERE service_id = :service_id AND id = ANY(:ids) AND revoked_at IS NULL
""")
REVOKE_ALL = text("""
UPDATE token SET revoked_at = now() WHERE service_id = :service_id AND revoked_at IS NULL
""")
FORGET_TOKENS = text("DELETE FROM token WHERE service_id = :service_id AND id = ANY(:ids)")
TOUCH = text("""
UPDATE token SET last_used_at = now() WHERE id = ANY(:ids)
""")


class Rotated(msgspec.Struct, frozen=True):
    """A token that was made, and those that were revoked for it."""

    issued: Issued
    revoked: list[UUID]
    made: bool = True
    """False where it was there already."""


def digest(token: str) -> bytes:
    """Return what is stored of a token: SHA-256; its 256 random bits need no slower hash."""
    return hashlib.sha256(token.encode()).digest()


async def of_service(conn: Conn, service_id: UUID) -> list[Token]:
    """Return a service's tokens, the newest first; of the revoked ones the newest ten."""
    return [Token(*row) for row in await conn.execute(TOKENS, {"service_id": service_id})]


async def rotate(
    conn: Conn, service_id: UUID, newest: UUID | None = None, token: str | None = None
) -> Rotated:
    """Make a new token beside the newest live one; an older live one is revoked.

    A `token` that is given and was made before is returned again. The service is locked. Raises
    Conflict where the `newest` is not the newest one any more: who asked twice would revoke a
    token that is in use.
    """
    before = None if token is None else await _made_before(conn, service_id, token)
    if before is not None:
        return Rotated(before, [], made=False)
    there = await of_service(conn, service_id)
    live = [token.id for token in there if token.revoked_at is None]
    if newest is not None and live[:1] != [newest]:
        raise Conflict("a token was made or revoked meanwhile; look at the list, then try again")
    revoked = [token.id for token in there if token.revoked_at is not None]
    old = (live[1:] + revoked)[REVOKED_KEPT:]
    await conn.execute(REVOKE, {"service_id": service_id, "ids": live[1:]})
    await conn.execute(FORGET_TOKENS, {"service_id": service_id, "ids": old})
    return Rotated(await issue(conn, service_id, token), live[1:])


async def _made_before(conn: Conn, service_id: UUID, token: str) -> Issued | None:
    values = {"service_id": service_id, "hash": digest(token)}
    row = (await conn.execute(MADE, values)).one_or_none()
    if row is not None and row.revoked_at is not None:
        raise Conflict("this form made a token before, and that was revoked; look at the list")
    return None if row is None else Issued(row.id, token)


async def issue(conn: Conn, service_id: UUID, token: str | None = None) -> Issued:
    """Make a token, or take the one given."""
    issued = Issued(uuid.uuid4(), token or secrets.token_urlsafe(32))
    values = {"id": issued.id, "service_id": service_id, "hash": digest(issued.token)}
    await conn.execute(INSERT_TOKEN, values)
    return issued


ONLY = "this is the only live token, and without one nobody gets in; make a new one first"


async def revoke(
    conn: Conn, service_id: UUID, token_id: UUID | None = None, *, last: bool = True
) -> list[UUID]:
    """Revoke one token, or every live one but the newest; return which. Raises NotFound.

    The service is locked. A token that is revoked already stays as it is. Unless the `last` may
    go, too, raises Conflict for the only live one: nobody would get in any more.
    """
    there = await of_service(conn, service_id)
    live = [token.id for token in there if token.revoked_at is None]
    chosen = live[1:]
    if token_id is not None:
        if token_id not in [token.id for token in there]:
            raise NotFound(f"the service has no token with the id {token_id}")
        chosen = [token_id]
        if live == chosen and not last:
            raise Conflict(ONLY)
    await conn.execute(REVOKE, {"service_id": service_id, "ids": chosen})
    return [each for each in chosen if each in live]


async def revoke_all(conn: Conn, service_id: UUID) -> None:
    """Revoke every token of a service: nothing new comes in from it."""
    await conn.execute(REVOKE_ALL, {"service_id": service_id})


async def touch(conn: Conn, token_ids: Sequence[UUID]) -> None:
    """Write down that these tokens were used just now."""
    await conn.execute(TOUCH, {"ids": list(token_ids)})
