"""`/tasks/{id}/backfill`: what has no run gets one, once, and in nobody's way."""

import asyncio
import itertools
import random
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from conftest import eventually
from receiver import Receiver
from scheduler import backfills, config, queue
from scheduler.db import Database, ms, rfc3339, utc
from scheduler.lines import Stance
from scheduler.planning import new_run
from scheduler.run import run_id
from test_dispatcher import arrived, no_run_left
from test_lanes import laned
from test_ledger import create
from test_queue import ALICE, ME, claim, ended, enqueue, now_ms, tried
from test_verify import verified

HOUR = 3_600_000
YEAR = timedelta(days=365)
QUICK = 60_000
"""A pace that holds nothing up."""


def stamp(at: int) -> str:
    made = rfc3339(at)
    assert made
    return made


async def backfill(client: httpx.AsyncClient, since: int, until: int, **more: Any) -> dict:
    body = {"from": stamp(since), "to": stamp(until), "per_minute": QUICK, **more}
    answer = await client.post("/tasks/t/backfill", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def hourly(client: httpx.AsyncClient, receiver: Receiver, **more: Any) -> int:
    """A task that is due each hour, for the next time in half an hour or so; return that."""
    anchor = (now_ms() + HOUR // 2) // 1000 * 1000
    await create(client, id="t", url=f"{receiver.url}/t", **{"cron": hourly_at(anchor), **more})
    return anchor


def hourly_at(at: int) -> str:
    return f"{at // 1000 % 60} {at // 60_000 % 60} * * * *"


def instants(receiver: Receiver) -> Counter[int]:
    """For which instants something arrived, and how often."""
    named = [request.header("x-scheduler-scheduled-for") for request in receiver.requests]
    return Counter(ms(datetime.fromisoformat(each or "")) for each in named)


async def ran(receiver: Receiver, conn: asyncpg.Connection, *wanted: int) -> None:
    """Each of these instants arrives once, and nothing else does."""
    await eventually(arrived(receiver, len(wanted)), 10)
    rows = "SELECT count(*) FROM run WHERE scheduled_for < now()"

    async def none_left() -> None:
        assert await conn.fetchval(rows) == 0

    await eventually(none_left)
    assert instants(receiver) == Counter(wanted)


# What is made ------------------------------------------------------------------------------------


async def test_instants_before_the_task_was_there_get_a_run_each(alice, bob, receiver, conn):
    first = await hourly(alice, receiver) - 5 * HOUR
    last = first + 4 * HOUR
    counted = await backfill(alice, first, last, dry_run=True)
    assert (counted["matched"], counted["lacking"], counted["made"]) == (5, 5, 0)
    assert (counted["first"], counted["last"]) == (stamp(first), stamp(last))
    assert await conn.fetchval("SELECT count(*) FROM run") == 0

    made = await backfill(alice, first, last)
    assert (made["matched"], made["existing"], made["made"], made["next"]) == (5, 0, 5, None)
    assert (made["from"], made["to"]) == (stamp(first), stamp(last))
    await ran(receiver, conn, *range(first, last + 1, HOUR))
    runs = (await alice.get("/runs?task=t&state=succeeded")).json()["runs"]
    assert {run["kind"] for run in runs} == {"task"}
    assert {run["trigger"] for run in runs} == {"cron"}
    assert {run["scheduled_for"] for run in runs} == {stamp(first + n * HOUR) for n in range(5)}

    again = await backfill(alice, first - HOUR, last)
    assert (again["matched"], again["existing"], again["made"]) == (6, 5, 1)
    await ran(receiver, conn, *range(first - HOUR, last + 1, HOUR))
    answer = await bob.post("/tasks/t/backfill", json={"from": stamp(first), "to": stamp(last)})
    assert answer.status_code == 404


async def test_only_what_lies_between_and_within_the_bounds_is_made(alice, receiver, conn):
    anchor = await hourly(alice, receiver)
    bounds = {"start_at": stamp(anchor - 4 * HOUR), "end_at": stamp(anchor - 2 * HOUR)}
    assert (await alice.patch("/tasks/t", json=bounds)).status_code == 200
    found = await backfill(alice, anchor - 9 * HOUR, anchor - HOUR // 2 - 1000, dry_run=True)
    assert (found["matched"], found["first"], found["last"]) == (
        3, stamp(anchor - 4 * HOUR), stamp(anchor - 2 * HOUR)
    )  # fmt: skip
    within = await backfill(alice, anchor - 3 * HOUR + 1, anchor - 2 * HOUR - 1, dry_run=True)
    assert (within["matched"], within["first"]) == (0, None)


async def test_jitter_moves_what_is_made_as_it_moves_what_is_planned(alice, receiver, conn):
    anchor = await hourly(alice, receiver, jitter_seconds=600)
    due = ms(datetime.fromisoformat((await alice.get("/tasks/t")).json()["scheduled_at"]))
    assert due != anchor
    await backfill(alice, due - 2 * HOUR, due - HOUR)
    await ran(receiver, conn, due - 2 * HOUR, due - HOUR)


async def test_an_rrule_is_made_up_for_as_well(alice, receiver, conn):
    start = datetime.now(UTC).replace(microsecond=0)
    text = f"DTSTART:{start - YEAR:%Y%m%dT%H%M%SZ}\nRRULE:FREQ=DAILY"
    await create(alice, id="t", url=receiver.url, rrule=text)
    at = ms(start) - 86_400_000
    made = await backfill(alice, at - 2 * 86_400_000, at)
    assert made["made"] == 3
    await ran(receiver, conn, at, at - 86_400_000, at - 2 * 86_400_000)
    assert (await verified(alice))["doubled"] == []


async def test_a_gap_of_skipped_instants_is_filled_from_its_first_on(alice, receiver, conn):
    anchor = await hourly(alice, receiver)
    of = await conn.fetchrow("SELECT * FROM task")
    first, last = anchor - 6 * HOUR, anchor - 4 * HOUR
    gap = run_id(of["key"], of["bucket"], "task", first)
    await conn.execute(
        "INSERT INTO history (id, bucket, service_id, task_key, task_id, kind, version, "
        "scheduled_for, state, reason, attempts, attempts_n, created_at, finished_at, truncated, "
        "count, gap_from, gap_to) VALUES ($1, $2, $3, $4, 't', 'task', 1, $5, 'skipped', 'misfire', "
        "'[]', 0, now(), now(), false, 3, $5, $6)",
        gap, of["bucket"], of["service_id"], of["key"], utc(first), utc(last),
    )  # fmt: skip
    made = await backfill(alice, first, last)
    assert (made["existing"], made["made"]) == (0, 3)
    await ran(receiver, conn, first, first + HOUR, last)
    assert (await backfill(alice, first, last))["existing"] == 3
    rows = await conn.fetch("SELECT id FROM history WHERE id = $1", gap)
    assert len(rows) == 1, "one row for an id, always"
    assert len(set(instants(receiver))) == len(receiver.requests)


async def test_what_a_pause_took_is_made_up_for_and_verify_finds_nothing_wrong(
    alice, receiver, conn
):
    await create(alice, id="t", url=receiver.url, frequency=1, unit="second")
    await eventually(arrived(receiver, 1))
    until = now_ms() + 2000
    await alice.patch("/tasks/t", json={"status": "paused", "paused_until": stamp(until)})

    async def gap() -> asyncpg.Record:
        rows = await conn.fetch("SELECT * FROM history WHERE reason = 'paused'")
        assert len(rows) == 1
        return rows[0]

    row = await eventually(gap, 10)
    first, last = ms(row["gap_from"]), ms(row["gap_to"])
    assert row["count"] >= 2
    made = await backfill(alice, first, last)
    assert (made["matched"], made["made"]) == (row["count"], row["count"])
    await alice.patch("/tasks/t", json={"status": "paused"})

    async def done() -> None:
        arrivals = instants(receiver)
        assert all(arrivals[at] == 1 for at in range(first, last + 1, 1000)), arrivals

    await eventually(done)
    await alice.patch("/tasks/t", json={"status": "active"})
    found = await verified(alice)
    assert (found["missing"], found["doubled"]) == ([], [])


async def test_while_a_task_is_paused_only_what_came_before_the_pause_is_made(
    alice, receiver, conn
):
    await create(alice, id="t", url=receiver.url, cron="* * * * * *", status="paused")
    begun = now_ms()
    await alice.patch("/tasks/t", json={"name": "moves what is planned no further"})
    await eventually(lambda: past(begun + 1500))
    made = await backfill(alice, begun - 2000, now_ms() - 1)
    assert made["made"] in (1, 2, 3)
    assert made["to"] < stamp(begun + 1000)
    await eventually(arrived(receiver, made["made"]))


def past(at: int) -> None:
    assert now_ms() > at


async def test_what_history_has_forgotten_is_not_made_again(alice, receiver, conn):
    anchor = await hourly(alice, receiver)
    await conn.execute("UPDATE task SET created_at = created_at - interval '60 days'")
    first, last = anchor - 40 * 24 * HOUR, anchor - 40 * 24 * HOUR + HOUR
    found = await backfill(alice, first, last)
    assert (found["matched"], found["forgotten"], found["made"]) == (2, 2, 0)
    assert (await backfill(alice, anchor - 90 * 24 * HOUR, anchor - 90 * 24 * HOUR))["made"] == 1


# Refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "from"),
        ({"from": "2026-01-01T00:00:00Z"}, "to"),
        ({"from": "2026-01-01T00:00:00", "to": "2026-01-02T00:00:00Z"}, "from"),
        ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "from"),
        ({"from": "2026-01-02T00:00:00Z", "to": "2090-01-01T00:00:00Z"}, "to"),
        ({"from": "1800-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "from"),
        ({"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "per_minute": 0},
         "per_minute"),
        ({"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "per_minute": 60_001},
         "per_minute"),
        ({"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "dry": True}, "dry"),
    ],
)  # fmt: skip
async def test_a_wrong_range_is_refused_with_its_field(alice, receiver, body, field):
    await hourly(alice, receiver)
    answer = await alice.post("/tasks/t/backfill", json=body)
    assert answer.status_code == 400, answer.text
    assert [d["field"] for d in answer.json()["error"]["details"]] == [field]


async def test_a_task_that_is_disabled_or_has_no_trigger_is_refused(alice, receiver):
    body = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}
    await create(alice, id="hand")
    answer = await alice.post("/tasks/hand/backfill", json=body)
    assert answer.status_code == 409 and "trigger" in answer.json()["error"]["message"]
    await hourly(alice, receiver, status="disabled")
    answer = await alice.post("/tasks/t/backfill", json=body)
    assert answer.status_code == 409 and "disabled" in answer.json()["error"]["message"]
    assert (await alice.post("/tasks/none/backfill", json=body)).status_code == 404


async def test_a_quota_holds_and_says_where_to_go_on(run_app, receiver, conn):
    async with run_app(QUOTAS_MAX_RUNS_PER_MINUTE="2") as app, app.client("alice") as alice:
        first = await hourly(alice, receiver) - 5 * HOUR
        counted = await backfill(alice, first, first + 4 * HOUR, dry_run=True)
        assert (counted["lacking"], counted["next"]) == (5, None)
        made = await backfill(alice, first, first + 4 * HOUR)
        assert (made["made"], made["next"]) == (2, stamp(first + HOUR + 1))
        body = {"from": made["next"], "to": stamp(first + 4 * HOUR)}
        answer = await alice.post("/tasks/t/backfill", json=body)
        assert answer.status_code == 429 and "retry-after" in answer.headers
        await ran(receiver, conn, first, first + HOUR)


# How much, and when ------------------------------------------------------------------------------


async def test_more_than_a_call_looks_at_comes_in_pages_and_none_is_lost(run_app, receiver, conn):
    async with run_app(TASKS_BACKFILL_MOST="3") as app, app.client("alice") as alice:
        first = await hourly(alice, receiver) - 8 * HOUR
        last, at, made = first + 7 * HOUR, first, 0
        for _ in range(3):
            page = await backfill(alice, at, last)
            made += page["made"]
            at = ms(datetime.fromisoformat(page["next"])) if page["next"] else at
        assert (made, page["next"]) == (8, None)
        await ran(receiver, conn, *range(first, last + 1, HOUR))


async def test_runs_fall_due_at_the_pace_and_a_second_backfill_queues_behind(alice, receiver, conn):
    first = await hourly(alice, receiver) - 9 * HOUR
    before = now_ms()
    made = await backfill(alice, first, first + 3 * HOUR, per_minute=6)
    await backfill(alice, first + 4 * HOUR, first + 5 * HOUR, per_minute=6)
    rows = await conn.fetch("SELECT scheduled_for, due FROM run ORDER BY due")
    due = [ms(row["due"]) for row in rows]
    assert [ms(row["scheduled_for"]) for row in rows][-2:] == [first + 4 * HOUR, first + 5 * HOUR]
    assert {after - each for each, after in itertools.pairwise(due)} == {10_000}
    assert made["last_due"] in {stamp(at) for at in due}
    assert before + 29_000 <= ms(datetime.fromisoformat(made["last_due"])) <= now_ms() + 31_000


async def test_an_earlier_stretch_goes_before_what_waits_of_a_later_one(alice, receiver, conn):
    first = await hourly(alice, receiver) - 9 * HOUR
    await backfill(alice, first + 4 * HOUR, first + 7 * HOUR, per_minute=1)
    await eventually(arrived(receiver, 1))
    await backfill(alice, first, first + 2 * HOUR, per_minute=2)
    rows = await conn.fetch("SELECT scheduled_for, due FROM run WHERE scheduled_for < now()")
    due = {ms(row["scheduled_for"]): ms(row["due"]) for row in rows}
    assert len(due) >= 5
    order = [due[at] for at in sorted(due)]
    steps = {after - each for each, after in itertools.pairwise(order)}
    assert steps <= {30_000, 60_000} and 30_000 in steps


async def test_the_default_pace_is_a_setting(run_app, receiver, conn):
    async with run_app(TASKS_BACKFILL_PER_MINUTE="60") as app, app.client("alice") as alice:
        first = await hourly(alice, receiver) - 9 * HOUR
        body = {"from": stamp(first), "to": stamp(first + 8 * HOUR)}
        assert (await alice.post("/tasks/t/backfill", json=body)).json()["made"] == 9
        due = [ms(row["due"]) for row in await conn.fetch("SELECT due FROM run ORDER BY due")]
        assert due[-1] - due[-2] == 1000


async def test_two_backfills_at_once_make_one_run_for_each_instant(alice, receiver, conn):
    first = await hourly(alice, receiver) - 700 * HOUR
    last = first + 699 * HOUR
    found = await asyncio.gather(*(backfill(alice, first, last, per_minute=6) for _ in range(3)))
    assert sum(each["made"] for each in found) == 700
    assert {each["matched"] for each in found} == {700}
    rows = await conn.fetch(
        "SELECT scheduled_for FROM run WHERE scheduled_for < now() "
        "UNION ALL SELECT scheduled_for FROM history"
    )
    assert Counter(ms(row["scheduled_for"]) for row in rows) == Counter(
        range(first, last + 1, HOUR)
    )


# In whose way ------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", ["skip", "queue", "allow"])
async def test_all_arrive_once_and_the_tasks_own_instants_come_between(
    run_app, receiver, conn, overlap
):
    """More are made than a queue holds, later than their grace and older than their age."""
    async with run_app(WORKER_QUEUE_MOST="3") as app, app.client("alice") as alice:
        await create(
            alice, id="t", url=receiver.url, cron="* * * * * *", overlap=overlap,
            misfire="skip", misfire_grace_seconds=0.5, max_age_seconds=10,
        )  # fmt: skip
        await eventually(arrived(receiver, 1))
        (own,) = instants(receiver)
        first, last = own - 100_000, own - 70_000
        assert (await backfill(alice, first, last))["made"] == 31

        async def done() -> None:
            arrivals = instants(receiver)
            assert all(arrivals[at] == 1 for at in range(first, last + 1, 1000)), arrivals

        await eventually(done, 10)
        await eventually(arrived(receiver, len(receiver.requests) + 1))  # it goes on
        assert await conn.fetchval("SELECT count(*) FROM history WHERE state <> 'succeeded'") == 0
        assert max(instants(receiver).values()) == 1


async def test_behind_a_slow_target_own_instants_go_first_and_none_is_skipped(
    app, alice, receiver, conn
):
    gates = [asyncio.Event() for _ in range(3)]
    for gate in gates:
        receiver.then(after=gate)
    at = now_ms() // 1000 * 1000 + 3000
    await create(alice, id="t", url=receiver.url, cron=hourly_at(at))
    await backfill(alice, at - 5 * HOUR, at - HOUR)
    await eventually(arrived(receiver, 1))
    await eventually(lambda: past(at + 200))
    assert len(receiver.requests) == 1, "one at a time"
    gates[0].set()
    await eventually(arrived(receiver, 2))
    assert at in instants(receiver), "what is due goes before the rest of the backfill"
    gates[1].set()
    gates[2].set()
    await eventually(arrived(receiver, 6))
    assert instants(receiver) == Counter([at, *range(at - 5 * HOUR, at, HOUR)])
    assert await conn.fetchval("SELECT count(*) FROM history WHERE state = 'skipped'") == 0


async def make(database: Database, of, *runs: tuple[int, int]) -> None:
    """Rows as a backfill makes them: (instant, due) each."""
    async with database.engine.begin() as c:
        ids = await backfills.lacking(c, of.line, [at for at, _ in runs])
        rows = [(ids[at], at, due) for at, due in runs]
        stance = Stance(of.version, of.overlap, of.lanes, 0)
        made = await backfills.make(c, of.line, of.id, stance, rows, utc(now_ms()))
        assert len(made) == len(runs)


@pytest.fixture
async def database(database_url: str):
    made = Database(database_url, config.Database(engine_pool=8))
    yield made
    await made.close()


async def test_in_line_backfilled_runs_stand_behind_what_is_due_and_before_what_is_to_come(
    database,
):
    of, now = laned(1), now_ms()
    await make(database, of, (now - HOUR, now - 100), (now - 2 * HOUR, now + 500))
    await enqueue(database, new_run(of, now - 50), new_run(of, now + 400))
    order = []
    for then in (now, now, now, now + 500):
        (run,) = await claim(database, then)
        order.append(run.scheduled_for)
        assert await claim(database, then) == []
        async with database.engine.begin() as c:
            await queue.settle(c, ME, [ended(run)])
    assert order == [now - 50, now - HOUR, now + 400, now - 2 * HOUR]


async def test_one_that_waits_for_a_retry_holds_up_nobody(database):
    of, now = laned(1), now_ms()
    await make(database, of, (now - HOUR, now - 100))
    (run,) = await claim(database, now)
    async with database.engine.begin() as c:
        await queue.retry(c, ME, [tried(run, now + 60_000)])
    await enqueue(database, new_run(of, now + 500))
    (own,) = await claim(database, now)
    assert own.scheduled_for == now + 500


# What else is done to the task -------------------------------------------------------------------


async def waiting(client, receiver, conn, n: int = 4) -> int:
    """A task with so many backfilled runs, of which the first has arrived; return that instant."""
    first = await hourly(client, receiver) - 9 * HOUR
    await backfill(client, first, first + (n - 1) * HOUR, per_minute=1)
    await eventually(arrived(receiver, 1))
    return first


async def test_an_edit_keeps_what_waits_and_it_goes_as_the_task_stands(alice, receiver, conn):
    first = await waiting(alice, receiver, conn)
    edit = {"url": f"{receiver.url}/new", "frequency": 7, "unit": "minute"}
    assert (await alice.patch("/tasks/t", json=edit)).status_code == 200
    await conn.execute("UPDATE run SET due = now() WHERE scheduled_for < now()")
    await eventually(arrived(receiver, 4))
    assert [r.path for r in receiver.requests] == ["/t", "/new", "/new", "/new"]
    assert instants(receiver) == Counter(first + n * HOUR for n in range(4))


async def test_a_pause_holds_up_nothing_that_was_asked_for(alice, receiver, conn):
    await waiting(alice, receiver, conn)
    await alice.patch("/tasks/t", json={"status": "paused"})
    await conn.execute("UPDATE run SET due = now() WHERE scheduled_for < now()")
    await eventually(arrived(receiver, 4))


@pytest.mark.parametrize("word", ["disabled", "deleted"])
async def test_what_was_tried_and_waits_keeps_when_it_began(alice, receiver, conn, word):
    receiver.then(503)
    slow = {"initial_seconds": 600, "max_seconds": 600, "factor": 1}
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=30)
    text = f"DTSTART:{start - YEAR:%Y%m%dT%H%M%SZ}\nRRULE:FREQ=HOURLY"
    await create(alice, id="t", url=receiver.url, max_retries=3, retry_backoff=slow, rrule=text)
    since = ms(start) - 9 * HOUR
    await backfill(alice, since, since + HOUR - 1)
    await eventually(lambda: _tried(conn))
    if word == "disabled":
        await alice.patch("/tasks/t", json={"status": "disabled"})
        (event,) = (await alice.get("/api/schedules/t/events/history")).json()["events"]
        words = [each["status"] for each in event["status"]]
        assert words == ["ready_queue", "worker_queue", "cancelled"]
    else:
        await alice.delete("/tasks/t")
    (row,) = (await alice.get("/runs?task=t")).json()["runs"]
    assert (row["state"], row["reason"]) == ("cancelled", f"the task was {word}")
    assert row["started_at"] == row["attempts"][0]["started_at"]


async def _tried(conn: asyncpg.Connection) -> None:
    assert await conn.fetchval("SELECT attempts_n FROM run WHERE scheduled_for < now()") == 1


async def test_disabling_the_task_or_deleting_it_cancels_what_waits(alice, receiver, conn):
    await waiting(alice, receiver, conn)
    await alice.patch("/tasks/t", json={"status": "disabled"})
    rows = (await alice.get("/runs?task=t&state=cancelled")).json()["runs"]
    assert [row["reason"] for row in rows] == ["the task was disabled"] * 3
    await alice.delete("/tasks/t")
    receiver.requests.clear()
    await waiting(alice, receiver, conn)
    await alice.delete("/tasks/t")
    rows = (await alice.get("/runs?task=t&state=cancelled")).json()["runs"]
    reasons = Counter(row["reason"] for row in rows)
    assert reasons == {"the task was disabled": 3, "the task was deleted": 3}
    await eventually(lambda: no_run_left(conn))


async def test_a_cancel_by_filter_stops_a_backfill(alice, receiver, conn):
    await waiting(alice, receiver, conn)
    body = {"task": "t", "state": "scheduled", "to": stamp(now_ms())}
    assert (await alice.post("/runs/cancel", json=body)).json()["done"] == 3
    assert len(receiver.requests) == 1


async def test_a_failing_one_is_tried_again_as_the_task_says(alice, receiver, conn):
    receiver.then(500)
    first = await hourly(alice, receiver, retry_backoff={"initial_seconds": 0.05}) - 3 * HOUR
    await backfill(alice, first, first)
    await eventually(arrived(receiver, 2))
    (run,) = (await alice.get("/runs?task=t&state=succeeded,retrying,running")).json()["runs"]
    assert run["scheduled_for"] == stamp(first)
    assert instants(receiver) == Counter({first: 2})


@pytest.mark.parametrize("most", [1, 3])
async def test_claimers_at_once_hold_no_more_of_a_task_than_its_lanes(database, conn, most):
    """Backfilled runs and the task's own, due and to come, with settles and retries between."""
    of, now = laned(most), now_ms()
    made = [(now - HOUR - n * 1000, now - 1500 + n * 50) for n in range(40)]
    await make(database, of, *made)
    await enqueue(database, *(new_run(of, now - 1000 + n * 50) for n in range(40)))
    seen, over, rng = list[int](), asyncio.Event(), random.Random(most)
    claimed = "SELECT count(*) FROM run WHERE claimed_by IS NOT NULL"

    async def watch() -> None:
        while not over.is_set():
            seen.append(await conn.fetchval(claimed))
            await asyncio.sleep(0)

    async def work(me: UUID) -> None:
        while not over.is_set():
            async with database.engine.begin() as c:
                mine = await queue.claim_on_time(c, me, now, ahead_ms=2000, room=4)
                mine += await queue.claim_late(c, me, now, service=ALICE, room=4)
            async with database.engine.begin() as c:
                for run in mine:
                    if rng.random() < 0.2:
                        await queue.retry(c, me, [tried(run, now)])
                    else:
                        await queue.settle(c, me, [ended(run)])
                if not mine and not (await c.exec_driver_sql("SELECT 1 FROM run LIMIT 1")).first():
                    over.set()

    watching = asyncio.create_task(watch())
    async with asyncio.timeout(30):
        await asyncio.gather(*(work(UUID(int=n)) for n in (1, 2, 3)))
    await watching
    assert max(seen) <= most
    assert await conn.fetchval("SELECT count(*) FROM history") == 80


async def test_ten_thousand_waiting_runs_cost_a_claim_little(database, conn):
    of, now = laned(1), now_ms()
    made = [(now - 5 * HOUR + n * 1000, now - 4000 + n) for n in range(10_000)]
    for start in range(0, len(made), 500):
        await make(database, of, *made[start : start + 500])
    await enqueue(database, new_run(of, now + 500))
    await conn.execute("ANALYZE run")
    for _ in range(3):
        started = time.perf_counter()
        mine = await claim(database, now)
        async with database.engine.begin() as c:
            mine += await queue.claim_late(c, ME, now, service=ALICE, room=400)
        assert len(mine) == 1
        assert time.perf_counter() - started < 2
        async with database.engine.begin() as c:
            await queue.settle(c, ME, [ended(mine[0])])
