"""Tasks that call an endpoint of a spec: what is taken and answered, checked, sent, and shown."""

import asyncio
import base64
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from conftest import App, eventually
from receiver import Receiver
from scheduler.cli import cli
from test_cli_tasks import Run, failed, running
from test_pages import signed_in

PLANTED = "planted-4a19c2"
OF_OTHERS = ("url", "header", "payload", "follow_redirects", "secret_headers", "command", "env")
OF_OPERATION = ("service", "endpoint", "headers", "query_params", "url_params", "req_body", "cache")
BIG = "12345678901234567890123"


def document(url: str, **more: Any) -> dict[str, Any]:
    """A small API: a pet by its number, its meals, and a list."""
    number = {"type": "integer"}
    ok = {"200": {"description": "ok"}}
    pet = {"name": "id", "in": "path", "required": True, "schema": number}
    size = {"name": "size", "in": "query", "schema": {"type": "string", "enum": ["small", "large"]}}
    food = {"type": "object", "required": ["food"], "properties": {"food": {"type": "string"}}}
    meal = {"required": True, "content": {"application/json": {"schema": food}}}
    limit = {"name": "limit", "in": "query", "required": True, "schema": number}
    paths = {
        "/pets": {"get": {"parameters": [limit], "responses": ok}},
        "/pets/{id}": {"get": {"parameters": [pet], "responses": ok}},
        "/pets/{id}/meals": {
            "post": {"parameters": [pet, size], "requestBody": meal, "responses": ok}
        },
    }
    return {
        "openapi": "3.0.3",
        "info": {"title": "Pets", "version": "1"},
        "servers": [{"url": url}],
        "paths": {**paths, **more},
    }


def encoded(content: dict[str, Any]) -> str:
    return base64.b64encode(json.dumps(content).encode()).decode()


async def registered(client: httpx.AsyncClient, content: dict[str, Any], name: str = "Pets") -> str:
    """Register a spec, and see it through to its end; return its trace_id."""
    body = {"name": name, "headers": {"x-of-spec": "yes"}, "spec": encoded(content)}
    answer = await client.post("/v1/api/spec", json=body)
    assert answer.status_code == 200, answer.text
    trace: str = answer.json()["trace_id"]
    await come(client, trace)
    return trace


async def come(client: httpx.AsyncClient, trace: str, word: str = "SUCCESS") -> None:
    """Wait for a spec to get somewhere."""

    async def there() -> None:
        found = (await client.get(f"/v1/api/spec/{trace}/status")).json()
        assert found["status"] == word, found

    await eventually(there, 20)


@pytest.fixture
def tasks(app: App) -> Run:
    return running(app, cli, "tasks")


@pytest.fixture
async def pets(alice: httpx.AsyncClient, receiver: Receiver) -> str:
    """A spec of alice's that is ready; its trace_id."""
    return await registered(alice, document(receiver.url))


GET: dict[str, Any] = {
    "id": "o", "name": "o", "service": "Pets", "endpoint": "/pets/{id}", "url_params": {"id": 7},
}  # fmt: skip
MEAL: dict[str, Any] = {
    "id": "m", "name": "m", "service": "pets", "method": "post", "endpoint": "/pets/{id}/meals",
    "url_params": {"id": 7}, "query_params": {"size": "large"}, "req_body": {"food": "hay"},
    "headers": {"X-From": "here"},
}  # fmt: skip


async def made(client: httpx.AsyncClient, body: Any, **more: Any) -> dict[str, Any]:
    answer = await client.post("/tasks", json={**body, **more})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def got(client: httpx.AsyncClient, task_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(f"/tasks/{task_id}")).json()
    return found


def refused(answer: httpx.Response, *fields: str, status: int = 400) -> dict[str, Any]:
    """An error of the one shape; of a validation it names these fields, and no others."""
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert {detail["field"] for detail in error.get("details", [])} == set(fields), error
    return error


async def last_run(client: httpx.AsyncClient, task_id: str) -> dict[str, Any]:
    """The last run of a task, when it has ended."""

    async def ended() -> dict[str, Any]:
        runs = (await client.get("/runs", params={"task": task_id})).json()["runs"]
        assert runs and runs[0]["state"] in ("succeeded", "failed"), runs
        return dict((await client.get(f"/runs/{runs[0]['id']}")).json())

    return dict(await eventually(ended, 10))


# Fields ------------------------------------------------------------------------------------------


