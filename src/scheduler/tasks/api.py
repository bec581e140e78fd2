"""`/tasks`: create, list, get, change, delete, execute, executions."""

from typing import Any

import msgspec
from litestar import Request, Router, delete, get, post, route
from litestar.di import NamedDependency
from litestar.openapi.spec import Schema
from litestar.params import FromPath

from scheduler import (
    asked,
    clock,
    db,
    edits,
    executions,
    lines,
    planner,
    quotas,
    services,
    state,
    task,
    versions,
)
from scheduler.db import utc
from scheduler.engine import Engine
from scheduler.errors import ValidationFailed
from scheduler.executions import Execution
from scheduler.openapi import asks
from scheduler.service import Service
from scheduler.standing import awaits, ended_ahead, limited
from scheduler.tasks import edit, listing, model
from scheduler.tasks.backfill import backfill_task
from scheduler.tasks.bulk import create_tasks
from scheduler.tasks.execute import execute_task
from scheduler.tasks.listing import list_tasks
from scheduler.tasks.model import CreatedTask, Task, TaskFields
from scheduler.tasks.preview import preview_new_task, preview_task
from scheduler.tasks.schedule import schedule_task
from scheduler.tasks.scheduled import list_scheduled

EXECUTIONS = 10

AnyRequest = Request[Any, Any, Any]
Caller = NamedDependency[Service]
Machine = NamedDependency[Engine]


@post("/", summary="Create a task", operation_class=asks(TaskFields))
@db.again
async def create_task(
    request: AnyRequest,
    service: Caller,
    engine: Machine,
) -> CreatedTask:
    """Create a task, and make its first runs."""
    fields = model.read_fields(await request.body())
    async with engine.database.api.begin() as conn:
        now = await services.hold(conn, service.id)
        vault = engine.database.vault
        made = edit.new_task(fields, service.id, now, engine.settings.tasks, vault)
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
    shown.message = "Task created successfully"
    return CreatedTask(task_id=shown.id, **msgspec.structs.asdict(shown))


@get("/{task_id:str}", summary="One task")
async def get_task(task_id: FromPath[str], service: Caller, engine: Machine) -> Task:
    """Return a task."""
    async with engine.database.api.connect() as conn:
        of = await task.get(conn, service.id, task_id)
        return (await listing.shown_of(conn, service.id, [of], engine.clock.now_ms()))[0]


@route(
    "/{task_id:str}",
    http_method=["POST", "PUT", "PATCH"],
    status_code=200,
    summary="Change the fields sent of a task",
    operation_class=asks(TaskFields),
)
async def change_task(
    task_id: FromPath[str],
    request: AnyRequest,
    service: Caller,
    engine: Machine,
) -> Task:
    """Change a task; what was due before the edit stays due."""
    return await changed(engine, service, task_id, model.read_fields(await request.body()))


@db.again
async def changed(engine: Engine, service: Service, task_id: str, fields: TaskFields) -> Task:
    """Change the fields sent of a task, and its future runs with it. Raises."""
    async with engine.database.api.begin() as conn:
        before, planned = await planner.locked(conn, service.id, task_id)
        asked, spent = await clock.database_ms(conn), (planned.runs, planned.until)
        gone = (await ended_ahead(conn, service.id, [before], asked)).get(before.key, ())
        vault = engine.database.vault
        made = edit.edited(fields, before, asked, engine.settings.tasks, spent, gone, vault)
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
    return shown


@delete("/{task_id:str}", status_code=204, summary="Delete a task and its future runs")
@db.again
async def delete_task(task_id: FromPath[str], service: Caller, engine: Machine) -> None:
    """Delete a task; what runs ends and is recorded, what is overdue ends cancelled."""
    async with engine.database.api.begin() as conn:
        of, _ = await planner.locked(conn, service.id, task_id)
        now = utc(await clock.database_ms(conn))
        await lines.remove(conn, of.line, now)
        await planner.remove(conn, of.line)
        await versions.keep(conn, of, None, now)
        await task.remove(conn, of.line)
        await state.remove(conn, of.line)
    engine.recall(of.key)


class Executions(msgspec.Struct):
    """A page of a task's attempts."""

    total_count: int
    page_number: int
    count: int
    records: list[Execution]


@get(
    "/{task_id:str}/executions",
    summary="A task's executions, the newest first",
    description=(
        "Runs stand by `scheduled_for`, the newest first, and the attempts of a run the last "
        "first: one that a replay made stands with its run."
    ),
    operation_class=asks(
        pageNumber=Schema(description="From 0; what is no page is 0."),
        count=Schema(description=f"At most {asked.PAGE_MOST}; what is no count is {EXECUTIONS}."),
    ),
)
async def list_executions(
    task_id: FromPath[str], request: AnyRequest, service: Caller, engine: Machine
) -> Executions:
    """Return a page of executions; a bad page is 0, a bad count 10."""
    page = _lenient(request.query_params.get("pageNumber"), 0, 0, 10**9)
    count = _lenient(request.query_params.get("count"), EXECUTIONS, 1, asked.PAGE_MOST)
    async with engine.database.api.connect() as connection:
        # One snapshot: a run that is settled between two of them would be counted twice.
        conn = await connection.execution_options(isolation_level="REPEATABLE READ")
        of = await task.get(conn, service.id, task_id)
        total, records = await executions.page(
            conn, of.line, of.id, utc(engine.clock.now_ms()), page=page, count=count
        )
    return Executions(total, page, count, records)


def _lenient(sent: str | None, default: int, least: int, most: int) -> int:
    try:
        return asked.whole(sent, "", default, least, most)
    except ValidationFailed:
        return default


router = Router(
    "/tasks",
    route_handlers=[
        create_task,
        list_tasks,
        get_task,
        change_task,
        delete_task,
        list_executions,
        execute_task,
        create_tasks,
        schedule_task,
        list_scheduled,
        preview_task,
        preview_new_task,
        backfill_task,
    ],
)
