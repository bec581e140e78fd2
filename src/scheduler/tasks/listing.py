"""`GET /tasks`: filters, pages, and how each task stands."""

import itertools
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIType, Schema

from scheduler import asked, history, lines, state, tasklist
from scheduler.db import Conn, utc
from scheduler.definition import Definition
from scheduler.engine import Engine
from scheduler.errors import ValidationFailed
from scheduler.openapi import asks, whole
from scheduler.service import Service
from scheduler.standing import awaits, ended_ahead, limited
from scheduler.tasklist import COUNT_WALK, TOTAL_MOST, Filter, Listed, words_of
from scheduler.tasks import model, pages
from scheduler.tasks.model import STATES, Task

TRIGGERS = ("interval", "once", "cron", "rrule", "none")
ACTIONS = ("http", "command", "operation")
DEEPEST = 1_000_000
"""How many tasks may lie before a page: the database walks them."""

AnyRequest = Request[Any, Any, Any]


@get(
    "/",
    summary="List tasks, the newest first",
    description=(
        "`X-Total-Count` is exact up to 10,000, and left out beyond that; also where each of "
        "several filters leaves more than 10,000, and a look at 20,000 does not decide it."
    ),
    operation_class=asks(
        status=Schema(enum=["active", "paused", "disabled", *STATES]),
        state=Schema(enum=list(STATES)),
        trigger=Schema(enum=list(TRIGGERS)),
        action=Schema(enum=list(ACTIONS)),
        tag=Schema(type=OpenAPIType.STRING),
        q=Schema(type=OpenAPIType.STRING),
        pageNumber=whole(0, DEEPEST),
        count=whole(1, asked.PAGE_MOST),
    ),
)
async def list_tasks(
    request: AnyRequest, service: NamedDependency[Service], engine: NamedDependency[Engine]
) -> Response[list[Task]]:
    """Return a page of tasks, with `X-Total-Count` and `Link` where they apply.

    A page ends early where its tasks hold 8 MB together; `Link` goes on.
    """
    sent = request.query_params
    page, count = asked.page(sent, DEEPEST)
    wanted, word = read_filter(sent)
    now, offset = engine.clock.now_ms(), page * count
    if word is not None:
        await engine.standing.flush()  # what this process knows counts at once
    async with engine.database.api.connect() as connection:
        conn = await connection.execution_options(isolation_level="REPEATABLE READ")
        if word is None:
            listed = await tasklist.page(conn, service.id, wanted, offset=offset, count=count + 1)
        else:
            listed = await in_state(
                conn, service.id, wanted, word, now, offset=offset, count=count + 1
            )
        cut = pages.cut(listed.tasks, page, count)
        found = await shown_of(conn, service.id, cut.tasks, now)
    headers = {} if listed.total is None else {"X-Total-Count": str(listed.total)}
    headers |= pages.links(request, cut)
    # One that has moved on since is in another state's list by now, or soon: we look again.
    kept = [word in (None, shown.state) for shown in found]
    moved = [of.key for of, stays in zip(cut.tasks, kept, strict=True) if not stays]
    engine.standing.recheck(moved)
    return Response(list(itertools.compress(found, kept)), headers=headers)


def read_filter(query: Any) -> tuple[Filter, str | None]:
    """Return the filter that was sent, and the state; `status` takes words of both."""
    status, word = query.get("status") or None, query.get("state") or None
    if status in STATES:
        status, word = None, status
    if status is not None and status not in ("active", "paused", "disabled"):
        words = ", ".join(("active", "paused", "disabled", *STATES))
        raise ValidationFailed.of("status", f"must be one of {words}")
    if word is not None and word not in STATES:
        raise ValidationFailed.of("state", f"must be one of {', '.join(STATES)}")
    sent = {name: query.get(name) or None for name in ("trigger", "action", "tag", "q")}
    for name, value in sent.items():
        if value and "\x00" in value:
            raise ValidationFailed.of(name, "must not hold a NUL character")
    for name, known in (("trigger", TRIGGERS), ("action", ACTIONS)):
        if sent[name] and sent[name] not in known:
            raise ValidationFailed.of(name, f"must be one of {', '.join(known)}")
    wanted = Filter(
        status=status,
        trigger=sent["trigger"],
        action=sent["action"],
        tag=sent["tag"],
        words=words_of(sent["q"] or ""),
    )
    return wanted, word


