"""What is kept of specs and processes: sealed, hidden, and gone with their service."""

import re
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from conftest import App, RunApp, eventually
from pages import signed_in
from process_calls import called, ended, operations, registered
from receiver import Receiver
from scheduler import migrate, resealing, sealing
from scheduler.db import Database
from scheduler.resealing import START, Change, Sealing
from test_sealing import KEY, command, dump

__all__ = ["command"]

OF_SPEC, OF_PROCESS, OF_TASK = "pLaNtEdSpecQ7", "pLaNtEdProcessQ7", "pLaNtEdTaskQ7"
PLANTED = re.compile("pLaNtEd[a-z]*Q7", re.IGNORECASE)
TABLES = (
    "spec", "spec_document", "spec_operation", "spec_archive", "process", "response",
    "response_cache", "run", "history",
)  # fmt: skip


async def made(client: httpx.AsyncClient, receiver: Receiver) -> str:
    """A spec, one that is archived, a process, and a task that calls; return the process."""
    headers = {"X-Plain": OF_SPEC, "Authorization": OF_SPEC}
    gone = await registered(client, receiver.url, operations("GET /a"), name="old", headers=headers)
    assert (await client.delete(f"/v1/api/spec/{gone}")).status_code == 204
    await registered(client, receiver.url, operations("GET /a", "POST /a"), headers=headers)
    task = {"id": "t", "name": "t", "service": "filmot", "endpoint": "/a"}
    task |= {"method": "GET", "headers": {"Authorization": OF_TASK}}
    assert (await client.post("/tasks", json=task)).status_code == 201
    trace = await called(client, "GET /a", headers={"X-Mine": OF_PROCESS})
    assert (await ended(client, trace))["status"] == "SUCCESS"
    return trace


async def run_of(client: httpx.AsyncClient, trace: str) -> dict[str, Any]:
    (run,) = (await client.get(f"/runs?trace_id={trace}")).json()["runs"]
    return (await client.get(f"/runs/{run['id']}")).json()


async def test_headers_of_specs_and_processes_are_sealed_sent_and_shown_nowhere(
    app: App, alice, bob, conn, receiver, capfd
):
    trace = await made(alice, receiver)
    assert receiver.last.header("X-Plain") == OF_SPEC
    assert receiver.last.header("X-Mine") == OF_PROCESS
    assert not PLANTED.search(await dump(conn))
    run = await run_of(alice, trace)
    assert run["request"]["headers"] == {"X-Mine": "********"}
    receiver.then(400, "no")
    failed = await called(alice, "POST /a", headers={"X-Mine": OF_PROCESS}, req_body={"a": 1})
    assert (await ended(alice, failed))["status"] == "ERROR"
    async with signed_in(app) as visitor:
        pages = [
            (await visitor.get(f"/dashboard/runs/{each['id']}")).text
            for each in (run, await run_of(alice, failed))
        ]
    answers = [
        (await alice.get(path)).text
        for path in ("/runs", "/tasks", "/tasks/t", f"/runs/{run['id']}", "/metrics", "/runs?q=t")
    ]
    others = [
        (await bob.get(path)).text
        for path in (f"/runs/{run['id']}", "/v1/api/spec/0/10", f"/v1/api/spec/{trace}", "/runs")
    ]
    said = "".join(capfd.readouterr())
    assert not PLANTED.search("\n".join([*pages, *answers, *others, said]))


def opened(app: App) -> Change:
    return lambda service, what, value: app.database.vault.open(value, service, what)


