"""The life of tasks as a state machine: whatever is done to them, each due instant ends once.

Time is a number here, and the machine's own verbs are called on a real Postgres: a day passes in
a statement. The model knows one thing of each task, the stretches in which its trigger was due.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import hypothesis.strategies as st
import msgspec
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from scheduler import (
    clock,
    config,
    edits,
    lines,
    partitions,
    planner,
    queue,
    replays,
    skips,
    task,
)
from scheduler.db import Database, ms, utc
from scheduler.definition import Definition
from scheduler.replays import Again
from scheduler.run import Attempt, End, NewRun, Retry, Run, run_id
from scheduler.sweep import Sweep
from scheduler.triggers import Bounds, Interval
from test_queue import ALICE, definition

START = 1_800_000_000_000
WINDOW = 20_000
ME = uuid.UUID(int=77)
QUEUE_MOST = 3

SECONDS = st.integers(1, 7)
MISFIRES = st.sampled_from(["latest", "all", "skip"])
OVERLAPS = st.sampled_from(["skip", "allow", "queue"])
PICK = st.integers(0, 1_000_000)


class Told(msgspec.Struct):
    """What the model knows of a task."""

    of: Definition
    since: int
    """From when on it stands as it does."""
    due: list[int] = []
    """Its instants before that."""
    early: set[int] = set()
    """Instants that were cancelled before they came."""
    deleted: bool = False

    def pass_to(self, now: int) -> None:
        """Note what was due up to `now`; a paused task's instants are to be accounted for, too."""
        if self.of.status != "disabled":
            self.due += self.of.instants.between(self.since, now)
        self.since = now


