"""`/tasks/{id}/schedule`: one run at a time of one's own."""

from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from scheduler import (
    asked,
    audit,
    clock,
    db,
    edits,
    lines,
    planner,
    queue,
    quotas,
    services,
    state,
    task,
)
from scheduler.db import Conn, rfc3339, utc
from scheduler.definition import Definition
from scheduler.engine import Engine
from scheduler.errors import ValidationFailed
from scheduler.instant import FIRST
from scheduler.openapi import asks
from scheduler.planning import Planned
from scheduler.run import NewRun, run_id
from scheduler.runs import model as runs
from scheduler.service import Service
from scheduler.tasks import changes, edit, listing
from scheduler.tasks.execute import check_enabled
from scheduler.tasks.model import TaskFields
from scheduler.tasks.permission import check_command
from scheduler.triggers import Once

AnyRequest = Request[Any, Any, Any]


class At(msgspec.Struct, forbid_unknown_fields=True):
    """When to run: RFC 3339; `at` is a shorter name for `scheduled_at`."""

    scheduled_at: str | None = None
    at: str | None = None


class Scheduled(msgspec.Struct):
    """The run that a schedule made, or found made already."""

    message: str
    task_id: str
    scheduled_at: str | None
    run_id: str | None


@post(
    "/{task_id:str}/schedule",
    status_code=200,
    summary="Run a task at a time of one's own",
    operation_class=asks(At),
)
@db.again
async def schedule_task(
    task_id: FromPath[str],
    request: AnyRequest,
    service: NamedDependency[Service],
    engine: NamedDependency[Engine],
) -> Scheduled:
    """Set when a task runs; one with a recurring trigger gets a run besides. The past is now."""
    at = _at(await request.body())
    async with engine.database.api.begin() as conn:
        of, planned = await planner.locked(conn, service.id, task_id)
        check_command(of, service, engine.settings.commands)
        check_enabled(of)
        moves = of.trigger is None or isinstance(of.trigger, Once)
        if moves:
            key, earliest = await _moved(conn, service, of, planned, at, engine)
        else:
            key, earliest = await _besides(conn, service, of, at)
    engine.recall(of.key)
    engine.wake(earliest)
    if moves:
        engine.standing.recheck([of.key])  # a run that is held may be taken back
    return Scheduled(
        message="Task scheduled successfully",
        task_id=of.id,
        scheduled_at=rfc3339(at),
        run_id=None if key is None else str(key),
    )


def _at(sent_body: bytes) -> int:
    sent = asked.body(sent_body, At)
    text = sent.scheduled_at or sent.at
    if not text:
        raise ValidationFailed.of("scheduled_at", "is needed, like 2027-01-31T09:00:00Z")
    try:
        at = asked.instant(text)
    except ValueError as e:
        raise ValidationFailed.of("scheduled_at", str(e)) from None
    if at == FIRST:
        raise ValidationFailed.of("scheduled_at", "is needed, like 2027-01-31T09:00:00Z")
    return at


async def _moved(
    conn: Conn, service: Service, of: Definition, planned: Planned, at: int, engine: Engine
) -> tuple[UUID | None, int | None]:
    """Give a task without a recurring trigger its time; return the run's id and what is due."""
    fields = TaskFields(scheduled_at=rfc3339(at))
    asked = await services.hold(conn, of.service_id)
    made = edit.edited(fields, of, asked, engine.settings.tasks, vault=engine.database.vault)
    if made.task.trigger == of.trigger and at <= asked:
        return await lines.newest(conn, of.line, utc(asked)), None
    if made.task.trigger != of.trigger:
        await quotas.take_runs(conn, service)
    await task.change(conn, made.task)
    await audit.write(conn, service.id, service.by, changes.edited(of, made.task), utc(asked))
    # However far ahead: the run is there from now on, to be looked at and to be cancelled.
    earliest = await edits.replan(
        conn,
        of,
        made.task,
        planned,
        window_ms=engine.window_ms,
        at_once=made.at_once,
        asked=asked,
        until=at,
    )
    await listing.stand(conn, made.task, asked)
    if made.at_once:  # it runs now, or a pause has passed it over
        return await lines.newest(conn, of.line, utc(await clock.database_ms(conn))), earliest
    key = run_id(of.key, of.bucket, "task", at)
    return key if await runs.find(conn, of.service_id, key, asked) else None, earliest


async def _besides(
    conn: Conn, service: Service, of: Definition, at: int
) -> tuple[UUID, int | None]:
    """Insert one run more; the same time twice is the same run."""
    # Not the word of a run by hand: an Idempotency-Key may be any text, also this one.
    key = run_id(of.key, of.bucket, "schedule", 0, f"at {at}")
    now = await services.hold(conn, service.id)
    if await runs.find(conn, of.service_id, key, now):
        return key, None
    await quotas.take_runs(conn, service)
    new = NewRun(
        id=key,
        bucket=of.bucket,
        service_id=of.service_id,
        task_key=of.key,
        task_id=of.id,
        kind="manual",
        version=of.version,
        overlap=of.overlap,
        at=max(at, now),
        lanes=of.lanes,
        priority=of.policy.priority,
    )
    await queue.enqueue(conn, [new], utc(now))
    await state.stand_one(conn, of.line, pending=True)
    return key, new.at
