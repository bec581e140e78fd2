"""The page of one task: what it is, when it is due next, its runs, and what can be done."""

import secrets
import uuid
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath
from markupsafe import Markup

from scheduler import audit, services, task, taskpage
from scheduler.actions import Command
from scheduler.audit import Found
from scheduler.dashboard import carried, charts, door, page, typed
from scheduler.dashboard.charts import Cell, Series
from scheduler.dashboard.door import Visitor
from scheduler.dashboard.shown import clock, duration
from scheduler.dashboard.tasks.tasks import stands
from scheduler.db import Conn, rfc3339
from scheduler.definition import Definition
from scheduler.engine import Engine
from scheduler.errors import UserError, ValidationFailed
from scheduler.run import Line, bucket_of
from scheduler.runs.api import cursor_of, read_cursor
from scheduler.taskpage import Row, Seen
from scheduler.tasks import execute, preview, undoing, written
from scheduler.tasks.model import Spent, Task, TaskFields
from scheduler.triggers import Cron, Rrule

RUNS = 25
"""Runs of a page."""
STRIP = 100
"""Runs of the strip and of the charts."""
NEXT = 5
CHANGES, RUN_ACTS = 5, 3
"""Changes of a page, and acts on runs beside them."""
REASON_MOST = 500
"""Characters of why a task is paused."""

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Visitor]
Machine = NamedDependency[Engine]


class Whole(msgspec.Struct, frozen=True):
    """A task as its page shows it."""

    task: Task
    of: Definition
    next: preview.Preview
    seen: Seen
    changes: list[Found]

    @property
    def paused(self) -> Found | None:
        """The change that paused it, where it is paused."""
        last = next((each for each in self.changes if each.verb == "paused"), None)
        return last if self.task.status == "paused" else None


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
    fields: dict[str, str] | None = None,
) -> Response[Any]:
    cursor = request.query_params.get("after") or None
    now = engine.clock.now_ms()
    whole = await _whole(engine, visitor, task_id, cursor, now)
    if isinstance(whole, Gone):
        return await _gone_page(whole, visitor, task_id, now)
    following = whole.seen.following
    return await page.large(
        "task.html",
        status=status,
        visitor=visitor,
        now=now,
        task=whole.task,
        task_version=whole.of.version,
        next=whole.next,
        zoned=isinstance(whole.of.trigger, Cron | Rrule) and whole.next.timezone != "UTC",
        runs=[*whole.seen.live, *whole.seen.ended[:RUNS]],
        first=cursor is None,
        after=f"?{urlencode({'after': cursor_of(following)})}" if following else None,
        strip=_strip(whole.seen.ended) if cursor is None else None,
        lines=_lines(whole.seen.ended) if cursor is None else None,
        changes=newest(whole.changes),
        paused=whole.paused,
        policy=_policy(whole.of, engine),
        nonce=secrets.token_hex(16),
        said=said or SAID.get(request.query_params.get("done", ""), ""),
        wrong=bool(said),
        filled={name: (fields or {}).get(name, "") for name in ("reason", "for")},
        times=typed.shown(
            fields or {}, ("until", "at"), typed.readers_zone(request), wrong=bool(said)
        ),
        spans=SPANS,
        act=_undoable(request, whole),
    )


def newest(found: Sequence[Found]) -> list[Found]:
    """Return what a page shows of the changes: the newest, and what was last done to runs."""
    edits = [each for each in found if each.kind == "task"][:CHANGES]
    runs = [each for each in found if each.kind == "run"][:RUN_ACTS]
    return sorted([*edits, *runs], key=lambda each: each.id, reverse=True)


def _undoable(request: AnyRequest, whole: Whole) -> UUID | None:
    """Return the act that paused the task just now, by the address; None where there is none."""
    asked = request.query_params
    if asked.get("done") != "pause" or whole.task.status != "paused":
        return None
    return services.as_id(asked.get("act", ""))


async def _whole(
    engine: Engine, visitor: Visitor, task_id: str, cursor: str | None, now: int
) -> "Whole | Gone":
    """Read a task in three statements, and one more where it names calendars. Raises NotFound."""
    service_id = visitor.service.id
    after = read_cursor(cursor) if cursor else None
    async with engine.database.api.connect() as connection:
        conn = await connection.execution_options(isolation_level="REPEATABLE READ")
        of = await task.find(conn, service_id, task_id)
        changes = await audit.newest(conn, service_id, task_id, CHANGES)
        if of is None:
            return await _gone(conn, visitor, task_id, changes, now)
        most = RUNS if after else STRIP
        seen = await taskpage.seen(conn, of.line, now, after=after, most=most)
    if after is None:
        _first_page(seen)
    planned, gone = seen.planned, seen.gone
    spent = None if planned is None else (planned.runs, planned.until)
    limited = planned if of.bounds.max_runs is not None else None
    stance = None if seen.stance is None else seen.stance == "running"
    lasts = {} if seen.last is None else {of.key: seen.last}
    comes = of.status != "disabled" and not of.damaged
    coming = of if comes else msgspec.structs.replace(of, trigger=None)
    shown = stands(of, now, stance, limited, gone, lasts)
    resumes = of.paused_until if shown.status == "paused" else None
    return Whole(shown, of, await _next(coming, resumes or now, spent), seen, changes)


def _first_page(seen: Seen) -> None:
    """Have the list go on behind the runs that it shows, not behind those of the strip."""
    if len(seen.ended) > RUNS:
        seen.following = taskpage.place(seen.ended[RUNS - 1])


