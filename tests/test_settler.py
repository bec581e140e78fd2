"""Settling: groups, what the database refuses, and a database that is away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import pytest
from sqlalchemy import event

from conftest import eventually
from scheduler import actions, config, partitions, queue, replays
from scheduler.actions import Http
from scheduler.clock import Clock
from scheduler.db import Conn, Database, ms, utc
from scheduler.lines import Stance
from scheduler.planning import new_run
from scheduler.replays import Again
from scheduler.run import Attempt, End, Retry, Run
from scheduler.runner import Runner
from scheduler.settler import GROUP, Outcome, Settler
from test_queue import ME, OTHER, claim, definition, ended, enqueue, now_ms, tried
from test_runner import Says


class Settling:
    """A settler at work, and what it said it has written."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.written: list[Outcome] = []
        self.settler = Settler(database, clock, self.written.append)
        self.start()

    def start(self) -> None:
        self.task = asyncio.create_task(self.settler.run())

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def all_of(self, outcomes: list[Outcome], within: float = 5.0) -> None:
        """Settle these."""
        for outcome in outcomes:
            self.settler.add(outcome)
        await asyncio.wait_for(self.settler.drained(), within)


@contextlib.asynccontextmanager
async def settling(url: str) -> AsyncIterator[tuple[Database, Settling]]:
    database, clock = Database(url, config.Database(engine_pool=2)), Clock()
    async with database.auto.connect() as conn:
        await clock.sample(conn)
    made = Settling(database, clock)
    try:
        yield database, made
    finally:
        await made.stop()
        await database.close()


@pytest.fixture
async def settle(database_url: str) -> AsyncIterator[tuple[Database, Settling]]:
    async with settling(database_url) as both:
        yield both


async def claimed(database: Database, n: int, **policy) -> list[Run]:
    """So many runs of so many tasks, claimed."""
    now = now_ms()
    runs = [new_run(definition(f"t{i}", **policy), now - 1) for i in range(n)]
    await enqueue(database, *runs)
    found = await claim(database, now, room=n)
    assert len(found) == n
    return found


async def states(conn) -> dict[str, str]:
    rows = await conn.fetch("SELECT task_id, state FROM history")
    return {row["task_id"]: row["state"] for row in rows}


# Groups ------------------------------------------------------------------------------------------


