"""Where runs of kind `process` get what they do: the call, or what tells of its end."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from scheduler.db import Conn, Database
from scheduler.definition import Definition
from scheduler.processes import model
from scheduler.run import Run


class ProcessSource:
    """Reads processes as their runs are claimed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def definitions(self, conn: Conn, runs: Sequence[Run]) -> Mapping[UUID, Definition]:
        """Map runs' ids to what they do."""
        raise NotImplementedError(conn, runs)

    async def key(self, conn: Conn, service_id: UUID, trace_id: str) -> UUID | None:
        """Return the key of a service's process, or None."""
        return await model.key_of(conn, service_id, trace_id)
