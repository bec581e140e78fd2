"""The queue's statements, against a real Postgres: claims, the line, the fence, and their plans."""

import asyncio
import contextlib
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from uuid import UUID

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from conftest import eventually
from scheduler import (
    config,
    executions,
    history,
    lines,
    outlook,
    planner,
    planning,
    queue,
    replays,
    skips,
    task,
    tasklist,
)
from scheduler.actions import Http
from scheduler.codec import decode, encode
from scheduler.db import Conn, Database, ms, utc
from scheduler.definition import Definition, Policy, Status
from scheduler.lines import Stance
from scheduler.planning import new_run
from scheduler.replays import Again
from scheduler.run import (
    BUCKETS,
    Attempt,
    End,
    NewRun,
    Retry,
    Run,
    bucket_in,
    bucket_of,
    run_id,
)
from scheduler.skips import Judgement
from scheduler.sweep import Sweep
from scheduler.triggers import Interval, Once

ALICE, BOB = UUID(int=0xA11CE), UUID(int=0xB0B)
ME, OTHER = UUID(int=1), UUID(int=2)
MINUTE = 60_000


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, config.Database())
    yield made
    await made.close()


def now_ms() -> int:
    """The time of day: the test's Postgres runs on the same machine."""
    return int(time.time() * 1000)


def definition(
    name: str = "t",
    trigger: Interval | Once | None = None,
    *,
    service: UUID = ALICE,
    url: str = "http://127.0.0.1:9/",
    key: UUID | None = None,
    status: Status = "active",
    **policy,
) -> Definition:
    """A task that nobody has stored yet."""
    at = utc(now_ms())
    return Definition(
        key=key or uuid.uuid4(),
        bucket=bucket_of(service, name),
        service_id=service,
        id=name,
        version=1,
        name=name,
        description=None,
        tags=[],
        status=status,
        trigger=trigger,
        action=Http(url=url),
        policy=Policy(**policy),
        created_at=at,
        updated_at=at,
    )


async def enqueue(database: Database, *runs: NewRun) -> None:
    async with database.engine.begin() as conn:
        for chunk in planner.batched(iter(runs), 500):
            await queue.enqueue(conn, chunk, utc(now_ms()))


async def claim(database: Database, now: int, *, room: int = 100, me: UUID = ME, **more):
    async with database.engine.begin() as conn:
        return await queue.claim_on_time(conn, me, now, ahead_ms=1000, room=room, **more)


async def claim_late(
    database: Database, now: int, *, room: int = 100, me: UUID = ME, service: UUID = ALICE
):
    async with database.engine.begin() as conn:
        return await queue.claim_late(conn, me, now, service=service, room=room)


def ended(run: Run, **changes) -> End:
    """A run that succeeded now."""
    now = now_ms()
    run.attempts = [*run.attempts, Attempt(len(run.attempts) + 1, "succeeded", now, now, 200)]
    return End(
        run, **{"state": "succeeded", "reason": None, "started_at": now, "finished_at": now}
        | changes
    )  # fmt: skip


def tried(run: Run, due: int) -> Retry:
    """A run that failed now, and is tried again at `due`."""
    now = now_ms()
    run.attempts = [*run.attempts, Attempt(len(run.attempts) + 1, "failed", now, now, 500)]
    return Retry(run, due)


# Ids ---------------------------------------------------------------------------------------------

INSTANTS = st.integers(0, (1 << 48) - 1)


@given(st.uuids(), st.integers(0, BUCKETS - 1), INSTANTS, INSTANTS)
def test_a_run_id_is_the_same_for_the_same_task_and_instant_and_no_other(key, bucket, at, other):
    made = run_id(key, bucket, "task", at)
    assert made == run_id(key, bucket, "task", at)
    assert made != run_id(key, bucket, "manual", at)
    if other != at:
        assert made != run_id(key, bucket, "task", other)


@given(st.uuids(), st.integers(0, BUCKETS - 1), INSTANTS)
def test_a_run_id_is_a_uuid_of_version_8_that_carries_time_and_bucket(key, bucket, at):
    made = run_id(key, bucket, "task", at)
    assert (made.version, made.variant) == (8, uuid.RFC_4122)
    assert bucket_in(made) == bucket
    assert made.int >> 80 == at


@given(st.uuids(), st.integers(0, BUCKETS - 1), st.text(min_size=1))
def test_with_a_nonce_the_time_takes_no_part_in_a_run_id(key, bucket, nonce):
    assert run_id(key, bucket, "manual", 1, nonce) == run_id(key, bucket, "manual", 2, nonce)
    assert bucket_in(run_id(key, bucket, "manual", 1, nonce)) == bucket