async def test_many_outcomes_are_written_in_few_statements(settle, conn):
    database, at_work = settle
    runs, statements = await claimed(database, 1200), []
    event.listen(
        database.engine.sync_engine,
        "before_cursor_execute",
        lambda *args: statements.append(args[2]),
    )
    outcomes = [Outcome(ended(run)) for run in runs]
    await at_work.all_of(outcomes)
    assert len(statements) == -(-1200 // GROUP)
    assert at_work.written == outcomes
    assert await conn.fetchval("SELECT count(*) FROM history") == 1200
    assert await conn.fetchval("SELECT count(*) FROM run") == 0
    assert at_work.settler.unsettled == 0


async def test_ends_retries_and_what_was_overlapped_are_written_in_one_group(settle, conn):
    database, at_work = settle
    ending, waiting = await claimed(database, 2)
    now = now_ms()
    of = definition("t0", key=ending.task_key)
    await enqueue(database, *(new_run(of, now + at) for at in (10, 20, 30, 99_000)))
    await at_work.all_of(
        [
            Outcome(ended(ending), overlapped=(ending.task_key, now, now + 30)),
            Outcome(tried(waiting, now + 5000)),
        ]
    )
    rows = await conn.fetch("SELECT task_id, state, reason, count FROM history ORDER BY state")
    assert [(r["task_id"], r["state"], r["reason"], r["count"]) for r in rows] == [
        ("t0", "skipped", "overlap", 3),
        ("t0", "succeeded", None, 1),
    ]
    left = await conn.fetch("SELECT * FROM run ORDER BY due")
    assert [(r["task_id"], r["claimed_by"], r["attempts_n"]) for r in left] == [
        ("t1", None, 1),
        ("t0", None, 0),
    ]
    assert ms(left[0]["due"]) == now + 5000
    assert ms(left[0]["scheduled_for"]) == waiting.scheduled_for


async def test_outcomes_under_an_old_and_a_new_name_settle_in_one_group(settle, conn):
    database, at_work = settle
    runs = await claimed(database, 4)
    for run in runs[:2]:
        run.claimed_by = OTHER
        await conn.execute("UPDATE run SET claimed_by = $1 WHERE id = $2", OTHER, run.id)
    await at_work.all_of([Outcome(ended(run)) for run in runs])
    assert await conn.fetchval("SELECT count(*) FROM history") == 4


async def test_an_outcome_that_came_too_late_is_told_and_moves_nothing(settle, conn):
    database, at_work = settle
    freed, ours = await claimed(database, 2)
    await conn.execute("UPDATE run SET claimed_by = NULL WHERE id = $1", freed.id)
    await at_work.all_of([Outcome(ended(freed)), Outcome(ended(ours))])
    assert await states(conn) == {ours.task_id: "succeeded"}
    assert len(at_work.written) == 2  # nobody waits for it for ever


async def test_one_run_may_have_two_outcomes_under_way(settle, conn):
    database, at_work = settle
    (run,) = await claimed(database, 1)
    await at_work.all_of([Outcome(ended(run)), Outcome(ended(run))])
    assert await conn.fetchval("SELECT count(*) FROM history") == 1
    assert at_work.settler.unsettled == 0


async def test_there_is_nothing_to_wait_for_where_nothing_was_added(settle):
    await asyncio.wait_for(settle[1].settler.drained(), 1)


# What the database refuses -----------------------------------------------------------------------

BAD = {
    "a NUL in an error": {"error": "before\x00after"},
    "half a surrogate in an error": {"error": "before\ud800after"},
    "a NUL in an excerpt": {"response": "before\x00after"},
    "half a surrogate in an excerpt": {"response": "before\udfffafter"},
    "a status beyond any column": {"status_code": 10**30},
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("again", [False, True], ids=["an end", "a retry"])
async def test_one_bad_attempt_keeps_no_other_from_being_settled(settle, conn, bad, again):
    database, at_work = settle
    runs = await claimed(database, 60)
    outcomes = [Outcome(ended(run, response=b"body")) for run in runs]
    broken = runs[33]
    broken.attempts = [Attempt(1, "failed", now_ms(), now_ms(), **{"status_code": 500, **bad})]
    if again:
        outcomes[33] = Outcome(Retry(broken, now_ms() + 60_000))
    await at_work.all_of(outcomes)
    assert len(at_work.written) == 60
    assert await conn.fetchval("SELECT count(*) FROM history") == 60 - again
    assert await conn.fetchval("SELECT count(*) FROM run WHERE attempts_n = 1") == again
    kept = await conn.fetchval(
        "SELECT count(*) FROM history WHERE response = 'body' AND NOT truncated"
    )
    assert kept >= 59


@pytest.mark.parametrize("reason", ["a\x00b", "a\ud800b"], ids=["NUL", "half a surrogate"])
async def test_a_refused_end_is_written_without_its_body_and_says_so(settle, conn, reason):
    database, at_work = settle
    good, bad = await claimed(database, 2)
    end = ended(bad, state="failed", reason=reason, response=b"body")
    await at_work.all_of([Outcome(ended(good, response=b"body")), Outcome(end)])
    row = await conn.fetchrow("SELECT * FROM history WHERE id = $1", bad.id)
    assert (row["state"], row["reason"], row["response"], row["truncated"]) == (
        "failed", "a?b", None, True
    )  # fmt: skip
    assert await conn.fetchval("SELECT response FROM history WHERE id = $1", good.id) == b"body"


async def test_a_refused_end_without_a_body_lacks_nothing(settle, conn):
    database, at_work = settle
    (bad,) = await claimed(database, 1)
    end = ended(bad, state="failed", reason="a\x00b")
    bad.attempts[-1].error = end.reason
    await at_work.all_of([Outcome(end)])
    assert await conn.fetchval("SELECT truncated FROM history") is False


@pytest.mark.parametrize("at", [10**17, -(10**17), 2**70], ids=["far", "long ago", "no int64"])
async def test_an_outcome_that_can_be_written_in_no_form_holds_nobody_up(settle, conn, at):
    database, at_work = settle
    runs = await claimed(database, 9)
    outcomes = [Outcome(ended(run)) for run in runs]
    outcomes[4].to.finished_at = at
    await at_work.all_of(outcomes)
    assert len(at_work.written) == 8
    assert await conn.fetchval("SELECT count(*) FROM history") == 8
    assert await conn.fetchval("SELECT claimed_by FROM run") == ME  # it waits with its claim
    await at_work.all_of([Outcome(ended(run)) for run in await claimed(database, 1)])


async def test_a_missing_partition_is_made(settle, conn):
    database, at_work = settle
    runs = await claimed(database, 3)
    this_week = partitions.partition_of(partitions.week_of(utc(now_ms())))
    await conn.execute(f"DROP TABLE {this_week}")
    await at_work.all_of([Outcome(ended(run)) for run in runs])
    assert await conn.fetchval(f"SELECT count(*) FROM {this_week}") == 3


# A database that is away -------------------------------------------------------------------------


async def test_outcomes_wait_for_a_database_that_is_away(line, conn):
    async with settling(line.url) as (database, at_work):
        runs = await claimed(database, 20)
        await line.cut()
        for run in runs:
            at_work.settler.add(Outcome(ended(run)))
        waiting = asyncio.create_task(at_work.settler.drained())

        async def refused() -> None:
            assert at_work.settler.unsettled == 20
            with contextlib.suppress(Exception):
                async with database.auto.connect():
                    raise AssertionError

        await eventually(refused)
        assert not waiting.done()
        assert at_work.written == []
        await line.mend()
        await asyncio.wait_for(waiting, 10)
        assert at_work.settler.unsettled == 0
    assert await conn.fetchval("SELECT count(*) FROM history") == 20


async def test_a_settle_sent_again_leaves_the_replay_that_began_meanwhile(
    settle, conn, monkeypatch
):
    """It was written and its answer lost; then the run was replayed, and claimed here again."""
    database, at_work = settle
    settled, sent = queue.settle, []

    async def answer_lost(on: Conn, me: UUID, ends: Sequence[End]) -> list[UUID]:
        sent.append(await settled(on, me, ends))
        if len(sent) > 1:
            return sent[-1]
        async with database.engine.begin() as other:
            again = Again(run.id, run.task_key, Stance(1, "allow", None, 0), 0)
            assert await replays.replay(other, run.service_id, [again], utc(now_ms()))
        assert [again.id for again in await claim(database, now_ms())] == [run.id]
        raise ConnectionResetError

    monkeypatch.setattr(queue, "settle", answer_lost)
    (run,) = await claimed(database, 1, overlap="allow")
    await at_work.all_of([Outcome(ended(run))])
    assert await conn.fetchval("SELECT count(*) FROM history") == 0
    assert await conn.fetchval("SELECT claimed_by FROM run") == ME


async def test_a_lock_on_history_is_waited_for(settle, conn):
    database, at_work = settle
    runs = await claimed(database, 3)
    async with conn.transaction():
        await conn.execute("LOCK TABLE history")
        for run in runs:
            at_work.settler.add(Outcome(ended(run)))
        await conn.execute("SELECT pg_sleep(0.1)")
        assert at_work.settler.unsettled == 3
    await asyncio.wait_for(at_work.settler.drained(), 10)


async def test_what_was_not_written_when_the_loop_broke_is_written_when_it_starts_again(
    settle, conn
):
    database, at_work = settle
    runs = await claimed(database, 30)
    await at_work.stop()
    for run in runs:
        at_work.settler.add(Outcome(ended(run)))
    assert at_work.settler.unsettled == 30
    at_work.start()
    await asyncio.wait_for(at_work.settler.drained(), 10)
    assert await conn.fetchval("SELECT count(*) FROM history") == 30


@pytest.mark.parametrize("at", [10**15, 10**18, 2**70])
async def test_attempts_damaged_by_hand_cannot_stop_a_run_from_being_settled(settle, conn, at):
    database, at_work = settle
    now = now_ms()
    await enqueue(database, *(new_run(definition(f"t{n}"), now) for n in range(2)))
    attempts = f'[{{"number":1,"outcome":"failed","started_at":{at},"finished_at":{at}}}]'
    await conn.execute(
        "UPDATE run SET attempts = $1::text::jsonb, attempts_n = 1 WHERE task_id = 't0'", attempts
    )
    clock = Clock()
    says = Says(actions.Outcome(succeeded=True, status_code=200))
    runner = Runner({Http: says}, clock, config.Worker(), config.Runs(), lambda _holder: True)
    outcomes = []
    for run in await claim(database, now):
        runner.equip(run, definition(run.task_id, key=run.task_key))
        outcome = await runner.perform(run)
        assert outcome is not None
        outcome.to.finished_at = now
        outcomes.append(outcome)
    await at_work.all_of(outcomes)
    assert (await states(conn)).keys() == {"t0", "t1"}
