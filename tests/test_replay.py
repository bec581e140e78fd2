"""Replay: the same run once more, with its id and its attempts, as its task stands now."""

import asyncio
import json
import uuid
from typing import Any
from uuid import UUID

import httpx
import pytest

from conftest import eventually
from receiver import Answer
from scheduler import config, lines, planner, planning, queue, replays, skips, task
from scheduler.actions.http import HttpPerformer
from scheduler.db import Database, utc
from scheduler.replays import Again
from scheduler.run import Attempt, Attempts
from scheduler.runner import UNKNOWN_MOST, Work, _overlapped
from scheduler.skips import Judgement
from scheduler.triggers import Interval
from test_cancel import create, ends, only_run, shown, soon
from test_dispatcher import arrived
from test_planner import sweep
from test_queue import ME, MINUTE, claim, claim_late, definition, ended, enqueue, now_ms
from test_runner import run_of

DAY = 86_400_000


async def executed(client: httpx.AsyncClient, task_id: str = "t") -> UUID:
    return UUID((await client.post(f"/tasks/{task_id}/execute")).json()["run_id"])


async def replayed(client: httpx.AsyncClient, run: UUID, state: str = "succeeded") -> dict:
    answer = await client.post(f"/runs/{run}/replay")
    assert answer.status_code == 202, answer.text
    assert answer.json()["id"] == str(run)
    return await ends(client, run, state)


async def test_a_failed_run_goes_again_with_its_id_and_the_next_attempt(alice, conn, receiver):
    receiver.then(400, body="no such thing")
    await create(alice, receiver)
    run = await executed(alice)
    before = await ends(alice, run, "failed")
    after = await replayed(alice, run)
    first, second = receiver.requests
    assert first.header("Idempotency-Key") == second.header("Idempotency-Key") == str(run)
    assert (first.header("X-Scheduler-Attempt"), second.header("X-Scheduler-Attempt")) == ("1", "2")
    assert after["scheduled_for"] == before["scheduled_for"]
    assert [a["number"] for a in after["attempts"]] == [1, 2]
    assert [a["outcome"] for a in after["attempts"]] == ["failed", "succeeded"]
    assert after["attempts"][0]["response"] == "no such thing"
    assert (after["response"], after["attempt"]) == ("ok", 2)
    assert await conn.fetchval("SELECT count(*) FROM history") == 1
    listed = (await alice.get("/tasks/t/executions")).json()
    assert [(e["attempt"], e["status"]) for e in listed["records"]] == [
        (2, "success"), (1, "failed")
    ]  # fmt: skip
    assert listed["total_count"] == 2


async def cut(client: httpx.AsyncClient, run: UUID) -> list[bool]:
    """Whether there was more of each response than is kept: of each attempt, then of the run."""
    now = await shown(client, run)
    return [*(attempt["truncated"] for attempt in now["attempts"]), now["truncated"]]


async def test_each_attempt_says_for_itself_if_its_response_was_cut(alice, conn, receiver):
    backoff = {"initial_seconds": 0.01, "factor": 1, "max_seconds": 0.01}
    receiver.then(500, "x" * 100_000).then(500, "short").then(200, "ok").then(200, "y" * 70_000)
    receiver.then(200, "z" * 2000)
    await create(alice, receiver, max_retries=2, retry_backoff=backoff)
    run = UUID((await alice.post("/tasks/t/execute?retry=true")).json()["run_id"])
    assert await cut(alice, run) == [True, False, False, False]
    await replayed(alice, run)
    assert await cut(alice, run) == [True, False, False, True, True]
    await replayed(alice, run)
    assert await cut(alice, run) == [True, False, False, True, False, False]
    await replayed(alice, run)
    assert await cut(alice, run) == [True, False, False, True, True, False, False]
    attempts = await conn.fetchval("SELECT attempts FROM history")
    assert attempts.count("truncated") == 3


async def test_attempts_of_older_versions_were_not_cut(alice, conn, receiver):
    await create(alice, receiver)
    run = await executed(alice)
    tried = (
        '[{"number": 1, "outcome": "failed", "response": "x"}, {"number": 2, "outcome": "failed"}]'
    )
    await conn.execute("UPDATE history SET attempts = $1::text::jsonb, attempts_n = 2", tried)
    assert await cut(alice, run) == [False, False, False]


async def test_a_run_that_succeeded_can_be_wanted_again_and_again(alice, receiver):
    await create(alice, receiver)
    run = await executed(alice)
    for n in (2, 3):
        assert (await replayed(alice, run))["attempt"] == n
    assert {r.header("Idempotency-Key") for r in receiver.requests} == {str(run)}


async def test_a_cancelled_run_can_be_replayed(alice, conn, receiver):
    await create(alice, receiver, scheduled_at=soon(30))
    run = await only_run(conn)
    await alice.post(f"/runs/{run}/cancel")
    assert (await replayed(alice, run))["attempt"] == 1