async def _next(of: Definition, now: int, spent: Spent | None) -> preview.Preview:
    """Return the next instants; where those take long to find, none: the rest is worth a page."""
    try:
        return await preview.yields(of, now, NEXT, spent)
    except ValidationFailed:
        return preview.Preview("UTC", preview.describe(of), [])


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


# Charts ------------------------------------------------------------------------------------------


def _strip(ended: Sequence[Row]) -> Markup | None:
    cells = [Cell(run.state, _words(run), f"/dashboard/runs/{run.id}") for run in reversed(ended)]
    return charts.strip(cells, label="The last runs, the newest at the right") if cells else None


def _words(run: Row) -> str:
    """Return in words what became of a run."""
    many = f", {run.count:,} instants" if run.count > 1 else ""
    took = f", took {duration(run.duration_ms)}" if run.duration_ms is not None else ""
    return f"{run.state}, {clock(run.scheduled_for)} UTC{many}{took}"


def _lines(ended: Sequence[Row]) -> Markup | None:
    """Return how long runs took, and how late they began; None where fewer than two ran."""
    ran = sorted((run for run in ended if run.attempts), key=lambda run: run.scheduled_for)
    if len(ran) < 2:
        return None
    took = Series("took", [(run.scheduled_for, run.duration_ms) for run in ran])
    late = Series("started after", [(run.scheduled_for, run.lag_ms) for run in ran])
    return charts.lines([took, late], label="How long the last runs took, and how late they began")


# A task that is gone -----------------------------------------------------------------------------


class Gone(msgspec.Struct, frozen=True):
    """What is left of a task that was deleted."""

    changes: list[Found]
    seen: Seen


async def _gone(conn: Conn, visitor: Visitor, task_id: str, changes: list[Found], now: int) -> Gone:
    """Return what is left of a task; its runs where the audit knows which were its."""
    key = next((each.key for each in changes if each.key is not None), None)
    if key is None:
        return Gone(changes, Seen())
    line = Line(key, bucket_of(visitor.service.id, task_id), visitor.service.id)
    return Gone(changes, await taskpage.seen(conn, line, now, after=None, most=RUNS))


async def _gone_page(gone: Gone, visitor: Visitor, task_id: str, now: int) -> Response[Any]:
    return await page.large(
        "task_gone.html",
        status=404,
        visitor=visitor,
        now=now,
        id=task_id,
        changes=newest(gone.changes),
        runs=[*gone.seen.live, *gone.seen.ended],
    )


# What can be done --------------------------------------------------------------------------------

SAID = {
    "run": "A run was started by hand.",
    "pause": "The task is paused: instants that pass are not run.",
    "undone": "The pause is undone: the task is as it was before.",
    "resume": "The task is active again.",
    "backfill": "The runs are made, and fall due one after the other.",
    "created": "The task is made.",
    "edited": "The changes are saved.",
}
SPANS = {
    "": "until I resume it",
    "1h": "for an hour",
    "1d": "for a day",
    "7d": "for a week",
    "until": "until the time below",
}
HOUR_MS = 3_600_000
LENGTHS = {"1h": HOUR_MS, "1d": 24 * HOUR_MS, "7d": 168 * HOUR_MS}


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
    fields = await door.own_form(request, state, visitor, again=True)
    if carried.AGAIN in fields:
        return await _task_page(task_id, request, door.told(visitor), engine, fields=fields)
    try:
        more = await _act(engine, visitor, task_id, act, fields)
    except UserError as e:
        if e.status not in (400, 403, 409, 429):
            raise
        return await _task_page(task_id, request, visitor, engine, e.status, e.message, fields)
    return page.leading(f"/dashboard/tasks/{quote(task_id, safe='')}?done={act}{more}")


async def _act(
    engine: Engine, visitor: Visitor, task_id: str, act: str, fields: dict[str, str]
) -> str:
    """Do what a form asks for; return what the address of the page says of it besides."""
    if act == "run":
        nonce = fields.get("nonce") or secrets.token_hex(16)
        await execute.executed(engine, visitor.service, task_id, nonce, retry=False)
    elif act == "pause":
        return await _pause(engine, visitor, task_id, fields)
    elif act == "resume":
        await written.changed(engine, visitor.service, task_id, TaskFields(status="active"))
    else:
        raise ValidationFailed.of("act", "must be run, pause or resume")
    return ""


async def _pause(engine: Engine, visitor: Visitor, task_id: str, fields: dict[str, str]) -> str:
    reason = fields.get("reason", "").strip()
    if len(reason) > REASON_MOST or "\x00" in reason:
        raise ValidationFailed.of("reason", f"at most {REASON_MOST} characters, without NUL")
    until = _until(fields, engine.clock.now_ms())
    paused = TaskFields(status="paused", paused_until=until)
    nonce = services.as_id(fields.get("nonce", "")) or uuid.uuid4()
    act = uuid.uuid5(nonce, f"pause {task_id}")
    await undoing.pause(engine, visitor.service, act, task_id, paused, reason or None)
    return f"&act={act}"


def _until(fields: dict[str, str], now: int) -> str | None:
    """Return when a pause ends, as RFC 3339; None for one that is ended by hand. Raises."""
    span = fields.get("for", "")
    if span in LENGTHS:
        return rfc3339(now + LENGTHS[span])
    if span != "until":
        return None
    at = typed.form_time(fields, "until", now)
    if at is None or at <= now:
        zone = fields.get(typed.FIELD) or "UTC"
        raise ValidationFailed.of("until", f"must be a time to come, in {zone[: typed.LONGEST]}")
    return rfc3339(at)
