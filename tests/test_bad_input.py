"""What is wrong is answered with the field and what would be right; nothing is stored, nothing dies."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from conftest import App, running, url_of

GOOD = {"name": "good", "url": "http://127.0.0.1:9/"}
DEEP = 200_000


@pytest.fixture(scope="module")
async def one_app(
    postgres: Any, maintenance: asyncpg.Connection, template: str, tmp_path_factory: Any
) -> AsyncIterator[App]:
    """One program for all tests here: each must leave it as it was."""
    await maintenance.execute(f"CREATE DATABASE bad_input TEMPLATE {template}")
    async with running(url_of(postgres, "bad_input"), tmp_path_factory.mktemp("bad")) as started:
        yield started
    await maintenance.execute("DROP DATABASE bad_input WITH (FORCE)")


@pytest.fixture
async def alice(one_app: App) -> AsyncIterator[httpx.AsyncClient]:
    """A client; after the test nothing is stored, and the program works."""
    async with one_app.client("alice") as client:
        yield client
        listed = await client.get("/tasks")
        assert listed.status_code == 200
        for task in listed.json():  # this test alone is to fail
            await client.delete(f"/tasks/{task['id']}")
        assert listed.json() == []
        made = await client.post("/tasks", json=GOOD)
        assert made.status_code == 201
        assert (await client.delete(f"/tasks/{made.json()['id']}")).status_code == 204


def refused(answer: httpx.Response, field: str | None = None, *codes: str) -> Any:
    """The error of an answer that must be a 400 in the one shape, about this field."""
    assert answer.status_code == 400, answer.text[:500]
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert error["code"] in (codes or ("validation_failed",)), error
    assert error["message"]
    assert set(error) <= {"code", "message", "details"}
    assert ("details" in error) == (error["code"] == "validation_failed"), error
    for detail in error.get("details", []):
        assert set(detail) == {"field", "message"}
        assert detail["message"]
    if field is not None:
        named = [d["field"] for d in error["details"]]
        assert any(n == field or n.startswith((f"{field}.", f"{field}[")) for n in named), error
    return error


# The body ----------------------------------------------------------------------------------------

MALFORMED = {
    "nothing": b"",
    "open": b"{",
    "word": b"nope",
    "single quotes": b"{'name': 'x'}",
    "trailing comma": b'{"name": "x",}',
    "trailing text": b'{"name": "x", "url": "http://h/"} and more',
    "two objects": b'{"name": "x", "url": "http://h/"}{}',
    "nan": b'{"name": "x", "url": "http://h/", "timeout_seconds": NaN}',
    "comment": b'{"name": "x", "url": "http://h/"} // a comment',
    "control character": b'{"name": "a\nb", "url": "http://h/"}',
    "bad escape": b'{"name": "\\x41", "url": "http://h/"}',
    "lone surrogate": b'{"name": "\\ud800", "url": "http://h/"}',
    "surrogates the wrong way round": b'{"name": "\\udc00\\ud800", "url": "http://h/"}',
    "lone surrogate in the payload": b'{"name": "x", "url": "http://h/", "payload": {"a": "\\ud800"}}',
    "invalid utf-8": b'{"name": "\xff\xfe", "url": "http://h/"}',
    "invalid utf-8 in a key": b'{"name": "x", "url": "http://h/", "header": {"\xff": "x"}}',
    "invalid utf-8 in the payload": b'{"name": "x", "url": "http://h/", "payload": {"a": "\xc3\x28"}}',
    "overlong utf-8": b'{"name": "\xc0\xaf", "url": "http://h/"}',
    "utf-16": '{"name": "x", "url": "http://h/"}'.encode("utf-16"),
    "nul": b"\x00",
    "gzip": b"\x1f\x8b\x08\x00",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
async def test_a_body_that_is_no_json_is_an_invalid_request(alice, body):
    headers = {"Content-Type": "application/json"}
    answer = await alice.post("/tasks", content=body, headers=headers)
    refused(answer, None, "invalid_request", "validation_failed")


@pytest.mark.parametrize("body", ["{", "nope", '{"name": "x",}', "{'name': 'x'}"])
async def test_malformed_json_has_a_code_of_its_own(alice, body):
    headers = {"Content-Type": "application/json"}
    for method, path in (("POST", "/tasks"), ("PATCH", "/tasks/none")):
        answer = await alice.request(method, path, content=body, headers=headers)
        error = refused(answer, None, "invalid_request")
        assert "JSON" in error["message"]


@pytest.mark.parametrize("body", [[], "text", 5, True, None, [GOOD]])
async def test_a_body_that_is_no_object_is_refused(alice, body):
    refused(await alice.post("/tasks", json=body))


BOMBS = {
    "arrays": b"[" * DEEP,
    "objects": b'{"a":' * DEEP,
    "closed arrays": b"[" * DEEP + b"]" * DEEP,
    "payload of arrays": b'{"name":"x","url":"http://h/","payload":'
    + b"[" * DEEP
    + b"]" * DEEP
    + b"}",
    "payload of objects": b'{"name":"x","url":"http://h/","payload":'
    + b'{"a":' * DEEP
    + b"1"
    + b"}" * DEEP
    + b"}",
    "unknown field": b'{"zzz":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "later field": b'{"cron":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "read-only field": b'{"state":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "header": b'{"header":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
}


@pytest.mark.parametrize("body", BOMBS.values(), ids=BOMBS)
async def test_a_depth_bomb_is_refused(alice, body):
    headers = {"Content-Type": "application/json"}
    for method, path in (("POST", "/tasks"), ("PUT", "/tasks/none")):
        answer = await alice.request(method, path, content=body, headers=headers)
        refused(answer, None, "invalid_request", "validation_failed")


@pytest.mark.parametrize("depth", [50, 500, 900, 1100])
async def test_a_deep_payload_is_stored_or_refused_and_never_breaks_a_list(alice, depth):
    body = b'{"name":"x","url":"http://h/","payload":' + b"[" * depth + b"]" * depth + b"}"
    answer = await alice.post("/tasks", content=body, headers={"Content-Type": "application/json"})
    if answer.status_code == 201:
        assert (await alice.get("/tasks")).json()[0]["payload"] == "[" * depth + "]" * depth
        await alice.delete(f"/tasks/{answer.json()['id']}")
    else:
        assert depth > 100
        refused(answer, None, "invalid_request", "validation_failed")


@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"],
)
async def test_a_body_of_another_type_is_read_as_json_or_refused(alice, kind):
    headers = {"Content-Type": kind} if kind else {}
    answer = await alice.post("/tasks", content=json.dumps(GOOD).encode(), headers=headers)
    if answer.status_code == 201:
        await alice.delete(f"/tasks/{answer.json()['id']}")
    else:
        refused(answer, None, "invalid_request", "validation_failed")


async def raw(app: App, head: str, body: bytes = b"", *, read: int = 1) -> bytes:
    """Send bytes as they are, and return the first answer's."""
    host, port = app.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body)
        await writer.drain()
        async with asyncio.timeout(5):
            answer = await reader.readuntil(b"\r\n\r\n")
            answer += await reader.readuntil(b"}}")
        return answer
    finally:
        writer.transport.abort()


