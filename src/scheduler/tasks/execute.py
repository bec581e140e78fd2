"""`POST /tasks/{id}/execute`: run a task by hand."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from typing import Any
from uuid import UUID

from litestar import Request, Response, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Schema
from litestar.params import FromPath

from scheduler import audit, db, executions, history, lines, planner, queue, quotas, services
from scheduler.db import Conn, utc
from scheduler.definition import Definition
from scheduler.engine import Engine
from scheduler.errors import Conflict, NotFound, Unauthorized, UserError, ValidationFailed
from scheduler.executions import Execution
from scheduler.openapi import asks
from scheduler.run import NewRun, Run, run_id
from scheduler.runs import model as runs
from scheduler.runs.model import ShownRun
from scheduler.service import Service
from scheduler.tasks import changes
from scheduler.tasks.permission import check_command

WAIT_SLACK_S = 0.5
"""Past a task's timeout, so that a run that timed out is still answered as ended."""
HELD_LOOK_S = 10.0
"""How often a run that this process holds is looked for besides: another may have freed it."""
LOOK_S, LOOK_GROWTH, LOOK_MOST_S = 0.05, 1.5, 5.0
"""How soon a run that nobody here holds is looked for, and how that grows."""

FLAG = Schema(enum=["true", "false", "1", "0"])

AnyRequest = Request[Any, Any, Any]
Caller = NamedDependency[Service]
Machine = NamedDependency[Engine]


@post(
    "/{task_id:str}/execute",
    status_code=200,
    summary="Run a task now",
    responses={202: ResponseSpec(ShownRun, generate_examples=False, description="Under way")},
    operation_class=asks(async_=FLAG, retry=FLAG),
)
async def execute_task(
    task_id: FromPath[str], request: AnyRequest, service: Caller, engine: Machine
) -> Response[Execution | ShownRun]:
    """Run a task by hand: wait for its end, or with `async=true` answer at once."""
    wait = not _flag(request, "async")
    nonce = request.headers.get("idempotency-key") or secrets.token_hex(16)
    retry = _flag(request, "retry")
    of, key, new = await executed(engine, service, task_id, nonce, retry=retry)
    if wait:
        execution = await _awaited(engine, of, key, request)
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


def _any(_of: Definition) -> None:
    """Let every task be run."""


@db.again
async def executed(
    engine: Engine, service: Service, task_id: str, nonce: str, *, retry: bool,
    check: Callable[[Definition], None] = _any,
) -> tuple[Definition, UUID, NewRun | None]:  # fmt: skip
    """Insert a run by hand, claimed by this process already, and hand it over at the commit.

    Return its task, its id, and what was inserted; None where the same key did so before. `check`
    is asked about the task, and raises where it is not the one to be run.
    """
    dispatcher, service_id, made = engine.dispatcher, service.id, None
    try:
        async with engine.database.api.begin() as conn:
            of, _ = await planner.locked(conn, service_id, task_id)
            check(of)
            made = run_id(of.key, of.bucket, "manual", 0, nonce)
            now = engine.clock.now_ms()
            if await runs.find(conn, service_id, made, now):
                return of, made, None
            check_command(of, service, engine.settings.commands)
            await _check_executable(conn, of, engine)
            await quotas.check_in_flight(conn, service)
            await quotas.take_runs(conn, service)
            await _check_secrets(conn, service_id, engine)
            # Where others may stand before it, it takes its place in the line.
            ours = engine.membership.fresh and not dispatcher.halted
            ours = ours and (of.lanes is None or of.overlap == "skip")
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
                lanes=of.lanes,
                priority=of.policy.priority,
            )
            await queue.enqueue(conn, [new], utc(now))
            await audit.write(conn, service_id, service.by, [changes.executed(of, made)], utc(now))
        _hand_over(engine, of, new)
    finally:
        if made is not None:
            dispatcher.unexpect(made)
    return of, made, new


def check_enabled(of: Definition) -> None:
    """Raise Conflict for a task that is disabled."""
    if of.status == "disabled":
        raise Conflict(f"task {of.id} is disabled; set its status to active or paused first")


async def _check_executable(conn: Conn, of: Definition, engine: Engine) -> None:
    engine.check_running()
    check_enabled(of)
    if of.overlap != "skip":
        return
    ahead = engine.settings.worker.ahead_seconds
    if await lines.lock_line(conn, of.line, utc(engine.clock.now_ms()), ahead):
        raise Conflict(
            f"a run of task {of.id} is under way, and its overlap is skip; "
            "wait for its end, or set overlap to allow or queue"
        )


async def _check_secrets(conn: Conn, service_id: UUID, engine: Engine) -> None:
    known = engine.runner.secrets
    await known.refresh(conn, [service_id])
    if known.of(service_id) is None and not known.broken(service_id):
        raise Unauthorized(services.UNKNOWN)


def _hand_over(engine: Engine, of: Definition, new: NewRun) -> None:
    if of.overlap == "skip":
        engine.recall(of.key)  # what is held for its next instant stands behind this one
    if new.claimed_by is None:
        engine.wake(new.at)
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
        priority=new.priority,
        lanes=new.lanes,
        scheduled_for=new.at,
        due=new.at,
        max_retries=new.max_retries,
        attempts=[],
        claimed_by=new.claimed_by,
    )
    engine.runner.equip(run, of)
    engine.dispatcher.hand_over(run)


async def _awaited(
    engine: Engine, of: Definition, key: UUID, request: AnyRequest
) -> Execution | None:
    """Wait for a run's end for as long as its caller does; None where it has not ended."""
    gone = asyncio.ensure_future(_gone(request))
    try:
        return await _ended(engine, of, key, gone)
    finally:
        gone.cancel()


async def _gone(request: AnyRequest) -> None:
    """Return once the caller has gone; what it sends of a body is let go of."""
    with contextlib.suppress(UserError):  # one that is too large is not read on
        while (await request.receive())["type"] != "http.disconnect":
            pass


async def _ended(
    engine: Engine, of: Definition, key: UUID, gone: asyncio.Future[None]
) -> Execution | None:
    """Wait for a run's end, at most the task's timeout; None where it has not ended.

    Nobody waits for what cannot start, because this process is halted. Where it holds the run,
    it is told of the end; the database is asked now and then.
    """
    loop, dispatcher = asyncio.get_running_loop(), engine.dispatcher
    deadline = loop.time() + of.timeout_s + WAIT_SLACK_S
    look, settled = LOOK_S, dispatcher.wait_for(key)
    wait = HELD_LOOK_S if dispatcher.holds(key) else 0.0
    try:
        while True:
            wait = max(min(wait, deadline - loop.time()), 0)
            either: list[asyncio.Future[Any]] = [settled, gone]
            await asyncio.wait(either, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                return None
            if settled.done():  # from before the look on: a retry may end meanwhile
                settled = dispatcher.wait_for(key)
            async with engine.database.api.connect() as conn:
                run = await history.get(conn, of.service_id, key)
            if run is not None:
                return executions.last_of(run, of.id)
            if loop.time() >= deadline or (dispatcher.halted and not dispatcher.has_begun(key)):
                return None
            if dispatcher.holds(key):
                wait = HELD_LOOK_S
            else:
                wait, look = look, min(look * LOOK_GROWTH, LOOK_MOST_S)
    finally:
        dispatcher.give_up(key, settled)
