"""Undo: what a pause or a delete took can be had back, once, and nothing is skipped in silence."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from conftest import App, RunApp, eventually
from pages import field, signed_in
from receiver import Answer
from scheduler import db, resealing, undo
from scheduler.tasks import undoing
from test_tasks_page import act, follow, make, statuses, undone


def hourly() -> dict[str, Any]:
    """Has instants before the task was made, too; the next is half an hour away."""
    away = datetime.now(UTC) + timedelta(minutes=30)
    return {"cron": f"{away.minute} * * * *", "frequency": None, "unit": None}


async def acts(conn: Any) -> list[UUID]:
    return [row["act"] for row in await conn.fetch("SELECT act FROM undo ORDER BY at")]


async def skipped(alice: httpx.AsyncClient, task_id: str) -> list[tuple[str, int]]:
    runs = (await alice.get(f"/runs?task={task_id}&state=skipped")).json()["runs"]
    return [(run["reason"], run.get("count") or 1) for run in runs]


async def age(conn: Any, seconds: float) -> None:
    """Let an act have been so long ago."""
    ago = timedelta(seconds=seconds)
    await conn.execute(
        """UPDATE undo SET at = at - CAST($1 AS interval), before = CASE kind WHEN 'delete' THEN jsonb_set(
            before, '{until}', to_jsonb((before ->> 'until')::bigint - $2)) ELSE before END""",
        ago,
        int(seconds * 1000),
    )


# A pause -----------------------------------------------------------------------------------------


async def test_undoing_a_pause_resumes_those_that_it_paused_and_no_others(visitor, alice):
    await make(alice, "a", "b")
    await make(alice, "p", status="paused", paused_until="2999-01-01T00:00:00Z")
    text = await follow(visitor, await act(visitor, "pause", "a", "b", "p"))
    assert "Paused 3 tasks." in text
    assert (await alice.get("/tasks/p")).json()["paused_until"] is None
    text = await undone(visitor, text)
    assert "Active again: 3 tasks." in text
    assert await statuses(alice) == {"a": "active", "b": "active", "p": "paused"}
    assert (await alice.get("/tasks/p")).json()["paused_until"] == "2999-01-01T00:00:00.000Z"


async def test_what_was_changed_since_a_pause_stays_as_it_is(visitor, alice):
    await make(alice, "a", "b", "c")
    text = await follow(visitor, await act(visitor, "pause", "a", "b", "c"))
    await alice.put("/tasks/b", json={"name": "Another"})
    await alice.delete("/tasks/c")
    text = await undone(visitor, text)
    assert "Not undone: 2 tasks" in text and "It was changed since; it stays as it is." in text
    assert "there is no task c" in text
    assert await statuses(alice) == {"a": "active", "b": "paused"}


# A delete ----------------------------------------------------------------------------------------


async def test_a_deleted_task_comes_back_as_it_was(visitor, alice, conn, receiver):
    secret = {"Authorization": "Bearer planted"}
    await make(
        alice, "a", url=receiver.url, header=secret, payload="x", description="d", tags=["t"]
    )
    await alice.post("/tasks/a/execute")
    before = (await alice.get("/tasks/a")).json()
    row = dict(await conn.fetchrow("SELECT * FROM task"))
    text = await follow(visitor, await act(visitor, "delete", "a"))
    assert (await alice.get("/tasks/a")).status_code == 404
    assert "planted" not in str(await conn.fetch("SELECT * FROM undo"))
    text = await undone(visitor, text)
    assert "Brought back <bdi>Task a</bdi>." in text and 'id="task-a"' in text
    after = (await alice.get("/tasks/a")).json()
    now = dict(await conn.fetchrow("SELECT * FROM task"))
    assert now.pop("version") == row.pop("version") + 1
    assert now.pop("updated_at") > row.pop("updated_at")
    assert now == row
    for name in ("updated_at", "version", "scheduled_at"):
        before.pop(name, None), after.pop(name, None)
    assert after == before
    assert len((await alice.get("/tasks/a/executions")).json()["records"]) == 1
    assert (await alice.post("/tasks/a/execute")).status_code == 200
    assert receiver.last.header("Authorization") == "Bearer planted"
    assert await conn.fetchval("SELECT before FROM undo") is None
    verbs = [
        row["verb"]
        for row in await conn.fetch("SELECT verb FROM audit WHERE kind = 'task' ORDER BY at")
    ]
    assert verbs == ["created", "deleted", "brought back"]


async def test_what_passed_meanwhile_is_recorded_as_skipped_and_not_run(
    app: App, visitor, alice, conn, receiver
):
    await make(alice, "a", url=receiver.url, **hourly())
    text = await follow(visitor, await act(visitor, "delete", "a"))
    await age(conn, 5 * 3600)
    assert await conn.fetchval("SELECT count(*) FROM run") == 0
    await undone(visitor, text)
    assert await skipped(alice, "a") == [("deleted", 5)]
    (gap,) = (await alice.get("/runs?task=a&state=skipped")).json()["runs"]
    explained = await alice.get("/tasks/a/explain", params={"at": gap["scheduled_for"]})
    assert explained.json()["verdict"] == "deleted"
    assert "brought back" in explained.json()["reason"]
    coming = (await alice.get("/tasks/a")).json()["scheduled_at"]
    now = db.rfc3339(app.engine.clock.now_ms())
    assert now is not None and coming > now
    assert receiver.requests == []


async def test_a_task_that_comes_back_is_run_when_it_is_due(visitor, alice, receiver):
    await make(alice, "a", url=receiver.url, frequency=1, unit="second")
    await eventually(lambda: receiver.requests[0])
    text = await follow(visitor, await act(visitor, "delete", "a"))
    await undone(visitor, text)
    many = len(receiver.requests)
    await eventually(lambda: receiver.requests[many + 1])

    async def whole() -> None:
        found = (await alice.get("/runs/verify")).json()
        assert found["missing"] == found["doubled"] == [] and found["checked"]

    await eventually(whole)


async def test_what_a_task_was_allowed_to_run_it_still_is(visitor, alice, conn):
    await make(alice, "a", max_runs=7, frequency=20, unit="second")
    kept = await conn.fetchval("SELECT planned_runs FROM task_plan")
    assert kept > 1  # a minute's worth is planned ahead
    text = await follow(visitor, await act(visitor, "delete", "a"))
    await undone(visitor, text)
    again = await conn.fetchrow("SELECT planned_runs, planned_until FROM task_plan")
    runs = await conn.fetchval("SELECT count(*) FROM run")
    ended = await conn.fetchval("SELECT coalesce(sum(count), 0) FROM history")
    assert again["planned_runs"] == runs + ended
    text = await follow(visitor, await act(visitor, "delete", "a"))
    await age(conn, 60)
    await undone(visitor, text)
    assert await conn.fetchval("SELECT planned_runs FROM task_plan") == (
        await conn.fetchval("SELECT count(*) FROM run")
        + await conn.fetchval("SELECT coalesce(sum(count), 0) FROM history")
    )


STATUSES = [
    {"status": "paused"},
    {"status": "paused", "paused_until": "2999-01-01T00:00:00Z"},
    {"status": "disabled"},
    {"frequency": None, "unit": None},
    {"frequency": None, "unit": None, "scheduled_at": "2999-01-01T00:00:00Z"},
]


@pytest.mark.parametrize("fields", STATUSES, ids=["paused", "until", "disabled", "manual", "once"])
async def test_a_task_comes_back_with_the_status_that_it_had(visitor, alice, conn, fields):
    await make(alice, "a", **fields)
    before = (await alice.get("/tasks/a")).json()
    plan = await conn.fetchrow("SELECT planned_until, planned_runs, next_plan_at FROM task_plan")
    await undone(visitor, await follow(visitor, await act(visitor, "delete", "a")))
    after = (await alice.get("/tasks/a")).json()
    for name in ("status", "paused_until", "scheduled_at", "state"):
        assert after.get(name) == before.get(name), name
    now = await conn.fetchrow("SELECT planned_until, planned_runs, next_plan_at FROM task_plan")
    assert now["planned_runs"] == plan["planned_runs"]
    assert (now["next_plan_at"] is None) == (plan["next_plan_at"] is None)
    assert await skipped(alice, "a") == []


async def test_a_pause_that_ended_meanwhile_has_ended(visitor, alice, conn):
    await make(alice, "a", status="paused", paused_until="2999-01-01T00:00:00Z", **hourly())
    text = await follow(visitor, await act(visitor, "delete", "a"))
    await conn.execute("""UPDATE undo SET before = jsonb_set(before, '{task,paused_until}',
                          to_jsonb(now() - interval '1 hour'))""")
    await age(conn, 7200)
    await undone(visitor, text)
    assert await statuses(alice) == {"a": "active"}
    assert await skipped(alice, "a") == [("deleted", 2)]


async def test_where_the_id_was_taken_it_says_so_and_can_be_tried_again(visitor, alice):
    await make(alice, "a", "b")
    text = await follow(visitor, await act(visitor, "delete", "a", "b"))
    await make(alice, "a", tags=["new"])
    text = await undone(visitor, text)
    assert "Not undone: 1 task" in text and "Another task has its id now" in text
    assert "Brought back 1 task" in text
    assert (await alice.get("/tasks/a")).json()["tags"] == ["new"]
    await alice.delete("/tasks/a")
    assert 'name="again"' in text
    path = text.partition('action="/dashboard/bulk/acts/')[2].partition('"')[0]
    sent = {"form": field(text, "form"), "back": "/dashboard/tasks", "again": "1"}
    led = await visitor.post(f"/dashboard/bulk/acts/{path}", data=sent)
    assert "Brought back 2 tasks." in await follow(visitor, led)
    assert await statuses(alice) == {"a": "active", "b": "active"}


async def test_a_quota_holds_for_what_comes_back(run_app: RunApp):
    async with (
        run_app(QUOTAS_MAX_TASKS="2") as app,
        app.client("alice") as alice,
        signed_in(app) as visitor,
    ):
        await make(alice, "a", "b")
        text = await follow(visitor, await act(visitor, "delete", "a", "b"))
        await make(alice, "c")
        text = await undone(visitor, text)
        assert "Brought back 1 task" in text and "max_tasks" in text
        assert len(await statuses(alice)) == 2


async def test_undo_that_is_pressed_twice_at_once_undoes_once(app: App, visitor, alice, conn):
    await make(alice, *(f"t{n}" for n in range(5)), **hourly())
    text = await follow(visitor, await act(visitor, "delete", *(f"t{n}" for n in range(5))))
    await age(conn, 3600)
    pages = await asyncio.gather(*(undone(visitor, text) for _ in range(4)))
    assert all("Brought back 5 tasks" in page for page in pages)
    versions = await conn.fetch("SELECT version FROM task")
    assert [row["version"] for row in versions] == [2] * 5
    for n in range(5):
        assert await skipped(alice, f"t{n}") == [("deleted", 1)]
    paused = await follow(visitor, await act(visitor, "pause", *(f"t{n}" for n in range(5))))
    await asyncio.gather(*(undone(visitor, paused) for _ in range(4)))
    assert set((await statuses(alice)).values()) == {"active"}
    assert {row["version"] for row in await conn.fetch("SELECT version FROM task")} == {4}


async def test_two_replicas_undo_once_and_both_run_what_comes_back(run_app: RunApp, conn, receiver):
    async with (
        run_app() as one,
        run_app() as two,
        one.client("alice") as alice,
        signed_in(one) as here,
        signed_in(two) as there,
    ):
        await make(alice, "a", "b", url=receiver.url, frequency=1, unit="second")
        await eventually(lambda: receiver.requests[3])
        text = await follow(here, await act(here, "delete", "a", "b"))
        form = {"form": field((await there.get("/dashboard")).text, "form")}
        (found, *_) = await acts(conn)
        other = there.post(f"/dashboard/bulk/acts/{found}/undo", data=form)
        _, answer = await asyncio.gather(undone(here, text), other)
        assert answer.status_code == 303
        assert {row["version"] for row in await conn.fetch("SELECT version FROM task")} == {2}
        many = len(receiver.requests)
        await eventually(lambda: receiver.requests[many + 3])
        ids = await conn.fetch("SELECT id FROM history GROUP BY id HAVING count(*) > 1")
        assert ids == []


async def test_what_ran_when_its_task_was_deleted_ends_and_stands(visitor, alice, receiver, conn):
    gate = asyncio.Event()
    receiver.then(after=gate)
    await make(alice, "a", url=receiver.url, frequency=1, unit="second", overlap="skip")
    await eventually(lambda: receiver.requests[0])
    text = await follow(visitor, await act(visitor, "delete", "a"))
    await undone(visitor, text)
    gate.set()

    async def ended() -> None:
        runs = (await alice.get("/runs?task=a&state=succeeded")).json()["runs"]
        assert runs

    await eventually(ended)
    twice = "SELECT scheduled_for FROM history GROUP BY scheduled_for HAVING count(*) > 1"
    assert await conn.fetch(twice) == []


async def test_deleting_and_undoing_again_and_again_loses_and_doubles_nothing(
    visitor, alice, conn, receiver
):
    await make(alice, "a", url=receiver.url, frequency=1, unit="second", overlap="allow")
    for _ in range(4):
        many = len(receiver.requests)
        await eventually(lambda: receiver.requests[many])  # noqa: B023
        await undone(visitor, await follow(visitor, await act(visitor, "delete", "a")))
    row = await conn.fetchrow("SELECT version, created_at FROM task")
    assert row["version"] == 5
    await alice.put("/tasks/a", json={"status": "paused"})

    async def whole() -> None:
        planned = await conn.fetchval("SELECT planned_runs FROM task_plan")
        live = await conn.fetchval("SELECT count(*) FROM run WHERE kind = 'task'")
        ended = await conn.fetchval("SELECT sum(count) FROM history WHERE kind = 'task'")
        assert planned == live + ended

    await eventually(whole)


async def test_how_a_task_stood_is_known_when_it_comes_back(
    app: App, visitor, alice, conn, receiver
):
    receiver.otherwise = Answer(500)
    await make(alice, "a", url=receiver.url, frequency=None, unit=None, max_retries=0)
    for _ in range(3):
        await alice.post("/tasks/a/execute")
    await app.engine.standing.flush()
    before = await conn.fetchrow("SELECT state, last, failures FROM task_state")
    assert before["failures"] == 3
    await undone(visitor, await follow(visitor, await act(visitor, "delete", "a")))
    assert await conn.fetchrow("SELECT state, last, failures FROM task_state") == before
    assert (await alice.get("/tasks/a")).json()["state"] == "failed"


async def test_a_calendar_that_is_gone_does_not_keep_a_task_away(visitor, alice):
    sundays = {"name": "free", "weekly": [{"days": ["SUN"]}]}
    made = await alice.post("/calendars", json=sundays)
    assert made.status_code == 201, made.text
    await make(alice, "a", calendars=["free"])
    text = await follow(visitor, await act(visitor, "delete", "a"))
    assert (await alice.delete("/calendars/free")).status_code == 204
    await undone(visitor, text)
    assert (await alice.get("/tasks/a")).json()["calendars"] == ["free"]


async def test_what_is_kept_is_sealed_with_the_rest(app: App, visitor, alice, conn, receiver):
    header = {"Authorization": "planted"}
    await make(alice, "a", url=receiver.url, header=header)
    text = await follow(visitor, await act(visitor, "delete", "a"))
    vault, service = app.database.vault, UUID(app.ids["alice"])

    def opener(of: UUID, what: str, value: str) -> str:
        return vault.open(value, of, what)

    for change, open_ in ((opener, True), (resealing.sealer(vault), False)):
        async with app.database.engine.begin() as c:
            step = await resealing.piece(c, service, resealing.START, change, resealing.UNDO)
        assert (step.changed, step.left) == (1, 0)
        assert ("planted" in str(await conn.fetchval("SELECT before FROM undo"))) == open_
    await undone(visitor, text)
    await alice.post("/tasks/a/execute")
    assert receiver.last.header("Authorization") == "planted"


async def test_only_a_pause_and_a_delete_can_be_undone(visitor, alice, conn):
    await make(alice, "a", status="paused")
    await follow(visitor, await act(visitor, "resume", "a"))
    (found,) = await acts(conn)
    form = {"form": field((await visitor.get("/dashboard")).text, "form")}
    refused = await visitor.post(f"/dashboard/bulk/acts/{found}/undo", data=form)
    assert refused.status_code == 409 and "Only a pause and a delete" in refused.text
    assert (await visitor.post(f"/dashboard/bulk/acts/{found}/redo", data=form)).status_code == 404


async def test_after_an_hour_it_is_over(app: App, visitor, alice, conn):
    await make(alice, "a")
    text = await follow(visitor, await act(visitor, "delete", "a"))
    await undoing.Pruning(app.database).step()
    assert await conn.fetchval("SELECT count(*) FROM undo") == 1
    await conn.execute("UPDATE undo SET at = now() - make_interval(secs => $1)", undo.LASTS_S + 1.0)
    await undoing.Pruning(app.database).step()
    assert await conn.fetchval("SELECT count(*) FROM undo") == 0
    path = text.partition('action="/dashboard/bulk/acts/')[2].partition('"')[0]
    over = await visitor.post(f"/dashboard/bulk/acts/{path}", data={"form": field(text, "form")})
    assert over.status_code == 404 and "an hour later" in over.text


async def test_what_has_the_id_of_a_chosen_task_by_now_is_not_run(visitor, alice, monkeypatch):
    monkeypatch.setattr("scheduler.tasks.undoing.SPAN_S", 0.0)
    monkeypatch.setattr("scheduler.tasks.undoing.PIECE", 1)
    await make(alice, "a", "b")
    at = (await act(visitor, "run", "a", "b")).headers["Location"]
    await alice.delete("/tasks/b")
    await make(alice, "b")
    monkeypatch.setattr("scheduler.tasks.undoing.SPAN_S", 4.0)
    sent = {"form": field((await visitor.get(at)).text, "form"), "back": "/dashboard/tasks"}
    led = await visitor.post(f"{at.partition('?')[0]}/on", data=sent)
    text = await follow(visitor, led)
    assert "Refused: 1 task" in text and "another task has its id now" in text
    assert (await alice.get("/tasks/b/executions")).json()["records"] == []
