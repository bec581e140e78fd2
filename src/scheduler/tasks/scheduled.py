"""`/tasks/scheduled`: which tasks fire in a time to come, the soonest first.

What is planned already is a run; for the rest the plan says when the next instant is. A far range
looks at every plan before it: in pieces, with a connection for each, and only times and keys are
kept meanwhile, of the page and of what lies before it.
"""

import heapq
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIFormat, OpenAPIType, Schema

from scheduler import (
    asked,
    lines,
    outlook,
    task,
)
from scheduler.clock import Slice
from scheduler.db import Conn, Database, utc
from scheduler.definition import Definition
from scheduler.engine import Engine
from scheduler.errors import ValidationFailed
from scheduler.instant import LAST
from scheduler.openapi import asks, whole
from scheduler.planning import Coming
from scheduler.service import Service
from scheduler.tasklist import PAGE_BYTES
from scheduler.tasks import listing, pages
from scheduler.tasks.model import Task

INSTANT = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME)
DAY_MS = 86_400_000
PIECE = 1000
"""Plans looked at in one statement."""
READ_AT_ONCE = 100
"""Tasks read in one statement: to read them holds the loop."""
DEEPEST = 100_000
"""How many tasks may lie before a page: their times and keys are kept."""


class Span(msgspec.Struct, frozen=True):
    """Whose fire times are asked for, and in which time: [since, until], in ms since 1970."""

    service_id: UUID
    since: int
    until: int
    early_ms: int
    """How much earlier than its plan says a task may fire: a pause ends before it is looked at."""


class Soonest:
    """Of the tasks that are added, the keys of those that fire first, `most` at most."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._heap: list[tuple[int, int]] = []  # both negative: the last one stands first

    def add(self, key: UUID, at: int) -> None:
        """Add a task; those that fire at the same time stand by their keys."""
        entry = (-at, -key.int)
        if len(self._heap) < self.most:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    @property
    def last(self) -> int | None:
        """When the last of them fires, once there are as many as are wanted."""
        return -self._heap[0][0] if len(self._heap) == self.most else None

    def beyond(self, first: int) -> list[UUID]:
        """Take out those from place `first` on, and return their keys in order."""
        taken = [heapq.heappop(self._heap) for _ in range(len(self._heap) - first)]
        return [UUID(int=-key) for _, key in reversed(taken)]


@get(
    "/scheduled",
    summary="Tasks that fire in a time to come, the soonest first",
    operation_class=asks(
        from_=INSTANT, to=INSTANT, pageNumber=whole(0, DEEPEST), count=whole(1, asked.PAGE_MOST)
    ),
)
async def list_scheduled(
    request: Request[Any, Any, Any],
    service: NamedDependency[Service],
    engine: NamedDependency[Engine],
) -> Response[list[Task]]:
    """Return the tasks with a fire time in [from, to], by default the next 24 hours.

    Both lie within 100 years from now.
    """
    sent = request.query_params
    page, count = asked.page(sent, DEEPEST)
    now = engine.clock.now_ms()
    since, until = _range(sent, now)
    span = Span(service.id, since, until, engine.window_ms // 2)
    found = Soonest((page + 1) * count + 1)
    await _gather(engine.database, span, found)
    cut = pages.cut(await _read(engine.database, found.beyond(page * count)), page, count)
    shown = await _shown(engine.database, service.id, cut.tasks, now)
    return Response(shown, headers=pages.links(request, cut))


def _range(sent: Any, now: int) -> tuple[int, int]:
    since, until = asked.near(sent, "from", now), asked.near(sent, "to", now)
    since = now if since is None else since
    until = since + DAY_MS if until is None else until
    if until < since:
        raise ValidationFailed.of("to", "must not lie before from, by default now")
    return since, until


async def _gather(database: Database, span: Span, found: Soonest) -> None:
    """Add the tasks with a fire time in the span, at least all those that are soon enough."""
    turn, first = Slice(), dict[UUID, int]()
    async with database.api.connect() as conn:
        since, until = utc(span.since), utc(span.until)
        async for key, at in lines.due_tasks(conn, span.service_id, since, until, found.most):
            first[key] = at
            await turn.give_way()
    after: Coming | None = None
    while True:
        async with database.api.connect() as conn:
            piece = await _piece(conn, span, after)
            async for key, at in _unplanned(conn, span, piece, turn):
                found.add(key, min(at, first.pop(key, at)))
        if len(piece) < PIECE:
            break
        after = piece[-1]
        # The plans from here on fire later than that.
        if found.last is not None and found.last < max(span.since, after.at - span.early_ms):
            break
    for key, at in first.items():
        found.add(key, at)
        await turn.give_way()


async def _piece(conn: Conn, span: Span, after: Coming | None) -> list[Coming]:
    until = min(span.until + span.early_ms, LAST)
    return await outlook.coming(conn, span.service_id, after, until, PIECE)


async def _unplanned(
    conn: Conn, span: Span, piece: Sequence[Coming], turn: Slice
) -> AsyncIterator[tuple[UUID, int]]:
    """Yield which of some tasks have an instant in the span that is no run yet, and the first."""
    for start in range(0, len(piece), READ_AT_ONCE):
        some = piece[start : start + READ_AT_ONCE]
        tasks = await task.outlines(conn, span.service_id, [each.key for each in some])
        for each in some:
            of = tasks.get(each.key)
            at = await each.first(of, span.since, span.until, turn) if of else None
            if at is not None:
                yield each.key, at
            await turn.give_way()


async def _read(database: Database, keys: Sequence[UUID]) -> list[Definition]:
    """Return those of the tasks that are still there, in order, as many as a page may hold."""
    found, held = list[Definition](), 0
    for start in range(0, len(keys), READ_AT_ONCE):
        some = keys[start : start + READ_AT_ONCE]
        async with database.api.connect() as conn:
            tasks = await task.definitions(conn, some)
        found += [tasks[key] for key in some if key in tasks]
        held += sum(of.size for of in tasks.values())
        if held >= PAGE_BYTES:
            break
    return found


async def _shown(
    database: Database, service_id: UUID, page: Sequence[Definition], now: int
) -> list[Task]:
    shown = list[Task]()
    for start in range(0, len(page), READ_AT_ONCE):
        async with database.api.connect() as conn:
            some = page[start : start + READ_AT_ONCE]
            shown += await listing.shown_of(conn, service_id, some, now)
    return shown