class Life(RuleBasedStateMachine):
    """Everything that can be done to tasks and runs, on one database."""

    database: Database
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.tasks: dict[uuid.UUID, Told] = {}
        self.held: dict[uuid.UUID, Run] = {}
        self.numbers = 0

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    # Tasks

    @initialize()
    def begin(self) -> None:
        async def work() -> None:
            async with self.database.engine.begin() as conn:
                await conn.execute(text("TRUNCATE task, task_plan, run, history"))

        self.do(work())

    @rule(seconds=SECONDS, misfire=MISFIRES, overlap=OVERLAPS, limit=st.none() | st.integers(1, 9))
    def create(self, seconds: int, misfire: str, overlap: str, limit: int | None) -> None:
        self.numbers += 1
        of = definition(
            f"t{self.numbers}", misfire=misfire, overlap=overlap, misfire_grace_seconds=5
        )
        of = msgspec.structs.replace(
            of, trigger=Interval(seconds, "second", self.now + seconds * 1000),
            bounds=Bounds(max_runs=limit),
        )  # fmt: skip

        async def work() -> None:
            async with self.database.engine.begin() as conn:
                await task.create(conn, of)
                await planner.create(conn, of, self.now, window_ms=WINDOW, at_once=False)

        self.do(work())
        self.tasks[of.key] = Told(of, self.now)

    def one(self, pick: int) -> Told | None:
        alive = [told for told in self.tasks.values() if not told.deleted]
        return alive[pick % len(alive)] if alive else None

    def edit(self, told: Told, **changes: Any) -> None:
        before = told.of
        after = msgspec.structs.replace(before, version=before.version + 1, **changes)

        async def work() -> None:
            async with self.database.engine.begin() as conn:
                planned = await planner.lock(conn, before.line)
                await task.change(conn, after)
                await edits.replan(conn, before, after, planned, window_ms=WINDOW)
            await self.recall(told)

        told.pass_to(self.now)
        told.of = after
        self.do(work())

    @rule(pick=PICK, seconds=SECONDS)
    def change(self, pick: int, seconds: int) -> None:
        if (told := self.one(pick)) is not None:
            self.edit(told, trigger=Interval(seconds, "second", self.now + 500))

    @rule(pick=PICK, name=st.sampled_from("abc"))
    def rename(self, pick: int, name: str) -> None:
        if (told := self.one(pick)) is not None:
            self.edit(told, name=name)

    @rule(pick=PICK, status=st.sampled_from(["paused", "active", "disabled"]))
    def pause_or_resume(self, pick: int, status: str) -> None:
        if (told := self.one(pick)) is not None:
            self.edit(told, status=status)

    @rule(pick=PICK)
    def delete(self, pick: int) -> None:
        told = self.one(pick)
        if told is None:
            return

        async def work() -> None:
            async with self.database.engine.begin() as conn:
                await planner.lock(conn, told.of.line)
                await lines.remove(conn, told.of.line, utc(self.now))
                await planner.remove(conn, told.of.line)
                await task.remove(conn, told.of.line)
            await self.recall(told)

        told.pass_to(self.now)
        told.deleted = True
        self.do(work())

    async def recall(self, told: Told) -> None:
        """Do what a dispatcher does with what it holds and has not sent."""
        waiting = [r for r in self.held.values() if r.task_key == told.of.key and r.due > self.now]
        if not waiting:
            return
        async with self.database.engine.begin() as conn:
            version = None if told.deleted else told.of.version
            now = await queue.versions(conn, ME, [run.id for run in waiting])
            stale = [r.id for r in waiting if told.deleted or now.get(r.id, 0) < told.of.version]
            untried = [r.id for r in waiting if r.id in stale and not r.attempts]
            await queue.drop(conn, ME, untried, version)
            await queue.release(conn, ME, [run.id for run in waiting], version)
        for run in waiting:
            del self.held[run.id]

    # Time and the engine

    @rule(ms_=st.integers(1, 90_000))
    def time_passes(self, ms_: int) -> None:
        self.now += ms_

    @rule()
    def plan(self) -> None:
        async def work() -> None:
            for overdue in (False, True):
                async with self.database.engine.begin() as conn:
                    await planner.tick(conn, self.now, window_ms=WINDOW, batch=3, overdue=overdue)

        self.do(work())

    @rule()
    def sweep(self) -> None:
        async def work() -> None:
            await Sweep(self.database, WINDOW, QUEUE_MOST).step(self.now)

        self.do(work())

    @rule(ahead=st.sampled_from([0, 1000]), late=st.booleans())
    def claim(self, ahead: int, late: bool) -> None:
        async def work() -> list[Run]:
            async with self.database.engine.begin() as conn:
                if late:
                    return await queue.claim_late(conn, ME, self.now, service=ALICE, room=20)
                return await queue.claim_on_time(conn, ME, self.now, ahead_ms=ahead, room=20)

        for run in self.do(work()):
            assert run.id not in self.held
            self.held[run.id] = run

    @rule(
        pick=PICK, how=st.sampled_from(["succeeded", "failed", "retry"]), took=st.integers(0, 9000)
    )
    def perform(self, pick: int, how: str, took: int) -> None:
        due = [run for run in self.held.values() if run.due <= self.now]
        if not due:
            return
        run = due[pick % len(due)]
        began = self.now
        self.now += took

        async def work() -> None:
            outcome = "succeeded" if how == "succeeded" else "failed"
            run.attempts = [*run.attempts, Attempt(number=len(run.attempts) + 1, outcome=outcome)]
            async with self.database.engine.begin() as conn:
                if run.overlap == "skip":
                    await skips.skip_overlapped(
                        conn, [(run.task_key, began, self.now)], utc(self.now)
                    )
                if how == "retry":
                    await queue.retry(conn, ME, [Retry(run, self.now + 2000)])
                else:
                    reason = None if how == "succeeded" else "no"
                    await queue.settle(conn, ME, [End(run, how, reason, began, self.now)])

        self.do(work())
        del self.held[run.id]

    @rule()
    def crash(self) -> None:
        """The holder is gone; what was due may have been sent."""

        async def work() -> None:
            async with self.database.engine.begin() as conn:
                await queue.free(conn, [ME], utc(self.now), utc(self.now))

        self.do(work())
        self.held.clear()

    # Runs

    @rule(pick=PICK)
    def execute(self, pick: int) -> None:
        told = self.one(pick)
        if told is None or told.of.status == "disabled":
            return
        self.numbers += 1
        of = told.of
        new = NewRun(
            id=run_id(of.key, of.bucket, "manual", 0, str(self.numbers)), bucket=of.bucket,
            service_id=of.service_id, task_key=of.key, task_id=of.id, kind="manual",
            version=of.version, overlap=of.overlap, at=self.now, lanes=of.lanes,
        )  # fmt: skip

        async def work() -> None:
            async with self.database.engine.begin() as conn:
                await queue.enqueue(conn, [new], utc(self.now))

        self.do(work())

    @rule(pick=PICK)
    def replay(self, pick: int) -> None:
        told = self.one(pick)
        if told is None or told.of.status == "disabled":
            return

        async def work() -> None:
            async with self.database.engine.begin() as conn:
                await planner.lock(conn, told.of.line)
                rows = await conn.execute(
                    text("SELECT id FROM history WHERE task_key = :key ORDER BY id"),
                    {"key": told.of.key},
                )
                ids = list(rows.scalars())
                if ids:
                    stance = planner.stance_of(told.of)
                    chosen = Again(ids[pick % len(ids)], told.of.key, stance, 2)
                    await replays.replay(conn, told.of.service_id, [chosen], utc(self.now))

        self.do(work())

    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        async def work() -> None:
            async with self.database.engine.begin() as conn:
                rows = await conn.execute(text("SELECT * FROM run ORDER BY id"))
                found = rows.all()
                if not found:
                    return
                row = found[pick % len(found)]
                chosen = row.id
                if ms(row.scheduled_for) > self.now:
                    self.tasks[row.task_key].early.add(ms(row.scheduled_for))
                _, marked = await lines.cancel(conn, ALICE, [chosen], utc(self.now))
                held = self.held.pop(chosen, None)
                if marked and held is not None:
                    end = End(held, "cancelled", "asked", None, self.now)
                    assert await queue.settle(conn, ME, [end]) == [chosen]

        self.do(work())

    # What must hold

    @invariant()
    def one_row_is_all_that_a_run_has(self) -> None:
        async def work() -> list[uuid.UUID]:
            async with self.database.engine.connect() as conn:
                both = "SELECT id FROM run UNION ALL SELECT id FROM history WHERE gap_from IS NULL"
                rows = await conn.execute(text(both))
                return list(rows.scalars())

        ids = self.do(work())
        assert len(ids) == len(set(ids))

    @invariant()
    def of_a_line_no_more_than_its_lanes_are_claimed(self) -> None:
        claimed = Counter(run.task_key for run in self.held.values() if run.lanes is not None)
        assert all(claimed[run.task_key] <= run.lanes for run in self.held.values() if run.lanes)

    def teardown(self) -> None:
        self.settle_everything()
        for told in self.tasks.values():
            if not told.deleted:
                told.pass_to(self.now)
            self.check(told, self.do(self.rows(told)))

    def settle_everything(self) -> None:
        """Let the engine work until nothing is due; time stands still, but for retries."""
        self.crash()
        for told in self.tasks.values():
            if not told.deleted:
                told.pass_to(self.now)
                if told.of.status != "disabled":
                    self.edit(told, status="disabled")
        for _ in range(400):
            self.now += 3000
            for told in self.tasks.values():
                told.since = self.now
            self.plan()
            self.sweep()
            self.claim(0, False)
            self.claim(0, True)
            while any(run.due <= self.now for run in self.held.values()):
                self.perform(0, "succeeded", 0)
            if not self.do(self.live()):
                return
        raise AssertionError("runs are left")

    async def live(self) -> int:
        async with self.database.engine.connect() as conn:
            return (await conn.execute(text("SELECT count(*) FROM run"))).scalar_one()

    async def rows(self, told: Told) -> list[Any]:
        async with self.database.engine.connect() as conn:
            found = await conn.execute(
                text("SELECT * FROM history WHERE task_key = :key AND kind = 'task'"),
                {"key": told.of.key},
            )
            return list(found.all())

    def check(self, told: Told, rows: list[Any]) -> None:
        """Each due instant has exactly one end: a row of its own, or a place in a gap."""
        due = set(told.due)
        singles = Counter(ms(r.scheduled_for) for r in rows if r.gap_from is None)
        gaps = [(ms(r.gap_from), ms(r.gap_to)) for r in rows if r.gap_from is not None]
        ends = sum(row.count for row in rows)
        assert all(n == 1 for n in singles.values())
        assert set(singles) <= due | told.early
        most = told.of.bounds.max_runs
        if most is not None:
            assert ends <= most
            return
        if told.deleted:
            return
        early = set(singles) - due
        assert ends - len(early) == len(due), (ends, len(due))
        for at in due - set(singles):
            assert any(low <= at <= high for low, high in gaps), at


def test_whatever_is_done_to_tasks_each_due_instant_ends_once(database_url, monkeypatch):
    with asyncio.Runner() as runner:
        database = Database(database_url, config.Database(engine_pool=1))

        machine: list[Life] = []

        class Here(Life):
            def __init__(self) -> None:
                super().__init__()
                machine[:] = [self]

        Here.database, Here.runner = database, runner

        async def database_ms(_conn: Any) -> int:
            return machine[0].now

        monkeypatch.setattr(clock, "database_ms", database_ms)
        runner.run(partitions.make(database.engine, utc(START)))
        try:
            run_state_machine_as_test(
                Here,
                settings=settings(
                    max_examples=60,
                    stateful_step_count=40,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(database.close())
