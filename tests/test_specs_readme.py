"""Specs, request for request as the README of the older program has them."""

import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from conftest import TOKENS, App, eventually
from scheduler.embedded import EmbeddedPostgres
from spec_room import (
    EXAMPLE,
    FILMOT,
    HEADERS,
    NEW,
    STEPS,
    TIME,
    WRONG,
    changed,
    comes_to,
    created,
    encoded,
    ended,
    newcomer,
    one_for_all,
    sql,
    status,
    unclaimed,
)

WAITING = {
    "status": "WAITING",
    "message": "The spec has been created and it is now waiting to be processed.",
    "step": STEPS[:1],
}
IN_PROGRESS = {
    "status": "IN_PROGRESS",
    "message": "The spec is being processed.",
    "step": STEPS[:2],
}
READY_YAML = {
    "status": "READY_YAML",
    "message": "The spec yaml configuration file has been generated.",
    "step": STEPS[:3],
}
READY_CLIENT = {
    "status": "READY_CLIENT",
    "message": "The client code has been generated.",
    "step": STEPS[:4],
}
SUCCESS = {
    "status": "SUCCESS",
    "message": "The spec has been completed successfully.",
    "step": STEPS,
}


@pytest.fixture(scope="module")
async def room(
    postgres: EmbeddedPostgres,
    maintenance: asyncpg.Connection,
    template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[App]:
    folder = tmp_path_factory.mktemp("specs")
    async with one_for_all(postgres, maintenance, template, folder) as app:
        yield app


@pytest.fixture
async def client(room: App) -> AsyncIterator[httpx.AsyncClient]:
    async with newcomer(room) as client:
        yield client


async def test_the_example_is_answered_with_its_trace_id(client):
    answer = await client.post("/v1/api/spec", json=NEW)
    assert answer.status_code == 200
    assert list(answer.json()) == ["trace_id"]
    assert re.fullmatch(r"[A-Za-z0-9]{16}", answer.json()["trace_id"])
    # It has no servers and no paths, and is a spec all the same.
    assert await ended(client, answer.json()["trace_id"]) == SUCCESS


async def test_basic_credentials_do(room):
    async with httpx.AsyncClient(
        base_url=room.url, auth=("alice", TOKENS["alice"]), trust_env=False
    ) as client:
        await created(client)


async def test_what_no_worker_has_taken_up_waits(room, client):
    with unclaimed(room):
        trace_id = await created(client)
        assert await status(client, trace_id) == WAITING
    await ended(client, trace_id)


async def test_a_spec_that_waits_for_its_review_has_its_client(run_app):
    async with run_app(SPECS_REVIEW="manual") as app, app.client("alice") as alice:
        trace_id = await created(alice, spec=encoded(FILMOT))
        assert await comes_to(alice, trace_id, "READY_CLIENT") == READY_CLIENT
        answer = await alice.post(f"/v1/api/spec/{trace_id}/review")
        assert answer.status_code == 204
        assert answer.content == b""
        assert await ended(alice, trace_id) == SUCCESS
        again = await alice.post(f"/v1/api/spec/{trace_id}/review")
        assert again.status_code == 409


@pytest.mark.parametrize("expected", [IN_PROGRESS, READY_YAML], ids=lambda each: each["status"])
async def test_the_status_of_a_spec_on_its_way(expected, room, client):
    trace_id = await created(client)
    await ended(client, trace_id)
    word = expected["status"]
    where = f"WHERE trace_id = '{trace_id}'"
    await sql(room, f"UPDATE spec SET status = '{word}', reached = '{word}' {where}")
    assert await status(client, trace_id) == expected


async def test_a_finding_ends_as_an_error_after_the_step_it_was_found_in(client):
    found = await ended(client, await created(client, spec=encoded(WRONG)), "ERROR")
    assert list(found) == ["status", "message", "error", "step"]
    assert found["message"] == "The spec has one or more errors."
    assert found["step"] == STEPS[:3]
    assert "paths./getsearchsubtitles.get" in found["error"]
    assert "responses" in found["error"]


async def test_a_spec_with_its_document_and_its_client(client):
    trace_id = await created(client, spec=encoded(FILMOT))
    await ended(client, trace_id)
    answer = await client.get(f"/v1/api/spec/{trace_id}?spec=true&client=true")
    assert answer.status_code == 200
    found = answer.json()
    assert list(found) == [
        "trace_id", "created_at", "updated_at", "name", "status", "client", "spec", "headers",
    ]  # fmt: skip
    assert TIME.fullmatch(found.pop("created_at"))
    assert TIME.fullmatch(found.pop("updated_at"))
    assert found == {
        "trace_id": trace_id,
        "name": "filmot",
        "status": SUCCESS,
        "client": {
            "endpoints": {
                "GET /getsearchchannels": [parameter("term", required=True)],
                "GET /getsearchsubtitles": [
                    parameter("query", required=True),
                    parameter("channel", required=False),
                ],
            },
            "headers": ["x-rapidapi-key", "x-rapidapi-host"],
            "servers": ["https://filmot-tube-metadata-archive.p.rapidapi.com"],
            "url": "https://filmot-tube-metadata-archive.p.rapidapi.com",
        },
        "spec": encoded(FILMOT),
        "headers": HEADERS,
    }
    entry = answer.json()["client"]["endpoints"]["GET /getsearchchannels"][0]
    assert list(entry) == ["default", "enum", "name", "in", "type", "required"]


def parameter(name: str, *, required: bool) -> dict[str, Any]:
    return {
        "default": None,
        "enum": None,
        "name": name,
        "in": "query",
        "type": "string",
        "required": required,
    }


async def test_document_and_client_are_left_out_where_nobody_asks(client):
    trace_id = await created(client)
    for query in ("", "?spec=false&client=false"):
        found = (await client.get(f"/v1/api/spec/{trace_id}{query}")).json()
        assert list(found) == [
            "trace_id", "created_at", "updated_at", "name", "status", "headers",
        ]  # fmt: skip
    found = (await client.get(f"/v1/api/spec/{trace_id}?spec=true")).json()
    assert found["spec"] == EXAMPLE
    assert "client" not in found


async def test_an_update_of_everything(client):
    trace_id = await created(client)
    await ended(client, trace_id)
    answer = await client.put(f"/v1/api/spec/{trace_id}", json={**NEW, "spec": encoded(FILMOT)})
    assert answer.status_code == 204
    assert answer.content == b""
    await ended(client, trace_id)

    async def renewed() -> None:
        found = (await client.get(f"/v1/api/spec/{trace_id}?spec=true&client=true")).json()
        assert found["spec"] == encoded(FILMOT)
        assert len(found["client"]["endpoints"]) == 2

    await eventually(renewed)


async def test_another_document_waits_again(room, client):
    trace_id = await created(client)
    await ended(client, trace_id)
    with unclaimed(room):
        await changed(client, trace_id, **NEW)
        assert await status(client, trace_id) == SUCCESS
        await changed(client, trace_id, spec=encoded(FILMOT))
        assert await status(client, trace_id) == WAITING


async def test_a_deleted_spec_is_gone_and_archived(room, client):
    trace_id = await created(client)
    answer = await client.delete(f"/v1/api/spec/{trace_id}")
    assert answer.status_code == 204
    assert answer.content == b""
    assert (await client.get(f"/v1/api/spec/{trace_id}")).status_code == 404
    archived = await sql(room, f"SELECT name FROM spec_archive WHERE trace_id = '{trace_id}'")
    assert archived == [("filmot",)]


async def test_a_list_of_specs_the_newest_first(client):
    traces = [await created(client, name=name) for name in ("test", "Filmot")]
    for trace_id in traces:
        await ended(client, trace_id)
    answer = await client.get("/v1/api/spec/0/100?spec=true&client=true")
    assert answer.status_code == 200
    found = answer.json()
    assert list(found) == ["count", "results"]
    assert found["count"] == 2
    assert [each["name"] for each in found["results"]] == ["filmot", "test"]
    assert [each["trace_id"] for each in found["results"]] == traces[::-1]
    for each in found["results"]:
        assert each["spec"] == EXAMPLE
        assert each["headers"] == HEADERS
        assert each["client"] == {
            "endpoints": {},
            "headers": ["x-rapidapi-key", "x-rapidapi-host"],
            "servers": [],
            "url": None,
        }
    assert (await client.get("/v1/api/spec/1/1")).json()["results"][0]["name"] == "test"


async def test_the_metadata_file(client):
    trace_id = await created(client)
    await ended(client, trace_id)
    answer = await client.get(f"/v1/api/spec/{trace_id}/files/service.metadata.yaml")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/yaml")
    updated = (await client.get(f"/v1/api/spec/{trace_id}")).json()["updated_at"]
    assert answer.text == f'trace_id: {trace_id}\nname: filmot\nupdated_at: "{updated}"\n'


async def test_a_name_that_is_no_text_is_refused(client):
    answer = await client.post("/v1/api/spec", json={**NEW, "name": 1})
    assert answer.status_code == 400
    (detail,) = answer.json()["error"]["details"]
    assert detail["field"] == "name"
    assert "str" in detail["message"]
    assert "int" in detail["message"]
