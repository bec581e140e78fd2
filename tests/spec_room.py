"""What tests of specs share: one program for a file's tests, and a service for each of them."""

import base64
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from conftest import App, eventually, running, url_of
from scheduler import services
from scheduler.embedded import EmbeddedPostgres

EXAMPLE = (
    "b3BlbmFwaTogMy4wLjMKaW5mbzoKICB0aXRsZTogQVBJCiAgdmVyc2lvbjogMS4wLjAKICBjb250YWN0OiB7fQpzZXJ2"
    "ZXJzOiBbXQpwYXRoczoge30KdGFnczogW10K"
)
HEADERS = {
    "x-rapidapi-host": "filmot-tube-metadata-archive.p.rapidapi.com",
    "x-rapidapi-key": "THEi6IKsE3mshLA9rbwj6DMQLAI1p1BHU0qjsn1xqbzwX5ArMB",
}
NEW = {"name": "Filmot", "headers": HEADERS, "spec": EXAMPLE}
FILMOT = """\
openapi: 3.0.3
info:
  title: Filmot
  version: 1.0.0
servers:
  - url: https://filmot-tube-metadata-archive.p.rapidapi.com
paths:
  /getsearchchannels:
    get:
      parameters:
        - {name: term, in: query, required: true, schema: {type: string}}
      responses: {"200": {description: channels}}
  /getsearchsubtitles:
    get:
      parameters:
        - {name: query, in: query, required: true, schema: {type: string}}
        - {name: channel, in: query, schema: {type: string}}
      responses: {"200": {description: subtitles}}
"""
WRONG = FILMOT.replace('responses: {"200": {description: subtitles}}', "description: nothing")
STEPS = [
    "Received in the API",
    "Received in the worker",
    "Spec YAML file generated",
    "Client code generated (not reviewed)",
    "Client code generated and reviewed",
]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
DATABASE = "specs_of_a_file"


@asynccontextmanager
async def one_for_all(
    postgres: EmbeddedPostgres,
    maintenance: asyncpg.Connection,
    template: str,
    folder: Path,
    **environ: str,
) -> AsyncIterator[App]:
    """The program, for all tests of a file: the children that read documents start once."""
    name = f"{DATABASE}_{secrets.token_hex(4)}"
    await maintenance.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    async with running(url_of(postgres, name), folder, **environ) as app:
        yield app
    await maintenance.execute(f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def newcomer(app: App) -> AsyncIterator[httpx.AsyncClient]:
    """A service of a test's own, and a client that acts for it."""
    async with AsyncExitStack() as stack:
        async with app.database.api.begin() as conn:
            name = f"service-{secrets.token_hex(6)}"
            made = await services.create(conn, name, vault=app.database.vault)
        headers = {"service_id": str(made.service.id), "token": made.token}
        client = httpx.AsyncClient(
            base_url=app.url, headers=headers, timeout=20, trust_env=False, verify=False
        )
        yield await stack.enter_async_context(client)


def encoded(document: str | bytes) -> str:
    source = document.encode() if isinstance(document, str) else document
    return base64.b64encode(source).decode()


async def created(client: httpx.AsyncClient, **fields: Any) -> str:
    """Register a spec; return its trace_id."""
    answer = await client.post("/v1/api/spec", json={**NEW, **fields})
    assert answer.status_code == 200, answer.text
    trace_id: str = answer.json()["trace_id"]
    return trace_id


async def shown(client: httpx.AsyncClient, trace_id: str, query: str = "") -> dict[str, Any]:
    answer = await client.get(f"/v1/api/spec/{trace_id}{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def status(client: httpx.AsyncClient, trace_id: str) -> dict[str, Any]:
    return await shown(client, trace_id, "/status")


async def ended(client: httpx.AsyncClient, trace_id: str, word: str = "SUCCESS") -> dict[str, Any]:
    """Wait until a spec has come to its end, and see which it is."""

    async def over() -> dict[str, Any]:
        found = await status(client, trace_id)
        assert found["status"] in ("SUCCESS", "ERROR")
        return found

    found: dict[str, Any] = await eventually(over, within=30)
    assert found["status"] == word, found
    return found


async def comes_to(client: httpx.AsyncClient, trace_id: str, word: str) -> dict[str, Any]:
    """Wait until a spec has a status."""

    async def there() -> dict[str, Any]:
        found = await status(client, trace_id)
        assert found["status"] == word, found
        return found

    found: dict[str, Any] = await eventually(there, within=30)
    return found


async def changed(client: httpx.AsyncClient, trace_id: str, **fields: Any) -> None:
    answer = await client.put(f"/v1/api/spec/{trace_id}", json=fields)
    assert answer.status_code == 204, answer.text


@contextmanager
def unclaimed(app: App) -> Iterator[None]:
    """Have no worker take anything up meanwhile."""
    app.engine.dispatcher.halt("test", "nothing is claimed here")
    try:
        yield
    finally:
        app.engine.dispatcher.halt("test", None)


async def sql(app: App, statement: str) -> list[Any]:
    """Ask the program's database, or write to it, past the program."""
    async with app.database.api.begin() as conn:
        found = await conn.exec_driver_sql(statement)
        return list(found) if found.returns_rows else []
