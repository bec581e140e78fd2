"""`task_state`: at rest it says what a task's page says, whoever wrote it, however often told."""

import asyncio
import random
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from conftest import eventually
from scheduler import state
from scheduler.db import Database, ms, rfc3339, utc
from scheduler.state import Row, Tally
from scheduler.tasks.model import STATES
from test_cancel import soon
from test_history import finish
from test_ledger import create
from test_queue import database, definition, now_ms
from test_races import locked, waiting

__all__ = ["database", "locked"]


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
    await create(alice, id="t", url=receiver.url, scheduled_at=utc(now_ms() + 1500).isoformat())
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


async def test_a_flush_waits_for_what_another_has_in_hand(app, alice, conn, receiver, locked):
    receiver.then(400)
    await create(alice, id="t", url=receiver.url)
    async with locked("SELECT FROM task_state FOR UPDATE"):
        await alice.post("/tasks/t/execute")
        await waiting(conn)
        another = asyncio.create_task(app.engine.standing.flush())
        await waiting(conn)
        assert not another.done()
    await another
    assert (await row_of(conn, "t"))["last"] == "failed"


async def at_rest(alice: Any, conn: Any) -> None:
    shown = (await alice.get("/tasks/t")).json()["state"]
    assert shown != "running"
    assert (await row_of(conn, "t"))["state"] == shown


# What is cancelled, passed over, or put in between -----------------------------------------------


async def stands(client: Any, conn: Any, *task_ids: str) -> dict[str, str]:
    """How tasks stand by their pages; their rows, and then the lists, must say the same."""
    shown = {one: (await client.get(f"/tasks/{one}")).json()["state"] for one in task_ids}
    for one, word in shown.items():
        assert word == "running" or (await row_of(conn, one))["state"] == word, one
    for word in STATES:
        answer = await client.get(f"/tasks?state={word}")
        listed = {task["id"] for task in answer.json()}
        assert listed == {one for one, its in shown.items() if its == word}
        assert answer.headers["X-Total-Count"] == str(len(listed))
    return shown


async def come_to(client: Any, conn: Any, word: str, task_id: str = "t") -> None:
    async def check() -> None:
        assert await stands(client, conn, task_id) == {task_id: word}

    await eventually(check)


