"""Cancel: what has not started ends at once, a call is cut short, and an outcome stands."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import msgspec
import pytest
from sqlalchemy import text

from conftest import App, eventually
from receiver import Receiver
from scheduler import config, lines, planning, queue
from scheduler.db import Database, utc
from scheduler.engine import Engine
from scheduler.run import run_id
from scheduler.triggers import Once
from test_dispatcher import arrived, no_run_left, past, stored
from test_queue import ALICE, ME, claim, definition, enqueue, now_ms, tried

CUT = "someone cancelled it; the call may have arrived"


async def create(
    client: httpx.AsyncClient, receiver: Receiver, task_id: str = "t", **fields
) -> str:
    body = {"id": task_id, "name": task_id, "url": f"{receiver.url}/{task_id}", **fields}
    answer = await client.post("/tasks", json=body)
    assert answer.status_code == 201, answer.text
    return task_id


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def claiming_early(engine: Engine) -> None:
    """Let it hold a run for long enough that what is asked meanwhile arrives."""
    claims = engine.dispatcher._claims
    claims._settings = msgspec.structs.replace(claims._settings, ahead_seconds=5)


async def only_run(conn: asyncpg.Connection) -> UUID:
    """The id of the one live run."""
    (row,) = await conn.fetch("SELECT id FROM run")
    return row["id"]


async def shown(client: httpx.AsyncClient, run: UUID) -> dict[str, Any]:
    return (await client.get(f"/runs/{run}")).json()


async def ends(client: httpx.AsyncClient, run: UUID, state: str) -> dict[str, Any]:
    async def check() -> dict[str, Any]:
        now = await shown(client, run)
        assert now["state"] == state, now
        return now

    return await eventually(check)


async def test_a_run_that_nobody_has_claimed_ends_at_once(alice, conn, receiver):
    await create(alice, receiver, scheduled_at=soon(30))
    run = await only_run(conn)
    answer = await alice.post(f"/runs/{run}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert answer.json()["reason"] == "someone cancelled it"
    assert answer.json()["attempts"] == []
    assert await conn.fetchval("SELECT count(*) FROM run") == 0
    again = await alice.post(f"/runs/{run}/cancel")
    assert again.status_code == 409
    assert "cancelled" in again.json()["error"]["message"]


async def test_a_run_that_is_held_here_ends_at_once_and_is_never_sent(app, alice, conn, receiver):
    claiming_early(app.engine)
    await create(alice, receiver, scheduled_at=soon(2.5))
    run = await only_run(conn)

    def held() -> None:
        assert app.engine.dispatcher.holds(run)

    await eventually(held)
    answer = await alice.post(f"/runs/{run}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    await past(app.engine, now_ms() + 2600)
    assert receiver.requests == []


@pytest.fixture
async def there(app: App, replica: Any) -> Engine:
    """Another replica, that the program knows of; the program itself claims nothing."""
    other: Engine = await replica()
    await app.engine._beat()
    await other.signals.listening.wait()
    app.engine.dispatcher._claims._services = []
    app.engine.dispatcher.begin_stop()
    return other


async def test_a_run_that_another_replica_holds_ends_at_once_by_notify(
    app, there, alice, conn, receiver
):
    claiming_early(there)
    await create(alice, receiver, scheduled_at=soon(2.5))
    run = await only_run(conn)

    def held() -> None:
        assert there.dispatcher.holds(run)

    await eventually(held)
    answer = await alice.post(f"/runs/{run}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    await past(there, now_ms() + 2600)
    assert receiver.requests == []


async def test_a_call_of_another_replica_that_hears_nothing_is_cut_short_at_its_beat(
    app, there, alice, conn, receiver
):
    app.engine.signals._send = lambda _payload: None
    receiver.then(after=asyncio.Event())
    await create(alice, receiver, scheduled_at=soon(0.1))
    run = await only_run(conn)
    await eventually(arrived(receiver, 1))
    answer = await alice.post(f"/runs/{run}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "running")
    assert (await shown(alice, run))["state"] == "running"
    await there._beat()
    assert (await ends(alice, run, "cancelled"))["reason"] == CUT


async def test_a_call_of_another_replica_is_cut_short_by_notify(app, there, alice, conn, receiver):
    receiver.then(after=asyncio.Event())
    await create(alice, receiver, scheduled_at=soon(0.1))
    run = await only_run(conn)
    await eventually(arrived(receiver, 1))
    there._ticks.pause()  # no beat
    assert (await alice.post(f"/runs/{run}/cancel")).status_code == 202
    assert (await ends(alice, run, "cancelled"))["reason"] == CUT


async def test_a_call_under_way_is_cut_short_and_its_attempt_says_so(alice, conn, receiver):
    receiver.then(after=asyncio.Event())
    await create(alice, receiver)
    answer = await alice.post("/tasks/t/execute?async=true")
    run = UUID(answer.json()["id"])
    await eventually(arrived(receiver, 1))
    for _ in range(2):  # the second finds it under way, or ended
        answer = await alice.post(f"/runs/{run}/cancel")
        assert answer.status_code in (202, 409)
    ended = await ends(alice, run, "cancelled")
    assert ended["reason"] == CUT
    (attempt,) = ended["attempts"]
    assert (attempt["number"], attempt["outcome"], attempt["error"]) == (1, "cancelled", CUT)
    assert ended["started_at"] == attempt["started_at"]
    listed = (await alice.get("/tasks/t/executions")).json()["records"]
    assert [(e["status"], e["error"]) for e in listed] == [("failed", CUT)]
    # The worker is as good as new: its next call times out, and is no second cancel.
    receiver.then(after=asyncio.Event())
    await alice.patch("/tasks/t", json={"timeout_seconds": 0.2})
    execution = (await alice.post("/tasks/t/execute")).json()
    assert "cancel" not in execution["error"]


async def test_a_worker_whose_call_was_cut_twice_still_tells_a_timeout_from_a_cancel(
    run_app, conn, receiver
):
    async with run_app(WORKER_COUNT="1") as app, app.client("alice") as alice:
        await create(alice, receiver, timeout_seconds=0.3, max_retries=0)
        for _ in range(3):
            receiver.then(after=asyncio.Event())
            answer = await alice.post("/tasks/t/execute?async=true")
            run = UUID(answer.json()["id"])
            seen = len(receiver.requests)
            await eventually(arrived(receiver, seen or 1))
            for _ in range(3):
                app.engine.dispatcher.cancel(run)
            await ends(alice, run, "cancelled")
        receiver.then(after=asyncio.Event())
        execution = (await alice.post("/tasks/t/execute")).json()
        assert execution["status"] == "failed"
        assert "cut short" not in execution["error"]
        assert "cancel" not in execution["error"]


async def test_a_run_that_waits_for_a_retry_ends_with_its_attempts(alice, conn, receiver):
    receiver.then(503, body="not yet", headers={"Retry-After": "60"})
    await create(alice, receiver, scheduled_at=soon(-1), max_retries=3)
    run = await only_run(conn)
    before = await ends(alice, run, "retrying")
    answer = await alice.post(f"/runs/{run}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    after = answer.json()
    assert after["reason"] == "someone cancelled it"
    assert after["attempts"] == before["attempts"]
    assert after["started_at"] == before["attempts"][0]["started_at"]
    assert (after["attempt"], after["attempts"][0]["response"]) == (1, "not yet")


async def test_the_outcome_that_came_first_stands(alice, conn, receiver):
    await create(alice, receiver)
    execution = (await alice.post("/tasks/t/execute")).json()
    answer = await alice.post(f"/runs/{execution['run_id']}/cancel")
    assert answer.status_code == 409
    assert (await shown(alice, execution["run_id"]))["state"] == "succeeded"


async def test_an_outcome_that_is_not_written_yet_stands(app, alice, conn, database_url, receiver):
    """The call has ended; its row is still there when the cancel comes."""
    await create(alice, receiver)
    other = await asyncpg.connect(database_url)
    block = other.transaction()
    await block.start()
    await other.execute("LOCK TABLE history IN SHARE MODE")
    run = UUID((await alice.post("/tasks/t/execute?async=true")).json()["id"])

    def performed() -> None:
        assert app.engine.settler.unsettled

    await eventually(performed)
    await conn.execute("UPDATE run SET cancelled = true WHERE id = $1", run)
    app.engine.dispatcher.cancel(run)
    await block.rollback()
    await other.close()
    assert (await ends(alice, run, "succeeded"))["reason"] is None


async def test_a_retry_that_is_not_written_yet_does_not_wait_for_its_time(
    app, alice, conn, database_url, receiver
):
    marked = asyncio.Event()
    receiver.then(503, headers={"Retry-After": "600"}, after=marked)
    await create(alice, receiver, max_retries=3)
    other = await asyncpg.connect(database_url)
    block = other.transaction()
    await block.start()
    run = UUID((await alice.post("/tasks/t/execute?async=true&retry=true")).json()["id"])
    await other.execute("UPDATE run SET cancelled = true WHERE id = $1", run)
    marked.set()

    def performed() -> None:
        assert app.engine.settler.unsettled

    await eventually(performed)
    await block.commit()
    await other.close()
    ended = await ends(alice, run, "cancelled")
    assert (len(receiver.requests), ended["attempt"]) == (1, 1)


async def test_a_cancel_that_comes_while_its_claim_is_answered_is_heard(
    app, alice, conn, receiver, monkeypatch
):
    """Alone: nobody is told by NOTIFY, and the run is in no memory yet."""
    app.engine._ticks.pause()
    prepare, answered = app.engine.runner.prepare, []

    async def prepare_slowly(*values: Any) -> None:
        if not answered:
            run = values[1][0].id
            answered.append((await alice.post(f"/runs/{run}/cancel")).status_code)
        await prepare(*values)

    monkeypatch.setattr(app.engine.runner, "prepare", prepare_slowly)
    monkeypatch.setattr("scheduler.runs.actions.SETTLED_S", 0.0)
    await create(alice, receiver, scheduled_at=soon(0.9))
    run = await only_run(conn)
    assert (await ends(alice, run, "cancelled"))["attempts"] == []
    assert answered == [202]
    await past(app.engine, now_ms() + 1000)
    assert receiver.requests == []


async def test_a_cancelled_run_that_is_given_back_and_claimed_again_ends(replica, conn, receiver):
    engine = await replica()
    of = definition(trigger=Once(now_ms() + 500), url=receiver.url)
    made = run_id(of.key, of.bucket, "task", of.trigger.at)
    async with engine.dispatcher._claiming:
        await stored(engine.database, of)
        await conn.execute("UPDATE run SET cancelled = true WHERE id = $1", made)
    await eventually(lambda: no_run_left(conn))
    assert await conn.fetchval("SELECT state FROM history WHERE id = $1", made) == "cancelled"
    await past(engine, of.trigger.at)
    assert receiver.requests == []


async def test_a_run_of_a_replica_that_died_after_the_cancel_ends_cancelled(
    replica, conn, receiver
):
    engine = await replica()
    of = definition(trigger=Once(now_ms() - 100), url=receiver.url)
    await stored(engine.database, definition("other"), of)
    run = planning.new_run(of, now_ms() - 100)
    run.claimed_by = ME
    await enqueue(engine.database, run)
    await conn.execute("UPDATE run SET cancelled = true")
    async with engine.database.engine.begin() as c:
        await queue.free(c, [ME], utc(now_ms()), utc(now_ms() - 1500))
    await eventually(lambda: no_run_left(conn))
    row = await conn.fetchrow("SELECT state, reason FROM history WHERE id = $1", run.id)
    assert tuple(row) == ("cancelled", CUT)
    assert receiver.requests == []


async def test_a_run_released_between_the_two_halves_of_a_cancel_is_not_missed(
    app, alice, conn, database_url, receiver
):
    app.engine.dispatcher.begin_stop()
    await create(alice, receiver, scheduled_at=soon(30))
    run = await only_run(conn)
    await conn.execute("UPDATE run SET claimed_by = $1", ME)
    other = await asyncpg.connect(database_url)
    block = other.transaction()
    await block.start()
    await other.execute("UPDATE run SET claimed_by = NULL")  # its holder is just giving it back
    cancelling = asyncio.create_task(alice.post(f"/runs/{run}/cancel"))

    async def waits() -> None:
        assert await conn.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")

    await eventually(waits)
    await block.commit()
    await other.close()
    answer = await cancelling
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")


async def test_a_cancelled_instant_stays_cancelled_whatever_is_edited(alice, conn, receiver):
    at = datetime.now(UTC) + timedelta(seconds=20)
    await create(alice, receiver, frequency=10, unit="second", scheduled_at=at.isoformat())
    run = await conn.fetchval("SELECT id FROM run ORDER BY scheduled_for OFFSET 1 LIMIT 1")
    assert (await alice.post(f"/runs/{run}/cancel")).status_code == 200
    for edit in ({"name": "x"}, {"status": "paused"}, {"status": "active"}, {"overlap": "allow"}):
        assert (await alice.patch("/tasks/t", json=edit)).status_code == 200
    assert await conn.fetchval("SELECT count(*) FROM run WHERE id = $1", run) == 0
    assert await conn.fetchval("SELECT count(*) FROM run") >= 3
    assert (await shown(alice, run))["state"] == "cancelled"


async def test_only_a_run_of_ones_own_can_be_cancelled(alice, bob, conn, receiver):
    await create(alice, receiver, scheduled_at=soon(30))
    run = await only_run(conn)
    for client, key in ((bob, run), (alice, uuid.uuid4()), (alice, "x"), (alice, "0" * 32)):
        answer = await client.post(f"/runs/{key}/cancel")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert await only_run(conn) == run
    async with asyncio.timeout(5):
        answer = await alice.get(f"/runs/{run}")
    assert answer.json()["state"] == "scheduled"


async def test_a_cancel_names_what_ended_here_and_what_its_holder_ends(database_url, conn):
    database, now = Database(database_url, config.Database()), now_ms()
    of = definition(overlap="allow")
    runs = [planning.new_run(of, now + at) for at in (-1000, -500, 900, 30_000)]
    await enqueue(database, *runs)
    held = await claim(database, now, room=3)
    async with database.engine.begin() as c:
        await queue.retry(c, ME, [tried(held[0], now + 5000)])
        every = [run.id for run in runs]
        done, marked = await lines.cancel(c, ALICE, every, utc(now))
        assert set(done) == {runs[0].id, runs[3].id}
        assert {m.id: m.running for m in marked} == {runs[1].id: True, runs[2].id: False}
        assert await lines.cancel(c, uuid.uuid4(), every, utc(now)) == ([], [])
        assert set(await queue.cancelled(c, ME)) == {runs[1].id, runs[2].id}
        left = (await c.execute(text("SELECT count(*) FROM history"))).scalar_one()
        assert left == 2
    await database.close()