def head(app: App, method: str = "POST", path: str = "/tasks", **more: str) -> str:
    service = app.ids["alice"]
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"service_id: {service}"]
    lines += ["token: alice-token-0123456789", "Content-Type: application/json"]
    return "\n".join([*lines, *(f"{name.replace('_', '-')}: {v}" for name, v in more.items())])


async def test_ten_megabytes_are_refused_before_they_are_read(alice, one_app):
    answer = await raw(one_app, head(one_app, Content_Length=str(10 << 20)))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"payload_too_large"' in answer
    assert b"x-trace-id: " in answer.lower()


async def test_ten_megabytes_in_chunks_are_refused(alice, one_app):
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    body = chunk * 80  # a little over the limit, and the end does not come
    answer = await raw(one_app, head(one_app, Transfer_Encoding="chunked"), body)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"payload_too_large"' in answer


async def test_ten_megabytes_are_refused_to_httpx_too(alice):
    for method, path in (("POST", "/tasks"), ("PATCH", "/tasks/none")):
        answer = await alice.request(method, path, content=b" " * (10 << 20))
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "payload_too_large"


async def test_ten_megabytes_from_a_stranger_are_not_read(alice, one_app):
    strange = f"POST /tasks HTTP/1.1\nHost: x\nContent-Length: {10 << 20}"
    answer = await raw(one_app, strange)
    assert answer[9:12] in (b"401", b"413")


async def test_a_large_body_below_the_limit_is_taken(alice):
    made = await alice.post("/tasks/bulk", json=[{**GOOD, "payload": "x" * 250_000}] * 12)
    assert made.status_code == 201
    for task in made.json()["ids"]:
        assert len((await alice.get(f"/tasks/{task}")).json()["payload"]) == 250_000
        await alice.delete(f"/tasks/{task}")


# Fields ------------------------------------------------------------------------------------------