async def cancel_first(client: Any, conn: Any) -> int:
    """Cancel the run that is due first; return when that was, in ms."""
    run = await conn.fetchrow("SELECT id, scheduled_for FROM run ORDER BY scheduled_for LIMIT 1")
    answer = await client.post(f"/runs/{run['id']}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    return ms(run["scheduled_for"])


async def unchanged(client: Any, task_id: str = "t") -> dict[str, Any]:
    """Send back what a GET answers, which changes nothing; return it."""
    before = (await client.get(f"/tasks/{task_id}")).json()
    after = (await client.put(f"/tasks/{task_id}", json=before)).json()
    assert {**after, "updated_at": None} == {**before, "updated_at": None}
    return before


async def test_a_cancelled_instant_is_no_longer_to_come(alice, conn):
    await create(alice, id="t", scheduled_at=soon(40))
    await cancel_first(alice, conn)
    assert (await unchanged(alice))["scheduled_at"] is None
    await come_to(alice, conn, "created")
    trigger = await conn.fetchval("SELECT trigger ->> 'kind' FROM task")
    assert trigger == "once"


async def test_after_a_cancelled_instant_the_next_one_is_to_come(alice, conn):
    await create(alice, id="t", frequency=20, unit="second", max_runs=3)
    first = await cancel_first(alice, conn)
    assert (await unchanged(alice))["scheduled_at"] == rfc3339(first + 20_000)
    await come_to(alice, conn, "pending")
    for n in (2, 3):
        assert await cancel_first(alice, conn) == first + (n - 1) * 20_000
    assert (await unchanged(alice))["scheduled_at"] is None
    await come_to(alice, conn, "created")


async def test_of_a_bounded_task_all_of_whose_instants_are_cancelled_nothing_is_to_come(
    app, alice, conn
):
    await create(alice, id="t", frequency=20, unit="second", end_at=soon(70))
    for _ in range(3):
        await come_to(alice, conn, "pending")
        await cancel_first(alice, conn)
    await come_to(alice, conn, "created")
    # And so says the repair of a process that died before it wrote it.
    await conn.execute("UPDATE task_state SET state = 'pending'")
    assert await app.engine.standing.repair(now_ms() - 60_000, now_ms() + 1000) == 1
    assert await stands(alice, conn, "t") == {"t": "created"}


async def test_an_instant_that_was_cancelled_and_then_replayed_is_not_to_come(
    alice, conn, receiver
):
    await create(alice, id="t", url=receiver.url, scheduled_at=soon(40))
    await cancel_first(alice, conn)
    run = await conn.fetchval("SELECT id FROM history")
    assert (await alice.post(f"/runs/{run}/replay")).status_code == 202
    await come_to(alice, conn, "completed")
    assert (await unchanged(alice))["scheduled_at"] is None


async def test_an_end_that_a_replay_takes_back_counts_no_longer(app, alice, conn, receiver):
    await create(alice, id="t", url=receiver.url)
    await alice.post("/tasks/t/execute")
    await come_to(alice, conn, "completed")
    app.engine.dispatcher.begin_stop()
    run = await conn.fetchval("SELECT id FROM history")
    assert (await alice.post(f"/runs/{run}/replay")).status_code == 202
    assert await stands(alice, conn, "t") == {"t": "running"}  # it was tried, and will be again
    assert (await alice.post(f"/runs/{run}/cancel")).status_code == 200
    await come_to(alice, conn, "created")
    assert (await row_of(conn, "t"))["last_at"] is None


@pytest.mark.parametrize("bounds", [{}, {"frequency": 1, "unit": "hour"}])
async def test_when_an_instant_passes_in_a_pause_nothing_is_to_come_any_more(alice, conn, bounds):
    at = soon(1)
    ends = {"end_at": at} if bounds else {}
    await create(alice, id="t", status="paused", scheduled_at=at, **bounds, **ends)
    assert await stands(alice, conn, "t") == {"t": "pending"}
    await eventually(lambda: passed(alice, conn))
    await alice.patch("/tasks/t", json={"status": "active"})
    await come_to(alice, conn, "created")
    (row,) = await conn.fetch("SELECT * FROM history")
    assert (row["state"], row["reason"], row["count"]) == ("skipped", "paused", 1)


async def passed(client: Any, conn: Any) -> None:
    """By the row alone: a list would have it looked at."""
    assert (await client.get("/tasks/t")).json()["state"] == "created"
    assert (await row_of(conn, "t"))["state"] == "created"


async def test_a_run_put_between_what_has_ended_is_pending_until_it_ends(alice, conn, receiver):
    await create(alice, id="t", url=receiver.url, frequency=1, unit="hour", end_at=soon(10))
    assert await stands(alice, conn, "t") == {"t": "created"}
    await alice.post("/tasks/t/schedule", json={"at": soon(1)})
    assert await stands(alice, conn, "t") == {"t": "pending"}
    await come_to(alice, conn, "completed")


@pytest.mark.parametrize("how", ["create", "bulk", "edit", "schedule", "recurring"])
async def test_a_past_time_while_paused_is_passed_over_and_says_so(alice, conn, how):
    body = {"id": "t", "name": "t", "url": "http://127.0.0.1:9/", "status": "paused"}
    past = {"scheduled_at": "2025-08-14T12:00:00Z"}
    every = {"frequency": 9999, "unit": "day", "max_runs": 2} if how == "recurring" else {}
    if how in ("create", "recurring"):
        shown = (await alice.post("/tasks", json={**body, **past, **every})).json()
        assert shown["state"] == ("pending" if every else "created")
    elif how == "bulk":
        assert (await alice.post("/tasks/bulk", json=[{**body, **past}])).status_code == 201
    else:
        await alice.post("/tasks", json=body)
        address, send = (
            ("/tasks/t", alice.put) if how == "edit" else ("/tasks/t/schedule", alice.post)
        )
        assert (await send(address, json=past)).status_code == 200
    assert await stands(alice, conn, "t") == {"t": "pending" if every else "created"}
    (run,) = (await alice.get("/runs?task=t")).json()["runs"]
    assert (run["state"], run["reason"]) == ("skipped", "paused")
    assert run["count"] == 1
    assert run["scheduled_for"] > "2026"
    await alice.patch("/tasks/t", json={"status": "active"})
    assert await conn.fetchval("SELECT planned_runs FROM task_plan") == 1
    assert await conn.fetchval("SELECT count(*) FROM history") == 1


KINDS: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "none": lambda _: {},
    "past": lambda _: {"scheduled_at": "2020-01-01T00:00:00Z"},
    "soon": lambda by: {"scheduled_at": soon(by.uniform(0, 0.8))},
    "later": lambda by: {"scheduled_at": soon(by.uniform(30, 90))},
    "daily": lambda _: {"frequency": 1, "unit": "day"},
    "bounded": lambda by: {"frequency": 1, "unit": "second", "end_at": soon(by.uniform(0, 2))},
    "three": lambda _: {"frequency": 1, "unit": "second", "max_runs": 3},
}