async def test_an_operation_is_answered_with_nulls_for_what_others_have(alice, pets):
    task = await made(alice, MEAL)
    assert {name: task[name] for name in OF_OTHERS} == dict.fromkeys(OF_OTHERS)
    assert (task["service"], task["method"], task["endpoint"]) == (
        "pets", "POST", "/pets/{id}/meals",
    )  # fmt: skip
    assert (task["url_params"], task["query_params"]) == ({"id": 7}, {"size": "large"})
    assert (task["req_body"], task["headers"]) == ({"food": "hay"}, {"X-From": "here"})
    assert (task["cache"], task["timeout_seconds"]) == (None, 30)
    assert (await got(alice, "m")).items() <= task.items()
    web = await made(alice, {"id": "w", "name": "w", "url": "http://127.0.0.1:9/"})
    assert {name: web[name] for name in OF_OPERATION} == dict.fromkeys(OF_OPERATION)
    listed = (await alice.get("/tasks?action=operation")).json()
    assert [task["id"] for task in listed] == ["m"]
    nothing = {"url": None, "payload": "", "secret_headers": [], "command": "", "env": {}}
    await made(alice, GET, **nothing, follow_redirects=False)
    empty = dict.fromkeys(OF_OPERATION) | {"query_params": {}, "cache": False}
    await made(alice, {"name": "w", "url": "http://127.0.0.1:9/"}, **empty)


TRIGGERS: dict[str, dict[str, Any]] = {
    "interval": {
        "frequency": 1,
        "unit": "hour",
        "scheduled_at": "2020-01-01T00:00:00Z",
        "max_runs": 1,
    },
    "once": {"scheduled_at": "2020-01-01T00:00:00Z"},
    "cron": {"cron": "* * * * * *", "max_runs": 1},
    "rrule": {"rrule": "FREQ=SECONDLY", "max_runs": 1},
}


async def test_whatever_makes_it_due_the_call_arrives_as_the_spec_has_it(alice, pets, receiver):
    for name, trigger in TRIGGERS.items():
        await made(alice, MEAL, id=name, **trigger)
    for name in TRIGGERS:
        run = await last_run(alice, name)
        assert (run["state"], run["kind"], run["trigger"]) == ("succeeded", "task", name)
        shown = run["request"]
        assert (shown["service"], shown["req_body"]) == ("pets", {"food": "hay"})
        (call,) = [c for c in receiver.requests if c.header("Idempotency-Key") == run["id"]]
        assert (call.method, call.path) == ("POST", "/pets/7/meals?size=large")
        assert json.loads(call.body) == {"food": "hay"}
        assert (call.header("X-From"), call.header("x-of-spec")) == ("here", "yes")
        assert call.header("webhook-signature") is None
    assert len(receiver.requests) == len(TRIGGERS)


async def test_it_is_executed_scheduled_and_previewed_as_any_task(alice, pets, receiver):
    await made(alice, GET)
    execution = (await alice.post("/tasks/o/execute")).json()
    assert (execution["status"], execution["status_code"]) == ("success", 200)
    at = {"at": datetime.now(UTC).isoformat()}
    assert (await alice.post("/tasks/o/schedule", json=at)).status_code == 200

    def arrived() -> None:
        assert [call.path for call in receiver.requests] == ["/pets/7"] * 2

    await eventually(arrived)
    preview = {"service": "none", "endpoint": "/a", "cron": "0 8 * * *"}
    answer = await alice.post("/tasks/preview?count=1", json=preview)
    assert len(answer.json()["occurrences"]) == 1, answer.text


async def test_numbers_keep_their_digits_and_text_that_jsonb_cannot_hold_is_kept(alice, pets):
    body = '{"id": "n", "name": "n", "service": "pets", "endpoint": "/pets/{id}", "url_params": '
    body += f'{{"id": 7}}, "query_params": {{"more": {BIG}}}, "req_body": ["\\u0000", 1e400]}}'
    made_ = await alice.post("/tasks", content=body)
    assert made_.status_code == 201, made_.text
    text = (await alice.get("/tasks/n")).text
    assert f'{{"more":{BIG}}}' in text and '["\\u0000",1e400]' in text
    run = (await alice.post("/tasks/n/execute")).json()["run_id"]
    changed = await alice.patch("/tasks/n", json={"url_params": {"id": 8}})
    assert changed.status_code == 200, changed.text
    shown = (await alice.get(f"/runs/{run}")).text
    assert f'{{"more":{BIG}}}' in shown and '["\\u0000",1e400]' in shown and '{"id":7}' in shown


