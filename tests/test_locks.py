"""Locks on runs: whoever waits for several takes them by id, and no two wait in a ring."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

import asyncpg
import pytest

from conftest import eventually
from scheduler import lines, planner, queue, skips
from scheduler.db import Conn, Database, utc
from scheduler.definition import Definition
from scheduler.lines import Stance
from scheduler.planning import new_run
from scheduler.run import NewRun, Run, run_id
from scheduler.settler import Outcome
from test_planner import every, store
from test_queue import ME, database, definition, ended, enqueue, now_ms, tried
from test_races import waiting
from test_settler import settle, settling

__all__ = ["database", "settle", "settling"]


def by_hand(of: Definition, at: int) -> NewRun:
    """A run whose id is smaller than that of any instant's."""
    return NewRun(
        id=run_id(of.key, of.bucket, "manual", 0, "x"),
        bucket=of.bucket,
        service_id=of.service_id,
        task_key=of.key,
        task_id=of.id,
        kind="manual",
        version=1,
        overlap=of.overlap,
        at=at,
    )


class Two:
    """Two runs of a task; the table and its index by time have the second one first."""

    def __init__(self, database: Database, of: Definition, now: int) -> None:
        self.database, self.of, self.now = database, of, now
        self.runs: list[Run] = []

    async def make(self, *, claimed: bool) -> None:
        later, earlier = new_run(self.of, self.now - 10), by_hand(self.of, self.now - 5)
        assert earlier.id < later.id
        await enqueue(self.database, later)
        await enqueue(self.database, earlier)
        self.ids = [earlier.id, later.id]
        if claimed:
            async with self.database.engine.begin() as conn:
                runs = await queue.claim_on_time(conn, ME, self.now, ahead_ms=1000, room=9)
            self.runs = sorted(runs, key=lambda run: run.id)
            assert [run.id for run in self.runs] == self.ids

    @property
    def stance(self) -> Stance:
        return Stance(2, self.of.overlap, None, 0)


@contextlib.asynccontextmanager
async def holding(database_url: str, run: UUID) -> AsyncIterator[None]:
    """Keep a run locked for the length of a block."""
    connection = await asyncpg.connect(database_url)
    async with connection.transaction():
        await connection.execute("SELECT FROM run WHERE id = $1 FOR UPDATE", run)
        yield
    await connection.close()


async def is_free(conn, run: UUID) -> bool:
    """Say whether nobody has a run locked."""
    found = await conn.fetch("SELECT FROM run WHERE id = $1 FOR UPDATE SKIP LOCKED", run)
    return len(found) == 1


Verb = Callable[[Conn, Two], Awaitable[object]]
CLAIMED: dict[str, Verb] = {
    "settle": lambda conn, two: queue.settle(conn, ME, [ended(run) for run in two.runs]),
    "retry": lambda conn, two: queue.retry(conn, ME, [tried(r, two.now) for r in two.runs]),
    "release": lambda conn, two: queue.release(conn, ME, two.ids),
    "drop": lambda conn, two: queue.drop(conn, ME, two.ids, 2),
    "free": lambda conn, two: queue.free(conn, [ME], utc(two.now), utc(two.now)),
    "edit": lambda conn, two: lines.reversion(conn, two.of.line, two.stance, utc(two.now), []),
    "execute": lambda conn, two: lines.lock_line(conn, two.of.line, utc(two.now), 1.0),
    "cancel": lambda conn, two: lines.cancel(
        conn, two.of.service_id, two.ids[::-1], utc(two.now)
    ),
}  # fmt: skip
UNCLAIMED: dict[str, Verb] = {
    "delete": lambda conn, two: lines.remove(conn, two.of.line, utc(two.now)),
    "delete the future": lambda conn, two: lines.remove(conn, two.of.line, utc(two.now - 60_000)),
}


