"""`GET /tasks`: the list, its filters, and how each task stands."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIType, Schema

from scheduler import history, lines, task
from scheduler.db import Conn, utc
from scheduler.engine import Engine
from scheduler.errors import ValidationFailed
from scheduler.openapi import asks, whole
from scheduler.services import Service
from scheduler.task import Definition, Filter
from scheduler.tasks import model, query
from scheduler.tasks.model import STATES, Task
from scheduler.tasks.query import PAGE_MOST

TRIGGERS = ("interval", "once", "cron", "rrule", "none")
ACTIONS = ("http", "command", "operation")

AnyRequest = Request[Any, Any, Any]
Caller = NamedDependency[Service]
Machine = NamedDependency[Engine]


@get(
    "/",
    summary="List tasks, the newest first",
    operation_class=asks(
        status=Schema(enum=["active", "paused", "disabled", *STATES]),
        state=Schema(enum=list(STATES)),
        trigger=Schema(enum=list(TRIGGERS)),
        action=Schema(enum=list(ACTIONS)),
        tag=Schema(type=OpenAPIType.STRING),
        q=Schema(type=OpenAPIType.STRING),
        pageNumber=whole(0, 10**9),
        count=whole(1, PAGE_MOST),
    ),
)
async def list_tasks(request: AnyRequest, service: Caller, engine: Machine) -> Response[list[Task]]:
    """Return a page of tasks, with `X-Total-Count` and `Link` where they apply."""
    sent = request.query_params
    page, count = query.page(sent)
    wanted, state = _filter(sent)
    now = engine.clock.now_ms()
    async with engine.database.api.connect() as conn:
        if state is None:
            rows = await task.list_page(
                conn, service.id, wanted, offset=page * count, count=count + 1
            )
            found = await shown(conn, service.id, rows, now)
            total = await task.total(conn, service.id, wanted)
        else:
            every, total = await _in_state(conn, service.id, wanted, state, now)
            found = every[page * count : (page + 1) * count + 1]
    headers = {} if total is None else {"X-Total-Count": str(total)}
    if len(found) > count:
        following = {**dict(sent.items()), "pageNumber": page + 1, "count": count}
        headers["Link"] = f'<{request.url.path}?{urlencode(following)}>; rel="next"'
    return Response(found[:count], headers=headers)


def _filter(query: Any) -> tuple[Filter, str | None]:
    status, state = query.get("status") or None, query.get("state") or None
    if status in STATES:
        status, state = None, status
    if status is not None and status not in ("active", "paused", "disabled"):
        words = ", ".join(("active", "paused", "disabled", *STATES))
        raise ValidationFailed.of("status", f"must be one of {words}")
    if state is not None and state not in STATES:
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
        words=tuple((sent["q"] or "").split()[:10]),
    )
    return wanted, state


async def _in_state(
    conn: Conn, service_id: UUID, wanted: Filter, state: str, now: int
) -> tuple[list[Task], int | None]:
    """Return the tasks in a state among the newest 10,000, and how many; None beyond those."""
    found: list[Task] = []
    for start in range(0, task.TOTAL_MOST, PAGE_MOST):
        page = await task.list_page(conn, service_id, wanted, offset=start, count=PAGE_MOST)
        found += [t for t in await shown(conn, service_id, page, now) if t.state == state]
        if len(page) < PAGE_MOST:
            return found, len(found)
    return found, None


async def shown(conn: Conn, service_id: UUID, page: Sequence[Definition], now: int) -> list[Task]:
    """Return tasks with their states: how a run of them stands, or how the last one ended."""
    keys = [of.key for of in page]
    if not keys:
        return []
    live = await lines.live(conn, service_id, keys, utc(now))
    resting = [of.key for of in page if of.key not in live and not _pending(of, now)]
    ends = await history.last_ends(conn, service_id, resting) if resting else {}
    return [model.shown(of, _state(of, live, ends, now), now) for of in page]


def _pending(of: Definition, now: int) -> bool:
    return of.status == "active" and model.next_due(of, now) is not None


def _state(of: Definition, live: dict[UUID, bool], ends: dict[UUID, str], now: int) -> str:
    if live.get(of.key):
        return "running"
    if of.key in live or _pending(of, now):
        return "pending"
    end = ends.get(of.key)
    if end is None:
        return "created"
    return "completed" if end == "succeeded" else "failed"
