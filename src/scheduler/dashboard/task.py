"""The page of one task: what it is, when it is due next, its runs, and what can be done."""

import secrets
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath

from scheduler import history, ledger, lines, task
from scheduler.actions import Command
from scheduler.dashboard import door, page
from scheduler.dashboard.door import Visitor
from scheduler.dashboard.tasks import Last, stands
from scheduler.db import utc
from scheduler.definition import Definition
from scheduler.engine import Engine
from scheduler.errors import UserError, ValidationFailed
from scheduler.ledger import END_STATES, Query
from scheduler.run import Started
from scheduler.runs import model as runs
from scheduler.runs.api import cursor_of, read_cursor
from scheduler.runs.model import ShownRun
from scheduler.standing import awaits, ended_ahead, limited
from scheduler.tasks import execute, preview, written
from scheduler.tasks.model import Spent, Task, TaskFields
from scheduler.triggers import Cron, Rrule

RUNS = 25
NEXT = 5

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Visitor]
Machine = NamedDependency[Engine]


class Seen(msgspec.Struct, frozen=True):
    """A task as its page shows it."""

    task: Task
    of: Definition
    next: preview.Preview
    runs: list[ShownRun]
    following: str | None
    """The cursor of the next page of runs."""


@get("/dashboard/tasks/{task_id:str}", include_in_schema=False)
async def show_task(
    task_id: FromPath[str], request: AnyRequest, visitor: Who, engine: Machine
) -> Response[Any]:
    """Return a task: what it is, when it is due next, and its runs."""
    return await _task_page(task_id, request, visitor, engine)


async def _task_page(
    task_id: str,
    request: AnyRequest,
    visitor: Visitor,
    engine: Engine,
    status: int = 200,
    said: str = "",
) -> Response[Any]:
    cursor = request.query_params.get("after") or None
    now = engine.clock.now_ms()
    seen = await _seen(engine, visitor, task_id, cursor, now)
    return await page.large(
        "task.html",
        status=status,
        visitor=visitor,
        now=now,
        task=seen.task,
        next=seen.next,
        zoned=isinstance(seen.of.trigger, Cron | Rrule) and seen.next.timezone != "UTC",
        runs=seen.runs,
        first=cursor is None,
        after=f"?{urlencode({'after': seen.following})}" if seen.following else None,
        policy=_policy(seen.of, engine),
        nonce=secrets.token_hex(16),
        said=said or SAID.get(request.query_params.get("done", ""), ""),
        wrong=bool(said),
    )


async def _seen(
    engine: Engine, visitor: Visitor, task_id: str, cursor: str | None, now: int
) -> Seen:
    service_id = visitor.service.id
    after = read_cursor(cursor) if cursor else None
    async with engine.database.api.connect() as connection:
        conn = await connection.execution_options(isolation_level="REPEATABLE READ")
        of = await task.get(conn, service_id, task_id)
        live = await lines.of_task(conn, of.line, utc(now))
        plans = await limited(conn, service_id, [of])
        gone = (await ended_ahead(conn, service_id, [of], now)).get(of.key, ())
        query = Query(service_id=service_id, keys=(of.key,), states=frozenset(END_STATES))
        ended = await ledger.page(conn, query, now, after=after, count=RUNS)
        planned = plans.get(of.key)
        stance: bool | None = True if live else None
        lasts: dict[UUID, Last] = {}
        if not live and not awaits(of, now, planned, gone):
            stance = (await lines.live(conn, service_id, [of.key], utc(now))).get(of.key)
            lasts = await history.lasts(conn, service_id, [of.key])
    shown = [] if after else [runs.of_live(run, service_id, now) for run in live[:RUNS]]
    shown += [_of_ended(run, service_id) for _, run in ended.found]
    spent = None if planned is None else (planned.runs, planned.until)
    comes = of.status != "disabled" and not of.damaged
    coming = of if comes else msgspec.structs.replace(of, trigger=None)
    return Seen(
        stands(of, now, stance, planned, gone, lasts),
        of,
        await _next(coming, now, spent),
        shown,
        cursor_of(ended.following) if ended.following else None,
    )


async def _next(of: Definition, now: int, spent: Spent | None) -> preview.Preview:
    """Return the next instants; where those take long to find, none: the rest is worth a page."""
    try:
        return await preview.yields(of, now, NEXT, spent)
    except ValidationFailed:
        return preview.Preview("UTC", preview.describe(of), [])


def _of_ended(run: Any, service_id: Any) -> ShownRun:
    if isinstance(run, Started):  # no live state was asked for
        raise TypeError
    return runs.of_finished(run, service_id)


def _policy(of: Definition, engine: Engine) -> dict[str, str]:
    """Return how a task's runs are performed, in words; what is the default says so."""
    policy, retries = of.policy, of.max_retries(engine.settings.worker.max_retries)
    said = {
        "Timeout": f"{of.timeout_s:.15g} s",
        "Retries": f"{retries} after the first try",
        "Overlap": of.overlap,
        "Misfire": f"{policy.misfire or 'latest'}, after {of.misfire_grace_ms / 1000:.15g} s",
        "Success": f"{'exit code ' if isinstance(of.action, Command) else ''}{of.expected}",
    }
    if policy.max_age_seconds is not None:
        said["Starts within"] = f"{policy.max_age_seconds:.15g} s"
    if policy.max_concurrency is not None:
        said["At once"] = f"{policy.max_concurrency} at most"
    if policy.priority:
        said["Priority"] = str(policy.priority)
    return said


# What can be done --------------------------------------------------------------------------------

SAID = {
    "run": "A run was started by hand. Load the page again to see how it ends.",
    "pause": "The task is paused: instants that pass are not run.",
    "resume": "The task is active again.",
}


@post("/dashboard/tasks/{task_id:str}/{act:str}", status_code=200, include_in_schema=False)
async def act_on_task(
    task_id: FromPath[str],
    act: FromPath[str],
    request: AnyRequest,
    state: State,
    visitor: Who,
    engine: Machine,
) -> Response[Any]:
    """Run a task now, pause or resume it; then its page."""
    fields = await door.own_form(request, state, visitor)
    try:
        await _act(engine, visitor, task_id, act, fields)
    except UserError as e:
        if e.status not in (400, 403, 409, 429):
            raise
        return await _task_page(task_id, request, visitor, engine, e.status, e.message)
    return page.leading(f"/dashboard/tasks/{quote(task_id, safe='')}?done={act}")


async def _act(
    engine: Engine, visitor: Visitor, task_id: str, act: str, fields: dict[str, str]
) -> None:
    if act == "run":
        nonce = fields.get("nonce") or secrets.token_hex(16)
        await execute.executed(engine, visitor.service, task_id, nonce, retry=False)
    elif act == "pause":
        await written.changed(engine, visitor.service, task_id, TaskFields(status="paused"))
    elif act == "resume":
        await written.changed(engine, visitor.service, task_id, TaskFields(status="active"))
    else:
        raise ValidationFailed.of("act", "must be run, pause or resume")