@given(st.uuids(), st.text(min_size=1))
def test_a_bucket_is_one_of_1024_and_always_the_same(service, task_id):
    assert 0 <= bucket_of(service, task_id) < 1024
    assert bucket_of(service, task_id) == bucket_of(service, task_id)


def test_attempts_are_encoded_without_what_jsonb_refuses():
    attempts = [Attempt(1, "failed", error="a\x00b", response="\u2028 \U0001f600 \\u0000")]
    assert "\\u0000" not in encode(attempts).replace("\\\\u0000", "")
    read, damaged = decode(encode(attempts), 1)
    assert damaged is None
    assert read[0].error == "a�b"


def test_attempts_that_cannot_be_read_are_a_reason_and_no_exception():
    for raw in ('{"a": 1}', '[{"number": "x"}]', "[" * 100_000, '[{"outcome": "no"}]'):
        attempts, damaged = decode(raw, 1)
        assert attempts == []
        assert damaged
    assert decode("[]", 0) == ([], None)
    assert decode("[]", 1)[1]


# Claims ------------------------------------------------------------------------------------------


async def test_what_is_due_is_claimed_and_the_earliest_comes_first(database):
    now = now_ms()
    runs = [new_run(definition(f"t{n}"), now + at) for n, at in enumerate((900, -900, 0, 400))]
    await enqueue(database, *runs)
    claimed = await claim(database, now)
    assert [run.due - now for run in claimed] == [-900, 0, 400, 900]
    assert {run.claimed_by for run in claimed} == {ME}
    assert await claim(database, now) == []


async def test_a_run_enqueued_twice_is_one_run_and_its_claim_stays(database):
    of, now = definition(), now_ms()
    await enqueue(database, new_run(of, now))
    assert len(await claim(database, now)) == 1
    async with database.engine.begin() as conn:
        assert await queue.enqueue(conn, [new_run(of, now)], utc(now)) == []
    assert await claim(database, now, me=OTHER) == []


@pytest.mark.parametrize("room", [1, 7])
async def test_a_claim_takes_no_more_than_there_is_room_for(database, room):
    now = now_ms()
    runs = [new_run(definition(f"t{n}"), now - 5 * MINUTE * (n % 2)) for n in range(40)]
    await enqueue(database, *runs)
    assert len(await claim(database, now, room=room)) == room
    assert len(await claim_late(database, now, room=room)) == room


async def test_two_claimers_at_once_share_no_run_and_leave_none(database_url):
    now, taken = now_ms(), []
    database = Database(database_url, config.Database(engine_pool=6))
    runs = [new_run(definition(f"t{n}"), now - n % 100) for n in range(600)]
    late = [new_run(definition(f"l{n}"), now - MINUTE - n) for n in range(300)]
    await enqueue(database, *runs, *late)

    async def take(me: UUID) -> None:
        while True:
            got = await claim(database, now, room=11, me=me)
            got += await claim_late(database, now, room=7, me=me)
            if not got:
                return
            taken.extend(run.id for run in got)

    await asyncio.gather(*(take(UUID(int=n)) for n in range(1, 7)))
    # Rows that another claimer held locked are passed over, not lost.
    await take(ME)
    await database.close()
    assert len(taken) == len(set(taken)) == 900


async def test_two_claimers_at_once_never_hold_two_runs_of_one_line(database_url, conn):
    database, now = Database(database_url, config.Database(engine_pool=6)), now_ms()
    tasks = [definition(f"t{n}", overlap="queue") for n in range(20)]
    await enqueue(database, *(new_run(of, now - n) for of in tasks for n in range(8)))

    async def take(me: UUID) -> None:
        for _ in range(15):
            for run in await claim(database, now, room=5, me=me):
                async with database.engine.begin() as c:
                    await queue.settle(c, me, [ended(run)])
            doubled = await conn_value(
                database, "SELECT max(n) FROM (SELECT count(*) AS n FROM run "
                "WHERE claimed_by IS NOT NULL GROUP BY task_key) AS c"
            )  # fmt: skip
            assert (doubled or 0) <= 1

    await asyncio.gather(*(take(UUID(int=n)) for n in range(1, 7)))
    await take(ME)
    await database.close()
    assert await conn.fetchval("SELECT count(*) FROM run WHERE claimed_by IS NOT NULL") == 0


async def conn_value(database: Database, statement: str):
    async with database.engine.connect() as conn:
        return (await conn.exec_driver_sql(statement)).scalar_one()


async def test_on_time_ends_where_late_begins(database):
    now = now_ms()
    ages = (-1001, -1000, 1999, 2000, 2001, 3600_000)
    await enqueue(database, *(new_run(definition(f"t{a}"), now - a) for a in ages))
    assert {now - run.due for run in await claim(database, now)} == {-1000, 1999}
    assert {now - run.due for run in await claim_late(database, now)} == {2000, 2001, 3600_000}


