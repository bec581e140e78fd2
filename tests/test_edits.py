"""Edits that race with everything else: what is due stays due, whoever is quicker."""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from conftest import App, eventually
from scheduler import queue

SECONDS = 5


async def test_a_storm_of_edits_loses_no_instant_and_doubles_none(
    app: App, conn: asyncpg.Connection, receiver
) -> None:
    """Each edit takes the future back and makes it anew, also what is held for its instant."""
    async with app.client("alice") as alice:
        for n in range(10):
            task = {"id": f"t{n}", "name": "a", "url": f"{receiver.url}/t{n}", "frequency": 1}
            task |= {"unit": "second", "overlap": "allow" if n % 2 else "skip", "misfire": "all"}
            assert (await alice.post("/tasks", json=task)).status_code == 201
        names, over = itertools.count(), asyncio.get_running_loop().time() + SECONDS
        edits = 0
        while asyncio.get_running_loop().time() < over:
            answers = await asyncio.gather(
                *(alice.patch(f"/tasks/t{n}", json={"name": f"n{next(names)}"}) for n in range(10))
            )
            assert {answer.status_code for answer in answers} == {200}
            edits += len(answers)
        assert edits > 100
        await asyncio.gather(
            *(alice.patch(f"/tasks/t{n}", json={"status": "paused"}) for n in range(10))
        )

    async def nothing_is_left() -> None:
        assert not await conn.fetchval("SELECT count(*) FROM run")

    await eventually(nothing_is_left)
    rows = await conn.fetch(
        "SELECT task_id, state, scheduled_for, count(*) OVER (PARTITION BY id) AS times"
        " FROM history ORDER BY task_id, scheduled_for"
    )
    assert {(row["state"], row["times"]) for row in rows} == {("succeeded", 1)}
    for _, mine in itertools.groupby(rows, key=lambda row: row["task_id"]):
        instants = [row["scheduled_for"] for row in mine]
        steps = [(b - a).total_seconds() for a, b in itertools.pairwise(instants)]
        assert len(instants) >= SECONDS - 1
        assert set(steps) == {1.0}, "an instant has no run"
    keys = [request.header("Idempotency-Key") for request in receiver.requests]
    assert len(keys) == len(set(keys)) == len(rows)


async def test_an_edit_between_two_reads_of_a_recall_takes_nothing_back(
    app: App, conn: asyncpg.Connection, receiver, monkeypatch
) -> None:
    """The row is read, another edit makes it and its task newer, and only then it is judged."""
    task = {"id": "t", "name": "a", "url": receiver.url, "frequency": 1, "unit": "hour"}
    at = datetime.now(UTC) + timedelta(seconds=1.5)
    async with app.client("alice") as alice:
        again, versions = [True], queue.versions

        async def read_and_edited(*values: Any) -> dict[UUID, int]:
            read = await versions(*values)
            if read and again:
                again.clear()
                assert (await alice.patch("/tasks/t", json={"name": "c"})).status_code == 200
            return read

        monkeypatch.setattr(queue, "versions", read_and_edited)
        await alice.post("/tasks", json={**task, "scheduled_at": at.isoformat()})

        def held() -> None:
            assert app.engine.dispatcher.held

        await eventually(held)
        assert (await alice.patch("/tasks/t", json={"name": "b"})).status_code == 200

        async def it_ran() -> None:
            assert await conn.fetchval("SELECT state FROM history") == "succeeded"

        await eventually(it_ran)
    assert not again


async def test_a_run_that_was_tried_outlives_the_edit_that_did_not_want_its_instant(
    app: App, conn: asyncpg.Connection, receiver
) -> None:
    """It fired between the edit's clock and its commit, so the edit left it its old version."""
    task = {"id": "t", "name": "a", "url": receiver.url, "frequency": 1, "unit": "hour"}
    async with app.client("alice") as alice:
        await alice.post("/tasks", json=task)
        await alice.patch("/tasks/t", json={"name": "b"})
        tried = uuid4()
        await conn.execute(
            "INSERT INTO run SELECT $1, bucket, service_id, key, id, 'task', 1, 'skip', 0, now(),"
            ' now() + interval \'0.3 s\', NULL, \'[{"number": 1, "outcome": "failed"}]\', 1, NULL,'
            " now() FROM task",
            tried,
        )

        async def it_ended() -> None:
            row = await conn.fetchrow("SELECT state, attempts_n FROM history WHERE id = $1", tried)
            assert row and tuple(row) == ("succeeded", 2)

        await eventually(it_ended)