REST_MS = 2500
"""Whatever is due soon was due within this."""


class Walk:
    """What one may do to some tasks, one thing after the other."""

    def __init__(self, client: Any, conn: Any, url: str, seed: int) -> None:
        self.client, self.conn, self.url = client, conn, url
        self.by = random.Random(seed)
        self.tasks: list[str] = []
        self.moved_at = 0

    async def step(self) -> None:
        self.moved_at = now_ms()
        verbs = (self.create, self.edit, self.schedule, self.cancel, self.replay, self.execute)
        answer = await self.by.choice(verbs)()
        assert answer is None or answer.status_code in (200, 201, 202, 404, 409), answer.text

    def kind(self) -> dict[str, Any]:
        return KINDS[self.by.choice(sorted(KINDS))](self.by)

    def pause(self) -> dict[str, Any]:
        words = ("active", "active", "paused", "disabled", "until")
        word = self.by.choice(words)
        if word == "until":
            return {"status": "paused", "paused_until": soon(self.by.uniform(0.1, 1))}
        return {"status": word}

    async def create(self) -> Any:
        self.tasks.append(f"t{len(self.tasks)}")
        body = {"id": self.tasks[-1], "name": "t", "url": self.url, **self.kind(), **self.pause()}
        if self.by.random() < 0.3:
            return await self.client.post("/tasks/bulk", json=[body])
        return await self.client.post("/tasks", json=body)

    async def edit(self) -> Any:
        if not self.tasks:
            return None
        changes = self.kind() if self.by.random() < 0.3 else {}
        address = f"/tasks/{self.by.choice(self.tasks)}"
        return await self.client.put(address, json={**changes, **self.pause()})

    async def schedule(self) -> Any:
        if not self.tasks:
            return None
        at = soon(self.by.choice([-5, 0.4, 0.8, 60, 4000]))
        address = f"/tasks/{self.by.choice(self.tasks)}/schedule"
        return await self.client.post(address, json={"at": at})

    async def execute(self) -> Any:
        if not self.tasks:
            return None
        return await self.client.post(f"/tasks/{self.by.choice(self.tasks)}/execute?async=true")

    async def cancel(self) -> Any:
        runs = await self.conn.fetch("SELECT id FROM run ORDER BY id")
        return (
            await self.client.post(f"/runs/{self.by.choice(runs)['id']}/cancel") if runs else None
        )

    async def replay(self) -> Any:
        runs = await self.conn.fetch("SELECT id FROM history ORDER BY id")
        return (
            await self.client.post(f"/runs/{self.by.choice(runs)['id']}/replay") if runs else None
        )

    async def rests(self) -> None:
        """By the rows alone, when nothing is about to happen."""
        assert now_ms() > self.moved_at + REST_MS
        near = "SELECT count(*) FROM run WHERE scheduled_for < now() + interval '20 s'"
        assert await self.conn.fetchval(near) == 0
        for one in self.tasks:
            word = (await self.client.get(f"/tasks/{one}")).json()["state"]
            row = await row_of(self.conn, one)
            assert (one, row["state"]) == (one, word)


@pytest.mark.parametrize("seed", range(4))
async def test_after_any_walk_the_rows_the_pages_and_the_lists_agree(alice, conn, receiver, seed):
    for _ in range(5):
        receiver.then(400).then(200)
    walk = Walk(alice, conn, receiver.url, seed)
    for _ in range(60):
        await walk.step()
    await eventually(walk.rests, within=12)
    assert set(await stands(alice, conn, *walk.tasks)) == set(walk.tasks)
