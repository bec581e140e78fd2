"""`/tasks` and `/runs/{id}` over a real socket, as programs written against the READMEs use them."""

import asyncio
import base64
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from conftest import App, eventually
from receiver import Receiver

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
HOUR = timedelta(hours=1)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


SHAPE = set(
    words("""
    id service_id name description tags status state scheduled_at url method header payload
    follow_redirects secret_headers frequency unit max_retries retry_backoff timeout_seconds
    overlap misfire misfire_grace_seconds max_age_seconds expected_status cron rrule timezone
    dst_gap dst_overlap calendars start_at end_at max_runs command env
    service endpoint headers query_params url_params req_body cache
    paused_until max_concurrency priority jitter_seconds created_at updated_at
    dst_gap dst_overlap calendars
""")
)
EXECUTION = set(
    words("""
    id task_id run_id attempt status status_code response error scheduled_for started_at
    finished_at created_at
""")
)
RUN = set(
    words("""
    id service_id kind task_id trace_id trigger scheduled_for state reason attempt
    next_attempt_at created_at started_at finished_at lag_ms duration_ms request response
    attempts
""")
)
QUICK = {"retry_backoff": {"initial_seconds": 0.01, "max_seconds": 0.01}}


def time_of(text: str) -> datetime:
    assert TIME.fullmatch(text), text
    return datetime.fromisoformat(text)


