"""`/tasks/{id}/explain`: why a task fires at an instant, or why not."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from conftest import App, eventually
from receiver import Receiver
from scheduler import exclusions, planning
from scheduler.clock import Slice
from scheduler.db import ms, utc
from scheduler.definition import Definition
from scheduler.planning import Planned
from scheduler.run import run_id
from scheduler.tasks import reasons
from scheduler.triggers import Bounds, Cron, Interval, Once
from scheduler.triggers.calendar import Rules
from test_backfill import backfill, hourly, stamp
from test_dispatcher import arrived
from test_ledger import create
from test_queue import definition, now_ms

HOUR = 3_600_000
DAY = 24 * HOUR


async def explain(client: httpx.AsyncClient, at: int | str, task_id: str = "t") -> dict[str, Any]:
    text = at if isinstance(at, str) else stamp(at)
    answer = await client.get(f"/tasks/{task_id}/explain", params={"at": text})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found["reason"].endswith("."), found["reason"]
    assert all(fact.endswith(".") for fact in found["facts"])
    return found


def of(found: dict[str, Any]) -> tuple[bool, str]:
    return found["fires"], found["verdict"]


# What is to come ---------------------------------------------------------------------------------


async def test_an_instant_to_come_is_explained_with_what_stands_beside_it(alice, bob, receiver):
    at = await hourly(alice, receiver)
    found = await explain(alice, at + HOUR)
    assert of(found) == (True, "due")
    assert found["matches"] is True and found["run"] is None
    assert found["previous"]["at"] == stamp(at)
    assert found["next"]["at"] == stamp(at + 2 * HOUR)
    assert any("overlap is skip" in fact for fact in found["facts"])
    assert any("misfire is latest" in fact for fact in found["facts"])
    beside = await explain(alice, at + HOUR + 1)
    assert of(beside) == (False, "rule")
    assert beside["previous"]["at"] == stamp(at + HOUR)
    assert (await bob.get("/tasks/t/explain", params={"at": stamp(at)})).status_code == 404


@pytest.mark.parametrize("sent", ["", "at=", "at=tomorrow", "at=2026-01-01T00:00:00",
                                  "at=1800-01-01T00:00:00Z"])  # fmt: skip
async def test_an_instant_is_needed_and_near(alice, receiver, sent):
    await hourly(alice, receiver)
    answer = await alice.get(f"/tasks/t/explain?{sent}")
    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["field"] == "at"


async def test_bounds_pauses_and_an_end_of_its_runs_are_named(alice, receiver):
    at = await hourly(alice, receiver)

    async def verdict(offset: int, **edit: Any) -> tuple[bool, str]:
        answer = await alice.patch("/tasks/t", json=edit)
        assert answer.status_code == 200, answer.text
        return of(await explain(alice, at + offset * HOUR))

    assert await verdict(1, start_at=stamp(at + 2 * HOUR)) == (False, "start_at")
    assert await verdict(2) == (True, "due")
    assert await verdict(5, end_at=stamp(at + 4 * HOUR)) == (False, "end_at")
    assert await verdict(4) == (True, "due")
    assert await verdict(4, status="paused") == (False, "paused")
    paused = {"status": "paused", "paused_until": stamp(at + 4 * HOUR)}
    assert await verdict(3, **paused) == (False, "paused")
    assert await verdict(4) == (True, "due")
    assert await verdict(4, status="disabled") == (False, "disabled")
    bounds: dict[str, Any] = {"start_at": None, "end_at": None, "max_runs": 3}
    assert await verdict(2, status="active", **bounds) == (True, "due")
    assert await verdict(3) == (False, "max_runs")


async def test_jitter_and_an_interval_and_a_single_time_are_explained(alice, receiver):
    at = now_ms() + 10 * HOUR
    await create(alice, id="once", url=receiver.url, scheduled_at=stamp(at))
    assert of(await explain(alice, at, "once")) == (True, "due")
    assert of(await explain(alice, at + 1, "once")) == (False, "rule")
    await create(alice, id="hand", url=receiver.url)
    found = await explain(alice, at, "hand")
    assert of(found) == (False, "no_trigger")
    assert (found["previous"], found["next"], found["matches"]) == (None, None, False)
    await hourly(alice, receiver, jitter_seconds=600)
    due = (await alice.get("/tasks/t")).json()["scheduled_at"]
    found = await explain(alice, ms(datetime.fromisoformat(due)) + HOUR)
    assert of(found) == (True, "due")
    assert any("Jitter" in fact for fact in found["facts"])


async def test_an_rrule_is_explained_as_well(alice, receiver):
    await create(
        alice, id="t", url=receiver.url,
        rrule="DTSTART;TZID=Europe/Berlin:20200101T120000\nRRULE:FREQ=DAILY",
    )  # fmt: skip
    found = await explain(alice, "2032-07-01T12:00:00+02:00")
    assert of(found) == (True, "due")
    assert found["next"]["at"] == "2032-07-02T10:00:00.000Z"
    assert of(await explain(alice, "2032-07-01T12:00:00+01:00")) == (False, "rule")


async def test_a_calendar_that_excludes_an_instant_is_named_before_it_comes_and_after(
    app, alice, receiver, conn
):
    at = await hourly(alice, receiver)
    await keep_clear(app, conn, at - 5 * DAY, at + 40 * HOUR)
    found = await explain(alice, at + HOUR)
    assert of(found) == (False, "calendar")
    assert "holidays" in found["reason"]
    assert found["next"]["note"] == "skipped: calendar holidays"
    assert of(await explain(alice, at + 80 * HOUR)) == (True, "due")
    made = await backfill(alice, at - 4 * HOUR, at - HOUR)
    assert (made["matched"], made["excluded"], made["made"]) == (4, 4, 0)
    row = "UPDATE task SET created_at = $1, updated_at = $1"
    await conn.execute(row, utc(at - 4 * HOUR - 60_000))
    assert of(await explain(alice, at - HOUR)) == (False, "calendar")


async def test_a_run_that_a_calendar_will_keep_from_starting_does_not_fire(
    app, alice, receiver, conn
):
    at = now_ms() + 30_000
    await create(alice, id="t", url=receiver.url, scheduled_at=stamp(at))
    assert of(await explain(alice, at)) == (True, "scheduled")
    await keep_clear(app, conn, at - DAY, at + DAY)
    found = await explain(alice, at)
    assert of(found) == (False, "calendar")
    assert found["run"]["state"] == "scheduled"


async def keep_clear(app: App, conn: asyncpg.Connection, since: int, until: int) -> None:
    """Have the task keep clear of a calendar that excludes these days."""
    row = await conn.fetchrow("SELECT service_id FROM task WHERE id = 't'")
    async with app.database.api.begin() as c:
        rules = Rules(dates=((since // DAY, until // DAY),))
        await exclusions.create(c, row["service_id"], "holidays", rules, now=now_ms())
    await conn.execute("""UPDATE task SET bounds = '{"calendars": ["holidays"]}'""")


# Daylight saving: in 2032 the clock leaps on 28 March, and is put back on 31 October -------------


async def test_a_time_that_the_clock_leaps_over_is_named_beside_what_becomes_of_it(alice, receiver):
    await create(alice, id="t", url=receiver.url, cron="30 2 * * *", timezone="Europe/Berlin")
    found = await explain(alice, "2032-03-28T02:30:00+01:00")
    assert found["local"] == "2032-03-28T03:30:00.000+02:00"
    leap = "On 2032-03-28 the clock in Europe/Berlin leaps from 02:00 to 03:00"
    assert any(fact.startswith(leap) for fact in found["facts"]), found["facts"]
    assert of(found) == (False, "rule")
    assert found["previous"]["at"] == "2032-03-28T01:00:00.000Z"
    assert "02:30 does not exist on this day" in found["previous"]["note"]
    there = await explain(alice, "2032-03-28T03:00:00+02:00")
    assert of(there) == (True, "due")
    assert "02:30 does not exist on this day" in there["note"]


async def test_a_time_that_comes_twice_is_told_apart(alice, receiver):
    await create(alice, id="t", url=receiver.url, cron="30 2 * * *", timezone="Europe/Berlin")
    first = await explain(alice, "2032-10-31T02:30:00+02:00")
    second = await explain(alice, "2032-10-31T02:30:00+01:00")
    assert (of(first), of(second)) == ((True, "due"), (False, "rule"))
    assert "comes twice" in first["note"]
    for found, which in ((first, "first"), (second, "second")):
        (fact,) = [fact for fact in found["facts"] if "comes twice" in fact]
        assert f"this is the {which} time" in fact


ELAPSED = [
    {"cron": "0 30 2 * * *", "timezone": "Europe/Berlin"},
    {"rrule": "DTSTART;TZID=Europe/Berlin:20200101T023000\nRRULE:FREQ=HOURLY;BYHOUR=2"},
]


@pytest.mark.parametrize("trigger", ELAPSED, ids=["cron", "rrule"])
async def test_what_follows_elapsed_time_names_no_setting_that_does_nothing(
    alice, receiver, trigger
):
    await create(alice, id="t", url=receiver.url, **trigger)
    assert not (await explain(alice, "2032-03-28T01:30:00Z"))["fires"]
    for time in ("2032-03-28T01:30:00Z", "2032-10-31T00:30:00Z", "2032-10-31T01:30:00Z"):
        found = await explain(alice, time)
        assert found["fires"] == ("10-31" in time)
        assert "follows elapsed time" in found["facts"][0]
        assert not any("dst_" in fact for fact in found["facts"]), found["facts"]


KINDS = {
    "cron": {"cron": "30 2 * * *", "timezone": "Europe/Berlin"},
    "rrule": {"rrule": "DTSTART;TZID=Europe/Berlin:20200101T023000\nRRULE:FREQ=DAILY"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("gap", "overlap", "leap", "back"),
    [("skip", "first", [], ["00:30"]), ("shift", "second", ["01:30"], ["01:30"]),
     ("end", "both", ["01:00"], ["00:30", "01:30"])],
)  # fmt: skip
async def test_when_clocks_change_a_task_fires_as_its_own_settings_say(
    alice, receiver, kind, gap, overlap, leap, back
):
    settings = {"dst_gap": gap, "dst_overlap": overlap}
    await create(alice, id="t", url=receiver.url, **KINDS[kind], **settings)
    for day, fires, word in (("2032-03-28", leap, gap), ("2032-10-31", back, overlap)):
        for time in ("00:30", "01:00", "01:30", "02:30"):
            found = await explain(alice, f"{day}T{time}:00Z")
            assert found["fires"] == (time in fires), (day, time, found)
        facts = (await explain(alice, f"{day}T01:30:00Z"))["facts"]
        assert any(f" is {word}: a time" in fact for fact in facts), facts


@pytest.mark.parametrize("zone", ["Australia/Lord_Howe", "America/Santiago", "Europe/Berlin"])
def test_clocks_are_told_where_they_change_by_half_an_hour_at_midnight_or_the_other_way(zone):
    task = definition(trigger=Cron("30 2 * * *", zone))
    start, told = ms(datetime(2027, 1, 1, tzinfo=UTC)), list[str]()
    for quarter in range(4 * 24 * 365):
        said = reasons.clock_change(task, start + quarter * 900_000)
        told += [said] if said else []
    leaps = [said for said in told if "leaps" in said]
    twice = [said for said in told if "comes twice" in said]
    each = 2 if zone == "Australia/Lord_Howe" else 4
    assert (len(leaps), len(twice)) == (each, 2 * each)


# What has passed ---------------------------------------------------------------------------------


async def test_of_what_ran_the_ledger_is_told(alice, receiver, conn):
    receiver.then(500).then(404)
    await create(
        alice, id="t", url=receiver.url, scheduled_at="2090-01-01T00:00:00Z",
        retry_backoff={"initial_seconds": 0.01},
    )  # fmt: skip
    at = now_ms()
    await alice.post("/tasks/t/schedule", json={"scheduled_at": stamp(at + 300)})
    await eventually(arrived(receiver, 2))

    async def ended() -> None:
        found = await explain(alice, at + 300)
        assert of(found) == (True, "failed"), found
        assert found["run"]["state"] == "failed"
        assert (await alice.get(found["run"]["url"])).json()["id"] == found["run"]["id"]
        assert "404" in found["reason"] and "2 attempts" in found["reason"]

    await eventually(ended)


async def test_a_run_that_is_planned_or_under_way_is_told(alice, receiver, conn):
    gate = asyncio.Event()
    receiver.then(after=gate)
    at = now_ms() + 1500
    await create(alice, id="t", url=receiver.url, scheduled_at=stamp(at))
    assert of(await explain(alice, at)) == (True, "scheduled")
    await eventually(arrived(receiver, 1))
    assert of(await explain(alice, at)) == (True, "running")
    gate.set()

    async def ended() -> None:
        assert of(await explain(alice, at)) == (True, "succeeded")

    await eventually(ended)


async def test_a_cancelled_instant_does_not_fire(alice, receiver, conn):
    at = now_ms() + 30_000
    await create(alice, id="t", url=receiver.url, scheduled_at=stamp(at))
    (row,) = await conn.fetch("SELECT id FROM run")
    assert (await alice.post(f"/runs/{row['id']}/cancel")).status_code == 200
    assert of(await explain(alice, at)) == (False, "cancelled")


async def test_what_overlapped_names_the_run_that_was_in_the_way(alice, receiver, conn):
    gate = asyncio.Event()
    receiver.then(after=gate)
    await create(alice, id="t", url=receiver.url, frequency=1, unit="second")
    await eventually(arrived(receiver, 1))
    first = ms(datetime.fromisoformat(receiver.last.header("x-scheduler-scheduled-for") or ""))
    await eventually(lambda: past(first + 2200))
    gate.set()

    async def skipped() -> None:
        found = await explain(alice, first + 1000)
        assert of(found) == (False, "overlap"), found
        assert found["run"]["count"] >= 2
        own = run_id(*await key_and_bucket(conn), "task", first)
        assert any(str(own) in fact for fact in found["facts"]), found["facts"]
        assert of(await explain(alice, first + 2000)) == (False, "overlap")

    await eventually(skipped)


def past(at: int) -> None:
    assert now_ms() > at


async def key_and_bucket(conn: asyncpg.Connection) -> tuple[uuid.UUID, int]:
    row = await conn.fetchrow("SELECT key, bucket FROM task WHERE id = 't'")
    return row["key"], row["bucket"]


async def made_earlier(conn: asyncpg.Connection, by: timedelta) -> None:
    await conn.execute(
        "UPDATE task SET created_at = created_at - $1::interval, "
        "updated_at = created_at - $1::interval",
        by,
    )


async def gap(conn: asyncpg.Connection, reason: str, first: int, last: int) -> None:
    row = await conn.fetchrow("SELECT * FROM task WHERE id = 't'")
    await conn.execute(
        "INSERT INTO history (id, bucket, service_id, task_key, task_id, kind, version, "
        "scheduled_for, state, reason, attempts, attempts_n, created_at, finished_at, truncated, "
        "count, gap_from, gap_to) VALUES ($1, $2, $3, $4, 't', 'task', 1, $5, 'skipped', $7, "
        "'[]', 0, now(), now(), false, 3, $5, $6)",
        run_id(row["key"], row["bucket"], "task", first), row["bucket"], row["service_id"],
        row["key"], utc(first), utc(last), reason,
    )  # fmt: skip


@pytest.mark.parametrize("reason", ["misfire", "paused", "calendar"])
async def test_each_instant_of_a_gap_names_its_reason_until_it_is_made_up_for(
    alice, receiver, conn, reason
):
    at = await hourly(alice, receiver) - 6 * HOUR
    await made_earlier(conn, timedelta(hours=20))
    await gap(conn, reason, at, at + 2 * HOUR)
    for n in range(3):
        found = await explain(alice, at + n * HOUR)
        assert of(found) == (False, reason)
        assert found["run"]["from"] == stamp(at)
    assert of(await explain(alice, at + HOUR + 1)) == (False, "rule")
    assert of(await explain(alice, at + 3 * HOUR)) == (False, "missing")
    await backfill(alice, at, at + HOUR)
    await eventually(arrived(receiver, 2))

    async def made_up_for() -> None:
        for n in range(2):
            assert of(await explain(alice, at + n * HOUR)) == (True, "succeeded")

    await eventually(made_up_for)
    assert of(await explain(alice, at + 2 * HOUR)) == (False, reason)


async def test_why_there_is_nothing_in_the_ledger_is_told(alice, receiver, conn):
    at = await hourly(alice, receiver) - HOUR
    assert of(await explain(alice, at - HOUR)) == (False, "not_created")
    await made_earlier(conn, timedelta(days=50))
    assert of(await explain(alice, at - 40 * DAY)) == (False, "forgotten")
    assert of(await explain(alice, at - HOUR)) == (False, "missing")
    await alice.patch("/tasks/t", json={"name": "edited"})
    found = await explain(alice, at - HOUR)
    assert of(found) == (False, "edited")
    assert any("changed last" in fact for fact in found["facts"])
    await alice.patch("/tasks/t", json={"status": "paused"})
    await conn.execute("UPDATE task SET updated_at = updated_at - interval '9 h'")
    await conn.execute("UPDATE task_plan SET planned_until = now() - interval '3 h'")
    assert of(await explain(alice, at)) == (False, "paused")


async def test_what_is_overdue_is_judged_by_its_misfire_rule(run_app, receiver, conn):
    async with run_app(PREQUEUER_TICKER_INTERVAL_SECONDS="3600") as app, app.client("alice") as c:
        at = await hourly(c, receiver, misfire="latest") - HOUR
        await made_earlier(conn, timedelta(hours=20))
        await conn.execute(
            "UPDATE task_plan SET planned_until = now() - interval '10 h', "
            "next_plan_at = now() - interval '10 h'"
        )
        assert of(await explain(c, at)) == (True, "due")
        assert of(await explain(c, at - HOUR)) == (False, "misfire")


# Against what plans ------------------------------------------------------------------------------

NOW = ms(datetime(2027, 3, 27, 22, 0, tzinfo=UTC))
TRIGGERS = st.one_of(
    st.builds(Interval, st.integers(1, 90), st.just("minute"), st.integers(NOW - DAY, NOW + HOUR)),
    st.builds(Once, st.integers(NOW // 60_000, NOW // 60_000 + 600).map(lambda n: n * 60_000)),
    st.builds(
        Cron,
        st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 * * * *", "15,45 1-3 * * *"]),
        st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    ),
)
HOURS = st.none() | st.integers(-12, 12).map(lambda n: NOW + n * HOUR)
BOUNDS = st.builds(Bounds, HOURS, HOURS, st.none() | st.integers(1, 9), st.sampled_from([0, 99]))
SPANS = st.integers(0, 12 * 60)


def task_of(trigger, bounds, status, paused_until) -> Definition:
    return msgspec.structs.replace(
        definition(trigger=trigger, status=status, key=uuid.UUID(int=7)),
        bounds=bounds,
        paused_until=paused_until if status == "paused" else None,
    )


@given(
    TRIGGERS, BOUNDS, st.sampled_from(["active", "active", "paused", "disabled"]), HOURS,
    st.integers(0, 9), SPANS, st.integers(0, 20),
)  # fmt: skip
@example(Cron("30 2 * * *", "Europe/Berlin"), Bounds(), "active", None, 0, 180, 0)
async def test_what_is_foreseen_is_what_planning_makes(
    trigger, bounds, status, paused_until, spent, span, nth
):
    task, planned = task_of(trigger, bounds, status, paused_until), Planned(NOW, spent)
    if task.paused_until is not None and task.paused_until <= NOW:
        return  # it resumes at the next look, and is another task then
    horizon = NOW + span * 60_000
    # As it will stand when it is planned: a pause without an end makes nothing.
    resumed = msgspec.structs.replace(task, status="active")
    if status == "paused" and task.paused_until is None:
        made = list[int]()
    else:
        of_then = resumed if status == "paused" else task
        instants = planning.plan(of_then, NOW, spent, NOW, horizon, at_once=10_000).instants
        from_then = task.paused_until or 0
        made = [at for at in instants if at >= from_then]
    raw = list(resumed.trigger.between(NOW - DAY, horizon))
    shift = 0 if isinstance(trigger, Once) else bounds.offset(task.key)
    asked = [at + shift for at in raw if at + shift > NOW][nth : nth + 5] + made[-2:]
    asked += [at + 1 for at in asked[:2]]
    for at in asked:
        if at <= horizon:
            finding = await reasons.foreseen(task, planned, NOW, at, Slice())
            assert finding.fires == (at in made), (finding, at)


@given(TRIGGERS, BOUNDS, st.integers(0, 40))
def test_what_is_previewed_is_named_and_nothing_else(trigger, bounds, nth):
    task = task_of(trigger, bounds, "active", None)
    instants = task.instants
    assert instants is not None
    at = instants.next(NOW + nth * 600_000)
    if at is None:
        return
    assert reasons.names(task, at) and reasons.by_rule(task, at) is None
    for near in (at - 1, at + 1):
        finding = reasons.by_rule(task, near)
        assert (finding is None) == (instants.next(near - 1) == near)


async def test_explain_and_preview_agree_over_http(alice: httpx.AsyncClient, receiver: Receiver):
    await create(
        alice, id="t", url=receiver.url, cron="*/20 1-3 * * *", timezone="Europe/Berlin", max_runs=9
    )
    query = {"count": 9, "from": "2032-03-27T22:00:00Z"}
    shown = (await alice.get("/tasks/t/preview", params=query)).json()["occurrences"]
    first = (await alice.get("/tasks/t/preview")).json()["occurrences"]
    assert len(first) == 9
    for each in first:
        assert (await explain(alice, each["at"]))["fires"] is True
    assert shown == []
    assert (await explain(alice, "2032-03-28T01:00:00Z"))["verdict"] == "max_runs"
