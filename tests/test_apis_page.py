"""The pages of APIs: register a document, look through what it offers, try an operation."""

import base64
import json
import re
from typing import Any
from uuid import UUID

import httpx

from conftest import App, eventually
from pages import field, safe, signed_in, statements
from scheduler.dashboard.apis import apis
from scheduler.documents.forms import form_of

OK = {"responses": {"200": {"description": "as it is"}}}
HOSTILE = '"><script>alert(1)</script>\u202e'


def document(url: str) -> dict[str, Any]:
    pet = {
        "type": "object",
        "required": ["name", "tame"],
        "properties": {
            "id": {"type": "integer", "readOnly": True},
            "name": {"type": "string", "example": "Rex"},
            "kind": {"type": "string", "enum": ["cat", "dog"], "default": "dog"},
            "age": {"type": "integer", "minimum": 0},
            "tame": {"type": "boolean"},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
    }
    number = {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}
    size = {"name": "size", "in": "query", "schema": {"enum": ["small", "large"]}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Pets", "version": "1.0"},
        "servers": [{"url": url}],
        "paths": {
            "/pets": {
                "get": {"summary": "All pets", "parameters": [size], **OK},
                "post": {
                    "summary": "Add a pet",
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": pet}},
                    },
                    **OK,
                },
            },
            "/pets/{id}": {"get": {"summary": "One pet", "parameters": [number], **OK}},
        },
    }


async def reached(client: httpx.AsyncClient, trace: str, word: str = "SUCCESS") -> None:
    status = (await client.get(f"/v1/api/spec/{trace}/status")).json()
    assert status["status"] == word, status


async def register(alice: httpx.AsyncClient, url: str, **changes: Any) -> str:
    source = base64.b64encode(json.dumps({**document(url), **changes}).encode()).decode()
    new = {"name": "pets", "headers": {"x-api-key": "planted"}, "spec": source}
    trace = str((await alice.post("/v1/api/spec", json=new)).json()["trace_id"])
    await eventually(lambda: reached(alice, trace))
    return trace


async def form(visitor: httpx.AsyncClient, path: str) -> tuple[str, dict[str, str]]:
    """A page, and what its forms send along."""
    answer = await visitor.get(path)
    assert answer.status_code == 200, answer.text
    safe(answer)
    return answer.text, {"form": field(answer.text, "form")}


# Registering -------------------------------------------------------------------------------------


async def test_a_document_is_uploaded_and_its_page_says_how_far_it_is(visitor, alice):
    _, sent = await form(visitor, "/dashboard/apis/new")
    file = {"file": ("pets.json", json.dumps(document("http://127.0.0.1:9")).encode())}
    headers = {"header_name": ["x-key", ""], "header_value": ["planted", ""]}
    led = await visitor.post(
        "/dashboard/apis/new", data={**sent, **headers, "name": "Pets"}, files=file
    )
    assert led.status_code == 303, led.text
    found = re.fullmatch(r"/dashboard/apis/(\w{16})\?done=new", led.headers["Location"])
    assert found
    await eventually(lambda: reached(alice, found[1]))
    text = (await visitor.get(led.headers["Location"])).text
    assert "GET /pets/{id}" in text and "x-key" in text and "planted" not in text
    spec = (await alice.get(f"/v1/api/spec/{found[1]}")).json()
    assert (spec["name"], spec["headers"]) == ("pets", {"x-key": "planted"})


async def test_what_is_wrong_stands_beside_its_field_and_nothing_typed_is_lost(visitor):
    _, sent = await form(visitor, "/dashboard/apis/new")
    typed = {"name": "", "url": "nowhere", "spec": "swagger: '2.0'", "header_name": "a b"}
    answer = await visitor.post(
        "/dashboard/apis/new", data={**sent, **typed, "header_value": "kept"}
    )
    assert answer.status_code == 400
    for said in ("must have 1 to 200 characters", "a URL begins with http", "a header name is"):
        assert said in answer.text, said
    assert 'value="nowhere"' in answer.text and 'value="kept"' in answer.text
    assert "swagger: &#39;2.0&#39;" in answer.text
    typed = {**typed, "name": "x", "url": "", "header_name": ""}
    answer = await visitor.post("/dashboard/apis/new", data={**sent, **typed})
    assert answer.status_code == 400 and "2.0" in answer.text and 'id="wrong-spec"' in answer.text
    assert (await visitor.post("/dashboard/apis/new", data={"name": "x"})).status_code == 403


async def test_a_document_larger_than_its_limit_is_refused(run_app):
    async with run_app(SPECS_MAX_BYTES="2000") as app, signed_in(app) as visitor:
        _, sent = await form(visitor, "/dashboard/apis/new")
        larger = {**sent, "name": "x", "spec": "x" * 5000}
        assert "(specs.max_bytes)" in (await visitor.post("/dashboard/apis/new", data=larger)).text
        over = {**sent, "spec": "x" * 100_000}
        assert (await visitor.post("/dashboard/apis/new", data=over)).status_code == 413