async def test_late_runs_are_claimed_of_one_service_alone(database):
    now = now_ms()
    for name in (ALICE, BOB):
        await enqueue(database, new_run(definition(service=name), now - MINUTE))
    async with database.engine.begin() as conn:
        assert await queue.any_late(conn, now)
        assert set(await queue.late_services(conn, [ALICE, BOB, ME], now)) == {ALICE, BOB}
    assert {run.service_id for run in await claim_late(database, now, service=BOB)} == {BOB}
    async with database.engine.begin() as conn:
        assert await queue.late_services(conn, [ALICE, BOB], now) == [ALICE]
    assert len(await claim_late(database, now)) == 1
    async with database.engine.begin() as conn:
        assert not await queue.any_late(conn, now)


async def test_a_service_is_crowded_by_what_is_due_of_it_alone(database):
    now = now_ms()
    mine, other = definition(service=ALICE), definition(service=BOB)
    await enqueue(database, *(new_run(mine, now - n) for n in range(3)))
    await enqueue(database, *(new_run(other, now + MINUTE + n) for n in range(5)))
    async with database.engine.begin() as conn:
        found = [await queue.crowded(conn, [ALICE, BOB], utc(now), most) for most in (3, 4)]
    assert found == [[ALICE], []]


async def test_crowded_services_are_left_out_of_what_is_on_time(database):
    now = now_ms()
    for name in (ALICE, BOB):
        await enqueue(database, new_run(definition(service=name), now))
    assert {r.service_id for r in await claim(database, now, crowded=[ALICE])} == {BOB}
    assert {r.service_id for r in await claim(database, now)} == {ALICE}


async def test_kinds_that_this_version_does_not_know_are_passed_over(database, conn):
    now = now_ms()
    await enqueue(database, *(new_run(definition(f"t{n}"), now - n * MINUTE) for n in range(2)))
    await conn.execute("UPDATE run SET kind = 'dream'")
    assert await claim(database, now) == []
    assert await claim_late(database, now) == []


async def test_a_row_whose_attempts_are_damaged_is_claimed_with_the_reason(database, conn):
    now = now_ms()
    await enqueue(database, *(new_run(definition(f"t{n}"), now + n) for n in range(3)))
    await conn.execute("UPDATE run SET attempts = '{\"no\": 1}' WHERE task_id = 't0'")
    await conn.execute("UPDATE run SET task_key = NULL WHERE task_id = 't1'")
    found = {run.task_id: run for run in await claim(database, now)}
    assert "cannot be read" in (found["t0"].damaged or "")
    assert "no task" in (found["t1"].damaged or "")
    assert found["t2"].damaged is None


@pytest.mark.parametrize("value", ["infinity", "-infinity", "20000-01-01Z", "4000-01-01Z BC"])
@pytest.mark.parametrize("column", ["due", "scheduled_for", "created_at"])
async def test_a_row_with_a_time_that_is_none_stops_no_claim(database, conn, column, value):
    now = now_ms()
    for name in ("bad", "good"):
        await enqueue(database, new_run(definition(name), now - MINUTE))
        await enqueue(database, new_run(definition(f"{name} on time"), now))
    with contextlib.suppress(asyncpg.CheckViolationError):  # or it is refused
        await conn.execute(f"UPDATE run SET {column} = '{value}' WHERE task_id LIKE 'bad%'")
    claimed = await claim_late(database, now) + await claim(database, now)
    assert {"good", "good on time"} <= {run.task_id for run in claimed}


# The head of the line ----------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", ["skip", "queue"])
async def test_of_a_task_that_goes_one_at_a_time_only_the_earliest_is_claimed(database, overlap):
    now, of = now_ms(), definition(overlap=overlap)
    await enqueue(database, *(new_run(of, now - at) for at in (0, 300, 100)))
    first = await claim(database, now)
    assert [now - run.due for run in first] == [300]
    assert await claim(database, now, me=OTHER) == []
    async with database.engine.begin() as conn:
        await queue.settle(conn, ME, [ended(first[0])])
    assert [now - run.due for run in await claim(database, now)] == [100]


async def test_of_a_task_that_may_overlap_all_are_claimed(database):
    now, of = now_ms(), definition(overlap="allow")
    await enqueue(database, *(new_run(of, now - at) for at in (0, 300, 100)))
    assert len(await claim(database, now)) == 3


async def test_a_line_holds_across_on_time_and_late(database):
    now, of = now_ms(), definition()
    await enqueue(database, new_run(of, now), new_run(of, now - MINUTE))
    assert await claim(database, now) == []
    assert [now - run.due for run in await claim_late(database, now)] == [MINUTE]
    assert await claim(database, now) == []


