"""`/tasks`: create, list, get, change, delete, execute, executions."""

from typing import Any

import msgspec
from litestar import Request, Router, delete, get, post, route
from litestar.di import NamedDependency
from litestar.openapi.spec import Schema
from litestar.params import FromPath

from scheduler import asked, executions, task
from scheduler.db import utc
from scheduler.engine import Engine
from scheduler.errors import ValidationFailed
from scheduler.executions import Execution
from scheduler.openapi import asks
from scheduler.service import Service
from scheduler.tasks import listing, model, written
from scheduler.tasks.backfill import backfill_task
from scheduler.tasks.bulk import create_tasks
from scheduler.tasks.execute import execute_task
from scheduler.tasks.explain import explain_task
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
async def create_task(
    request: AnyRequest,
    service: Caller,
    engine: Machine,
) -> CreatedTask:
    """Create a task, and make its first runs."""
    made = await written.created(engine, service, model.read_fields(await request.body()))
    shown = made.shown
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
    fields = model.read_fields(await request.body())
    return (await written.changed(engine, service, task_id, fields)).shown


@delete("/{task_id:str}", status_code=204, summary="Delete a task and its future runs")
async def delete_task(task_id: FromPath[str], service: Caller, engine: Machine) -> None:
    """Delete a task; what runs ends and is recorded, what is overdue ends cancelled."""
    await written.removed(engine, service, task_id)


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
        explain_task,
    ],
)
