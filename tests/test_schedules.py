"""`/api/schedules`: the face, its events, and that they are the same rows as tasks and runs."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from conftest import RunApp, eventually
from receiver import Answer
from scheduler.clock import Slice
from scheduler.schedules import events
from scheduler.schedules.events import Ahead
from scheduler.triggers import Interval

READY = ("ready_queue", "Event pre-queued for ready queue")
WORKER = ("worker_queue", "Event dispatched to worker queue")
COMPLETED = ("completed", "Event successfully processed")
EVERY_SECOND = "FREQ=SECONDLY"
MONTHLY = "FREQ=MONTHLY;BYMONTHDAY=1"
FIELDS = {
    "id", "name", "rrule", "callback_url", "method", "headers", "body", "status", "created_at",
    "updated_at",
}  # fmt: skip


def schedule(url: str, rrule: str = MONTHLY, **more: Any) -> dict[str, Any]:
    return {"name": "Backup", "rrule": rrule, "callback_url": url, **more}


async def created(client: Any, body: dict[str, Any]) -> str:
    answer = await client.post("/api/schedules", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.json().keys() == {"id"}
    return str(answer.json()["id"])


async def listed(client: Any, schedule_id: str, which: str, **query: Any) -> dict[str, Any]:
    answer = await client.get(f"/api/schedules/{schedule_id}/events/{which}", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.json().keys() == {"events", "page", "limit", "total"}
    return answer.json()


def words(event: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["status"], each["message"]) for each in event["status"]]


def refused(answer: Any, *fields: str) -> str:
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["code"] == "validation_failed"
    assert [each["field"] for each in error["details"]] == list(fields)
    return " ".join(each["message"] for each in error["details"])


def at(text: str) -> datetime:
    assert text.endswith("Z") and len(text) == 24, text
    return datetime.fromisoformat(text)


def text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# The schedule ------------------------------------------------------------------------------------


async def test_a_schedule_is_created_read_changed_and_deleted(alice, receiver):
    headers = {"Authorization": "Bearer abc123", "Content-Type": "application/json"}
    made = await created(
        alice, schedule(receiver.url, "FREQ=DAILY;INTERVAL=1", headers=headers, body='{"a":"b"}')
    )
    shown = (await alice.get(f"/api/schedules/{made}")).json()
    assert shown.keys() == FIELDS
    assert at(shown["created_at"]) == at(shown["updated_at"])
    assert {k: v for k, v in shown.items() if not k.endswith("_at")} == {
        "id": made, "name": "Backup", "rrule": "FREQ=DAILY;INTERVAL=1",
        "callback_url": receiver.url, "method": "POST", "body": '{"a":"b"}', "status": "active",
        "headers": {**headers, "Authorization": "********"},
    }  # fmt: skip

    changed = await alice.put(f"/api/schedules/{made}", json={"name": "Other", "method": "PUT"})
    assert (changed.status_code, changed.json()) == (
        200, {"message": "Schedule updated successfully."},
    )  # fmt: skip
    after = (await alice.get(f"/api/schedules/{made}")).json()
    assert {k for k in FIELDS if after[k] != shown[k]} == {"name", "method", "updated_at"}

    gone = await alice.delete(f"/api/schedules/{made}")
    assert (gone.status_code, gone.json()) == (
        200, {"message": "Schedule and associated events deleted."},
    )  # fmt: skip
    for path in ("", "/events/pending", "/events/history"):
        assert (await alice.get(f"/api/schedules/{made}{path}")).status_code == 404


async def test_what_get_answers_can_be_sent_back_and_changes_nothing(alice, receiver):
    made = await created(
        alice, schedule(receiver.url, headers={"X-Token": "sesame", "X-A": "b"}, body={"n": 1})
    )
    task = (await alice.get(f"/tasks/{made}")).json()
    for method in ("PUT", "PATCH"):
        shown = (await alice.get(f"/api/schedules/{made}")).json()
        assert shown["headers"]["X-Token"] == "********"
        answer = await alice.request(method, f"/api/schedules/{made}", json=shown)
        assert answer.status_code == 200, answer.text
    after = (await alice.get(f"/tasks/{made}")).json()
    assert {k for k in task if after[k] != task[k]} == {"updated_at"}
    await alice.post(f"/tasks/{made}/execute")
    assert receiver.last.header("X-Token") == "sesame"
    assert receiver.last.header("Content-Type") == "application/json"
    assert json.loads(receiver.last.body) == {"n": 1}


async def test_an_event_that_was_made_after_its_time_came_into_sight_then(alice, receiver, conn):
    receiver.then(503)
    since = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=36)
    rule = f"DTSTART:20200101T{since:%H}0000Z\nRRULE:FREQ=DAILY"
    made = await created(alice, schedule(receiver.url, rule))
    await alice.patch(f"/tasks/{made}", json={"retry_backoff": {"initial_seconds": 0}})
    await conn.execute("UPDATE task SET created_at = created_at - interval '9 days'")
    times = {"from": since.isoformat(), "to": (since + timedelta(hours=1)).isoformat()}
    assert (await alice.post(f"/tasks/{made}/backfill", json=times)).json()["made"] == 1
    event = await eventually(lambda: _ended_event(alice, made))
    (run,) = (await alice.get(f"/runs?task={made}&state=succeeded")).json()["runs"]
    assert event["created_at"] == event["status"][0]["time"] == run["created_at"]


async def _ended_event(client: Any, made: str) -> Any:
    found = (await listed(client, made, "history"))["events"]
    assert len(found) == 1
    return found[0]


async def test_headers_may_be_an_object_or_a_list_of_pairs(alice, receiver):
    pairs = [{"key": "X-A", "value": "b"}, {"key": "Authorization", "value": "Bearer abc123"}]
    made = await created(alice, schedule(receiver.url, headers=pairs))
    shown = (await alice.get(f"/api/schedules/{made}")).json()
    assert shown["headers"] == {"X-A": "b", "Authorization": "********"}
    pairs[0]["value"], pairs[1]["value"] = "c", "********"
    answer = await alice.put(f"/api/schedules/{made}", json={"headers": pairs})
    assert answer.status_code == 200, answer.text
    await alice.post(f"/tasks/{made}/execute")
    assert (receiver.last.header("X-A"), receiver.last.header("Authorization")) == (
        "c", "Bearer abc123",
    )  # fmt: skip
    for nothing in ([], None):
        await alice.put(f"/api/schedules/{made}", json={"headers": nothing})
        assert (await alice.get(f"/api/schedules/{made}")).json()["headers"] == {}


async def test_a_missing_field_is_named_and_nothing_is_made(alice, receiver):
    refused(await alice.post("/api/schedules", json={}), "name", "rrule", "callback_url")
    body = schedule(receiver.url)
    for name in ("name", "rrule", "callback_url"):
        for empty in (None, "", "  "):
            said = refused(await alice.post("/api/schedules", json={**body, name: empty}), name)
            assert "is needed" in said
        del_one = {k: v for k, v in body.items() if k != name}
        refused(await alice.post("/api/schedules", json=del_one), name)
    assert (await alice.get("/api/schedules")).json()["total"] == 0


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"callback_url": "ftp://x"}, "callback_url", "http"),
    ({"callback_url": 5}, "callback_url", "Expected `str | null`"),
    ({"method": "FETCH"}, "method", "must be one of GET"),
    ({"headers": {"A\n": "b"}}, "headers.A\n", ""),
    ({"headers": {"A": 1}}, "headers.A", "must be a string"),
    ({"headers": {"Authorization": "********"}}, "headers.Authorization", "no stored value"),
    ({"headers": "A: b"}, "headers", "Expected"),
    ({"body": 5}, "body", "must be a text"),
    ({"body": "x" * 300_000}, "body", "at most"),
    ({"name": "n" * 201}, "name", "200"),
    ({"status": "asleep"}, "status", "must be active"),
    ({"url": "http://x"}, "url", "calls it callback_url"),
    ({"payload": "x"}, "payload", "calls it body"),
    ({"max_retries": 1}, "max_retries", "PATCH /tasks/{id}"),
    ({"cron": "* * * * *"}, "cron", "PATCH /tasks/{id}"),
    ({"callback_uri": "http://x"}, "callback_uri", "did you mean callback_url?"),
]


async def test_a_wrong_field_is_named_as_this_face_calls_it(alice, receiver):
    body = schedule(receiver.url)
    made = await created(alice, body)
    for wrong, field, said in WRONG:
        assert said in refused(await alice.post("/api/schedules", json={**body, **wrong}), field)
        assert said in refused(await alice.put(f"/api/schedules/{made}", json=wrong), field)


async def test_an_update_takes_nothing_away_that_a_schedule_needs(alice, receiver):
    made = await created(alice, schedule(receiver.url))
    for name in ("name", "rrule", "callback_url"):
        for empty in (None, ""):
            refused(await alice.put(f"/api/schedules/{made}", json={name: empty}), name)
    sent = {"headers": None, "body": None, "method": None}
    assert (await alice.put(f"/api/schedules/{made}", json=sent)).status_code == 200
    shown = (await alice.get(f"/api/schedules/{made}")).json()
    assert (shown["headers"], shown["body"], shown["method"]) == ({}, None, "POST")


async def test_a_body_that_is_none_is_refused(alice):
    for body in (b"", b"[]", b"null", b"{", b'"x"', b"\xff"):
        assert (await alice.post("/api/schedules", content=body)).status_code == 400


async def test_the_others_see_nothing_of_a_schedule(alice, bob, receiver):
    made = await created(alice, schedule(receiver.url))
    assert (await bob.get("/api/schedules")).json()["total"] == 0
    for method, path in [
        ("GET", ""), ("PUT", ""), ("DELETE", ""), ("GET", "/events/pending"),
        ("GET", "/events/history"),
    ]:  # fmt: skip
        answer = await bob.request(
            method, f"/api/schedules/{made}{path}", json={} if method == "PUT" else None
        )
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"
    assert (await alice.get(f"/api/schedules/{made}")).status_code == 200


async def test_a_task_with_another_trigger_is_no_schedule(alice, receiver):
    task = {"id": "cron", "name": "x", "url": receiver.url, "cron": "0 0 1 1 *"}
    assert (await alice.post("/tasks", json=task)).status_code == 201
    for method, path in [("GET", ""), ("PUT", ""), ("DELETE", ""), ("GET", "/events/pending")]:
        body = {"name": "y"} if method == "PUT" else None
        answer = await alice.request(method, f"/api/schedules/cron{path}", json=body)
        assert answer.status_code == 404
    assert (await alice.get("/tasks/cron")).json()["name"] == "x"


async def test_schedules_and_tasks_are_the_same_rows(alice, receiver):
    made = await created(alice, schedule(receiver.url, timezone="Europe/Berlin"))
    task = (await alice.get(f"/tasks/{made}")).json()
    assert (task["rrule"], task["timezone"]) == (MONTHLY, "Europe/Berlin")
    assert (task["url"], task["method"], task["overlap"]) == (receiver.url, "POST", "allow")
    assert [each["id"] for each in (await alice.get("/tasks?trigger=rrule")).json()] == [made]
    other = {"id": "mine", "name": "x", "url": receiver.url, "rrule": MONTHLY}
    assert (await alice.post("/tasks", json=other)).status_code == 201
    page = (await alice.get("/api/schedules")).json()
    assert [each["id"] for each in page["schedules"]] == ["mine", made]
    assert page["schedules"][0]["method"] == "GET"
    assert (await alice.patch("/tasks/mine", json={"status": "paused"})).status_code == 200
    assert (await alice.get("/api/schedules/mine")).json()["status"] == "paused"


async def test_schedules_are_listed_the_newest_first_in_pages(alice, receiver):
    made = [await created(alice, schedule(receiver.url)) for _ in range(12)][::-1]
    first = (await alice.get("/api/schedules")).json()
    assert first.keys() == {"schedules", "page", "limit", "total"}
    assert [each["id"] for each in first["schedules"]] == made[:10]
    assert all(each.keys() == FIELDS for each in first["schedules"])
    assert (first["page"], first["limit"], first["total"]) == (1, 10, 12)
    last = (await alice.get("/api/schedules?page=3&limit=5")).json()
    assert [each["id"] for each in last["schedules"]] == made[10:]
    assert (last["page"], last["limit"], last["total"]) == (3, 5, 12)
    beyond = (await alice.get("/api/schedules?page=4&limit=5")).json()
    assert (beyond["schedules"], beyond["total"]) == ([], 12)


async def test_a_bad_page_is_1_and_a_bad_limit_10(alice, receiver):
    made = await created(alice, schedule(receiver.url))
    for path in ("", f"/{made}/events/pending", f"/{made}/events/history"):
        for bad in ("0", "-1", "x", "1.5", "", "²", " 3"):
            found = await alice.get(f"/api/schedules{path}", params={"page": bad, "limit": bad})
            assert (found.json()["page"], found.json()["limit"]) == (1, 10)
        found = await alice.get(f"/api/schedules{path}?limit=5000&page=99999999999999999999999")
        assert found.status_code == 200
        assert found.json()["limit"] == 1000


# Events ------------------------------------------------------------------------------------------


async def test_an_event_grows_from_ready_to_completed(alice, receiver):
    made = await created(alice, schedule(receiver.url, EVERY_SECOND, body="hello"))
    before = (await listed(alice, made, "pending", limit=3))["events"][-1]  # of a time to come
    assert words(before) == [READY]

    async def ended() -> dict[str, Any]:
        found = (await listed(alice, made, "history"))["events"]
        return {each["_id"]: each for each in found}[before["_id"]]

    event = await eventually(ended)
    assert event.keys() == {"_id", "schedule_id", "run_time", "status", "created_at"}
    assert words(event) == [READY, WORKER, COMPLETED]
    assert event["status"][0] == before["status"][0]
    assert {k: event[k] for k in ("_id", "schedule_id", "run_time", "created_at")} == {
        k: before[k] for k in ("_id", "schedule_id", "run_time", "created_at")
    }
    assert event["schedule_id"] == made
    times = [at(each["time"]) for each in event["status"]]
    assert times == sorted(times) and times[1] >= at(event["run_time"])
    assert (receiver.last.method, receiver.last.body) == ("POST", b"hello")
    run = (await alice.get(f"/runs/{event['_id']}")).json()
    assert (run["state"], run["task_id"], run["trigger"]) == ("succeeded", made, "rrule")
    assert run["scheduled_for"] == event["run_time"]
    assert [run["started_at"], run["finished_at"]] == [e["time"] for e in event["status"][1:]]


async def test_an_event_under_way_is_pending_and_dispatched(alice, receiver):
    until = asyncio.Event()
    receiver.then(after=until)
    made = await created(alice, schedule(receiver.url))
    run = (await alice.post(f"/tasks/{made}/execute?async=true")).json()["id"]
    await eventually(lambda: receiver.requests[0])
    found = await listed(alice, made, "pending")
    assert (found["events"][0]["_id"], words(found["events"][0])) == (run, [READY, WORKER])
    assert (await listed(alice, made, "history"))["total"] == 0
    until.set()


async def test_an_event_that_fails_for_good_says_why(run_app: RunApp, receiver):
    receiver.otherwise = Answer(status=503)
    async with run_app(WORKER_MAX_RETRIES="0") as app, app.client("alice") as alice:
        made = await created(alice, schedule(receiver.url))
        await alice.post(f"/tasks/{made}/execute")
        (event,) = (await listed(alice, made, "history"))["events"]
    why = "Callback failed after max retries: the target answered 503, expected 200-299"
    assert words(event) == [READY, WORKER, ("error", why)]


async def test_an_event_that_waits_for_a_retry_is_dispatched_and_pending(alice, receiver):
    receiver.otherwise = Answer(status=503)
    made = await created(alice, schedule(receiver.url))
    backoff = {"retry_backoff": {"initial_seconds": 3600, "factor": 1, "max_seconds": 3600}}
    assert (await alice.patch(f"/tasks/{made}", json=backoff)).status_code == 200
    run = (await alice.post(f"/tasks/{made}/execute?async=true&retry=true")).json()["id"]

    async def retrying() -> Any:
        found = (await alice.get(f"/runs/{run}")).json()
        assert found["state"] == "retrying"
        return found

    attempt = (await eventually(retrying))["attempts"][0]
    (event,) = (await listed(alice, made, "pending"))["events"]
    assert (event["_id"], words(event)) == (run, [READY, WORKER])
    assert event["status"][1]["time"] == attempt["started_at"]
    assert (await alice.post(f"/runs/{run}/cancel")).status_code == 200
    assert (await listed(alice, made, "pending"))["total"] == 0
    (event,) = (await listed(alice, made, "history"))["events"]
    assert words(event) == [READY, WORKER, ("cancelled", "someone cancelled it")]


async def test_a_pending_event_that_is_cancelled_is_in_history_and_stays_away(alice, receiver):
    soon = datetime.now(UTC) + timedelta(seconds=40)
    rule = f"DTSTART:{soon:%Y%m%dT%H%M%SZ}\nRRULE:FREQ=MINUTELY"
    made = await created(alice, schedule(receiver.url, rule))
    before = await listed(alice, made, "pending", limit=100)
    assert before["total"] == len(before["events"]) == 10
    first = before["events"][0]
    assert (await alice.post(f"/runs/{first['_id']}/cancel")).status_code == 200
    after = await listed(alice, made, "pending", limit=100)
    assert after["events"] == before["events"][1:]
    assert after["total"] == 9
    (event,) = (await listed(alice, made, "history"))["events"]
    assert words(event) == [READY, ("cancelled", "someone cancelled it")]
    assert (event["_id"], event["run_time"]) == (first["_id"], first["run_time"])


async def three_due(alice: Any, made: str) -> None:
    runs = (await alice.get(f"/runs?task={made}&to={text(datetime.now(UTC))}")).json()["runs"]
    assert len(runs) > 2


async def test_an_event_that_meets_another_is_skipped_with_the_reason(alice, receiver):
    until = asyncio.Event()
    receiver.then(after=until)
    made = await created(alice, schedule(receiver.url, EVERY_SECOND))
    assert (await alice.patch(f"/tasks/{made}", json={"overlap": "skip"})).status_code == 200
    await eventually(lambda: three_due(alice, made))
    until.set()

    async def skipped() -> Any:
        found = (await listed(alice, made, "history"))["events"]
        return {each["status"][-1]["status"]: each for each in found}["skipped"]

    event = await eventually(skipped)
    assert words(event)[:-1] == [READY]
    assert event["status"][-1]["message"].startswith("overlap")
    state = (await alice.get(f"/runs/{event['_id']}")).json()
    assert (state["state"], state["reason"]) == ("skipped", "overlap")


async def test_a_gap_is_one_event_that_says_how_many(alice, receiver, conn):
    since = datetime.now(UTC) - timedelta(hours=2)
    rule = f"DTSTART:{since:%Y%m%dT%H%M%SZ}\nRRULE:FREQ=SECONDLY;INTERVAL=10;COUNT=10000"
    made = await created(alice, schedule(receiver.url, rule))
    key = await conn.fetchval("SELECT key FROM task WHERE id = $1", made)
    assert (await alice.put(f"/api/schedules/{made}", json={"status": "paused"})).status_code == 200
    move = "UPDATE task_plan SET planned_until = now() - interval '1 hour' WHERE key = $1"
    await conn.execute(move, key)
    assert (await alice.put(f"/api/schedules/{made}", json={"status": "active"})).status_code == 200

    async def gap() -> Any:
        return (await alice.get(f"/runs?task={made}&reason=paused")).json()["runs"][0]

    run = await eventually(gap)
    found = (await listed(alice, made, "history", limit=100))["events"]
    event = {each["_id"]: each for each in found}[run["id"]]
    said = f"paused: {run['count']} events, from {run['from']} to {run['to']}"
    assert words(event) == [READY, ("skipped", said)]
    assert run["count"] in (360, 361)
    assert sum(each["_id"] == run["id"] for each in found) == 1


async def test_what_waited_too_long_is_expired(alice, receiver, conn):
    until = asyncio.Event()
    receiver.then(after=until)
    made = await created(alice, schedule(receiver.url, EVERY_SECOND))
    late = {"overlap": "queue", "max_age_seconds": 0.5}
    assert (await alice.patch(f"/tasks/{made}", json=late)).status_code == 200
    await eventually(lambda: three_due(alice, made))
    until.set()

    async def expired() -> Any:
        found = (await listed(alice, made, "history", limit=100))["events"]
        return {each["status"][-1]["status"]: each for each in found}["expired"]

    event = await eventually(expired)
    run = (await alice.get(f"/runs/{event['_id']}")).json()
    assert words(event) == [READY, ("expired", run["reason"])]


async def test_history_is_paged_the_newest_first_and_whole(alice, receiver):
    made = await created(alice, schedule(receiver.url))
    for _ in range(7):
        await alice.post(f"/tasks/{made}/execute")
    whole = (await listed(alice, made, "history"))["events"]
    times = [at(each["run_time"]) for each in whole]
    assert times == sorted(times, reverse=True)
    pages = [await listed(alice, made, "history", limit=3, page=n) for n in (1, 2, 3, 4)]
    assert [(each["page"], each["limit"], each["total"]) for each in pages] == [
        (n, 3, 7) for n in (1, 2, 3, 4)
    ]
    assert [each for page in pages for each in page["events"]] == whole
    assert [each["_id"] for each in whole] == [
        run["id"] for run in (await alice.get(f"/runs?task={made}&state=succeeded")).json()["runs"]
    ]


# What is to come ---------------------------------------------------------------------------------


async def test_all_events_of_the_timeframe_are_pending_queued_or_not(run_app: RunApp, receiver):
    async with run_app(PREQUEUER_EVENT_TIMEFRAME_MINUTES="3") as app, app.client("alice") as alice:
        second = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=19)
        rule = f"DTSTART:{second:%Y%m%dT%H%M%SZ}\nRRULE:FREQ=SECONDLY;INTERVAL=7"
        made = await created(alice, schedule(receiver.url, rule))
        asked = datetime.now(UTC)
        found = await listed(alice, made, "pending", limit=1000)
        times = [at(each["run_time"]) for each in found["events"]]
        count = int((asked + timedelta(minutes=3) - second).total_seconds() // 7) + 1
        assert times[:count] == [second + timedelta(seconds=7 * n) for n in range(count)]
        assert len(times) == found["total"] <= count + 1
        queued = (await alice.get(f"/runs?task={made}&state=scheduled&limit=1000")).json()["runs"]
        assert len(queued) < 60 < 3 * count  # the others have no row yet
        live = {run["id"] for run in queued}
        assert [each["_id"] in live for each in found["events"]] == [
            n < len(live) for n in range(len(times))
        ]
        again = await listed(alice, made, "pending", limit=1000)
        assert again["events"][: len(times)] == found["events"]
        assert all(words(each) == [READY] for each in found["events"])
        made_at = (await alice.get(f"/api/schedules/{made}")).json()["created_at"]
        assert {each["created_at"] for each in found["events"]} >= {made_at}
        pages = [
            (await listed(alice, made, "pending", limit=7, page=n))["events"] for n in range(1, 6)
        ]
        paged = [each for page in pages for each in page]
        assert paged[: len(times)] == again["events"][: len(times)]  # another may be in sight


async def test_an_extra_run_stands_at_its_time_among_those_to_come(alice, receiver):
    first = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=90)
    rule = f"DTSTART:{first:%Y%m%dT%H%M%SZ}\nRRULE:FREQ=MINUTELY"
    made = await created(alice, schedule(receiver.url, rule))
    extra = [first + timedelta(minutes=n, seconds=30) for n in (1, 2, 2.5, 60, 61)]
    for moment in extra:
        answer = await alice.post(f"/tasks/{made}/schedule", json={"scheduled_at": text(moment)})
        assert answer.status_code == 200
    whole = await listed(alice, made, "pending", limit=100)
    times = [at(each["run_time"]) for each in whole["events"]]
    assert times == sorted(times)
    assert times == sorted([*extra, *(first + timedelta(minutes=n) for n in range(9))])
    assert whole["total"] == 14
    for limit in (1, 2, 4, 7):
        pages = [
            (await listed(alice, made, "pending", limit=limit, page=n + 1))["events"]
            for n in range(-(-14 // limit) + 1)
        ]
        assert [each for page in pages for each in page] == whole["events"]


BOUNDS: list[tuple[dict[str, Any], range]] = [
    ({}, range(1, 11)),
    ({"max_runs": 3}, range(1, 4)),
    ({"end_at": 250}, range(1, 5)),
    ({"start_at": 400}, range(7, 11)),
    ({"status": "paused"}, range(0)),
    ({"paused_until": 400}, range(7, 11)),
    ({"paused_until": 400, "max_runs": 8}, range(7, 9)),
    ({"paused_until": 3600}, range(0)),
    ({"status": "disabled"}, range(0)),
]
"""What is changed, times in seconds; and which minutes, from 1, have an event then."""


async def test_what_is_to_come_follows_bounds_and_pauses(alice, receiver):
    first = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=55)
    rule = f"DTSTART:{first:%Y%m%dT%H%M%SZ}\nRRULE:FREQ=MINUTELY"
    times = {"end_at", "start_at", "paused_until"}
    for change, minutes in BOUNDS:
        made = await created(alice, schedule(receiver.url, rule))
        sent = {
            k: text(first + timedelta(seconds=v - 60)) if k in times else v
            for k, v in change.items()
        }
        answer = await alice.patch(f"/tasks/{made}", json=sent)
        assert answer.status_code == 200, answer.text
        found = await listed(alice, made, "pending", limit=100)
        found_at = [at(each["run_time"]) for each in found["events"]]
        wanted = [first + timedelta(minutes=n - 1) for n in minutes]
        # The eleventh comes into sight while this goes on.
        assert found_at[: len(wanted)] == wanted, change
        assert found["total"] == len(found_at) <= len(wanted) + (10 in minutes)


async def test_an_edit_moves_what_is_to_come_and_keeps_what_ran(alice, receiver):
    made = await created(alice, schedule(receiver.url, EVERY_SECOND))

    async def ran() -> Any:
        return (await listed(alice, made, "history"))["events"][0]

    event = await eventually(ran)
    assert (await listed(alice, made, "pending"))["total"] > 590
    answer = await alice.put(f"/api/schedules/{made}", json={"rrule": MONTHLY})
    assert answer.status_code == 200

    async def quiet() -> None:
        assert (await listed(alice, made, "pending"))["total"] == 0

    await eventually(quiet)
    found = (await listed(alice, made, "history", limit=100))["events"]
    assert event in found
    assert (await alice.delete(f"/api/schedules/{made}")).status_code == 200
    assert (await alice.get(f"/runs/{event['_id']}")).json()["state"] == "succeeded"


SECONDS = Interval(1, "second", 0)


async def page(until: int, first: int, count: int) -> tuple[list[int], int]:
    return await Ahead(SECONDS, 0, until).page(first, count, Slice())


async def test_a_page_far_ahead_costs_a_page(monkeypatch):
    walked = 0

    class Counting(Interval):
        def between(self, after: int, until: int) -> Any:
            nonlocal walked
            for each in super().between(after, until):
                walked += 1
                yield each

    day = 86_400_000
    seconds = Counting(1, "second", 0)
    found, total = await Ahead(seconds, 0, 7 * day).page(500_000, 5, Slice())
    assert found == [1000 * n for n in range(500_001, 500_006)]
    assert total == 7 * 86_400
    assert walked <= 3 * events.AT_ONCE


async def test_every_page_of_what_is_to_come_is_the_right_one():
    for first in (0, 1, 59, 60, 61, 199, 200, 599, 600, 700):
        found, total = await page(600_000, first, 7)
        assert found == [1000 * n for n in range(first + 1, min(first + 8, 601))]
        assert total == 600


async def test_what_is_seen_ahead_has_an_end():
    found, total = await page(10**12, 0, 1)
    assert found == [1000] and events.COMPUTED_MOST <= total < 2 * events.COMPUTED_MOST
    assert await Ahead(None, 0, 10).page(0, 5, Slice()) == ([], 0)