async def test_a_run_that_waits_for_a_retry_stands_before_what_was_never_tried(database):
    now, of = now_ms(), definition(overlap="queue")
    await enqueue(database, new_run(of, now))
    (head,) = await claim(database, now)
    await enqueue(database, new_run(of, now - 500))  # earlier, but never tried
    async with database.engine.begin() as conn:
        await queue.retry(conn, ME, [tried(head, now + 30_000)])
    assert await claim(database, now) == []
    assert [run.id for run in await claim(database, now + 30_000)] == [head.id]


async def test_a_run_by_hand_waits_its_turn_in_the_line(database):
    now, of = now_ms(), definition(overlap="queue")
    manual = new_run(of, now - 100)
    manual.id, manual.kind = run_id(of.key, of.bucket, "manual", 0, "x"), "manual"
    await enqueue(database, manual, new_run(of, now - 200))
    assert [run.kind for run in await claim(database, now)] == ["task"]


async def test_lines_of_different_tasks_do_not_touch(database):
    now = now_ms()
    await enqueue(database, *(new_run(definition("t", key=uuid.uuid4()), now) for _ in range(5)))
    assert len(await claim(database, now)) == 5


# The fence ---------------------------------------------------------------------------------------


async def test_only_the_holder_moves_a_run(database, conn):
    now = now_ms()
    await enqueue(database, new_run(definition(), now))
    (run,) = await claim(database, now)
    before = await conn.fetchrow("SELECT * FROM run")
    async with database.engine.begin() as c:
        assert await queue.settle(c, OTHER, [ended(run)]) == []
        run.attempts = []
        await queue.retry(c, OTHER, [tried(run, now)])
        await queue.release(c, OTHER, [run.id])
        await queue.drop(c, OTHER, [run.id], None)
        assert await queue.versions(c, OTHER, [run.id]) == {}
    assert await conn.fetchrow("SELECT * FROM run") == before
    assert await conn.fetchval("SELECT count(*) FROM history") == 0


async def test_an_outcome_settled_twice_is_one_row_of_history(database, conn):
    now = now_ms()
    await enqueue(database, new_run(definition(), now))
    (run,) = await claim(database, now)
    end = ended(run)
    for expected in ([run.id], []):
        async with database.engine.begin() as c:
            assert await queue.settle(c, ME, [end]) == expected
    row = await conn.fetchrow("SELECT * FROM history")
    assert (row["id"], row["state"], row["attempts_n"], row["count"]) == (
        run.id, "succeeded", 1, 1
    )  # fmt: skip
    assert ms(row["scheduled_for"]) == now
    assert await conn.fetchval("SELECT count(*) FROM run") == 0


async def test_a_group_settles_what_is_still_ours_and_names_it(database, conn):
    now = now_ms()
    await enqueue(database, *(new_run(definition(f"t{n}"), now) for n in range(4)))
    runs = await claim(database, now)
    await conn.execute("UPDATE run SET claimed_by = $1 WHERE id = $2", OTHER, runs[0].id)
    async with database.engine.begin() as c:
        ours = await queue.settle(c, ME, [ended(run) for run in runs])
    assert set(ours) == {run.id for run in runs[1:]}
    assert [r["id"] for r in await conn.fetch("SELECT id FROM run")] == [runs[0].id]


async def test_a_retry_sent_again_after_a_lost_answer_releases_no_later_claim(database, conn):
    now = now_ms()
    await enqueue(database, new_run(definition(), now))
    (run,) = await claim(database, now)
    retry = tried(run, now + 500)
    async with database.engine.begin() as c:
        await queue.retry(c, ME, [retry])
    (again,) = await claim(database, now)
    assert (again.id, len(again.attempts), again.scheduled_for) == (run.id, 1, now)
    async with database.engine.begin() as c:
        await queue.retry(c, ME, [retry])
    assert await conn.fetchval("SELECT claimed_by FROM run") == ME


@pytest.mark.parametrize("attempts_n", [0, 1, 5])
async def test_a_run_whose_attempts_were_miscounted_by_hand_can_still_be_given_back(
    database, conn, attempts_n
):
    now = now_ms()
    await enqueue(database, new_run(definition(), now))
    attempts = encode([Attempt(1, "failed", now, now), Attempt(2, "failed", now, now)])
    with contextlib.suppress(asyncpg.CheckViolationError):  # or it is refused
        await conn.execute(
            "UPDATE run SET attempts = $1::text::jsonb, attempts_n = $2", attempts, attempts_n
        )
    (run,) = await claim(database, now)
    async with database.engine.begin() as c:
        if run.damaged:
            await queue.settle(c, ME, [ended(run)])
        else:
            await queue.retry(c, ME, [tried(run, now + 5000)])
    # Else it would be adopted and sent again every ten seconds, uncounted.
    assert await conn.fetchval("SELECT count(*) FROM run WHERE claimed_by IS NOT NULL") == 0


