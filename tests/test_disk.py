"""A disk that is nearly full: nothing more is started, nothing is lost, and `/ready` says so."""

import asyncio
import contextlib
from pathlib import Path

import pytest
import structlog
from sqlalchemy.exc import DBAPIError

from conftest import eventually
from scheduler import config, db, disk, server
from scheduler.db import ms
from scheduler.dispatcher import Dispatcher
from test_dispatcher import arrived, once, stored
from test_queue import now_ms


async def test_a_halted_dispatcher_gives_back_what_is_unsent_and_goes_on_when_all_reasons_are_gone(
    replica, receiver, conn
):
    engine = await replica()
    await stored(engine.database, *[once(receiver, n, now_ms() + 1000) for n in range(20)])
    engine.dispatcher.wake()

    def all_held() -> None:
        assert engine.dispatcher.held == 20

    await eventually(all_held)
    engine.dispatcher.halt("disk", "the disk is full")
    engine.dispatcher.halt("test", "somebody said so")

    async def all_free() -> None:
        assert await conn.fetchval("SELECT count(*) FROM run WHERE claimed_by IS NULL") == 20

    await eventually(all_free)
    engine.dispatcher.halt("disk", None)
    due = await conn.fetchval("SELECT max(due) FROM run")
    await asyncio.sleep(max(engine.clock.until_s(ms(due)), 0) + 0.2)  # several polls past it
    assert engine.dispatcher.held == 0
    assert receiver.requests == []
    engine.dispatcher.halt("test", None)
    await eventually(arrived(receiver, 20))
    assert len(receiver.requests) == 20


# The watch ---------------------------------------------------------------------------------------


class Disk:
    """A disk with as much room as a test says, and what its watch has said last."""

    def __init__(self, dispatcher: Dispatcher | None = None, least: int = 1000) -> None:
        self.left, self.said = 5000, list[str | None]()
        self._dispatcher = dispatcher
        self.watch = disk.Watch(Path("/data"), least, self._halt, lambda _: self.left)

    def _halt(self, by: str, reason: str | None) -> None:
        self.said.append(reason)
        if self._dispatcher is not None:
            self._dispatcher.halt(by, reason)

    async def has(self, left: int) -> str | None:
        self.left = left
        await self.watch.look()
        return self.said[-1] if self.said else None


async def test_the_watch_goes_on_only_when_there_is_a_tenth_more_and_logs_each_change_once():
    there = Disk()
    with structlog.testing.capture_logs() as logged:
        assert await there.has(1000) is None and there.said == []
        reason = await there.has(999)
        assert "/data" in reason and "999 bytes" in reason and "DATA_MIN_FREE_BYTES" in reason
        assert "500 bytes" in await there.has(500)
        assert await there.has(1050) is not None
        assert await there.has(1100) is None
        assert await there.has(1001) is None
    assert [line["log_level"] for line in logged] == ["error", "warning"]


async def test_a_least_of_nothing_is_never_looked_at_and_a_disk_that_is_gone_is_told():
    there = Disk(least=0)
    assert await there.has(0) is None and there.said == []

    def gone(_: Path) -> int:
        raise OSError(5, "Input/output error")

    with structlog.testing.capture_logs() as logged:
        await disk.Watch(Path("/data"), 1, there._halt, gone).look()
    assert logged[0]["error"] == "Input/output error" and there.said == []


async def test_while_the_disk_is_full_all_is_accepted_and_nothing_is_started(
    app, alice, receiver, conn
):
    there = Disk(app.engine.dispatcher)
    task = {"id": "t", "name": "t", "url": receiver.url}
    reason = await there.has(10)
    ready = await alice.get("/ready")
    assert ready.status_code == 503 and ready.headers["retry-after"]
    assert ready.json()["error"]["message"] == reason
    body = {**task, "frequency": 1, "unit": "second", "misfire_grace_seconds": 0}
    assert (await alice.post("/tasks", json=body)).status_code == 201
    by_hand = await alice.post("/tasks/t/execute", json={})
    assert by_hand.status_code == 202
    assert (await alice.put("/tasks/t", json={"name": "other"})).status_code == 200

    async def two_are_due() -> None:
        due = "SELECT count(*) FROM run WHERE due < now() AND claimed_by IS NULL"
        assert await conn.fetchval(due) + await conn.fetchval("SELECT count(*) FROM history") > 2

    await eventually(two_are_due)
    assert receiver.requests == [] and app.engine.dispatcher.held == 0
    assert await there.has(5000) is None
    await eventually(arrived(receiver, 1))
    assert (await alice.get("/ready")).status_code == 200

    async def judged() -> None:
        """What was missed meanwhile is one gap, as the task's rule has it."""
        skipped = "SELECT sum(count) FROM history WHERE state = 'skipped' AND reason = 'misfire'"
        assert (await conn.fetchval(skipped) or 0) >= 1
        run = (await alice.get(f"/runs/{by_hand.json()['id']}")).json()
        assert run["state"] == "succeeded"

    await eventually(judged)


async def test_the_server_watches_the_disk_of_its_embedded_postgres_and_no_other(run_app, postgres):
    async with run_app(DATA_MIN_FREE_BYTES=str(1 << 60)) as app, app.client("alice") as alice:
        async with contextlib.AsyncExitStack() as stack:
            await app.process._watch_disk(app.engine, stack)
            assert (await alice.get("/ready")).status_code == 200  # with a Postgres of one's own
            app.process.postgres = postgres
            await app.process._watch_disk(app.engine, stack)
            answer = await alice.get("/ready")
        assert answer.status_code == 503
        assert "data.min_free_bytes (1,073,741,824.0 GiB)" in answer.json()["error"]["message"]


async def test_a_worker_that_has_joined_an_embedded_postgres_watches_its_disk_too(
    app, tmp_path, monkeypatch
):
    (tmp_path / "postgres" / "data").mkdir(parents=True)
    environ = {"DATA_DIR": str(tmp_path), "DATA_MIN_FREE_BYTES": str(1 << 60)}
    worker = server.Process(config.load(environ=environ), "", None, "http://127.0.0.1:1", None)
    async with contextlib.AsyncExitStack() as stack:
        await worker._watch_disk(app.engine, stack)
    assert str(tmp_path / "postgres" / "data") in app.engine.dispatcher.halted["disk"]


async def test_a_postgres_whose_disk_is_full_counts_as_away(app):
    full = "DO $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$"
    async with app.database.engine.connect() as conn:
        with pytest.raises(DBAPIError) as caught:
            await conn.exec_driver_sql(full)
    assert db.is_away(caught.value)