async def test_a_spec_is_changed_and_a_masked_header_stays(visitor, alice):
    trace = await register(alice, "http://127.0.0.1:9")
    text, sent = await form(visitor, f"/dashboard/apis/{trace}/edit")
    assert "planted" not in text and "********" in text
    changes = {"name": "animals", "header_name": "x-api-key", "header_value": "********"}
    led = await visitor.post(f"/dashboard/apis/{trace}/edit", data={**sent, **changes})
    assert led.status_code == 303, led.text
    spec = (await alice.get(f"/v1/api/spec/{trace}")).json()
    assert (spec["name"], spec["headers"]) == ("animals", {"x-api-key": "planted"})


async def test_archiving_says_first_which_tasks_call_it(visitor, alice):
    trace = await register(alice, "http://127.0.0.1:9")
    task = {"name": "Feed", "service": "pets", "endpoint": "/pets", "cron": "0 0 1 1 *"}
    assert (await alice.post("/tasks", json=task)).status_code == 201
    text, sent = await form(visitor, f"/dashboard/apis/{trace}/archive")
    assert "1 task calls it" in text and "Feed" in text
    assert (await visitor.post(f"/dashboard/apis/{trace}/archive")).status_code in (400, 403)
    led = await visitor.post(f"/dashboard/apis/{trace}/archive", data=sent)
    assert led.headers["Location"] == "/dashboard/apis?done=archive"
    assert (await visitor.get(f"/dashboard/apis/{trace}")).status_code == 404


# What it offers ----------------------------------------------------------------------------------


async def test_operations_are_searched_and_the_page_takes_five_statements(visitor, alice, app: App):
    trace = await register(alice, "http://127.0.0.1:9")
    await alice.post("/tasks", json={"name": "T", "service": "pets", "endpoint": "/pets"})
    with statements(app) as seen:
        text = (await visitor.get(f"/dashboard/apis/{trace}", params={"q": "one PET"})).text
    assert len(seen) <= 5, seen
    assert "GET /pets/{id}" in text and "POST /pets" not in text and "1 of 3" in text
    assert f"/dashboard/apis/{trace}/try?endpoint=GET%20%2Fpets%2F%7Bid%7D" in text
    assert "/dashboard/new?service=pets&amp;endpoint=%2Fpets%2F%7Bid%7D&amp;method=GET" in text
    assert "No operation fits" in (await visitor.get(f"/dashboard/apis/{trace}?q=zebra")).text


async def test_tasks_are_compared_value_by_value_within_five_statements(visitor, alice, app: App):
    trace = await register(alice, "http://127.0.0.1:9")
    call = {"service": "pets", "endpoint": "/pets/{id}", "url_params": {"id": 7}}
    assert (await alice.post("/tasks", json={"name": "Seven", **call})).status_code == 201
    changed = document("http://127.0.0.1:9")
    changed["paths"]["/pets/{id}"]["get"]["parameters"][0]["schema"] = {"enum": ["rex"]}
    source = base64.b64encode(json.dumps(changed).encode()).decode()
    await alice.put(f"/v1/api/spec/{trace}", json={"spec": source})
    await eventually(lambda: reached(alice, trace))
    with statements(app) as seen:
        text = (await visitor.get(f"/dashboard/apis/{trace}/impact")).text
    assert len(seen) <= 5, seen
    assert "Seven" in text and "1 tasks were looked at" in text


async def test_downloads_are_the_bytes_of_the_api(visitor, alice):
    trace = await register(alice, "http://127.0.0.1:9")
    for name in ("spec.yaml", "service.metadata.yaml", "client.zip"):
        ours = await visitor.get(f"/dashboard/apis/{trace}/files/{name}", timeout=60)
        api = await alice.get(f"/v1/api/spec/{trace}/files/{name}")
        assert (ours.status_code, ours.content) == (200, api.content), name
        assert ours.headers["Content-Disposition"].startswith("attachment")
    assert (await visitor.get(f"/dashboard/apis/{trace}/files/else")).status_code == 404


async def test_marks_are_made_for_what_moved_just_now_of_this_service_alone(alice, bob, app: App):
    trace = await register(alice, "http://127.0.0.1:9")
    now = app.engine.clock.now_ms()
    theirs = await apis.slots(app.engine, UUID(app.ids["bob"]), now)
    assert theirs == {}
    marks = await apis.slots(app.engine, UUID(app.ids["alice"]), now)
    assert list(marks) == [f"spec:{trace}:status"] and "success" in marks[f"spec:{trace}:status"]
    assert await apis.slots(app.engine, UUID(app.ids["alice"]), now + 3_600_000) == {}


# Trying ------------------------------------------------------------------------------------------

GET_ONE = {"endpoint": "GET /pets/{id}"}
POST = {"endpoint": "POST /pets"}


