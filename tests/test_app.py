"""What every route has in common: the one error shape, trace ids, and what is open to everyone."""

import asyncio
import json
import re
from typing import Any

import httpx
import pytest
import structlog

from conftest import App, Line, RunApp, eventually
from scheduler import config, logs

TRACE = re.compile(r"[A-Za-z0-9]{16}")
GOOD = {"name": "x", "url": "http://127.0.0.1:9/"}


def error_of(answer: httpx.Response, status: int, code: str) -> Any:
    """The error of an answer in the one shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"].startswith("application/json")
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["message"]
    assert ("details" in error) == (code == "validation_failed")
    assert TRACE.fullmatch(answer.headers["X-Trace-Id"])
    return error


# Errors ------------------------------------------------------------------------------------------


async def test_every_error_has_the_one_shape(alice, anonymous):
    error_of(await alice.post("/tasks", content=b"nope"), 400, "invalid_request")
    error_of(await alice.post("/tasks", json={}), 400, "validation_failed")
    error_of(await anonymous.get("/tasks"), 401, "unauthorized")
    error_of(await alice.get("/tasks/none"), 404, "not_found")
    error_of(await alice.get("/runs/none"), 404, "not_found")
    error_of(await alice.post("/tasks", content=b" " * (10 << 20)), 413, "payload_too_large")
    made = (await alice.post("/tasks", json={**GOOD, "id": "x"})).json()
    error_of(await alice.post("/tasks", json=made), 409, "conflict")


@pytest.mark.parametrize("path", ["/nope", "/tasks/a/b/c", "/v1", "/v1/api", "/taskss"])
async def test_an_unknown_address_is_not_found(alice, anonymous, path):
    for client in (alice, anonymous):
        for method in ("GET", "POST", "DELETE"):
            error_of(await client.request(method, path), 404, "not_found")


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/tasks", "/docs/openapi.json"])
async def test_head_answers_as_get_does_without_a_body(alice, path):
    got, headed = await alice.get(path), await alice.head(path)
    assert (headed.status_code, headed.content) == (200, b"")
    for name in ("content-type", "content-length") if path != "/metrics" else ("content-type",):
        assert headed.headers.get(name) == got.headers.get(name)
    assert got.headers["content-type"].count("charset") <= 1


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/tasks", {"GET", "POST"}),
        ("PATCH", "/tasks", {"GET", "POST"}),
        ("PUT", "/tasks/x/execute", {"POST"}),
        ("GET", "/tasks/x/execute", {"POST"}),
        ("POST", "/tasks/x/executions", {"GET"}),
        ("DELETE", "/runs/x", {"GET"}),
        ("POST", "/health", {"GET"}),
        ("POST", "/metrics", {"GET"}),
    ],
)
async def test_another_method_is_not_allowed(alice, method, path, allowed):
    answer = await alice.request(method, path)
    error_of(answer, 405, "method_not_allowed")
    assert {m.strip() for m in answer.headers["Allow"].split(",")} >= allowed


async def test_what_an_address_takes_is_said_whole(alice):
    answer = await alice.options("/tasks/x")
    allowed = {m.strip() for m in answer.headers["Allow"].split(",")}
    assert allowed == {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}
    assert len(answer.headers.get_list("Allow")) == 1


@pytest.mark.parametrize(
    "request_",
    ["nonsense\r\n\r\n", "GET /health HTTP/1.1\r\nhost: x\r\ntransfer-encoding: t\r\n\r\n"],
)
async def test_what_is_no_http_is_refused_in_the_one_shape(app, request_):
    at = httpx.URL(app.url)
    reader, writer = await asyncio.open_connection(at.host, at.port)
    writer.write(request_.encode())
    head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
    writer.close()
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ") for line in lines)
    answer = httpx.Response(int(status.split()[1]), headers=headers, content=body)
    error_of(answer, 400, "invalid_request")


async def test_an_error_of_ours_tells_nothing(alice, conn):
    await conn.execute("ALTER TABLE task RENAME COLUMN description TO moved")

    answer = await alice.get("/tasks")

    error_of(answer, 500, "internal_error")
    for word in ("SELECT", "column", "Traceback", "asyncpg", "description", ".py"):
        assert word not in answer.text
    assert (await alice.get("/health")).status_code == 200


# The database is away ----------------------------------------------------------------------------


async def test_a_database_that_is_away_is_said_and_waited_for(
    run_app: RunApp, line: Line, receiver: Any
):
    async with run_app(DATABASE_URL=line.url) as app, app.client("alice") as alice:
        made = (await alice.post("/tasks", json={**GOOD, "url": receiver.url})).json()
        await line.cut()

        for method, path in (
            ("GET", "/tasks"),
            ("POST", "/tasks"),
            ("GET", f"/tasks/{made['id']}"),
            ("PATCH", f"/tasks/{made['id']}"),
            ("DELETE", f"/tasks/{made['id']}"),
            ("GET", f"/tasks/{made['id']}/executions"),
            ("POST", f"/tasks/{made['id']}/execute"),
            ("GET", f"/runs/{made['id']}"),
            ("GET", "/ready"),
        ):
            body = GOOD if method in ("POST", "PATCH") else None
            answer = await alice.request(method, path, json=body)
            error_of(answer, 503, "unavailable")
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
            assert line.url not in answer.text
        for path in ("/health", "/v1/api/ping", "/metrics"):
            assert (await alice.get(path)).status_code == 200

        await line.mend()
        assert (await alice.get("/ready")).status_code == 200
        assert [t["id"] for t in (await alice.get("/tasks")).json()] == [made["id"]]

        async def check() -> None:
            answer = await alice.post(f"/tasks/{made['id']}/execute")
            assert answer.status_code == 200, answer.text

        await eventually(check)
        assert receiver.last.path == "/"


# Trace ids ---------------------------------------------------------------------------------------


async def test_every_answer_carries_a_trace_id_of_its_own(alice, anonymous):
    seen = []
    for client, method, path in (
        (alice, "GET", "/tasks"),
        (alice, "POST", "/tasks"),
        (alice, "DELETE", "/tasks/none"),
        (alice, "PUT", "/tasks"),
        (anonymous, "GET", "/tasks"),
        (anonymous, "GET", "/nope"),
        (anonymous, "GET", "/health"),
        (anonymous, "GET", "/ready"),
        (anonymous, "GET", "/metrics"),
        (anonymous, "GET", "/"),
        (anonymous, "GET", "/docs/openapi.json"),
        (anonymous, "OPTIONS", "/tasks"),
        (anonymous, "HEAD", "/health"),
    ):
        answer = await client.request(method, path)
        assert TRACE.fullmatch(answer.headers["X-Trace-Id"]), path
        seen.append(answer.headers["X-Trace-Id"])
    big = await alice.post("/tasks", content=b" " * (10 << 20))
    seen.append(big.headers["X-Trace-Id"])
    assert len(set(seen)) == len(seen)


async def test_the_trace_id_is_in_the_log(alice, conn, capsys):
    logs.configure(config.Log(level="debug", format="json"))
    await conn.execute("ALTER TABLE task RENAME COLUMN description TO moved")

    answer = await alice.get("/tasks?token=planted")
    structlog.reset_defaults()

    lines = [json.loads(x) for x in capsys.readouterr().err.splitlines() if x.startswith("{")]
    ours = [x for x in lines if answer.headers["X-Trace-Id"] in x.values()]
    failed = [x for x in ours if x["level"] == "error"]
    assert failed and "moved" not in failed[0]["message"]
    assert any(x.get("url") == "/tasks" for x in ours)
    assert "planted" not in str(lines)


# Open to everyone --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/health", "/v1/api/ping", "/v1/worker/ping", "/v1/apidoc/ping"])
async def test_the_process_is_up(anonymous, path):
    answer = await anonymous.get(path)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_ready_says_that_all_is_well(anonymous):
    answer = await anonymous.get("/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


async def test_ready_says_that_the_engine_does_not_beat(anonymous, app):
    app.engine._ticks.pause()
    app.engine.membership._acknowledged -= 10
    error = error_of(await anonymous.get("/ready"), 503, "unavailable")
    assert "beat" in error["message"]
    app.engine._ticks.resume()


async def test_ready_says_that_the_schema_is_not_current(anonymous, conn):
    await conn.execute("UPDATE alembic_version SET version_num = '0000'")
    error = error_of(await anonymous.get("/ready"), 503, "unavailable")
    assert "0000" in error["message"]


async def test_metrics_name_what_the_issue_names_and_no_service(alice, anonymous, app, receiver):
    made = (await alice.post("/tasks", json={**GOOD, "url": receiver.url})).json()
    await alice.post(f"/tasks/{made['id']}/execute")

    answer = await anonymous.get("/metrics")

    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert 'scheduler_runs_total{outcome="succeeded"}' in answer.text
    for part in (
        "lag queue_depth held in_flight plan_ claim_ settle_ loop_lag pool_".split()  # noqa: SIM905
    ):
        assert re.search(rf"^# TYPE scheduler_\w*{part}", answer.text, re.MULTILINE), part
    for secret in (app.ids["alice"], "alice", made["id"], receiver.url):
        assert secret not in answer.text


async def test_metrics_can_want_a_token(run_app):
    async with run_app(METRICS_TOKEN="m-secret") as app, app.client() as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "m-secret"}):
            error_of(await client.get("/metrics", headers=headers), 401, "unauthorized")
        right = await client.get("/metrics", headers={"Authorization": "Bearer m-secret"})
        assert right.status_code == 200


async def test_the_openapi_document_names_each_operation_once(anonymous):
    document = (await anonymous.get("/docs/openapi.json")).json()
    assert document["openapi"].startswith("3.")
    found = [
        operation["operationId"]
        for path in document["paths"].values()
        for method, operation in path.items()
        if method in ("get", "post", "put", "patch", "delete")
    ]
    assert {"create_task", "list_tasks", "get_task", "delete_task", "get_run"} <= set(found)
    repeated = {name for name in found if found.count(name) > 1}
    assert repeated <= set(), repeated


async def test_the_limit_of_a_body_is_a_setting(run_app: RunApp):
    async with run_app(SERVER_MAX_BODY_BYTES="2000") as app, app.client("alice") as alice:
        answer = await alice.post("/tasks", json={**GOOD, "payload": "x" * 3000})
        error_of(answer, 413, "payload_too_large")
        assert (await alice.post("/tasks", json={**GOOD, "payload": "x" * 1000})).status_code == 201


async def test_a_second_start_on_the_same_database_goes_on(run_app: RunApp, receiver: Any):
    async with run_app() as app, app.client("alice") as alice:
        made = (await alice.post("/tasks", json={**GOOD, "url": receiver.url})).json()
        await stop_is_clean(app)
    async with run_app() as app, app.client("alice") as alice:
        assert (await alice.get(f"/tasks/{made['id']}")).status_code == 200
        assert (await alice.post(f"/tasks/{made['id']}/execute")).status_code == 200


async def stop_is_clean(app: App) -> None:
    assert app.engine.settler.unsettled == 0
