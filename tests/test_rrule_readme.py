"""What the README of the older RRULE scheduler shows, as its clients send it: without credentials.

Changed are hosts, and dates where an example has to fire.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from conftest import RunApp, eventually
from receiver import Answer
from scheduler import config
from test_cli import served

NEW = {
    "name": "Daily Backup",
    "rrule": "FREQ=DAILY;INTERVAL=1",
    "callback_url": "https://example.com/backup",
    "method": "POST",
    "headers": {"Authorization": "Bearer abc123", "Content-Type": "application/json"},
    "body": '{"task":"backup"}',
}
UPDATE = {
    "name": "Updated Daily Backup",
    "rrule": "FREQ=DAILY;INTERVAL=2",
    "callback_url": "https://example.com/new-backup",
    "method": "PUT",
    "headers": {"Authorization": "Bearer updated_token", "Content-Type": "application/json"},
    "body": '{"task":"updated-backup"}',
}
EVERY_SECOND = {**NEW, "rrule": "FREQ=SECONDLY"}


@pytest.fixture
async def client(run_app: RunApp) -> AsyncIterator[httpx.AsyncClient]:
    """One of its clients: it knows no credentials."""
    async with run_app(AUTH_ANONYMOUS_SERVICE="alice") as app, app.client() as anonymous:
        yield anonymous


async def created(client: httpx.AsyncClient, body: dict[str, Any]) -> str:
    answer = await client.post("/api/schedules", json=body)
    assert answer.status_code == 201, answer.text
    assert list(answer.json()) == ["id"]
    return str(answer.json()["id"])


# Schedules ---------------------------------------------------------------------------------------


async def test_the_examples_of_create_update_and_delete(client):
    made = await created(client, NEW)
    updated = await client.put(f"/api/schedules/{made}", json=UPDATE)
    assert (updated.status_code, updated.json()) == (
        200, {"message": "Schedule updated successfully."},
    )  # fmt: skip
    shown = (await client.get(f"/api/schedules/{made}")).json()
    assert {name: shown[name] for name in UPDATE} == {
        **UPDATE, "headers": {**UPDATE["headers"], "Authorization": "********"},
    }  # fmt: skip
    deleted = await client.delete(f"/api/schedules/{made}")
    assert (deleted.status_code, deleted.json()) == (
        200, {"message": "Schedule and associated events deleted."},
    )  # fmt: skip


async def test_the_daily_example_fires_each_day_at_the_time_it_was_created(client):
    made = await created(client, NEW)
    at = datetime.fromisoformat(
        (await client.get(f"/api/schedules/{made}")).json()["created_at"]
    ).replace(microsecond=0)
    found = (await client.get(f"/tasks/{made}/preview?count=3")).json()["occurrences"]
    times = [datetime.fromisoformat(each["at"]) for each in found]
    days = [times[0] + timedelta(days=n) for n in range(3)]
    assert times == days
    # To the second, and as much earlier as it took to judge the rule.
    assert timedelta(0) <= at + timedelta(days=1) - times[0] <= timedelta(seconds=10)


async def test_what_a_target_gets_is_what_the_examples_say(client, receiver):
    made = await created(client, {**NEW, "callback_url": f"{receiver.url}/backup"})
    assert (await client.post(f"/tasks/{made}/execute")).status_code == 200
    got = receiver.last
    assert (got.method, got.path, got.body) == ("POST", "/backup", b'{"task":"backup"}')
    assert got.header("Authorization") == "Bearer abc123"
    assert got.header("Content-Type") == "application/json"
    sent = {**UPDATE, "callback_url": f"{receiver.url}/new-backup"}
    assert (await client.put(f"/api/schedules/{made}", json=sent)).status_code == 200
    assert (await client.post(f"/tasks/{made}/execute")).status_code == 200
    got = receiver.last
    assert (got.method, got.path, got.body) == (
        "PUT", "/new-backup", b'{"task":"updated-backup"}',
    )  # fmt: skip
    assert got.header("Authorization") == "Bearer updated_token"


# Events ------------------------------------------------------------------------------------------


def named(event: dict[str, Any]) -> list[str]:
    assert list(event) == ["_id", "schedule_id", "run_time", "status", "created_at"]
    assert all(list(each) == ["time", "status", "message"] for each in event["status"])
    return [each["status"] for each in event["status"]]


async def test_the_examples_of_pending_and_past_events(client, receiver):
    made = await created(client, {**EVERY_SECOND, "callback_url": f"{receiver.url}/backup"})
    answer = await client.get(f"/api/schedules/{made}/events/pending?limit=5&page=1")
    found = answer.json()
    assert (answer.status_code, found["page"], found["limit"]) == (200, 1, 5)
    assert len(found["events"]) == 5 and found["total"] > 590
    assert {each["schedule_id"] for each in found["events"]} == {made}
    first = found["events"][0]
    assert named(first) == ["ready_queue"]
    assert first["status"][0]["message"] == "Event pre-queued for ready queue"

    async def ended() -> dict[str, Any]:
        answer = await client.get(f"/api/schedules/{made}/events/history?limit=5&page=1")
        assert (answer.status_code, answer.json()["page"], answer.json()["limit"]) == (200, 1, 5)
        return {each["_id"]: each for each in answer.json()["events"]}[first["_id"]]

    event = await eventually(ended)
    assert named(event) == ["ready_queue", "worker_queue", "completed"]
    assert event["status"][-1]["message"] == "Event successfully processed"
    assert event["run_time"] == first["run_time"]
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    checked = (await client.get("/runs/verify", params={"to": now})).json()
    assert checked["missing"] == checked["doubled"] == []


async def test_a_callback_that_keeps_failing_ends_as_error(run_app: RunApp, receiver):
    more = {"AUTH_ANONYMOUS_SERVICE": "alice", "WORKER_MAX_RETRIES": "1"}
    async with run_app(**more) as app, app.client() as client:
        receiver.otherwise = Answer(status=500)
        made = await created(client, {**EVERY_SECOND, "callback_url": receiver.url})

        async def ended() -> dict[str, Any]:
            answer = await client.get(f"/api/schedules/{made}/events/history?limit=5&page=1")
            return dict(answer.json()["events"][0])

        event = await eventually(ended, within=10)
    assert named(event) == ["ready_queue", "worker_queue", "error"]
    assert event["status"][-1]["message"].startswith("Callback failed after max retries: ")
    tried = [each.header("webhook-id") for each in receiver.requests]
    assert tried.count(event["_id"]) == 2


# Rules -------------------------------------------------------------------------------------------

RULES = [
    ("DTSTART:20250101T083000Z\nRRULE:FREQ=DAILY;INTERVAL=1",
     ["2025-01-01T08:30", "2025-01-02T08:30", "2025-01-03T08:30"]),
    ("DTSTART:20250101T151500Z\nRRULE:FREQ=WEEKLY;INTERVAL=1;BYDAY=MO,WE,FR",
     ["2025-01-01T15:15", "2025-01-03T15:15", "2025-01-06T15:15"]),
    ("DTSTART:20250101T100000Z\nRRULE:FREQ=MONTHLY;INTERVAL=1;BYMONTHDAY=1,15",
     ["2025-01-01T10:00", "2025-01-15T10:00", "2025-02-01T10:00", "2025-02-15T10:00"]),
    ("DTSTART:20250101T070000Z\nRRULE:FREQ=YEARLY;BYMONTH=12;BYMONTHDAY=25",
     ["2025-12-25T07:00", "2026-12-25T07:00"]),
    ("DTSTART:20250101T184500Z\nRRULE:FREQ=DAILY;INTERVAL=1;COUNT=5",
     [f"2025-01-0{n}T18:45" for n in range(1, 6)]),
    ("DTSTART:20250101T170000Z\nRRULE:FREQ=DAILY;UNTIL=20250110T170000Z",
     [f"2025-01-{n:02}T17:00" for n in range(1, 11)]),
    ("DTSTART:20250101T020000Z\nRRULE:FREQ=HOURLY;INTERVAL=3",
     [f"2025-01-01T{n:02}:00" for n in (2, 5, 8, 11)]),
    ("DTSTART:20250101T233000Z\nRRULE:FREQ=MONTHLY;BYDAY=MO;BYSETPOS=2",
     ["2025-01-13T23:30", "2025-02-10T23:30", "2025-03-10T23:30"]),
]  # fmt: skip
ENDS = {4, 5}
"""Of these the list is all there is."""


async def test_every_rule_yields_what_its_description_says(client):
    for n, (rule, wanted) in enumerate(RULES):
        made = await created(client, {**NEW, "rrule": rule})
        assert (await client.get(f"/api/schedules/{made}")).json()["rrule"] == rule
        query = {"from": "2024-12-31T23:59:59Z", "count": len(wanted) + (n in ENDS)}
        found = (await client.get(f"/tasks/{made}/preview", params=query)).json()["occurrences"]
        assert [each["at"] for each in found] == [f"{at}:00.000Z" for at in wanted]
        page = (await client.get(f"/api/schedules/{made}/events/history")).json()
        assert page["total"] == 0  # what lies before its creation is never due


# Settings ----------------------------------------------------------------------------------------

FILE = """
mongo:
  uri: "mongodb://localhost:27017"
  database: "schedulerdb"

