"""`/tasks/scheduled`: what comes, the soonest first, however far away it is asked for."""

import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.tasks import scheduled
from scheduler.tasks.scheduled import Soonest
from scheduler.triggers.zones import _block
from test_bulk import unheld
from test_cancel import create, soon


async def ids(client: httpx.AsyncClient, **query: Any) -> list[str]:
    answer = await client.get("/tasks/scheduled", params=query)
    assert answer.status_code == 200, answer.text
    return [t["id"] for t in answer.json()]


async def test_the_tasks_of_the_next_day_are_listed_the_soonest_first(alice, bob, receiver):
    for name, after in (("far", 25), ("evening", 10), ("noon", 4), ("soon", 0.003)):
        await create(alice, receiver, name, scheduled_at=soon(after * 3600))
    await create(alice, receiver, "hourly", frequency=5, unit="hour")
    await create(alice, receiver, "none")
    await create(alice, receiver, "off", scheduled_at=soon(3600), status="disabled")
    await create(alice, receiver, "resting", scheduled_at=soon(3600), status="paused")
    await create(bob, receiver, "bobs", scheduled_at=soon(3600))
    assert await ids(alice) == ["soon", "noon", "hourly", "evening"]
    assert await ids(alice, to=soon(5 * 3600 - 60)) == ["soon", "noon"]
    assert await ids(alice, **{"from": soon(24 * 3600), "to": soon(26 * 3600)}) == [
        "far", "hourly"
    ]  # fmt: skip
    assert await ids(alice, **{"from": soon(50), "to": soon(60)}) == []


async def test_a_task_with_a_run_besides_stands_where_it_fires_first(alice, receiver):
    await create(alice, receiver, "b", frequency=1, unit="hour")
    await create(alice, receiver, "c", scheduled_at=soon(2 * 3600))
    assert (await alice.post("/tasks/b/schedule", json={"at": soon(3 * 3600)})).status_code == 200
    assert await ids(alice) == ["b", "c"]
    assert await ids(alice, **{"from": "0001-01-01T00:00:00Z"}) == ["b", "c"]


async def test_a_page_holds_the_soonest_of_all_however_far_away(alice, receiver):
    for n in range(6):  # the plan's order is another one than that of the fire times
        await create(alice, receiver, f"t{n}", frequency=7 + (6 - n), unit="hour",
                     scheduled_at=soon(600 + n * 60))  # fmt: skip
    start = datetime.now(UTC) + timedelta(hours=7)
    sent = {"from": start.isoformat(), "to": (start + timedelta(hours=9)).isoformat()}
    every = await ids(alice, **sent)
    assert every == ["t5", "t4", "t3", "t2", "t1", "t0"]
    assert await ids(alice, **sent, count=2) == ["t5", "t4"]
    answer = await alice.get("/tasks/scheduled", params={**sent, "count": 4})
    following = answer.links["next"]["url"]
    assert [t["id"] for t in (await alice.get(following)).json()] == ["t1", "t0"]
    answer = await alice.get("/tasks/scheduled", params={**sent, "count": 6})
    assert "next" not in answer.links


async def test_thousands_that_fire_at_the_same_moment_are_all_found(alice, conn, monkeypatch):
    monkeypatch.setattr(scheduled, "PIECE", 10)
    monkeypatch.setattr(scheduled, "READ_AT_ONCE", 3)
    at = soon(7200)
    body = [{"id": f"t{n}", "name": "t", "url": "http://127.0.0.1:9/", "scheduled_at": at}
            for n in range(35)]  # fmt: skip
    assert (await alice.post("/tasks/bulk", json=body)).status_code == 201
    every = await ids(alice)
    assert len(set(every)) == 35
    pages = [await ids(alice, count=10, pageNumber=n) for n in range(5)]
    assert pages == [every[:10], every[10:20], every[20:30], every[30:], []]


async def test_what_is_planned_already_and_what_lies_beyond_are_in_one_list(alice, conn, receiver):
    await create(alice, receiver, "a", frequency=10, unit="second")
    await create(alice, receiver, "b", frequency=2, unit="hour")
    assert await ids(alice) == ["a", "b"]
    assert await ids(alice, **{"from": soon(3600)}) == ["a", "b"]
    assert await ids(alice, to=soon(15)) == ["a"]
    for run in await conn.fetch("SELECT id FROM run"):
        await alice.post(f"/runs/{run['id']}/cancel")
    assert await ids(alice, to=soon(30)) == []
    assert await ids(alice) == ["a", "b"]


