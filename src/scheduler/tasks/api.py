"""`/tasks`: create, list, get, change, delete, execute, executions."""

import asyncio
import secrets
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, Router, delete, get, post, route
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from scheduler import clock, executions, history, planner, queue, state, task
from scheduler.db import Conn, utc
from scheduler.engine import Engine
from scheduler.errors import Conflict, NotFound, ValidationFailed
from scheduler.executions import Execution
from scheduler.run import NewRun, Run, run_id
from scheduler.runs import model as runs
from scheduler.runs.model import ShownRun
from scheduler.services import Service
from scheduler.standing import awaits
from scheduler.task import Definition
from scheduler.tasks import edit, model
from scheduler.tasks.listing import PAGE_MOST, list_tasks, shown_of, whole
from scheduler.tasks.model import CreatedTask, Task, TaskFields

EXECUTIONS = 10
WAIT_SLACK_S = 0.5
"""Past a task's timeout, so that a run that timed out is still answered as ended."""
LOOK_S = 0.5
"""How often a run that another replica performs is looked for."""

AnyRequest = Request[Any, Any, Any]
Caller = NamedDependency[Service]
Machine = NamedDependency[Engine]


def _window_ms(engine: Engine) -> int:
    return int(engine.settings.planner.window_seconds * 1000)


@post("/", summary="Create a task")
async def create_task(
    data: JSONBody[TaskFields],  # noqa: ARG001  (for the description)
    request: AnyRequest,
    service: Caller,
    engine: Machine,
) -> CreatedTask:
    """Create a task, and make its first runs."""
    fields = model.read_fields(await request.body())
    async with engine.database.api.begin() as conn:
        now = await clock.database_ms(conn)
        made = edit.new_task(fields, service.id, now)
        await task.create(conn, made.task)
        pending = made.at_once or awaits(made.task, now)
        await state.create(conn, [state.Row(made.task.line, made.task.created_at, pending)])
        earliest = await planner.create(
            conn, made.task, now, window_ms=_window_ms(engine), at_once=made.at_once
        )
    _wake(engine, earliest)
    shown = model.shown(made.task, "pending" if pending else "created", now)
    shown.message = "Task created successfully"
    return CreatedTask(task_id=shown.id, **msgspec.structs.asdict(shown))


def _wake(engine: Engine, earliest: int | None) -> None:
    if earliest is not None:
        engine.dispatcher.wake(earliest)
        engine.signals.wake(earliest)


@get("/{task_id:str}", summary="One task")
async def get_task(task_id: FromPath[str], service: Caller, engine: Machine) -> Task:
    """Return a task."""
    async with engine.database.api.connect() as conn:
        of = await task.get(conn, service.id, task_id)
        return (await shown_of(conn, service.id, [of], engine.clock.now_ms()))[0]


@route(
    "/{task_id:str}",
    http_method=["POST", "PUT", "PATCH"],
    status_code=200,
    summary="Change the fields sent of a task",
)
async def change_task(
    task_id: FromPath[str],
    data: JSONBody[TaskFields],  # noqa: ARG001  (for the description)
    request: AnyRequest,
    service: Caller,
    engine: Machine,
) -> Task:
    """Change a task; what was due before the edit stays due."""
    fields = model.read_fields(await request.body())
    async with engine.database.api.begin() as conn:
        before, planned_until = await _locked(conn, service.id, task_id)
        made = edit.edited(fields, before, await clock.database_ms(conn))
        await task.change(conn, made.task)
        earliest = await planner.replan(
            conn,
            before,
            made.task,
            planned_until,
            window_ms=_window_ms(engine),
            at_once=made.at_once,
        )
        now = engine.clock.now_ms()
        shown = (await shown_of(conn, service.id, [made.task], now))[0]
        await state.stand(conn, [(made.task.line, shown.state in ("pending", "running"))])
    _recall(engine, made.task.key)
    engine.standing.recheck([made.task.key])  # its live runs may be taken back
    _wake(engine, earliest)
    return shown


async def _locked(conn: Conn, service_id: UUID, task_id: str) -> tuple[Definition, int]:
    """Lock a task against the planner and other edits, and read it under the lock."""
    seen = await task.get(conn, service_id, task_id)
    planned_until = await planner.lock(conn, seen.line)
    current = await task.get(conn, service_id, task_id)
    if planned_until is None or current.key != seen.key:
        raise NotFound(f"there is no task {task_id}")
    return current, planned_until


def _recall(engine: Engine, key: UUID) -> None:
    engine.dispatcher.recall(key)
    engine.signals.recall(key)


@delete("/{task_id:str}", status_code=204, summary="Delete a task and its future runs")
async def delete_task(task_id: FromPath[str], service: Caller, engine: Machine) -> None:
    """Delete a task; what runs ends and is recorded, what is overdue ends cancelled."""
    async with engine.database.api.begin() as conn:
        of, _ = await _locked(conn, service.id, task_id)
        await queue.remove(conn, of.line, utc(await clock.database_ms(conn)))
        await planner.remove(conn, of.line)
        await task.remove(conn, of.line)
        await state.remove(conn, of.line)
    _recall(engine, of.key)