redis:
  host: "localhost"
  port: 6379

prequeuer:
  ticker_interval_seconds: 20
  event_timeframe_minutes: 10

worker:
  count: 5
  max_retries: 3

log:
  level: "info"
"""
ENVIRONMENT = {
    "MONGO_URI": "mongodb://localhost:27017",
    "MONGO_DATABASE": "schedulerdb",
    "REDIS_HOST": "localhost",
    "REDIS_PORT": "6379",
    "PREQUEUER_TICKER_INTERVAL_SECONDS": "20",
    "PREQUEUER_EVENT_TIMEFRAME_MINUTES": "10",
    "WORKER_COUNT": "5",
    "WORKER_MAX_RETRIES": "3",
    "LOG_LEVEL": "info",
}
FLAGS = [
    "--prequeuer-ticker-seconds=20",
    "--prequeuer-timeframe-minutes=10",
    "--log-level=info",
    "--worker-count=5",
    "--worker-max-retries=3",
]


def in_force(settings: config.Settings) -> tuple[float, int, int, int, str]:
    prequeuer, worker = settings.prequeuer, settings.worker
    return (
        prequeuer.ticker_interval_seconds,
        prequeuer.event_timeframe_minutes,
        worker.count,
        worker.max_retries,
        settings.log.level,
    )


def test_its_environment_sets_the_same_here(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert in_force(config.load(environ=ENVIRONMENT)) == (20, 10, 5, 3, "info")
    said = "".join(capsys.readouterr())
    assert all(said.count(name) == 1 for name in ENVIRONMENT if name.startswith(("MONGO", "REDIS")))


def test_its_file_sets_the_same_here(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(FILE)
    assert in_force(config.load(environ={})) == (20, 10, 5, 3, "info")
    said = "".join(capsys.readouterr())
    assert "mongo" in said and "redis" in said


def test_its_file_its_flags_and_its_pages_work(database_url, tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(FILE)
    more = {
        "DATABASE_URL": database_url, "DATA_DIR": str(tmp_path),
        "AUTH_ANONYMOUS_SERVICE": "default",
    }  # fmt: skip
    with served(tmp_path, *FLAGS, "--port", "0", **more) as (url, _):
        answer = httpx.post(f"{url}/api/schedules", json=NEW, trust_env=False)
        assert answer.status_code == 201, answer.text
        for path in ("/swagger-ui", "/docs/openapi.yml"):
            assert httpx.get(f"{url}{path}", trust_env=False).status_code == 200
