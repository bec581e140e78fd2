"""Sources: where runs that are of no task get what they do. The rooms hand them to the machine."""

import re
from collections.abc import Mapping, Sequence
from typing import Protocol
from uuid import UUID

import structlog

from scheduler import db, metrics
from scheduler.db import Conn
from scheduler.definition import Definition
from scheduler.history import Finished
from scheduler.run import Run, Started, bucket_in

log = structlog.get_logger()

BROKEN = "an error inside the scheduler; see its log"
TRACE_ID = re.compile("[A-Za-z0-9]{16}")


class Source(Protocol):
    """What one kind of runs is asked of."""

    async def definitions(self, conn: Conn, runs: Sequence[Run]) -> Mapping[UUID, Definition]:
        """Map runs' ids to what they do, as if a task of that version had made them.

        What is left out is gone.
        """

    async def key(self, conn: Conn, service_id: UUID, trace_id: str) -> UUID | None:
        """Return the `task_key` of a service's runs that have this trace_id, or None."""


Sources = Mapping[str, Source]
"""By the kind of the run."""


async def of_claimed(conn: Conn, source: Source, runs: Sequence[Run]) -> Mapping[UUID, Definition]:
    """Map runs to what they do; one that breaks its source is damaged, and holds up no other."""
    try:
        return await source.definitions(conn, runs)
    except Exception as e:
        if db.is_away(e):
            raise
        if len(runs) > 1:
            middle = len(runs) // 2
            first = await of_claimed(conn, source, runs[:middle])
            return {**first, **await of_claimed(conn, source, runs[middle:])}
        (run,) = runs
        log.exception("a run broke its source", run=str(run.id), kind=run.kind)
        metrics.ERRORS.labels("run").inc()
        run.damaged = run.damaged or BROKEN
        return {}


async def definitions(
    sources: Sources, conn: Conn, service_id: UUID, runs: Sequence[Started | Finished]
) -> dict[UUID, Definition]:
    """Map those of a service's runs that are of no task to what they do now.

    What is left out is gone. Headers are as they are stored.
    """
    found = dict[UUID, Definition]()
    for kind, source in sources.items():
        some = [_claimed(run, service_id) for run in runs if run.kind == kind]
        if some:
            found |= await of_claimed(conn, source, some)
    return found


async def keys(sources: Sources, conn: Conn, service_id: UUID, trace_id: str) -> list[UUID]:
    """Return the keys that a trace_id stands for: one, or none."""
    if not TRACE_ID.fullmatch(trace_id):
        return []
    found = [await source.key(conn, service_id, trace_id) for source in sources.values()]
    return [key for key in found if key is not None]


def _claimed(run: Started | Finished, service_id: UUID) -> Run:
    """Return a run as whoever claims it has it."""
    return Run(
        id=run.id,
        bucket=bucket_in(run.id),
        service_id=service_id,
        task_key=run.task_key,
        task_id=run.task_id,
        kind=run.kind,
        version=run.version,
        overlap="allow",
        priority=0,
        scheduled_for=run.scheduled_for,
        due=run.due if isinstance(run, Started) else run.scheduled_for,
        max_retries=None,
        attempts=run.attempts,
        claimed_by=UUID(int=0),
    )
