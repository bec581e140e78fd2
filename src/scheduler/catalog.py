"""What the database says of itself: its version, its schema, and how large it is by estimate.

Sizes are those of the last vacuum, as the planner has them: to ask the disk takes longer, the more
there is.
"""

from collections.abc import Mapping

import msgspec
from sqlalchemy import text

from scheduler.db import Conn

SETTINGS = ("fsync", "full_page_writes", "synchronous_commit", "autovacuum")
"""What should be on."""
READ = text(f"""
SELECT current_setting('server_version') AS version,
       (SELECT max(version_num) FROM alembic_version) AS revision,
       {", ".join(f"current_setting('{name}') AS {name}" for name in SETTINGS)},
       c.relname AS name, i.inhrelid IS NOT NULL AS part, greatest(c.reltuples, 0) AS rows,
       (c.relpages + coalesce(t.relpages, 0) + coalesce(x.pages, 0))
           * CAST(current_setting('block_size') AS bigint) AS bytes
FROM pg_class c
LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND i.inhparent = CAST('history' AS regclass)
LEFT JOIN LATERAL (
    SELECT sum(k.relpages) AS pages FROM pg_index n JOIN pg_class k ON k.oid = n.indexrelid
    WHERE n.indrelid = c.oid) AS x ON true
WHERE c.relkind = 'r' AND c.relnamespace =
    (SELECT relnamespace FROM pg_class WHERE oid = CAST('history' AS regclass))
ORDER BY c.relname
""")


class Heap(msgspec.Struct, frozen=True):
    """A table, or a week of history; `bytes` with its indexes."""

    name: str
    rows: int
    bytes: int


class Catalog(msgspec.Struct, frozen=True):
    """A database as it was at its last vacuum."""

    version: str
    """Of Postgres."""
    revision: str | None
    """Of the schema."""
    settings: Mapping[str, str]
    tables: list[Heap]
    weeks: list[Heap]
    """Of history, the oldest first."""

    @property
    def bytes(self) -> int:
        """What all of it takes."""
        return sum(each.bytes for each in (*self.tables, *self.weeks))


async def read(conn: Conn) -> Catalog:
    """Return what the database says of itself: one statement on its catalog."""
    rows = (await conn.execute(READ)).all()
    first = rows[0]
    return Catalog(
        first.version.split(" ")[0],
        first.revision,
        {name: getattr(first, name) for name in SETTINGS},
        [Heap(row.name, int(row.rows), int(row.bytes)) for row in rows if not row.part],
        [Heap(row.name, int(row.rows), int(row.bytes)) for row in rows if row.part],
    )
