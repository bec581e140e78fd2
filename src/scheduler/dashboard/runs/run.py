"""The page of one run: its attempts, what was sent, what came back, and what can be done."""

from typing import Any
from urllib.parse import quote

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath

from scheduler import history, lines
from scheduler.actions.http import USER_AGENT
from scheduler.dashboard import bodies, door, page
from scheduler.dashboard.bodies import Body
from scheduler.dashboard.door import Visitor
from scheduler.dashboard.runs import advice, waterfall
from scheduler.definition import Definition
from scheduler.engine import Engine
from scheduler.errors import NotFound, UserError, ValidationFailed
from scheduler.history import Finished
from scheduler.masking import MASK
from scheduler.processes import callback
from scheduler.processes import model as processes
from scheduler.run import Started
from scheduler.runs import actions, model
from scheduler.runs.model import ShownRun

AnyRequest = Request[Any, Any, Any]
Who = NamedDependency[Visitor]
Machine = NamedDependency[Engine]
FILE = {
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""What a target answered is no page of ours: a browser keeps it as a file, and runs none of it."""
BINARY = "application/octet-stream"
SAID = {
    "replay": "The run is live again: the same id, the next attempt.",
    "cancel": "The run is cancelled. What had reached its target may have been acted upon.",
    "try": "The call is on its way. Its answer appears here.",
}
MOST = 50
"""Attempts that a page shows, the last ones: each replay adds some."""
REFUSALS = (400, 403, 409, 429)


class Seen(msgspec.Struct, frozen=True):
    """A run as its page shows it."""

    run: ShownRun
    of: Definition | None
    """What it is of, as that stands now."""
    version: int
    body: Body | None
    """Of the last attempt."""
    kept: bool
    """The answer is longer than what the page has, and can be downloaded whole."""
    content_type: str | None
    before: str | None
    after: str | None


@get("/dashboard/runs/{run_id:str}", include_in_schema=False)
async def show_run(
    run_id: FromPath[str], request: AnyRequest, visitor: Who, engine: Machine
) -> Response[Any]:
    """Return a run, live or finished."""
    said = SAID.get(request.query_params.get("done", ""), "")
    return await _page(run_id, visitor, engine, said=said)


async def _page(
    run_id: str, visitor: Visitor, engine: Engine, *, status: int = 200, said: str = "",
    wrong: bool = False,
) -> Response[Any]:  # fmt: skip
    now = engine.clock.now_ms()
    seen = await _seen(engine, visitor, run_id, now)
    shell = bool(seen.run.request and seen.run.request.command)
    earlier = max(len(seen.run.attempts) - MOST, 0)
    del seen.run.attempts[:earlier]
    rows = waterfall.rows(seen.run, now, shell=shell)
    return await page.large(
        "run.html",
        status=status,
        visitor=visitor,
        now=now,
        seen=seen,
        run=seen.run,
        shell=shell,
        earlier=earlier,
        rows=list(zip(rows, waterfall.pictures(rows), strict=True)),
        reason=advice.told(seen.run),
        advice=advice.advice(seen.run),
        again={each.number: advice.again(seen.run, each) for each in seen.run.attempts},
        beside=_beside(seen.run),
        can=_can(seen),
        said=said,
        wrong=wrong,
    )


async def _seen(engine: Engine, visitor: Visitor, run_id: str, now: int) -> Seen:
    service_id, key = visitor.service.id, model.key_of(run_id)
    async with engine.database.api.connect() as connection:
        conn = await connection.execution_options(isolation_level="REPEATABLE READ")
        ended = await history.get(conn, service_id, key)
        run: Finished | Started | None = ended or await lines.get(conn, service_id, key)
        if run is None:
            raise NotFound(f"there is no run {run_id}")
        shown, of = await model.described(conn, service_id, run, now, engine.runner.sources)
        before, after = (None, None)
        if ended is not None:
            before, after = await history.beside(conn, service_id, ended)
    last = run.attempts[-1] if run.attempts else None
    terminal = bool(shown.request and shown.request.command)
    response = None if ended is None else ended.response
    return Seen(
        run=shown,
        of=of,
        version=run.version,
        body=None if response is None else bodies.body(response, terminal=terminal),
        kept=bool(last and last.kept),
        content_type=last.content_type if last else None,
        before=str(before) if before else None,
        after=str(after) if after else None,
    )


def _beside(run: ShownRun) -> dict[str, str]:
    """Return the headers that a call carries beside its own, as they may be shown."""
    if run.kind == "spec" or not run.request or run.request.command:
        return {}
    key = model.key_of(run.id)
    ours = {
        "Idempotency-Key": run.id,
        "traceparent": f"00-{key.hex}-…-01",
        "User-Agent": USER_AGENT,
    }
    if not run.request.endpoint:
        ours |= {
            "X-Scheduler-Scheduled-For": run.scheduled_for or "",
            "X-Scheduler-Attempt": str(max(run.attempt, 1)),
            "X-Scheduler-Task": run.task_id or run.trace_id or "",
            "webhook-id": run.id,
            "webhook-timestamp": "when the attempt begins",
            "webhook-signature": MASK,
        }
    return ours


def _can(seen: Seen) -> str:
    """Return what can be done with a run: cancel, replay, or nothing."""
    run = seen.run
    if run.finished_at is None:
        return "cancel"
    gone = seen.of is None or (run.count or 1) > 1 or seen.of.status == "disabled"
    done = run.kind == "spec" and run.state == "succeeded"
    return "" if gone or done else "replay"


# What came back, whole ---------------------------------------------------------------------------


@get("/dashboard/runs/{run_id:str}/body", include_in_schema=False)
async def send_body(run_id: FromPath[str], visitor: Who, engine: Machine) -> Response[Any]:
    """Return what the last attempt was answered, as far as it is kept, byte for byte."""
    service_id = visitor.service.id
    async with engine.database.api.connect() as conn:
        ended = await history.get(conn, service_id, model.key_of(run_id))
        if ended is None:
            raise NotFound(f"there is no run {run_id} that has ended")
        sent = await callback.answer(conn, service_id, ended) if callback.is_long(ended) else None
    sent = ended.response if sent is None else sent
    if sent is None:
        raise NotFound("nothing of an answer is kept")
    name = f'attachment; filename="{ended.id}{_suffix(sent)}"'
    headers = {**FILE, "Content-Disposition": name}
    return Response(sent, media_type=BINARY, headers=headers)


def _suffix(sent: bytes) -> str:
    kind = bodies.body(sent).kind
    return {"JSON": ".json", "text": ".txt"}.get(kind, ".bin")


# What can be done --------------------------------------------------------------------------------


@post("/dashboard/runs/{run_id:str}/{act:str}", status_code=200, include_in_schema=False)
async def act_on_run(
    run_id: FromPath[str],
    act: FromPath[str],
    request: AnyRequest,
    state: State,
    visitor: Who,
    engine: Machine,
) -> Response[Any]:
    """Replay or cancel a run; then its page."""
    await door.own_form(request, state, visitor)
    try:
        if act == "replay":
            await actions.replayed(engine, visitor.service, run_id)
        elif act == "cancel":
            await actions.cancelled(engine, visitor.service, run_id)
        else:
            raise ValidationFailed.of("act", "must be replay or cancel")
    except UserError as e:
        if e.status not in REFUSALS:
            raise
        return await _page(run_id, visitor, engine, status=e.status, said=e.message, wrong=True)
    return page.leading(f"/dashboard/runs/{quote(run_id, safe='')}?done={act}")


@get("/dashboard/processes/{trace_id:str}", include_in_schema=False)
async def show_process(trace_id: FromPath[str], visitor: Who, engine: Machine) -> Response[Any]:
    """Lead to the run of a process: its page is that of the process."""
    async with engine.database.api.connect() as conn:
        of = await processes.find(conn, visitor.service.id, trace_id)
    if of is None:
        raise NotFound(f"there is no process {trace_id}")
    return page.leading(f"/dashboard/runs/{of.run_id}")
