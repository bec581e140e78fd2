"""Runs that are of no task: processes and steps of specs, in every face and in the machine.

What they do comes from a room of the test's own, so that it can be told to fail, to wait, to hang.
"""

import asyncio
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import msgspec
import pytest

from conftest import App, eventually
from scheduler import actions, clock, history, lines, metrics, queue
from scheduler.actions import Operation
from scheduler.actions.step import Step
from scheduler.db import Conn, utc
from scheduler.definition import Definition, Policy
from scheduler.engine import Engine
from scheduler.run import Kind, Later, NewRun, Run, bucket_of, run_id
from scheduler.runs.verify import Job, check
from scheduler.settler import Outcome
from scheduler.sweep import Sweep
from test_cancel import create, ends, shown
from test_dispatcher import no_run_left
from test_pages import signed_in
from test_queue import ALICE, ME, claim, claim_late, database, ended, now_ms, tried
from test_quotas import limit
from test_settler import settle

__all__ = ["database", "settle"]

DAY = 86_400_000
OK = actions.Outcome(succeeded=True, status_code=200, body=b"ok", content_type="text/plain")
AGAIN = actions.Outcome(succeeded=False, status_code=503, error="503", retryable=True)
FINAL = actions.Outcome(succeeded=False, status_code=404, error="404")


def wait(seconds: float) -> actions.Outcome:
    return actions.Outcome(succeeded=False, later_s=seconds)


class Room:
    """What processes and specs of a test do, and what becomes of it."""

    def __init__(self, *says: actions.Outcome) -> None:
        self.says = list(says) or [OK]
        self.of: dict[UUID, Definition] = {}
        self.calls: list[actions.Call] = []
        self.held: asyncio.Event | None = None
        """Calls hang until it is set,"""
        self.sends = True
        """with what they send on its way; else before that."""
        self.broken: UUID | None = None
        """Of the run that cannot even be read."""

    def enter(self, engine: Engine) -> None:
        """Be the room of an engine."""
        engine.runner.sources = {"process": Source(self, Operation), "spec": Source(self, Step)}
        known = engine.runner._performers
        engine.runner._performers = {**known, Operation: self, Step: self}

    def prepare(self, action: object, _expected: object) -> object:
        return action

    async def check(self, _service_id: UUID, _action: object) -> list[tuple[str, str]]:
        return []

    async def perform(self, _prepared: object, call: actions.Call) -> actions.Outcome:
        self.calls.append(call)
        assert not self.sends or call.may_send()
        if self.held is not None:
            await self.held.wait()
        return self.says.pop(0) if len(self.says) > 1 else self.says[0]

    def make(
        self, trace: str, kind: Kind = "process", *, service: UUID = ALICE, at: int | None = None,
        once: bool = False, **policy: Any,
    ) -> NewRun:  # fmt: skip
        """A process, or a step of a spec, and its run."""
        at, bucket, key = at or now_ms(), bucket_of(service, trace), uuid.uuid4()
        call = Operation(
            "pets", "/pets/{id}", "POST" if once else "GET", once=once,
            headers={"Accept": "text/x-planted", "Authorization": "planted"},
            url_params='{"id": 7}', url="http://user:planted@target/",
        )  # fmt: skip
        action = call if kind == "process" else Step(key, 1, "SPEC")
        self.of[key] = Definition(
            key=key, bucket=bucket, service_id=service, id=trace, version=1, name=trace,
            description=None, tags=[], status="active", trigger=None, action=action,
            policy=Policy(**policy), created_at=utc(at), updated_at=utc(at),
        )  # fmt: skip
        return NewRun(
            id=run_id(key, bucket, kind, at), bucket=bucket, service_id=service, task_key=key,
            task_id=trace, kind=kind, version=1, overlap="allow", at=at,
            priority=policy.get("priority", 0),
        )  # fmt: skip

    def forget(self, run: NewRun) -> None:
        """Let a process or a spec be gone."""
        del self.of[run.task_key]


class Source:
    """The room's runs of one kind."""

    def __init__(self, room: Room, action: type) -> None:
        self.room, self.action = room, action

    async def definitions(self, _conn: Conn, runs: Sequence[Run]) -> dict[UUID, Definition]:
        if self.room.broken in {run.id for run in runs}:
            raise ValueError("this row is no process")
        of = self.room.of
        return {run.id: of[run.task_key] for run in runs if run.task_key in of}

    async def key(self, _conn: Conn, service_id: UUID, trace_id: str) -> UUID | None:
        for of in self.room.of.values():
            if (of.service_id, of.id) == (service_id, trace_id):
                return of.key if isinstance(of.action, self.action) else None
        return None


