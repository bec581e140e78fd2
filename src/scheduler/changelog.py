"""The changes of a whole service, and what was done to all services, for lists."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text

from scheduler import audit
from scheduler.audit import COLUMNS, Found
from scheduler.db import Conn

KINDS = ("task", "run", "spec", "calendar", "service", "token")


class Wanted(msgspec.Struct, frozen=True):
    """Which changes are listed; times in ms since 1970, `until` not included."""

    kinds: Sequence[str] = KINDS
    ways: Sequence[str] = ()
    """By which doors; none for all."""
    since: int | None = None
    until: int | None = None
    before: UUID | None = None
    """The entry that a page before ended with."""

    @property
    def values(self) -> dict[str, Any]:
        """The filter as a statement takes it: ids stand in the order of time."""
        first = UUID(int=max(self.since or 0, 0) << 80)
        end = audit.LAST if self.until is None else UUID(int=max(self.until, 0) << 80)
        before = end if self.before is None else min(end, self.before)
        kinds, ways = list(self.kinds), list(self.ways)
        return {"first": first, "before": before, "kinds": kinds, "ways": ways}


def _of_kind(kind: str) -> str:
    """Return the newest of a kind; where it is not wanted, nothing is read."""
    return f"""(
    SELECT {COLUMNS} FROM audit
    WHERE service_id = :service_id AND kind = '{kind}' AND act IS NULL
        AND id >= :first AND id < :before AND '{kind}' = ANY(:kinds)
        AND (way = ANY(:ways) OR cardinality(CAST(:ways AS text[])) = 0)
    ORDER BY id DESC LIMIT :most)"""


OF_KINDS = text(f"""
SELECT * FROM ({" UNION ALL ".join(map(_of_kind, KINDS))}) AS of_kinds
ORDER BY id DESC LIMIT :most
""")
BY_HAND = text(f"""
SELECT {COLUMNS} FROM audit
WHERE service_id = :service_id AND act IS NULL AND way <> 'api' AND way = ANY(:ways)
    AND id >= :first AND id < :before AND kind = ANY(:kinds)
ORDER BY id DESC LIMIT :most
""")
OF_ADMIN = text(f"""
SELECT {COLUMNS} FROM audit
WHERE kind IN ('service', 'token') AND id >= :first AND id < :before AND kind = ANY(:kinds)
    AND (way = ANY(:ways) OR cardinality(CAST(:ways AS text[])) = 0)
ORDER BY id DESC LIMIT :most
""")


async def of_service(conn: Conn, service_id: UUID, wanted: Wanted, most: int) -> list[Found]:
    """Return what was changed of a service, the newest first; what is part of an act as that."""
    by_hand = bool(wanted.ways) and "api" not in wanted.ways
    values = {**wanted.values, "service_id": service_id, "most": most}
    rows = await conn.execute(BY_HAND if by_hand else OF_KINDS, values)
    return [audit.read(row) for row in rows]


async def of_admin(conn: Conn, wanted: Wanted, most: int) -> list[Found]:
    """Return what was changed of services and their tokens, of all of them, the newest first."""
    rows = await conn.execute(OF_ADMIN, {**wanted.values, "most": most})
    return [audit.read(row) for row in rows]
