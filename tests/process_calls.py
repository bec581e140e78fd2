"""Registering specs and calling through them, as a client does."""

import base64
import hashlib
import json
import uuid
from typing import Any
from uuid import UUID

import httpx
import msgspec

from calling import document as compiled_from
from calling import of
from conftest import App, eventually
from scheduler.clock import database_ms
from scheduler.documents.client import Client
from scheduler.documents.messages import Compiled
from scheduler.specs import changes, model

AT = "/v1/api/scheduler/process"
TERM = {"name": "term", "in": "query", "required": True, "schema": {"type": "string"}}
PATHS: dict[str, Any] = {
    "/getsearchchannels": {"get": {"parameters": [TERM], "responses": {"200": {"description": ""}}}}
}


def document(url: str | None, paths: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI document."""
    servers = {} if url is None else {"servers": [{"url": url}]}
    info = {"title": "API", "version": "1.0.0"}
    return {"openapi": "3.0.3", "info": info, "paths": paths, **servers}


def operations(*called: str) -> dict[str, Any]:
    """Paths of a document that take any query: `operations("GET /a", "POST /a")`."""
    paths: dict[str, Any] = {}
    for each in called:
        method, path = each.split(" ")
        paths.setdefault(path, {})[method.lower()] = {"responses": {"200": {"description": "ok"}}}
    return paths


async def registered(
    client: httpx.AsyncClient,
    url: str | None,
    paths: dict[str, Any],
    *,
    name: str = "Filmot",
    headers: dict[str, str] | None = None,
) -> str:
    """Register a spec; return its trace_id once it can be called."""
    source = base64.b64encode(json.dumps(document(url, paths)).encode()).decode()
    body = {"name": name, "headers": headers or {}, "spec": source}
    made = await client.post("/v1/api/spec", json=body)
    assert made.status_code == 200, made.text
    trace_id: str = made.json()["trace_id"]

    async def callable_now() -> None:
        status = (await client.get(f"/v1/api/spec/{trace_id}/status")).json()
        assert status["status"] == "SUCCESS", status

    await eventually(callable_now, within=20)
    return trace_id


async def ready(app: App, url: str, *called: str, name: str = "filmot") -> None:
    """Have a spec of Alice's that can be called, without the children that read documents:
    `ready(app, receiver.url, "GET /a", "POST /a")`.
    """
    endpoints = [of(path, method) for method, path in (each.split(" ") for each in called)]
    source, service = compiled_from(endpoints), UUID(app.ids["alice"])
    sent = changes.Sent(source, hashlib.sha256(source).hexdigest())
    trace_id = uuid.uuid4().hex[:16]
    new = changes.NewSpec(trace_id=trace_id, name=name, headers={}, url=url, sent=sent)
    async with app.database.engine.begin() as conn:
        now = await database_ms(conn)
        await changes.create(conn, service, new, now)
        spec = await model.of_trace(conn, service, trace_id)
        assert spec is not None
        await changes.reach(conn, spec, "IN_PROGRESS", now)
        await changes.reach(conn, spec, "READY_YAML", now)
        await changes.reach(conn, spec, "READY_CLIENT", now)
        written = [msgspec.json.encode(each) for each in endpoints]
        await changes.keep(conn, spec, Compiled(source, Client(), written))
        assert await changes.serve(conn, spec, {}, now)


async def called(
    client: httpx.AsyncClient, endpoint: str = "GET /a", *, service: str = "Filmot", **more: Any
) -> str:
    """Make a process; return its trace_id."""
    method, path = endpoint.split(" ")
    body = {"service": service, "endpoint": path, "method": method, **more}
    made = await client.post(AT, json=body)
    assert made.status_code == 200, made.text
    trace_id: str = made.json()["trace_id"]
    return trace_id


async def ended(client: httpx.AsyncClient, trace_id: str, within: float = 10) -> dict[str, Any]:
    """Return the status of a process once it has ended."""

    async def look() -> dict[str, Any]:
        answer = await client.get(f"{AT}/{trace_id}/status")
        assert answer.status_code == 200, answer.text
        status: dict[str, Any] = answer.json()
        assert status["status"] in ("SUCCESS", "ERROR"), status
        return status

    status: dict[str, Any] = await eventually(look, within)
    return status