WRONG: list[tuple[dict[str, Any], set[str]]] = [
    ({"url": "http://127.0.0.1:9/"}, {"service"}),
    ({"command": "echo"}, {"service"}),
    ({"payload": "x"}, {"payload"}),
    ({"secret_headers": ["X-Odd"]}, {"secret_headers"}),
    ({"follow_redirects": True}, {"follow_redirects"}),
    ({"env": {"A": "b"}}, {"env"}),
    ({"service": ""}, {"service"}),
    ({"service": "a\0b"}, {"service"}),
    ({"service": "a" * 201}, {"service"}),
    ({"endpoint": None}, {"endpoint"}),
    ({"endpoint": "pets"}, {"endpoint"}),
    ({"endpoint": "GET /pets"}, {"endpoint"}),
    ({"endpoint": "/" + "a" * 2000}, {"endpoint"}),
    ({"method": "FETCH"}, {"method"}),
    ({"query_params": [1]}, {"query_params"}),
    ({"url_params": "id"}, {"url_params"}),
    ({"headers": {"A": 1}}, {"headers.A"}),
    ({"headers": {"A": "b\n"}}, {"headers.A"}),
    ({"headers": {"Authorization": "********"}}, {"headers.Authorization"}),
    ({"headers": {f"A{n}": "" for n in range(101)}}, {"headers"}),
    ({"req_body": "x" * 300_000}, {"req_body"}),
]


async def test_what_no_operation_can_be_is_named(alice):
    for sent, fields in WRONG:
        error = refused(await alice.post("/tasks", json={**GET, **sent}), *fields)
        assert all(len(detail["message"]) > 15 for detail in error["details"]), error
    assert (await alice.get("/tasks")).json() == []


# Checked -----------------------------------------------------------------------------------------


MISFITS: list[tuple[dict[str, Any], str, str]] = [
    ({"service": "cats"}, "service", "cats"),
    ({"endpoint": "/cats"}, "endpoint", "GET /pets"),
    ({"method": "PUT"}, "endpoint", "PUT /pets/{id}"),
    ({"url_params": {}}, "url_params", "id is required and must be specified"),
    ({"url_params": {"id": "tom"}}, "url_params", "id"),
    ({"endpoint": "/pets", "url_params": {}}, "query_params", "limit is required"),
    ({"endpoint": "/pets", "query_params": {"limit": "x"}}, "query_params", "limit"),
    ({**MEAL, "id": "o", "req_body": {}}, "req_body", "food"),
    ({**MEAL, "id": "o", "query_params": {"size": "odd"}}, "query_params", "size"),
]


async def test_what_does_not_fit_the_spec_is_refused_when_it_is_saved(alice, pets):
    await made(alice, GET, id="there")
    for sent, field, words in MISFITS:
        error = refused(await alice.post("/tasks", json={**GET, **sent}), field)
        assert words in error["message"]
        changed = {k: v for k, v in sent.items() if k != "id"}
        error = refused(await alice.put("/tasks/there", json=changed), field)
        assert words in error["message"]
    (task,) = (await alice.get("/tasks")).json()
    assert (task["endpoint"], task["url_params"]) == ("/pets/{id}", {"id": 7})


async def test_a_change_that_leaves_the_call_alone_asks_nothing_of_the_spec(alice, pets):
    await made(alice, GET, headers={"Authorization": PLANTED})
    assert (await alice.delete(f"/v1/api/spec/{pets}")).status_code == 204
    whole = await got(alice, "o")
    for sent in ({"status": "paused"}, whole, {"status": "active"}, {"cron": "0 8 * * *"}):
        answer = await alice.put("/tasks/o", json=sent)
        assert answer.status_code == 200, answer.text
    error = refused(await alice.patch("/tasks/o", json={"query_params": {"a": "b"}}), "service")
    assert "there is no spec pets" in error["message"]


async def test_the_check_holds_no_connection_while_it_asks(run_app, receiver):
    async with run_app(DATABASE_API_POOL="1") as app, app.client("alice") as alice:
        await registered(alice, document(receiver.url))
        async with asyncio.timeout(5):  # the check needs the only connection itself
            await made(alice, GET)
            answer = await alice.patch("/tasks/o", json={"url_params": {"id": 8}})
            assert answer.status_code == 200
            many = [{**GET, "id": f"o{n}", "url_params": {"id": n}} for n in range(9)]
            assert (await alice.post("/tasks/bulk", json=many)).status_code == 201


