"""Who asked for a process is told of its end, once, whatever happens; and how processes go."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from standardwebhooks import Webhook

from conftest import eventually
from process_calls import AT, called, ended, ready
from receiver import Received, Receiver
from scheduler import config, queue
from scheduler.admin import acts
from scheduler.db import Database, rfc3339, utc
from scheduler.processes import creating, model
from scheduler.processes.callback import BATCH, Callbacks
from scheduler.processes.model import Process
from scheduler.processes.retention import Retention
from scheduler.run import NewRun

SERVICE = UUID(int=7)


async def told(receiver: Receiver, count: int = 1, within: float = 8) -> list[Received]:
    """The callbacks, once there are so many."""

    def look() -> list[Received]:
        found = receiver.to("/ended")
        assert len(found) >= count
        return found

    found: list[Received] = await eventually(look, within)
    assert len(found) == count
    return found


def payload(request: Received) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(request.body)
    return found


async def test_the_end_is_told_by_a_signed_post(app, alice, receiver):
    await ready(app, receiver.url, "GET /a")
    receiver.then(206, b"\x00\xff exactly", {"Content-Type": "image/png"})
    trace_id = await called(alice, callback_url=f"{receiver.url}/ended")
    (request,) = await told(receiver)
    assert request.method == "POST"
    assert request.header("Content-Type") == "application/json"
    assert payload(request) == {
        "trace_id": trace_id,
        "status": "SUCCESS",
        "response_status": 206,
        "response": base64.b64encode(b"\x00\xff exactly").decode(),
    }
    secret = await acts.signing_secret(app.database, "alice")
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    Webhook(secret).verify(
        request.body, {name: request.header(name) or "" for name in names}, json_parse=False
    )

    async def shown() -> None:
        runs = (await alice.get("/runs?kind=process")).json()["runs"]
        assert [run["state"] for run in runs] == ["succeeded", "succeeded"]
        assert {run["trace_id"] for run in runs} == {trace_id}
        assert request.header("webhook-id") in {run["id"] for run in runs}

    await eventually(shown)


async def test_a_failure_is_told_with_what_was_answered(app, alice, receiver):
    await ready(app, receiver.url, "GET /a")
    receiver.then(410, b"gone")
    await called(alice, callback_url=f"{receiver.url}/ended")
    (request,) = await told(receiver)
    sent = payload(request)
    assert (sent["status"], sent["response_status"]) == ("ERROR", 410)
    assert base64.b64decode(sent["response"]) == b"gone"

    await called(alice, service="nobody", callback_url=f"{receiver.url}/ended")
    sent = payload((await told(receiver, 2))[1])
    assert (sent["status"], sent["response_status"], sent["response"]) == ("ERROR", None, None)


async def test_a_long_answer_is_told_whole(app, alice, receiver):
    await ready(app, receiver.url, "GET /a")
    large = bytes(range(256)) * (5 << 12)
    receiver.then(200, large)
    await called(alice, callback_url=f"{receiver.url}/ended")
    (request,) = await told(receiver)
    assert base64.b64decode(payload(request)["response"]) == large


async def test_telling_is_tried_again_and_changes_nothing_of_the_process(app, alice, receiver):
    await ready(app, receiver.url, "GET /a")
    receiver.then(200, b"fine").then(500).then(400)
    trace_id = await called(alice, callback_url=f"{receiver.url}/ended")
    first, second = await told(receiver, 2)
    assert first.body == second.body
    assert first.header("webhook-id") == second.header("webhook-id")

    async def failed() -> None:
        runs = (await alice.get("/runs?kind=process")).json()["runs"]
        assert sorted(run["state"] for run in runs) == ["failed", "succeeded"]

    await eventually(failed)
    assert (await ended(alice, trace_id))["status"] == "SUCCESS"
    assert (await alice.get(f"{AT}/{trace_id}/response")).content == b"fine"


async def test_telling_is_tried_again_whatever_the_setting_of_the_worker(run_app, receiver):
    async with run_app(WORKER_MAX_RETRIES="0") as app, app.client("alice") as alice:
        await ready(app, receiver.url, "GET /a")
        receiver.then(200).then(503)
        await called(alice, callback_url=f"{receiver.url}/ended")
        await told(receiver, 2)


async def test_what_is_cancelled_before_it_is_due_is_told_of(app, alice, receiver):
    at = app.engine.clock.now_ms() + 60_000
    trace_id = await called(alice, callback_url=f"{receiver.url}/ended", scheduled_at=rfc3339(at))
    (run,) = (await alice.get("/runs?kind=process")).json()["runs"]
    assert (await alice.post(f"/runs/{run['id']}/cancel")).status_code == 200
    (request,) = await told(receiver, within=20)
    assert payload(request)["trace_id"] == trace_id


async def test_two_replicas_tell_once(app, alice, receiver, replica):
    await replica()
    await replica()
    await ready(app, receiver.url, "GET /a")
    made = [
        await called(alice, callback_url=f"{receiver.url}/ended", query_params={"n": n})
        for n in range(30)
    ]
    requests = await told(receiver, len(made))
    assert sorted(payload(each)["trace_id"] for each in requests) == sorted(made)


async def test_what_was_not_told_before_a_crash_is_told_after_it(app, alice, receiver, conn):
    await ready(app, receiver.url, "GET /a")
    trace_id = await called(alice)
    await ended(alice, trace_id)
    # As the process stands between the end of its run and the making of the callback's.
    await conn.execute("UPDATE process SET callback_url = $1", f"{receiver.url}/ended")
    (request,) = await told(receiver)
    assert payload(request)["trace_id"] == trace_id


# Many ---------------------------------------------------------------------------------------------

DAY_MS = 86_400_000


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database where nothing happens by itself."""
    made = Database(database_url, config.Database())
    yield made
    await made.close()