@pytest.fixture
def room(app: App) -> Room:
    made = Room()
    made.enter(app.engine)
    return made


async def add(app: App, *runs: NewRun) -> None:
    async with app.database.api.begin() as conn:
        await queue.enqueue(conn, runs, utc(await clock.database_ms(conn)))
    app.engine.wake(min(run.at for run in runs))


async def one(app: App, room: Room, kind: Kind = "process", **of: Any) -> NewRun:
    """A run of alice's, in the queue; its trace_id is its own."""
    run = room.make(uuid.uuid4().hex[:16], kind, service=UUID(app.ids["alice"]), **of)
    await add(app, run)
    return run


async def listed(client: httpx.AsyncClient, query: str) -> list[str]:
    answer = await client.get(f"/runs?{query}")
    assert answer.status_code == 200, answer.text
    return [run["id"] for run in answer.json()["runs"]]


# Faces -------------------------------------------------------------------------------------------


async def test_a_process_has_a_trace_id_and_shows_what_it_calls(app: App, alice, room, bob):
    later = await one(app, room, at=now_ms() + DAY)
    ended = await one(app, room)
    for run, state in ((later, "scheduled"), (ended, "succeeded")):
        now = await ends(alice, run.id, state)
        assert (now["task_id"], now["trace_id"], now["trigger"]) == (None, run.task_id, None)
        assert now["request"] == {
            "service": "pets", "method": "GET", "endpoint": "/pets/{id}",
            "headers": {"Accept": "********", "Authorization": "********"},
            "query_params": None, "url_params": {"id": 7}, "req_body": None,
            "url": "http://********@target/",
        }  # fmt: skip
        assert (await bob.get(f"/runs/{run.id}")).status_code == 404
    rows = (await alice.get("/runs")).json()["runs"]
    assert [(r["task_id"], r["trace_id"], r["request"]) for r in rows] == [
        (None, later.task_id, None), (None, ended.task_id, None)
    ]  # fmt: skip


async def test_a_step_of_a_spec_has_a_trace_id_and_sends_nothing(app: App, alice, room):
    run = await one(app, room, "spec")
    now = await ends(alice, run.id, "succeeded")
    assert (now["kind"], now["task_id"], now["trace_id"]) == ("spec", None, run.task_id)
    assert (now["trigger"], now["request"]) == (None, None)


async def test_runs_are_found_by_a_trace_id_and_none_is_taken_for_a_tasks(
    app: App, alice, room, receiver, bob
):
    await create(alice, receiver)
    process, spec = await one(app, room), await one(app, room, "spec")
    task = (await alice.post("/tasks/t/execute")).json()["run_id"]
    await ends(alice, process.id, "succeeded")
    await ends(alice, spec.id, "succeeded")
    for run in (process, spec):
        trace = run.task_id
        assert await listed(alice, f"trace_id={trace}") == [str(run.id)]
        assert await listed(alice, f"q={trace}") == [str(run.id)]
        assert await listed(alice, f"q={run.id}") == [str(run.id)]
        assert await listed(alice, f"task={trace}") == []
        assert await listed(alice, f"trace_id={trace}&kind=task") == []
        assert await listed(alice, f"trace_id={trace}&state=failed") == []
        assert await listed(bob, f"trace_id={trace}") == []
        assert await listed(bob, f"q={trace}") == []
        room.forget(run)
        assert await listed(alice, f"trace_id={trace}") == [str(run.id)]
        assert await listed(bob, f"trace_id={trace}") == []
        assert (await shown(alice, run.id))["request"] is None
    assert await listed(alice, "kind=process") == [str(process.id)]
    assert set(await listed(alice, "kind=process,spec")) == {str(process.id), str(spec.id)}
    assert await listed(alice, "task=t") == [task]
    assert await listed(alice, f"task=t&trace_id={process.task_id}") == []