async def test_a_released_run_can_be_claimed_by_another(database):
    now = now_ms()
    await enqueue(database, new_run(definition(), now))
    (run,) = await claim(database, now)
    async with database.engine.begin() as c:
        await queue.release(c, ME, [run.id])
    assert [r.claimed_by for r in await claim(database, now, me=OTHER)] == [OTHER]


async def test_an_edit_drops_what_it_took_back_and_not_what_a_later_one_wants(database, conn):
    now = now_ms()
    await enqueue(database, *(new_run(definition(f"t{n}"), now) for n in range(2)))
    old, new = await claim(database, now)
    await conn.execute("UPDATE run SET version = 2 WHERE id = $1", new.id)
    async with database.engine.begin() as c:
        assert await queue.drop(c, ME, [old.id, new.id], 2) == {old.id}
        assert await queue.drop(c, ME, [new.id], None) == {new.id}  # a delete


async def test_what_names_this_process_is_adopted(database):
    now = now_ms()
    await enqueue(database, *(new_run(definition(f"t{n}"), now) for n in range(3)))
    mine = await claim(database, now, room=2)
    await claim(database, now, me=OTHER)
    async with database.engine.begin() as c:
        assert {r.id for r in await queue.adopt(c, ME)} == {r.id for r in mine}


# Skipped -----------------------------------------------------------------------------------------


async def test_what_fell_due_while_a_run_was_under_way_becomes_one_gap(database, conn):
    now, of = now_ms(), definition()
    instants = [now - at for at in (5000, 4000, 3000, 2000, 1000, 0)]
    await enqueue(database, *(new_run(of, at) for at in instants))
    await enqueue(database, *(new_run(definition("other"), at) for at in instants))
    async with database.engine.begin() as c:
        skipped = await skips.skip_overlapped(c, [(of.key, now - 4000, now - 1000)], utc(now))
    assert skipped == 3
    row = await conn.fetchrow("SELECT * FROM history")
    assert (row["state"], row["reason"], row["count"], row["attempts_n"]) == (
        "skipped", "overlap", 3, 0
    )  # fmt: skip
    assert (ms(row["gap_from"]), ms(row["gap_to"])) == (now - 3000, now - 1000)
    assert row["id"] == run_id(of.key, of.bucket, "task", now - 3000)
    left = await conn.fetch("SELECT scheduled_for FROM run WHERE task_key = $1", of.key)
    assert {ms(r["scheduled_for"]) for r in left} == {now - 5000, now - 4000, now}
    assert await conn.fetchval("SELECT count(*) FROM run WHERE task_key <> $1", of.key) == 6


async def test_what_was_tried_claimed_or_asked_for_by_hand_is_not_skipped(database, conn):
    now, of = now_ms(), definition(overlap="skip")
    manual = new_run(of, now - 10)
    manual.id, manual.kind = run_id(of.key, of.bucket, "manual", 0, "x"), "manual"
    queued = new_run(of, now - 40)
    queued.overlap = "queue"
    await enqueue(database, manual, *(new_run(of, now - at) for at in (20, 30)), queued)
    await conn.execute("UPDATE run SET claimed_by = $1 WHERE due = $2", ME, utc(now - 20))
    await conn.execute("UPDATE run SET attempts_n = 1 WHERE due = $1", utc(now - 30))
    async with database.engine.begin() as c:
        assert await skips.skip_overlapped(c, [(of.key, now - 100, now)], utc(now)) == 0
    assert await conn.fetchval("SELECT count(*) FROM run") == 4


