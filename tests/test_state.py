"""`task_state`: at rest it says what a task's page says, whoever wrote it, however often told."""

import asyncio
import uuid
from typing import Any

import pytest

from conftest import eventually
from scheduler import state
from scheduler.db import Database, utc
from scheduler.state import Row, Tally
from test_history import finish
from test_ledger import create
from test_queue import database, definition, now_ms

__all__ = ["database"]


async def row_of(conn: Any, task_id: str) -> Any:
    return await conn.fetchrow(
        "SELECT s.* FROM task_state s JOIN task t ON t.key = s.key WHERE t.id = $1", task_id
    )


async def agrees(alice: Any, conn: Any, task_id: str, word: str) -> None:
    shown = (await alice.get(f"/tasks/{task_id}")).json()["state"]
    assert shown == word
    assert (await row_of(conn, task_id))["state"] == word


async def test_a_row_is_made_changed_and_deleted_with_its_task(alice, conn):
    await create(alice, id="t")
    await agrees(alice, conn, "t", "created")
    await alice.put("/tasks/t", json={"frequency": 1, "unit": "day"})
    await agrees(alice, conn, "t", "pending")
    for status, word, comes in (("paused", "pending", True), ("disabled", "created", False)):
        changed = (await alice.put("/tasks/t", json={"status": status})).json()
        assert (changed["scheduled_at"] is not None) == comes
        await agrees(alice, conn, "t", word)
    await alice.delete("/tasks/t")
    assert await conn.fetchval("SELECT count(*) FROM task_state") == 0


async def test_how_runs_end_is_written_within_a_second_or_so(alice, conn, receiver):
    receiver.then(400).then(400).then(200)
    await create(alice, id="t", url=receiver.url)
    for word, failures in (("failed", 1), ("failed", 2), ("completed", 0)):
        await alice.post("/tasks/t/execute")

        async def written(word: str = word, failures: int = failures) -> None:
            await agrees(alice, conn, "t", word)
            assert (await row_of(conn, "t"))["failures"] == failures

        await eventually(written)


async def test_a_task_whose_only_instant_ran_is_completed(alice, conn, receiver):
    await create(alice, id="t", url=receiver.url, scheduled_at=utc(now_ms() + 300).isoformat())
    await agrees(alice, conn, "t", "pending")
    await eventually(lambda: agrees(alice, conn, "t", "completed"))


async def test_an_interval_that_succeeds_writes_nothing_after_the_first(alice, conn, app, receiver):
    await create(alice, id="t", url=receiver.url, frequency=1, unit="second")

    async def ran(times: int) -> None:
        assert len(receiver.requests) >= times

    await eventually(lambda: ran(1))

    async def noted() -> None:
        assert (await row_of(conn, "t"))["last"] == "succeeded"

    await eventually(noted)
    before = await conn.fetchval("SELECT xmin::text FROM task_state")
    await eventually(lambda: ran(3))
    await app.engine.standing.flush()
    assert await conn.fetchval("SELECT xmin::text FROM task_state") == before
    assert (await row_of(conn, "t"))["state"] == "pending"


async def test_what_a_process_that_died_did_not_write_is_worked_out_from_history(app, alice, conn):
    await create(alice, id="t")
    of = await conn.fetchrow("SELECT * FROM task")
    now = now_ms()
    line = definition(key=of["key"])
    for n, word in enumerate(("succeeded", "failed", "expired", "skipped", "cancelled")):
        await finish(conn, line, now - 1000 + n, 1, state=word, service=of["service_id"])
    assert await app.engine.standing.repair(now - 60_000, now + 1) == 1
    row = await row_of(conn, "t")
    assert (row["state"], row["last"], row["failures"]) == ("failed", "expired", 2)
    await agrees(alice, conn, "t", "failed")


# The statements ----------------------------------------------------------------------------------


async def told(database: Database, of: Any, at: int, last: str, n: int, **more: Any) -> None:
    tally = Tally(of.line, (at, uuid.UUID(int=1)), last, n, last == "succeeded", **more)
    async with database.engine.begin() as c:
        await state.settle(c, [tally])