async def test_the_page_of_a_run_shows_the_process_and_no_header_of_it(app: App, alice, room):
    process, spec = await one(app, room), await one(app, room, "spec")
    await ends(alice, process.id, "succeeded")
    await ends(alice, spec.id, "succeeded")
    async with signed_in(app) as visitor:
        page = (await visitor.get(f"/dashboard/runs/{process.id}")).text
        assert f"Process <bdi>{process.task_id}</bdi>" in page
        assert "/pets/{id}" in page
        assert "planted" not in page
        page = (await visitor.get(f"/dashboard/runs/{spec.id}")).text
        assert f"Spec <bdi>{spec.task_id}</bdi>" in page
        assert "/dashboard/tasks/" not in page


# Replay ------------------------------------------------------------------------------------------


async def replayed(client: httpx.AsyncClient, run: NewRun, state: str) -> dict[str, Any]:
    answer = await client.post(f"/runs/{run.id}/replay")
    assert answer.status_code == 202, answer.text
    assert answer.json()["trace_id"] == run.task_id
    return await ends(client, run.id, state)


@pytest.mark.parametrize("kind", ["process", "spec"])
async def test_a_failed_run_goes_again_with_its_attempts(app: App, alice, room, kind: Kind, bob):
    room.says = [FINAL, OK]
    run = await one(app, room, kind, priority=7)
    await ends(alice, run.id, "failed")
    assert (await bob.post(f"/runs/{run.id}/replay")).status_code == 404
    now = await replayed(alice, run, "succeeded")
    assert [each["outcome"] for each in now["attempts"]] == ["failed", "succeeded"]
    assert [call.again for call in room.calls] == [False, True]
    assert {call.run_id for call in room.calls} == {run.id}


async def test_a_step_that_is_done_is_not_done_again(app: App, alice, room):
    run = await one(app, room, "spec")
    await ends(alice, run.id, "succeeded")
    answer = await alice.post(f"/runs/{run.id}/replay")
    assert answer.status_code == 409
    assert "send the document once more" in answer.json()["error"]["message"]


@pytest.mark.parametrize("kind", ["process", "spec"])
async def test_what_is_gone_cannot_go_again(app: App, alice, room, kind: Kind):
    room.says = [FINAL]
    run = await one(app, room, kind)
    await ends(alice, run.id, "failed")
    room.forget(run)
    answer = await alice.post(f"/runs/{run.id}/replay")
    assert answer.status_code == 409
    assert answer.json()["error"]["message"] == f"the {kind} that this run was of is gone"


@pytest.mark.parametrize(
    ("once", "policy", "tries"), [(True, {}, 1), (False, {}, 4), (False, {"max_retries": 1}, 2)]
)
async def test_a_replay_is_retried_as_often_as_its_process_may_be(
    app: App, alice, room, conn, once: bool, policy: dict[str, int], tries: int
):
    room.says = [OK, AGAIN]
    backoff = {"initial_seconds": 0.001, "factor": 1, "max_seconds": 0.001}
    run = await one(app, room, once=once, **policy)
    of = room.of[run.task_key].policy
    quick = msgspec.convert({**msgspec.to_builtins(of), "retry_backoff": backoff}, Policy)
    room.of[run.task_key] = msgspec.structs.replace(room.of[run.task_key], policy=quick)
    await ends(alice, run.id, "succeeded")
    assert (await replayed(alice, run, "failed"))["attempt"] == 1 + tries


async def test_a_filter_replays_runs_of_every_kind(app: App, alice, room, receiver):
    await create(alice, receiver)
    await alice.post("/tasks/t/execute")
    runs = [await one(app, room) for _ in range(3)] + [await one(app, room, "spec")]
    for run in runs:
        await ends(alice, run.id, "succeeded")
    room.forget(runs[0])
    told = (await alice.post("/runs/replay", json={"state": "succeeded"})).json()
    assert (told["matched"], told["done"]) == (5, 3)
    assert sorted(told["refused"].values()) == [1, 1]
    told = (await alice.post("/runs/replay", json={"trace_id": runs[1].task_id})).json()
    assert told["matched"] <= 1
    for run in runs[1:3]:
        assert (await ends(alice, run.id, "succeeded"))["attempt"] >= 2


async def test_a_filter_replays_no_more_processes_than_the_quota_lets_through(run_app):
    async with run_app(ADMIN_TOKEN="admin-token") as app, app.client("alice") as client:
        room = Room()
        room.enter(app.engine)
        runs = [await one(app, room) for _ in range(5)]
        for run in runs:
            await ends(client, run.id, "succeeded")
        await limit(app, "alice", max_runs_per_minute=2)
        told = (await client.post("/runs/replay", json={"kind": "process"})).json()
        assert (told["done"], told["more"], sum(told["refused"].values())) == (2, True, 3)


