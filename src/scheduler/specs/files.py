"""`/v1/api/spec/{trace_id}/files`: a spec as files, as an older program kept them."""

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from scheduler.db import Conn
from scheduler.engine import Engine
from scheduler.errors import NotFound
from scheduler.service import Service
from scheduler.specs import changes, model
from scheduler.specs.model import Stored
from scheduler.specs.shown import metadata_file

YAML = "application/yaml"

Caller = NamedDependency[Service]
Machine = NamedDependency[Engine]


@get("/{trace_id:str}/files/spec.yaml", media_type=YAML, summary="The document, as it was sent")
async def get_document(
    trace_id: FromPath[str], service: Caller, engine: Machine
) -> Response[bytes]:
    """Return the document that came last, byte for byte; it may be JSON."""
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
async def get_metadata(
    trace_id: FromPath[str], service: Caller, engine: Machine
) -> Response[bytes]:
    """Return the trace_id, the name, and when the spec was changed last."""
    async with engine.database.api.connect() as conn:
        of = await _found(conn, service, trace_id)
    return _file(metadata_file(of).encode(), YAML, "service.metadata.yaml")


async def _found(conn: Conn, service: Service, trace_id: str) -> Stored:
    of = await model.of_trace(conn, service.id, trace_id)
    if of is None:
        raise NotFound(f"there is no spec {trace_id}")
    return of


def _file(content: bytes, kind: str, name: str) -> Response[bytes]:
    """Return a file; a browser keeps it, and never looks for anything else in it."""
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox",
    }
    return Response(content, media_type=kind, headers=headers)
