"""What a run was sent, after its task was edited or deleted: as it stood, until history ends."""

import asyncio
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import msgspec
import pytest
from sqlalchemy import event

from conftest import App, eventually
from scheduler import migrate, partitions, versions
from scheduler.actions.http import Http
from scheduler.db import utc
from scheduler.masking import MASK
from scheduler.run import bucket_in
from scheduler.runner import Work
from test_cancel import create, ends, only_run, soon
from test_queue import ALICE, definition, now_ms
from test_replay import executed, replayed
from test_runner import OK, Says, run_of, runner_of

WEEK = timedelta(weeks=1)


async def run(client: Any, key: uuid.UUID) -> dict[str, Any]:
    answer = await client.get(f"/runs/{key}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def listed(client: Any) -> dict[str, dict[str, Any]]:
    return {each["id"]: each for each in (await client.get("/runs")).json()["runs"]}


async def kept(conn: asyncpg.Connection) -> list[int]:
    return [row[0] for row in await conn.fetch("SELECT version FROM task_version ORDER BY 1")]


async def edit(client: Any, **fields: Any) -> None:
    answer = await client.patch("/tasks/t", json=fields)
    assert answer.status_code == 200, answer.text


# What is shown -----------------------------------------------------------------------------------


async def test_a_run_shows_what_was_sent_whatever_becomes_of_its_task(alice, conn, receiver):
    await create(alice, receiver, url=f"{receiver.url}/1", header={"A": "b"}, payload="one")
    first = await executed(alice)
    before = (await run(alice, first))["request"]
    assert before == {
        "method": "POST", "url": f"{receiver.url}/1", "header": {"A": "b"}, "payload": "one"
    }  # fmt: skip
    await edit(alice, name="other", description="d", tags=["x"], timeout_seconds=5)
    await edit(alice, status="paused")
    assert await kept(conn) == []
    assert (await run(alice, first))["request"] == before

    await edit(alice, status="active", payload="two")
    second = await executed(alice)
    await edit(alice, url=f"{receiver.url}/3", method="PUT")
    third = await executed(alice)
    await edit(alice, name="again")
    assert await kept(conn) == [3, 4]

    async def requests() -> list[tuple[str, str, str]]:
        shown = [(await run(alice, key))["request"] for key in (first, second, third)]
        return [(one["method"], one["url"][-2:], one["payload"]) for one in shown]

    wanted = [("POST", "/1", "one"), ("POST", "/1", "two"), ("PUT", "/3", "two")]
    assert await requests() == wanted
    await alice.delete("/tasks/t")
    assert await kept(conn) == [3, 4, 6]
    assert await requests() == wanted
    await create(alice, receiver)
    assert await requests() == wanted


async def test_a_run_names_the_trigger_that_made_it_on_its_page_and_in_the_list(
    alice, conn, receiver
):
    await create(alice, receiver, scheduled_at="2020-01-01T00:00:00Z")

    async def ran() -> str:
        found = await conn.fetchval("SELECT id FROM history")
        assert found
        return str(found)

    once = await eventually(ran)
    by_hand = str(await executed(alice))

    async def triggers() -> list[str | None]:
        both = await listed(alice)
        shown = [both[once]["trigger"], both[by_hand]["trigger"]]
        assert shown == [(await run(alice, key))["trigger"] for key in (once, by_hand)]
        return shown

    assert await triggers() == ["once", None]
    await edit(alice, cron="0 0 1 1 *")
    await edit(alice, cron="0 0 2 1 *", name="a cron still")
    assert await kept(conn) == [1]
    assert await triggers() == ["once", None]
    await edit(alice, cron=None)
    assert await triggers() == ["once", None]
    await alice.delete("/tasks/t")
    assert await triggers() == ["once", None]


async def test_a_time_set_for_a_task_without_one_leaves_its_runs_as_they_were(
    alice, conn, receiver
):
    await create(alice, receiver)
    await alice.post("/tasks/t/schedule", json={"at": soon(300)})
    assert await conn.fetchval("SELECT trigger FROM task_version") == "none"


async def test_a_replayed_run_shows_what_it_is_sent_now(alice, receiver):
    await create(alice, receiver, payload="one")
    key = await executed(alice)
    await edit(alice, payload="two")
    assert (await run(alice, key))["request"]["payload"] == "one"
    assert (await replayed(alice, key))["request"]["payload"] == "two"
    assert [r.body for r in receiver.requests] == [b"one", b"two"]


async def test_a_call_under_way_shows_what_it_was_sent_once_it_has_ended(alice, receiver):
    gate = asyncio.Event()
    receiver.then(200, after=gate)
    await create(alice, receiver, payload="one")
    key = uuid.UUID((await alice.post("/tasks/t/execute?async=true")).json()["id"])

    def arrived() -> None:
        assert receiver.requests

    await eventually(arrived)
    await edit(alice, payload="two")
    gate.set()
    assert (await ends(alice, key, "succeeded"))["request"]["payload"] == "one"


async def test_a_run_read_with_a_newer_task_ends_with_the_version_that_was_sent():
    of = definition()
    newer = msgspec.structs.replace(of, version=7)
    claimed, runner = run_of(of), runner_of(Says(OK))
    claimed.work = Work(newer, Says(OK), 0)
    assert (await runner.perform(claimed)).run.version == 7


async def test_what_was_due_before_an_edit_shows_what_it_is_sent(alice, conn, receiver):
    await create(alice, receiver, scheduled_at=soon(30), payload="one")
    key = await only_run(conn)
    assert (await run(alice, key))["request"]["payload"] == "one"
    await edit(alice, payload="two")
    assert (await run(alice, key))["request"]["payload"] == "two"


async def test_runs_of_a_deleted_task_are_anothers_neither_then_nor_before(
    alice, bob, conn, receiver
):
    await create(alice, receiver)
    key = await executed(alice)
    await alice.delete("/tasks/t")
    assert (await run(alice, key))["request"]
    assert (await bob.get(f"/runs/{key}")).status_code == 404
    of = await conn.fetchrow("SELECT * FROM task_version")
    assert str(of["service_id"]) == (await run(alice, key))["service_id"]
    assert of["bucket"] == bucket_in(key)


# Secrets -----------------------------------------------------------------------------------------


async def secrets(conn: asyncpg.Connection) -> str:
    return str(await conn.fetch("SELECT * FROM task_version"))


async def test_no_secret_is_left_behind(alice, conn, receiver):
    header = {"Authorization": "hush-1", "X-Mine": "hush-2", "Plain": "said"}
    url = f"{receiver.url}/?token=hush-3&page=2"
    await create(alice, receiver, header=header, secret_headers=["x-mine"], url=url)
    key = await executed(alice)
    shown = await run(alice, key)
    assert shown["request"]["header"] == {"Authorization": MASK, "X-Mine": MASK, "Plain": "said"}
    assert shown["request"]["url"] == f"{receiver.url}/?token={MASK}&page=2"
    await edit(alice, payload="x")
    await alice.delete("/tasks/t")
    assert (await run(alice, key))["request"] == shown["request"]
    assert len(await kept(conn)) == 2
    assert "hush" not in await secrets(conn)


async def test_a_header_that_becomes_secret_is_masked_in_what_was_sent_before(
    alice, conn, receiver
):
    await create(alice, receiver, header={"X-Mine": "hush", "Other": "said"})
    first = await executed(alice)
    await edit(alice, payload="x")
    await edit(alice, payload="y")
    assert "hush" in await secrets(conn)
    await edit(alice, secret_headers=["x-mine"])
    assert (await run(alice, first))["request"]["header"] == {"X-Mine": MASK, "Other": "said"}
    assert await kept(conn) == [1, 2]
    await edit(alice, header={"X-Mine": MASK})
    assert await kept(conn) == [1, 2, 4]
    assert "hush" not in await secrets(conn)


# Damaged -----------------------------------------------------------------------------------------


async def test_what_a_damaged_task_was_sent_is_not_known_and_never_what_mended_it(
    alice, conn, receiver
):
    await create(alice, receiver)
    key = await executed(alice)
    await conn.execute("UPDATE task SET action = '5'")
    assert (await run(alice, key))["request"] is None
    await edit(alice, url=f"{receiver.url}/mended")
    assert await kept(conn) == [1]
    shown = await run(alice, key)
    assert (shown["request"], shown["trigger"]) == (None, None)


@pytest.mark.parametrize("request_", ["5", "{}", '{"method": 1}', "[" * 5000 + "]" * 5000, None])
async def test_a_damaged_version_shows_no_request(alice, conn, receiver, request_):
    await create(alice, receiver)
    key = await executed(alice)
    await edit(alice, payload="x")
    await conn.execute("UPDATE task_version SET request = $1::text::jsonb", request_)
    assert (await run(alice, key))["request"] is None
    await edit(alice, payload="y", secret_headers=["x"])


# What it costs -----------------------------------------------------------------------------------


@pytest.fixture
def statements(app: App) -> Iterator[list[str]]:
    """Every statement on versions that the API's engine sends."""
    seen: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "task_version" in statement:
            seen.append(statement)

    event.listen(app.database.api.sync_engine, "before_cursor_execute", note)
    yield seen
    event.remove(app.database.api.sync_engine, "before_cursor_execute", note)


async def test_a_page_asks_once_and_only_where_tasks_were_edited(alice, receiver, statements):
    for _ in range(3):
        await create(alice, receiver, id=str(uuid.uuid4()), scheduled_at="2020-01-01T00:00:00Z")

    async def ended() -> None:
        runs = await listed(alice)
        assert [r["state"] for r in runs.values()] == ["succeeded"] * 3

    await eventually(ended)
    assert statements == []
    for one in (await listed(alice)).values():
        await alice.patch(f"/tasks/{one['task_id']}", json={"name": "new"})
    assert statements == []
    await listed(alice)
    assert len(statements) == 1


# Until history ends ------------------------------------------------------------------------------


async def replaced(conn: asyncpg.Connection, number: int, at: Any) -> None:
    await conn.execute(
        "INSERT INTO task_version VALUES ($1, 1, $2, $3, 'once', NULL, $4)",
        uuid.uuid4(), ALICE, number, at,
    )  # fmt: skip


async def test_what_no_kept_run_was_made_of_goes_in_pieces(app: App, conn):
    monday = partitions.week_of(utc(now_ms()))
    for n in range(10):
        await replaced(conn, n, monday - timedelta(days=n))
    async with app.database.auto.connect() as c:
        left = [await versions.prune(c, monday, most=3) for _ in range(4)]
    assert left == [True, True, False, False]
    assert await kept(conn) == [0, 1, 2]


@pytest.mark.parametrize("settings", [{}, {"HISTORY_MAX_BYTES": "1"}])
async def test_versions_go_with_the_weeks_of_their_runs(database_url, conn, run_app, settings):
    now = utc(now_ms())
    async with run_app() as app:
        await partitions.make(app.database.engine, now - 3 * WEEK)
    for n in (1, 2, 3, 4, 30):
        await replaced(conn, n, partitions.week_of(now) - n * WEEK + timedelta(hours=1))
    async with run_app(HISTORY_RETENTION_DAYS="30", **settings):

        async def gone() -> None:
            # Last week's table is kept while it is empty, also where room is short.
            assert await kept(conn) == ([1] if settings else [1, 2, 3, 4])

        await eventually(gone)


# The migration -----------------------------------------------------------------------------------


async def test_of_edits_before_the_migration_nothing_is_claimed(database_url, conn):
    await migrate.down(database_url, "0001")
    for number in (1, 3):
        await conn.execute(
            "INSERT INTO task (key, bucket, service_id, id, version, name, tags, status, action, "
            "policy, created_at, updated_at) VALUES (gen_random_uuid(), 1, $1, $2, $3, 'n', '[]', "
            "'active', '{}', '{}', now(), now())",
            ALICE, f"t{number}", number,
        )  # fmt: skip
    await migrate.up(database_url)
    rows = await conn.fetch("SELECT version, trigger, request FROM task_version")
    assert [tuple(row) for row in rows] == [(2, None, None)]


def test_an_edit_that_shows_nothing_else_is_told_by_its_face():
    of = definition()
    for changes in ({"name": "x"}, {"status": "paused"}, {"version": 9}):
        assert versions.face(msgspec.structs.replace(of, **changes)) == versions.face(of)
    for changes in ({"url": "http://h/"}, {"method": "PUT"}, {"header": {"A": "b"}}):
        action = msgspec.structs.replace(Http(url="http://h/2"), **changes)
        assert versions.face(msgspec.structs.replace(of, action=action)) != versions.face(of)
