"""`/v1/api/spec`: OpenAPI documents, and how far each has come on its way to being callable."""

from typing import Any
from uuid import UUID

from litestar import Request, Response, Router, delete, get, post, put
from litestar.di import NamedDependency
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.openapi.spec import OpenAPIType, Schema
from litestar.params import FromPath
from msgspec import UNSET

from scheduler import asked, clock, db, history, logs, queue, quotas, services
from scheduler.actions.step import Message
from scheduler.config import Settings
from scheduler.db import Conn, utc
from scheduler.documents.messages import Finding, Limits, Read
from scheduler.engine import Engine
from scheduler.errors import (
    Conflict,
    NotFound,
    PayloadTooLarge,
    ValidationFailed,
)
from scheduler.openapi import asks
from scheduler.run import NewRun
from scheduler.runs import actions as runs
from scheduler.service import Service
from scheduler.specs import changes, files, listing, model, room, told, wanted
from scheduler.specs.aide import Aides
from scheduler.specs.changes import NewSpec, Sent
from scheduler.specs.model import Stored
from scheduler.specs.pipeline import step, step_id
from scheduler.specs.shown import (
    CreatedSpec,
    Spec,
    SpecFields,
    SpecList,
    SpecStatus,
    shown,
    status_of,
)

LIMIT_MOST = 1000
OFFSET_MOST = 1_000_000
BESIDE_BYTES = 64 << 10
"""What a body may hold beside its document."""

AnyRequest = Request[Any, Any, Any]
Caller = NamedDependency[Service]
Machine = NamedDependency[Engine]
Children = NamedDependency[Aides]
YES_OR_NO = Schema(type=OpenAPIType.BOOLEAN)


@post("/", status_code=200, summary="Register a spec", operation_class=asks(SpecFields))
async def create_spec(
    request: AnyRequest, service: Caller, engine: Machine, aides: Children
) -> CreatedSpec:
    """Register an OpenAPI document under a name; it is read and compiled in the background."""
    fields = asked.body(await _body(request, engine), SpecFields)
    return CreatedSpec(await register(engine, aides, service, fields))


async def register(engine: Engine, aides: Aides, service: Service, fields: SpecFields) -> str:
    """Create a spec of what was sent, and return its trace_id. Raises UserError."""
    sent, wrong = await wanted.read(fields, engine.settings.specs)
    wrong = wanted.missing(fields) + wrong
    if wrong or sent.name is None or sent.headers is None or sent.sent is None:
        raise ValidationFailed.all(wrong)
    await _look(engine, aides, service, sent.sent)
    new = NewSpec(
        trace_id=logs.trace_id(),
        name=sent.name,
        headers=model.sealed(engine.database.vault, service.id, sent.headers),
        url=None if sent.url is UNSET else sent.url,
        sent=sent.sent,
    )
    engine.wake(await _created(engine, service, new))
    return new.trace_id


async def _body(request: AnyRequest, engine: Engine) -> bytes:
    try:
        return await request.body()
    except RequestEntityTooLarge:
        most = engine.settings.specs.max_bytes
        raise PayloadTooLarge(
            f"the body is larger than a document of specs.max_bytes needs, {most} bytes in base64"
        ) from None


async def _look(engine: Engine, aides: Aides, service: Service, sent: Sent) -> None:
    """See that a document is one at all. Raises ValidationFailed."""
    of = engine.settings.specs
    limits = Limits(of.max_bytes, of.max_depth, of.max_operations)
    found = await aides.ask(service.id, Read(sent.source, limits), of.compile_seconds)
    if isinstance(found, Finding):
        raise ValidationFailed.of("spec", found.message)


@db.again
async def _created(engine: Engine, service: Service, new: NewSpec) -> int:
    """Create a spec, and have it read, both or neither; return when (ms)."""
    most = engine.settings.specs.max_specs
    async with engine.database.api.begin() as conn:
        await services.lock(conn, service.id)
        await quotas.take_runs(conn, service)
        if await changes.count(conn, service.id, most) >= most:
            raise Conflict(
                f"a service has at most {most} specs (specs.max_specs); delete one first"
            )
        await room.check(conn, service, len(new.sent.source))
        now = await clock.database_ms(conn)
        key = await changes.create(conn, service.id, new, now)
        await told.tell(conn, service, [told.created(new)], now)
        await queue.enqueue(conn, [step(service.id, key, new.trace_id, 1, "SPEC", now)], utc(now))
    return now


