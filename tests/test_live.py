"""What open pages hear: of their own service alone, from one look a second, until they are ended."""

import asyncio
import contextlib
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from conftest import App, Line, RunApp, eventually
from pages import field, signed_in, statements
from scheduler.dashboard import live

ACCEPT = {"Accept": live.EVENTS}
PARTS = "/dashboard/live?parts=overview,spec,system"


class Heard:
    """A stream as a browser takes it in."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.over = False

    def of(self, name: str) -> list[Any]:
        return [content for kind, content in self.events if kind == name]

    @property
    def slots(self) -> dict[str, str]:
        """What stands in each slot by now."""
        return {name: text for each in self.of("slots") for name, text in each.items()}

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for each in self.of("rows") for row in each["rows"]]


@asynccontextmanager
async def listening(client: httpx.AsyncClient) -> AsyncIterator[Heard]:
    """What a page hears that is open meanwhile, from its first word on."""
    heard = Heard()

    async def listen() -> None:
        async with client.stream("GET", PARTS, headers=ACCEPT, timeout=None) as answer:
            assert answer.status_code == 200
            assert answer.headers["Content-Type"].startswith(live.EVENTS)
            name = ""
            async for line in answer.aiter_lines():
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    heard.events.append((name, json.loads(line[6:])))
        heard.over = True

    listener = asyncio.create_task(listen())
    try:
        await eventually(lambda: first(heard, listener))
        yield heard
    finally:
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)


def first(heard: Heard, listener: asyncio.Task[None]) -> None:
    if listener.done():
        listener.result()
    assert heard.of("beat")


def ended(heard: Heard, why: str) -> None:
    assert heard.over and [each["why"] for each in heard.of("over")] == [why]


async def create(client: httpx.AsyncClient, url: str, task_id: str = "one", **fields: Any) -> str:
    body = {"id": task_id, "name": task_id, "url": url, "scheduled_at": "2030-01-01T00:00:00Z"}
    answer = await client.post("/tasks", json={**body, **fields})
    assert answer.status_code == 201, answer.text
    return task_id


async def run(client: httpx.AsyncClient, what: str = "one/execute") -> str:
    answer = await client.post(f"/tasks/{what}")
    assert answer.status_code < 300, answer.text
    return str(answer.json()["run_id"])


def has(heard: Heard, slot: str, word: str) -> None:
    assert re.search(rf"\b{word}\b", heard.slots[slot])


# What is heard -----------------------------------------------------------------------------------


async def test_a_run_is_heard_of_and_how_its_task_stands_then(alice, visitor, receiver):
    await create(alice, receiver.url)
    async with listening(visitor) as heard:
        run_id = await run(alice)
        await eventually(lambda: has(heard, f"run:{run_id}:state", "succeeded"))
        row = next(row for row in heard.rows if row["id"] == run_id and row["new"])
        assert (row["task"], row["kind"]) == ("one", "manual")
        assert f'data-run="{run_id}"' in row["markup"] and "by hand" in row["markup"]
        has(heard, "task:one:state", "pending")
        has(heard, "task:one:last", "succeeded")
        has(heard, "task:one:next", "2030")


async def test_who_joins_others_hears_what_they_were_told(visitor):
    async with listening(visitor) as before:
        await eventually(lambda: has(before, "overview:running", "0"))
        async with listening(visitor) as joined:
            await eventually(lambda: has(joined, "overview:running", "0"))


async def test_a_run_changes_as_it_goes_on(alice, visitor, receiver):
    answers = asyncio.Event()
    receiver.then(500, after=answers)
    async with listening(visitor) as heard:
        soon = (datetime.now(UTC) + timedelta(seconds=0.5)).isoformat()
        again = {"max_retries": 1, "retry_backoff": {"initial_seconds": 3600}}
        await create(alice, receiver.url, scheduled_at=soon, **again)
        await eventually(lambda: has(heard, "task:one:state", "running"))
        [run_id] = {row["id"] for row in heard.rows}
        has(heard, f"run:{run_id}:state", "running")
        answers.set()
        await eventually(lambda: has(heard, f"run:{run_id}:state", "retrying"))
        has(heard, "task:one:state", "running")
        await eventually(lambda: cancelled(alice, run_id))
        await eventually(lambda: has(heard, f"run:{run_id}:state", "cancelled"))


async def cancelled(client: httpx.AsyncClient, run_id: str) -> None:
    assert (await client.post(f"/runs/{run_id}/cancel")).status_code < 300


async def test_two_services_never_hear_of_each_other(app: App, alice, bob, receiver):
    await create(alice, receiver.url, "hers")
    await create(bob, receiver.url, "his")
    async with (
        signed_in(app) as hers,
        signed_in(app, "bob") as his,
        listening(hers) as alices,
        listening(his) as bobs,
    ):
        one, other = await run(alice, "hers/execute"), await run(bob, "his/execute")
        await eventually(lambda: has(alices, f"run:{one}:state", "succeeded"))
        await eventually(lambda: has(bobs, f"run:{other}:state", "succeeded"))
        assert not {"his", other} & set(re.findall(r"[\w-]+", json.dumps(alices.events)))
        assert not {"hers", one} & set(re.findall(r"[\w-]+", json.dumps(bobs.events)))


async def test_each_replica_hears_of_what_the_others_do(app: App, run_app: RunApp, receiver):
    async with run_app() as other, signed_in(other) as page, listening(page) as heard:
        async with app.client("alice") as alice:
            await create(alice, receiver.url)
            run_id = await run(alice)
        await eventually(lambda: has(heard, f"run:{run_id}:state", "succeeded"))


# What it costs -----------------------------------------------------------------------------------


async def test_one_look_is_for_all_pages_and_nobody_watching_asks_nothing(app: App):
    async with (
        signed_in(app) as first,
        signed_in(app) as second,
        signed_in(app, "bob") as third,
        listening(first),
        listening(second),
        listening(third) as heard,
    ):
        with statements(app) as seen:
            await eventually(lambda: beats(heard, 2), 15)
        asked = Counter(seen)
        looks = {said: often for said, often in asked.items() if "AS w (service_id)" in said}
        lived, ended = sorted(looks, key=lambda said: "FROM history" in said)
        assert "FROM run" in lived and "FROM history" in ended
        assert 3 <= looks[lived] <= 7 and abs(looks[lived] - looks[ended]) <= 1
        # What pages add is asked for a service, every few seconds.
        assert all(often <= 4 for said, often in asked.items() if said not in looks)
    with statements(app) as seen:
        async with asyncio.timeout(10):
            while len(asyncio.all_tasks()) and any(
                task.get_name() == "live" for task in asyncio.all_tasks()
            ):
                await asyncio.sleep(0)
    assert not [one for one in seen if "FROM history" in one]


def behind(heard: Heard) -> None:
    beat = heard.of("beat")[-1]
    assert beat["now"] - beat["looked"] > 2000


def beats(heard: Heard, most: int) -> None:
    assert len(heard.of("beat")) >= most


# Whose it is, and for how long -------------------------------------------------------------------


async def test_a_stranger_hears_nothing_and_is_not_to_come_back(anonymous):
    answer = await anonymous.get("/dashboard/live", headers=ACCEPT)
    assert answer.content == live.SIGNED_OUT
    assert (await anonymous.get("/dashboard/live")).status_code == 400


async def test_who_signs_out_or_loses_the_token_hears_no_more(app: App, visitor, conn):
    async with signed_in(app, "bob") as his, listening(visitor) as alices, listening(his) as bobs:
        page = await visitor.get("/dashboard")
        await visitor.post("/dashboard/sign-out", data={"form": field(page.text, "form")})
        bob = UUID(app.ids["bob"])
        await conn.execute("UPDATE token SET revoked_at = now() WHERE service_id = $1", bob)
        await eventually(lambda: ended(alices, "session"), live.BEAT_S + 5)
        await eventually(lambda: ended(bobs, "session"), live.BEAT_S + 5)


async def test_a_service_has_only_so_many_pages_open(app: App, visitor):
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=None)
        )
        client.cookies = visitor.cookies
        for _ in range(live.MOST):
            stream = client.stream("GET", f"{app.url}/dashboard/live", headers=ACCEPT)
            await stack.enter_async_context(stream)
        answer = await visitor.get("/dashboard/live", headers=ACCEPT)
        assert '"why":"many"' in answer.text


async def test_who_reads_too_slowly_is_let_go():
    cut = asyncio.Event()
    watcher = live.Watcher(None, b"", cut.set)  # type: ignore[arg-type]
    messages = aiter(watcher.messages())
    watcher.put(b"first")
    assert await anext(messages) == b"first"
    for _ in range(live.WAITING_MOST // 1000 + 1):
        watcher.put(b"x" * 1000)
    assert b'"why":"slow"' in await anext(messages)
    with pytest.raises(StopAsyncIteration):
        await anext(messages)
    await asyncio.wait_for(cut.wait(), 5)


async def test_pages_outlive_a_database_that_goes_away(run_app: RunApp, line: Line, receiver):
    async with (
        run_app(DATABASE_URL=line.url) as app,
        app.client("alice") as alice,
        signed_in(app) as page,
    ):
        await create(alice, receiver.url)
        async with listening(page) as heard:
            await line.cut()
            await eventually(lambda: behind(heard), 20)
            await line.mend()

            async def runs() -> None:
                assert (await alice.get("/tasks")).status_code == 200

            await eventually(runs, 20)
            run_id = await run(alice)
            await eventually(lambda: has(heard, f"run:{run_id}:state", "succeeded"), 20)
            assert not heard.over