async def test_the_specs_of_others_do_not_exist(bob, pets):
    refused(await bob.post("/tasks", json=GET), "service")
    assert (await bob.get(f"/v1/api/spec/{pets}/impact")).status_code == 404


async def test_in_bulk_what_does_not_fit_is_named_by_its_place(alice, pets):
    def like(n: int) -> dict[str, Any]:
        return {**GET, "id": f"o{n}", "url_params": {"id": n % 7}}

    many = [like(n) for n in range(200)]
    many[3]["url_params"] = {"id": "tom"}
    many[5]["endpoint"] = "/cats"
    many[7]["name"] = ""
    error = refused(
        await alice.post("/tasks/bulk", json=many), "[3].url_params", "[5].endpoint", "[7].name"
    )
    places = [each["field"] for each in error["details"]]
    assert places == sorted(places)
    assert (await alice.get("/tasks")).json() == []
    answer = await alice.post("/tasks/bulk", json=[like(n) for n in range(200)])
    assert answer.status_code == 201 and answer.json()["created"] == 200


async def test_beside_an_older_replica_none_is_made_and_one_that_is_there_stays(
    app, alice, pets, conn
):
    await made(alice, GET)
    await conn.execute("""
        INSERT INTO replica (id, beat, beat_at, role, host, pid, version, started_at)
        VALUES (gen_random_uuid(), 1, now(), 'serve', 'old', 1, '0.3.0', now())
    """)

    async def seen() -> None:
        assert app.engine.membership.older_than((0, 4)) == "0.3.0"

    await eventually(seen)
    answer = await alice.post("/tasks", json={**GET, "id": "p"})
    assert answer.status_code == 503 and "knows no operation" in answer.text
    assert (await alice.patch("/tasks/o", json={"name": "n"})).status_code == 200
    web = {"name": "w", "url": "http://127.0.0.1:9/"}
    assert (await alice.post("/tasks", json=web)).status_code == 201
    rule = {**web, "rrule": "FREQ=DAILY"}
    assert (await alice.post("/tasks", json=rule)).status_code == 201


# Edits -------------------------------------------------------------------------------------------


async def test_an_edit_changes_the_fields_sent_and_keeps_the_others(alice, pets):
    before = await made(alice, MEAL, headers={"Authorization": PLANTED, "X-From": "here"})
    changed = (await alice.patch("/tasks/m", json={"query_params": {"size": "small"}})).json()
    assert changed["query_params"] == {"size": "small"}
    for name in ("service", "method", "endpoint", "url_params", "req_body", "headers"):
        assert changed[name] == before[name]
    changed = (await alice.patch("/tasks/m", json={"query_params": None})).json()
    assert changed["query_params"] is None
    whole = await got(alice, "m")
    again = (await alice.put("/tasks/m", json=whole)).json()
    assert {**again, "updated_at": ""} == {**whole, "updated_at": ""}


async def test_a_field_of_another_kind_makes_another_action_of_which_nothing_stays(
    alice, pets, receiver
):
    await made(alice, MEAL, cron="0 8 * * *", expected_status=[204])
    web = (await alice.patch("/tasks/m", json={"url": f"{receiver.url}/plain"})).json()
    assert (web["url"], web["method"]) == (f"{receiver.url}/plain", "GET")
    assert {name: web[name] for name in OF_OPERATION} == dict.fromkeys(OF_OPERATION)
    assert (web["cron"], web["expected_status"]) == ("0 8 * * *", [204])
    back = {"service": "pets", "endpoint": "/pets/{id}", "url_params": {"id": "1"}}
    call = (await alice.patch("/tasks/m", json=back)).json()
    assert (call["url"], call["method"], call["headers"], call["req_body"]) == (
        None, "GET", {}, None,
    )  # fmt: skip
    refused(await alice.patch("/tasks/m", json={"payload": "x"}), "payload")
    half = await alice.patch("/tasks/m", json={"url": None, "service": ""})
    assert half.status_code == 400


async def test_a_schedule_that_becomes_an_operation_shows_no_callback(alice, pets):
    schedule = {"id": "s", "name": "s", "rrule": "FREQ=DAILY", "callback_url": "http://127.0.0.1:9"}
    assert (await alice.post("/api/schedules", json=schedule)).status_code == 201
    call = {name: GET[name] for name in ("service", "endpoint", "url_params")}
    assert (await alice.patch("/tasks/s", json=call)).status_code == 200
    shown = (await alice.get("/api/schedules/s")).json()
    assert [shown[name] for name in ("callback_url", "method", "headers", "body")] == [None] * 4
    assert (await alice.put("/api/schedules/s", json={**shown, "name": "t"})).status_code == 200
    assert (await got(alice, "s"))["endpoint"] == "/pets/{id}"


