"""What a service may use: tasks, runs a minute, runs in flight, and the size of a body."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import App, RunApp, eventually
from receiver import Receiver
from scheduler import config
from scheduler.errors import PayloadTooLarge
from scheduler.gate import Scale
from scheduler.service import Limits, Quotas

BEARER = {"Authorization": "Bearer admin-token"}
NOWHERE = "http://127.0.0.1:9/"


@pytest.fixture
async def app(run_app: RunApp) -> AsyncIterator[App]:
    async with run_app(ADMIN_TOKEN="admin-token") as started:
        yield started


async def limit(app: App, name: str, **quotas: int | None) -> dict[str, Any]:
    """Set quotas of a service; return it as the operator sees it."""
    async with app.client(**BEARER) as admin:
        answer = await admin.patch(f"/services/{name}", json=quotas)
        assert answer.status_code == 200, answer.text
        return answer.json()


def refused(answer: httpx.Response, quota: str) -> int:
    """Check a 429 that names the quota; return the seconds of Retry-After."""
    assert answer.status_code == 429, answer.text
    error = answer.json()["error"]
    assert error["code"] == "too_many_requests"
    assert quota in error["message"]
    return int(answer.headers["Retry-After"])


async def create(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post("/tasks", json={"name": "x", "url": NOWHERE, **fields})


@asynccontextmanager
async def two_replicas(run_app: RunApp, **more: str) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Clients of alice at two programs on one database."""
    async with (
        run_app(**more) as one,
        run_app(**more) as two,
        one.client("alice") as first,
        two.client("alice") as second,
    ):
        yield [first, second]


# Which limit holds -------------------------------------------------------------------------------


@given(own=st.none() | st.integers(0, 9), setting=st.integers(0, 9))
def test_a_services_own_quota_comes_before_the_settings(own, setting):
    limits = Quotas(max_tasks=own).within(config.Quotas(max_tasks=setting))
    most = setting if own is None else own
    assert limits == Limits(max_tasks=most, max_kept_bytes=config.Quotas().max_kept_bytes)


async def test_the_settings_hold_where_a_service_has_none_of_its_own(run_app):
    more = {"ADMIN_TOKEN": "admin-token", "QUOTAS_MAX_TASKS": "1"}
    async with run_app(**more) as app, app.client("alice") as alice, app.client("bob") as bob:
        assert (await limit(app, "bob", max_tasks=0))["limits"]["max_tasks"] == 0
        for client in (alice, bob):
            assert (await create(client)).status_code == 201
        refused(await create(alice), "max_tasks")
        assert (await create(bob)).status_code == 201
        shown = await limit(app, "bob", max_tasks=None)
        assert (shown["max_tasks"], shown["limits"]["max_tasks"]) == (None, 1)
        refused(await create(bob), "max_tasks")


async def test_the_anonymous_service_has_its_limits_too(run_app):
    more = {"AUTH_ANONYMOUS_SERVICE": "alice", "QUOTAS_MAX_TASKS": "1"}
    async with run_app(**more) as app, app.client() as anyone:
        assert (await create(anyone)).status_code == 201
        refused(await create(anyone), "max_tasks")


# Tasks -------------------------------------------------------------------------------------------


async def test_no_more_tasks_than_allowed_are_created_however_many_try(app, alice, bob):
    await limit(app, "alice", max_tasks=5)
    answers = await asyncio.gather(*(create(alice) for _ in range(20)))
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [201] * 5 + [429] * 15
    assert refused(answers[[a.status_code for a in answers].index(429)], "max_tasks") > 0
    assert len((await alice.get("/tasks")).json()) == 5
    assert (await create(bob)).status_code == 201


async def test_two_replicas_keep_one_limit_of_tasks(run_app):
    async with two_replicas(run_app, QUOTAS_MAX_TASKS="6") as clients:
        answers = await asyncio.gather(*(create(client) for client in clients * 10))
    assert sum(a.status_code == 201 for a in answers) == 6


async def test_a_deleted_task_makes_room(app, alice):
    await limit(app, "alice", max_tasks=1)
    made = await create(alice)
    refused(await create(alice), "max_tasks")
    await alice.delete(f"/tasks/{made.json()['id']}")
    assert (await create(alice)).status_code == 201


# Runs a minute -----------------------------------------------------------------------------------


async def execute(client: httpx.AsyncClient, **headers: str) -> httpx.Response:
    return await client.post("/tasks/t/execute?async=true", headers=headers)