async def stored(database: Database, count: int, at: int, *, live: bool, **more: Any) -> None:
    """Have processes of a service that were due at `at` (ms), and whose runs are live, or gone."""
    runs: list[NewRun] = []
    async with database.engine.begin() as conn:
        for n in range(count):
            of = Process(
                key=uuid4(),
                bucket=n % 1024,
                service_id=SERVICE,
                trace_id=uuid4().hex[:16],
                service="x",
                method="GET",
                endpoint="/a",
                headers={},
                scheduled_at=at,
                **{"callback_url": "http://127.0.0.1:1/", "created_at": at, **more},
            )
            await model.insert(conn, of, database.vault)
            runs.append(creating.run_of(of))
        if live:
            await queue.enqueue(conn, runs, utc(at))


async def test_what_waits_for_its_end_stands_before_nobody_however_many_wait(database, conn):
    woken: list[int] = []
    now = int(time.time() * 1000)
    await stored(database, BATCH + 50, now - 9000, live=True)
    await stored(database, 20, now - 8000, live=False)
    await stored(database, 20, now + DAY_MS, live=True)
    both = [Callbacks(database, woken.append) for _ in range(2)]
    for _ in range(2):
        await asyncio.gather(*(each.walk() for each in both))
    assert await conn.fetchval("SELECT count(*) FROM process WHERE called_at IS NOT NULL") == 20
    begun, day = now / 1000 - 1, now / 1000 + 3600
    recent = "scheduled_for BETWEEN to_timestamp($1) AND to_timestamp($2)"
    made = await conn.fetch(f"SELECT * FROM run WHERE {recent}", begun, day)
    assert len(made) == 20
    assert {(run["kind"], run["overlap"]) for run in made} == {("process", "allow")}
    assert woken


async def test_processes_go_with_what_history_keeps_of_their_runs(database, conn):
    now = int(time.time() * 1000)
    old, new = now - 60 * DAY_MS, now
    await stored(database, BATCH + 10, old, live=False)
    await stored(database, 3, old, live=True, callback_url=None)
    await stored(database, 2, new, live=False)
    await Retention(database).step()
    left = await conn.fetch("SELECT scheduled_at FROM process ORDER BY scheduled_at")
    assert [row["scheduled_at"] for row in left] == [utc(old)] * 3 + [utc(new)] * 2


async def test_a_process_stays_while_its_run_is_in_history_or_its_end_is_being_told(database, conn):
    now = int(time.time() * 1000)
    old = now - 60 * DAY_MS
    await stored(database, 2, old, live=True, callback_url=None)
    await conn.execute("""
        WITH d AS (DELETE FROM run RETURNING *)
        INSERT INTO history (id, bucket, service_id, task_key, task_id, kind, version,
            scheduled_for, state, attempts, attempts_n, created_at, finished_at, truncated, count)
        SELECT id, bucket, service_id, task_key, task_id, kind, version, scheduled_for,
            'succeeded', attempts, attempts_n, created_at, now(), false, 1 FROM d""")
    await stored(database, 1, old, live=False)
    await Callbacks(database, lambda _: None).walk()
    await Retention(database).step()
    assert await conn.fetchval("SELECT count(*) FROM process") == 3


async def test_a_services_processes_are_removed_in_pieces(database, conn):
    await stored(database, 5, 0, live=False)
    async with database.engine.begin() as connection:
        assert await model.remove_service(connection, SERVICE, 3)
        assert not await model.remove_service(connection, SERVICE, 3)
    assert await conn.fetchval("SELECT count(*) FROM process") == 0
