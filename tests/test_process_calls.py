"""Processes from the request to the answer, against a target that behaves well, and badly."""

import base64
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
from sqlalchemy import text

from conftest import NUMBERS, App, eventually, running, url_of
from receiver import Receiver
from scheduler.embedded import EmbeddedPostgres

AT = "/v1/api/scheduler/process"
PREFIX = "Error executing API call: API call failed: "
TERM = {"name": "term", "in": "query", "required": True, "schema": {"type": "string"}}
OK = {"responses": {"200": {"description": "ok"}}}
DOCUMENT = {
    "openapi": "3.0.3",
    "info": {"title": "Filmot", "version": "1"},
    "paths": {
        "/search": {"get": {"parameters": [TERM], **OK}},
        "/any": {"get": OK, "post": OK, "put": OK},
    },
}


class Caller:
    """A service, and a spec of its own that leads to the target."""

    def __init__(self, client: httpx.AsyncClient, target: Receiver) -> None:
        self.client = client
        self.target = target
        self.name = f"Filmot-{next(NUMBERS)}"

    async def add(self, *servers: str) -> str:
        """Add the spec, with these servers in place of the target; return its trace_id."""
        urls = servers or (self.target.url,)
        document = {**DOCUMENT, "servers": [{"url": each} for each in urls]}
        source = base64.b64encode(json.dumps(document).encode()).decode()
        body = {"name": self.name, "headers": {"X-Key": "abc"}, "spec": source}
        answer = await self.client.post("/v1/api/spec", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["trace_id"])

    async def call(self, endpoint: str = "GET /any", **more: Any) -> str:
        """Make a process; return its trace_id."""
        method, _, path = endpoint.partition(" ")
        body = {"service": self.name, "endpoint": path, "method": method, **more}
        answer = await self.client.post(AT, json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["trace_id"])

    async def ended(self, trace_id: str) -> dict[str, Any]:
        """Wait for the end of a process; return its status."""

        async def there() -> dict[str, Any]:
            found = (await self.client.get(f"{AT}/{trace_id}/status")).json()
            assert found["status"] in ("SUCCESS", "ERROR")
            return dict(found)

        return dict(await eventually(there, 20))

    async def answered(self, trace_id: str) -> httpx.Response:
        """Wait for the success of a process; return the target's answer."""
        found = await self.ended(trace_id)
        assert found["status"] == "SUCCESS", found
        return await self.client.get(f"{AT}/{trace_id}/response")


