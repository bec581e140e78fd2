"""Answers of targets: those that are longer than what a run keeps, and those that are shared."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

import msgspec
from sqlalchemy import (
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)

from scheduler.db import Conn, metadata, times_check
from scheduler.run import BUCKETS, bucket_in, run_id

RESPONSE = Table(
    "response",
    metadata,
    Column("id", Uuid, nullable=False),
    Column("bucket", SmallInteger, nullable=False),
    Column("service_id", Uuid, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("id", "bucket", name="response_pkey"),
    times_check("response", "created_at"),
    Index("response_service", "service_id"),
    Index("response_created", "created_at"),
)
CACHE = Table(
    "response_cache",
    metadata,
    Column("key", LargeBinary, nullable=False),
    Column("bucket", SmallInteger, nullable=False),
    Column("service_id", Uuid, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("content_type", Text),
    Column("body", LargeBinary),
    Column("response_id", Uuid),
    Column("size", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("key", "bucket", name="response_cache_pkey"),
    times_check("response_cache", "created_at", "expires_at"),
    Index("response_cache_service", "service_id"),
    Index("response_cache_expires", "expires_at"),
    prefixes=["UNLOGGED"],
)

PIECE = 200
"""Long answers deleted in one transaction."""
SHARED_PIECE = 1000
"""Shared answers written, or deleted, in one transaction."""
OUTLIVED = timedelta(days=9)
"""How much longer than history an answer is kept: weeks of history are dropped whole, and a run may
be given an answer that is a day old."""
BESIDE = 200
"""Bytes that a shared answer takes beside its body, about."""

KEEP = text("""
INSERT INTO response (id, bucket, service_id, body, created_at)
VALUES (:id, :bucket, :service_id, :body, now())
ON CONFLICT (id, bucket) DO NOTHING
""")
BODY = text("""
SELECT body FROM response WHERE id = :id AND bucket = :bucket AND service_id = :service_id
""")
OLDEST = text("""
SELECT max(created_at) AS until, count(*) AS number FROM (
    SELECT created_at FROM response WHERE created_at < now() - CAST(:kept AS interval)
    ORDER BY created_at LIMIT :most) AS oldest
""")
PRUNE = text("DELETE FROM response WHERE created_at <= :until")

FIND = text("""
SELECT key, service_id, status, content_type, body, response_id,
       CAST(extract(epoch FROM expires_at - now()) AS double precision) AS left_s
FROM response_cache
WHERE key = ANY(:keys) AND bucket = ANY(:buckets) AND service_id = ANY(:services)
    AND expires_at > now()
""")
# Of two that were asked for at the same time, the one that lasts longer stays.
SHARE = text("""
INSERT INTO response_cache AS c (key, bucket, service_id, status, content_type, body, response_id,
                                 size, created_at, expires_at)
SELECT u.key, u.bucket, u.service_id, u.status, u.content_type, u.body, u.response_id,
       u.size, now(), now() + u.left_s * CAST('1 second' AS interval)
FROM unnest(CAST(:keys AS bytea[]), CAST(:buckets AS smallint[]), CAST(:services AS uuid[]),
            CAST(:statuses AS smallint[]), CAST(:types AS text[]), CAST(:bodies AS bytea[]),
            CAST(:responses AS uuid[]), CAST(:sizes AS integer[]),
            CAST(:lefts AS double precision[]))
    AS u (key, bucket, service_id, status, content_type, body, response_id, size, left_s)
ON CONFLICT (key, bucket) DO UPDATE SET
    status = EXCLUDED.status, content_type = EXCLUDED.content_type, body = EXCLUDED.body,
    response_id = EXCLUDED.response_id, size = EXCLUDED.size, created_at = EXCLUDED.created_at,
    expires_at = EXCLUDED.expires_at
WHERE c.expires_at < EXCLUDED.expires_at
""")
EXPIRED = text("""
SELECT max(expires_at) AS until, count(*) AS number FROM (
    SELECT expires_at FROM response_cache WHERE expires_at <= now()
    ORDER BY expires_at LIMIT :most) AS oldest
""")
# So many of the oldest as take up `excess` bytes.
FIRST = text("""
SELECT max(expires_at) AS until, sum(size) AS size FROM (
    SELECT expires_at, size, sum(size) OVER (ORDER BY expires_at, key ROWS UNBOUNDED PRECEDING)
           - size AS before
    FROM (SELECT expires_at, key, size FROM response_cache
          ORDER BY expires_at, key LIMIT :most) AS oldest) AS counted
WHERE before < :excess
""")
DROP = text("""
DELETE FROM response_cache WHERE expires_at <= :until AND key = ANY(ARRAY(
    SELECT key FROM response_cache WHERE expires_at <= :until FOR UPDATE SKIP LOCKED))
""")
SIZE = text("SELECT coalesce(sum(size), 0) FROM response_cache")

OF_SERVICE = "WHERE service_id = :service_id LIMIT :most"
REMOVE_SERVICE = text(
    "DELETE FROM response WHERE service_id = :service_id AND id = ANY(ARRAY("
    f"SELECT id FROM response {OF_SERVICE} FOR UPDATE SKIP LOCKED))"
)
FORGET_SERVICE = text(
    "DELETE FROM response_cache WHERE service_id = :service_id AND key = ANY(ARRAY("
    f"SELECT key FROM response_cache {OF_SERVICE} FOR UPDATE SKIP LOCKED))"
)
LEFT_OF_SERVICE = text("""
SELECT EXISTS (SELECT FROM response WHERE service_id = :service_id)
    OR EXISTS (SELECT FROM response_cache WHERE service_id = :service_id)