def text_of(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now() -> datetime:
    return datetime.now(UTC)


def soon(**delta: float) -> str:
    return text_of(now() + timedelta(**delta))


async def create(client: httpx.AsyncClient, url: str = "http://127.0.0.1:9/", **fields: Any) -> Any:
    answer = await client.post("/tasks", json={"name": "a task", "url": url, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def change(client: httpx.AsyncClient, task: Any, **fields: Any) -> Any:
    answer = await client.patch(f"/tasks/{task['id']}", json=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def get(client: httpx.AsyncClient, task: Any) -> Any:
    answer = await client.get(f"/tasks/{task['id']}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def execute(client: httpx.AsyncClient, task: Any, query: str = "", **more: Any) -> Any:
    answer = await client.post(f"/tasks/{task['id']}/execute{query}", **more)
    assert answer.status_code in (200, 202), answer.text
    return answer.json()


async def executions(client: httpx.AsyncClient, task: Any, query: str = "") -> Any:
    answer = await client.get(f"/tasks/{task['id']}/executions{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def ended(client: httpx.AsyncClient, task: Any, attempts: int = 1) -> list[Any]:
    """The records of a task's executions, once there are so many and none is under way."""

    async def check() -> list[Any]:
        found = await executions(client, task)
        assert found["total_count"] == attempts, found
        assert all(record["finished_at"] for record in found["records"]), found
        return found["records"]

    return await eventually(check)


async def run_of(client: httpx.AsyncClient, run_id: str) -> Any:
    answer = await client.get(f"/runs/{run_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def live(conn: Any, task: Any) -> list[Any]:
    """The rows of the queue that belong to a task."""
    return await conn.fetch(
        "SELECT * FROM run WHERE task_id = $1 AND service_id = $2 ORDER BY scheduled_for",
        task["id"],
        UUID(task["service_id"]),
    )


# The README --------------------------------------------------------------------------------------


async def test_the_readme_of_task_service_works(alice, receiver):
    body = {
        "name": "Task Name",
        "url": receiver.url,
        "header": {"Accept": "application/json"},
        "payload": "{}",
        "scheduled_at": "2025-08-14T12:00:00Z",
        "status": "active",
        "frequency": 1,
        "unit": "hour",
        "method": "GET",
    }
    before = now()

    created = await alice.post("/tasks", json=body)
    assert created.status_code == 201
    task = created.json()
    assert task["task_id"] == task["id"] and task["message"]
    assert str(UUID(task["id"])) == task["id"]
    sent = await eventually(lambda: receiver.requests[0])
    assert (sent.method, sent.path, sent.body) == ("GET", "/", b"{}")
    assert sent.header("Accept") == "application/json"
    records = await ended(alice, task)

    updated = await alice.post(f"/tasks/{task['id']}", json=body)
    assert updated.status_code == 200
    due = time_of(updated.json()["scheduled_at"])
    assert before < due <= before + HOUR + timedelta(seconds=5)
    assert (due - datetime(2025, 8, 14, 12, tzinfo=UTC)) % HOUR == timedelta(0)

    listed = await alice.get("/tasks")
    assert [t["id"] for t in listed.json()] == [task["id"]]
    got = await alice.get(f"/tasks/{task['id']}")
    assert got.json() == updated.json() == listed.json()[0]
    assert got.json().items() >= (body | {"scheduled_at": text_of(due)}).items()

    page = await executions(alice, task, "?pageNumber=0&count=10")
    assert page == {"total_count": 1, "page_number": 0, "count": 10, "records": records}
    assert records[0]["status"] == "success" and records[0]["status_code"] == 200
    assert records[0]["response"] == "ok"


async def test_a_past_scheduled_at_runs_once_and_then_keeps_its_grid(alice, receiver, conn):
    start = now() - timedelta(days=365)
    start = start.replace(microsecond=250_000)

    task = await create(alice, receiver.url, scheduled_at=text_of(start), frequency=1, unit="week")
    await ended(alice, task)

    week = timedelta(weeks=1)
    due = time_of(task["scheduled_at"])
    assert (due - start) % week == timedelta(0) and now() < due < now() + week
    assert len(receiver.requests) == 1
    assert await live(conn, task) == []
    planned = await conn.fetchval("SELECT next_plan_at FROM task_plan")
    assert planned == due


async def test_a_past_scheduled_at_runs_even_where_misfires_are_skipped(alice, receiver):
    once = await create(alice, receiver.url, scheduled_at="2020-01-01T00:00:00Z", misfire="skip")
    await ended(alice, once)
    again = await create(
        alice,
        receiver.url,
        scheduled_at="2020-01-01T00:00:00Z",
        frequency=2,
        unit="day",
        misfire="skip",
        misfire_grace_seconds=0,
    )
    await ended(alice, again)


# Create ------------------------------------------------------------------------------------------


async def test_a_created_task_is_answered_whole(alice, app):
    task = await create(alice, "https://example.com/a?b=c")

    assert set(task) == SHAPE | {"task_id", "message"}
    assert task["service_id"] == app.ids["alice"]
    assert time_of(task["created_at"]) == time_of(task["updated_at"])
    assert (task["status"], task["state"], task["scheduled_at"]) == ("active", "created", None)
    assert (task["url"], task["method"]) == ("https://example.com/a?b=c", "GET")
    assert (task["timeout_seconds"], task["overlap"], task["misfire"]) == (30, "skip", "latest")
    assert task["misfire_grace_seconds"] == 60
    for field in (
        "frequency",
        "unit",
        "payload",
        "description",
        "max_age_seconds",
        "cron",
        "command",
    ):
        assert task[field] is None, field
    assert set(await get(alice, task)) == SHAPE


async def test_what_is_sent_is_answered(alice):
    sent = {
        "id": "nightly-1",
        "name": "Nächtlich 🌙",
        "description": "what it is for",
        "tags": ["a", "b c"],
        "url": "http://127.0.0.1:9/x",
        "method": "PUT",
        "header": {"Accept": "text/plain", "X-A": "ä"},
        "payload": "hello\n",
        "follow_redirects": True,
        "secret_headers": ["X-Hidden"],
        "frequency": 3,
        "unit": "week",
        "scheduled_at": "2999-01-01T00:00:00.123Z",
        "status": "paused",
        "max_retries": 7,
        "retry_backoff": {"initial_seconds": 2, "factor": 3, "max_seconds": 60},
        "timeout_seconds": 1.5,
        "overlap": "queue",
        "misfire": "all",
        "misfire_grace_seconds": 5,
        "max_age_seconds": 100,
        "expected_status": [200, 404],
    }

    answer = await alice.post("/tasks", json=sent)

    assert answer.status_code == 201, answer.text
    assert answer.json().items() >= sent.items()
    assert (await get(alice, sent)).items() >= sent.items()


@pytest.mark.parametrize(
    "sent", [{}, {"initial_seconds": 0.1}, {"factor": 3}, {"max_seconds": 9, "factor": 2}]
)
async def test_a_backoff_is_answered_whole_whatever_was_sent_of_it(alice, sent):
    task = await create(alice, retry_backoff=sent)
    whole = {"initial_seconds": 1, "factor": 2, "max_seconds": 300, **sent}
    assert task["retry_backoff"] == (await get(alice, task))["retry_backoff"] == whole
    listed = (await alice.get("/tasks")).json()
    assert listed[0]["retry_backoff"] == whole
    assert (await change(alice, task, **task))["retry_backoff"] == whole
    assert (await change(alice, task, retry_backoff=None))["retry_backoff"] is None


@pytest.mark.parametrize("good", ["a", "9", "My_Task-1", "x" * 64])
async def test_a_client_may_choose_the_id(alice, good):
    assert (await create(alice, id=good))["id"] == good
    assert (await get(alice, {"id": good}))["id"] == good


async def test_a_taken_id_is_a_conflict(alice, bob):
    await create(alice, id="mine")

    answer = await alice.post("/tasks", json={"id": "mine", "name": "x", "url": "http://h/"})

    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "conflict"
    assert (await create(bob, id="mine"))["id"] == "mine"


async def test_an_id_can_be_used_again_after_a_delete_and_is_another_task(alice, receiver):
    first = await create(alice, receiver.url, id="again")
    await execute(alice, first)
    await alice.delete("/tasks/again")

    second = await create(alice, receiver.url, id="again")

    assert second["state"] == "created"
    assert (await executions(alice, second))["total_count"] == 0


@pytest.mark.parametrize("unit", ["second", "minute", "hour", "day", "week"])
async def test_an_interval_is_first_due_one_interval_from_now(alice, unit):
    every = timedelta(**{f"{unit}s": 40})
    before = now()

    task = await create(alice, frequency=40, unit=unit)

    assert before - timedelta(seconds=1) < time_of(task["scheduled_at"]) - every <= now()
    assert (task["frequency"], task["unit"], task["state"]) == (40, unit, "pending")


async def test_an_interval_fires_on_its_grid_and_never_early(alice, receiver):
    start = now() + timedelta(seconds=0.4)

    task = await create(
        alice, receiver.url, scheduled_at=text_of(start), frequency=1, unit="second"
    )
    await eventually(lambda: receiver.requests[2])

    start = time_of(task["scheduled_at"])
    for n, sent in enumerate(receiver.requests[:3]):
        instant = start + timedelta(seconds=n)
        assert time_of(sent.header("X-Scheduler-Scheduled-For")) == instant
        assert 0 <= sent.at - instant.timestamp() < 2


async def test_a_task_with_scheduled_at_alone_runs_once_at_that_instant(alice, receiver):
    task = await create(alice, receiver.url, scheduled_at=soon(seconds=0.3))
    assert task["state"] == "pending"

    (record,) = await ended(alice, task)

    instant = time_of(task["scheduled_at"])
    assert 0 <= receiver.last.at - instant.timestamp() < 2
    assert time_of(record["scheduled_for"]) == instant
    after = await get(alice, task)
    assert (after["scheduled_at"], after["state"], after["frequency"]) == (None, "completed", None)
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("nothing", [None, "", "0001-01-01T00:00:00Z"])
async def test_no_time_has_three_spellings(alice, nothing):
    assert (await create(alice, scheduled_at=nothing))["scheduled_at"] is None

    task = await create(alice, scheduled_at=nothing, frequency=1, unit="hour")
    assert timedelta(0) <= now() + HOUR - time_of(task["scheduled_at"]) < timedelta(seconds=5)


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ("2999-01-31T09:00:00+01:00", "2999-01-31T08:00:00.000Z"),
        ("2999-01-01T00:00:00.1239999Z", "2999-01-01T00:00:00.123Z"),
        ("2998-12-31T23:30:00-05:30", "2999-01-01T05:00:00.000Z"),
        ("2999-01-01t00:00:00z", "2999-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
    ],
)
async def test_times_are_answered_in_utc_with_milliseconds(alice, sent, answered):
    assert (await create(alice, scheduled_at=sent))["scheduled_at"] == answered


async def test_an_interval_whose_next_instant_lies_beyond_9999_has_none(alice):
    task = await create(alice, scheduled_at="9999-12-31T23:00:00Z", frequency=1, unit="hour")
    assert task["scheduled_at"] == "9999-12-31T23:00:00.000Z"
    assert (await alice.get("/tasks")).status_code == 200


# The action --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "method"),
    [
        ({}, "GET"),
        ({"payload": "x"}, "POST"),
        ({"payload": {"a": 1}}, "POST"),
        ({"payload": "x", "method": "GET"}, "GET"),
        ({"method": None}, "GET"),
        ({"method": ""}, "GET"),
        *(({"method": m}, m) for m in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD")),
    ],
)
async def test_the_method_is_get_or_post_where_there_is_a_payload(alice, receiver, fields, method):
    task = await create(alice, receiver.url, **fields)
    assert task["method"] == method

    await execute(alice, task)

    assert receiver.last.method == method


async def test_a_payload_that_is_json_is_stored_as_its_text_and_says_so(alice, receiver):
    task = await create(alice, receiver.url, payload={"a": [1, "ü"], "b": None})
    assert task["payload"] == '{"a":[1,"ü"],"b":null}'
    await execute(alice, task)
    assert receiver.last.body.decode() == task["payload"]
    assert receiver.last.header("Content-Type") == "application/json"

    # An answer that is sent back keeps it.
    await change(alice, task, **await get(alice, task))
    await execute(alice, task)
    assert receiver.last.header("Content-Type") == "application/json"


async def test_a_content_type_of_the_task_wins(alice, receiver):
    task = await create(
        alice, receiver.url, payload=[1, 2], header={"content-type": "application/vnd.x+json"}
    )
    await execute(alice, task)
    assert receiver.last.header("Content-Type") == "application/vnd.x+json"
    assert receiver.last.body == b"[1,2]"


@pytest.mark.parametrize(
    "sent",
    [
        '{"id":12345678901234567890123}',
        '{"much":1e400,"little":1.50}',
        r'{"nul":"\u0000"}',
        '["\\ud83d\\ude00"]',
    ],
)
async def test_the_values_of_a_payload_are_sent_as_they_were_written(alice, receiver, sent):
    body = f'{{"name": "a", "url": "{receiver.url}", "payload": {sent}}}'
    answer = await alice.post("/tasks", content=body)
    assert answer.json().get("payload") == sent, answer.text
    await execute(alice, answer.json())
    assert receiver.last.body.decode() == sent


@pytest.mark.parametrize("sent", ["5", "true", '"\\u0000"'])
async def test_a_payload_of_another_kind_is_refused_with_its_field(alice, sent):
    answer = await alice.post("/tasks", content=f'{{"url": "http://h/", "payload": {sent}}}')
    assert answer.status_code == 400
    assert "payload" in [detail["field"] for detail in answer.json()["error"]["details"]]


async def test_every_field_that_there_is_not_is_named_with_what_was_meant(alice):
    sent = {"name": "a", "url": "http://h/", "freqency": 2, "foo": 1}
    answer = (await alice.post("/tasks", json=sent)).json()["error"]
    assert {detail["field"]: detail["message"] for detail in answer["details"]} == {
        "freqency": "there is no such field; did you mean frequency?",
        "foo": "there is no such field",
    }
    sent = {"name": "a", "url": "http://h/", "headers": [{"key": "a", "value": "b", "x": 1}]}
    answer = (await alice.post("/tasks", json=sent)).json()["error"]
    assert answer["details"][0]["field"] == "headers[0].x"


async def test_a_payload_of_text_is_sent_as_it_is(alice, receiver):
    task = await create(alice, receiver.url, payload=' {"a": 1}\n')
    await execute(alice, task)
    assert receiver.last.body == b' {"a": 1}\n'
    assert receiver.last.header("Content-Type") is None


@pytest.mark.parametrize(
    "headers",
    [
        {"headers": {"X-A": "1", "X-B": "2"}},
        {"headers": [{"key": "X-A", "value": "1"}, {"key": "X-B", "value": "2"}]},
        {"header": {"X-A": "1", "X-B": "2"}, "headers": {"X-C": "3"}},
    ],
)
async def test_headers_are_understood_in_three_spellings(alice, receiver, headers):
    task = await create(alice, receiver.url, **headers)
    assert task["header"] == {"X-A": "1", "X-B": "2"}

    await execute(alice, task)

    assert (receiver.last.header("X-A"), receiver.last.header("X-B")) == ("1", "2")
    assert receiver.last.header("X-C") is None


SECRETS = {
    "Authorization": "Bearer abc",
    "cookie": "a=b",
    "X-Api-Key": "k1",
    "My-Token": "t1",
    "client-SECRET": "s1",
    "X-Hidden": "h1",
}


async def test_secret_headers_are_masked_everywhere_and_sent(alice, receiver):
    task = await create(
        alice, receiver.url, header={**SECRETS, "Accept": "a/b"}, secret_headers=["x-hidden"]
    )
    masked = {**dict.fromkeys(SECRETS, "********"), "Accept": "a/b"}

    assert task["header"] == masked
    assert (await get(alice, task))["header"] == masked
    assert (await alice.get("/tasks")).json()[0]["header"] == masked
    assert (await change(alice, task, name="x"))["header"] == masked
    await execute(alice, task)
    for name, value in SECRETS.items():
        assert receiver.last.header(name) == value


async def test_a_mask_that_is_sent_back_keeps_the_stored_value(alice, receiver):
    task = await create(alice, receiver.url, header={"Authorization": "one", "X-Key": "two"})

    await change(alice, task, header={"authorization": "********", "X-Key": "new", "A": "********"})
    await execute(alice, task)
    assert receiver.last.header("Authorization") == "one"
    assert receiver.last.header("X-Key") == "new"
    assert receiver.last.header("A") == "********"  # no secret: a value like any other

    await change(alice, task, header={"X-Key": "********"})
    await execute(alice, task)
    assert receiver.last.header("Authorization") is None
    assert receiver.last.header("X-Key") == "new"


async def test_a_header_that_becomes_secret_is_masked_and_kept(alice, receiver):
    task = await create(alice, receiver.url, header={"X-Hidden": "h"})
    assert task["header"] == {"X-Hidden": "h"}

    assert (await change(alice, task, secret_headers=["X-Hidden"]))["header"] == {
        "X-Hidden": "********"
    }
    await execute(alice, task)
    assert receiver.last.header("X-Hidden") == "h"


async def test_a_mask_with_nothing_to_keep_is_refused(alice):
    answer = await alice.post(
        "/tasks", json={"name": "x", "url": "http://h/", "header": {"Authorization": "********"}}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["field"] == "header.Authorization"


async def test_every_call_carries_what_the_contract_names(alice, receiver):
    task = await create(alice, receiver.url, id="t-1", header={"User-Agent": "mine"})
    record = await execute(alice, task)

    sent = receiver.last
    assert sent.header("Idempotency-Key") == record["run_id"]
    assert sent.header("X-Scheduler-Attempt") == "1"
    assert sent.header("X-Scheduler-Task") == "t-1"
    assert sent.header("X-Scheduler-Scheduled-For") == record["scheduled_for"]
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", sent.header("traceparent") or "")
    assert sent.header("User-Agent") == "mine"
    await execute(alice, await change(alice, task, header=None))
    assert (receiver.last.header("User-Agent") or "").startswith("scheduler/")


async def test_redirects_are_followed_only_where_the_task_says_so(alice, receiver):
    task = await create(alice, receiver.url)
    receiver.then(302, headers={"Location": "/there"})
    record = await execute(alice, task)
    assert (record["status"], record["status_code"]) == ("failed", 302)

    await change(alice, task, follow_redirects=True)
    receiver.then(302, headers={"Location": "/there"})
    record = await execute(alice, task)
    assert (record["status"], receiver.last.path) == ("success", "/there")


@pytest.mark.parametrize(
    ("expected", "status", "word"),
    [
        (None, 204, "success"),
        (None, 304, "failed"),
        ([404], 404, "success"),
        ([404], 200, "failed"),
        ([200, 500], 500, "success"),
    ],
)
async def test_expected_status_says_what_a_success_is(alice, receiver, expected, status, word):
    task = await create(alice, receiver.url, expected_status=expected)
    receiver.then(status, b"")

    record = await execute(alice, task)

    assert (record["status"], record["status_code"]) == (word, status)
    assert (record["error"] is None) == (word == "success")


# List --------------------------------------------------------------------------------------------


async def test_tasks_are_listed_in_pages_the_newest_first(alice):
    made = [(await create(alice, name=f"task {n}"))["id"] for n in range(5)][::-1]

    whole = await alice.get("/tasks")
    assert [t["id"] for t in whole.json()] == made
    assert whole.headers["X-Total-Count"] == "5"
    assert "Link" not in whole.headers

    first = await alice.get("/tasks?pageNumber=0&count=2&q=task")
    assert [t["id"] for t in first.json()] == made[:2]
    assert first.headers["X-Total-Count"] == "5"
    second = await alice.get(first.links["next"]["url"])
    assert [t["id"] for t in second.json()] == made[2:4]
    third = await alice.get(second.links["next"]["url"])
    assert [t["id"] for t in third.json()] == made[4:]
    assert "next" not in third.links
    beyond = await alice.get("/tasks?pageNumber=9&count=2")
    assert beyond.json() == [] and beyond.headers["X-Total-Count"] == "5"


async def test_without_count_the_first_thousand_are_listed(alice, conn):
    await create(alice)
    copy = """INSERT INTO task SELECT gen_random_uuid(), bucket, service_id, 'copy-' || n, version,
              name, description, tags, status, trigger, action, policy, created_at, updated_at
              FROM task, generate_series($1::int, $2::int) AS n WHERE NOT id LIKE 'copy%'"""
    await conn.execute(copy, 1, 1000)

    answer = await alice.get("/tasks")
    assert len(answer.json()) == 1000
    assert answer.headers["X-Total-Count"] == "1001"
    assert len((await alice.get(answer.links["next"]["url"])).json()) == 1

    await conn.execute(copy, 1001, 9999)
    assert (await alice.get("/tasks?count=1")).headers["X-Total-Count"] == "10000"
    await conn.execute(copy, 10_000, 10_000)
    assert "X-Total-Count" not in (await alice.get("/tasks?count=1")).headers


@pytest.mark.parametrize(
    "query",
    [
        "pageNumber=-1",
        "pageNumber=x",
        "count=0",
        "count=1001",
        "count=1.5",
        "count=9" * 30,
        "pageNumber=1000000000",
        "pageNumber=1001",
        "pageNumber=100001&count=10",
    ],
)
async def test_paging_values_out_of_range_are_refused(alice, query):
    answer = await alice.get(f"/tasks?{query}")
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "validation_failed"
    assert error["details"][0]["field"] == query.split("=")[0]


async def test_lists_are_filtered(alice, receiver):
    receiver.then(500)
    await execute(alice, await create(alice, receiver.url, id="failed", tags=["red", "blue"]))
    await execute(alice, await create(alice, receiver.url, id="completed", name="Nightly backup"))
    await create(alice, id="created", url="https://example.com/report/daily", tags=["red"])
    await create(alice, id="pending", frequency=1, unit="day")
    await create(alice, id="once", scheduled_at="2999-01-01T00:00:00Z")
    await create(alice, id="paused", status="paused", frequency=1, unit="day")
    await create(alice, id="disabled", status="disabled", frequency=1, unit="day")

    async def listed(query: str) -> set[str]:
        answer = await alice.get(f"/tasks?{query}")
        assert answer.status_code == 200, answer.text
        ids = {task["id"] for task in answer.json()}
        assert answer.headers["X-Total-Count"] == str(len(ids))
        return ids

    assert await listed("status=paused") == {"paused"}
    assert await listed("status=disabled") == {"disabled"}
    assert await listed("status=active") == {"failed", "completed", "created", "pending", "once"}
    assert await listed("trigger=interval") == {"pending", "paused", "disabled"}
    assert await listed("trigger=once") == {"once"}
    assert await listed("action=http&trigger=once") == {"once"}
    assert await listed("action=command") == set()
    assert await listed("tag=red") == {"failed", "created"}
    assert await listed("tag=re") == set()
    assert await listed("q=BACK") == {"completed"}
    assert await listed("q=nightly+backup") == {"completed"}
    assert await listed("q=ackup") == set()
    assert await listed("q=report") == {"created"}
    assert await listed("q=%25") == set()
    assert await listed("q=.*") == set()
    assert await listed("status=&q=&tag=red") == {"failed", "created"}


async def test_status_takes_the_words_of_both_vocabularies(alice, receiver):
    hold = asyncio.Event()
    receiver.then(500).then(200).then(after=hold)
    await execute(alice, await create(alice, receiver.url, id="f"))
    await execute(alice, await create(alice, receiver.url, id="c"))
    await execute(alice, await create(alice, receiver.url, id="r"), "?async=true")
    await create(alice, id="n")
    await create(alice, id="p", frequency=1, unit="day")

    states = {"failed": "f", "completed": "c", "running": "r", "created": "n", "pending": "p"}
    for state, task_id in states.items():
        for name in ("status", "state"):
            answer = await alice.get(f"/tasks?{name}={state}")
            assert [t["id"] for t in answer.json()] == [task_id], (name, state)
            assert answer.headers["X-Total-Count"] == "1"
    assert (await alice.get("/tasks?status=nonsense")).status_code == 400
    assert (await alice.get("/tasks?state=active")).status_code == 400
    hold.set()


# Update ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_an_update_changes_exactly_the_fields_sent(alice, method):
    task = await create(
        alice,
        description="d",
        tags=["t"],
        header={"A": "b"},
        payload="p",
        frequency=1,
        unit="hour",
        max_retries=1,
        overlap="allow",
    )

    answer = await alice.request(method, f"/tasks/{task['id']}", json={"name": "new"})

    assert answer.status_code == 200
    changed = {key for key in SHAPE if answer.json()[key] != task[key]}
    assert changed == {"name", "updated_at"}
    assert set(answer.json()) == SHAPE
    assert time_of(answer.json()["updated_at"]) > time_of(task["updated_at"])
    assert await get(alice, task) == answer.json()


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "interval": {"frequency": 1, "unit": "minute"},
    "grid": {"frequency": 7, "unit": "day", "scheduled_at": "2999-01-01T00:00:00Z"},
    "past grid": {"frequency": 7, "unit": "day", "scheduled_at": "2020-01-01T00:00:00Z"},
    "once": {"scheduled_at": "2999-01-01T00:00:00.5Z"},
    "once in the past": {"scheduled_at": "2020-01-01T00:00:00Z"},
    "paused": {"frequency": 1, "unit": "second", "status": "paused"},
    "disabled": {"frequency": 1, "unit": "second", "status": "disabled"},
    "everything": {
        "header": {"Authorization": "s", "A": "b", "X-H": "c"},
        "secret_headers": ["X-H"],
        "payload": {"a": 1},
        "tags": ["x"],
        "description": "",
        "max_retries": 2,
        "retry_backoff": {"initial_seconds": 5},
        "timeout_seconds": 3,
        "overlap": "queue",
        "misfire": "skip",
        "misfire_grace_seconds": 0,
        "max_age_seconds": 10,
        "expected_status": [200, "300-399"],
        "follow_redirects": True,
    },
}


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("kind", KINDS)
async def test_what_get_answers_can_be_sent_back_and_changes_nothing(
    alice, receiver, conn, kind, method
):
    task = await create(alice, receiver.url, **KINDS[kind])
    if kind.endswith(("in the past", "past grid")):
        await ended(alice, task)
    # The plan is made when the task is; one that runs at the moment would differ by its state.
    before = await get(alice, task)
    queue = [(r["id"], r["scheduled_for"]) for r in await live(conn, task)]
    ran = len(receiver.requests)

    answer = await alice.request(method, f"/tasks/{task['id']}", json=before)

    assert answer.status_code == 200, answer.text
    if kind != "paused":  # its next instant moves on as the seconds pass
        assert answer.json() | {"updated_at": 0} == before | {"updated_at": 0}
    assert {(r["id"], r["scheduled_for"]) for r in await live(conn, task)} >= set(queue)
    assert len(receiver.requests) == ran


async def test_what_create_answers_can_be_sent_back_too(alice):
    task = await create(alice, frequency=1, unit="hour")
    answer = await alice.put(f"/tasks/{task['id']}", json={**task, "id": "other", "state": "x"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["id"] == task["id"]
    assert answer.json()["scheduled_at"] == task["scheduled_at"]


async def test_null_removes_what_can_be_without(alice):
    task = await create(
        alice,
        description="d",
        tags=["t"],
        header={"A": "b"},
        payload="p",
        max_retries=1,
        retry_backoff={"initial_seconds": 1},
        timeout_seconds=1,
        overlap="allow",
        misfire="all",
        misfire_grace_seconds=1,
        max_age_seconds=1,
        expected_status=[201],
        secret_headers=["A"],
        frequency=1,
        unit="hour",
    )
    plain = await create(alice)
    fields = words("""
        description tags header payload max_retries retry_backoff timeout_seconds overlap
        misfire misfire_grace_seconds max_age_seconds expected_status secret_headers
        frequency unit method
    """)

    changed = await change(alice, task, **dict.fromkeys(fields))

    for field in (*fields, "scheduled_at", "state"):
        assert changed[field] == plain[field], field


@pytest.mark.parametrize("field", ["name", "url"])
async def test_null_does_not_remove_what_is_needed(alice, field):
    task = await create(alice)
    answer = await alice.patch(f"/tasks/{task['id']}", json={field: None})
    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["field"] == field
    assert (await get(alice, task))[field] == task[field]


async def test_an_update_with_one_wrong_field_changes_nothing(alice):
    task = await create(alice, frequency=1, unit="hour")

    answer = await alice.patch(
        f"/tasks/{task['id']}", json={"name": "new", "frequency": 0, "overlap": "never"}
    )

    assert answer.status_code == 400
    assert {d["field"] for d in answer.json()["error"]["details"]} == {"frequency", "overlap"}
    assert await get(alice, task) == {k: task[k] for k in SHAPE}


async def test_an_edit_counts_for_the_next_run(alice, receiver):
    task = await create(alice, receiver.url + "/old", scheduled_at=soon(seconds=1))
    await change(alice, task, url=receiver.url + "/new", payload="x")

    await ended(alice, task)

    assert [(r.method, r.path) for r in receiver.requests] == [("POST", "/new")]


# Updates of the trigger --------------------------------------------------------------------------


async def on_grid(alice: httpx.AsyncClient, start: datetime, **more: Any) -> Any:
    fields = {"frequency": 1, "unit": "hour", "scheduled_at": text_of(start), **more}
    return await create(alice, **fields)


def at(minutes: float) -> datetime:
    """An instant so many minutes from now, in whole milliseconds."""
    moment = now() + timedelta(minutes=minutes)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@pytest.mark.parametrize("steps", [-10, -1, 0, 1, 10])
async def test_a_scheduled_at_on_the_present_grid_moves_nothing(alice, conn, steps):
    start = at(0.5)
    task = await on_grid(alice, start)
    before = await live(conn, task)

    changed = await change(alice, task, scheduled_at=text_of(start + steps * HOUR))

    assert time_of(changed["scheduled_at"]) == start
    assert [(r["id"], r["due"]) for r in await live(conn, task)] == [
        (r["id"], r["due"]) for r in before
    ]


async def test_an_unsent_scheduled_at_moves_nothing(alice):
    start = at(30)
    task = await on_grid(alice, start)

    same = await change(alice, task, frequency=1, unit="hour")
    assert time_of(same["scheduled_at"]) == start
    slower = await change(alice, task, frequency=2)
    assert (slower["frequency"], slower["unit"]) == (2, "hour")
    assert time_of(slower["scheduled_at"]) == start
    faster = await change(alice, task, unit="minute")
    assert (faster["frequency"], faster["unit"]) == (2, "minute")
    assert time_of(faster["scheduled_at"]) == start  # the grid's first instant


async def test_a_new_scheduled_at_moves_the_grid(alice, conn):
    task = await on_grid(alice, at(0.3))
    assert len(await live(conn, task)) == 1

    start = at(45)
    changed = await change(alice, task, scheduled_at=text_of(start))

    assert time_of(changed["scheduled_at"]) == start
    assert changed["frequency"] == 1
    assert await live(conn, task) == []


async def test_a_past_scheduled_at_in_an_update_only_moves_the_grid(alice, receiver, conn):
    task = await create(alice, receiver.url, frequency=1, unit="hour", scheduled_at=text_of(at(30)))

    changed = await change(alice, task, scheduled_at=text_of(at(-130)))

    assert abs(time_of(changed["scheduled_at"]) - at(50)) < timedelta(seconds=5)
    assert await live(conn, task) == []
    assert receiver.requests == []


async def test_null_as_scheduled_at_means_one_interval_from_now(alice):
    task = await on_grid(alice, at(30))
    changed = await change(alice, task, scheduled_at=None)
    assert abs(time_of(changed["scheduled_at"]) - at(60)) < timedelta(seconds=5)


async def test_a_once_task_can_be_moved(alice, receiver):
    task = await create(alice, receiver.url, scheduled_at="2999-01-01T00:00:00Z")

    later = await change(alice, task, scheduled_at="2999-06-01T00:00:00Z")
    assert later["scheduled_at"] == "2999-06-01T00:00:00.000Z"
    near = await change(alice, task, scheduled_at=soon(seconds=0.3))

    (record,) = await ended(alice, task)
    assert record["scheduled_for"] == near["scheduled_at"]


async def test_a_once_task_runs_again_where_the_past_time_differs(alice, receiver):
    task = await create(alice, receiver.url, scheduled_at="2020-01-01T00:00:00Z")
    await ended(alice, task)

    await change(alice, task, scheduled_at="2020-01-01T00:00:00+00:00", name="same time")
    await change(alice, task, name="unsent")
    await change(alice, task, scheduled_at="2020-01-01T00:00:00.001Z")

    await ended(alice, task, 2)
    assert len(receiver.requests) == 2


async def test_null_takes_the_time_from_a_once_task(alice):
    task = await create(alice, scheduled_at="2999-01-01T00:00:00Z")
    changed = await change(alice, task, scheduled_at=None)
    assert (changed["scheduled_at"], changed["state"]) == (None, "created")


async def test_a_trigger_field_replaces_the_whole_trigger(alice):
    task = await create(alice, scheduled_at="2999-01-01T00:00:00Z")

    changed = await change(alice, task, frequency=1, unit="hour")
    assert abs(time_of(changed["scheduled_at"]) - at(60)) < timedelta(seconds=5)

    changed = await change(
        alice, task, frequency=None, unit=None, scheduled_at="2999-01-01T00:00:00Z"
    )
    assert (changed["frequency"], changed["unit"]) == (None, None)
    assert changed["scheduled_at"] == "2999-01-01T00:00:00.000Z"

    changed = await change(alice, task, frequency=1, unit="hour")
    changed = await change(alice, task, frequency=None)
    assert (changed["frequency"], changed["unit"], changed["scheduled_at"]) == (None, None, None)


# Status and state --------------------------------------------------------------------------------


async def test_a_paused_task_is_not_run_by_itself_but_by_hand(alice, receiver, conn):
    task = await create(
        alice, receiver.url, scheduled_at=text_of(at(-20.5)), frequency=1, unit="minute"
    )
    await eventually(lambda: receiver.requests[0])

    paused = await change(alice, task, status="paused")
    ran = len(receiver.requests)
    assert paused["status"] == "paused"
    await execute(alice, task)
    assert len(receiver.requests) == ran + 1
    assert await live(conn, task) == []

    # What passed meanwhile is one gap, and not caught up.
    await conn.execute("UPDATE task_plan SET planned_until = planned_until - interval '10 minutes'")
    await change(alice, task, status="active", scheduled_at=text_of(at(60)))
    (gap,) = await conn.fetch("SELECT * FROM history WHERE state = 'skipped'")
    assert gap["reason"] == "paused"
    assert gap["count"] >= 10
    assert gap["gap_to"] - gap["gap_from"] == timedelta(minutes=gap["count"] - 1)
    assert await live(conn, task) == []
    assert len(receiver.requests) == ran + 1


async def test_a_past_time_of_a_paused_task_is_not_run(alice, receiver, conn):
    task = await create(alice, receiver.url, scheduled_at="2020-01-01T00:00:00Z", status="paused")
    assert await live(conn, task) == []


async def test_a_disabled_task_has_no_due_instants(alice, conn):
    task = await create(alice, frequency=1, unit="second", status="disabled")
    assert (task["scheduled_at"], task["state"]) == (None, "created")
    assert await live(conn, task) == []

    answer = await alice.post(f"/tasks/{task['id']}/execute")
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "conflict"

    task = await change(alice, task, status="active")
    assert task["state"] == "pending" and task["scheduled_at"]
    assert len(await live(conn, task)) > 10
    task = await change(alice, task, status="disabled")
    await eventually(lambda: nothing_live(conn, task))


async def nothing_live(conn: Any, task: Any) -> None:
    assert await live(conn, task) == []


@pytest.mark.parametrize("word", ["created", "pending", "running", "completed", "failed", None, ""])
async def test_the_other_vocabulary_sent_as_status_means_active(alice, word):
    task = await create(alice, status=word)
    assert task["status"] == "active"
    task = await change(alice, await change(alice, task, status="paused"), status=word)
    assert task["status"] == "active"


async def test_state_says_how_the_last_run_ended(alice, receiver):
    hold = asyncio.Event()
    task = await create(alice, receiver.url, max_retries=1, **QUICK)
    assert (await get(alice, task))["state"] == "created"

    receiver.then(after=hold)
    await execute(alice, task, "?async=true")
    await eventually(lambda: receiver.requests[0])
    assert (await get(alice, task))["state"] == "running"
    assert (await alice.get("/tasks")).json()[0]["state"] == "running"
    hold.set()
    await ended(alice, task)
    assert (await get(alice, task))["state"] == "completed"

    receiver.then(400)
    await execute(alice, task)
    assert (await get(alice, task))["state"] == "failed"

    assert (await change(alice, task, frequency=1, unit="hour"))["state"] == "pending"
    assert (await change(alice, task, status="disabled"))["state"] == "failed"


async def test_a_run_that_waits_for_a_retry_is_running(alice, receiver):
    receiver.then(503, headers={"Retry-After": "600"})
    task = await create(alice, receiver.url, scheduled_at="2020-01-01T00:00:00Z")

    await ended(alice, task)

    assert (await get(alice, task))["state"] == "running"


# Delete ------------------------------------------------------------------------------------------


async def test_a_deleted_task_is_gone_and_so_are_its_future_runs(alice, receiver, conn):
    task = await create(alice, receiver.url, frequency=1, unit="second")
    assert await live(conn, task)

    answer = await alice.delete(f"/tasks/{task['id']}")

    assert (answer.status_code, answer.content) == (204, b"")
    for method, path in (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("GET", "/executions"),
        ("POST", "/execute"),
    ):
        gone = await alice.request(method, f"/tasks/{task['id']}{path}", json={})
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")
    assert (await alice.get("/tasks")).json() == []
    await eventually(lambda: nothing_live(conn, task))
    assert await conn.fetchval("SELECT count(*) FROM history WHERE state <> 'succeeded'") == 0


async def test_a_run_that_is_under_way_at_the_delete_ends_and_is_recorded(alice, receiver):
    hold = asyncio.Event()
    receiver.then(after=hold)
    task = await create(alice, receiver.url)
    run = await execute(alice, task, "?async=true")
    await eventually(lambda: receiver.requests[0])

    await alice.delete(f"/tasks/{task['id']}")
    assert (await run_of(alice, run["id"]))["state"] == "running"
    hold.set()

    async def check() -> None:
        assert (await run_of(alice, run["id"]))["state"] == "succeeded"

    await eventually(check)


async def test_a_run_that_waits_for_a_retry_at_the_delete_ends_cancelled(alice, receiver):
    receiver.then(503, headers={"Retry-After": "600"})
    task = await create(alice, receiver.url, scheduled_at="2020-01-01T00:00:00Z")
    (record,) = await ended(alice, task)

    await alice.delete(f"/tasks/{task['id']}")

    run = await run_of(alice, record["run_id"])
    assert run["state"] == "cancelled" and run["reason"]
    assert len(run["attempts"]) == 1


async def test_history_stays_after_a_delete(alice, receiver):
    task = await create(alice, receiver.url)
    record = await execute(alice, task)
    await alice.delete(f"/tasks/{task['id']}")
    assert (await run_of(alice, record["run_id"]))["state"] == "succeeded"


# Execute -----------------------------------------------------------------------------------------


async def test_execute_waits_for_the_end(alice, receiver):
    receiver.then(201, "made")
    task = await create(alice, receiver.url)

    answer = await alice.post(f"/tasks/{task['id']}/execute")

    assert answer.status_code == 200
    record = answer.json()
    assert set(record) == EXECUTION
    assert (record["task_id"], record["attempt"]) == (task["id"], 1)
    assert (record["status"], record["status_code"]) == ("success", 201)
    assert (record["response"], record["error"]) == ("made", None)
    assert time_of(record["scheduled_for"]) <= time_of(record["started_at"])
    assert time_of(record["started_at"]) <= time_of(record["finished_at"])
    assert (await executions(alice, task))["records"] == [record]
    run = await run_of(alice, record["run_id"])
    assert (run["kind"], run["state"]) == ("manual", "succeeded")


async def test_execute_answers_at_once_where_it_is_asked_to(alice, receiver):
    hold = asyncio.Event()
    receiver.then(after=hold)
    task = await create(alice, receiver.url)

    answer = await alice.post(f"/tasks/{task['id']}/execute?async=true")

    assert answer.status_code == 202
    run = answer.json()
    assert set(run) >= RUN
    assert (run["kind"], run["task_id"]) == ("manual", task["id"])
    assert run["state"] in ("scheduled", "running")
    hold.set()
    (record,) = await ended(alice, task)
    assert record["run_id"] == run["id"]


async def test_execute_does_not_retry_unless_it_is_asked_to(alice, receiver):
    task = await create(alice, receiver.url, max_retries=2, **QUICK)
    receiver.then(500, "no")
    record = await execute(alice, task)
    assert (record["status"], record["attempt"], record["response"]) == ("failed", 1, "no")
    assert "500" in record["error"]
    assert len(receiver.requests) == 1

    receiver.then(500).then(500)
    record = await execute(alice, task, "?retry=true")
    assert (record["status"], record["attempt"]) == ("success", 3)
    assert len({r.header("Idempotency-Key") for r in receiver.requests[1:]}) == 1


async def test_execute_answers_with_the_run_where_that_has_not_ended(alice, receiver):
    receiver.then(503, headers={"Retry-After": "600"})
    task = await create(alice, receiver.url, timeout_seconds=0.3)

    answer = await alice.post(f"/tasks/{task['id']}/execute?retry=true")

    assert answer.status_code == 202
    run = answer.json()
    assert (run["state"], run["attempt"]) == ("retrying", 1)
    assert time_of(run["next_attempt_at"]) > now() + timedelta(minutes=9)


async def test_a_call_that_takes_too_long_fails(alice, receiver):
    receiver.then(after=asyncio.Event())
    task = await create(alice, receiver.url, timeout_seconds=0.2)

    record = await execute(alice, task)

    assert (record["status"], record["status_code"], record["response"]) == ("failed", None, None)
    assert record["error"]
    took = time_of(record["finished_at"]) - time_of(record["started_at"])
    assert timedelta(seconds=0.15) < took < timedelta(seconds=3)


async def test_execute_is_refused_while_a_run_is_under_way(alice, receiver):
    hold = asyncio.Event()
    receiver.then(after=hold)
    task = await create(alice, receiver.url)
    await execute(alice, task, "?async=true")

    for query in ("", "?async=true"):
        answer = await alice.post(f"/tasks/{task['id']}/execute{query}")
        assert answer.status_code == 409, answer.text
        assert "overlap" in answer.json()["error"]["message"]
    hold.set()
    await ended(alice, task)
    await execute(alice, task)
    assert len(receiver.requests) == 2


async def test_execute_is_refused_while_a_run_waits_for_a_retry(alice, receiver):
    receiver.then(503, headers={"Retry-After": "600"})
    task = await create(alice, receiver.url, scheduled_at="2020-01-01T00:00:00Z")
    await ended(alice, task)
    assert (await alice.post(f"/tasks/{task['id']}/execute")).status_code == 409


async def test_runs_may_overlap_where_the_task_allows_it(alice, receiver):
    hold = asyncio.Event()
    receiver.then(after=hold)
    task = await create(alice, receiver.url, overlap="allow")
    await execute(alice, task, "?async=true")
    await eventually(lambda: receiver.requests[0])

    assert (await execute(alice, task))["status"] == "success"
    hold.set()
    await ended(alice, task, 2)


async def test_runs_wait_in_line_where_the_task_says_queue(alice, receiver):
    hold = asyncio.Event()
    receiver.then(after=hold)
    task = await create(alice, receiver.url, overlap="queue")
    first = await execute(alice, task, "?async=true")
    second = await execute(alice, task, "?async=true")
    await eventually(lambda: receiver.requests[0])
    assert (await run_of(alice, second["id"]))["state"] == "scheduled"

    hold.set()

    records = await ended(alice, task, 2)
    assert [r["run_id"] for r in records] == [second["id"], first["id"]]


async def test_a_second_execute_with_the_same_key_is_the_same_run(alice, receiver):
    task = await create(alice, receiver.url)
    key = {"Idempotency-Key": "order-17"}

    first = await execute(alice, task, headers=key)
    second = await execute(alice, task, headers=key)
    third = await execute(alice, task, headers={"Idempotency-Key": "order-18"})

    assert first == second
    assert third["run_id"] != first["run_id"]
    assert len(receiver.requests) == 2


async def test_the_same_key_twice_at_once_is_one_run(alice, receiver):
    task = await create(alice, receiver.url, overlap="allow")
    key = {"Idempotency-Key": "x"}
    answers = await asyncio.gather(*(execute(alice, task, headers=key) for _ in range(5)))
    assert len({answer["run_id"] for answer in answers}) == 1
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("query", ["async=maybe", "retry=2"])
async def test_execute_takes_true_or_false(alice, query):
    task = await create(alice)
    answer = await alice.post(f"/tasks/{task['id']}/execute?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["field"] == query.split("=")[0]


async def test_an_execute_leaves_the_grid_alone(alice, receiver, conn):
    task = await create(
        alice, receiver.url, scheduled_at=text_of(at(0.4)), frequency=1, unit="hour"
    )
    before = await live(conn, task)
    await execute(alice, task)
    assert (await get(alice, task))["scheduled_at"] == task["scheduled_at"]
    assert [r["id"] for r in await live(conn, task)] == [r["id"] for r in before]


# Retries -----------------------------------------------------------------------------------------


async def test_a_failing_task_is_retried_with_the_same_key(alice, receiver):
    receiver.then(500, "one").then(503, "two").then(200, "three")
    task = await create(alice, receiver.url, scheduled_at="2020-01-01T00:00:00Z", **QUICK)

    await ended(alice, task, 3)

    assert len({r.header("Idempotency-Key") for r in receiver.requests}) == 1
    assert [r.header("X-Scheduler-Attempt") for r in receiver.requests] == ["1", "2", "3"]
    assert len({r.header("X-Scheduler-Scheduled-For") for r in receiver.requests}) == 1
    records = await ended(alice, task, 3)
    assert [(r["attempt"], r["status"], r["status_code"], r["response"]) for r in records] == [
        (3, "success", 200, "three"),
        (2, "failed", 503, "two"),
        (1, "failed", 500, "one"),
    ]
    assert len({r["run_id"] for r in records}) == 1
    assert len({r["id"] for r in records}) == 3


async def test_retries_end_after_the_number_in_the_settings(run_app, receiver):
    receiver.otherwise = receiver.otherwise.__class__(500)
    async with run_app(WORKER_MAX_RETRIES="2") as app, app.client("alice") as alice:
        task = await create(alice, receiver.url, scheduled_at="2020-01-01T00:00:00Z", **QUICK)
        records = await ended(alice, task, 3)

        async def check() -> None:
            assert (await get(alice, task))["state"] == "failed"

        await eventually(check)
        run = await run_of(alice, records[0]["run_id"])
        assert (run["state"], run["attempt"]) == ("failed", 3)
        assert "500" in run["reason"]


async def test_no_retries_where_the_task_wants_none(alice, receiver):
    receiver.then(500)
    task = await create(alice, receiver.url, scheduled_at="2020-01-01T00:00:00Z", max_retries=0)
    (record,) = await ended(alice, task)
    assert (await run_of(alice, record["run_id"]))["state"] == "failed"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 599])
async def test_these_statuses_are_tried_again(alice, receiver, status):
    receiver.then(status)
    task = await create(alice, receiver.url, scheduled_at="2020-01-01T00:00:00Z", **QUICK)
    assert [r["status_code"] for r in await ended(alice, task, 2)] == [200, status]


@pytest.mark.parametrize("status", [301, 400, 401, 404, 409, 410, 422])
async def test_these_statuses_are_final(alice, receiver, status):
    receiver.then(status)
    task = await create(alice, receiver.url, scheduled_at="2020-01-01T00:00:00Z", **QUICK)
    (record,) = await ended(alice, task)
    assert (await run_of(alice, record["run_id"]))["state"] == "failed"


async def test_a_lost_connection_is_tried_again(alice, receiver):
    receiver.then(drop=True)
    task = await create(alice, receiver.url, scheduled_at="2020-01-01T00:00:00Z", **QUICK)

    records = await ended(alice, task, 2)

    assert [r["status"] for r in records] == ["success", "failed"]
    assert records[1]["status_code"] is None and records[1]["error"]


async def test_retry_after_is_honoured(alice, receiver):
    receiver.then(429, headers={"Retry-After": "1"})
    task = await create(alice, receiver.url, scheduled_at="2020-01-01T00:00:00Z", **QUICK)

    await ended(alice, task, 2)

    first, second = receiver.requests
    assert 1 <= second.at - first.at < 4


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("600", 600, 600),
        ("999999999", 3600, 3600),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600, 3600),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0, 300),
        ("-5", 0, 300),
        ("soon", 0, 300),
    ],
)
async def test_retry_after_is_read_with_care(alice, receiver, value, least, most):
    receiver.then(503, headers={"Retry-After": value})
    # Full jitter takes any part of it: of a day it hardly takes what this test lasts.
    longest = 300 if least else 86_400
    backoff = {"initial_seconds": longest, "factor": 1, "max_seconds": longest}
    task = await create(
        alice, receiver.url, scheduled_at="2020-01-01T00:00:00Z", retry_backoff=backoff
    )
    (record,) = await ended(alice, task)
    if least:
        run = await run_of(alice, record["run_id"])
        wait = time_of(run["next_attempt_at"]) - time_of(record["finished_at"])
        slack = timedelta(seconds=0.1) if least == most else timedelta(0)
        assert timedelta(seconds=least) - slack <= wait <= timedelta(seconds=most) + slack
    else:
        assert (await get(alice, task))["state"] == "running"


async def test_an_egress_refusal_is_final_and_says_why(alice, app):
    task = await create(alice, app.url + "/health", scheduled_at="2020-01-01T00:00:00Z")
    (record,) = await ended(alice, task)
    assert record["status"] == "failed" and "egress" in record["error"]
    assert (await run_of(alice, record["run_id"]))["state"] == "failed"


# Executions --------------------------------------------------------------------------------------


async def test_an_execution_under_way_is_started(alice, receiver):
    hold = asyncio.Event()
    receiver.then(after=hold)
    task = await create(alice, receiver.url)
    await execute(alice, task, "?async=true")
    await eventually(lambda: receiver.requests[0])

    (record,) = (await executions(alice, task))["records"]

    assert set(record) == EXECUTION
    assert (record["status"], record["attempt"]) == ("started", 1)
    for field in ("status_code", "response", "error", "finished_at"):
        assert record[field] is None
    hold.set()
    (after,) = await ended(alice, task)
    assert after["id"] == record["id"] and after["run_id"] == record["run_id"]


async def test_executions_come_in_pages_the_newest_first(alice, receiver):
    task = await create(alice, receiver.url)
    made = [(await execute(alice, task))["id"] for _ in range(12)][::-1]

    async def page(query: str) -> tuple[int, int, int, list[str]]:
        found = await executions(alice, task, query)
        assert set(found) == {"total_count", "page_number", "count", "records"}
        ids = [record["id"] for record in found["records"]]
        return found["total_count"], found["page_number"], found["count"], ids

    assert await page("") == (12, 0, 10, made[:10])
    assert await page("?pageNumber=1") == (12, 1, 10, made[10:])
    assert await page("?pageNumber=1&count=5") == (12, 1, 5, made[5:10])
    assert await page("?pageNumber=0&count=1000") == (12, 0, 1000, made)
    assert await page("?pageNumber=7&count=10") == (12, 7, 10, [])
    for bad in ("-1", "x", "", "1.5", "9" * 40):
        assert await page(f"?pageNumber={bad}") == (12, 0, 10, made[:10])
        if bad != "1.5":
            assert await page(f"?count={bad}") == (12, 0, 10, made[:10])
    assert await page("?count=0") == (12, 0, 10, made[:10])


async def test_pages_may_cut_through_the_attempts_of_a_run(alice, receiver):
    task = await create(alice, receiver.url, max_retries=2, **QUICK)
    for _ in range(3):
        receiver.then(500).then(500)
        await execute(alice, task, "?retry=true")

    whole = (await executions(alice, task))["records"]
    assert [record["attempt"] for record in whole] == [3, 2, 1] * 3
    pages = [
        (await executions(alice, task, f"?pageNumber={n}&count=2"))["records"] for n in range(5)
    ]
    assert [record for page in pages for record in page] == whole


async def test_long_answers_are_cut(alice, receiver):
    receiver.then(500, b"x" * 5000).then(200, b"y" * 100_000)
    task = await create(alice, receiver.url, max_retries=1, **QUICK)

    record = await execute(alice, task, "?retry=true")

    assert record["response"] == "y" * 65_536
    records = (await executions(alice, task))["records"]
    assert [r["response"] for r in records] == ["y" * 65_536, "x" * 1024]
    run = await run_of(alice, record["run_id"])
    assert run["response"] == "y" * 65_536


async def test_bytes_that_are_not_text_are_replaced(alice, receiver):
    receiver.then(500, b"a\xff\x00b").then(200, b"\x00\xfe\xffz")
    task = await create(alice, receiver.url, max_retries=1, **QUICK)

    await execute(alice, task, "?retry=true")

    last, first = (await executions(alice, task))["records"]
    assert first["response"] in ("a\ufffd\ufffdb", "a\ufffd\x00b")
    assert last["response"] in ("\ufffd\ufffd\ufffdz", "\x00\ufffd\ufffdz")


async def test_an_answer_without_a_body_is_empty_text(alice, receiver):
    receiver.then(204, b"")
    record = await execute(alice, await create(alice, receiver.url))
    assert (record["status"], record["response"]) == ("success", "")


# Runs --------------------------------------------------------------------------------------------


async def test_a_run_is_shown_whole(alice, app, receiver):
    receiver.then(500, "no").then(200, "yes")
    task = await create(alice, receiver.url, scheduled_at="2020-01-01T00:00:00Z", **QUICK)
    records = await ended(alice, task, 2)

    run = await run_of(alice, records[0]["run_id"])

    assert set(run) >= RUN
    assert (run["service_id"], run["task_id"]) == (app.ids["alice"], task["id"])
    assert (run["kind"], run["trigger"], run["state"]) == ("task", "once", "succeeded")
    assert (run["reason"], run["attempt"], run["next_attempt_at"]) == (None, 2, None)
    assert run["response"] == "yes"
    started = time_of(run["started_at"])
    assert run["lag_ms"] == (started - time_of(run["scheduled_for"])) / timedelta(milliseconds=1)
    last = run["attempts"][-1]
    took = time_of(last["finished_at"]) - time_of(last["started_at"])
    assert run["duration_ms"] == took / timedelta(milliseconds=1)
    assert (run["attempts"][0]["started_at"], last["finished_at"]) == (
        run["started_at"], run["finished_at"],
    )  # fmt: skip
    attempt = {"number", "started_at", "finished_at", "outcome", "status_code", "error"}
    attempt |= {"response", "truncated", "connected_ms", "answered_ms", "new_connection"}
    attempt |= {"waited_ms"}
    assert [set(a) for a in run["attempts"]] == [attempt, attempt]
    assert [(a["number"], a["outcome"], a["status_code"]) for a in run["attempts"]] == [
        (1, "failed", 500),
        (2, "succeeded", 200),
    ]
    assert run["attempts"][0]["response"] == "no"


async def test_what_was_due_too_long_ago_expires(alice, receiver, conn):
    hold = asyncio.Event()
    receiver.then(after=hold)
    task = await create(alice, receiver.url, overlap="queue", max_age_seconds=0.1)
    await execute(alice, task, "?async=true")
    late = await execute(alice, task, "?async=true")
    await eventually(lambda: receiver.requests[0])
    await conn.execute("UPDATE run SET scheduled_for = scheduled_for - interval '1 second'")
    hold.set()

    async def check() -> None:
        run = await run_of(alice, late["id"])
        assert run["state"] == "expired" and run["reason"]
        assert run["attempts"] == []

    await eventually(check)
    assert len(receiver.requests) == 1


# Whose things they are ---------------------------------------------------------------------------


async def test_another_services_things_do_not_exist(alice, bob, receiver):
    task = await create(alice, receiver.url, id="hers")
    record = await execute(alice, task)

    for method, path in (
        ("GET", "/tasks/hers"),
        ("POST", "/tasks/hers"),
        ("PUT", "/tasks/hers"),
        ("PATCH", "/tasks/hers"),
        ("DELETE", "/tasks/hers"),
        ("GET", "/tasks/hers/executions"),
        ("POST", "/tasks/hers/execute"),
        ("POST", "/tasks/hers/execute?async=true"),
        ("GET", f"/runs/{record['run_id']}"),
    ):
        body = {"name": "x"} if method in ("POST", "PUT", "PATCH") else None
        his = await bob.request(method, path, json=body)
        unknown = await bob.request(method, path.replace("hers", "none"), json=body)
        assert his.status_code == 404, (method, path)
        assert his.json()["error"]["code"] == "not_found"
        if "runs" not in path:  # nothing tells a task of another from one that never was
            assert his.text.replace("hers", "none") == unknown.text

    assert (await bob.get("/tasks")).json() == []
    assert (await bob.get("/tasks")).headers["X-Total-Count"] == "0"
    assert await get(alice, task) == (await alice.get("/tasks")).json()[0]
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "task_id", ["none", str(UUID(int=4)), "a b", "%00", "%ff", "x" * 5000, "ä", "-", "'"]
)
async def test_an_unknown_task_is_not_found(alice, task_id):
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/executions")):
        answer = await alice.request(method, f"/tasks/{task_id}{path}", json={})
        assert answer.status_code == 404, answer.text
        assert answer.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("run_id", ["none", str(UUID(int=4)), str(UUID(int=0)), "%00", "1" * 32])
async def test_an_unknown_run_is_not_found(alice, run_id):
    answer = await alice.get(f"/runs/{run_id}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


# A row that someone damaged ----------------------------------------------------------------------


async def test_a_damaged_row_is_shown_and_can_be_mended(alice, conn, receiver):
    task = await create(alice, receiver.url, frequency=1, unit="hour")
    whole = await create(alice, receiver.url)
    await conn.execute(
        """UPDATE task SET trigger = '{"kind": "never"}' WHERE id = $1""", task["id"]
    )

    assert (await get(alice, task))["state"] == "failed"
    assert len((await alice.get("/tasks")).json()) == 2
    assert (await execute(alice, whole))["status"] == "success"

    mended = await change(alice, task, url=receiver.url, frequency=1, unit="hour")
    assert mended["state"] == "pending"
    assert (await execute(alice, task))["status"] == "success"


async def test_the_answer_of_a_manual_run_holds_no_secret(alice, receiver):
    secret = base64.b64encode(b"alice:secret").decode()
    task = await create(alice, receiver.url, header={"Authorization": f"Basic {secret}"})
    record = await alice.post(f"/tasks/{task['id']}/execute")
    run = await alice.get(f"/runs/{record.json()['run_id']}")
    assert secret not in record.text + run.text


async def test_two_replicas_share_the_work(alice, receiver: Receiver, replica, app: App):
    await replica()
    task = await create(alice, receiver.url, scheduled_at=soon(seconds=0.3))
    other = await create(alice, receiver.url, scheduled_at="2020-01-01T00:00:00Z")
    await ended(alice, task)
    await ended(alice, other)
    assert len(receiver.requests) == 2
