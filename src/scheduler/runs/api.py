"""`/runs`: the ledger, one run and its attempts, and whether every due instant became one."""

import base64
import binascii
from datetime import UTC, timedelta
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Router, get
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIFormat, OpenAPIType, Schema
from litestar.params import FromPath

from scheduler import asked
from scheduler.db import EPOCH
from scheduler.engine import Engine
from scheduler.errors import NotFound, ValidationFailed
from scheduler.ledger import Place
from scheduler.openapi import asks, whole
from scheduler.runs import model
from scheduler.runs.actions import cancel_run, replay_run
from scheduler.runs.many import cancel_runs, replay_runs
from scheduler.runs.model import ShownRun
from scheduler.runs.verify import DAY_MS, Job, Verified, resumed, verified
from scheduler.runs.which import LIMIT_MOST, narrowed, page_of, read_query
from scheduler.service import Service

LIMIT = 100
TEXT = Schema(type=OpenAPIType.STRING)
INSTANT = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME)

AnyRequest = Request[Any, Any, Any]
Caller = NamedDependency[Service]
Machine = NamedDependency[Engine]


class RunList(msgspec.Struct):
    """A page of the ledger, the newest first; `next_cursor` is null at its end."""

    runs: list[ShownRun]
    next_cursor: str | None


@get(
    "/",
    summary="List runs, the newest first",
    operation_class=asks(
        task=TEXT,
        trace_id=TEXT,
        state=TEXT,
        reason=TEXT,
        kind=TEXT,
        from_=INSTANT,
        to=INSTANT,
        q=TEXT,
        cursor=TEXT,
        limit=whole(1, LIMIT_MOST),
    ),
)
async def list_runs(request: AnyRequest, service: Caller, engine: Machine) -> RunList:
    """Return a page of runs, live and finished, by `scheduled_for`.

    `state` and `kind` take several words with commas between them; `from` is included, `to` is
    not; `trace_id` is that of a process or a spec; `q` is words, or their beginnings, in the name
    and url of the task, or a run's id, or a trace_id.
    A page may be short, even empty, before the end: only a null `next_cursor` is the end.
    """
    sent = request.query_params
    limit = asked.whole(sent.get("limit"), "limit", LIMIT, 1, LIMIT_MOST)
    after = read_cursor(sent["cursor"]) if sent.get("cursor") else None
    query, words = read_query(sent, service.id)
    now = engine.clock.now_ms()
    async with engine.database.api.connect() as connection:
        conn = await connection.execution_options(isolation_level="REPEATABLE READ")
        sources = engine.runner.sources
        query = await narrowed(conn, query, sent, sources)
        page = await page_of(conn, query, words, now, sources, after=after, count=limit)
        kinds = await model.triggers(conn, service.id, [run for _, run in page.found])
    return RunList(
        [model.listed(run, service.id, now, kinds) for _, run in page.found],
        page.following and cursor_of(page.following),
    )


@get(
    "/verify",
    summary="Find due instants without a run, or with more than one",
    operation_class=asks(from_=INSTANT, to=INSTANT, cursor=TEXT),
)
async def verify_runs(request: AnyRequest, service: Caller, engine: Machine) -> Verified:
    """Recompute what was due in (`from`, `to`], default the last 24 hours, and compare.

    Of each task since its last edit, within retention, and up to what is planned of all of them:
    `to` says how far that is. At most 100,000 instants a call, `next_cursor` goes on. One call at
    a time: 429 while others wait. `from` and `to` lie within 100 years from now.
    """
    sent = request.query_params
    now = engine.clock.now_ms()
    planned = now + engine.window_ms
    until, since = asked.near(sent, "to", now), asked.near(sent, "from", now)
    until = planned if until is None else min(until, planned)
    job = Job(
        url=engine.database.url,
        database=engine.settings.database,
        service_id=service.id,
        since=min(until, now) - DAY_MS if since is None else since,
        until=until,
        kept=now - engine.settings.history.retention_days * DAY_MS,
    )
    if sent.get("cursor"):
        job = resumed(job, sent["cursor"])
    return await verified(job)


@get("/{run_id:str}", summary="One run, its attempts and its answer")
async def get_run(run_id: FromPath[str], service: Caller, engine: Machine) -> ShownRun:
    """Return a run, live or finished."""
    key = model.key_of(run_id)
    async with engine.database.api.connect() as conn:
        found = await model.find(
            conn, service.id, key, engine.clock.now_ms(), engine.runner.sources
        )
    if found is None:
        raise NotFound(f"there is no run {run_id}")
    return found


# What is sent ------------------------------------------------------------------------------------


def cursor_of(place: Place) -> str:
    """Return a place in the list as opaque text."""
    at, key = place
    since = (at - EPOCH) // timedelta(microseconds=1)
    return base64.urlsafe_b64encode(since.to_bytes(8, "big", signed=True) + key.bytes).decode()


def read_cursor(sent: str) -> Place:
    """Return the place that a cursor of ours names. Raises ValidationFailed."""
    try:
        raw = base64.b64decode(sent.encode("ascii"), altchars=b"-_", validate=True)
        at = EPOCH + timedelta(microseconds=int.from_bytes(raw[:8], "big", signed=True))
        if len(raw) == 24 and at.tzinfo is UTC:
            return at, UUID(bytes=raw[8:])
    except (binascii.Error, OverflowError, ValueError):
        pass
    raise ValidationFailed.of("cursor", "must be the next_cursor of an answer before, as it was")


router = Router(
    "/runs",
    route_handlers=[
        list_runs,
        verify_runs,
        replay_runs,
        cancel_runs,
        get_run,
        replay_run,
        cancel_run,
    ],
)
