"""Processes: what is taken and what is refused, whose they are, when they run, and callbacks."""

from typing import Any

import httpx

from conftest import RunApp

AT = "/v1/api/scheduler/process"
CALL: dict[str, Any] = {"service": "pets", "endpoint": "/pets", "method": "GET"}
NEVER = "2099-01-01T00:00:00Z"


async def made(client: httpx.AsyncClient, **more: Any) -> str:
    """Make a process, by default one that is never due; return its trace_id."""
    body = {"scheduled_at": NEVER, **CALL, **more}
    answer = await client.post(AT, json={k: v for k, v in body.items() if v is not ...})
    assert answer.status_code == 200, answer.text
    return answer.json()["trace_id"]


async def got(client: httpx.AsyncClient, trace_id: str, what: str = "") -> Any:
    answer = await client.get(f"{AT}/{trace_id}{what}")
    assert answer.status_code == 200, answer.text
    return answer.json()


# What is taken ------------------------------------------------------------------------------------


WRONG: list[tuple[str, Any, str]] = [
    ("service", None, "is needed: the name of a spec"),
    ("service", "", "is needed"),
    ("service", "x" * 201, "at most 200 characters"),
    ("service", "a\0b", "NUL"),
    ("service", 7, "Expected `str | null`, got `int`"),
    ("endpoint", None, "is needed: a path of the spec"),
    ("method", None, "must be one of GET, POST"),
    ("method", "FETCH", "must be one of GET, POST"),
    ("headers", ["a"], "Expected `object | null`, got `array`"),
    ("headers", {"X": 1}, "must be a string"),
    ("headers", {"bad name": "x"}, "a header name is made of"),
    ("headers", {"X": "a\r\nB: c"}, "line break"),
    ("headers", {"Content-Length": "3"}, "set by the connection"),
    ("headers", {"X": "1", "x": "2"}, "twice"),
    ("query_params", [1], "must be an object"),
    ("query_params", "a=b", "must be an object"),
    ("url_params", 7, "must be an object"),
    ("url", "ftp://x", "begins with http:// or https://"),
    ("callback_url", "not a url", "a URL has no spaces"),
    ("callback_url", "http://u:p@x/", "no credentials"),
    ("scheduled_at", "tomorrow", "RFC 3339"),
    ("scheduled_at", "2027-01-01T00:00:00", "needs an offset"),
    ("scheduled_at", "2999-01-01T00:00:00Z", "within 100 years"),
    ("priority", 101, "Expected `int` <= 100"),
    ("priority", -101, "Expected `int` >= -100"),
    ("max_retries", 101, "Expected `int` <= 100"),
    ("max_retries", "3", "Expected `int | null`, got `str`"),
    ("timeout_seconds", 0, "Expected `float` >= 0.001"),
    ("cache", "no", "Expected `bool | null`, got `str`"),
    ("servcie", "pets", "there is no such field; did you mean service?"),
]


async def test_a_body_that_is_wrong_is_refused_with_the_field_and_what_would_be_right(alice):
    for field, value, said in WRONG:
        answer = await alice.post(AT, json={**CALL, field: value})
        assert answer.status_code == 400, field
        error = answer.json()["error"]
        assert error["code"] == "validation_failed"
        found = {each["field"].split(".")[0]: each["message"] for each in error["details"]}
        assert said in found[field], field


async def test_every_wrong_field_is_named_at_once(alice):
    answer = await alice.post(AT, json={"method": "x", "url": "x", "query_params": 1})
    fields = [each["field"] for each in answer.json()["error"]["details"]]
    assert fields == ["service", "endpoint", "method", "query_params", "url"]


NO_JSON = [
    b"",
    b"[]",
    b"{",
    b"\xff",
    b'{"query_params": {"a": "\xff"}}',
    b'{"req_body": 1.}',
    b'{"req_body": ' + b"[" * 3000 + b"]" * 3000 + b"}",
    b'{"req_body": "\\ud800"}',
]


async def test_a_body_that_is_no_json_is_refused(alice):
    for sent in NO_JSON:
        answer = await alice.post(AT, content=sent)
        assert answer.status_code == 400, sent[:40]
        assert answer.json()["error"]["code"] in ("invalid_request", "validation_failed")


async def test_a_call_that_sends_too_much_is_refused(run_app: RunApp):
    async with run_app(PROCESSES_BODY_MAX_BYTES="2000") as app, app.client("alice") as alice:
        assert (await alice.post(AT, json={**CALL, "req_body": "x" * 1900})).status_code == 200
        for more in ({"req_body": "x" * 2100}, {"query_params": {"a": "x" * 2100}},
                     {"headers": {"a": "x" * 2100}}):  # fmt: skip
            answer = await alice.post(AT, json={**CALL, **more})
            assert answer.status_code == 400
            (wrong,) = answer.json()["error"]["details"]
            assert "at most 2000 bytes (processes.body_max_bytes)" in wrong["message"]