# States ------------------------------------------------------------------------------------------


async def in_state(
    conn: Conn,
    service_id: UUID,
    wanted: Filter,
    word: str,
    now: int,
    *,
    offset: int,
    count: int,
) -> Listed:
    """Return a page of the tasks that stand in a state: by their rows, and by what runs now."""
    running = await lines.running(conn, service_id, utc(now), TOTAL_MOST + 1)
    if word == "running":
        listed = await tasklist.page(
            conn, service_id, wanted, offset=offset, count=count, among=running
        )
        return listed if len(running) <= TOTAL_MOST else Listed(listed.tasks, None)
    plain = wanted == Filter()
    resting = await _resting(conn, service_id, word, running)
    if resting <= TOTAL_MOST:
        keys = await state.page(conn, service_id, word, running, offset=0, count=TOTAL_MOST)
    elif plain:
        keys = await state.page(conn, service_id, word, running, offset=offset, count=count)
        listed = await tasklist.page(conn, service_id, wanted, offset=0, count=count, among=keys)
        return Listed(listed.tasks, None)
    else:
        few = await tasklist.few(conn, service_id, wanted)
        if few is None:
            return await _sifted(
                conn, service_id, wanted, word, running, offset=offset, count=count
            )
        keys = list(await state.among(conn, service_id, word, few) - set(running))
    return await tasklist.page(conn, service_id, wanted, offset=offset, count=count, among=keys)


async def _resting(conn: Conn, service_id: UUID, word: str, running: Sequence[UUID]) -> int:
    """Return how many tasks stand in a state and do not run; of more than 10,000 not how many."""
    most = TOTAL_MOST + 1 + len(running)
    hidden = await state.among(conn, service_id, word, running) if running else ()
    return await state.count(conn, service_id, word, most) - len(hidden)


async def _sifted(
    conn: Conn,
    service_id: UUID,
    wanted: Filter,
    word: str,
    running: Sequence[UUID],
    *,
    offset: int,
    count: int,
) -> Listed:
    """Walk the tasks in a state, in order, where neither it nor the filter leaves few."""
    chosen: list[UUID] = []
    seen, total, more = 0, 0, True
    # As far as the page, and to count what fits as far as other lists look.
    while more and (len(chosen) < count or (seen < COUNT_WALK and total <= TOTAL_MOST)):
        keys = await state.page(conn, service_id, word, running, offset=seen, count=TOTAL_MOST)
        fit = await tasklist.sift(conn, service_id, wanted, keys)
        chosen += fit[max(offset - total, 0) :][: count - len(chosen)]
        seen, total = seen + len(keys), total + len(fit)
        more = len(keys) == TOTAL_MOST
    listed = await tasklist.page(conn, service_id, Filter(), offset=0, count=count, among=chosen)
    return Listed(listed.tasks, None if more or total > TOTAL_MOST else total)


async def shown_of(
    conn: Conn, service_id: UUID, page: Sequence[Definition], now: int
) -> list[Task]:
    """Return tasks with their states: how a run of them stands, or how the last one ended."""
    keys = [of.key for of in page]
    if not keys:
        return []
    live = await lines.live(conn, service_id, keys, utc(now))
    plans = await limited(conn, service_id, page)
    gone = await ended_ahead(conn, service_id, page, now)
    waiting = {
        of.key
        for of in page
        if of.key in live or awaits(of, now, plans.get(of.key), gone.get(of.key, ()))
    }
    resting = [of.key for of in page if of.key not in waiting]
    ends = await history.last_ends(conn, service_id, resting) if resting else {}
    shown = []
    for of in page:
        planned = plans.get(of.key)
        word = "running" if live.get(of.key) else "pending" if of.key in waiting else ""
        spent = None if planned is None else (planned.runs, planned.until)
        word = word or _rest(ends.get(of.key))
        shown.append(model.shown(of, word, now, spent, gone.get(of.key, ())))
    return shown


async def stand(conn: Conn, of: Definition, now: int) -> Task:
    """Write how a task stands that was changed just now; return it as it is answered."""
    (shown,) = await shown_of(conn, of.service_id, [of], now)
    await state.stand_one(conn, of.line, pending=shown.state in ("pending", "running"))
    return shown


def _rest(end: str | None) -> str:
    """Return the state of a task of which nothing is to come, by how its last run ended."""
    if end is None:
        return "created"
    return "completed" if end == "succeeded" else "failed"
