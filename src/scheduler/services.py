"""Services, their tokens, and who is calling."""

import base64
import hashlib
import ipaddress
import re
import secrets
import time
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.exc import IntegrityError

from scheduler import config, db
from scheduler.db import Conn, metadata
from scheduler.errors import Conflict, StartupError, Unauthorized, ValidationFailed

SERVICE = Table(
    "service",
    metadata,
    Column("id", Uuid, nullable=False),
    Column("name", Text, nullable=False),
    Column("allow_commands", Boolean, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column(
        "signing_secret",
        LargeBinary,
        nullable=False,
        server_default=text(
            "decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex')"
        ),
    ),
    Column("max_tasks", Integer),
    Column("max_runs_per_minute", Integer),
    Column("max_in_flight", Integer),
    Column("max_body_bytes", Integer),
    PrimaryKeyConstraint("id", name="service_pkey"),
    UniqueConstraint("name", name="service_name_key"),
)
USAGE = Table(
    "service_usage",
    metadata,
    Column("service_id", Uuid, nullable=False),
    Column("level", Double, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("service_id", name="service_usage_pkey"),
    ForeignKeyConstraint(
        ["service_id"], ["service.id"], name="service_usage_service_fkey", ondelete="CASCADE"
    ),
)
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


class Service(msgspec.Struct, frozen=True):
    """A tenant."""

    id: UUID
    name: str
    allow_commands: bool
    created_at: datetime
    updated_at: datetime


class Created(msgspec.Struct, frozen=True):
    """A service just created, with the one sight of its token."""

    service: Service
    token: str


INSERT = text("""
INSERT INTO service (id, name, allow_commands, created_at, updated_at)
VALUES (:id, :name, :allow_commands, now(), now())
RETURNING id, name, allow_commands, created_at, updated_at
""")
INSERT_TOKEN = text("""
INSERT INTO token (id, service_id, hash, created_at) VALUES (:id, :service_id, :hash, now())
""")
LIST = text("SELECT id, name, allow_commands, created_at, updated_at FROM service ORDER BY name")
ANY = text("SELECT EXISTS (SELECT FROM service)")
IDS = text("SELECT id FROM service")
# By the token alone, so that an unknown service and a wrong token cost the same.
CHECK = text("""
SELECT t.id AS token_id, s.id, s.name, s.allow_commands, s.created_at, s.updated_at
FROM token t JOIN service s ON s.id = t.service_id
WHERE t.hash = :hash AND t.revoked_at IS NULL AND (s.id = :id OR s.name = :name)
""")
BY_NAME = text("""
SELECT id, name, allow_commands, created_at, updated_at FROM service
WHERE id = :id OR name = :name
""")
TOUCH = text("""
UPDATE token SET last_used_at = now() WHERE id = ANY(:ids)
""")


def digest(token: str) -> bytes:
    """Return what is stored of a token: SHA-256; its 256 random bits need no slower hash."""
    return hashlib.sha256(token.encode()).digest()


async def create(
    conn: Conn, name: str, *, allow_commands: bool = False, token: str | None = None
) -> Created:
    """Create a service. Raises ValidationFailed for a bad name, Conflict for one that is taken."""
    if not 1 <= len(name) <= 200 or not name.isprintable() or name != name.strip() or ":" in name:
        raise ValidationFailed.of(
            "name", "1 to 200 printable characters, no colon, no space at the ends"
        )
    if _uuid(name):
        raise ValidationFailed.of("name", "a name that reads as a UUID would be taken for an id")
    token = token or secrets.token_urlsafe(32)
    values = {"id": uuid.uuid4(), "name": name, "allow_commands": allow_commands}
    try:
        row = (await conn.execute(INSERT, values)).one()
        await conn.execute(
            INSERT_TOKEN, {"id": uuid.uuid4(), "service_id": row.id, "hash": digest(token)}
        )
    except IntegrityError as e:
        if db.violated(e) == "service_name_key":
            raise Conflict(f"there is a service named {name} already") from None
        raise
    return Created(_service(row), token)


async def list_all(conn: Conn) -> list[Service]:
    """Return every service, by name."""
    return [_service(row) for row in await conn.execute(LIST)]


async def ids(conn: Conn) -> list[UUID]:
    """Return every service's id."""
    return list((await conn.execute(IDS)).scalars())


IN_FLIGHT = text("SELECT id, max_in_flight FROM service WHERE max_in_flight IS NOT NULL OR :all")


async def in_flight_limits(conn: Conn, quotas: config.Quotas) -> dict[UUID, int]:
    """Return how many runs each service may have in flight; those without a limit are left out."""
    default = quotas.max_in_flight
    rows = await conn.execute(IN_FLIGHT, {"all": default > 0})
    limits = {row.id: default if row.max_in_flight is None else row.max_in_flight for row in rows}
    return {service: limit for service, limit in limits.items() if limit > 0}


async def bootstrap(
    conn: Conn, auth: config.Auth, *, allow_commands: bool = False
) -> Created | None:
    """Create the first service of an empty database; None where there is one.

    Of two replicas at once one creates it. Raises StartupError for preset values that cannot be.
    """
    await conn.execute(text("SELECT pg_advisory_xact_lock(hashtext('bootstrap'))"))
    if (await conn.execute(ANY)).scalar_one():
        return None
    try:
        return await create(
            conn,
            auth.bootstrap_service or "default",
            allow_commands=allow_commands,
            token=auth.bootstrap_token or None,
        )
    except ValidationFailed as e:
        raise StartupError(f"auth.bootstrap_service: {e.message}") from None


class Caller(msgspec.Struct, frozen=True):
    """What of a request says who calls; header names in lower case."""

    headers: Mapping[str, str]
    address: str | None
    """The peer's address."""


class Gate:
    """Finds the service that a request acts for, and remembers it for a moment."""

    MOST = 10_000

    def __init__(self, auth: config.Auth) -> None:
        self._auth = auth
        self._from = [ipaddress.ip_network(cidr) for cidr in auth.anonymous_from]
        self._known: dict[tuple[str, bytes], tuple[float, Service]] = {}
        self._used: set[UUID] = set()

    async def admit(self, database: db.Database, caller: Caller) -> Service:
        """Return the calling service. Raises Unauthorized."""
        pair = credentials(caller.headers)
        if pair is None:
            return await self._anonymous(database, caller)
        user, token = pair
        if "\x00" in user:  # no text in Postgres can hold one
            raise Unauthorized
        key = (user, digest(token))
        known = self._known.get(key)
        if known and known[0] > time.monotonic():
            return known[1]
        async with database.api.connect() as conn:
            row = (
                await conn.execute(CHECK, {"hash": key[1], "id": _uuid(user), "name": user})
            ).first()
        if row is None:
            raise Unauthorized("there is no service with this id or name and this token")
        self._remember(key, _service(row), row.token_id)
        return _service(row)

    def _remember(self, key: tuple[str, bytes], service: Service, token_id: UUID) -> None:
        if len(self._known) >= self.MOST:
            self._known.clear()
        self._known[key] = (time.monotonic() + self._auth.cache_seconds, service)
        self._used.add(token_id)

    async def _anonymous(self, database: db.Database, caller: Caller) -> Service:
        name = self._auth.anonymous_service
        if not name or not self._may_be_anonymous(caller):
            raise Unauthorized
        async with database.api.connect() as conn:
            row = (await conn.execute(BY_NAME, {"id": _uuid(name), "name": name})).first()
        if row is None:
            raise Unauthorized(f"auth.anonymous_service: there is no service {name}")
        return _service(row)

    def _may_be_anonymous(self, caller: Caller) -> bool:
        """Say whether a request comes from here, by itself, and means this host.

        A page in a browser sends Origin, a proxy a forwarding header, and a page whose name was
        pointed at us (DNS rebinding) a Host that is not ours.
        """
        headers = caller.headers
        if "origin" in headers or any(FORWARDING.search(name) for name in headers):
            return False
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return False
        if not _is_local(headers.get("host", "")):
            return False
        try:
            address = ipaddress.ip_address(caller.address or "")
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._from)

    async def flush(self, conn: Conn) -> None:
        """Write down which tokens were used since the last time."""
        used, self._used = self._used, set()
        if used:
            await conn.execute(TOUCH, {"ids": list(used)})


FORWARDING = re.compile(
    r"^(forwarded|via|x-forwarded.*|x-original.*|x-real-ip|.*(client|connecting)-ip)$"
)
"""What proxies add."""


def _is_local(host: str) -> bool:
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    name = name.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def credentials(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """Return (service id or name, token) as a request sends them, or None.

    Raises Unauthorized where only half of the pair is there, or Basic cannot be read.
    """
    user, token = _first(headers, *USER), _first(headers, *TOKENS)
    if user and token:
        return user, token
    basic = headers.get("authorization", "")
    if basic[:6].lower() == "basic ":
        return _basic(basic[6:])
    if "authorization" in headers or any(name in headers for name in (*USER, *TOKENS)):
        raise Unauthorized  # half a pair, or another scheme: that is not "no credentials"
    return None


USER = ("service_id", "service-id", "x-service-id")
TOKENS = ("token", "x-token")


def _first(headers: Mapping[str, str], *names: str) -> str | None:
    return next((headers[name] for name in names if headers.get(name)), None)


def _basic(encoded: str) -> tuple[str, str]:
    """Read the user-id and password of RFC 7617."""
    try:
        user, colon, token = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:  # binascii.Error and UnicodeDecodeError are ones
        raise Unauthorized("the Basic credentials are not base64 of user:password") from None
    if not (user and colon and token):
        raise Unauthorized
    return user, token


def _uuid(value: str) -> UUID | None:
    try:
        return UUID(value)
    except ValueError:
        return None


def _service(row: Any) -> Service:
    return Service(row.id, row.name, row.allow_commands, row.created_at, row.updated_at)