async def with_task(client: httpx.AsyncClient, receiver: Receiver, **fields: Any) -> None:
    made = await create(client, id="t", url=receiver.url, overlap="allow", **fields)
    assert made.status_code == 201, made.text


@pytest.mark.parametrize("trigger", [{}, {"frequency": 1, "unit": "day"}])
async def test_schedule_counts_once_for_each_time_whatever_the_trigger(
    app, alice, receiver, trigger
):
    await with_task(alice, receiver, **trigger)
    await limit(app, "alice", max_runs_per_minute=2)
    for at in ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z", "2090-01-01T00:00:00Z"):
        answer = await alice.post("/tasks/t/schedule", json={"at": at})
        assert answer.status_code == 200, answer.text
    over = await alice.post("/tasks/t/schedule", json={"at": "2020-01-02T00:00:00Z"})
    refused(over, "max_runs_per_minute")


async def test_runs_by_hand_beyond_the_minutes_are_refused_until_some_leaked(
    app, alice, receiver, conn
):
    await with_task(alice, receiver)
    await limit(app, "alice", max_runs_per_minute=3)
    for _ in range(3):
        assert (await execute(alice)).status_code == 202
    wait = refused(await execute(alice), "max_runs_per_minute")
    assert 18 <= wait <= 20

    async def passes(seconds: int) -> None:
        await conn.execute(f"UPDATE service_usage SET at = at - interval '{seconds} seconds'")

    await passes(wait)
    assert (await execute(alice)).status_code == 202
    refused(await execute(alice), "max_runs_per_minute")
    await passes(3600)  # an hour of rest is no more than a full minute's worth
    answers = [(await execute(alice)).status_code for _ in range(4)]
    assert answers == [202, 202, 202, 429]


async def test_runs_a_minute_are_exact_across_replicas(run_app, receiver):
    async with two_replicas(run_app, QUOTAS_MAX_RUNS_PER_MINUTE="7") as clients:
        await with_task(clients[0], receiver)
        answers = await asyncio.gather(*(execute(client) for client in clients * 8))
    assert sorted(a.status_code for a in answers) == [202] * 7 + [429] * 9


async def test_what_made_no_run_takes_none(app, alice, receiver):
    await with_task(alice, receiver)
    await limit(app, "alice", max_runs_per_minute=2)
    assert (await alice.patch("/tasks/t", json={"status": "disabled"})).status_code == 200
    for _ in range(3):
        assert (await execute(alice)).status_code == 409
    await alice.patch("/tasks/t", json={"status": "active"})
    for _ in range(3):  # the same key is the same run
        assert (await execute(alice, **{"Idempotency-Key": "one"})).status_code == 202
    assert (await execute(alice)).status_code == 202
    refused(await execute(alice), "max_runs_per_minute")


async def ended_badly(client: httpx.AsyncClient, n: int) -> list[str]:
    """Execute so often; return the runs once they have failed."""
    for _ in range(n):
        assert (await execute(client)).status_code == 202

    async def check() -> list[str]:
        found = (await client.get("/runs", params={"state": "failed"})).json()["runs"]
        assert len(found) == n
        return [run["id"] for run in found]

    return await eventually(check)


async def test_a_replay_is_a_run_by_hand_and_what_moves_nothing_takes_none(app, alice, receiver):
    receiver.then(400).then(400)
    await with_task(alice, receiver)
    first, second = await ended_badly(alice, 2)
    await limit(app, "alice", max_runs_per_minute=1)
    await alice.patch("/tasks/t", json={"status": "disabled"})
    assert (await alice.post(f"/runs/{first}/replay")).status_code == 409
    await alice.patch("/tasks/t", json={"status": "active"})
    assert (await alice.post(f"/runs/{first}/replay")).status_code == 202
    refused(await alice.post(f"/runs/{second}/replay"), "max_runs_per_minute")
    assert (await alice.get(f"/runs/{second}")).json()["state"] == "failed"


async def test_a_replay_by_filter_goes_as_far_as_the_quota_and_says_what_is_left(
    app, alice, receiver, conn
):
    for _ in range(5):
        receiver.then(400)
    await with_task(alice, receiver)
    await ended_badly(alice, 5)
    await limit(app, "alice", max_runs_per_minute=3)
    for done, left in ((3, 2), (2, 0)):
        found = (await alice.post("/runs/replay", json={"state": "failed"})).json()
        assert (found["matched"], found["done"], found["more"]) == (done + left, done, left > 0)
        assert [(n, "max_runs_per_minute" in why) for why, n in found["refused"].items()] == (
            [(left, True)] if left else []
        )
        await conn.execute("UPDATE service_usage SET at = at - interval '1 hour'")