@pytest.fixture(scope="module")
async def app(
    postgres: EmbeddedPostgres,
    maintenance: asyncpg.Connection,
    template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[App]:
    """One for all of them: the children that read documents take a while to start."""
    await maintenance.execute(f"CREATE DATABASE calls TEMPLATE {template} STRATEGY file_copy")
    folder = tmp_path_factory.mktemp("calls")
    limit = {"PROCESSES_RESPONSE_MAX_BYTES": str(6 << 20)}
    async with running(url_of(postgres, "calls"), folder, **limit) as started:
        yield started
    await maintenance.execute("DROP DATABASE calls WITH (FORCE)")


@pytest.fixture
async def caller(alice: httpx.AsyncClient, receiver: Receiver) -> Caller:
    return Caller(alice, receiver)


async def test_a_process_made_before_its_spec_is_ready_waits_for_it(caller, receiver):
    await caller.add()
    answer = await caller.answered(await caller.call("GET /search", query_params={"term": "x y"}))
    assert (answer.content, answer.headers["x-upstream-status"]) == (b"ok", "200")
    assert receiver.last.path == "/search?term=x%20y"
    assert receiver.last.header("x-key") == "abc"


async def test_a_process_without_a_spec_ends_in_the_words_of_an_older_program(caller):
    found = await caller.ended(await caller.call())
    assert found["error"] == (
        "The command could not be executed because the service requested "
        f"({caller.name.lower()}) is not available."
    )


@pytest.mark.parametrize("server", ["/v1", "ftp://files.example.com"])
async def test_a_process_may_say_where_the_api_is_where_its_spec_does_not(caller, receiver, server):
    await caller.add(server)
    found = await caller.ended(await caller.call())
    assert found["error"].endswith("send url with the spec or the process")
    answer = await caller.answered(await caller.call(url=f"{receiver.url}/base"))
    assert (answer.content, receiver.last.path) == (b"ok", "/base/any")


async def test_a_spec_that_is_told_later_where_its_api_is_can_be_called(caller, receiver):
    at = f"/v1/api/spec/{await caller.add('/v1')}"
    found = await caller.ended(await caller.call())
    assert found["error"].endswith("send url with the spec or the process")
    answer = await caller.client.put(at, json={"url": receiver.url})
    assert answer.status_code == 204, answer.text

    async def reviewed() -> None:
        assert (await caller.ended(await caller.call()))["status"] == "SUCCESS"

    await eventually(reviewed, 20)
    assert receiver.last.path == "/v1/any"


async def test_what_is_missing_ends_a_process_before_anything_is_sent(caller, receiver):
    await caller.add()
    trace_id = await caller.call("GET /search")
    await caller.ended(trace_id)
    assert (await caller.client.get(f"{AT}/{trace_id}/response")).json() == {
        "error": True,
        "message": f"{PREFIX}term is required and must be specified",
    }
    assert receiver.requests == []


@pytest.mark.parametrize(
    "body", [bytes(range(256)) * 2000, b"\x1f\x8b" * 50, b""], ids=["long", "short", "empty"]
)
async def test_an_answer_comes_back_byte_for_byte_also_when_it_is_shared(caller, receiver, body):
    await caller.add()
    receiver.then(200, body, {"Content-Type": "image/png"})
    first = await caller.answered(await caller.call())
    second = await caller.answered(await caller.call())
    assert first.content == second.content == body
    assert first.headers["content-type"] == second.headers["content-type"] == "image/png"
    assert len(receiver.requests) == 1


async def test_five_megabytes_come_back_byte_for_byte(caller, receiver):
    body = bytes(range(256)) * 20_000
    await caller.add()
    receiver.then(200, body)
    assert (await caller.answered(await caller.call())).content == body


async def test_a_compressed_answer_is_given_as_what_it_holds(caller, receiver):
    await caller.add()
    packed = gzip.compress(b'{"a": 1}')
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    receiver.then(200, packed, headers)
    answer = await caller.answered(await caller.call())
    assert (answer.content, answer.headers.get("content-encoding")) == (b'{"a": 1}', None)


async def test_what_fails_first_is_tried_again(caller, receiver):
    await caller.add()
    receiver.then(500, b"no").then(drop=True)
    trace_id = await caller.call()
    assert (await caller.answered(trace_id)).content == b"ok"
    keys = {each.header("idempotency-key") for each in receiver.requests}
    assert (len(receiver.requests), len(keys)) == (3, 1)


async def test_what_nobody_may_repeat_is_sent_once(caller, receiver):
    await caller.add()
    receiver.then(drop=True)
    found = await caller.ended(await caller.call("POST /any", req_body={"a": 1}))
    assert found["error"].startswith(PREFIX)
    assert found["error"].endswith("; the call may have arrived")
    assert len(receiver.requests) == 1


async def test_a_target_that_refuses_ends_a_process(caller, receiver):
    await caller.add()
    receiver.then(404, b"no such thing")
    found = await caller.ended(await caller.call())
    assert found["error"] == f"{PREFIX}the target answered 404, expected 200-299"


async def test_an_answer_that_is_too_long_ends_a_process(caller, receiver):
    await caller.add()
    receiver.then(200, bytes((6 << 20) + 1))
    found = await caller.ended(await caller.call())
    assert "longer than processes.response_max_bytes (6291456 bytes)" in found["error"]


async def test_of_many_equal_processes_one_is_sent(caller, receiver):
    await caller.add()
    await caller.answered(await caller.call(cache=False))
    made = [await caller.call(headers={"X-Same": "1"}) for _ in range(40)]
    for trace_id in made:
        assert (await caller.answered(trace_id)).content == b"ok"
    assert len(receiver.requests) == 2


async def test_a_service_never_meets_anothers_spec(caller, bob, receiver):
    await caller.add()
    await caller.answered(await caller.call())
    other = Caller(bob, receiver)
    other.name = caller.name
    assert "is not available" in (await other.ended(await other.call()))["error"]


async def test_what_a_process_does_is_a_run_that_says_how_it_went(caller, receiver):
    await caller.add()
    receiver.then(503, b"later")
    trace_id = await caller.call()
    await caller.answered(trace_id)
    runs = (await caller.client.get("/runs", params={"kind": "process"})).json()["runs"]
    [run] = [each for each in runs if each["trace_id"] == trace_id]
    shown = (await caller.client.get(f"/runs/{run['id']}")).json()
    assert [each["status_code"] for each in shown["attempts"]] == [503, 200]
    assert shown["attempts"][0]["error"] == f"{PREFIX}the target answered 503, expected 200-299"


async def test_what_is_too_old_is_looked_for_every_so_often(app, caller, receiver):
    await caller.add()
    receiver.then(200, bytes(100_000))
    await caller.answered(await caller.call())
    chores = {chore.name: chore.work for chore in app.engine._chores}
    old = (
        "UPDATE response SET created_at = '2020-01-01Z'",
        "UPDATE response_cache SET expires_at = now()",
    )
    left = "SELECT (SELECT count(*) FROM response) + (SELECT count(*) FROM response_cache)"
    async with app.database.auto.connect() as conn:

        async def there() -> None:
            assert (await conn.execute(text(left))).scalar_one() >= 2

        await eventually(there)
        for statement in old:
            await conn.execute(text(statement))
        await chores["cache"]()
        await chores["answers"]()
        assert (await conn.execute(text(left))).scalar_one() == 0