NEEDED = {"name": None, "url": None}
BAD: list[tuple[str, Any]] = [
    *(("id", v) for v in (5, "-a", "a b", "x" * 65, "a/b", "ä", "a\x00", "a\n", [], {})),
    *(("id", v) for v in ("bulk", "scheduled", "preview")),
    *(("name", v) for v in (None, "", "x" * 201, 5, [], {}, True, "a\x00b")),
    *(("description", v) for v in (5, [], "a\x00b")),
    *(("tags", v) for v in ("x", [1], [None], {}, ["a\x00"], [""], 5)),
    *(("url", v) for v in (None, "", 5, [], {})),
    *(("method", v) for v in (5, "TRACE", "CONNECT", "GET\r\nX: y", "G ET", [], "ge\x00t")),
    *(("header", v) for v in ("x", [1], 5, {"a": 1}, {"a": None}, {"a": ["b"]}, {"a": True})),
    *(("headers", v) for v in ("x", [1], [{"key": "a"}], [{"key": "a", "value": 1}], [["a", "b"]])),
    *(("payload", v) for v in (5, True, 1.5, "a\x00b")),
    *(("follow_redirects", v) for v in ("yes", 1, [])),
    *(("secret_headers", v) for v in ("x", [1], {}, ["a\x00"])),
    *(("frequency", v) for v in (0, -1, 10**12, 10**30, 1.5, "1", True, [], {})),
    *(("unit", v) for v in ("", "month", "hours", "HOUR ", 5, [], "\x00", None)),
    *(("status", v) for v in ("on", 5, [], "\x00", True)),
    *(("max_retries", v) for v in (-1, 1.5, "x", 10**30, True, [])),
    *(("retry_backoff", v) for v in (5, "x", [], {"initial_seconds": "x"}, {"initial": 1})),
    *(
        ("retry_backoff", {k: v})
        for k, v in (("factor", -1), ("max_seconds", -1), ("factor", 1e300))
    ),
    *(("timeout_seconds", v) for v in (-1, 0, "x", 1e300, True, [])),
    *(("overlap", v) for v in ("never", 5, [])),
    *(("misfire", v) for v in ("never", 5, [])),
    *(("misfire_grace_seconds", v) for v in (-1, "x", 1e300, [])),
    *(("max_age_seconds", v) for v in (-1, "x", 1e300, [])),
    *(("expected_status", v) for v in ([99], [600], ["x"], {}, [[200]], "abc", [200.5], [True])),
    *(("scheduled_at", v) for v in (5, True, {}, [])),
]


def name_of(value: Any) -> str:
    return ascii(value)[:40]


@pytest.mark.parametrize(("field", "value"), BAD, ids=[f"{f}={name_of(v)}" for f, v in BAD])
async def test_a_wrong_value_is_refused_by_name(alice, field, value):
    body: dict[str, Any] = {**GOOD, field: value}
    if field == "unit":
        body["frequency"] = 1
    if field == "frequency":
        body["unit"] = "hour"
    refused(await alice.post("/tasks", json=body), field)


@pytest.mark.parametrize(
    "at",
    [
        "2027-01-01T00:00:00",
        "2027-01-01 00:00:00",
        "2027-01-01",
        "2027-02-30T00:00:00Z",
        "2027-13-01T00:00:00Z",
        "2027-01-01T24:00:00Z",
        "2027-01-01T00:60:00Z",
        "2027-01-01T00:00:00+25:00",
        "2027-01-01T00:00:00+0100",
        "2027-01-01T00:00:00 Europe/Berlin",
        "2027-01-01T00:00Z",
        "10000-01-01T00:00:00Z",
        "+12027-01-01T00:00:00Z",
        "-2027-01-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-01:00",
        "0001-01-01T00:00:00+01:00",
        "1767225600",
        "tomorrow",
        "\u0662\u0660\u0662\u0667-01-01T00:00:00Z",
        "2027-01-01T00:00:00Z\x00",
        "2027-01-01T00:00:00Z\n",
        " 2027-01-01T00:00:00Z",
        "2027-01-01T00:00:00.Z",
    ],
)
async def test_a_time_that_is_none_is_refused(alice, at):
    error = refused(await alice.post("/tasks", json={**GOOD, "scheduled_at": at}), "scheduled_at")
    if at in ("2027-01-01T00:00:00", "2027-01-01 00:00:00"):
        assert "offset" in error["message"]