async def test_a_task_whose_pause_ends_in_time_and_one_that_is_spent_are_told_apart(
    alice, conn, receiver
):
    await create(alice, receiver, "back", frequency=1, unit="hour", status="paused")
    await create(alice, receiver, "spent", frequency=1, unit="hour")
    await alice.patch("/tasks/back", json={"paused_until": soon(3 * 3600)})
    await alice.patch("/tasks/spent", json={"max_runs": 2})
    assert await ids(alice) == ["spent", "back"]
    assert await ids(alice, to=soon(2.5 * 3600)) == ["spent"]
    assert await ids(alice, **{"from": soon(2.5 * 3600)}) == ["back"]


async def test_a_task_that_fires_as_soon_as_its_pause_ends_is_found(alice, conn, receiver):
    await create(alice, receiver, "back", frequency=1, unit="second")
    ends_at = soon(3600)
    await alice.patch("/tasks/back", json={"status": "paused", "paused_until": ends_at})
    assert await ids(alice, to=soon(3603)) == ["back"]
    assert await ids(alice, to=soon(3590)) == []


@pytest.mark.parametrize(
    "query", ["from=x", "to=2030-01-01", "count=0", "count=1001", "pageNumber=-1",
              "from=2030-01-02T00:00:00Z&to=2030-01-01T00:00:00Z", "from=9000-01-01T00:00:00Z",
        "count=1000&pageNumber=101", "pageNumber=101", "count=1&pageNumber=100001",
              "to=2190-01-01T00:00:00Z", "from=1900-01-01T00:00:00Z"],
)  # fmt: skip
async def test_a_range_that_is_none_is_refused(alice, query):
    answer = await alice.get(f"/tasks/scheduled?{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "validation_failed")


@given(
    st.dictionaries(st.integers(0, 2**128 - 1), st.integers(-5, 5)),
    st.integers(1, 12),
    st.integers(0, 12),
)
def test_the_soonest_are_kept_and_no_others(fires, most, first):
    found = Soonest(most)
    for key, at in fires.items():
        found.add(UUID(int=key), at)
    expected = sorted((at, key) for key, at in fires.items())[:most]
    assert found.last == (expected[-1][0] if len(fires) >= most else None)
    assert found.beyond(first) == [UUID(int=key) for _, key in expected[first:]]


async def test_tasks_with_max_runs_far_ahead_do_not_hold_the_loop(alice):
    zones = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca")
    tasks = [
        {"id": f"{zone[-4:]}{n}", "name": "a", "url": "http://h/", "cron": "0 3 1 1 *",
         "timezone": zone, "max_runs": 50 + n * 10}
        for zone in zones for n in range(4)
    ]  # fmt: skip
    assert (await alice.post("/tasks/bulk", json=tasks)).status_code == 201
    start = datetime.now(UTC) + timedelta(days=365.25 * 75)
    far = {"from": start.isoformat(), "to": soon(86_400 * 36_500)}

    async def anew() -> list[str]:
        _block.cache_clear()
        return await ids(alice, **far)

    found = await unheld(anew, 30)
    assert {task_id[4:] for task_id in found} == {"3"}
    assert len(found) == len(zones)


async def test_a_far_range_keeps_no_payloads_and_holds_the_loop_in_small_pieces_only(alice):
    for n in range(120):
        task = {"id": f"large{n}", "name": "a", "url": "http://h/", "payload": "x" * 200_000,
                "frequency": 7, "unit": "day"}  # fmt: skip
        assert (await alice.post("/tasks", json=task)).status_code == 201
    tracemalloc.start()
    try:
        far = {"from": soon(86_400 * 1000), "to": soon(86_400 * 1010)}
        assert len(await ids(alice, **far, count=1)) == 1
        assert tracemalloc.get_traced_memory()[1] < 12_000_000
    finally:
        tracemalloc.stop()
    tasks = [
        {"id": f"t{n}", "name": "a", "url": "http://h/", "frequency": 7, "unit": "day"}
        for n in range(2500)
    ]
    assert (await alice.post("/tasks/bulk", json=tasks)).status_code == 201
    assert len(await unheld(lambda: ids(alice, **far, count=5, pageNumber=300), 30)) == 5
