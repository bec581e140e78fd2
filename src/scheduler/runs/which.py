"""Which runs are meant: the filters of `/runs`, for lists and for what is done to many at once."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import msgspec

from scheduler import asked, ledger, task, tasklist
from scheduler.db import Conn
from scheduler.errors import ValidationFailed
from scheduler.ledger import END_STATES, LIVE_STATES, Place, Query
from scheduler.run import OF_TASKS
from scheduler.sources import Sources, keys
from scheduler.tasklist import words_of

KINDS = ("task", "manual", "process", "spec")
OF_TRACES = frozenset(KINDS) - OF_TASKS
LIMIT_MOST = 1000
TASKS_MOST = 1000
"""Tasks whose runs `q` looks up one by one; where more fit, it looks at the runs instead."""
PIECES = 20
WORDS_MOST = 50


def read_query(sent: Any, service_id: UUID) -> tuple[Query, str | None]:
    """Return what a list is filtered by, and its words; not yet its task. Raises."""
    for name in ("task", "trace_id", "state", "reason", "kind", "q"):
        if "\x00" in (sent.get(name) or ""):
            raise ValidationFailed.of(name, "must not hold a NUL character")
    query = Query(
        service_id=service_id,
        states=_words(sent, "state", (*LIVE_STATES, *END_STATES)),
        kinds=_words(sent, "kind", KINDS),
        reason=sent.get("reason") or None,
        since=asked.time(sent, "from"),
        until=asked.time(sent, "to"),
    )
    return query, (sent.get("q") or "").strip() or None


async def narrowed(conn: Conn, query: Query, sent: Any, sources: Sources) -> Query:
    """Narrow a query to the task, or to the process or the spec, that was asked for, if any."""
    query = await _of_task(conn, query, sent.get("task") or None)
    return await _of_trace(conn, query, sent.get("trace_id") or None, sources)


async def _of_trace(conn: Conn, query: Query, trace_id: str | None, sources: Sources) -> Query:
    """Narrow a query to a process or a spec: the one that has this trace_id, else that once had."""
    if trace_id is None:
        return query
    found = await keys(sources, conn, query.service_id, trace_id)
    kinds = (query.kinds or OF_TRACES) & OF_TRACES
    if found or not kinds:
        return _among(query, found)
    return msgspec.structs.replace(query, trace_id=trace_id, kinds=kinds)


def _among(query: Query, found: Iterable[UUID]) -> Query:
    """Narrow a query to these keys, of those that it may already be narrowed to."""
    fit = (key for key in found if query.keys is None or key in query.keys)
    return msgspec.structs.replace(query, keys=tuple(fit))


async def _of_task(conn: Conn, query: Query, task_id: str | None) -> Query:
    """Narrow a query to a task: the one that has this id, else those that once had it."""
    if task_id is None:
        return query
    of = await task.find(conn, query.service_id, task_id)
    if of is None:
        return msgspec.structs.replace(query, task_id=task_id)
    return msgspec.structs.replace(query, keys=(of.key,))


async def page_of(
    conn: Conn,
    query: Query,
    words: str | None,
    now: int,
    sources: Sources,
    *,
    after: Place | None,
    count: int,
) -> ledger.Page:
    """Return a page of the runs that are meant.

    `words` narrow them to tasks, or name one run, or one process or spec.
    """
    if words is None:
        return await ledger.page(conn, query, now, after=after, count=count)
    run = _uuid(words)
    if run is not None:
        one = msgspec.structs.replace(query, run=run)
        page = await ledger.page(conn, one, now, after=after, count=count)
        if page.found or after:
            return page
    if traced := await keys(sources, conn, query.service_id, words):
        one = _among(query, traced)
        return await ledger.page(conn, one, now, after=after, count=count)
    found = await tasklist.search(conn, query.service_id, words_of(words), TASKS_MOST + 1)
    if query.keys is not None:
        found = list(await tasklist.fitting(conn, query.service_id, words_of(words), query.keys))
    if len(found) <= TASKS_MOST:
        if not found:
            return ledger.Page([], None)
        narrow = msgspec.structs.replace(query, keys=tuple(found))
        return await ledger.page(conn, narrow, now, after=after, count=count)
    return await _sifted(conn, query, words, now, after=after, count=count)


async def _sifted(
    conn: Conn, query: Query, words: str, now: int, *, after: Place | None, count: int
) -> ledger.Page:
    """Return the runs whose tasks fit the words, where very many tasks do."""
    found: list[ledger.Found] = []
    for _ in range(PIECES):
        piece = await ledger.page(conn, query, now, after=after, count=LIMIT_MOST)
        tasks = {run.task_key for _, run in piece.found if run.of_task and run.task_key}
        fit = await tasklist.fitting(conn, query.service_id, words_of(words), list(tasks))
        found += [each for each in piece.found if each[1].task_key in fit]
        after = piece.following
        if len(found) > count:
            return ledger.Page(found[:count], found[count - 1][0])
        if after is None or sum(len(run.attempts) for _, run in found) >= ledger.ATTEMPTS:
            break
    return ledger.Page(found, after)


def _uuid(sent: str) -> UUID | None:
    try:
        return UUID(sent)
    except ValueError:
        return None


def _words(sent: Any, field: str, known: tuple[str, ...]) -> frozenset[str]:
    words = (sent.get(field) or "").split(",", WORDS_MOST)
    found = frozenset(word.strip() for word in words) - {""}
    if not found <= set(known) or len(words) > WORDS_MOST:
        raise ValidationFailed.of(field, f"must be one or more of {', '.join(known)}")
    return found