@pytest.mark.parametrize("at", ["1969-12-31T23:59:59.999Z", "0002-01-01T00:00:00Z"])
async def test_a_time_long_ago_is_a_time(alice, at):
    made = await alice.post("/tasks", json={**GOOD, "scheduled_at": at, "status": "paused"})
    assert made.status_code == 201, made.text
    await alice.delete(f"/tasks/{made.json()['id']}")


@pytest.mark.parametrize(
    "url",
    [
        "example.com",
        "//example.com/",
        "/path",
        "ftp://example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "gopher://h/",
        "http:/example.com",
        "http://",
        "http:///path",
        "http://:80/",
        "http://?q",
        "http://user@example.com/",
        "http://user:password@example.com/",
        "http://@example.com/",
        "http://example.com:0/",
        "http://example.com:65536/",
        "http://example.com:port/",
        "http://exa mple.com/",
        "http://example.com/a b",
        "http://example.com/\r\nX: y",
        "http://example.com/\n",
        "http://example.com/\x00",
        " http://example.com/",
        "http://example.com\\@evil.com/",
        "http://[::1/",
        "http://[zz]/",
        "http://a..b/",
        "http://999.1.1.1/",
        "http://" + "a" * 300 + ".com/",
        "http://example.com/" + "a" * 100_000,
    ],
)
async def test_a_url_that_cannot_be_called_is_refused(alice, url):
    refused(await alice.post("/tasks", json={**GOOD, "url": url}), "url")


@pytest.mark.parametrize(
    "header",
    [
        {"": "x"},
        {"a b": "x"},
        {"a:b": "x"},
        {"ä": "x"},
        {"a\r\nb": "x"},
        {"a\x00": "x"},
        {"X\n": "x"},
        {"A": "x\ry"},
        {"A": "x\ny"},
        {"A": "x\r\nB: y"},
        {"A": "x\x00"},
        {"A": "\x7f"},
        {"Content-Length": "5"},
        {"Transfer-Encoding": "chunked"},
        {"Connection": "close"},
    ],
    ids=ascii,
)
async def test_a_header_that_cannot_be_sent_is_refused(alice, header):
    refused(await alice.post("/tasks", json={**GOOD, "header": header}), "header")
    pairs = [{"key": key, "value": value} for key, value in header.items()]
    answer = await alice.post("/tasks", json={**GOOD, "headers": pairs})
    error = refused(answer)
    assert error["details"][0]["field"].startswith("header")


async def test_unknown_fields_are_named_with_the_nearest_one(alice):
    error = refused(await alice.post("/tasks", json={**GOOD, "frequenzy": 1}), "frequenzy")
    assert "frequency" in error["message"]
    error = refused(await alice.post("/tasks", json={**GOOD, "zzzzzzzz": None}), "zzzzzzzz")
    nested = {**GOOD, "headers": [{"key": "a", "value": "b", "valu": "c"}]}
    refused(await alice.post("/tasks", json=nested), "headers")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("endpoint", "search"),
        ("query_params", {"a": "b"}),
        ("req_body", {}),
    ],
)
async def test_what_an_operation_has_is_refused_beside_a_url_and_not_dropped(alice, field, value):
    refused(await alice.post("/tasks", json={**GOOD, field: value}), field)
    made = await alice.post("/tasks", json={**GOOD, field: None})
    assert made.status_code == 201
    await alice.delete(f"/tasks/{made.json()['id']}")


HOSTILE = {
    "long": "* " * 200_000,
    "many terms": ",".join(["1"] * 100_000) + " * * * *",
    "huge number": "9" * 100_000 + " * * * *",
    "huge step": "*/" + "9" * 190 + " * * *",
    "nul": "* * * * *\0",
    "other digits": "\u0661 * * * *",
    "another letter": "* * * * \u017fun",
    "never": "0 0 30 2 *",
    "nothing": " ",
    "alias": "@reboot",
    "seven fields": "* * * * * * *",
    "newlines": "*\n*\n*\n*\n*",
    "no text": 5,
    "a list": ["*", "*"],
}