# Secrets -----------------------------------------------------------------------------------------


async def test_secret_headers_are_masked_kept_sealed_and_sent(app, alice, pets, receiver, conn):
    task = await made(alice, GET, headers={"Authorization": PLANTED, "X-From": "here"})
    assert task["headers"] == {"Authorization": "********", "X-From": "here"}
    await alice.patch("/tasks/o", json={"headers": {**task["headers"], "X-From": "there"}})
    stored = await conn.fetchval("SELECT action::text FROM task")
    assert PLANTED not in stored and "there" in stored
    run = (await alice.post("/tasks/o/execute")).json()["run_id"]
    (call,) = receiver.requests
    assert (call.header("Authorization"), call.header("X-From")) == (PLANTED, "there")
    shown = (await alice.get(f"/runs/{run}")).text
    assert PLANTED not in shown and "there" in shown
    hidden = {"url": "http://127.0.0.1:9/", "secret_headers": ["x-from"]}
    assert (await alice.patch("/tasks/o", json=hidden)).status_code == 200
    shown = (await alice.get(f"/runs/{run}")).json()["request"]["headers"]
    assert shown == {"Authorization": "********", "X-From": "********"}


# A spec that changes -----------------------------------------------------------------------------


async def test_what_a_changed_document_breaks_is_listed_and_fails_with_the_reason(
    alice, pets, receiver
):
    await made(alice, GET)
    await made(alice, MEAL)
    path = f"/v1/api/spec/{pets}/impact"
    before = (await alice.get(path)).json()
    assert before == {
        "trace_id": pets, "name": "pets", "status": "SUCCESS", "draft": 1, "compared": 1,
        "checked": 2, "tasks": [], "next_cursor": None,
    }  # fmt: skip
    content = document(receiver.url)
    del content["paths"]["/pets/{id}"]
    meal = content["paths"]["/pets/{id}/meals"]["post"]
    meal["parameters"].append(
        {"name": "bowl", "in": "query", "required": True, "schema": {"type": "string"}}
    )
    changed = await alice.put(f"/v1/api/spec/{pets}", json={"spec": encoded(content)})
    assert changed.status_code == 204, changed.text
    await come(alice, pets)

    found = (await alice.get(path)).json()
    assert (found["draft"], found["compared"], found["checked"]) == (2, 2, 2)
    gone, lacks = found["tasks"]
    assert (gone["task_id"], gone["endpoint"], gone["field"]) == ("o", "GET /pets/{id}", "endpoint")
    assert (lacks["task_id"], lacks["field"]) == ("m", "query_params")
    assert lacks["reason"] == "bowl is required and must be specified"

    await alice.post("/tasks/m/execute?async=true&retry=true")
    run = await last_run(alice, "m")
    assert run["state"] == "failed" and len(run["attempts"]) == 1
    assert run["attempts"][0]["error"] == (
        "Error executing API call: API call failed: bowl is required and must be specified"
    )
    assert receiver.requests == []
    await alice.patch("/tasks/m", json={"query_params": {"size": "large", "bowl": "red"}})
    left = (await alice.get(path)).json()["tasks"]
    assert [task["task_id"] for task in left] == ["o"]
    assert (await alice.delete(f"/v1/api/spec/{pets}")).status_code == 204
    assert (await alice.get(path)).status_code == 404


async def test_a_document_that_ends_in_an_error_breaks_nothing(alice, pets, receiver):
    await made(alice, GET)
    broken = document(receiver.url, **{"/x": {"get": {"responses": 7}}})
    await alice.put(f"/v1/api/spec/{pets}", json={"spec": encoded(broken)})
    await come(alice, pets, "ERROR")
    found = (await alice.get(f"/v1/api/spec/{pets}/impact")).json()
    assert (found["status"], found["draft"], found["compared"]) == ("ERROR", 2, 1)
    assert (found["checked"], found["tasks"]) == (1, [])