async def test_many_rows_are_created_in_one_statement_and_told_twice_say_the_same(database, conn):
    tasks = [definition(f"t{n}") for n in range(1000)]
    async with database.engine.begin() as c:
        rows = [Row(of.line, of.created_at, n % 2 == 0) for n, of in enumerate(tasks)]
        await state.create(c, rows)
    count = "SELECT count(*) FROM task_state WHERE state = 'pending'"
    assert await conn.fetchval(count) == 500
    of = tasks[0]

    async def row() -> tuple[str, int]:
        found = await conn.fetchrow("SELECT * FROM task_state WHERE key = $1", of.key)
        return found["state"], found["failures"]

    for _ in range(2):
        await told(database, of, 10, "failed", 2)
        assert await row() == ("failed", 2)
    for _ in range(2):
        await told(database, of, 20, "failed", 1)
        assert await row() == ("failed", 3)
    await told(database, of, 15, "succeeded", 0)  # due before what ended last
    assert (await row())[0] == "failed"
    await told(database, of, 20, "succeeded", 0)  # replayed
    assert await row() == ("completed", 0)
    await told(database, of, 30, "expired", 1, pending=True)
    assert await row() == ("pending", 1)


# Lists -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [10_000, 3])
async def test_lists_by_state_hold_every_task_in_it_however_many(alice, conn, monkeypatch, most):
    for module in ("tasklist", "tasks.listing"):
        monkeypatch.setattr(f"scheduler.{module}.TOTAL_MOST", most)
    monkeypatch.setattr("scheduler.tasklist.LOOK", 2)
    wanted: dict[str, list[str]] = {"created": [], "pending": []}
    for n in range(16):
        word = "pending" if n % 2 else "created"
        trigger = {"frequency": 1, "unit": "day"} if n % 2 else {}
        tags = ["four"] if n % 4 < 2 else []
        made = await create(alice, id=f"t{n}", name=f"name {n % 4}", tags=tags, **trigger)
        wanted[word].insert(0, made["id"])

    async def listed(query: str) -> list[str]:
        found, url = [], f"/tasks?count=3&{query}"
        while url:
            answer = await alice.get(url)
            assert answer.status_code == 200, answer.text
            found += [task["id"] for task in answer.json()]
            url = answer.links.get("next", {}).get("url")
        return found

    fours = [f"t{n}" for n in range(15, -1, -1) if n % 4 < 2]
    for word, ids in wanted.items():
        assert await listed(f"state={word}") == ids
        assert await listed(f"state={word}&tag=four") == [t for t in ids if t in fours]
        kind = "interval" if word == "pending" else "none"
        assert await listed(f"state={word}&trigger={kind}") == ids
        assert await listed(f"state={word}&q=name&status=active") == ids
    assert await listed("tag=four") == fours
    assert await listed("q=nam+1&tag=four&trigger=interval") == ["t13", "t9", "t5", "t1"]
    assert await listed("q=nam+2&tag=four") == []
    assert await listed("state=running") == []


COUNTED = ("state=pending", "state=pending&tag=most", "state=pending&tag=most&status=active",
           "tag=most", "tag=most&q=name", "q=name&state=created", "state=created")  # fmt: skip


@pytest.mark.parametrize("most", [12, 11, 10])
async def test_lists_are_counted_exactly_up_to_the_most(alice, monkeypatch, most):
    """Twelve of a tag are pending, two of another; a list is looked at a few tasks far."""
    for module in ("tasklist", "tasks.listing"):
        monkeypatch.setattr(f"scheduler.{module}.TOTAL_MOST", most)
        monkeypatch.setattr(f"scheduler.{module}.COUNT_WALK", most + 4)
    monkeypatch.setattr("scheduler.tasklist.LOOK", 4)
    for n in range(14):
        tags = ["other"] if n in (3, 7) else ["most"]
        await create(alice, id=f"t{n}", tags=tags, frequency=1, unit="day", name="name")
    await create(alice, id="t", name="name")
    wanted = {"state=pending": 14, "state=created": 1, "q=name&state=created": 1}
    for query in COUNTED:
        answer = await alice.get(f"/tasks?count=2&{query}")
        total = wanted.get(query, 12)
        found = answer.headers.get("X-Total-Count")
        assert found == (str(total) if total <= most else None), query


async def test_an_edit_that_races_with_a_flush_has_the_last_word(app, alice, conn, receiver):
    await create(alice, id="t", url=receiver.url, frequency=1, unit="second")
    for n in range(10):
        status = "paused" if n % 2 else "active"
        await asyncio.gather(
            alice.put("/tasks/t", json={"status": status}), app.engine.standing.flush()
        )
    await eventually(lambda: at_rest(alice, conn))


async def at_rest(alice: Any, conn: Any) -> None:
    shown = (await alice.get("/tasks/t")).json()["state"]
    assert shown != "running"
    assert (await row_of(conn, "t"))["state"] == shown