@pytest.mark.parametrize("expression", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_cron_is_refused_at_once(alice, expression):
    async with asyncio.timeout(2):
        error = refused(await alice.post("/tasks", json={**GOOD, "cron": expression}), "cron")
    assert len(error["message"]) < 500
    refused(await alice.post("/tasks/preview", json={"cron": expression}), "cron")


@pytest.mark.parametrize(
    "zone",
    ["Mars/X", "../../etc/passwd", "/etc/passwd", "Europe", "a\0b", "\u00dc", "x" * 100_000, 5],
)
async def test_a_hostile_time_zone_is_refused(alice, zone):
    error = refused(
        await alice.post("/tasks", json={**GOOD, "cron": "* * * * *", "timezone": zone}), "timezone"
    )
    assert len(error["message"]) < 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("start_at", "2027-01-01T00:00:00"),
        ("end_at", "soon"),
        ("paused_until", 5),
        ("max_runs", 0),
        ("max_runs", 1.5),
        ("max_runs", 10**30),
        ("jitter_seconds", "1"),
        ("jitter_seconds", 86_401),
        ("max_concurrency", 1001),
        ("priority", 101),
        ("priority", "high"),
        ("timezone", "Europe/Berlin"),
    ],
)
async def test_a_wrong_bound_is_refused(alice, field, value):
    refused(await alice.post("/tasks", json={**GOOD, field: value}), field)


async def test_every_wrong_field_is_named_at_once(alice):
    body = {**GOOD, "frequency": 0, "unit": "hour", "overlap": "x", "url": "x", "status": "y"}
    error = refused(await alice.post("/tasks", json=body))
    assert {d["field"] for d in error["details"]} == {"frequency", "overlap", "url", "status"}


@pytest.mark.parametrize("body", [{}, {"name": "x"}, {"url": "http://h/"}])
async def test_what_is_needed_is_named(alice, body):
    error = refused(await alice.post("/tasks", json=body))
    assert {d["field"] for d in error["details"]} == {"name", "url"} - set(body)


@pytest.mark.parametrize(
    ("body", "field"), [({"frequency": 1}, "unit"), ({"unit": "hour"}, "frequency")]
)
async def test_frequency_and_unit_need_each_other(alice, body, field):
    refused(await alice.post("/tasks", json={**GOOD, **body}), field)


async def test_an_update_is_read_as_strictly(alice):
    made = (await alice.post("/tasks", json=GOOD)).json()
    path = f"/tasks/{made['id']}"
    for method in ("POST", "PUT", "PATCH"):
        for field, value in (
            ("frequency", 0),
            ("name", ""),
            ("url", "ftp://x/"),
            ("header", {"a\n": "b"}),
            ("scheduled_at", "2027-01-01T00:00:00"),
            ("zzz", 1),
            ("status", "x"),
        ):
            body = {field: value, "unit": "hour"} if field == "frequency" else {field: value}
            refused(await alice.request(method, path, json=body), field)
        refused(await alice.request(method, path, json=[]))
    after = (await alice.get(path)).json()
    assert {key: made[key] for key in after} == after
    await alice.delete(path)


async def test_a_wrong_body_to_a_task_that_is_not_there_is_no_trace(alice):
    answer = await alice.patch("/tasks/none", json={"frequency": 0})
    assert answer.status_code in (400, 404)


# Elsewhere in the request ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["q", "tag", "trigger", "action", "status", "state", "count"])
@pytest.mark.parametrize("value", ["%00", "%ff", "%f0%9f", "'", '"', "%25%00", "a" * 20_000])
async def test_a_strange_query_is_answered(alice, name, value):
    answer = await alice.get(f"/tasks?{name}={value}")
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 200:
        assert answer.json() == []
    else:
        refused(answer, name)


async def test_bytes_in_headers_and_paths_are_answered(alice, one_app):
    for line in (
        "GET /tasks/%ff%fe HTTP/1.1\nHost: x",
        "GET /tasks HTTP/1.1\nHost: x\nservice_id: \xff\xfe\ntoken: \xff",
        "GET /tasks HTTP/1.1\nHost: x\nAuthorization: Basic \xff",
        "GET /tasks HTTP/1.1\nHost: x\nAuthorization: Basic AAAA",
        "GET /tasks HTTP/1.1\nHost: x\nAuthorization: Basic AGE6Yg==",
    ):
        answer = await raw(one_app, line)
        assert answer.startswith(b"HTTP/1.1 401 "), answer
        assert b'"unauthorized"' in answer


async def test_an_idempotency_key_may_be_anything(alice, one_app):
    made = (await alice.post("/tasks", json=GOOD)).json()
    path = f"/tasks/{made['id']}/execute?async=true"
    line = head(one_app, path=path, Idempotency_Key="\xff'" + "x" * 3000, Content_Length="0")
    answer = await raw_any(one_app, line)
    assert answer.startswith((b"HTTP/1.1 202 ", b"HTTP/1.1 400 ")), answer
    await alice.delete(f"/tasks/{made['id']}")


async def raw_any(app: App, line: str) -> bytes:
    host, port = app.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(line.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n")
    async with asyncio.timeout(5):
        answer = await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()
    return answer