@pytest.mark.parametrize("verb", [*CLAIMED, *UNCLAIMED])
async def test_who_waits_for_a_run_holds_none_that_comes_after_it(
    database, database_url, conn, verb
):
    two = Two(database, definition(overlap="allow"), now_ms())
    await two.make(claimed=verb in CLAIMED)

    async def work() -> None:
        async with database.engine.begin() as connection:
            await (CLAIMED | UNCLAIMED)[verb](connection, two)

    async with holding(database_url, two.ids[0]):
        working = asyncio.create_task(work())
        await waiting(conn)
        assert await is_free(conn, two.ids[1])
    await working


async def test_ends_and_retries_of_one_group_are_locked_together(settle, database_url, conn):
    database, at_work = settle
    two = Two(database, definition(overlap="allow"), now_ms())
    await two.make(claimed=True)
    ending, waits = two.runs
    async with holding(database_url, ending.id):
        at_work.settler.add(Outcome(tried(waits, two.now)))
        at_work.settler.add(Outcome(ended(ending)))
        await waiting(conn)
        assert await is_free(conn, waits.id)
    await asyncio.wait_for(at_work.settler.drained(), 5)
    assert await conn.fetchval("SELECT count(*) FROM history") == 1


async def test_what_was_overlapped_is_held_by_nobody_who_waits(settle, database_url, conn):
    database, at_work = settle
    two = Two(database, definition(overlap="skip"), now_ms())
    await enqueue(database, new_run(two.of, two.now - 20))
    async with database.engine.begin() as connection:
        (head,) = await queue.claim_on_time(connection, ME, two.now, ahead_ms=1000, room=9)
    await two.make(claimed=False)
    passed_over = two.ids[1]
    async with holding(database_url, head.id):
        span = (two.of.key, two.now - 20, two.now)
        at_work.settler.add(Outcome(ended(head), overlapped=span))
        await waiting(conn)
        assert await is_free(conn, passed_over)
    await asyncio.wait_for(at_work.settler.drained(), 5)
    assert await conn.fetchval("SELECT count(*) FROM history") == 2
    assert await conn.fetchval("SELECT id FROM run") == two.ids[0]  # by hand: it is never skipped


async def test_pauses_that_end_together_lock_what_lives_of_their_tasks_at_once(
    database, database_url, conn
):
    now = now_ms()
    made = [definition(name, every(60, now - 90_000)) for name in ("a", "b")]
    first, second = sorted(made, key=lambda of: by_hand(of, now).id)
    for back, of in ((20_000, second), (10_000, first)):
        await store(database, of, now - 90_000)
        await conn.execute("DELETE FROM run WHERE task_key = $1", of.key)
        await enqueue(database, by_hand(of, now))
        await conn.execute(
            "UPDATE task SET status = 'paused', paused_until = $2 WHERE key = $1",
            of.key, utc(now - back),
        )  # fmt: skip
        await conn.execute(
            "UPDATE task_plan SET next_plan_at = $2 WHERE key = $1", of.key, utc(now - back)
        )

    async def plan() -> None:
        async with database.engine.begin() as connection:
            await planner.tick(connection, now, window_ms=60_000, batch=10)

    async with holding(database_url, by_hand(first, now).id):
        planning = asyncio.create_task(plan())
        await waiting(conn)
        assert await is_free(conn, by_hand(second, now).id)
    await planning
    assert await conn.fetchval("SELECT count(*) FROM task WHERE status = 'active'") == 2


async def test_a_queue_is_cut_without_waiting_for_a_run_that_someone_holds(
    database, database_url, conn
):
    now = now_ms()
    of = definition(overlap="queue")
    held, other = new_run(of, now - 20), new_run(of, now - 10)
    await enqueue(database, held, other)
    async with holding(database_url, held.id), database.engine.begin() as connection:
        cut = skips.cut_queues(connection, [of.key], 0, utc(now))
        assert await asyncio.wait_for(cut, 2) == 1

    async def check() -> None:
        assert [row["id"] for row in await conn.fetch("SELECT id FROM run")] == [held.id]

    await eventually(check)