async def test_the_impact_goes_on_where_a_call_left_off(alice, pets, receiver, monkeypatch):
    monkeypatch.setattr("scheduler.tasks.impact.MOST", 40)
    many = [{**GET, "id": f"o{n}"} for n in range(50)]
    assert (await alice.post("/tasks/bulk", json=many)).status_code == 201
    content = document(receiver.url)
    del content["paths"]["/pets/{id}"]
    await alice.put(f"/v1/api/spec/{pets}", json={"spec": encoded(content)})
    await come(alice, pets)
    path = f"/v1/api/spec/{pets}/impact"
    first = (await alice.get(path)).json()
    assert first["checked"] == 40
    second = (await alice.get(path, params={"cursor": first["next_cursor"]})).json()
    assert (second["checked"], second["next_cursor"]) == (10, None)
    ids = [task["task_id"] for task in first["tasks"] + second["tasks"]]
    assert ids == [f"o{n}" for n in range(50)]
    refused(await alice.get(path, params={"cursor": "odd"}), "cursor")


# Tries -------------------------------------------------------------------------------------------


async def test_a_post_is_tried_again_and_the_cache_is_read_where_the_task_says_so(
    alice, pets, receiver
):
    receiver.then(503)
    quick = {"initial_seconds": 0, "max_seconds": 0}
    await made(alice, MEAL, scheduled_at="2020-01-01T00:00:00Z", retry_backoff=quick)
    run = await last_run(alice, "m")
    assert (run["state"], len(run["attempts"])) == ("succeeded", 2)
    assert len(receiver.requests) == 2
    await made(alice, GET)
    await made(alice, GET, id="c", cache=True)
    for task_id in ("o", "o", "c", "c"):
        assert (await alice.post(f"/tasks/{task_id}/execute")).json()["status"] == "success"
    assert len(receiver.requests) == 5


# Pages and the command line ----------------------------------------------------------------------


async def test_the_command_line_makes_changes_and_shows_one(tasks, alice, pets, tmp_path):
    body = tmp_path / "meal.json"
    body.write_text(f'{{"food": "hay", "grams": {BIG}}}')
    words = ["--service", "pets", "--endpoint", "POST /pets/{id}/meals", "-u", "id=7"]
    words += ["-q", "size=large", "-q", "more=a", "-q", "more=b=c", "-H", f"X-Api-Key: {PLANTED}"]
    result = await tasks("create", "m", "-n", "Feed", *words, "--body", f"@{body}", "--no-cache")
    assert result.exit_code == 0, result.output
    task = await got(alice, "m")
    assert (task["method"], task["endpoint"]) == ("POST", "/pets/{id}/meals")
    assert task["query_params"] == {"size": "large", "more": ["a", "b=c"]}
    assert (task["url_params"], task["cache"]) == ({"id": "7"}, False)

    shown = (await tasks("get", "m")).stdout
    for line in ("POST /pets/{id}/meals of pets", "id=7", "size=large", 'more=["a","b=c"]', BIG):
        assert line in shown, shown
    assert "X-Api-Key: ********" in shown
    listed = (await tasks("list", "--action", "operation")).stdout
    assert "POST /pets/{id}/meals of pets" in listed

    file = tmp_path / "task.json"
    file.write_text((await tasks("get", "m", "-o", "json")).stdout)
    again = await tasks("update", "--file", str(file), "-H", "X-From: there", "-u", "id=8")
    assert again.exit_code == 0, again.output
    task = await got(alice, "m")
    assert (task["headers"], task["url_params"]) == ({"X-From": "there"}, {"id": "8"})
    failed(await tasks("update", "m", "-q", "size=odd"), 1, "--query", "size")
    failed(await tasks("update", "m", "-q", "size"), 2, "NAME=VALUE")
    failed(await tasks("update", "m", "--body", "hay"), 2, "not JSON")
    both = ["--endpoint", "GET /pets", "--method", "PUT"]
    failed(await tasks("update", "m", *both), 2, "--endpoint says GET")


async def test_pages_show_what_is_called_and_no_secret(app, alice, pets):
    hostile = "<script>alert(1)</script>"
    await made(
        alice, MEAL, headers={"Authorization": PLANTED}, req_body={"food": hostile}, name=hostile
    )
    async with signed_in(app) as visitor:
        for path in ("/dashboard/tasks", "/dashboard/tasks/m"):
            answer = await visitor.get(path)
            assert answer.status_code == 200, answer.text
            assert "POST" in answer.text and "/pets/{id}/meals" in answer.text
            assert "<script>alert" not in answer.text and PLANTED not in answer.text
    assert "&lt;script&gt;alert(1)" in answer.text and "********" in answer.text
    assert "Of the spec" in answer.text and "{&#34;id&#34;:7}" in answer.text.replace(
        "&quot;", "&#34;"
    )
