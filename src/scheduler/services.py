"""Services: their rows, every verb on them, and who comes in for one."""

import secrets
import uuid
from collections.abc import Collection
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
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

from scheduler import config, db, tokens
from scheduler.db import Conn, metadata
from scheduler.errors import Conflict, NotFound, StartupError, Unauthorized, ValidationFailed
from scheduler.sealing import SIGNING, Vault
from scheduler.service import Created, Quotas, Service, Token

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
    Column("max_kept_bytes", BigInteger),
    Column("kept_bytes", BigInteger, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("id", name="service_pkey"),
    UniqueConstraint("name", name="service_name_key"),
)
SECRET_BYTES = 32
"""Of a new signing secret; Standard Webhooks asks for 24 to 64."""


# Services -----------------------------------------------------------------------------------------

COLUMNS = """id, name, allow_commands, created_at, updated_at,
       max_tasks, max_runs_per_minute, max_in_flight, max_body_bytes, max_kept_bytes, kept_bytes"""
INSERT = text(f"""
INSERT INTO service ({COLUMNS}, signing_secret)
VALUES (:id, :name, :allow_commands, now(), now(),
        :max_tasks, :max_runs_per_minute, :max_in_flight, :max_body_bytes, :max_kept_bytes, 0,
        :signing_secret)
RETURNING {COLUMNS}
""")
UPDATE = text(f"""
UPDATE service SET name = :name, allow_commands = :allow_commands, updated_at = now(),
    max_tasks = :max_tasks, max_runs_per_minute = :max_runs_per_minute,
    max_in_flight = :max_in_flight, max_body_bytes = :max_body_bytes,
    max_kept_bytes = :max_kept_bytes
WHERE id = :service_id RETURNING {COLUMNS}
""")

# Tokens and usage point at the row, and whoever makes tasks holds it: their FOR KEY SHARE does not
# wait for this. For the whole row it does: a new name would have to, with the row locked already.
LOCK = text(f"SELECT {COLUMNS} FROM service WHERE id = :service_id FOR NO KEY UPDATE")
LOCK_WHOLE = text(f"SELECT {COLUMNS} FROM service WHERE id = :service_id FOR UPDATE")
HOLD = text("SELECT clock_timestamp() FROM service WHERE id = :service_id FOR KEY SHARE")
DELETE = text("""
DELETE FROM service WHERE id = ANY(ARRAY(
    SELECT id FROM service WHERE id = :service_id FOR UPDATE SKIP LOCKED))
""")
LIST = text(f"SELECT {COLUMNS} FROM service ORDER BY name")
PAGE = text(f"SELECT {COLUMNS} FROM service ORDER BY name OFFSET :offset LIMIT :most")
ANY = text("SELECT EXISTS (SELECT FROM service)")
IDS = text("SELECT id FROM service")
FIND = text(f"SELECT {COLUMNS} FROM service WHERE id = :id OR name = :name")
NAMES = text("SELECT id, name FROM service WHERE id = ANY(:ids)")
THERE = text("SELECT id FROM service WHERE id = ANY(:ids)")
IN_FLIGHT = text("SELECT id, max_in_flight FROM service WHERE max_in_flight IS NOT NULL OR :all")


async def create(
    conn: Conn,
    name: str,
    *,
    allow_commands: bool = False,
    token: str | None = None,
    quotas: Quotas | None = None,
    vault: Vault | None = None,
    secret: bytes | None = None,
) -> Created:
    """Create a service; `vault` seals its signing secret, a random one unless it is given.

    Raises ValidationFailed for a bad name, Conflict for one that is taken.
    """
    check_name(name)
    key, secret = uuid.uuid4(), secret or secrets.token_bytes(SECRET_BYTES)
    values = {"id": key, "name": name, "allow_commands": allow_commands}
    values |= msgspec.structs.asdict(quotas or Quotas())
    stored = (vault or Vault()).seal_bytes(secret, key, SIGNING)
    row = await _written(conn, INSERT, {**values, "signing_secret": stored})
    issued = await tokens.issue(conn, row.id, token)
    return Created(_service(row), issued.token, issued.id, secret)


