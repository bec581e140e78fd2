"""Specs, request for request as the README of the older program has them."""

import base64
import re
from typing import Any

import httpx

from conftest import eventually

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
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def encoded(document: str) -> str:
    return base64.b64encode(document.encode()).decode()


async def created(client: httpx.AsyncClient, **fields: Any) -> str:
    answer = await client.post("/v1/api/spec", json={**NEW, **fields})
    assert answer.status_code == 200, answer.text
    trace_id: str = answer.json()["trace_id"]
    return trace_id


async def status(client: httpx.AsyncClient, trace_id: str) -> dict[str, Any]:
    answer = await client.get(f"/v1/api/spec/{trace_id}/status")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def ended(client: httpx.AsyncClient, trace_id: str, word: str = "SUCCESS") -> dict[str, Any]:
    async def over() -> dict[str, Any]:
        found = await status(client, trace_id)
        assert found["status"] in ("SUCCESS", "ERROR")
        return found

    found: dict[str, Any] = await eventually(over, within=20)
    assert found["status"] == word, found
    return found


async def test_the_example_is_answered_with_its_trace_id(alice):
    answer = await alice.post("/v1/api/spec", json=NEW)
    assert answer.status_code == 200
    assert list(answer.json()) == ["trace_id"]
    assert re.fullmatch(r"[A-Za-z0-9]{16}", answer.json()["trace_id"])
    # It has no servers and no paths, and is a spec all the same.
    assert await ended(alice, answer.json()["trace_id"]) == SUCCESS


async def test_basic_credentials_do(app):
    async with httpx.AsyncClient(
        base_url=app.url, auth=("alice", "alice-token-0123456789"), trust_env=False
    ) as client:
        await created(client)


async def test_what_no_worker_has_taken_up_waits(run_app):
    async with run_app() as app, app.client("alice") as alice:
        app.engine.dispatcher.halt("test", "nothing is claimed here")
        trace_id = await created(alice)
        assert await status(alice, trace_id) == WAITING


async def test_a_spec_that_waits_for_its_review_has_its_client(run_app):
    async with run_app(SPECS_REVIEW="manual") as app, app.client("alice") as alice:
        trace_id = await created(alice, spec=encoded(FILMOT))

        async def ready() -> None:
            assert await status(alice, trace_id) == READY_CLIENT

        await eventually(ready, within=20)
        answer = await alice.post(f"/v1/api/spec/{trace_id}/review")
        assert answer.status_code == 204
        assert answer.content == b""
        assert await ended(alice, trace_id) == SUCCESS
        again = await alice.post(f"/v1/api/spec/{trace_id}/review")
        assert again.status_code == 409


async def test_the_status_of_each_step(conn, alice):
    trace_id = await created(alice)
    await ended(alice, trace_id)
    for word, expected in (
        ("IN_PROGRESS", IN_PROGRESS),
        ("READY_YAML", READY_YAML),
    ):
        await conn.execute("UPDATE spec SET status = $1, reached = $1", word)
        assert await status(alice, trace_id) == expected


async def test_a_finding_ends_as_an_error_after_the_step_it_was_found_in(alice):
    found = await ended(alice, await created(alice, spec=encoded(WRONG)), "ERROR")
    assert list(found) == ["status", "message", "error", "step"]
    assert found["message"] == "The spec has one or more errors."
    assert found["step"] == STEPS[:3]
    assert "paths./getsearchsubtitles.get" in found["error"]
    assert "responses" in found["error"]


async def test_a_spec_with_its_document_and_its_client(alice):
    trace_id = await created(alice, spec=encoded(FILMOT))
    await ended(alice, trace_id)
    answer = await alice.get(f"/v1/api/spec/{trace_id}?spec=true&client=true")
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


async def test_document_and_client_are_left_out_where_nobody_asks(alice):
    trace_id = await created(alice)
    for query in ("", "?spec=false&client=false"):
        found = (await alice.get(f"/v1/api/spec/{trace_id}{query}")).json()
        assert list(found) == [
            "trace_id", "created_at", "updated_at", "name", "status", "headers",
        ]  # fmt: skip
    found = (await alice.get(f"/v1/api/spec/{trace_id}?spec=true")).json()
    assert found["spec"] == EXAMPLE
    assert "client" not in found


async def test_an_update_of_everything(alice):
    trace_id = await created(alice)
    await ended(alice, trace_id)
    answer = await alice.put(f"/v1/api/spec/{trace_id}", json={**NEW, "spec": encoded(FILMOT)})
    assert answer.status_code == 204
    assert answer.content == b""
    await ended(alice, trace_id)

    async def renewed() -> None:
        found = (await alice.get(f"/v1/api/spec/{trace_id}?spec=true&client=true")).json()
        assert found["spec"] == encoded(FILMOT)
        assert len(found["client"]["endpoints"]) == 2

    await eventually(renewed)


async def test_another_document_waits_again(app, alice):
    trace_id = await created(alice)
    await ended(alice, trace_id)
    app.engine.dispatcher.halt("test", "nothing is claimed here")
    same = await alice.put(f"/v1/api/spec/{trace_id}", json=NEW)
    assert same.status_code == 204
    assert await status(alice, trace_id) == SUCCESS
    await alice.put(f"/v1/api/spec/{trace_id}", json={"spec": encoded(FILMOT)})
    assert await status(alice, trace_id) == WAITING


async def test_a_deleted_spec_is_gone(conn, alice):
    trace_id = await created(alice)
    answer = await alice.delete(f"/v1/api/spec/{trace_id}")
    assert answer.status_code == 204
    assert answer.content == b""
    assert (await alice.get(f"/v1/api/spec/{trace_id}")).status_code == 404
    assert await conn.fetchval("SELECT name FROM spec_archive") == "filmot"


async def test_a_list_of_specs_the_newest_first(alice):
    traces = [await created(alice, name=name) for name in ("test", "Filmot")]
    for trace_id in traces:
        await ended(alice, trace_id)
    answer = await alice.get("/v1/api/spec/0/100?spec=true&client=true")
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
    assert (await alice.get("/v1/api/spec/1/1")).json()["results"][0]["name"] == "test"


async def test_the_metadata_file(alice):
    trace_id = await created(alice)
    await ended(alice, trace_id)
    answer = await alice.get(f"/v1/api/spec/{trace_id}/files/service.metadata.yaml")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/yaml")
    updated = (await alice.get(f"/v1/api/spec/{trace_id}")).json()["updated_at"]
    assert answer.text == f'trace_id: {trace_id}\nname: filmot\nupdated_at: "{updated}"\n'


async def test_a_name_that_is_no_text_is_refused(alice):
    answer = await alice.post("/v1/api/spec", json={**NEW, "name": 1})
    assert answer.status_code == 400
    (detail,) = answer.json()["error"]["details"]
    assert detail["field"] == "name"
    assert "str" in detail["message"]
    assert "int" in detail["message"]
