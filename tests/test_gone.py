"""A service that is deleted while something is made of it: nothing is left that fires for ever."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from conftest import App, RunApp, eventually
from receiver import Receiver
from scheduler.run import bucket_of
from test_admin import ADMIN, BEARER, error_of, rows
from test_locks import waiting


@pytest.fixture
async def app(run_app: RunApp) -> AsyncIterator[App]:
    async with run_app(ADMIN_TOKEN=ADMIN, AUTH_CACHE_SECONDS="0.5") as started:
        yield started


@pytest.fixture
async def admin(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with app.client(**BEARER) as client:
        yield client


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


def body(receiver: Receiver, task_id: str, **more: Any) -> dict[str, Any]:
    return {"id": task_id, "name": "n", "url": f"{receiver.url}/x", **more}


TAKE_ID = """
INSERT INTO task (key, bucket, service_id, id, version, name, tags, status, action, policy,
                  created_at, updated_at)
VALUES (gen_random_uuid(), $1, $2, 'z', 1, 'n', '[]', 'active', '{}', '{}', now(), now())
"""


@pytest.mark.parametrize("path", ["/tasks", "/tasks/bulk"])
async def test_tasks_being_created_when_their_service_goes_go_with_it(
    app, admin, bob, other, receiver, conn, path
):
    service = UUID(app.ids["bob"])
    made = [body(receiver, name, frequency=1, unit="second") for name in ("t", "z")]
    taking = other.transaction()
    await taking.start()
    await other.execute(TAKE_ID, bucket_of(service, "z"), service)  # the insert waits for this
    creating = asyncio.create_task(bob.post(path, json=made if "bulk" in path else made[1]))
    await waiting(conn)
    deleting = asyncio.create_task(admin.delete("/services/bob"))

    async def closed() -> None:
        live = "SELECT count(*) FROM token WHERE service_id = $1 AND revoked_at IS NULL"
        assert not await conn.fetchval(live, service)

    await eventually(closed)
    done, _ = await asyncio.wait([deleting], timeout=2)  # longer than a token is believed
    assert not done
    await taking.rollback()

    assert (await creating).status_code == 201
    assert (await deleting).status_code == 204
    assert not any((await rows(conn, str(service))).values())
    sent = len(receiver.requests)
    await eventually(lambda: not_held(app))
    assert len(receiver.requests) == sent


def not_held(app: App) -> None:
    assert not app.engine.dispatcher.held


CHANGES = {
    "execute": ("POST", "/tasks/t/execute?async=true", None),
    "schedule": ("POST", "/tasks/t/schedule", {"at": "2040-01-01T00:00:00Z"}),
    "replay": ("POST", "/runs/replay", {"state": "cancelled"}),
    "edit": ("PATCH", "/tasks/t", {"frequency": 2, "unit": "second"}),
}


async def ready(bob: httpx.AsyncClient, receiver: Receiver) -> None:
    """A task, a run of it that was cancelled, and one to come."""
    sent = body(receiver, "t", frequency=1, unit="day")
    assert (await bob.post("/tasks", json=sent)).status_code == 201
    for year in (2038, 2039):
        at = {"at": f"{year}-01-01T00:00:00Z"}
        made = (await bob.post("/tasks/t/schedule", json=at)).json()
    assert (await bob.post(f"/runs/{made['run_id']}/cancel")).status_code == 200


@pytest.mark.parametrize("change", CHANGES)
async def test_what_is_asked_of_a_task_when_its_service_goes_leaves_nothing(
    app, admin, bob, other, receiver, conn, change
):
    await ready(bob, receiver)
    method, path, sent = CHANGES[change]
    async with other.transaction():
        await other.execute("SELECT FROM task_plan FOR UPDATE")
        changing = asyncio.create_task(bob.request(method, path, json=sent))
        await waiting(conn)
        deleting = asyncio.create_task(admin.delete("/services/bob"))
        done, _ = await asyncio.wait([deleting], timeout=0.3)
        assert not done

    answer = await changing
    assert answer.status_code in (200, 202, 401, 404), answer.text
    assert (await deleting).status_code == 204
    assert not any((await rows(conn, app.ids["bob"])).values())


async def test_a_service_that_is_gone_is_unauthorized_though_its_token_is_still_believed(
    run_app, receiver, conn
):
    task = body(receiver, "new", frequency=1, unit="second")
    async with run_app(AUTH_CACHE_SECONDS="5") as app, app.client("bob") as bob:
        await ready(bob, receiver)
        await conn.execute("DELETE FROM service WHERE name = 'bob'")
        before = await rows(conn, app.ids["bob"])
        run = await conn.fetchval("SELECT id FROM history")
        for path, sent in (
            ("/tasks", task),
            ("/tasks/bulk", [task]),
            ("/tasks/t/schedule", {"at": "2040-01-01T00:00:00Z"}),
            (f"/runs/{run}/replay", None),
        ):
            error_of(await bob.post(path, json=sent), 401, "unauthorized")
        assert await rows(conn, app.ids["bob"]) == before

        async def execute() -> None:  # what signs a call is believed for two seconds
            error_of(await bob.post("/tasks/t/execute?async=true"), 401, "unauthorized")

        await eventually(execute, 3.5)


async def test_a_service_is_renamed_beside_those_who_make_tasks_of_it(app, admin, receiver, conn):
    """Under a quota they lock the row that they hold: a rename between the two would be a ring."""
    assert (await admin.patch("/services/bob", json={"max_tasks": 1000})).status_code == 200
    async with app.client("bob") as bob:

        async def create(n: int) -> None:
            answer = await bob.post("/tasks", json=body(receiver, f"t{n}"))
            assert answer.status_code == 201, answer.text

        async def rename(n: int) -> None:
            answer = await admin.patch(f"/services/{app.ids['bob']}", json={"name": f"bob{n}"})
            assert answer.status_code == 200, answer.text

        await asyncio.gather(*(create(n) for n in range(30)), *(rename(n) for n in range(10)))
    assert (await rows(conn, app.ids["bob"]))["task"] == 30


async def test_rows_of_a_service_that_is_gone_are_found_and_deleted(
    app, alice, bob, receiver, conn
):
    await ready(alice, receiver)
    await ready(bob, receiver)
    kept = await rows(conn, app.ids["alice"])
    await conn.execute("DELETE FROM service WHERE name = 'bob'")
    strays = app.engine.strays
    before = await rows(conn, app.ids["bob"])
    assert before["task"] and before["task_plan"] and before["run"]

    assert await strays.step() == 0  # a database that is being restored has the services last
    assert await rows(conn, app.ids["bob"]) == before
    assert await strays.step() == 1
    assert not any((await rows(conn, app.ids["bob"])).values())
    assert await strays.step() == 0
    assert await rows(conn, app.ids["alice"]) == kept


async def test_a_service_that_is_there_after_all_keeps_its_rows(app, bob, receiver, conn):
    await ready(bob, receiver)
    before = await rows(conn, app.ids["bob"])
    row = await conn.fetchrow("DELETE FROM service WHERE name = 'bob' RETURNING *")
    assert await app.engine.strays.step() == 0
    names = ", ".join(row.keys())
    values = ", ".join(f"${n + 1}" for n in range(len(row)))
    await conn.execute(f"INSERT INTO service ({names}) VALUES ({values})", *row.values())
    assert await app.engine.strays.step() == 0
    assert {**before, "token": 0} == await rows(conn, app.ids["bob"])


async def test_more_services_than_a_step_looks_at_are_looked_at_in_turn(app, conn, monkeypatch):
    monkeypatch.setattr(type(app.engine.strays), "PIECE", 3)
    await conn.execute("""
        INSERT INTO task (key, bucket, service_id, id, version, name, tags, status, action, policy,
                          created_at, updated_at)
        SELECT gen_random_uuid(), 1, gen_random_uuid(), 't', 1, 'n', '[]', 'disabled', '{}', '{}',
               now(), now() FROM generate_series(1, 7)
    """)
    await conn.execute("""
        INSERT INTO task_plan (key, bucket, service_id, planned_until, planned_runs)
        SELECT gen_random_uuid(), 1, gen_random_uuid(), now(), 0 FROM generate_series(1, 7)
    """)
    await conn.execute("""
        INSERT INTO run (id, bucket, service_id, kind, version, overlap, priority, scheduled_for,
                         due, attempts, attempts_n, created_at)
        SELECT gen_random_uuid(), 1, gen_random_uuid(), 'of a newer version', 1, 'allow', 0, now(), now(),
               '[]', 0, now() FROM generate_series(1, 7)
    """)
    assert sum([await app.engine.strays.step() for _ in range(6)]) == 21
    for table in ("task", "task_plan", "run"):
        assert await conn.fetchval(f"SELECT count(*) FROM {table}") == 0