async def _written(conn: Conn, statement: Any, values: dict[str, Any]) -> Any:
    try:
        return (await conn.execute(statement, values)).one()
    except IntegrityError as e:
        if db.violated(e) == "service_name_key":
            raise Conflict(f"there is a service named {values['name']} already") from None
        raise


async def bootstrap(
    conn: Conn, auth: config.Auth, *, allow_commands: bool = False, vault: Vault | None = None
) -> Created | None:
    """Create the first service of an empty database; None where there is one.

    Of two replicas at once one creates it. Raises StartupError for preset values that cannot be.
    """
    await conn.execute(text("SELECT pg_advisory_xact_lock(hashtext('bootstrap'))"))
    if not await is_empty(conn):
        return None
    try:
        return await create(
            conn,
            auth.bootstrap_service or "default",
            allow_commands=allow_commands,
            token=auth.bootstrap_token or None,
            vault=vault,
        )
    except ValidationFailed as e:
        raise StartupError(f"auth.bootstrap_service: {e.message}") from None


async def is_empty(conn: Conn) -> bool:
    """Say whether the database has no service, and so nothing."""
    return not (await conn.execute(ANY)).scalar_one()


def check_name(name: str) -> None:
    """Raise ValidationFailed where a service cannot be named so."""
    if not 1 <= len(name) <= 200 or not name.isprintable() or name != name.strip() or ":" in name:
        raise ValidationFailed.of(
            "name", "1 to 200 printable characters, no colon, no space at the ends"
        )
    if as_id(name):
        raise ValidationFailed.of("name", "a name that reads as a UUID would be taken for an id")


def as_id(value: str) -> UUID | None:
    """Return the UUID that a text reads as, or None."""
    try:
        return UUID(value)
    except ValueError:
        return None


async def list_all(conn: Conn) -> list[Service]:
    """Return every service, by name."""
    return [_service(row) for row in await conn.execute(LIST)]


async def page(conn: Conn, *, offset: int, most: int) -> list[Service]:
    """Return some services, by name."""
    return [_service(row) for row in await conn.execute(PAGE, {"offset": offset, "most": most})]


async def ids(conn: Conn) -> list[UUID]:
    """Return every service's id."""
    return list((await conn.execute(IDS)).scalars())


async def in_flight_limits(conn: Conn, quotas: config.Quotas) -> dict[UUID, int]:
    """Return how many runs each service may have in flight; those without a limit are left out."""
    default = quotas.max_in_flight
    rows = await conn.execute(IN_FLIGHT, {"all": default > 0})
    limits = {row.id: default if row.max_in_flight is None else row.max_in_flight for row in rows}
    return {service: limit for service, limit in limits.items() if limit > 0}


async def names(conn: Conn, service_ids: Collection[UUID]) -> dict[UUID, str]:
    """Return the names of these services; those gone are left out."""
    rows = await conn.execute(NAMES, {"ids": list(service_ids)})
    return {row.id: row.name for row in rows}


async def find(conn: Conn, id_or_name: str) -> Service | None:
    """Return a service by its id or its name, or None."""
    if "\x00" in id_or_name:  # no text in Postgres can hold one
        return None
    row = (await conn.execute(FIND, {"id": as_id(id_or_name), "name": id_or_name})).first()
    return _service(row) if row else None


async def get(conn: Conn, id_or_name: str) -> Service:
    """Return a service by its id or its name. Raises NotFound."""
    found = await find(conn, id_or_name)
    if found is None:
        raise NotFound(f"there is no service {id_or_name}")
    return found


UNKNOWN = "there is no service with this id or name and this token"


async def hold(conn: Conn, service_id: UUID) -> int:
    """Keep a service from being deleted until the commit; return the database's clock, in ms.

    For whoever makes what the delete does not see before that: one statement for both. What is
    made under the lock of a task's plan is safe without. Raises Unauthorized where it is gone.
    """
    now = (await conn.execute(HOLD, {"service_id": service_id})).scalar_one_or_none()
    if now is None:
        raise Unauthorized(UNKNOWN)
    return db.ms(now)


async def there(conn: Conn, service_ids: Collection[UUID]) -> set[UUID]:
    """Return which of these services there are."""
    return set((await conn.execute(THERE, {"ids": list(service_ids)})).scalars())


