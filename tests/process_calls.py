"""Registering specs and calling through them, as a client does."""

import base64
import json
from typing import Any

import httpx

from conftest import eventually

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
