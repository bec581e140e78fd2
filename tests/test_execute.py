"""`POST /tasks/{id}/execute` that waits: what waiting costs, and who stops waiting."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
from sqlalchemy import event

from conftest import TOKENS, App, eventually
from receiver import Answer, Receiver

WAITING = 20


@contextlib.contextmanager
def looks(app: App) -> Iterator[list[str]]:
    """Every statement with which the API asks whether a run has ended."""
    seen: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM history" in statement:
            seen.append(statement)

    event.listen(app.database.api.sync_engine, "before_cursor_execute", note)
    yield seen
    event.remove(app.database.api.sync_engine, "before_cursor_execute", note)


@pytest.fixture
async def answered(receiver: Receiver) -> AsyncIterator[asyncio.Event]:
    """The moment at which the target answers."""
    moment = asyncio.Event()
    receiver.otherwise = Answer(after=moment)
    yield moment
    moment.set()


@pytest.fixture
async def here(
    alice: httpx.AsyncClient, receiver: Receiver, answered: asyncio.Event
) -> httpx.AsyncClient:
    """Alice, with a task whose target takes its time, and one that runs every second."""
    held = {"id": "held", "name": "a", "url": receiver.url + "/held", "overlap": "allow"}
    tick = {"id": "tick", "name": "b", "url": receiver.url + "/tick", "overlap": "allow"}
    await alice.post("/tasks", json={**held, "timeout_seconds": 600})
    await alice.post("/tasks", json={**tick, "frequency": 1, "unit": "second"})
    return alice


async def seconds(receiver: Receiver, n: int) -> None:
    """Until the task that runs every second has run `n` times more."""
    there = len(receiver.to("/tick"))

    def check() -> None:
        assert len(receiver.to("/tick")) >= there + n

    await eventually(check, n + 5)


async def arrived(receiver: Receiver, n: int) -> None:
    def check() -> None:
        assert len(receiver.to("/held")) == n

    await eventually(check)


def asked(app: App, key: str = "") -> socket.socket:
    """A connection on which the task was asked to run, and nothing was read."""
    there = urlsplit(app.url)
    made = socket.create_connection((there.hostname, there.port))
    more = f"Idempotency-Key: {key}\r\n" if key else ""
    made.sendall(
        f"POST /tasks/held/execute HTTP/1.1\r\nHost: h\r\nservice_id: {app.ids['alice']}\r\n"
        f"token: {TOKENS['alice']}\r\n{more}Content-Length: 0\r\n\r\n".encode()
    )
    return made


async def ended(conn: asyncpg.Connection, n: int) -> None:
    async def check() -> None:
        states = await conn.fetch("SELECT state FROM history WHERE task_id = 'held'")
        assert [row["state"] for row in states] == ["succeeded"] * n

    await eventually(check)


async def test_a_run_that_is_held_here_is_looked_for_when_it_has_ended(
    app, here, receiver, answered
):
    asking = asyncio.create_task(here.post("/tasks/held/execute"))
    await arrived(receiver, 1)
    with looks(app) as seen:
        await seconds(receiver, 2)
        assert seen == []
        answered.set()
        assert (await asking).json()["status"] == "success"
        assert len(seen) == 1


async def test_nothing_is_asked_for_clients_that_have_gone_and_their_runs_go_on(
    app, here, receiver, answered, conn
):
    waiting = [asked(app) for _ in range(WAITING)]
    await arrived(receiver, WAITING)
    for each in waiting:
        each.close()
    await seconds(receiver, 1)
    with looks(app) as seen:
        await seconds(receiver, 2)
    assert seen == []
    answered.set()
    await ended(conn, WAITING)


async def test_clients_in_a_line_that_have_gone_are_not_asked_for_either(
    app, here, receiver, answered, conn
):
    await here.patch("/tasks/held", json={"overlap": "queue"})
    waiting = [asked(app) for _ in range(WAITING)]
    await arrived(receiver, 1)
    for each in waiting:
        each.close()
    await seconds(receiver, 1)
    with looks(app) as seen:
        await seconds(receiver, 2)
    assert seen == []
    answered.set()
    await ended(conn, WAITING)


async def test_one_who_waits_for_the_same_run_is_told_though_the_other_has_gone(
    app, here, receiver, answered
):
    asking = asyncio.create_task(
        here.post("/tasks/held/execute", headers={"Idempotency-Key": "one"})
    )
    await arrived(receiver, 1)
    other = asked(app, "one")
    with looks(app) as seen:
        await seconds(receiver, 1)
        other.close()
        await seconds(receiver, 1)
        before = len(seen)
        answered.set()
        answer = await asyncio.wait_for(asking, 3)
    assert (answer.status_code, answer.json()["status"]) == (200, "success")
    assert len(seen) == before + 1


async def test_those_in_a_line_are_answered_one_after_the_other(here, receiver, answered):
    await here.patch("/tasks/held", json={"overlap": "queue"})
    asking = [asyncio.create_task(here.post("/tasks/held/execute")) for _ in range(3)]
    await arrived(receiver, 1)
    answered.set()
    answers = await asyncio.wait_for(asyncio.gather(*asking), 10)
    assert [each.json()["status"] for each in answers] == ["success"] * 3


async def test_a_body_that_comes_late_keeps_nobody_waiting(app, here, receiver, answered):
    there = urlsplit(app.url)
    reader, writer = await asyncio.open_connection(there.hostname, there.port)
    writer.write(
        f"POST /tasks/held/execute HTTP/1.1\r\nHost: h\r\nservice_id: {app.ids['alice']}\r\n"
        f"token: {TOKENS['alice']}\r\nContent-Length: 9\r\n\r\n".encode()
    )
    await arrived(receiver, 1)
    writer.write(b"ignored")
    answered.set()
    assert b"200 OK" in await asyncio.wait_for(reader.readline(), 5)
    writer.close()