# A transaction that Postgres ends for another's sake ----------------------------------------------

TRAP = """
CREATE SEQUENCE tries;
CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF nextval('tries') <= {times} THEN
        RAISE EXCEPTION 'ended for another' USING ERRCODE = '{code}';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER trap AFTER {what} FOR EACH STATEMENT EXECUTE FUNCTION trap();
"""


async def test_an_edit_that_a_deadlock_ends_is_made_again(run_app, database_url, conn):
    name = await conn.fetchval("SELECT current_database()")
    await conn.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '500ms'")
    async with run_app() as app, app.client("alice") as alice:
        created = await alice.post("/tasks", json={"id": "t", "name": "n", "url": "http://h/"})
        assert created.status_code == 201
        await alice.post("/tasks/t/schedule", json={"at": "2040-01-01T00:00:00Z"})
        other = await asyncpg.connect(database_url)
        await other.execute("SET deadlock_timeout = '20s'")  # the edit looks first, and gives way
        async with other.transaction():
            await other.execute("SELECT FROM run FOR UPDATE")
            editing = asyncio.create_task(alice.patch("/tasks/t", json={"name": "b"}))
            await waiting(conn)
            await other.execute("SELECT FROM task_plan FOR UPDATE")  # which the edit has let go
        await other.close()
        edited = await editing
        assert (edited.status_code, edited.json()["name"]) == (200, "b")


CHANGES = {
    "create": ("INSERT ON task", "POST", "/tasks", {"name": "n", "url": "http://h/"}),
    "create many": ("INSERT ON task", "POST", "/tasks/bulk", [{"name": "n", "url": "http://h/"}]),
    "edit": ("UPDATE ON task", "PATCH", "/tasks/t", {"name": "b"}),
    "delete": ("DELETE ON task", "DELETE", "/tasks/t", None),
    "execute": ("INSERT ON run", "POST", "/tasks/t/execute?async=true", None),
    "schedule": ("INSERT ON run", "POST", "/tasks/t/schedule", {"at": "2041-01-01T00:00:00Z"}),
    "replay": ("DELETE ON history", "POST", "/runs/replay", {"state": "cancelled"}),
    "cancel": ("UPDATE OR DELETE ON run", "POST", "/runs/cancel", {"kind": "task,manual"}),
}


async def ready(alice) -> None:
    """A task with a run that was cancelled, and one to come."""
    task = {"id": "t", "name": "n", "url": "http://127.0.0.1:9/", "frequency": 1, "unit": "day"}
    assert (await alice.post("/tasks", json=task)).status_code == 201
    for at in ("2039-01-01T00:00:00Z", "2040-01-01T00:00:00Z"):
        made = (await alice.post("/tasks/t/schedule", json={"at": at})).json()
    assert (await alice.post(f"/runs/{made['run_id']}/cancel")).status_code == 200


@pytest.mark.parametrize(("change", "code"), [*((c, "40P01") for c in CHANGES), ("edit", "40001")])
async def test_what_postgres_ends_for_anothers_sake_is_done_again(alice, conn, change, code):
    await ready(alice)
    what, method, path, body = CHANGES[change]
    await conn.execute(TRAP.format(times=2, code=code, what=what))
    answer = await alice.request(method, path, json=body)
    assert answer.status_code < 300, answer.text
    assert await conn.fetchval("SELECT last_value FROM tries") >= 3


async def test_what_is_ended_again_and_again_is_told_to_wait_and_why(alice, conn):
    await ready(alice)
    await conn.execute(TRAP.format(times=99, code="40P01", what="UPDATE ON task"))
    answer = await alice.patch("/tasks/t", json={"name": "b"})
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    assert "others changed the same" in answer.json()["error"]["message"]
    assert "reached" not in answer.text
    assert await conn.fetchval("SELECT last_value FROM tries") == 3