async def test_an_expired_run_can_be_replayed_and_does_not_expire_again(alice, conn, receiver):
    await create(alice, receiver, scheduled_at=soon(30), max_age_seconds=1)
    run = await only_run(conn)
    await conn.execute("UPDATE run SET scheduled_for = now() - interval '1 h', due = now()")
    await ends(alice, run, "expired")
    await replayed(alice, run)


@pytest.mark.parametrize(("count", "status"), [(1, 202), (2, 409)])
async def test_one_skipped_instant_can_be_replayed_and_a_row_of_several_cannot(
    alice, conn, receiver, count, status
):
    await create(alice, receiver, scheduled_at=soon(30))
    run = await only_run(conn)
    await alice.post(f"/runs/{run}/cancel")
    await conn.execute(
        "UPDATE history SET state = 'skipped', reason = 'misfire', count = $1,"
        " gap_from = scheduled_for, gap_to = scheduled_for", count
    )  # fmt: skip
    answer = await alice.post(f"/runs/{run}/replay")
    assert answer.status_code == status
    if count == 1:
        await ends(alice, run, "succeeded")
    else:
        assert "execute" in answer.json()["error"]["message"]
        assert (await shown(alice, run))["state"] == "skipped"


async def test_a_run_that_has_not_ended_cannot_be_replayed(alice, conn, receiver):
    await create(alice, receiver, scheduled_at=soon(30))
    run = await only_run(conn)
    answer = await alice.post(f"/runs/{run}/replay")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
    assert await conn.fetchval("SELECT count(*) FROM run") == 1


async def test_a_run_whose_task_is_gone_or_another_by_now_cannot_be_replayed(alice, receiver):
    await create(alice, receiver)
    run = await executed(alice)
    await alice.delete("/tasks/t")
    answer = await alice.post(f"/runs/{run}/replay")
    assert answer.status_code == 409
    assert "gone" in answer.json()["error"]["message"]
    await create(alice, receiver)
    assert (await alice.post(f"/runs/{run}/replay")).status_code == 409
    assert (await shown(alice, run))["state"] == "succeeded"


async def test_a_run_of_a_disabled_task_cannot_be_replayed_and_of_a_paused_one_it_can(
    alice, receiver
):
    await create(alice, receiver)
    run = await executed(alice)
    await alice.patch("/tasks/t", json={"status": "disabled"})
    answer = await alice.post(f"/runs/{run}/replay")
    assert answer.status_code == 409
    assert "disabled" in answer.json()["error"]["message"]
    await alice.patch("/tasks/t", json={"status": "paused"})
    await replayed(alice, run)


async def test_only_a_run_of_ones_own_can_be_replayed(alice, bob, receiver):
    await create(alice, receiver)
    run = await executed(alice)
    for client, key in ((bob, run), (alice, uuid.uuid4()), (alice, "x")):
        assert (await client.post(f"/runs/{key}/replay")).status_code == 404
    assert len(receiver.requests) == 1


async def test_a_replay_goes_as_the_task_stands_now(alice, receiver):
    await create(alice, receiver)
    run = await executed(alice)
    await alice.patch("/tasks/t", json={"url": receiver.url + "/new", "payload": "x"})
    await replayed(alice, run)
    assert [(r.method, r.path) for r in receiver.requests] == [("GET", "/t"), ("POST", "/new")]


async def test_of_many_replays_at_once_one_moves_the_run(alice, conn, receiver):
    await create(alice, receiver)
    run = await executed(alice)
    for _ in range(3):
        may_end = asyncio.Event()
        receiver.then(after=may_end)
        answers = await asyncio.gather(*(alice.post(f"/runs/{run}/replay") for _ in range(8)))
        assert sorted(a.status_code for a in answers) == [202] + [409] * 7
        rows = "SELECT (SELECT count(*) FROM run) + (SELECT count(*) FROM history)"
        assert await conn.fetchval(rows) == 1
        may_end.set()
        await ends(alice, run, "succeeded")
    assert len(receiver.requests) == 4


async def test_a_replay_is_tried_as_often_as_a_new_run(alice, receiver):
    backoff = {"initial_seconds": 0.01, "factor": 1, "max_seconds": 0.01}
    receiver.otherwise = Answer(503)
    await create(alice, receiver, scheduled_at=soon(-1), max_retries=2, retry_backoff=backoff)
    await eventually(arrived(receiver, 3))
    run = UUID(receiver.requests[0].header("Idempotency-Key"))
    await ends(alice, run, "failed")
    assert (await replayed(alice, run, "failed"))["attempt"] == 6
    numbers = [r.header("X-Scheduler-Attempt") for r in receiver.requests]
    assert numbers == ["1", "2", "3", "4", "5", "6"]


def unknown(n: int, at: int) -> Attempts:
    return [Attempt(k, "unknown", at + k, at + k) for k in range(1, n + 1)]


