"""Tasks that hang on something else: those that name a calendar, and those that call a spec."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import text

from scheduler.db import Conn, walk_in_order
from scheduler.definition import Definition
from scheduler.task import COLUMNS, definition
from scheduler.tasklist import MARKED

# Those that name a calendar -----------------------------------------------------------------------

CALENDARS = "(bounds -> 'calendars')"
NAMING = text(f"""
SELECT id FROM task
WHERE service_id = :service_id AND bounds ? 'calendars'
  AND {MARKED.format(mark="('s' || substr(CAST(service_id AS text), 29))", tags=CALENDARS)}
      @> ARRAY[CAST(:marked AS text)]
LIMIT :most
""")


async def naming(conn: Conn, service_id: UUID, calendar: str, most: int) -> list[str]:
    """Return the ids of some of a service's tasks that name a calendar."""
    marked = f's{str(service_id)[28:]}"{calendar}"'  # as the index has it
    values = {"service_id": service_id, "marked": marked, "most": most}
    return list((await conn.execute(NAMING, values)).scalars())


KEEPING_CLEAR = text(NAMING.text.replace("SELECT id", f"SELECT {COLUMNS}"))


async def keeping_clear(conn: Conn, service_id: UUID, calendar: str, most: int) -> list[Definition]:
    """Return some of a service's tasks that name a calendar."""
    marked = f's{str(service_id)[28:]}"{calendar}"'
    values = {"service_id": service_id, "marked": marked, "most": most}
    return [definition(row) for row in await conn.execute(KEEPING_CLEAR, values)]


# Those that call a spec ---------------------------------------------------------------------------

CALLING = text(f"""
SELECT {COLUMNS} FROM task
WHERE service_id = :service_id AND action ->> 'kind' = 'operation'
  AND action ->> 'service' = :spec AND (created_at, key) > (:created_at, :key)
ORDER BY created_at, key LIMIT :most
""")


async def calling(
    conn: Conn, service_id: UUID, spec: str, after: tuple[datetime, UUID], most: int
) -> list[Definition]:
    """Return a service's tasks that call a spec, by its name, the oldest first, after a place."""
    values = {"service_id": service_id, "spec": spec, "most": most}
    values |= {"created_at": after[0], "key": after[1]}
    await walk_in_order(conn)
    return [definition(row) for row in await conn.execute(CALLING, values)]