@get("/{trace_id:str}/status", summary="How far a spec has come")
async def get_spec_status(trace_id: FromPath[str], service: Caller, engine: Machine) -> SpecStatus:
    """Return the status of a spec, and the steps that it has taken."""
    async with engine.database.api.connect() as conn:
        return status_of(await _found(conn, service, trace_id))


async def _found(conn: Conn, service: Service, trace_id: str, *, lock: bool = False) -> Stored:
    of = await model.of_trace(conn, service.id, trace_id, lock=lock)
    if of is None:
        raise NotFound(f"there is no spec {trace_id}")
    return of


@get(
    "/{trace_id:str}",
    summary="A spec",
    operation_class=asks(spec=YES_OR_NO, client=YES_OR_NO),
)
async def get_spec(
    trace_id: FromPath[str], request: AnyRequest, service: Caller, engine: Machine
) -> Spec:
    """Return a spec; where asked for, with its document in base64, and what it compiled to."""
    source, client = _wanted(request)
    async with engine.database.api.connect() as connection:
        conn = await connection.execution_options(isolation_level="REPEATABLE READ")
        of = await _found(conn, service, trace_id)
        (found,) = await listing.whole(conn, service.id, [of], source=source, client=client)
    return await shown(found, engine.database.vault, client=client)


@get(
    "/{offset:str}/{limit:str}",
    summary="The specs, the newest first",
    operation_class=asks(spec=YES_OR_NO, client=YES_OR_NO),
)
async def list_specs(
    offset: FromPath[str],
    limit: FromPath[str],
    request: AnyRequest,
    service: Caller,
    engine: Machine,
) -> Response[SpecList]:
    """Return some of the specs, and how many there are.

    A page ends early where its documents hold 8 MB together; `Link` goes on.
    """
    first = asked.whole(offset, "offset", 0, 0, OFFSET_MOST)
    most = asked.whole(limit, "limit", 100, 1, LIMIT_MOST)
    source, client = _wanted(request)
    async with engine.database.api.connect() as connection:
        conn = await connection.execution_options(isolation_level="REPEATABLE READ")
        total, page = await listing.page(conn, service.id, offset=first, most=most)
        found = await listing.whole(conn, service.id, page, source=source, client=client)
    results = [await shown(each, engine.database.vault, client=client) for each in found]
    following, headers = first + len(results), dict[str, str]()
    if results and following < total:
        query = f"?{request.url.query}" if request.url.query else ""
        headers["Link"] = f'</v1/api/spec/{following}/{most}{query}>; rel="next"'
    return Response(SpecList(total, results), headers=headers)


def _wanted(request: AnyRequest) -> tuple[bool, bool]:
    """Return whether the document and the client are asked for. Raises ValidationFailed."""
    found = []
    for name in ("spec", "client"):
        sent = request.query_params.get(name, "").lower()
        if sent not in ("", "true", "false", "1", "0"):
            raise ValidationFailed.of(name, "must be true or false")
        found.append(sent in ("true", "1"))
    return found[0], found[1]


@put(
    "/{trace_id:str}",
    status_code=204,
    summary="Change a spec",
    operation_class=asks(SpecFields),
)
async def change_spec(
    trace_id: FromPath[str], request: AnyRequest, service: Caller, engine: Machine, aides: Children
) -> None:
    """Change what is sent of a spec.

    Another document goes through everything again; the old one serves until then, and goes on to
    where the new one ends in ERROR.
    """
    await change(
        engine, aides, service, trace_id, asked.body(await _body(request, engine), SpecFields)
    )


async def change(
    engine: Engine, aides: Aides, service: Service, trace_id: str, fields: SpecFields
) -> None:
    """Change what was sent of a spec. Raises UserError."""
    sent, wrong = await wanted.read(fields, engine.settings.specs)
    if wrong:
        raise ValidationFailed.all(wrong)
    async with engine.database.api.connect() as conn:
        before = await _found(conn, service, trace_id)
        same = sent.sent is not None and sent.sent.sha256 == await changes.sha256(conn, before)
    if sent.sent is not None and not same:
        await _look(engine, aides, service, sent.sent)
    engine.wake(await _changed(engine, service, trace_id, sent))