async def test_what_was_stored_open_is_sealed_and_calls_go_on(
    app: App, alice, conn, receiver, database_url: str
):
    trace = await made(alice, receiver)
    async with app.database.engine.begin() as c:
        for kept in (each for each in resealing.KEPT if each is not resealing.UNDO):
            step = await resealing.piece(c, UUID(app.ids["alice"]), START, opened(app), kept)
            assert step.changed == 1
    assert len(set(PLANTED.findall(await dump(conn)))) == 3
    other = Database(database_url, app.settings.database)
    other.vault.unlock(KEY)
    locked = await asyncpg.connect(database_url)
    async with locked.transaction():
        await locked.execute("SELECT FROM process FOR UPDATE")
        assert not await Sealing(other).step()
    await locked.close()
    assert await Sealing(other).step()
    await other.close()
    assert not PLANTED.search(await dump(conn))
    run = await run_of(alice, trace)
    assert (await alice.post(f"/runs/{run['id']}/replay")).status_code == 202

    async def again() -> None:
        assert len((await run_of(alice, trace))["attempts"]) == 2

    await eventually(again)
    assert receiver.last.header("X-Plain") == OF_SPEC
    assert receiver.last.header("X-Mine") == OF_PROCESS


async def test_the_operator_opens_and_gives_up_what_specs_and_processes_keep(
    run_app: RunApp, command, conn, receiver, database_url: str
):
    async with run_app() as app, app.client("alice") as alice:
        await made(alice, receiver)
    done = await command("unseal", "-y")
    assert done.exit_code == 0, done.output
    for what in ("tasks", "specs", "processes", "archived specs"):
        assert f"alice: 1 {what} have their secret headers open again" in done.output
    stored = await dump(conn)
    assert len(set(PLANTED.findall(stored))) == 3
    assert sealing.PREFIX not in stored
    async with run_app() as app:  # which seals them again

        async def sealed() -> None:
            assert not PLANTED.search(await dump(conn))

        await eventually(sealed, within=15)
    other = (await command("key")).stdout.strip()
    done = await command("reset", "-y", key=other)
    assert "alice: 1 specs lost the values of secret headers" in done.output
    async with run_app(SECRET_KEY=other) as app, app.client("alice") as alice:
        trace = await called(alice, "GET /a")
        status = await ended(alice, trace)
        assert "was lost with the key" in status["error"]


async def rows(conn: asyncpg.Connection, service: str) -> dict[str, int]:
    return {
        table: await conn.fetchval(
            f"SELECT count(*) FROM {table} WHERE service_id = $1", UUID(service)
        )
        for table in TABLES
    }


@pytest.mark.parametrize("how", ["asked", "found"])
async def test_a_service_goes_with_its_specs_and_processes(
    run_app: RunApp, conn, receiver, how: str
):
    admin = {"Authorization": "Bearer admin-token"}
    async with run_app(ADMIN_TOKEN="admin-token", RUNS_RESPONSE_MAX_BYTES="100") as app:
        async with app.client("alice") as alice, app.client("bob") as bob:
            for client in (alice, bob):
                receiver.then(200, "x" * 200).then(200, "x" * 200)
                await made(client, receiver)
                await called(client, "GET /a", scheduled_at="2100-01-01T00:00:00Z")

        async def kept() -> dict[str, int]:
            found = await rows(conn, app.ids["alice"])
            assert all(found.values()), found
            assert await rows(conn, app.ids["bob"]) == found
            return found

        before = await eventually(kept)
        if how == "asked":
            async with app.client(**admin) as operator:
                assert (await operator.delete("/services/bob")).status_code == 204
        else:  # by hand, or by a restore; the walk sees it twice
            await conn.execute("DELETE FROM service WHERE name = 'bob'")
            assert await app.engine.strays.step() == 0
            assert await app.engine.strays.step() == 1
        assert not any((await rows(conn, app.ids["bob"])).values())
        assert await rows(conn, app.ids["alice"]) == before


async def test_the_schema_goes_back_with_processes_in_the_queue(
    run_app: RunApp, conn, receiver, database_url: str
):
    async with run_app() as app, app.client("alice") as alice:
        await made(alice, receiver)
        await called(alice, "GET /a", scheduled_at="2100-01-01T00:00:00Z")
        await alice.delete("/tasks/t")  # an older version would not know what it does
    await migrate.down(database_url, "0006")
    kinds = "SELECT kind FROM run UNION SELECT kind FROM history"
    assert {row["kind"] for row in await conn.fetch(kinds)} <= {"task", "manual"}
    await migrate.up(database_url)
    async with run_app() as app, app.client("alice") as alice:
        assert (await alice.get("/runs?kind=process,spec")).json()["runs"] == []
