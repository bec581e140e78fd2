"""Making a process: its row and its run, in one transaction."""

import hashlib
from uuid import UUID

from scheduler import db, logs, queue, quotas, services
from scheduler.db import utc
from scheduler.engine import Engine
from scheduler.processes import body, model
from scheduler.processes.model import Process
from scheduler.run import NewRun
from scheduler.service import Service


def trace_id_of(service_id: UUID, key: str | None) -> str:
    """Return a process's trace_id: 16 letters and digits, for the same key always the same."""
    if not key:
        return logs.trace_id()
    seed = service_id.bytes + key.encode("utf-8", "surrogateescape")
    return (
        hashlib.blake2b(seed, digest_size=16, person=b"process")
        .digest()
        .translate(logs.LETTERS)
        .decode()
    )


async def create(engine: Engine, service: Service, sent: bytes, key: str | None) -> str:
    """Make the process that a body asks for, and return its trace_id; what is there, stays.

    Raises UserError.
    """
    quotas.check_kept(service, service.kept_bytes)
    trace_id = trace_id_of(service.id, key)
    most = engine.settings.processes.body_max_bytes
    of = body.read(sent, service.id, trace_id, engine.clock.now_ms(), most)
    if await _insert(engine, service, of):
        engine.wake(of.scheduled_at)
    return trace_id


@db.again
async def _insert(engine: Engine, service: Service, of: Process) -> bool:
    async with engine.database.api.begin() as conn:
        await services.hold(conn, service.id)
        if not await model.insert(conn, of, engine.database.vault):
            return False
        await quotas.check_in_flight(conn, service)
        await quotas.take_runs(conn, service)
        await queue.enqueue(conn, [run_of(of)], utc(of.created_at))
    return True


def run_of(of: Process) -> NewRun:
    """Return the run of a process, to be made with it."""
    return NewRun(
        id=of.run_id,
        bucket=of.bucket,
        service_id=of.service_id,
        task_key=of.key,
        task_id=of.trace_id,
        kind="process",
        version=1,
        overlap="allow",
        at=of.scheduled_at,
        priority=of.priority,
    )
