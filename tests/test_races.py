"""What races with what, and who wins: one test for each row of docs/states.md.

Two programs on one database, and row locks held by a second connection force the interleaving.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from conftest import App, eventually, running
from receiver import Receiver
from scheduler.db import ms
from test_cancel import CUT, claiming_early, create, ends, only_run, shown, soon
from test_dispatcher import arrived, no_run_left, past
from test_queue import now_ms

HELD = "SELECT FROM run FOR UPDATE"
PLAN = "SELECT FROM task_plan FOR UPDATE"


@pytest.fixture
async def there(app: App, database_url: str, tmp_path: Path) -> AsyncIterator[App]:
    """Another program on the same database; the two know of each other."""
    folder = tmp_path / "there"
    folder.mkdir()
    async with running(database_url, folder) as other:
        await app.engine._beat()
        await other.engine.signals.listening.wait()
        await app.engine.signals.listening.wait()
        yield other


@pytest.fixture
async def here(app: App, alice: httpx.AsyncClient) -> httpx.AsyncClient:
    """A client of a program that claims nothing."""
    await silenced(app)
    return alice


Locked = Callable[[str], contextlib.AbstractAsyncContextManager[None]]


@pytest.fixture
def locked(database_url: str) -> Locked:
    """Hold what a statement locks, for the length of a block."""

    @contextlib.asynccontextmanager
    async def hold(statement: str) -> AsyncIterator[None]:
        connection = await asyncpg.connect(database_url)
        async with connection.transaction():
            await connection.execute(statement)
            yield
        await connection.close()

    return hold


async def waiting(conn: asyncpg.Connection, n: int = 1) -> None:
    """Until so many wait for a lock."""

    async def check() -> None:
        blocked = await conn.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()"
        )
        assert blocked >= n

    await eventually(check)


async def held_by(program: App, run: UUID) -> None:
    def check() -> None:
        assert program.engine.dispatcher.holds(run)

    await eventually(check)


async def one_row_each(conn: asyncpg.Connection) -> None:
    rows = await conn.fetch("SELECT id FROM run UNION ALL SELECT id FROM history")
    assert len(rows) == len({r["id"] for r in rows})


async def states(conn: asyncpg.Connection) -> list[tuple[str, str | None]]:
    return [tuple(r) for r in await conn.fetch("SELECT state, reason FROM history")]


def second(**more: Any) -> dict[str, Any]:
    return {"frequency": 1, "unit": "second", "overlap": "allow", "misfire": "all", **more}


# The planner --------------------------------------------------------------------------------------

CHANGES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "edit": ("PATCH", "/tasks/t", {"name": "b"}),
    "pause": ("PATCH", "/tasks/t", {"status": "paused"}),
    "disable": ("PATCH", "/tasks/t", {"status": "disabled"}),
    "delete": ("DELETE", "/tasks/t", {}),
    "execute": ("POST", "/tasks/t/execute?async=true", {}),
    "schedule": ("POST", "/tasks/t/schedule", {"at": "2040-01-01T00:00:00Z"}),
}


async def sent(client: httpx.AsyncClient, change: str) -> httpx.Response:
    method, path, body = CHANGES[change]
    return await client.request(method, path, json=body or None)


@pytest.mark.parametrize("change", ["edit", "pause", "delete", "execute", "schedule"])
async def test_whatever_is_asked_of_a_task_waits_for_its_planner_and_sees_what_it_did(
    here, conn, locked, receiver, change
):
    await create(here, receiver, **second(scheduled_at=soon(20)))
    async with locked(PLAN):  # as a planning pass holds it
        asking = asyncio.create_task(sent(here, change))
        await waiting(conn)
        assert not asking.done()
    assert (await asking).status_code < 300
    await one_row_each(conn)


@pytest.mark.parametrize("change", ["replay", "cancel"])
async def test_a_replay_and_a_cancel_wait_for_the_planner_too(here, conn, locked, receiver, change):
    await create(here, receiver, scheduled_at=soon(30))
    run = await only_run(conn)
    if change == "replay":
        await here.post(f"/runs/{run}/cancel")
    async with locked(PLAN):
        asking = asyncio.create_task(here.post(f"/runs/{run}/{change}"))
        await waiting(conn)
    assert (await asking).status_code == (202 if change == "replay" else 200)
    await one_row_each(conn)


# A run that is held ------------------------------------------------------------------------------


async def silenced(program: App) -> None:
    """Let a program claim nothing more."""
    program.engine.dispatcher.begin_stop()
    async with program.engine.dispatcher._claiming:
        pass


HELD_RUNS = [
    ("there", "edit", 1, "succeeded"),
    ("there", "pause", 0, None),
    ("there", "delete", 0, None),
    ("there", "cancel", 0, "cancelled"),
    ("here", "edit", 1, "succeeded"),
    ("here", "cancel", 0, "cancelled"),
    ("here", "execute", 2, "succeeded"),
]


@pytest.mark.parametrize("case", HELD_RUNS, ids=lambda case: f"{case[1]} {case[0]}")
async def test_a_run_held_for_its_instant(app, alice, there, conn, receiver, case):
    where, change, requests, state = case
    holder, other = (app, there) if where == "here" else (there, app)
    await silenced(other)
    claiming_early(holder.engine)
    at = now_ms() + 2500
    await create(alice, receiver, frequency=1, unit="hour", overlap="allow",
                 scheduled_at=datetime.fromtimestamp(at / 1000, UTC).isoformat())  # fmt: skip
    run = await only_run(conn)
    await held_by(holder, run)
    if change == "cancel":
        assert (await alice.post(f"/runs/{run}/cancel")).status_code == 200
    else:
        assert (await sent(alice, change)).status_code < 300

    def passed() -> None:
        assert holder.engine.clock.earliest_ms() > at + 50

    await eventually(passed)
    if requests:
        await eventually(arrived(receiver, requests))
        await ends(alice, run, "succeeded")
    assert len(receiver.requests) == requests
    assert await conn.fetchval("SELECT state FROM history WHERE id = $1", run) == state
    mine = [r for r in receiver.requests if r.header("Idempotency-Key") == str(run)]
    assert all(r.at * 1000 >= at for r in mine)
    await one_row_each(conn)


async def test_an_execute_puts_the_run_that_another_replica_holds_behind_it(
    app, alice, there, conn, receiver
):
    """Its instant comes while the one by hand is under way: with `skip` it is skipped."""
    app.engine.dispatcher.crew.stalled = set  # nothing is left to others
    claiming_early(there.engine)
    async with app.engine.dispatcher._claiming:
        at = datetime.now(UTC) + timedelta(seconds=2.5)
        await create(alice, receiver, frequency=1, unit="hour", scheduled_at=at.isoformat())
        run = await only_run(conn)
        await held_by(there, run)
    may_end = asyncio.Event()
    receiver.then(after=may_end)
    assert (await alice.post("/tasks/t/execute?async=true")).status_code == 202
    await eventually(arrived(receiver, 1))

    def passed() -> None:
        assert datetime.now(UTC) > at + timedelta(seconds=0.1)

    await eventually(passed)
    assert len(receiver.requests) == 1
    may_end.set()

    async def skipped() -> None:
        rows = await conn.fetch("SELECT state, reason FROM history WHERE id = $1", run)
        assert [tuple(r) for r in rows] == [("skipped", "overlap")]

    await eventually(skipped)


WHILE_CLAIMED = {
    "edit": ({"url": "/new"}, ["/new"], [("succeeded", None)]),
    "pause": ({"status": "paused"}, [], []),
    "disable": ({"status": "disabled"}, [], []),
}


@pytest.mark.parametrize("change", [*WHILE_CLAIMED, "delete"])
async def test_what_is_asked_of_a_task_while_its_run_is_being_claimed_is_heard(
    app, alice, conn, receiver, monkeypatch, change
):
    """Nothing holds the run yet that could be recalled, and what was read of its task is old."""
    body, paths, ends_as = WHILE_CLAIMED.get(change, ({}, [], []))
    if "url" in body:
        body = {"url": receiver.url + "/new"}
    secrets, answered = app.engine.runner.secrets, []
    refresh = secrets.refresh

    async def refresh_slowly(*values: Any) -> None:
        if not answered:
            method = "DELETE" if change == "delete" else "PATCH"
            asked = await alice.request(method, "/tasks/t", json=body or None)
            answered.append(asked.status_code)
        await refresh(*values)

    monkeypatch.setattr(secrets, "refresh", refresh_slowly)
    await create(alice, receiver, scheduled_at=soon(0.9))
    await eventually(lambda: no_run_left(conn))
    assert answered == [204 if change == "delete" else 200]
    await past(app.engine, now_ms() + 1000)
    assert [r.path for r in receiver.requests] == paths
    assert await states(conn) == ends_as


# A run under way ---------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["here", "there"])
@pytest.mark.parametrize("change", ["edit", "pause", "delete"])
async def test_a_run_under_way_ends_and_is_recorded_as_it_was_performed(
    app, alice, there, conn, receiver, where, change
):
    await silenced(there if where == "here" else app)
    may_end = asyncio.Event()
    receiver.then(after=may_end)
    await create(alice, receiver, scheduled_at=soon(0.1))
    run = await only_run(conn)
    await eventually(arrived(receiver, 1))
    assert (await sent(alice, change)).status_code < 300
    may_end.set()
    assert (await ends(alice, run, "succeeded"))["attempt"] == 1
    assert await conn.fetchval("SELECT version FROM history") == 1


@pytest.mark.parametrize("change", ["replay", "execute"])
async def test_a_run_under_way_on_another_replica_is_a_conflict(
    app, alice, there, conn, receiver, change
):
    app.engine.dispatcher._claims._services = []
    async with app.engine.dispatcher._claiming:
        may_end = asyncio.Event()
        receiver.then(after=may_end)
        await create(alice, receiver, scheduled_at=soon(0.1))
        run = await only_run(conn)
        await eventually(arrived(receiver, 1))
    if change == "replay":
        answer = await alice.post(f"/runs/{run}/replay")
    else:
        answer = await sent(alice, change)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
    may_end.set()
    await ends(alice, run, "succeeded")
    assert len(receiver.requests) == 1


# Against each other ------------------------------------------------------------------------------


async def test_of_a_cancel_and_an_edit_the_later_sees_the_earlier(here, conn, locked, receiver):
    """Both orders: the instant is cancelled, and no edit makes it again."""
    await create(here, receiver, frequency=10, unit="second", scheduled_at=soon(20))
    run = await conn.fetchval("SELECT id FROM run ORDER BY scheduled_for OFFSET 1 LIMIT 1")
    async with locked(PLAN):
        both = [
            asyncio.create_task(here.post(f"/runs/{run}/cancel")),
            asyncio.create_task(here.patch("/tasks/t", json={"name": "b"})),
        ]
        await waiting(conn, 2)
    cancelled, edited = await asyncio.gather(*both)
    assert edited.status_code == 200
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    await here.patch("/tasks/t", json={"name": "c"})
    assert await conn.fetchval("SELECT count(*) FROM run WHERE id = $1", run) == 0
    await one_row_each(conn)


async def test_a_cancel_and_a_delete_leave_one_end(here, conn, locked, receiver):
    await create(here, receiver, scheduled_at=soon(30))
    run = await only_run(conn)
    async with locked(PLAN):
        both = [
            asyncio.create_task(here.post(f"/runs/{run}/cancel")),
            asyncio.create_task(here.delete("/tasks/t")),
        ]
        await waiting(conn, 2)
    cancelled, deleted = await asyncio.gather(*both)
    assert deleted.status_code == 204
    there = await conn.fetchval("SELECT count(*) FROM history WHERE state = 'cancelled'")
    assert (cancelled.status_code, there) in ((200, 1), (404, 0))
    assert await conn.fetchval("SELECT count(*) FROM run") == 0


async def test_two_cancels_at_once_are_one_end(here, conn, locked, receiver):
    await create(here, receiver, scheduled_at=soon(30))
    run = await only_run(conn)
    async with locked(HELD):
        both = [asyncio.create_task(here.post(f"/runs/{run}/cancel")) for _ in range(2)]
        await waiting(conn, 2)
    answers = await asyncio.gather(*both)
    assert sorted(a.status_code for a in answers) == [200, 409]
    assert await states(conn) == [("cancelled", "someone cancelled it")]


async def test_a_cancel_and_the_end_of_the_call_leave_one_end(alice, conn, receiver):
    await create(alice, receiver)
    for _ in range(10):
        may_end, seen = asyncio.Event(), len(receiver.requests)
        receiver.then(after=may_end)
        run = UUID((await alice.post("/tasks/t/execute?async=true")).json()["id"])
        await eventually(arrived(receiver, seen + 1))
        may_end.set()
        answer = await alice.post(f"/runs/{run}/cancel")

        async def ended(run: UUID = run) -> dict[str, Any]:
            now = await shown(alice, run)
            assert now["state"] in ("succeeded", "cancelled")
            return now

        now = await eventually(ended)
        assert answer.status_code in (202, 409)
        assert answer.status_code == 202 or now["state"] == "succeeded"
        assert now["state"] == "succeeded" or now["reason"] == CUT
    await one_row_each(conn)


@pytest.mark.parametrize("change", ["edit", "pause", "delete", "disable"])
async def test_a_replay_and_a_change_of_its_task(here, conn, locked, receiver, change):
    """The later sees the earlier: a replay of a task that is gone or disabled by then is refused."""
    await create(here, receiver, scheduled_at=soon(30))
    run = await only_run(conn)
    await here.post(f"/runs/{run}/cancel")
    async with locked(PLAN):
        changing = asyncio.create_task(sent(here, change))
        await waiting(conn)
        replaying = asyncio.create_task(here.post(f"/runs/{run}/replay"))
        await waiting(conn, 2)
    assert (await changing).status_code < 300
    answer = await replaying
    assert answer.status_code in (202, 404, 409)
    if answer.status_code == 202 and change in ("edit", "pause"):
        live = await conn.fetchrow("SELECT id, version FROM run WHERE id = $1", run)
        assert tuple(live) == (run, 2)
    await one_row_each(conn)


async def test_an_edit_leaves_a_replay_that_waits(here, conn, receiver):
    await create(here, receiver, frequency=1, unit="hour", scheduled_at=soon(30))
    run = await only_run(conn)
    await here.post(f"/runs/{run}/cancel")
    assert (await here.post(f"/runs/{run}/replay")).status_code == 202
    for change in ("edit", "pause"):
        await sent(here, change)
    rows = await conn.fetch("SELECT id, version, due <= now() AS due FROM run")
    assert [tuple(r) for r in rows] == [(run, 3, True)]


async def test_a_delete_ends_a_replay_that_waits(here, conn, receiver):
    await create(here, receiver, scheduled_at=soon(30))
    run = await only_run(conn)
    await here.post(f"/runs/{run}/cancel")
    await here.post(f"/runs/{run}/replay")
    await here.delete("/tasks/t")
    assert await states(conn) == [("cancelled", "the task was deleted")]
    assert await conn.fetchval("SELECT count(*) FROM run") == 0


async def test_two_executes_at_once_on_two_replicas_are_one_run_and_a_conflict(
    app, alice, there, conn, locked, receiver
):
    may_end = asyncio.Event()
    receiver.then(after=may_end)
    await create(alice, receiver)
    async with there.client("alice") as elsewhere, contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(locked(PLAN))
        both = [
            asyncio.create_task(client.post("/tasks/t/execute?async=true"))
            for client in (alice, elsewhere)
        ]
        await waiting(conn, 2)
        await stack.aclose()
        answers = await asyncio.gather(*both)
    assert sorted(a.status_code for a in answers) == [202, 409]
    may_end.set()
    await eventually(lambda: no_run_left(conn))
    assert len(receiver.requests) == 1


async def test_two_edits_at_once_leave_the_instants_of_the_later(here, conn, locked, receiver):
    await create(here, receiver, frequency=10, unit="second", scheduled_at=soon(20))
    async with locked(PLAN):
        both = [asyncio.create_task(here.patch("/tasks/t", json={"frequency": n})) for n in (5, 20)]
        await waiting(conn, 2)
    assert {a.status_code for a in await asyncio.gather(*both)} == {200}
    frequency = (await here.get("/tasks/t")).json()["frequency"]
    rows = await conn.fetch("SELECT scheduled_for, version FROM run ORDER BY scheduled_for")
    times = [ms(r["scheduled_for"]) for r in rows]
    assert {b - a for a, b in itertools.pairwise(times)} == {frequency * 1000}
    assert {r["version"] for r in rows} == {3}


async def test_an_edit_and_a_delete(here, conn, locked, receiver):
    await create(here, receiver, **second(scheduled_at=soon(20)))
    async with locked(PLAN):
        both = [
            asyncio.create_task(here.patch("/tasks/t", json={"name": "b"})),
            asyncio.create_task(here.delete("/tasks/t")),
        ]
        await waiting(conn, 2)
    edited, deleted = await asyncio.gather(*both)
    assert deleted.status_code == 204
    assert edited.status_code in (200, 404)
    assert await conn.fetchval("SELECT count(*) FROM run") == 0
    assert await conn.fetchval("SELECT count(*) FROM task_plan") == 0


async def test_an_execute_and_a_delete(here, conn, locked, receiver: Receiver):
    await create(here, receiver)
    async with locked(PLAN):
        both = [
            asyncio.create_task(here.post("/tasks/t/execute?async=true")),
            asyncio.create_task(here.delete("/tasks/t")),
        ]
        await waiting(conn, 2)
    executed, deleted = await asyncio.gather(*both)
    assert deleted.status_code == 204
    assert executed.status_code in (202, 404)
