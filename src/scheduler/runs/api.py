"""`/runs`: the ledger, one run and its attempts, and whether every due instant became one."""

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Router, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from scheduler import ledger, task, tasklist
from scheduler.db import EPOCH, FIRST, LAST, Conn, ms
from scheduler.engine import Engine
from scheduler.errors import NotFound, ValidationFailed
from scheduler.ledger import END_STATES, LIVE_STATES, Place, Query
from scheduler.runs import model
from scheduler.runs.actions import cancel_run, replay_run
from scheduler.runs.model import ShownRun
from scheduler.runs.verify import DAY_MS, Job, Verified, resumed, verified
from scheduler.services import Service
from scheduler.tasklist import words_of

KINDS = ("task", "manual", "process", "spec")
LIMIT, LIMIT_MOST = 100, 1000
TASKS_MOST = 1000
"""Tasks whose runs `q` looks up one by one; where more fit, it looks at the runs instead."""
PIECES = 20

AnyRequest = Request[Any, Any, Any]
Caller = NamedDependency[Service]
Machine = NamedDependency[Engine]


class RunList(msgspec.Struct):
    """A page of the ledger, the newest first; `next_cursor` is null at its end."""

    runs: list[ShownRun]
    next_cursor: str | None


@get("/", summary="List runs, the newest first")
async def list_runs(request: AnyRequest, service: Caller, engine: Machine) -> RunList:
    """Return a page of runs, live and finished, by `scheduled_for`.

    `state` and `kind` take several words with commas between them; `from` is included, `to` is
    not; `q` is words, or their beginnings, in the name and url of the task, or a run's id.
    A page may be short, even empty, before the end: only a null `next_cursor` is the end.
    """
    sent = request.query_params
    limit = _limit(sent.get("limit"))
    after = read_cursor(sent["cursor"]) if sent.get("cursor") else None
    query, words = read_query(sent, service.id)
    now = engine.clock.now_ms()
    async with engine.database.api.connect() as connection:
        conn = await connection.execution_options(isolation_level="REPEATABLE READ")
        query = await of_task(conn, query, sent.get("task") or None)
        page = await _page(conn, query, words, now, after=after, count=limit)
        keys = {run.task_key for _, run in page.found if run.task_key is not None}
        kinds = await task.triggers(conn, service.id, list(keys))
    return RunList(
        [model.listed(run, service.id, now, kinds) for _, run in page.found],
        page.following and cursor_of(page.following),
    )


def read_query(sent: Any, service_id: UUID) -> tuple[Query, str | None]:
    """Return what a list is filtered by, and its words; not yet its task. Raises."""
    for name in ("task", "state", "reason", "kind", "q"):
        if "\x00" in (sent.get(name) or ""):
            raise ValidationFailed.of(name, "must not hold a NUL character")
    query = Query(
        service_id=service_id,
        states=_words(sent, "state", (*LIVE_STATES, *END_STATES)),
        kinds=_words(sent, "kind", KINDS),
        reason=sent.get("reason") or None,
        since=read_time(sent, "from"),
        until=read_time(sent, "to"),
    )
    return query, (sent.get("q") or "").strip() or None


async def of_task(conn: Conn, query: Query, task_id: str | None) -> Query:
    """Narrow a query to a task: the one that has this id, else those that once had it."""
    if task_id is None:
        return query
    of = await task.find(conn, query.service_id, task_id)
    if of is None:
        return msgspec.structs.replace(query, task_id=task_id)
    return msgspec.structs.replace(query, keys=(of.key,))


async def _page(
    conn: Conn, query: Query, words: str | None, now: int, *, after: Place | None, count: int
) -> ledger.Page:
    if words is None:
        return await ledger.page(conn, query, now, after=after, count=count)
    run = _uuid(words)
    if run is not None:
        one = msgspec.structs.replace(query, run=run)
        found = await ledger.page(conn, one, now, after=after, count=count)
        if found.found or after:
            return found
    keys = await tasklist.search(conn, query.service_id, words_of(words), TASKS_MOST + 1)
    if query.keys is not None:
        fit = await tasklist.fitting(conn, query.service_id, words_of(words), query.keys)
        keys = list(fit)
    if len(keys) <= TASKS_MOST:
        if not keys:
            return ledger.Page([], None)
        narrow = msgspec.structs.replace(query, keys=tuple(keys))
        return await ledger.page(conn, narrow, now, after=after, count=count)
    return await _sifted(conn, query, words, now, after=after, count=count)


async def _sifted(
    conn: Conn, query: Query, words: str, now: int, *, after: Place | None, count: int
) -> ledger.Page:
    """Return the runs whose tasks fit the words, where very many tasks do."""
    found: list[ledger.Found] = []
    for _ in range(PIECES):
        piece = await ledger.page(conn, query, now, after=after, count=LIMIT_MOST)
        keys = {run.task_key for _, run in piece.found if run.task_key is not None}
        fit = await tasklist.fitting(conn, query.service_id, words_of(words), list(keys))
        found += [each for each in piece.found if each[1].task_key in fit]
        after = piece.following
        if len(found) > count:
            return ledger.Page(found[:count], found[count - 1][0])
        if after is None:
            break
    return ledger.Page(found, after)


@get("/verify", summary="Find due instants without a run, or with more than one")
async def verify_runs(request: AnyRequest, service: Caller, engine: Machine) -> Verified:
    """Recompute what was due in (`from`, `to`], default the last 24 hours, and compare.

    Of each task since its last edit, within retention, and up to what is planned; at most 100,000
    instants a call, `next_cursor` goes on. One call at a time: 429 while others wait.
    """
    sent = request.query_params
    now = engine.clock.now_ms()
    until = read_time(sent, "to") or now + int(engine.settings.planner.window_seconds * 1000)
    since = read_time(sent, "from")
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
        found = await model.find(conn, service.id, key, engine.clock.now_ms())
    if found is None:
        raise NotFound(f"there is no run {run_id}")
    return found


def _uuid(sent: str) -> UUID | None:
    try:
        return UUID(sent)
    except ValueError:
        return None


# What is sent ------------------------------------------------------------------------------------


def _limit(sent: str | None) -> int:
    if not sent:
        return LIMIT
    value = int(sent) if sent.isascii() and sent.isdecimal() and len(sent) < 5 else 0
    if not 1 <= value <= LIMIT_MOST:
        raise ValidationFailed.of("limit", f"must be a whole number from 1 to {LIMIT_MOST}")
    return value


def _words(sent: Any, field: str, known: tuple[str, ...]) -> frozenset[str]:
    found = frozenset(word.strip() for word in (sent.get(field) or "").split(",")) - {""}
    if not found <= set(known):
        raise ValidationFailed.of(field, f"must be one or more of {', '.join(known)}")
    return found


def read_time(sent: Any, field: str) -> int | None:
    """Return a time that was sent, in ms since 1970. Raises ValidationFailed."""
    # A plus sign that was not escaped arrives as a space.
    text = (sent.get(field) or "").strip().replace(" ", "+")
    if not text:
        return None
    try:
        at = msgspec.convert(text, datetime)
        if at.tzinfo is not None and FIRST <= ms(at) <= LAST:
            return ms(at)
    except (msgspec.ValidationError, OverflowError, ValueError):
        pass
    expected = "must be a time with an offset, such as 2026-01-31T12:00:00Z"
    raise ValidationFailed.of(field, expected)


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


router = Router("/runs", route_handlers=[list_runs, verify_runs, get_run, replay_run, cancel_run])