# Cancel ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["process", "spec"])
async def test_what_waits_is_cancelled_at_once_and_what_runs_is_cut_short(
    app: App, alice, room, kind: Kind, bob
):
    room.held = asyncio.Event()
    waits, runs = await one(app, room, kind, at=now_ms() + DAY), await one(app, room, kind)
    await ends(alice, runs.id, "running")
    assert (await bob.post(f"/runs/{waits.id}/cancel")).status_code == 404
    answer = await alice.post(f"/runs/{waits.id}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    answer = await alice.post(f"/runs/{runs.id}/cancel")
    assert answer.status_code == 202
    cut = "the call may have arrived" if kind == "process" else "it was stopped half-way"
    assert (await ends(alice, runs.id, "cancelled"))["reason"] == f"someone cancelled it; {cut}"


async def test_a_filter_cancels_processes_that_are_held_waiting_and_under_way(
    app: App, alice, room, conn
):
    room.held = asyncio.Event()
    now = now_ms()
    runs = [await one(app, room, at=at) for at in (now, now + 900, now + DAY)]
    await ends(alice, runs[0].id, "running")
    told = (await alice.post("/runs/cancel", json={"kind": "process"})).json()
    assert (told["matched"], told["done"] + told["aborted"]) == (3, 3)
    for run in runs:
        await ends(alice, run.id, "cancelled")


async def test_a_cancelled_process_can_be_replayed(app: App, alice, room):
    run = await one(app, room, at=now_ms() + DAY)
    await alice.post(f"/runs/{run.id}/cancel")
    assert (await replayed(alice, run, "succeeded"))["attempt"] == 1


# Not to be taken for tasks -----------------------------------------------------------------------


async def test_a_process_that_is_overdue_for_a_day_is_run_and_no_misfire(app: App, alice, room):
    run = await one(app, room, at=now_ms() - DAY)
    now = await ends(alice, run.id, "succeeded")
    assert now["lag_ms"] >= DAY


@pytest.mark.parametrize("kind", ["process", "spec"])
async def test_no_sweep_judges_what_is_of_no_task(database, conn, kind: Kind):
    now = now_ms()
    runs = [Room().make(f"t{n:015}", kind, at=now - DAY + n) for n in range(3)]
    async with database.engine.begin() as c:
        await queue.enqueue(c, runs, utc(now))
    await conn.execute("UPDATE run SET overlap = 'skip'")
    swept = await Sweep(database, 60_000, 1).step(now, first=True, alone=True)
    assert (swept.skipped, swept.tasks) == (0, [])
    assert len(await claim_late(database, now)) == 3


async def test_processes_take_nobodys_place_among_the_running_tasks(app: App, alice, room, conn):
    now, service = now_ms(), UUID(app.ids["alice"])
    runs = [room.make(f"t{n:015}", service=service, at=now - 5) for n in range(20)]
    task = msgspec.structs.replace(room.make("t", service=service, at=now), kind="manual")
    async with app.database.engine.begin() as c:
        await queue.enqueue(c, [*runs, task], utc(now))
        await c.exec_driver_sql("UPDATE run SET attempts_n = 1, due = due - interval '1 s'")
        assert await lines.running(c, service, utc(now), 1) == [task.task_key]
        await c.rollback()


async def test_what_is_scheduled_of_tasks_holds_no_process(app: App, alice, room, receiver):
    await create(alice, receiver, scheduled_at="2100-01-01T00:00:00Z")
    at = now_ms() + 3_600_000
    process = await one(app, room, at=at)
    service = UUID(app.ids["alice"])
    async with app.database.engine.connect() as c:
        due = lines.due_tasks(c, service, utc(at - 1), utc(at + 1), 10)
        assert [key async for key, _ in due] == []
    answer = await alice.get("/tasks/scheduled")
    assert (answer.status_code, answer.json()) == (200, [])
    told = (await alice.get("/tasks?state=pending")).json()
    assert [each["id"] for each in told] == ["t"]
    assert (await shown(alice, process.id))["state"] == "scheduled"


async def test_no_repair_of_what_tasks_stand_at_looks_at_a_process(app: App, alice, room, receiver):
    await create(alice, receiver)
    await alice.post("/tasks/t/execute")
    process, spec = await one(app, room), await one(app, room, "spec")
    await ends(alice, process.id, "succeeded")
    await ends(alice, spec.id, "succeeded")
    now = now_ms()
    async with app.database.engine.connect() as c:
        keys = await history.ended_between(c, utc(now - 60_000), utc(now + 60_000))
    assert len(keys) == 1
    assert process.task_key not in keys
    await app.engine.standing.repair(now - 60_000, now + 60_000)


async def test_no_state_of_a_task_is_kept_for_a_process(app: App, alice, room, conn):
    for kind in ("process", "spec"):
        room.says = [FINAL]
        run = await one(app, room, kind)
        await ends(alice, run.id, "failed")
        other = await one(app, room, kind, at=now_ms() + DAY)
        await alice.post(f"/runs/{other.id}/cancel")
        await alice.post(f"/runs/{run.id}/replay")
        await ends(alice, run.id, "failed")
    await app.engine.standing.flush()
    assert await conn.fetchval("SELECT count(*) FROM task_state") == 0
    assert await conn.fetchval("SELECT count(*) FROM task_plan") == 0


async def test_verify_asks_nothing_of_processes(app: App, alice, room, conn):
    for kind in ("process", "spec"):
        for at in (now_ms() - 60_000, now_ms()):
            await ends(alice, (await one(app, room, kind, at=at)).id, "succeeded")
    now = now_ms()
    job = Job(
        url="", database=app.settings.database, service_id=UUID(app.ids["alice"]),
        since=now - DAY, until=now, kept=now - DAY,
    )  # fmt: skip
    async with app.database.engine.connect() as c:
        told = await check(c, job)
    assert (told.missing, told.doubled) == ([], [])


async def test_a_call_under_way_counts_in_flight_and_what_waits_does_not(run_app, receiver):
    async with run_app(ADMIN_TOKEN="admin-token") as app, app.client("alice") as client:
        room = Room(wait(3600), OK)
        room.enter(app.engine)
        await create(client, receiver)
        await limit(app, "alice", max_in_flight=1)
        waits = await one(app, room)
        await postponed(client, waits)
        assert (await client.post("/tasks/t/execute")).status_code == 200
        room.held = asyncio.Event()
        await ends(client, (await one(app, room)).id, "running")
        assert (await client.post("/tasks/t/execute")).status_code == 429
        room.held.set()


async def test_a_run_that_breaks_its_source_fails_and_holds_up_no_other(app: App, alice, room):
    now = now_ms()
    service = UUID(app.ids["alice"])
    runs = [room.make(f"t{n:015}", service=service, at=now) for n in range(9)]
    room.broken = runs[4].id
    await add(app, *runs)
    for run in runs:
        state = "failed" if run is runs[4] else "succeeded"
        assert (await ends(alice, run.id, state))["attempt"] == 1
    assert "an error inside the scheduler" in (await shown(alice, runs[4].id))["reason"]


# Waiting -----------------------------------------------------------------------------------------


async def postponed(client: httpx.AsyncClient, run: NewRun) -> dict[str, Any]:
    async def check() -> dict[str, Any]:
        now = await shown(client, run.id)
        assert now["state"] == "scheduled"
        assert now["next_attempt_at"] > now["scheduled_for"]
        return now

    return await eventually(check)


async def test_what_has_to_wait_comes_again_and_no_attempt_is_counted(app: App, alice, room, conn):
    attempts = sum(
        sample.value for metric in metrics.ATTEMPTS.collect() for sample in metric.samples
        if sample.name.endswith("_total")
    )  # fmt: skip
    room.says = [wait(0), wait(0.01), wait(0.01), OK]
    run = await one(app, room)
    now = await ends(alice, run.id, "succeeded")
    assert (now["attempt"], len(room.calls)) == (1, 4)
    assert [call.attempt for call in room.calls] == [1, 1, 1, 1]
    assert not any(call.again for call in room.calls)
    await eventually(lambda: no_run_left(conn))
    after = sum(
        sample.value for metric in metrics.ATTEMPTS.collect() for sample in metric.samples
        if sample.name.endswith("_total")
    )  # fmt: skip
    assert after == attempts + 1


async def test_what_waits_is_nobodys_and_is_cancelled_at_once(app: App, alice, room, conn):
    room.says = [wait(3600)]
    run = await one(app, room)
    now = await postponed(alice, run)
    assert (now["attempt"], now["attempts"], now["started_at"]) == (0, [], None)
    assert await conn.fetchval("SELECT claimed_by FROM run") is None
    assert app.engine.dispatcher.crew.in_flight == 0
    assert app.engine.dispatcher.holds(run.id) is None
    answer = await alice.post(f"/runs/{run.id}/cancel")
    assert (answer.status_code, answer.json()["reason"]) == (200, "someone cancelled it")


async def test_a_cancel_is_heard_that_comes_as_a_run_says_that_it_waits(
    app: App, alice, room, conn, monkeypatch
):
    """It is marked after the performer spoke, and before that is written."""
    room.says = [wait(3600)]
    run = await one(app, room, at=now_ms() + 300)
    before = queue.postpone

    async def slow(on: Conn, me: UUID, laters: Sequence[Later], others: Sequence[Run] = ()) -> Any:
        monkeypatch.setattr(queue, "postpone", before)
        assert (await alice.post(f"/runs/{run.id}/cancel")).status_code in (200, 202)
        return await before(on, me, laters, others)

    monkeypatch.setattr(queue, "postpone", slow)
    now = await ends(alice, run.id, "cancelled")
    assert now["attempts"] == []


async def test_a_wait_sent_again_after_a_lost_answer_releases_no_later_claim(database, conn):
    now = now_ms()
    async with database.engine.begin() as c:
        await queue.enqueue(c, [Room().make("t" * 16, at=now)], utc(now))
    (run,) = await claim(database, now)
    later = Later(run, now + 500)
    async with database.engine.begin() as c:
        assert await queue.postpone(c, ME, [later]) == [run.id]
    (again,) = await claim(database, now)
    assert (again.id, again.due, again.scheduled_for) == (run.id, now + 500, now)
    async with database.engine.begin() as c:
        assert await queue.postpone(c, ME, [later]) == []
    assert await conn.fetchval("SELECT claimed_by FROM run") == ME
    async with database.engine.begin() as c:
        assert await queue.postpone(c, ME, [Later(again, now + 900)]) == [run.id]


async def test_a_lost_answer_to_a_wait_makes_nobody_call_twice_at_once(settle, conn, monkeypatch):
    """It was written; then this process claimed the run again, and is at it."""
    database, at_work = settle
    now = now_ms()
    async with database.engine.begin() as c:
        await queue.enqueue(c, [Room().make("t" * 16, at=now)], utc(now))
    (run,) = await claim(database, now)
    written, sent = queue.postpone, []

    async def lost(on: Conn, me: UUID, laters: Sequence[Later], others: Sequence[Run] = ()) -> Any:
        if sent:
            return await written(on, me, laters, others)
        async with database.engine.begin() as other:
            sent.extend(await written(other, me, laters, others))
        assert [again.id for again in await claim(database, now)] == [run.id]
        raise ConnectionResetError

    monkeypatch.setattr(queue, "postpone", lost)
    await at_work.all_of([Outcome(Later(run, now + 1))])
    assert sent == [run.id]
    assert await conn.fetchval("SELECT claimed_by FROM run") == ME


async def test_a_replica_that_was_freed_postpones_nothing(database, conn):
    now = now_ms()
    async with database.engine.begin() as c:
        await queue.enqueue(c, [Room().make("t" * 16, at=now)], utc(now))
    (run,) = await claim(database, now)
    await conn.execute("UPDATE run SET claimed_by = $1", UUID(int=99))
    async with database.engine.begin() as c:
        assert await queue.postpone(c, ME, [Later(run, now + 500)]) == []
    assert await conn.fetchval("SELECT claimed_by FROM run") == UUID(int=99)


async def test_waits_ends_and_retries_are_written_in_one_group(settle, conn):
    database, at_work = settle
    now, room = now_ms(), Room()
    runs = [room.make(f"t{n:015}", at=now) for n in range(3)]
    async with database.engine.begin() as c:
        await queue.enqueue(c, runs, utc(now))
    held = {run.id: run for run in await claim(database, now)}
    from_queue = [held[run.id] for run in runs]

    await at_work.all_of(
        [
            Outcome(Later(from_queue[0], now + 5000)),
            Outcome(tried(from_queue[1], now + 5000)),
            Outcome(ended(from_queue[2])),
        ]
    )
    rows = await conn.fetch("SELECT id, attempts_n, claimed_by, due FROM run ORDER BY attempts_n")
    assert [(r["id"], r["attempts_n"], r["claimed_by"]) for r in rows] == [
        (runs[0].id, 0, None), (runs[1].id, 1, None)
    ]  # fmt: skip
    assert {r["due"] for r in rows} == {utc(now + 5000)}
    assert await conn.fetchval("SELECT id FROM history") == runs[2].id


async def test_what_waits_outlives_the_process_that_waited(app: App, alice, room, run_app, conn):
    room.says = [wait(1.5)]
    run = await one(app, room)
    await postponed(alice, run)
    await app.engine.stop()
    assert await conn.fetchval("SELECT claimed_by FROM run") is None
    async with run_app() as other, other.client("alice") as client:
        second = Room()
        second.of = room.of
        second.enter(other.engine)
        assert (await ends(client, run.id, "succeeded"))["attempt"] == 1


# Calls that nobody said may be repeated ----------------------------------------------------------


async def freed(conn: asyncpg.Connection, app: App) -> None:
    """Another replica takes this one for dead."""
    me = app.engine.membership.me
    async with app.database.engine.begin() as c:
        now = await clock.database_ms(c)
        await queue.free(c, [me], utc(now), utc(now))
    await conn.execute("UPDATE run SET due = now() WHERE claimed_by IS NULL")


@pytest.mark.parametrize("once", [True, False])
async def test_a_call_that_may_have_arrived_is_made_again_only_where_that_is_safe(
    app: App, alice, room, conn, tmp_path: Path, run_app, once: bool
):
    room.held = asyncio.Event()
    run = await one(app, room, once=once)
    await ends(alice, run.id, "running")
    async with run_app() as other, other.client("alice") as client:
        second = Room()
        second.of = room.of
        second.enter(other.engine)
        app.engine.dispatcher.halt("test", "it is taken for dead")
        await freed(conn, app)
        other.engine.wake(0)
        now = await ends(client, run.id, "failed" if once else "succeeded")
        assert len(second.calls) == (0 if once else 1)
    room.held.set()
    assert now["attempts"][0]["outcome"] == "unknown"
    if once:
        assert now["reason"] == "the call may have arrived"
        assert now["started_at"] is not None


async def test_a_call_cut_at_the_deadline_of_a_stop_ends_where_it_is_not_safe_to_repeat(
    run_app, conn
):
    room = Room()
    room.held = asyncio.Event()
    async with run_app(WORKER_DRAIN_SECONDS="0.1") as app, app.client("alice") as client:
        room.enter(app.engine)
        runs = [await one(app, room, once=once) for once in (True, False)]
        for run in runs:
            await ends(client, run.id, "running")
    rows = await conn.fetch("SELECT id, state, reason FROM history")
    assert [(r["id"], r["state"]) for r in rows] == [(runs[0].id, "failed")]
    assert rows[0]["reason"] == "cut short; the call may have arrived"
    assert await conn.fetchval("SELECT id FROM run") == runs[1].id


async def test_a_call_that_a_stop_cuts_before_anything_was_sent_goes_back_to_the_queue(
    run_app, conn
):
    room = Room()
    room.held, room.sends = asyncio.Event(), False
    async with run_app(WORKER_DRAIN_SECONDS="0.1") as app, app.client("alice") as client:
        room.enter(app.engine)
        run = await one(app, room, once=True)
        await ends(client, run.id, "running")
    rows = await conn.fetch("SELECT id, claimed_by, attempts_n, due = scheduled_for FROM run")
    assert [tuple(row) for row in rows] == [(run.id, None, 0, True)]
    assert await conn.fetchval("SELECT count(*) FROM history") == 0


async def test_a_cancel_before_anything_was_sent_does_not_say_that_it_may_have_arrived(
    app, alice, room
):
    room.held, room.sends = asyncio.Event(), False
    run = await one(app, room, once=True)
    await ends(alice, run.id, "running")
    assert (await alice.post(f"/runs/{run.id}/cancel")).status_code == 202
    ended = await ends(alice, run.id, "cancelled")
    assert (ended["reason"], ended["attempts"]) == ("someone cancelled it", [])
