"""`/v1/api/scheduler/process`: asynchronous calls through specs."""

import re
from typing import Any, Literal, TypeVar

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath
from msgspec import UNSET, UnsetType

from scheduler import asked
from scheduler.db import rfc3339
from scheduler.engine import Engine
from scheduler.errors import NotFound
from scheduler.openapi import asks, whole
from scheduler.processes import callback, creating, model, status, waiting
from scheduler.processes.body import ProcessFields
from scheduler.processes.status import ProcessStatus
from scheduler.processes.waiting import WAIT_MOST_S
from scheduler.service import Service

WAITING = "Your request is waiting to be processed."
GUARD = {
    "Content-Security-Policy": "sandbox",
    "X-Content-Type-Options": "nosniff",
}
"""What a target answered is no page of ours: a browser runs nothing of it."""
NEW = {"Cache-Control": "no-store"}
"""It changes."""
BINARY = "application/octet-stream"
SENDABLE = re.compile(r"[\t\x20-\x7e\x80-\xff]+")
"""A header's value (RFC 9110, 5.5)."""

T = TypeVar("T")
AnyRequest = Request[Any, Any, Any]
Caller = NamedDependency[Service]
Machine = NamedDependency[Engine]
Waiting = asks(wait=whole(0, WAIT_MOST_S))


class CreatedProcess(msgspec.Struct):
    """A process just created."""

    trace_id: str
    status: Literal["WAITING"]
    msg: str


class ShownProcess(msgspec.Struct, kw_only=True):
    """A process as it was sent, and where it stands; optional fields where they were sent."""

    trace_id: str
    timestamp: str | None
    status: ProcessStatus
    service: str
    method: str
    endpoint: str
    headers: dict[str, str] | None
    query_params: msgspec.Raw
    url_params: msgspec.Raw
    req_body: msgspec.Raw
    url: str | UnsetType = UNSET
    scheduled_at: str | UnsetType | None = UNSET
    callback_url: str | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    max_retries: int | UnsetType = UNSET
    timeout_seconds: float | UnsetType = UNSET
    cache: bool | UnsetType = UNSET


class Failure(msgspec.Struct):
    """What stands for the answer of a process that failed."""

    error: Literal[True]
    message: str


@post(
    "/",
    status_code=200,
    summary="Call an endpoint of a spec, asynchronously",
    operation_class=asks(ProcessFields),
)
async def create_process(request: AnyRequest, service: Caller, engine: Machine) -> CreatedProcess:
    """Create a process: the call is made now, or at `scheduled_at`, and its answer kept.

    What the spec has to say to it comes later, as the status ERROR. The same `Idempotency-Key`
    is the same process.
    """
    key = request.headers.get("idempotency-key")
    trace_id = await creating.create(engine, service, await request.body(), key)
    return CreatedProcess(trace_id, "WAITING", WAITING)


@get("/{trace_id:str}/status", summary="Where a process stands", operation_class=Waiting)
async def get_process_status(
    trace_id: FromPath[str], request: AnyRequest, service: Caller, engine: Machine
) -> ProcessStatus:
    """Return the status of a process: WAITING, IN_PROGRESS, SUCCESS or ERROR.

    With `wait` the answer waits for its end, so many seconds at most.
    """
    found = await waiting.ended(engine, service.id, trace_id, _wait(request), request)
    return status.status(found.run, engine.clock.now_ms())


def _wait(request: AnyRequest) -> int:
    sent = request.query_params.get("wait")
    return asked.whole(sent, "wait", 0, 0, WAIT_MOST_S)


@get("/{trace_id:str}", summary="A process as it was sent")
async def get_process(trace_id: FromPath[str], service: Caller, engine: Machine) -> ShownProcess:
    """Return a process and its status, without the target's answer."""
    standing = await waiting.standing(engine, service.id, trace_id)
    of = standing.of
    return ShownProcess(
        trace_id=of.trace_id,
        timestamp=rfc3339(of.created_at),
        status=status.status(standing.run, engine.clock.now_ms()),
        service=of.service,
        method=of.method,
        endpoint=of.endpoint,
        headers=model.opened(of, engine.database.vault) or None,
        query_params=_raw(of.query_params),
        url_params=_raw(of.url_params),
        req_body=_raw(of.req_body),
        url=_sent(of.url),
        scheduled_at=UNSET if of.scheduled_at == of.created_at else rfc3339(of.scheduled_at),
        callback_url=_sent(of.callback_url),
        priority=of.priority or UNSET,
        max_retries=_sent(of.max_retries),
        timeout_seconds=_sent(of.timeout_seconds),
        cache=_sent(of.cache),
    )


def _raw(text: str | None) -> msgspec.Raw:
    return msgspec.Raw(b"null" if text is None else text.encode())


def _sent(value: T | None) -> T | UnsetType:
    return UNSET if value is None else value


@get(
    "/{trace_id:str}/response",
    summary="What the target answered, exactly",
    responses={200: ResponseSpec(None, description="The answer, with its own content type.")},
    operation_class=Waiting,
)
async def get_process_response(
    trace_id: FromPath[str], request: AnyRequest, service: Caller, engine: Machine
) -> Response[Any]:
    """Return the bytes of the answer; the status where there is none yet, and why it failed.

    With `wait` the answer waits for the process's end, so many seconds at most.
    """
    found = await waiting.ended(engine, service.id, trace_id, _wait(request), request)
    ended = found.ended
    if ended is None:
        return Response(status.status(found.run, engine.clock.now_ms()), headers=NEW)
    if ended.state != "succeeded":
        return Response(Failure(True, ended.reason or ""), headers=NEW)
    async with engine.database.api.connect() as conn:
        answer = await callback.answer(conn, service.id, ended)
    if answer is None:
        raise NotFound(f"the answer to process {trace_id} is not kept any more, or was not whole")
    last = ended.attempts[-1] if ended.attempts else None
    kind = last.content_type if last else None
    headers = {**GUARD, "Content-Type": kind if kind and SENDABLE.fullmatch(kind) else BINARY}
    if last and last.status_code is not None:
        headers["X-Upstream-Status"] = str(last.status_code)
    return Response(answer, media_type=BINARY, headers=headers)


router = Router(
    "/v1/api/scheduler/process",
    route_handlers=[create_process, get_process_status, get_process, get_process_response],
)