async def test_the_runs_of_triggers_are_not_counted(app, alice, receiver):
    await limit(app, "alice", max_runs_per_minute=1)
    await with_task(alice, receiver, frequency=1, unit="second")
    await eventually(lambda: receiver.requests[1])
    assert (await execute(alice)).status_code == 202


async def test_the_operator_sees_how_much_is_used(app, alice, receiver):
    await with_task(alice, receiver)
    await limit(app, "alice", max_runs_per_minute=10)
    for _ in range(4):
        await execute(alice)
    async with app.client(**BEARER) as admin:
        usage = (await admin.get("/services/alice")).json()["usage"]
    assert (usage["tasks"], usage["runs_per_minute"]) == (1, 4)


# In flight ---------------------------------------------------------------------------------------


async def test_no_run_by_hand_starts_while_so_many_are_under_way(app, alice, bob, receiver, conn):
    await with_task(alice, receiver)
    for n in range(6):
        await create(alice, id=f"t{n}", url=receiver.url)
    await limit(app, "alice", max_in_flight=2)
    gate = asyncio.Event()
    for _ in range(3):
        receiver.then(after=gate)

    many = (alice.post(f"/tasks/t{n}/execute?async=true") for n in range(6))
    answers = await asyncio.gather(*many)

    assert sorted(a.status_code for a in answers) == [202] * 2 + [429] * 4
    assert refused(await execute(alice), "max_in_flight") >= 1
    async with app.client(**BEARER) as admin:
        assert (await admin.get("/services/alice")).json()["usage"]["in_flight"] == 2
    await with_task(bob, receiver)
    assert (await execute(bob)).status_code == 202
    gate.set()

    async def again() -> None:
        assert (await execute(alice)).status_code == 202

    await eventually(again)


# Bodies ------------------------------------------------------------------------------------------


def of_size(size: int) -> bytes:
    body = b'{"name": "x", "url": "http://h/", "payload": "%s"}'
    return body % (b"x" * (size - len(body) + 2))


async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 1000):
        yield body[start : start + 1000]


async def test_a_larger_body_is_refused_announced_or_not(app, alice, bob):
    await limit(app, "alice", max_body_bytes=5000)
    for size, status in ((5000, 201), (5001, 413), (50_000, 413)):
        for content in (of_size(size), in_pieces(of_size(size))):
            answer = await alice.post("/tasks", content=content)
            assert answer.status_code == status, (size, answer.text)
            if status == 413:
                error = answer.json()["error"]
                assert error["code"] == "payload_too_large"
                assert "max_body_bytes, 5000" in error["message"]
    assert (await bob.post("/tasks", content=of_size(50_000))).status_code == 201


async def test_the_servers_own_limit_holds_besides(run_app):
    more = {"SERVER_MAX_BODY_BYTES": "2000", "QUOTAS_MAX_BODY_BYTES": "100000"}
    async with run_app(**more) as app, app.client("alice") as alice:
        answer = await alice.post("/tasks", content=of_size(3000))
        assert answer.status_code == 413
        assert "server.max_body_bytes" in answer.json()["error"]["message"]


@given(most=st.integers(0, 50), pieces=st.lists(st.binary(max_size=20)))
def test_a_body_is_weighed_to_the_byte(most, pieces):
    scale, total = Scale(most), 0
    for piece in pieces:
        total += len(piece)
        if total > most:
            with pytest.raises(PayloadTooLarge):
                scale.add(piece)
            return
        scale.add(piece)


def test_a_length_that_is_no_number_weighs_nothing():
    scale = Scale(10)
    for length in (None, "", "10", "-5", "ten", "\u0661\u0660"):
        scale.announced(length)
    for length in ("11", "9" * 5000):
        with pytest.raises(PayloadTooLarge):
            scale.announced(length)


async def test_without_quotas_nothing_is_written(alice, receiver, conn):
    await with_task(alice, receiver)
    assert (await execute(alice)).status_code == 202
    assert await conn.fetchval("SELECT count(*) FROM service_usage") == 0