async def test_what_is_sent_is_answered_and_nothing_else(alice):
    more = {
        "headers": {"X-A": "1", "Authorization": "Bearer abc"},
        "query_params": {"q": "x", "n": [1, 2]},
        "url_params": {"id": 7},
        "req_body": {"a": None},
        "url": "http://127.0.0.1:1/api",
        "callback_url": "http://127.0.0.1:1/ended",
        "priority": -5,
        "max_retries": 0,
        "timeout_seconds": 1.5,
        "cache": False,
    }
    whole = await got(alice, await made(alice, **more))
    assert {k: whole[k] for k in more} == more
    assert whole["scheduled_at"] == "2099-01-01T00:00:00.000Z"

    bare = await got(alice, await made(alice, scheduled_at=...))
    assert list(bare) == ["trace_id", "timestamp", "status", "service", "method", "endpoint",
                          "headers", "query_params", "url_params", "req_body"]  # fmt: skip
    assert [bare[k] for k in list(bare)[6:]] == [None] * 4


async def test_what_a_get_answers_can_be_sent_again(alice):
    first = await got(alice, await made(alice, headers={"X": "1"}, query_params={"a": 1}))
    second = await got(alice, (await alice.post(AT, json=first)).json()["trace_id"])
    assert second["trace_id"] != first["trace_id"]
    ours = ("trace_id", "timestamp")
    assert {k: v for k, v in second.items() if k not in ours} == {
        k: v for k, v in first.items() if k not in ours
    }


async def test_the_names_of_services_and_methods_are_read_in_any_case(alice):
    shown = await got(alice, await made(alice, service=" PetS ", method="get"))
    assert (shown["service"], shown["method"], shown["endpoint"]) == ("pets", "GET", "/pets")


async def test_numbers_keep_their_digits(alice):
    sent = (
        b'{"service": "pets", "endpoint": "/pets", "method": "POST", "scheduled_at": "%s",'
        b' "query_params": {"n": 1.10, "big": 12345678901234567890123},'
        b' "url_params": {"e": 1E2}, "req_body":  [1.000, -0.0, "\\u0000"] }' % NEVER.encode()
    )
    made = await alice.post(AT, content=sent)
    raw = (await alice.get(f"{AT}/{made.json()['trace_id']}")).text
    assert '"query_params":{"n": 1.10, "big": 12345678901234567890123}' in raw
    assert '"url_params":{"e": 1E2}' in raw
    assert '"req_body":[1.000, -0.0, "\\u0000"]' in raw


async def test_the_same_idempotency_key_is_the_same_process(alice, bob, conn):
    key = {"Idempotency-Key": "order-17"}
    first = (await alice.post(AT, json=CALL, headers=key)).json()
    again = await alice.post(AT, json={**CALL, "priority": 3}, headers=key)
    assert (again.status_code, again.json()) == (200, first)
    assert await conn.fetchval("SELECT count(*) FROM process") == 1
    others = (await bob.post(AT, json=CALL, headers=key)).json()
    assert others["trace_id"] != first["trace_id"]


async def test_what_a_service_may_not_run_leaves_nothing(run_app: RunApp, conn):
    async with run_app(QUOTAS_MAX_RUNS_PER_MINUTE="2") as app, app.client("alice") as alice:
        key = {"Idempotency-Key": "once"}
        for _ in range(5):  # a repeated request makes no run
            await alice.post(AT, json={**CALL, "scheduled_at": NEVER}, headers=key)
        await made(alice)
        refused = await alice.post(AT, json=CALL)
        assert refused.status_code == 429
        assert "max_runs_per_minute" in refused.text
        assert await conn.fetchval("SELECT count(*) FROM process") == 2


# Whose they are -----------------------------------------------------------------------------------


async def test_a_process_is_its_services_alone(alice, bob, anonymous):
    trace_id = await made(alice)
    for what in ("", "/status", "/response"):
        assert (await bob.get(f"{AT}/{trace_id}{what}")).status_code == 404
        assert (await anonymous.get(f"{AT}/{trace_id}{what}")).status_code == 401
        for nobody in ("0000000000000000", "x", "a%00b"):
            assert (await alice.get(f"{AT}/{nobody}{what}")).status_code == 404
    assert (await anonymous.post(AT, json=CALL)).status_code == 401


async def test_every_header_is_sealed_where_it_lies_and_shown_to_its_service(alice, conn):
    headers = {"X-Rapidapi-Key": "s3cret", "X-Harmless": "hush-hush"}
    trace_id = await made(alice, headers=headers)
    stored = await conn.fetchval("SELECT headers FROM process")
    assert "s3cret" not in stored and "hush-hush" not in stored
    assert (await got(alice, trace_id))["headers"] == headers
    runs = await alice.get("/runs")
    assert "s3cret" not in runs.text and "hush-hush" not in runs.text


# When they run ------------------------------------------------------------------------------------


async def test_what_is_not_due_waits(alice):
    trace_id = await made(alice)
    assert await got(alice, trace_id, "/status") == {
        "status": "WAITING",
        "message": "The request has been created. It is waiting to be processed.",
        "step": ["Received in the API"],
    }
    assert await got(alice, trace_id, "/response") == await got(alice, trace_id, "/status")


async def test_what_is_cancelled_before_it_starts_says_so(alice):
    trace_id = await made(alice)
    (run,) = (await alice.get("/runs?kind=process")).json()["runs"]
    assert (await alice.post(f"/runs/{run['id']}/cancel")).status_code == 200
    assert await got(alice, trace_id, "/status") == {
        "status": "ERROR",
        "message": "There was one or more errors trying to execute scheduler process.",
        "error": "someone cancelled it",
        "step": ["Received in the API"],
    }
    assert await got(alice, trace_id, "/response") == {
        "error": True, "message": "someone cancelled it",
    }  # fmt: skip
