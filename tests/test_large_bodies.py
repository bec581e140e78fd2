"""Bodies as large as they may be, made to cost as much as they can: the loop stays free."""

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import asyncpg
import httpx
import pytest

from conftest import App, running, url_of
from scheduler.errors import DETAILS_MOST
from scheduler.tasks.model import REST_MOST
from test_bulk import unheld

pytestmark = pytest.mark.alone

GOOD = {"name": "a", "url": "http://127.0.0.1:9/"}
MANY = {f"k{n}": "" for n in range(300_000)}
LARGE: dict[str, dict[str, Any]] = {
    "expected_status as numbers": {"expected_status": [200] * 900_000},
    "expected_status as text": {"expected_status": "200," * 900_000},
    "header": {"header": MANY, "secret_headers": [f"s{n}" for n in range(100)]},
    "headers": {"headers": [{"key": f"k{n}", "value": ""} for n in range(130_000)]},
    "header with wrong values": {"header": dict.fromkeys(MANY, 1)},
    "header with one deep value": {"header": {"x": [{}] * 1_200_000}},
    "retry_backoff": {"retry_backoff": dict.fromkeys(MANY, 1)},
    "tags": {"tags": ["t"] * 900_000},
    "secret_headers": {"secret_headers": ["t"] * 900_000},
    "message": {"message": [{}] * 1_200_000},
}


@pytest.fixture(scope="module")
async def app(
    postgres: Any, maintenance: asyncpg.Connection, template: str, tmp_path_factory: Any
) -> AsyncIterator[App]:
    """One program for all tests here."""
    await maintenance.execute(f"CREATE DATABASE large TEMPLATE {template}")
    folder = tmp_path_factory.mktemp("large")
    environ = {"TASKS_PAYLOAD_MAX_BYTES": str(8 << 20)}
    async with running(url_of(postgres, "large"), folder, **environ) as started:
        yield started
    await maintenance.execute("DROP DATABASE large WITH (FORCE)")


@pytest.fixture
async def alice(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with app.client("alice") as client:
        yield client


def text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


async def refused(client: httpx.AsyncClient, path: str, body: bytes) -> list[dict[str, str]]:
    answer = await unheld(lambda: client.post(path, content=body))
    assert answer.status_code == 400, answer.text[:300]
    assert len(answer.content) < 30_000
    return answer.json()["error"]["details"]


@pytest.mark.parametrize("name", LARGE)
async def test_a_large_body_is_refused_by_the_field_that_makes_it_large(alice, name):
    body = text({**GOOD, **LARGE[name]})
    assert len(body) < 4 << 20
    for path, sent in (("/tasks", body), ("/tasks/bulk", b"[" + body + b"]")):
        (detail,) = await refused(alice, path, sent)
        assert detail["field"].rpartition(".")[2] == name.split()[0]
        assert str(REST_MOST) in detail["message"]


async def test_fields_that_nobody_knows_or_that_come_twice_count_too(alice):
    for body in (text({**GOOD, **MANY}), b'{"tags":["t"%b],"tags":[]}' % (b',"t"' * 900_000)):
        (detail,) = await refused(alice, "/tasks", body)
        assert (detail["field"], str(REST_MOST) in detail["message"]) == ("body", True)


@pytest.mark.parametrize(
    ("fields", "field", "right"),
    [
        ({"header": dict.fromkeys(list(MANY)[:101], "")}, "header", "100"),
        ({"headers": [{"key": "k", "value": ""}] * 101}, "headers", "100"),
        ({"header": dict.fromkeys(list(MANY)[:17_000], 1)}, "header", "100"),
        ({"expected_status": [200] * 51}, "expected_status", "50"),
        ({"expected_status": "200," * 50 + "200"}, "expected_status", "50"),
        ({"expected_status": [200] * 60_000}, "expected_status", "50"),
        ({"tags": ["t"] * 60_000}, "tags", "50"),
        ({"secret_headers": ["t"] * 60_000}, "secret_headers", "100"),
        ({"header": {"x": [{}] * 80_000}}, "header.x", "is an array"),
    ],
)
async def test_too_many_of_anything_are_refused_with_how_many_would_be_right(
    alice, fields, field, right
):
    (detail,) = await refused(alice, "/tasks", text({**GOOD, **fields}))
    assert detail["field"] == field
    assert right in detail["message"]


async def test_as_many_as_may_be_are_taken_and_shown_with_their_secrets_masked(alice):
    header = {f"K{n}": f"v{n}" for n in range(100)}
    secret = [f"k{n}" for n in range(0, 100, 2)] * 2
    fields = {"header": header, "secret_headers": secret, "expected_status": [200] * 50}
    made = (await alice.post("/tasks", json={**GOOD, **fields})).json()
    assert [name for name, value in made["header"].items() if value == "********"] == [
        f"K{n}" for n in range(0, 100, 2)
    ]
    kept = await alice.put(f"/tasks/{made['id']}", json=made | {"description": "as it was"})
    assert kept.json()["header"] == made["header"]


@pytest.mark.parametrize(
    "fields",
    [{"retry_backoff": dict.fromkeys(list(MANY)[:17_000], 1)}, dict.fromkeys(list(MANY)[:4000], 1)],
)
async def test_of_what_is_wrong_a_hundred_are_named(alice, fields):
    for path, shape in (("/tasks", b"%b"), ("/tasks/bulk", b"[%b,{}]")):
        details = await refused(alice, path, shape % text({**GOOD, **fields}))
        assert len(details) == DETAILS_MOST


async def test_a_payload_may_be_as_large_as_a_body(alice):
    for payload in ([1] * 1_900_000, "x" * 3_900_000, {"a": [{}] * 1_200_000}):
        body = text({**GOOD, "payload": payload, "header": {"k": "v"}})
        answer = await unheld(partial(alice.post, "/tasks/preview", content=body), 100)
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("field", "sent"), [("state", "succeeded," * 380_000), ("kind", "," * 4_000_000)]
)
async def test_a_filter_of_very_many_words_is_refused(alice, field, sent):
    (detail,) = await refused(alice, "/runs/cancel", text({field: sent, "dry_run": True}))
    assert detail["field"] == field