async def test_the_form_is_made_of_the_document(visitor, alice, app: App):
    trace = await register(alice, "http://127.0.0.1:9")
    with statements(app) as seen:
        answer = await visitor.get(f"/dashboard/apis/{trace}/try", params=POST)
    text = answer.text
    assert answer.status_code == 200 and len(seen) <= 5
    safe(answer)
    assert 'name="body:name" value="Rex"' in text
    assert re.search(r'<select name="body:kind">\s*<option value=""></option>', text)
    assert '<option value="dog" selected>dog</option>' in text
    assert 'type="checkbox" name="body:tame" value="true"' in text
    assert "body:id" not in text and text.count(">required<") == 3
    assert "&#34;Rex&#34;" in text.replace("&quot;", "&#34;")
    assert (
        await visitor.get(f"/dashboard/apis/{trace}/try", params={"endpoint": "GET /none"})
    ).status_code == 404


async def test_a_call_is_tried_and_its_answer_is_on_its_page(visitor, alice, receiver):
    trace = await register(alice, receiver.url)
    receiver.then(201, b'{"id": 7}')
    at = f"/dashboard/apis/{trace}/try?endpoint=POST%20%2Fpets"
    _, sent = await form(visitor, at)
    typed = {
        "body_as": "fields", "body:name": "Rex", "body:age": "3", "body:tame": ["false", "true"],
        "body:tags": '["big"]', "body:kind": "", "header_name": "X-Own", "header_value": "yes",
    }  # fmt: skip
    led = await visitor.post(at, data={**sent, **typed})
    assert led.status_code == 303, led.text
    to_run = await visitor.get(led.headers["Location"])

    async def answered() -> None:
        assert "JSON, 9 bytes" in (await visitor.get(to_run.headers["Location"])).text

    await eventually(answered)
    assert json.loads(receiver.last.body) == {
        "name": "Rex", "age": 3, "tame": True, "tags": ["big"],
    }  # fmt: skip
    names = {name.lower(): value for name, value in receiver.last.headers}
    assert (names["x-own"], names["x-api-key"]) == ("yes", "planted")
    raw = {"body_as": "raw", "body": '{"name": "Tom", "tame": false}'}
    assert (await visitor.post(at, data={**sent, **raw})).status_code == 303
    await eventually(lambda: _called(receiver, {"name": "Tom", "tame": False}))


async def test_what_does_not_fit_is_said_beside_its_field_and_nothing_is_sent(
    visitor, alice, receiver
):
    trace = await register(alice, receiver.url)
    at = f"/dashboard/apis/{trace}/try?endpoint=GET%20%2Fpets%2F%7Bid%7D"
    _, sent = await form(visitor, at)
    for typed, said in (("", "is required: fill it in"), ("seven", "integer")):
        answer = await visitor.post(at, data={**sent, "path:id": typed})
        assert answer.status_code == 400
        assert re.search(rf'aria-invalid="true">\s*<span class="wrong">[^/]*{said}', answer.text)
    assert 'value="seven"' in answer.text
    at = f"/dashboard/apis/{trace}/try?endpoint=POST%20%2Fpets"
    for typed, said in (
        ({"body_as": "raw", "body": "{"}, "must be JSON"),
        ({"body_as": "fields", "body:name": "R", "body:age": "old", "body:tame": "true"}, "number"),
    ):
        answer = await visitor.post(at, data={**sent, **typed})
        assert answer.status_code == 400 and said in answer.text
    assert receiver.requests == []


async def test_an_operation_of_another_service_cannot_be_tried(visitor, bob, receiver):
    trace = await register(bob, receiver.url)
    for path in ("", "/try?endpoint=GET%20%2Fpets", "/edit", "/archive", "/impact"):
        assert (await visitor.get(f"/dashboard/apis/{trace}{path}")).status_code == 404, path


async def test_hostile_names_are_sent_as_they_are_and_shown_harmlessly(visitor, alice, receiver):
    one = {"name": HOSTILE, "in": "query", "required": True, "schema": {"type": "string"},
           "description": HOSTILE}  # fmt: skip
    paths = {"/x": {"get": {"summary": HOSTILE, "parameters": [one], **OK}}}
    trace = await register(alice, receiver.url, paths=paths)
    at = f"/dashboard/apis/{trace}/try?endpoint=GET%20%2Fx"
    text, sent = await form(visitor, at)
    assert "<script>alert" not in text and "\u202e" not in text
    name = re.search(r'name="(query:[^"]+)"', text)
    assert name
    led = await visitor.post(at, data={**sent, name[1]: "v"})
    assert led.status_code == 303
    await eventually(lambda: _sent(receiver))


def test_a_form_names_what_is_required_and_gives_examples_for_it_alone():
    made = form_of(document("http://x"), "GET /pets")
    (size,) = made.fields
    assert (size.required, size.sample, size.choices) == (False, "", ["small", "large"])
    assert made.body is None
    one = form_of(document("http://x"), "GET /pets/{id}").fields[0]
    assert (one.kind, one.sample) == ("integer", "1")
    assert json.loads(form_of(document("http://x"), "POST /pets").body or "")["name"] == "Rex"


async def _called(receiver, body: dict[str, Any]) -> None:
    assert json.loads(receiver.last.body) == body


async def _sent(receiver) -> None:
    assert len(receiver.requests) == 1 and "script" in receiver.last.path
