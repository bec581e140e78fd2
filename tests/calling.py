"""A performer of operations with a database and a door to the network of its own."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import msgspec

from scheduler import config
from scheduler.actions import Call, Expected, Operation, Outcome
from scheduler.clock import database_ms
from scheduler.config import Egress
from scheduler.db import Database
from scheduler.documents.client import Client, Media, Parameter
from scheduler.documents.client import Operation as Endpoint
from scheduler.documents.messages import Compiled
from scheduler.egress import Rules
from scheduler.outbound import Outbound
from scheduler.run import bucket_of, run_id
from scheduler.specs import changes, model, responses
from scheduler.specs.aide import Aides
from scheduler.specs.performer import OperationPerformer

ALICE, BOB = UUID(int=1), UUID(int=2)
SUCCESS = Expected()
TEXT = {"type": "string"}


def of(path: str, method: str = "GET", *parameters: Parameter, body: bool = False) -> Endpoint:
    """An endpoint, as a document compiles to it."""
    media = [Media(type="application/json")] if body else []
    return Endpoint(method=method, path=path, parameters=list(parameters), body=media)


def query(name: str, type_: str = "string", *, required: bool = False) -> Parameter:
    return Parameter(name=name, in_="query", type=type_, required=required, explode=True)


ENDPOINTS = [
    of("/search", "GET", query("term", required=True), query("page", "integer")),
    of("/pets/{id}", "GET", Parameter(name="id", in_="path", required=True, style="simple")),
    of("/pets", "POST", body=True),
    of("/pets", "PUT", body=True),
    of("/pets", "HEAD"),
    of("/any", "GET"),
]


def document(endpoints: list[Endpoint]) -> bytes:
    """The document that compiles to these endpoints."""
    paths: dict[str, dict[str, object]] = {}
    for each in endpoints:
        written: dict[str, object] = {"responses": {"200": {"description": "ok"}}}
        written["parameters"] = [
            {
                "name": p.name,
                "in": p.in_,
                "required": p.required,
                "schema": {"type": p.type or "string"},
            }
            for p in each.parameters
        ]
        if each.body:
            schema = {"type": "object", "properties": {"name": TEXT}}
            written["requestBody"] = {"content": {each.body[0].type: {"schema": schema}}}
        paths.setdefault(each.path, {})[each.method.lower()] = written
    info = {"title": "Filmot", "version": "1"}
    return msgspec.json.encode({"openapi": "3.0.3", "info": info, "paths": paths})


class Calling:
    """One replica's performer; specs that are added lead to `url`."""

    def __init__(self, performer: OperationPerformer, database: Database, url: str) -> None:
        self.performer = performer
        self.database = database
        self.url = url

    async def spec(
        self,
        name: str = "filmot",
        service: UUID = ALICE,
        *,
        url: str = "",
        ready: bool = True,
        headers: dict[str, str] | None = None,
        endpoints: list[Endpoint] = ENDPOINTS,
    ) -> model.Stored:
        """Add a spec, which can be called if it is `ready`."""
        source = document(endpoints)
        sent = changes.Sent(source, hashlib.sha256(source).hexdigest())
        new = changes.NewSpec(
            trace_id=uuid4().hex[:16],
            name=name,
            headers=headers or {},
            url=url or self.url,
            sent=sent,
        )
        async with self.database.engine.begin() as conn:
            await changes.create(conn, service, new, await database_ms(conn))
            spec = await model.of_trace(conn, service, new.trace_id)
        assert spec is not None
        if ready:
            await self.serve(spec, endpoints)
        return spec

    async def serve(self, spec: model.Stored, endpoints: list[Endpoint] = ENDPOINTS) -> None:
        """Have calls go through a spec."""
        async with self.database.engine.begin() as conn:
            now = await database_ms(conn)
            await changes.reach(conn, spec, "IN_PROGRESS", now)
            await changes.reach(conn, spec, "READY_YAML", now)
            await changes.reach(conn, spec, "READY_CLIENT", now)
            written = [msgspec.json.encode(each) for each in endpoints]
            await changes.keep(conn, spec, Compiled(document(endpoints), Client(), written))
            assert await changes.serve(conn, spec, {}, now)

    async def call(
        self,
        endpoint: str = "GET /any",
        *,
        service: str = "filmot",
        of: UUID = ALICE,
        kind: str = "process",
        waited_s: float = 0,
        later_s: float = 0,
        seconds: float = 10,
        again: bool = False,
        expected: Expected = SUCCESS,
        may_send: bool = True,
        attempt: int = 1,
        run: UUID | None = None,
        **fields: object,
    ) -> Outcome | None:
        """Call an endpoint once."""
        method, _, path = endpoint.partition(" ")
        action = Operation(service=service, endpoint=path, method=method, **fields)
        at = int(time.time() * 1000)
        call = Call(
            run_id=run or run_id(uuid4(), bucket_of(of, "x"), kind, at),
            task_id="x",
            attempt=attempt,
            scheduled_for=at - int(waited_s * 1000),
            deadline=asyncio.get_running_loop().time() + seconds,
            may_send=lambda: may_send,
            at=at + int(later_s * 1000),
            service_id=of,
            kind=kind,
            again=again,
        )
        return await self.performer.perform(self.performer.prepare(action, expected), call)

    async def body(self, kept: UUID, service: UUID = ALICE) -> bytes | None:
        async with self.database.auto.connect() as conn:
            return await responses.body(conn, service, kept)


@contextlib.asynccontextmanager
async def helped() -> AsyncIterator[Aides]:
    """The children that read documents, which take a while to start."""
    async with Aides(config.Specs()) as aides:
        yield aides


@contextlib.asynccontextmanager
async def calling(url: str, target: str, aides: Aides, **environ: str) -> AsyncIterator[Calling]:
    """A performer on a database, with settings of the test's own, for the length of a block."""
    settings = config.load(environ=environ)
    async with contextlib.AsyncExitStack() as stack:
        database = Database(url, settings.database)
        stack.push_async_callback(database.close)
        outbound = await stack.enter_async_context(Outbound(settings.http, Rules(Egress())))
        yield Calling(OperationPerformer(settings, database, outbound, aides), database, target)
