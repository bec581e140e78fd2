"""RRULE as the trigger of a task, and the rule of daylight saving, through `/tasks`."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from conftest import eventually
from scheduler.db import ms
from scheduler.triggers import Cron, Rrule

BERLIN = {"timezone": "Europe/Berlin"}
DAILY = {"rrule": "FREQ=DAILY"}
NIGHTLY = {"cron": "30 2 * * *", **BERLIN}
SPRING, AUTUMN = "2027-03-28T00:00:00Z", "2027-10-31T00:00:00Z"


def body(**fields: Any) -> dict[str, Any]:
    return {"name": "a", "url": "http://127.0.0.1:9/", **fields}


async def create(client: httpx.AsyncClient, **fields: Any) -> Any:
    answer = await client.post("/tasks", json=body(**fields))
    assert answer.status_code == 201, answer.text
    return answer.json()


async def change(client: httpx.AsyncClient, task: Any, **fields: Any) -> Any:
    answer = await client.patch(f"/tasks/{task['id']}", json=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def preview(client: httpx.AsyncClient, task: Any, query: str = "") -> Any:
    answer = await client.get(f"/tasks/{task['id']}/preview{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(client: httpx.AsyncClient, task: Any = None, **fields: Any) -> dict[str, str]:
    if task is None:
        answer = await client.post("/tasks", json=body(**fields))
    else:
        answer = await client.patch(f"/tasks/{task['id']}", json=fields)
    assert answer.status_code == 400, answer.text
    return {d["field"]: d["message"] for d in answer.json()["error"]["details"]}


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(text)


# The start ----------------------------------------------------------------------------------------


async def test_a_daily_rule_without_a_start_is_due_each_day_at_the_time_of_its_creation(
    alice, conn
):
    task = await create(alice, **DAILY)
    stored = await conn.fetchval("SELECT (trigger ->> 'start')::bigint FROM task")
    start = datetime.fromtimestamp(stored / 1000, UTC)
    assert stored % 1000 == 0
    assert timedelta(0) <= time_of(task["created_at"]) - start < timedelta(seconds=2)
    assert time_of(task["scheduled_at"]) == start + timedelta(days=1)

    found = await preview(alice, task, "?count=5")
    days = [time_of(one["at"]) for one in found["occurrences"]]
    assert days == [start + timedelta(days=n) for n in range(1, 6)]


async def test_an_edit_of_the_rule_keeps_its_start(alice, conn):
    task = await create(alice, **DAILY)
    start = await conn.fetchval("SELECT trigger ->> 'start' FROM task")
    await conn.execute("UPDATE task SET trigger = jsonb_set(trigger, '{start}', '1000000000000')")

    after = await change(alice, task, rrule="FREQ=DAILY;INTERVAL=2")
    assert after["rrule"] == "FREQ=DAILY;INTERVAL=2"
    assert time_of(after["scheduled_at"]).strftime("%H:%M:%S") == "01:46:40"
    again = await change(alice, task, timezone="Asia/Tokyo", dst_gap="skip")
    assert time_of(again["scheduled_at"]).strftime("%H:%M:%S") == "01:46:40"
    assert start != "1000000000000"


async def test_a_task_that_gets_a_rule_later_counts_from_then(alice, conn):
    task = await create(alice, frequency=1, unit="hour")
    await conn.execute("UPDATE task SET created_at = created_at - interval '10 days'")

    after = await change(alice, task, rrule="FREQ=DAILY;COUNT=2")
    assert after["frequency"] is None
    due = time_of(after["scheduled_at"]) - time_of(after["updated_at"])
    assert timedelta(hours=23) < due <= timedelta(days=1)


async def test_a_rule_of_seconds_fires_on_each_second(alice, conn, receiver):
    await create(alice, url=receiver.url, rrule="FREQ=SECONDLY")

    async def three_ran() -> None:
        assert await conn.fetchval("SELECT count(*) FROM history") >= 3

    await eventually(three_ran)
    rows = await conn.fetch("SELECT scheduled_for, state FROM history ORDER BY scheduled_for")
    assert {(row["state"], row["scheduled_for"].microsecond) for row in rows} == {("succeeded", 0)}
    steps = {(b[0] - a[0]).total_seconds() for a, b in itertools.pairwise(rows)}
    assert steps == {1.0}


async def test_what_was_before_its_creation_or_its_edit_is_never_due(alice, conn):
    old = "DTSTART:20200101T000000Z\nRRULE:FREQ=SECONDLY;COUNT=100"
    task = await create(alice, rrule=old, misfire="all")
    assert (task["scheduled_at"], task["state"]) == (None, "created")
    after = await change(alice, task, rrule=old.replace("100", "200"))
    assert after["scheduled_at"] is None
    assert await conn.fetchval("SELECT count(*) FROM run") == 0
    assert await conn.fetchval("SELECT count(*) FROM history") == 0


# Fields -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        DAILY,
        {**DAILY, **BERLIN, "dst_gap": "skip", "dst_overlap": "both"},
        {"rrule": "DTSTART;TZID=Europe/Berlin:20300101T023000\nRRULE:FREQ=DAILY", "max_runs": 3},
        {"rrule": "DTSTART:20200101T000000Z\nRRULE:FREQ=DAILY;COUNT=2", "jitter_seconds": 5},
        {**NIGHTLY, "dst_gap": "shift", "dst_overlap": "second"},
        NIGHTLY,
    ],
    ids=["daily", "settings", "tzid", "past", "cron-settings", "cron"],
)
async def test_what_get_answers_may_be_sent_back_whole_and_changes_nothing(alice, conn, fields):
    task = await create(alice, **fields)
    shown = (await alice.get(f"/tasks/{task['id']}")).json()
    before = await conn.fetchrow("SELECT trigger, bounds FROM task")
    pid = await conn.fetchval("SELECT next_plan_at FROM task_plan")

    answer = await alice.put(f"/tasks/{task['id']}", json=shown)
    assert answer.status_code == 200, answer.text
    assert answer.json() | {"updated_at": None} == shown | {"updated_at": None}
    assert await conn.fetchrow("SELECT trigger, bounds FROM task") == before
    assert await conn.fetchval("SELECT next_plan_at FROM task_plan") == pid


async def test_cron_and_rrule_have_defaults_and_other_triggers_have_none(alice):
    cron, rrule = await create(alice, **NIGHTLY), await create(alice, **DAILY)
    assert (cron["dst_gap"], cron["dst_overlap"]) == ("end", "first")
    assert (rrule["dst_gap"], rrule["dst_overlap"]) == ("shift", "first")
    assert rrule["timezone"] == "UTC" and rrule["overlap"] == "allow"
    hourly = await create(alice, frequency=1, unit="hour", dst_gap=None, dst_overlap=None)
    assert (hourly["dst_gap"], hourly["dst_overlap"]) == (None, None)


async def test_a_trigger_field_replaces_the_whole_trigger_and_null_removes_it(alice):
    task = await create(alice, **DAILY, **BERLIN, dst_gap="skip")
    assert (await change(alice, task, name="b"))["rrule"] == "FREQ=DAILY"
    cron = await change(alice, task, cron="0 0 * * *")
    assert (cron["rrule"], cron["cron"], cron["dst_gap"]) == (None, "0 0 * * *", "end")
    back = await change(alice, task, **DAILY)
    assert (back["rrule"], back["cron"], back["dst_gap"]) == ("FREQ=DAILY", None, "shift")
    every = await change(alice, task, frequency=2, unit="day")
    assert (every["rrule"], every["timezone"], every["dst_gap"]) == (None, None, None)
    assert (await change(alice, task, **DAILY))["rrule"] == "FREQ=DAILY"
    none = await change(alice, task, rrule=None)
    assert (none["rrule"], none["scheduled_at"], none["dst_overlap"]) == (None, None, None)


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({**DAILY, "cron": "0 0 * * *"}, "rrule", ["cron and rrule are two triggers"]),
        ({**DAILY, "frequency": 1, "unit": "day"}, "rrule", ["frequency and rrule"]),
        ({**DAILY, "frequency": 1, "unit": "day", "cron": "0 0 * * *"}, "rrule",
         ["frequency, cron and rrule are three triggers"]),
        ({**DAILY, "unit": "day"}, "unit", ["goes with frequency"]),
        ({**DAILY, "scheduled_at": "2030-01-01T00:00:00.5Z"}, "scheduled_at", ["second trigger"]),
        ({**DAILY, "timezone": "Berlin"}, "timezone", ["did you mean Europe/Berlin"]),
        ({**DAILY, "dst_gap": "later"}, "dst_gap", ["skip, shift, end"]),
        ({**DAILY, "dst_overlap": "never"}, "dst_overlap", ["first, second, both"]),
        ({"frequency": 1, "unit": "day", "dst_gap": "skip"}, "dst_gap", ["cron and rrule"]),
        ({"scheduled_at": "2030-01-01T00:00:00Z", "dst_overlap": "both"}, "dst_overlap",
         ["cron and rrule"]),
        ({"dst_gap": "skip"}, "dst_gap", ["cron and rrule"]),
        ({"rrule": "FREQ=DAILY;INTERVAL=0"}, "rrule", ["INTERVAL"]),
        ({"rrule": "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"}, "rrule", []),
    ],
    ids=[
        "cron-rrule", "frequency-rrule", "three", "unit", "scheduled-at", "zone", "gap", "overlap",
        "gap-of-interval", "overlap-of-once", "gap-of-none", "interval-0", "30-february",
    ],
)  # fmt: skip
async def test_what_is_wrong_is_refused_and_names_what_would_be_right(alice, fields, field, words):
    found = await refused(alice, **fields)
    assert set(found) == {field}
    assert all(word in found[field] for word in words), found


async def test_a_zone_in_the_text_goes_before_the_stored_one(alice):
    task = await create(alice, **DAILY, **BERLIN)
    tokyo = "DTSTART;TZID=Asia/Tokyo:20300101T090000\nRRULE:FREQ=DAILY"
    assert (await change(alice, task, rrule=tokyo))["timezone"] == "Asia/Tokyo"
    assert (await change(alice, task, rrule=tokyo, timezone="Asia/Tokyo"))["rrule"] == tokyo
    assert (await change(alice, task, **DAILY))["timezone"] == "Asia/Tokyo"
    assert (await change(alice, task, timezone=None))["timezone"] == "UTC"


async def test_tasks_are_listed_by_their_trigger(alice):
    rrule = await create(alice, **DAILY)
    await create(alice, **NIGHTLY)
    listed = (await alice.get("/tasks?trigger=rrule")).json()
    assert [one["id"] for one in listed] == [rrule["id"]]
    assert listed[0]["rrule"] == "FREQ=DAILY"


async def test_bounds_hold_for_a_rule(alice, conn, receiver):
    task = await create(alice, url=receiver.url, rrule="FREQ=SECONDLY", max_runs=2)

    async def two_ran() -> None:
        assert await conn.fetchval("SELECT count(*) FROM history WHERE state = 'succeeded'") == 2
        shown = (await alice.get(f"/tasks/{task['id']}")).json()
        assert (shown["scheduled_at"], shown["state"]) == (None, "completed")

    await eventually(two_ran)


async def test_many_are_created_with_rules_at_once(alice, conn):
    tasks = [body(rrule=f"FREQ=DAILY;INTERVAL={1 + n % 3}") for n in range(30)]
    answer = await alice.post("/tasks/bulk", json=tasks)
    assert answer.status_code == 201, answer.text
    assert await conn.fetchval("SELECT count(DISTINCT trigger) FROM task") == 3
    bad = await alice.post("/tasks/bulk", json=[*tasks, body(rrule="FREQ=DAILY;INTERVAL=0")])
    assert [d["field"] for d in bad.json()["error"]["details"]] == ["[30].rrule"]


# Preview ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "start", "first", "note"),
    [
        ({}, SPRING, "2027-03-28T01:00:00.000Z", "fires at 03:00"),
        ({"dst_gap": "shift"}, SPRING, "2027-03-28T01:30:00.000Z", "fires at 03:30"),
        ({"dst_gap": "skip"}, SPRING, "2027-03-29T00:30:00.000Z", "dropped"),
        ({}, AUTUMN, "2027-10-31T00:30:00.000Z", "the first time"),
        ({"dst_overlap": "second"}, AUTUMN, "2027-10-31T01:30:00.000Z", "the second time"),
        ({"dst_overlap": "both"}, AUTUMN, "2027-10-31T00:30:00.000Z", "both times"),
    ],
    ids=["end", "shift", "skip", "first", "second", "both"],
)
async def test_preview_shows_what_the_setting_makes_of_daylight_saving(
    alice, fields, start, first, note
):
    answer = await alice.post(f"/tasks/preview?from={start}", json={**NIGHTLY, **fields})
    assert answer.status_code == 200, answer.text
    shown = answer.json()["occurrences"][0]
    assert shown["at"] == first
    assert note in shown["note"]
    saved = await preview(alice, await create(alice, **NIGHTLY, **fields), f"?from={start}")
    assert saved == answer.json()


async def test_a_description_names_what_is_not_the_default(alice):
    plain = (await alice.post("/tasks/preview", json=NIGHTLY)).json()["description"]
    fields = {**NIGHTLY, "dst_gap": "skip", "dst_overlap": "both"}
    told = (await alice.post("/tasks/preview", json=fields)).json()["description"]
    assert told.startswith(plain)
    assert told.removeprefix(plain) == (
        ", a time that does not exist is left out, one that comes twice is due both times"
    )


async def test_a_rule_that_is_not_saved_is_shown_from_this_moment_on(alice):
    shown = (await alice.post("/tasks/preview?count=3", json=DAILY)).json()
    assert shown["timezone"] == "UTC" and "FREQ=DAILY" in shown["description"]
    days = [time_of(one["at"]) for one in shown["occurrences"]]
    assert [b - a for a, b in itertools.pairwise(days)] == [timedelta(days=1)] * 2
    assert timedelta(hours=23) < days[0] - datetime.now(UTC) <= timedelta(days=1)


# An older replica ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "known"),
    [
        (DAILY, False),
        ({**NIGHTLY, "dst_gap": "skip"}, False),
        (NIGHTLY, True),
    ],
    ids=["rrule", "dst", "cron"],
)
async def test_while_an_older_replica_runs_nothing_is_made_that_it_would_take_for_damaged(
    app, alice, conn, fields, known
):
    before, plain = await create(alice, **fields), await create(alice)
    await conn.execute(
        "INSERT INTO replica (id, beat, beat_at, role, host, pid, version, started_at) "
        "VALUES ($1, 0, now(), 'serve', 'h', 1, '0.2.0', now())",
        uuid4(),
    )
    await eventually(lambda: _sees(app), within=10)

    answers = [
        await alice.post("/tasks", json=body(**fields)),
        await alice.post("/tasks/bulk", json=[body(**fields)]),
        await alice.patch(f"/tasks/{plain['id']}", json=fields),
    ]
    for answer in answers:
        assert (answer.status_code < 300) is known, answer.text
        if not known:
            assert answer.status_code == 503 and answer.headers["retry-after"]
            assert "0.2.0" in answer.json()["error"]["message"]
    assert (await change(alice, before, name="b"))["name"] == "b", "it was one before"


def _sees(app: Any) -> None:
    assert app.engine.membership.older_than((0, 3)) == "0.2.0"
    assert not app.engine.membership.older, "it opens what is sealed"


def test_a_rule_is_a_value_with_the_settings_of_its_kind():
    noon = ms(datetime(2027, 1, 1, 12, tzinfo=UTC))
    assert Rrule("FREQ=DAILY", start=noon).next(noon) == noon + 86_400_000
    assert (Rrule("FREQ=DAILY").dst_gap, Cron("0 0 * * *").dst_gap) == ("shift", "end")