async def test_what_stayed_unknown_before_a_replay_is_not_held_against_it(alice, conn, receiver):
    await create(alice, receiver)
    run = await executed(alice)
    attempts = json.dumps([
        {"number": a.number, "outcome": a.outcome, "started_at": a.started_at,
         "finished_at": a.finished_at} for a in unknown(UNKNOWN_MOST, now_ms() - DAY)
    ])  # fmt: skip
    await conn.execute(
        "UPDATE history SET state = 'failed', reason = 'x', attempts = $1::text::jsonb,"
        " attempts_n = $2", attempts, UNKNOWN_MOST
    )  # fmt: skip
    assert (await replayed(alice, run))["attempt"] == UNKNOWN_MOST + 1


def test_only_what_was_tried_since_a_replay_counts():
    now = now_ms()
    run = run_of(definition(), now - DAY, attempts=unknown(3, now - DAY))
    assert len(run.tries) == 3
    run.replayed_at = now
    assert run.tries == []
    run.attempts = [*run.attempts, Attempt(4, "failed", now, now + 5)]
    assert [a.number for a in run.tries] == [4]


# No rule about lateness --------------------------------------------------------------------------


@pytest.fixture
async def database(database_url: str):
    made = Database(database_url, config.Database())
    yield made
    await made.close()


async def settled(database: Database, of: Any, at: int) -> Any:
    """A finished run of a task that is stored, due at `at`."""
    run = planning.new_run(of, at)
    run.claimed_by = ME
    await enqueue(database, run)
    async with database.engine.begin() as c:
        held = next(r for r in await queue.adopt(c, ME) if r.id == run.id)
        await queue.settle(c, ME, [ended(held)])
    return run


async def replay(database: Database, of: Any, *ids: UUID, retries: int = 0) -> list[UUID]:
    async with database.engine.begin() as c:
        stance = planner.stance_of(of)
        wanted = [Again(run, of.key, stance, retries) for run in ids]
        return await replays.replay(c, of.service_id, wanted, utc(now_ms()))


@pytest.mark.parametrize("overlap", ["skip", "queue", "allow"])
async def test_no_rule_about_lateness_skips_a_replay(database, conn, overlap):
    now = now_ms()
    of = definition(overlap=overlap, misfire="skip")
    async with database.engine.begin() as c:
        await task.create(c, of)
    run = await settled(database, of, now - DAY)
    assert await replay(database, of, run.id) == [run.id]
    await enqueue(database, planning.new_run(of, now - 2 * MINUTE))  # a later one, due
    await conn.execute("UPDATE run SET due = due - interval '1 h'")
    assert await sweep(database, now) == (overlap != "queue")
    async with database.engine.begin() as c:
        await skips.skip_overlapped(c, [(of.key, 0, now)], utc(now))
        await skips.cut_queues(c, [of.key], 0, utc(now))
        await skips.sweep_misfired(c, [Judgement(of.key, now, latest=False)], utc(now))
        await lines.take_back(c, of.line, utc(0))
    assert [r["id"] for r in await conn.fetch("SELECT id FROM run")] == [run.id]


async def test_a_replay_goes_first_in_its_line(database):
    now = now_ms()
    of = definition(overlap="queue")
    run = await settled(database, of, now - DAY)
    await enqueue(database, planning.new_run(of, now - 100), planning.new_run(of, now - 2000))
    await replay(database, of, run.id)
    assert [r.id for r in await claim(database, now_ms())] == [run.id]
    assert await claim_late(database, now) == []


async def test_a_replay_of_what_was_cancelled_ahead_waits_for_nothing_to_come(database, conn):
    now = now_ms()
    of = definition(overlap="queue")
    run = await settled(database, of, now + 2 * MINUTE)
    await enqueue(database, planning.new_run(of, now + MINUTE))
    await replay(database, of, run.id)
    await conn.execute("UPDATE run SET attempts = '[]', attempts_n = 0")  # it never started
    assert [r.id for r in await claim(database, now_ms())] == [run.id]


def test_the_end_of_a_replay_skips_nothing_that_fell_due_before_it():
    """Between its first end and its replay it stood in nobody's way."""
    now = now_ms()
    of = definition(trigger=Interval(1, "minute", now - DAY))
    run = run_of(of, now - DAY, attempts=[Attempt(1, "failed", now - DAY, now - DAY)])
    work = Work(of, HttpPerformer, 0)
    assert _overlapped(run, work, now) == (of.key, now - DAY, now)
    run.replayed_at = now - 90_000
    run.attempts = [*run.attempts, Attempt(2, "succeeded", now - 80_000, now)]
    assert _overlapped(run, work, now) == (of.key, now - 80_000, now)


async def test_several_are_replayed_at_once_and_what_is_live_stays(database, conn):
    now = now_ms()
    of = definition(overlap="allow")
    runs = [await settled(database, of, now - n * 1000) for n in range(1, 6)]
    live = planning.new_run(of, now)
    await enqueue(database, live)
    moved = await replay(database, of, *(r.id for r in runs), live.id, uuid.uuid4(), retries=2)
    assert set(moved) == {r.id for r in runs}
    rows = await conn.fetch("SELECT max_retries, attempts_n FROM run WHERE id = ANY($1)", moved)
    assert {tuple(r) for r in rows} == {(2, 1)}
    assert await replay(database, of, *moved) == []
