"""`/tasks/{id}/schedule`: a time of one's own."""

from uuid import UUID

import asyncpg
import httpx
import pytest

from conftest import eventually
from scheduler.db import ms, rfc3339
from test_cancel import claiming_early, create, ends, shown, soon
from test_dispatcher import arrived
from test_queue import now_ms

HOUR = 3_600_000


async def schedule(client: httpx.AsyncClient, at: str, task_id: str = "t", **more) -> dict:
    answer = await client.post(f"/tasks/{task_id}/schedule", json={"scheduled_at": at, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def runs(conn: asyncpg.Connection) -> list[tuple[str, int]]:
    rows = await conn.fetch("SELECT kind, scheduled_for FROM run ORDER BY scheduled_for")
    return [(r["kind"], ms(r["scheduled_for"])) for r in rows]


def stamp(at: int) -> str:
    made = rfc3339(at)
    assert made
    return made


# Schedule ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [{}, {"scheduled_at": "2040-01-01T00:00:00Z"}])
@pytest.mark.parametrize("field", ["scheduled_at", "at"])
async def test_a_task_without_a_recurring_trigger_gets_its_time(
    alice, conn, receiver, before, field
):
    await create(alice, receiver, **before)
    at = now_ms() + 30_000
    answer = (await alice.post("/tasks/t/schedule", json={field: stamp(at)})).json()
    assert answer["message"]
    assert (answer["task_id"], answer["scheduled_at"]) == ("t", stamp(at))
    assert await runs(conn) == [("task", at)]
    assert (await shown(alice, answer["run_id"]))["state"] == "scheduled"
    assert (await alice.get("/tasks/t")).json()["scheduled_at"] == stamp(at)
    assert (await schedule(alice, stamp(at)))["run_id"] == answer["run_id"]
    assert await runs(conn) == [("task", at)]


async def test_a_recurring_task_gets_one_run_more_and_keeps_its_grid(alice, conn, receiver):
    start = now_ms() + 20_000
    await create(alice, receiver, frequency=1, unit="hour", scheduled_at=stamp(start))
    for _ in range(2):
        answer = await schedule(alice, stamp(start + 5000))
    assert await runs(conn) == [("task", start), ("manual", start + 5000)]
    assert (await alice.get("/tasks/t")).json()["scheduled_at"] == stamp(start)
    assert (await schedule(alice, stamp(start + 6000)))["run_id"] != answer["run_id"]
    assert len(await runs(conn)) == 3
    await alice.patch("/tasks/t", json={"frequency": 2})
    assert [kind for kind, _ in await runs(conn)] == ["task", "manual", "manual"]


@pytest.mark.parametrize("recurring", [{}, {"frequency": 1, "unit": "hour"}])
async def test_the_past_means_now_and_twice_is_once(alice, receiver, recurring):
    await create(alice, receiver, **recurring)
    past = "2020-01-01T00:00:00Z"
    first = await schedule(alice, past)
    await eventually(arrived(receiver, 1))
    ended = await ends(alice, UUID(first["run_id"]), "succeeded")
    assert ended["lag_ms"] < 2000
    assert (await schedule(alice, past))["run_id"] == first["run_id"]
    assert len(receiver.requests) == 1


async def test_a_far_time_asked_for_twice_is_the_run_to_come_and_not_the_last_one(
    alice, conn, receiver
):
    await create(alice, receiver)
    first = await schedule(alice, soon(-5))
    await ends(alice, UUID(first["run_id"]), "succeeded")
    far = "2040-01-01T00:00:00Z"
    await alice.patch("/tasks/t", json={"scheduled_at": far})  # no run yet: it lies far ahead
    one, two = await schedule(alice, far), await schedule(alice, far)
    assert one["run_id"] == two["run_id"] != first["run_id"]
    assert (await shown(alice, one["run_id"]))["state"] == "scheduled"
    await alice.patch("/tasks/t", json={"description": "as before, but for this"})
    three = await schedule(alice, far)
    assert three["run_id"] == one["run_id"]
    assert (await alice.post(f"/runs/{one['run_id']}/cancel")).status_code == 200
    assert await runs(conn) == []


async def test_what_a_paused_task_will_not_run_is_no_run_and_a_past_one_is_skipped(
    alice, conn, receiver
):
    await create(alice, receiver, status="paused")
    assert (await schedule(alice, soon(20)))["run_id"] is None
    past = soon(-5)
    first, again = await schedule(alice, past), await schedule(alice, past)
    skipped = await shown(alice, first["run_id"])
    assert (skipped["state"], skipped["reason"]) == ("skipped", "paused")
    assert again["run_id"] == first["run_id"]
    assert await runs(conn) == []


async def test_a_time_that_passes_while_the_request_is_served_is_due(alice, conn, receiver):
    await create(alice, receiver)
    for n in range(1, 20):
        at = now_ms() + n % 5  # some before the edit's clock, some between that and its commit
        await schedule(alice, stamp(at))
        await eventually(arrived(receiver, n))
    assert len(receiver.requests) == 19


async def test_an_idempotency_key_is_never_taken_for_a_scheduled_time(alice, conn, receiver):
    at = now_ms() + HOUR
    await create(alice, receiver, frequency=1, unit="day", overlap="allow")
    by_hand = await alice.post(
        "/tasks/t/execute?async=true", headers={"Idempotency-Key": f"at {at}"}
    )
    made = await schedule(alice, stamp(at))
    assert made["run_id"] != by_hand.json()["id"]
    assert ("manual", at) in await runs(conn)


async def test_a_scheduled_run_of_a_task_that_is_edited_while_it_is_held_still_runs(
    app, alice, conn, receiver
):
    claiming_early(app.engine)
    await create(alice, receiver, frequency=1, unit="hour")
    answer = await schedule(alice, soon(2.5))

    def held() -> None:
        assert app.engine.dispatcher.holds(UUID(answer["run_id"]))

    await eventually(held)
    await alice.patch("/tasks/t", json={"url": receiver.url + "/new"})
    await ends(alice, UUID(answer["run_id"]), "succeeded")
    assert [r.path for r in receiver.requests] == ["/new"]


async def test_a_paused_task_runs_what_was_scheduled_besides(alice, receiver):
    await create(alice, receiver, frequency=1, unit="hour", status="paused")
    answer = await schedule(alice, soon(0.1))
    await ends(alice, UUID(answer["run_id"]), "succeeded")


async def test_a_disabled_task_is_a_conflict_and_an_unknown_one_does_not_exist(
    alice, bob, conn, receiver
):
    await create(alice, receiver, status="disabled")
    body = {"scheduled_at": soon(5)}
    assert (await alice.post("/tasks/t/schedule", json=body)).status_code == 409
    assert (await bob.post("/tasks/t/schedule", json=body)).status_code == 404
    assert (await alice.post("/tasks/x/schedule", json=body)).status_code == 404
    assert await runs(conn) == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "validation_failed"), (b"{", "invalid_request"), (b"\xff", "invalid_request"),
        (b"[" * 5000, "validation_failed"), (b"{} x", "invalid_request"),
        (b"{}", "validation_failed"), (b"[]", "validation_failed"),
        (b'{"scheduled_at": 5}', "validation_failed"), (b'{"scheduled_at": ""}', "validation_failed"),
        (b'{"at": null}', "validation_failed"), (b'{"when": "now"}', "validation_failed"),
        (b'{"at": "2030-01-01T00:00:00"}', "validation_failed"),
        (b'{"at": "0001-01-01T00:00:00Z"}', "validation_failed"),
        (b'{"at": "9999-12-31T23:59:59.999-23:59"}', "validation_failed"),
    ],
)  # fmt: skip
async def test_what_is_no_time_is_refused_with_the_reason(alice, receiver, body, code):
    await create(alice, receiver)
    answer = await alice.post("/tasks/t/schedule", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert answer.json()["error"]["message"]
