"""`/v1/api/spec/{trace_id}/files`: a spec as files, as an older program kept them."""

import asyncio
from typing import Any
from uuid import UUID

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from scheduler.db import Conn
from scheduler.engine import Engine
from scheduler.errors import Conflict, NotFound
from scheduler.service import Service
from scheduler.specs import changes, model, package
from scheduler.specs.model import Stored
from scheduler.specs.shown import metadata_file

YAML = "application/yaml"
ZIP = "application/zip"

Json = dict[str, Any]
"""What YAML holds, as the description of these routes has it."""

Caller = NamedDependency[Service]
Machine = NamedDependency[Engine]


@get("/{trace_id:str}/files/spec.yaml", media_type=YAML, summary="The document, as it was sent")
async def get_document(trace_id: FromPath[str], service: Caller, engine: Machine) -> Response[Json]:
    """Return the document that came last, byte for byte; it may be JSON."""
    return await file(engine, service, trace_id, "spec.yaml")


async def file(engine: Engine, service: Service, trace_id: str, name: str) -> Response[Any]:
    """Return one of a spec's files. Raises UserError."""
    if name == "spec.yaml":
        return await _document(engine, service, trace_id)
    if name == "service.metadata.yaml":
        return await _metadata(engine, service, trace_id)
    if name == "client.zip":
        return await _package(engine, service, trace_id)
    raise NotFound(f"a spec has no file {name}")


async def _document(engine: Engine, service: Service, trace_id: str) -> Response[Any]:
    async with engine.database.api.connect() as conn:
        of = await _found(conn, service, trace_id)
        source = await changes.source(conn, of, of.draft)
    if source is None:  # a newer one came between the two
        raise NotFound("the document was replaced just now; ask again")
    return _file(source, YAML, "spec.yaml")


@get(
    "/{trace_id:str}/files/service.metadata.yaml",
    media_type=YAML,
    summary="What an older program kept beside a document",
)
async def get_metadata(trace_id: FromPath[str], service: Caller, engine: Machine) -> Response[Json]:
    """Return the trace_id, the name, and when the spec was changed last."""
    return await file(engine, service, trace_id, "service.metadata.yaml")


async def _metadata(engine: Engine, service: Service, trace_id: str) -> Response[Any]:
    async with engine.database.api.connect() as conn:
        of = await _found(conn, service, trace_id)
    return _file(metadata_file(of).encode(), YAML, "service.metadata.yaml")


@get(
    "/{trace_id:str}/files/client.zip",
    media_type=ZIP,
    summary="A typed Python client of the document that serves",
    responses={409: ResponseSpec(None, description=Conflict.__doc__ or "")},
)
async def get_package(trace_id: FromPath[str], service: Caller, engine: Machine) -> Response[bytes]:
    """Return a Python package; it is written when it is first asked for, which takes a while."""
    return await file(engine, service, trace_id, "client.zip")


async def _package(engine: Engine, service: Service, trace_id: str) -> Response[Any]:
    async with engine.database.api.connect() as conn:
        of = await _found(conn, service, trace_id)
        if of.serving is None:
            raise Conflict(f"the spec has no client yet: its status is {of.status}")
        made = await changes.package(conn, of, of.serving)
        document = await model.document(conn, service.id, of.key, of.serving) if not made else b""
    if made is None:
        if document is None:
            raise NotFound("the document was replaced just now; ask again")
        made = await _packed(engine, of, of.serving, document)
    return _file(made, ZIP, "client.zip")


_under_way: dict[tuple[UUID, int, str], asyncio.Task[bytes]] = {}


async def _packed(engine: Engine, of: Stored, draft: int, document: bytes) -> bytes:
    """Write a package, once for all who ask meanwhile; who goes away stops nothing."""
    key = of.key, draft, of.name
    writing = _under_way.get(key)
    if writing is None:
        writing = asyncio.create_task(_write(engine, of, draft, document))
        _under_way[key] = writing
        writing.add_done_callback(lambda done: _ended(key, done))
    try:
        return await asyncio.shield(writing)
    except ValueError as e:
        raise Conflict(f"there is no Python client: {e}") from None


def _ended(key: tuple[UUID, int, str], done: asyncio.Task[bytes]) -> None:
    del _under_way[key]
    if not done.cancelled():
        done.exception()  # it was seen by who asked, if anyone still does


async def _write(engine: Engine, of: Stored, draft: int, document: bytes) -> bytes:
    seconds = engine.settings.specs.package_seconds
    made = await package.written(of.service_id, document, of.name, seconds)
    async with engine.database.api.begin() as conn:
        await changes.pack(conn, of, draft, made)
    return made


async def _found(conn: Conn, service: Service, trace_id: str) -> Stored:
    of = await model.of_trace(conn, service.id, trace_id)
    if of is None:
        raise NotFound(f"there is no spec {trace_id}")
    return of


def _file(content: bytes, kind: str, name: str) -> Response[Any]:
    """Return a file; a browser keeps it, and never looks for anything else in it."""
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox",
    }
    return Response(content, media_type=kind, headers=headers)
