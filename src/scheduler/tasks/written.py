"""Writing a task: what a body makes of it, its row, its plan and its first runs in one go."""

from collections.abc import Callable

import msgspec

from scheduler import clock, db, edits, planner, quotas, services, state, task
from scheduler.definition import Definition
from scheduler.engine import Engine
from scheduler.service import Service
from scheduler.standing import awaits, ended_ahead, limited
from scheduler.tasks import edit, listing, model
from scheduler.tasks.keeping import with_calendars
from scheduler.tasks.model import Task, TaskFields


class Written(msgspec.Struct):
    """A task as it was written, and as it is answered."""

    of: Definition
    shown: Task


@db.again
async def created(engine: Engine, service: Service, fields: TaskFields) -> Written:
    """Create a task, and make its first runs. Raises."""
    async with engine.database.api.begin() as conn:
        now = await services.hold(conn, service.id)
        vault = engine.database.vault
        made = edit.new_task(fields, service.id, now, engine.settings.tasks, vault)
        made.task = await with_calendars(conn, made.task)
        await quotas.check_tasks(conn, service)
        await task.create(conn, made.task)
        earliest = await planner.create(
            conn, made.task, now, window_ms=engine.window_ms, at_once=made.at_once
        )
        planned = (await limited(conn, service.id, [made.task])).get(made.task.key)
        pending = awaits(made.task, now, planned, at_once=made.at_once)
        await state.create(conn, [state.Row(made.task.line, made.task.created_at, pending)])
    engine.wake(earliest)
    engine.resume_at(made.task.paused_until)
    spent = None if planned is None else (planned.runs, planned.until)
    shown = model.shown(made.task, "pending" if pending else "created", now, spent)
    return Written(made.task, shown)


def _any(_of: Definition) -> None:
    """Let every task be changed."""


@db.again
async def changed(
    engine: Engine,
    service: Service,
    task_id: str,
    fields: TaskFields,
    *,
    check: Callable[[Definition], None] = _any,
) -> Written:
    """Change the fields sent of a task, and its future runs with it. Raises.

    `check` is asked about the task as it stands, which nobody else changes meanwhile; it raises
    where it is not one to be changed.
    """
    async with engine.database.api.begin() as conn:
        before, planned = await planner.locked(conn, service.id, task_id)
        check(before)
        asked, spent = await clock.database_ms(conn), (planned.runs, planned.until)
        gone = (await ended_ahead(conn, service.id, [before], asked)).get(before.key, ())
        vault = engine.database.vault
        made = edit.edited(fields, before, asked, engine.settings.tasks, spent, gone, vault)
        made.task = await with_calendars(conn, made.task, before.bounds.calendars)
        await task.change(conn, made.task)
        earliest = await edits.replan(
            conn,
            before,
            made.task,
            planned,
            window_ms=engine.window_ms,
            at_once=made.at_once,
            asked=asked,
        )
        shown = await listing.stand(conn, made.task, engine.clock.now_ms())
    engine.recall(made.task.key)
    engine.wake(earliest)
    engine.resume_at(made.task.paused_until)
    engine.standing.recheck([made.task.key])  # its live runs may be taken back
    return Written(made.task, shown)