@db.again
async def _changed(
    engine: Engine, service: Service, trace_id: str, sent: wanted.Asked
) -> int | None:
    """Change a spec, and have it read or told anew; return when (ms), None where nothing is."""
    async with engine.database.api.begin() as conn:
        await services.hold(conn, service.id)
        of = await _found(conn, service, trace_id, lock=True)
        await quotas.take_runs(conn, service)
        now = await clock.database_ms(conn)
        run = await _renamed(conn, engine, of, sent, now)
        # One that ended in ERROR may be sent again as it is: what was wrong may be ours.
        other = sent.sent is not None and (
            of.status == "ERROR" or sent.sent.sha256 != await changes.sha256(conn, of)
        )
        if sent.sent is not None and other:
            await room.check(conn, service, len(sent.sent.source))
            draft = await changes.renew(conn, of, sent.sent, now)
            run = step(service.id, of.key, trace_id, draft, "SPEC", now)
        elif sent.sent is not None and run is None:
            run = _told(of, now)
        if run is not None:
            await queue.enqueue(conn, [run], utc(now))
        entries = told.edited(
            of, sent, engine.database.vault, renewed=sent.sent is not None and other
        )
        await told.tell(conn, service, entries, now)
    return None if run is None else now


async def _renamed(
    conn: Conn, engine: Engine, of: Stored, sent: wanted.Asked, now: int
) -> NewRun | None:
    """Change what is no document; return the run that tells of it, None where nothing was sent."""
    if sent.name is None and sent.headers is None and sent.url is UNSET:
        return None
    headers = of.headers
    if sent.headers is not None:
        kept = wanted.kept(sent.headers, of.headers)
        headers = model.sealed(engine.database.vault, of.service_id, kept)
    url = of.url if sent.url is UNSET else sent.url
    await changes.rename(conn, of, name=sent.name or of.name, headers=headers, url=url, now=now)
    return _told(of, now)


def _told(of: Stored, now: int) -> NewRun:
    return step(of.service_id, of.key, of.trace_id, of.draft, "SPEC_UPDATE", now)


@delete("/{trace_id:str}", status_code=204, summary="Delete a spec")
async def delete_spec(trace_id: FromPath[str], service: Caller, engine: Machine) -> None:
    """Move a spec to the archive; its name is free again, and its endpoints cannot be called."""
    await archive(engine, service, trace_id)


async def archive(engine: Engine, service: Service, trace_id: str) -> None:
    """Move a spec to the archive. Raises NotFound."""
    of = await _archived(engine, service, trace_id)
    if of.status not in ("SUCCESS", "ERROR"):
        await runs.cancel(engine, service.id, [_next(of)])


@db.again
async def _archived(engine: Engine, service: Service, trace_id: str) -> Stored:
    async with engine.database.api.begin() as conn:
        of = await _found(conn, service, trace_id, lock=True)
        now = await clock.database_ms(conn)
        await changes.archive(conn, of, now)
        await told.tell(conn, service, [told.archived(of)], now)
    return of


def _next(of: Stored) -> UUID:
    """Return the run that takes a spec on."""
    message: Message = "SPEC_CLIENT_GENERATED" if of.reached == "READY_CLIENT" else "SPEC"
    return step_id(of.service_id, of.key, of.draft, message)


@post("/{trace_id:str}/review", status_code=204, summary="Pass a spec that waits for a review")
async def review_spec(trace_id: FromPath[str], service: Caller, engine: Machine) -> None:
    """Have a spec that waits at READY_CLIENT go on (`specs.review: manual`)."""
    engine.wake(await _passed(engine, service, trace_id))


@db.again
async def _passed(engine: Engine, service: Service, trace_id: str) -> int:
    async with engine.database.api.begin() as conn:
        await services.hold(conn, service.id)
        of = await _found(conn, service, trace_id, lock=True)
        if of.status != "READY_CLIENT":
            raise Conflict(f"the spec waits for no review: its status is {of.status}")
        now = await clock.database_ms(conn)
        run = step(service.id, of.key, trace_id, of.draft, "SPEC_CLIENT_GENERATED", now)
        if await history.get(conn, service.id, run.id) is not None:
            raise Conflict("the review has ended; see the status in a moment")
        await queue.enqueue(conn, [run], utc(now))
        await told.tell(conn, service, [told.reviewed(of)], now)
    return now


def router(settings: Settings) -> Router:
    """Return the routes; what a body may hold follows from what a document may."""
    most = settings.specs.max_bytes * 4 // 3 + BESIDE_BYTES
    return Router(
        "/v1/api/spec",
        route_handlers=[
            create_spec,
            get_spec_status,
            get_spec,
            list_specs,
            change_spec,
            delete_spec,
            review_spec,
            files.get_document,
            files.get_metadata,
            files.get_package,
        ],
        request_max_body_size=most,
    )