async def lock(conn: Conn, service_id: UUID, *, whole: bool = False) -> Service:
    """Hold off whoever else locks this service until the commit. Raises NotFound.

    `whole`, to change its name, waits for those who make tasks, too.
    """
    statement = LOCK_WHOLE if whole else LOCK
    row = (await conn.execute(statement, {"service_id": service_id})).first()
    if row is None:
        raise NotFound(f"there is no service {service_id}")
    return _service(row)


async def update(
    conn: Conn,
    service_id: UUID,
    *,
    name: str | None = None,
    allow_commands: bool | None = None,
    quotas: dict[str, int | None] | None = None,
) -> tuple[Service, Service]:
    """Change what is given; return what it was, and is.

    Raises ValidationFailed, Conflict and NotFound.
    """
    before = await lock(conn, service_id, whole=name is not None)
    if name is not None and name != before.name:
        check_name(name)
    values: dict[str, Any] = {
        "service_id": service_id,
        "name": before.name if name is None else name,
        "allow_commands": before.allow_commands if allow_commands is None else allow_commands,
        **msgspec.structs.asdict(before.quotas),
        **(quotas or {}),
    }
    return before, _service(await _written(conn, UPDATE, values))


async def remove(conn: Conn, service_id: UUID) -> bool:
    """Delete the service's row, and with it its tokens; False where somebody holds it still."""
    gone = (await conn.execute(DELETE, {"service_id": service_id})).rowcount
    return bool(gone) or not await there(conn, [service_id])


def _service(row: Any) -> Service:
    quotas = Quotas(**{name: getattr(row, name) for name in Quotas.__struct_fields__})
    made = Service(row.id, row.name, row.allow_commands, row.created_at, row.updated_at, quotas)
    return msgspec.structs.replace(made, kept_bytes=row.kept_bytes)


# Who comes in -------------------------------------------------------------------------------------

# By the token alone, so that an unknown service and a wrong token cost the same.
CHECK = text("""
SELECT t.id AS token_id, s.id, s.name, s.allow_commands, s.created_at, s.updated_at,
       s.max_tasks, s.max_runs_per_minute, s.max_in_flight, s.max_body_bytes, s.max_kept_bytes,
       s.kept_bytes
FROM token t JOIN service s ON s.id = t.service_id
WHERE t.hash = :hash AND t.revoked_at IS NULL AND (s.id = :id OR s.name = :name)
""")


CREDENTIALS = text("""
SELECT s.signing_secret, t.id, t.created_at, t.last_used_at, t.revoked_at
FROM service s LEFT JOIN token t ON t.service_id = s.id
WHERE s.id = :service_id ORDER BY t.created_at DESC, t.id
""")


async def credentials(conn: Conn, service_id: UUID) -> tuple[list[Token], bytes]:
    """Return a service's tokens, the newest first, and its signing secret as it is stored.

    Raises NotFound.
    """
    rows = (await conn.execute(CREDENTIALS, {"service_id": service_id})).all()
    if not rows:
        raise NotFound(f"there is no service {service_id}")
    return [Token(*row[1:]) for row in rows if row.id is not None], rows[0].signing_secret


async def check(conn: Conn, id_or_name: str, hashed: bytes) -> tuple[Service, UUID] | None:
    """Return the service that a live token opens, and that token's id; None for a wrong pair."""
    values = {"hash": hashed, "id": as_id(id_or_name), "name": id_or_name}
    row = (await conn.execute(CHECK, values)).first()
    return (_service(row), row.token_id) if row else None


# Everything that a session stands on, in one statement: each page asks.
OF_SESSION = text("""
SELECT t.id AS token_id, s.id, s.name, s.allow_commands, s.created_at, s.updated_at,
       s.max_tasks, s.max_runs_per_minute, s.max_in_flight, s.max_body_bytes, s.max_kept_bytes,
       s.kept_bytes
FROM session x JOIN token t ON t.id = x.token_id JOIN service s ON s.id = t.service_id
WHERE x.hash = :hash AND x.expires_at > now() AND t.revoked_at IS NULL
""")


async def of_session(conn: Conn, hashed: bytes) -> tuple[Service, UUID] | None:
    """Return the service that a browser's session opens, and its token's id, or None."""
    row = (await conn.execute(OF_SESSION, {"hash": hashed})).first()
    return (_service(row), row.token_id) if row else None
