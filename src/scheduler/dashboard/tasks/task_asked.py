"""Beside the page of a task: its changes, why it ran at a time or did not, and backfills."""

from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath

from scheduler import audit
from scheduler.dashboard import door, page, typed
from scheduler.dashboard.door import Visitor
from scheduler.db import rfc3339
from scheduler.engine import Engine
from scheduler.errors import UserError, ValidationFailed
from scheduler.tasks import backfill, explain
from scheduler.tasks.backfill import Backfill, Backfilled

CHANGES = 25
REFUSED = (400, 403, 409, 429)
"""What is said on the page itself."""

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Visitor]
Machine = NamedDependency[Engine]


# Changes -----------------------------------------------------------------------------------------


@get("/dashboard/tasks/{task_id:str}/history", include_in_schema=False)
async def show_changes(
    task_id: FromPath[str], request: AnyRequest, visitor: Who, engine: Machine
) -> Response[Any]:
    """Return who changed a task, the newest first; also of one that is gone."""
    before = request.query_params.get("before")
    async with engine.database.api.connect() as conn:
        found = await audit.page(
            conn, visitor.service.id, task_id, before=_id(before), most=CHANGES + 1
        )
    here = f"/dashboard/tasks/{quote(task_id, safe='')}/history"
    return await page.large(
        "task_history.html",
        visitor=visitor,
        now=engine.clock.now_ms(),
        id=task_id,
        changes=found[:CHANGES],
        newer=here if before else None,
        older=f"{here}?before={found[CHANGES - 1].id}" if len(found) > CHANGES else None,
    )


def _id(sent: str | None) -> UUID | None:
    try:
        return UUID(sent) if sent else None
    except ValueError:
        raise ValidationFailed.of("before", "must be what a page before led to") from None


# A time ------------------------------------------------------------------------------------------


@get("/dashboard/tasks/{task_id:str}/explain", include_in_schema=False)
async def show_reason(
    task_id: FromPath[str], request: AnyRequest, visitor: Who, engine: Machine
) -> Response[Any]:
    """Return why a task ran at a time, or did not, or will."""
    now, sent = engine.clock.now_ms(), request.query_params
    found, wrong, status = None, "", 200
    if sent.get("at"):
        try:
            at = typed.form_time(sent, "at", now)
            if at is not None:
                found = await explain.explained(engine, visitor.service, task_id, at, now)
        except ValidationFailed as e:
            wrong, status = e.message, e.status
    return page.answer(
        "task_explain.html",
        status=status,
        visitor=visitor,
        now=now,
        id=task_id,
        found=found,
        wrong=wrong,
        times=typed.shown(sent, ("at",), typed.readers_zone(request), wrong=bool(wrong)),
    )


# Backfills ---------------------------------------------------------------------------------------


@get("/dashboard/tasks/{task_id:str}/backfill", include_in_schema=False)
async def show_backfill(
    task_id: FromPath[str], request: AnyRequest, visitor: Who, engine: Machine
) -> Response[Any]:
    """Return the form for a backfill; with `from` and `to`, how many runs it would make."""
    sent = dict(request.query_params)
    try:
        counted = await _asked(engine, visitor, task_id, sent, dry_run=True) if sent else None
    except UserError as e:
        return _form(request, engine, visitor, task_id, sent, error=e)
    return _form(request, engine, visitor, task_id, sent, counted=counted)


@post("/dashboard/tasks/{task_id:str}/backfill", status_code=200, include_in_schema=False)
async def make_backfill(
    task_id: FromPath[str], request: AnyRequest, state: State, visitor: Who, engine: Machine
) -> Response[Any]:
    """Make the runs that were counted; what is left for another call is counted next."""
    sent = await door.own_form(request, state, visitor)
    try:
        made = await _asked(engine, visitor, task_id, sent, dry_run=False)
    except UserError as e:
        return _form(request, engine, visitor, task_id, sent, error=e)
    here = f"/dashboard/tasks/{quote(task_id, safe='')}"
    if made.next is None:
        return page.leading(f"{here}?done=backfill")
    return page.leading(f"{here}/backfill?{_rest(made.next, sent)}")


def _rest(start: str, sent: dict[str, str]) -> str:
    """Return the query of what is left of a backfill."""
    rest = {"from": start, "to": typed.read(sent, "to"), "pace": sent.get("pace", "")}
    return urlencode(rest)


async def _asked(
    engine: Engine, visitor: Visitor, task_id: str, sent: dict[str, str], *, dry_run: bool
) -> Backfilled:
    """Do what a form asks for. Raises ValidationFailed with the field that is wrong."""
    now = engine.clock.now_ms()
    since, until = (typed.form_time(sent, name, now) for name in ("from", "to"))
    pace = sent.get("pace", "").strip()
    if pace and not (pace.isascii() and pace.isdecimal() and len(pace) < 10):
        raise ValidationFailed.of("per_minute", "must be a whole number of runs")
    wanted = Backfill(
        since=rfc3339(since),
        until=rfc3339(until),
        dry_run=dry_run,
        per_minute=int(pace) if pace else None,
    )
    return await backfill.backfilled(engine, visitor.service, task_id, wanted)


def _form(
    request: AnyRequest,
    engine: Engine,
    visitor: Visitor,
    task_id: str,
    sent: dict[str, str],
    *,
    counted: Backfilled | None = None,
    error: UserError | None = None,
) -> Response[Any]:
    if error is not None and error.status not in REFUSED:
        raise error
    own = typed.readers_zone(request)
    times = typed.shown(sent, ("from", "to"), own, wrong=error is not None)
    return page.answer(
        "task_backfill.html",
        status=200 if error is None else error.status,
        visitor=visitor,
        now=engine.clock.now_ms(),
        id=task_id,
        times=times,
        again={**times.values, typed.FIELD: times.zone, "pace": sent.get("pace", "")[:100]},
        counted=counted,
        rest=_rest(counted.next, sent) if counted is not None and counted.next else "",
        wrong="" if error is None else error.message,
        pace=engine.settings.tasks.backfill_per_minute,
    )


HANDLERS = (show_changes, show_reason, show_backfill, make_backfill)
