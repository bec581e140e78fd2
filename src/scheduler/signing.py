"""What a service's runs need of it, at hand: what signs its calls, and whether it runs commands."""

import base64
import secrets
import shlex
import time
from collections.abc import Callable, Collection
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text

from scheduler import audit, clock, services
from scheduler.audit import Entry
from scheduler.db import Conn, utc
from scheduler.sealing import SIGNING, SealError, Vault
from scheduler.service import By

OF = text("SELECT id, signing_secret FROM service WHERE id = ANY(:ids)")
AT_HAND = text("SELECT id, name, allow_commands, signing_secret FROM service WHERE id = ANY(:ids)")
SET = text("UPDATE service SET signing_secret = :secret WHERE id = :service_id")
REPLACE = text("""
UPDATE service SET signing_secret = :secret
WHERE id = :service_id AND signing_secret = :before
""")


GONE = "its service was deleted"


def shown_secret(secret: bytes) -> str:
    """Return a signing secret as Standard Webhooks writes it."""
    return "whsec_" + base64.b64encode(secret).decode()


def present(vault: Vault, service_id: UUID, raw: bytes) -> bytes:
    """Return a signing secret, by what is stored of it: where it does not open, just that."""
    try:
        return vault.open_bytes(raw, service_id, SIGNING)
    except SealError:
        return raw


async def make_secret(
    conn: Conn,
    vault: Vault,
    service_id: UUID,
    by: By,
    secret: bytes,
    check: Callable[[bytes], None],
) -> None:
    """Give a service this signing secret, once; `check` is asked about the one that goes."""
    await services.lock(conn, service_id)
    raw = (await stored(conn, [service_id]))[service_id]
    before = present(vault, service_id, raw)
    if before != secret:
        check(before)
        await _set(conn, vault, service_id, secret, by, None)


async def rotate_secret(
    conn: Conn, vault: Vault, service_id: UUID, by: By, why: str | None = None
) -> bytes:
    """Give a service a new signing secret, and return it; the old one signs no more.

    Who did is told, and `why` where it is not just that someone asked for it.
    """
    secret = secrets.token_bytes(services.SECRET_BYTES)
    await _set(conn, vault, service_id, secret, by, why)
    return secret


async def _set(
    conn: Conn, vault: Vault, service_id: UUID, secret: bytes, by: By, why: str | None
) -> None:
    stored = vault.seal_bytes(secret, service_id, SIGNING)
    await conn.execute(SET, {"service_id": service_id, "secret": stored})
    verb = "signing secret rotated"
    entry = Entry(kind="service", ref=str(service_id), verb=verb, reason=why)
    await audit.write(conn, service_id, by, [entry], utc(await clock.database_ms(conn)))


async def stored(conn: Conn, service_ids: Collection[UUID]) -> dict[UUID, bytes]:
    """Return the signing secrets of services as they are stored; those gone are left out."""
    rows = await conn.execute(OF, {"ids": list(service_ids)})
    return {row.id: row.signing_secret for row in rows}


async def replace(conn: Conn, service_id: UUID, before: bytes, after: bytes) -> bool:
    """Store a signing secret in another form; False where it is another one meanwhile."""
    values = {"service_id": service_id, "before": before, "secret": after}
    return (await conn.execute(REPLACE, values)).rowcount == 1


class _Known(msgspec.Struct):
    """A service as last read; `read_at` on the monotonic clock, in seconds."""

    read_at: float
    stored: bytes | None
    opened: bytes | None
    broken: str | None = None
    closed: str | None = None
    """Why it may not run commands, if so."""


class Secrets:
    """The signing secrets at hand, so that a call costs no query; each two seconds old at most."""

    FRESH_S = 2.0

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, vault: Vault | None = None
    ) -> None:
        self._monotonic = monotonic
        self._vault = vault or Vault()
        self._known: dict[UUID, _Known] = {}

    async def refresh(self, conn: Conn, service_ids: Collection[UUID]) -> None:
        """Read again what of these is missing or old: one statement, or none."""
        now = self._monotonic()
        known = self._known
        old = {k for k in service_ids if k not in known or known[k].read_at < now - self.FRESH_S}
        if old:
            rows = {row.id: row for row in await conn.execute(AT_HAND, {"ids": list(old)})}
            for key in old:
                row = rows.get(key)
                known[key] = self._learn(key, now, None if row is None else row.signing_secret)
                known[key].closed = _closed(row)

    def _learn(self, service_id: UUID, now: float, raw: bytes | None) -> _Known:
        before = self._known.get(service_id)
        if before is not None and before.stored == raw and before.broken is None:
            return _Known(now, raw, before.opened)
        try:
            opened = None if raw is None else self._vault.open_bytes(raw, service_id, SIGNING)
        except SealError as e:
            hint = "`scheduler services rotate --signing` makes a new one"
            return _Known(now, raw, None, f"nothing can be signed: {e}; {hint}")
        return _Known(now, raw, opened)

    def of(self, service_id: UUID) -> bytes | None:
        """Return a service's secret as last read; None where there is no such service."""
        known = self._known.get(service_id)
        return known.opened if known else None

    def closed(self, service_id: UUID) -> str | None:
        """Return why a service may not run commands, if so."""
        known = self._known.get(service_id)
        return known.closed if known else GONE

    def broken(self, service_id: UUID) -> str | None:
        """Return why a service's secret cannot be opened, if so."""
        known = self._known.get(service_id)
        return known.broken if known else None


def _closed(row: Any) -> str | None:
    if row is None:
        return GONE
    if row.allow_commands:
        return None
    allowing = f"`scheduler services update {shlex.quote(row.name)} --allow-commands`"
    return f"its service may not run commands; {allowing} lets it"