@pytest.mark.parametrize(
    ("latest", "left"), [(True, {0, 2}), (False, {0, 2, 3})], ids=["latest", "skip"]
)
async def test_what_stood_unclaimed_for_too_long_is_swept(database, conn, latest, left):
    # In minutes ago. With grace of 3.5: 4, 5 and 6 are too late; `latest` keeps only the last due.
    now, of = now_ms(), definition()
    ages = (6, 5, 4, 3, 2, 0)
    await enqueue(database, *(new_run(of, now - age * MINUTE) for age in ages))
    before = now - 3 * MINUTE - 30_000 if not latest else now - 90_000
    async with database.engine.begin() as c:
        skipped = await skips.sweep_misfired(c, [Judgement(of.key, before, latest)], utc(now))
    rows = await conn.fetch("SELECT scheduled_for FROM run")
    ages_left = {(now - ms(row["scheduled_for"])) // MINUTE for row in rows}
    assert ages_left == (left if not latest else {0})
    assert skipped == len(ages) - len(ages_left)
    gap = await conn.fetchrow("SELECT * FROM history")
    assert (gap["state"], gap["reason"], gap["count"]) == ("skipped", "misfire", skipped)
    assert ms(gap["gap_from"]) == now - 6 * MINUTE


async def test_the_last_due_instant_is_kept_however_late_it_is(database, conn):
    now, of = now_ms(), definition()
    await enqueue(database, *(new_run(of, now - age * MINUTE) for age in (30, 20, 10)))
    await enqueue(database, new_run(of, now + MINUTE))  # not due: it makes nothing too late
    async with database.engine.begin() as c:
        judged = [Judgement(of.key, now - MINUTE, latest=True)]
        assert await skips.sweep_misfired(c, judged, utc(now)) == 2
        assert await skips.sweep_misfired(c, judged, utc(now)) == 0
    rows = await conn.fetch("SELECT scheduled_for FROM run ORDER BY due")
    assert [ms(r["scheduled_for"]) - now for r in rows] == [-10 * MINUTE, MINUTE]


async def test_a_queue_is_cut_behind_the_first_so_many_that_are_due(database, conn):
    now, of = now_ms(), definition(overlap="queue")
    other = definition("other", overlap="skip")
    await enqueue(database, *(new_run(of, now - 1000 * n) for n in range(-2, 10)))
    await enqueue(database, *(new_run(other, now - 1000 * n) for n in range(10)))
    manual = new_run(of, now)
    manual.id, manual.kind = run_id(of.key, of.bucket, "manual", 0, "x"), "manual"
    await enqueue(database, manual)
    await claim(database, now - 8000, room=2)  # the heads
    async with database.engine.begin() as c:
        assert await skips.cut_queues(c, [of.key, other.key], 4, utc(now)) == 5
        assert await skips.cut_queues(c, [of.key, other.key], 4, utc(now)) == 0
    left = await conn.fetch(
        "SELECT due FROM run WHERE task_key = $1 AND kind = 'task' ORDER BY due", of.key
    )
    # The claimed head, four behind it, and two that are not due yet.
    assert [(now - ms(r["due"])) // 1000 for r in left] == [9, 8, 7, 6, 5, -1, -2]
    assert await conn.fetchval("SELECT count(*) FROM run WHERE task_key = $1", other.key) == 10
    gap = await conn.fetchrow("SELECT * FROM history")
    assert (gap["state"], gap["reason"], gap["count"]) == ("skipped", "overlap", 5)
    assert (ms(gap["gap_from"]), ms(gap["gap_to"])) == (now - 4000, now)


async def test_the_overdue_are_walked_in_order_without_what_is_claimed_or_tried(database, conn):
    now = now_ms()
    runs = [new_run(definition(f"t{n}"), now - MINUTE - n // 2) for n in range(20)]
    await enqueue(database, *runs)
    await conn.execute("UPDATE run SET claimed_by = $1 WHERE id = $2", ME, runs[3].id)
    await conn.execute("UPDATE run SET attempts_n = 1 WHERE id = $1", runs[4].id)
    after, found = Sweep.START, []
    async with database.engine.begin() as c:
        while piece := await skips.overdue(c, after, utc(now), 7):
            found += piece
            after = (piece[-1][1], piece[-1][2])
    assert len(found) == len(set(found)) == 18
    assert found == sorted(found, key=lambda row: (row[1], row[2]))


# Free --------------------------------------------------------------------------------------------


async def test_a_run_due_after_the_last_possible_call_is_freed_without_an_attempt(database):
    now = now_ms()
    await enqueue(database, new_run(definition(), now + 1000))
    await claim(database, now)
    async with database.engine.begin() as c:
        assert await queue.free(c, [ME], utc(now), utc(now)) == 1
    (run,) = await claim(database, now, me=OTHER)
    assert (run.attempts, run.due) == ([], now + 1000)


async def test_what_a_dead_replica_may_have_sent_counts_as_an_unknown_attempt(database):
    now = now_ms()
    await enqueue(database, new_run(definition("t0"), now - 100), new_run(definition("t1"), now))
    await claim(database, now)
    async with database.engine.begin() as c:
        assert await queue.free(c, [ME], utc(now), utc(now)) == 2
    freed = await claim(database, now + 1000, me=OTHER)
    assert len(freed) == 2
    for run in freed:
        (attempt,) = run.attempts
        assert (attempt.number, attempt.outcome) == (1, "unknown")
        assert (attempt.started_at, attempt.finished_at) == (run.scheduled_for, now)
        assert "may have arrived" in (attempt.error or "")
        assert run.due == now + 1000


async def test_each_unknown_outcome_backs_off_further_up_to_five_minutes(database, conn):
    now = now_ms()
    await enqueue(database, new_run(definition(), now))
    waits = []
    for _ in range(12):
        await conn.execute("UPDATE run SET claimed_by = $1, due = $2", ME, utc(now))
        async with database.engine.begin() as c:
            await queue.free(c, [ME], utc(now), utc(now))
        waits.append((ms(await conn.fetchval("SELECT due FROM run")) - now) / 1000)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert await conn.fetchval("SELECT attempts_n = jsonb_array_length(attempts) FROM run")


async def test_only_the_dead_are_freed(database):
    now = now_ms()
    await enqueue(database, *(new_run(definition(f"t{n}"), now) for n in range(2)))
    await claim(database, now, room=1)
    await claim(database, now, me=OTHER)
    async with database.engine.begin() as c:
        assert await queue.holders(c) in ([ME, OTHER], [OTHER, ME])
        await queue.free(c, [OTHER], utc(now), utc(now))
        assert await queue.holders(c) == [ME]


# A deleted task ----------------------------------------------------------------------------------


async def test_a_deleted_tasks_future_goes_its_overdue_ends_cancelled_its_claimed_stay(
    database, conn
):
    now, of = now_ms(), definition(overlap="allow")
    await enqueue(database, *(new_run(of, now + at) for at in (-2000, -1000, 5000)))
    await enqueue(database, new_run(definition("other"), now - 1000))
    await conn.execute("UPDATE run SET claimed_by = $1 WHERE due = $2", ME, utc(now - 1000))
    async with database.engine.begin() as c:
        await lines.remove(c, of.line, utc(now))
    assert await conn.fetchval("SELECT count(*) FROM run WHERE task_key = $1", of.key) == 1
    assert await conn.fetchval("SELECT count(*) FROM run") == 2
    rows = await conn.fetch("SELECT state, reason, scheduled_for FROM history")
    assert [(r["state"], r["reason"]) for r in rows] == [("cancelled", "the task was deleted")]
    assert ms(rows[0]["scheduled_for"]) == now - 2000


# What a claim costs ------------------------------------------------------------------------------

FILL = """
INSERT INTO run (id, bucket, service_id, task_key, task_id, kind, version, overlap, priority,
                 scheduled_for, due, attempts, attempts_n, created_at)
SELECT gen_random_uuid(), n % 1024, $1, md5((n / 4)::text)::uuid, 't', 'task', 1,
       (ARRAY['skip', 'allow', 'queue'])[n % 3 + 1], 0, at, at, '[]', 0, at
FROM generate_series(1, 20000) AS n, LATERAL (SELECT $2::timestamptz + n * interval '10 ms' AS at)
"""
FILL_HISTORY = """
INSERT INTO history (id, bucket, service_id, task_key, task_id, kind, version, scheduled_for,
                     state, attempts, attempts_n, created_at, started_at, finished_at, truncated,
                     count)
SELECT gen_random_uuid(), $2, $1, CASE WHEN n % 10 = 0 THEN $3 ELSE gen_random_uuid() END, 't',
       'task', 1, at, 'succeeded', '[]', 1, at, at, at, false, 1
FROM generate_series(1, 20000) AS n, LATERAL (SELECT $4::timestamptz - n * interval '1 s' AS at)
"""
SEQUENTIAL = re.compile(r"Seq Scan on (run|history|task)\w*( \w+)? +\(cost=0\.00\.\.(?!0\.0)")
"""Of a table with something in it; empty partitions are walked for nothing."""
FILL_PLANS = """
INSERT INTO task_plan (key, bucket, service_id, next_plan_at, planned_until, planned_runs)
SELECT gen_random_uuid(), n % 1024, $1, now() + n * interval '1 s', now(), 0
FROM generate_series(1, 20000) AS n
"""
FILL_TASKS = """
INSERT INTO task (key, bucket, service_id, id, version, name, tags, status, action, policy,
                  created_at, updated_at)
SELECT gen_random_uuid(), n % 1024, $1, 't' || n, 1, 'n', '[]', 'active', '{}', '{}',
       now() - n * interval '1 s', now()
FROM generate_series(1, 20000) AS n
"""


async def test_a_claim_is_a_hot_update(database, conn):
    now = now_ms()
    await enqueue(database, *(new_run(definition(f"t{n}"), now) for n in range(2000)))
    while await claim(database, now, room=500):
        pass
    await database.close()  # a backend that goes reports its counts

    async def all_were_hot() -> None:
        await conn.execute("SELECT pg_stat_clear_snapshot()")
        row = await conn.fetchrow("SELECT * FROM pg_stat_user_tables WHERE relname = 'run'")
        assert row["n_tup_upd"] == 2000
        assert row["n_tup_hot_upd"] == 2000

    await eventually(all_were_hot)


@contextlib.contextmanager
def recorded(database: Database) -> Iterator[list[str]]:
    """The statements that are executed meanwhile, as the driver gets them."""
    seen: list[str] = []

    def note(_conn, _cursor, statement, *_rest) -> None:
        seen.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(database.engine.sync_engine, "before_cursor_execute", note)


async def generic_plan(conn: asyncpg.Connection, statement: str) -> str:
    """The plan that the engine's connections use for a statement, whatever its values."""
    await conn.execute("SET plan_cache_mode = force_generic_plan; SET jit = off")
    await conn.execute(f"PREPARE explained AS {statement}")
    types = await conn.fetchval(
        "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = 'explained'"
    )
    nulls = f"({', '.join(['NULL'] * types)})" if types else ""
    lines = await conn.fetch(f"EXPLAIN EXECUTE explained{nulls}")
    await conn.execute("DEALLOCATE explained")
    return "\n".join(line[0] for line in lines)


async def test_no_hot_statement_walks_a_whole_table(database, conn):
    now = now_ms()
    of = definition()
    await conn.execute(FILL, ALICE, utc(now - 100_000))
    await conn.execute(FILL_HISTORY, ALICE, of.bucket, of.key, utc(now))
    await conn.execute(FILL_TASKS, ALICE)
    await conn.execute(FILL_PLANS, ALICE)
    with recorded(database) as statements:
        async with database.engine.begin() as c:
            await _touch_everything(c, of, now)
    assert len(statements) > 25
    walks = []
    for known in ("never analyzed", "analyzed"):
        for statement in dict.fromkeys(statements):
            plan = await generic_plan(conn, statement)
            if SEQUENTIAL.search(plan):
                walks.append(f"{known}: {statement}\n{plan}")
        await conn.execute("ANALYZE")
    assert not walks, "\n\n".join(walks)


async def _touch_everything(c: Conn, of: Definition, now: int) -> None:
    """Call every verb that the machine calls by the second, and the two lists."""
    at = utc(now)
    claimed = await queue.claim_on_time(c, ME, now, ahead_ms=1000, room=50)
    claimed += await queue.claim_late(c, ME, now, service=ALICE, room=50)
    assert len(claimed) > 2
    await queue.any_late(c, now)
    await queue.depth(c, at)
    await queue.late_services(c, [ALICE, BOB], now)
    await queue.settle(c, ME, [ended(run) for run in claimed[:10]])
    await queue.retry(c, ME, [tried(run, now) for run in claimed[10:20]])
    await queue.release(c, ME, [run.id for run in claimed[20:30]])
    await queue.versions(c, ME, [run.id for run in claimed])
    await queue.drop(c, ME, [claimed[-1].id], None)
    await skips.skip_overlapped(c, [(of.key, now - 1000, now)], at)
    await skips.sweep_misfired(c, [Judgement(of.key, now, latest=True)], at)
    await skips.cut_queues(c, [of.key, claimed[0].task_key], 100, at)
    await skips.overdue(c, Sweep.START, at, 100)
    await lines.take_back(c, of.line, at)
    await lines.standing(c, of.line, at)
    await lines.reversion(c, of.line, Stance(2, "skip", 1, 0), at, [of.key])
    await lines.lock_line(c, of.line, at, 1.0)
    await lines.lock_lines(c, [of.key])
    await lines.remove(c, of.line, at)
    await lines.live(c, ALICE, [of.key], at)
    await lines.of_task(c, of.line, at)
    await lines.get(c, ALICE, claimed[0].id)
    await executions.page(c, of.line, of.id, at, page=3, count=10)
    await history.get(c, ALICE, claimed[0].id)
    await history.last_ends(c, ALICE, [of.key])
    await task.definitions(c, [of.key])
    await task.outlines(c, ALICE, [of.key])
    await task.find(c, ALICE, "t77")
    await tasklist.page(c, ALICE, tasklist.Filter(), offset=0, count=101)
    await planner.anything(c, now, window_ms=60_000)
    await planner.tick(c, now, window_ms=60_000, batch=100)
    await planner.lock(c, of.line)
    await planner.lock_many(c, ALICE, [of.key])
    await outlook.coming(c, ALICE, planning.Coming(of.key, now, 0), now + 60_000, 100)
    assert [each async for each in lines.due_tasks(c, ALICE, at, utc(now + 60_000), 100)]
    await lines.newest(c, of.line, at)
    await lines.tasks_of(c, ALICE, [claimed[0].id])
    await lines.cancel(c, ALICE, [run.id for run in claimed[30:]], at)
    again = Again(claimed[0].id, of.key, Stance(2, "skip", 1, 0), 3)
    await replays.replay(c, of.service_id, [again], at)
    await queue.cancelled(c, ME)
    for owner in (outlook, task, lines):
        await owner.next_service(c, UUID(int=0))