""")


KEPT = text("""
SELECT service_id, CAST(sum(size) AS bigint) AS size FROM (
    SELECT service_id, octet_length(body) AS size FROM response WHERE service_id = ANY(:services)
    UNION ALL
    SELECT service_id, size FROM response_cache WHERE service_id = ANY(:services)) AS kept
GROUP BY service_id
""")


class Shared(msgspec.Struct, frozen=True, gc=False):
    """An answer that others may be given."""

    status: int
    content_type: str | None
    body: bytes
    """Its beginning, where it is kept whole elsewhere."""
    kept: UUID | None = None
    """Where."""

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return len(self.body) + len(self.content_type or "") + BESIDE


# Long answers ------------------------------------------------------------------------------------


def response_id(run: UUID, attempt: int) -> UUID:
    """Return where the answer to an attempt of a run is kept, which lies in the run's bucket."""
    return run_id(run, bucket_in(run), "response", 0, nonce=str(attempt))


async def keep(conn: Conn, service_id: UUID, response: UUID, body: bytes) -> None:
    """Keep a whole answer; keeping it again changes nothing."""
    await conn.execute(
        KEEP,
        {"id": response, "bucket": bucket_in(response), "service_id": service_id, "body": body},
    )


async def body(conn: Conn, service_id: UUID, response: UUID) -> bytes | None:
    """Return an answer that was kept; None where there is none any more."""
    values = {"id": response, "bucket": bucket_in(response), "service_id": service_id}
    found = (await conn.execute(BODY, values)).scalar()
    return None if found is None else bytes(found)


async def prune(conn: Conn, kept: timedelta, most: int = PIECE) -> bool:
    """Delete a piece of the answers that are older than `kept`; say whether more is left."""
    oldest = (await conn.execute(OLDEST, {"kept": kept, "most": most})).one()
    if oldest.until is not None:
        await conn.execute(PRUNE, {"until": oldest.until})
    return bool(oldest.number == most)


async def kept(conn: Conn, services: Sequence[UUID]) -> dict[UUID, int]:
    """Return how many bytes the answers of services take: the long ones, and the shared ones."""
    rows = await conn.execute(KEPT, {"services": list(services)})
    return {row.service_id: row.size for row in rows}


async def remove_service(conn: Conn, service_id: UUID, most: int) -> bool:
    """Delete at most so many of a service's answers; say whether any are left."""
    values = {"service_id": service_id}
    await conn.execute(FORGET_SERVICE, values | {"most": min(most, SHARED_PIECE)})
    await conn.execute(REMOVE_SERVICE, values | {"most": min(most, PIECE)})
    left = await conn.execute(LEFT_OF_SERVICE, values)
    return bool(left.scalar_one())


# Shared answers ----------------------------------------------------------------------------------

Key = tuple[UUID, bytes]
"""The service, and 32 bytes of hash of all that its request depends on, the service included."""


def place_of(key: bytes) -> int:
    """Return the bucket of a shared answer."""
    return int.from_bytes(key[:2], "big") % BUCKETS


async def find(conn: Conn, keys: Sequence[Key]) -> Mapping[Key, tuple[Shared, float]]:
    """Return those of the answers that are there, and for how many seconds more."""
    values = {
        "keys": [key for _, key in keys],
        "buckets": list({place_of(key) for _, key in keys}),
        "services": list({service_id for service_id, _ in keys}),
    }
    return {
        (row.service_id, bytes(row.key)): (
            Shared(row.status, row.content_type, bytes(row.body), row.response_id),
            row.left_s,
        )
        for row in await conn.execute(FIND, values)
    }


async def share(conn: Conn, answers: Mapping[Key, tuple[Shared, float]]) -> None:
    """Share answers, each for so many seconds from now.

    In the order of their keys: replicas that share the same ones wait for each other in no ring.
    """
    answers = dict(sorted(answers.items(), key=lambda item: item[0][1]))
    shared = [answer for answer, _ in answers.values()]
    values = {
        "keys": [key for _, key in answers],
        "buckets": [place_of(key) for _, key in answers],
        "services": [service_id for service_id, _ in answers],
        "statuses": [each.status for each in shared],
        "types": [each.content_type for each in shared],
        "bodies": [each.body for each in shared],
        "responses": [each.kept for each in shared],
        "sizes": [each.size for each in shared],
        "lefts": [left_s for _, left_s in answers.values()],
    }
    await conn.execute(SHARE, values)


async def size(conn: Conn) -> int:
    """Return how many bytes all shared answers take, about."""
    return int((await conn.execute(SIZE)).scalar_one())


async def drop_expired(conn: Conn, most: int = SHARED_PIECE) -> bool:
    """Delete a piece of the shared answers that are too old; say whether more is left."""
    oldest = (await conn.execute(EXPIRED, {"most": most})).one()
    if oldest.until is not None:
        await conn.execute(DROP, {"until": oldest.until})
    return bool(oldest.number == most)


async def drop_oldest(conn: Conn, excess: int, most: int = SHARED_PIECE) -> int:
    """Delete a piece of the oldest shared answers, until they took `excess` bytes.

    Return how many they took; 0 where none was left.
    """
    oldest = (await conn.execute(FIRST, {"excess": excess, "most": most})).one()
    if oldest.until is None:
        return 0
    await conn.execute(DROP, {"until": oldest.until})
    return int(oldest.size)