class Executions(msgspec.Struct):
    """A page of a task's attempts."""

    total_count: int
    page_number: int
    count: int
    records: list[Execution]


@get("/{task_id:str}/executions", summary="A task's executions, the newest first")
async def list_executions(
    task_id: FromPath[str], request: AnyRequest, service: Caller, engine: Machine
) -> Executions:
    """Return a page of executions; a bad page is 0, a bad count 10."""
    page = _lenient(request.query_params.get("pageNumber"), 0, 0, 10**9)
    count = _lenient(request.query_params.get("count"), EXECUTIONS, 1, PAGE_MOST)
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
        return whole(sent, "", default, least, most)
    except ValidationFailed:
        return default


@post("/{task_id:str}/execute", status_code=200, summary="Run a task now")
async def execute_task(
    task_id: FromPath[str], request: AnyRequest, service: Caller, engine: Machine
) -> Response[Execution | ShownRun]:
    """Run a task by hand: wait for its end, or with `async=true` answer at once."""
    wait = not _flag(request, "async")
    nonce = request.headers.get("idempotency-key") or secrets.token_hex(16)
    retry = _flag(request, "retry")
    of, key, new = await _executed(engine, service.id, task_id, nonce, retry=retry)
    if wait:
        execution = await _ended(engine, of, key)
        if execution is not None:
            return Response(execution, status_code=200)
    elif new is not None:
        return Response(runs.of_new(new, of), status_code=202)
    async with engine.database.api.connect() as conn:
        run = await runs.find(conn, service.id, key, engine.clock.now_ms())
    if run is None:
        raise NotFound("the run was taken back before it started")
    return Response(run, status_code=202)


def _flag(request: AnyRequest, name: str) -> bool:
    sent = (request.query_params.get(name) or "false").lower()
    if sent not in ("true", "false", "1", "0"):
        raise ValidationFailed.of(name, "must be true or false")
    return sent in ("true", "1")


async def _executed(
    engine: Engine, service_id: UUID, task_id: str, nonce: str, *, retry: bool
) -> tuple[Definition, UUID, NewRun | None]:
    """Insert a run by hand, claimed by this process already, and hand it over at the commit.

    Return its task, its id, and what was inserted; None where the same key did so before.
    """
    dispatcher, made = engine.dispatcher, None
    try:
        async with engine.database.api.begin() as conn:
            of, _ = await _locked(conn, service_id, task_id)
            made = run_id(of.key, of.bucket, "manual", 0, nonce)
            now = engine.clock.now_ms()
            if await runs.find(conn, service_id, made, now):
                return of, made, None
            await _check_executable(conn, of, engine)
            ours = engine.membership.fresh and of.overlap != "queue"
            new = NewRun(
                id=made,
                bucket=of.bucket,
                service_id=service_id,
                task_key=of.key,
                task_id=of.id,
                kind="manual",
                version=of.version,
                overlap=of.overlap,
                at=now,
                max_retries=None if retry else 0,
                claimed_by=dispatcher.expect(made) if ours else None,
            )
            await queue.enqueue(conn, [new], utc(now))
        _hand_over(engine, of, new)
    finally:
        if made is not None:
            dispatcher.unexpect(made)
    return of, made, new


async def _check_executable(conn: Conn, of: Definition, engine: Engine) -> None:
    if of.status == "disabled":
        raise Conflict(f"task {of.id} is disabled; set its status to active or paused first")
    if of.overlap != "skip":
        return
    ahead = engine.settings.worker.ahead_seconds
    if await queue.lock_line(conn, of.line, utc(engine.clock.now_ms()), ahead):
        raise Conflict(
            f"a run of task {of.id} is under way, and its overlap is skip; "
            "wait for its end, or set overlap to allow or queue"
        )


def _hand_over(engine: Engine, of: Definition, new: NewRun) -> None:
    if of.overlap == "skip":
        _recall(engine, of.key)  # what is held for its next instant stands behind this one
    if new.claimed_by is None:
        _wake(engine, new.at)
        return
    run = Run(
        id=new.id,
        bucket=new.bucket,
        service_id=new.service_id,
        task_key=new.task_key,
        task_id=new.task_id,
        kind=new.kind,
        version=new.version,
        overlap=new.overlap,
        priority=0,
        scheduled_for=new.at,
        due=new.at,
        max_retries=new.max_retries,
        attempts=[],
        claimed_by=new.claimed_by,
    )
    engine.runner.equip(run, of)
    engine.dispatcher.hand_over(run)


async def _ended(engine: Engine, of: Definition, key: UUID) -> Execution | None:
    """Wait for a run's end, at most the task's timeout; None where it has not ended."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + of.timeout_s + WAIT_SLACK_S
    wait = 0.0 if engine.dispatcher.holds(key) is None else LOOK_S
    try:
        while True:
            settled = engine.dispatcher.wait_for(key)
            left = deadline - loop.time()
            await asyncio.wait([settled], timeout=min(wait, max(left, 0)))
            async with engine.database.api.connect() as conn:
                run = await history.get(conn, of.service_id, key)
            if run is not None:
                return executions.last_of(run, of.id)
            if left <= 0:
                return None
            wait = LOOK_S
    finally:
        engine.dispatcher.give_up(key)


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
    ],
)
