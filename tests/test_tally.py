"""The tally: what ended, counted; whatever happens to history, it says the same as history."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError

from conftest import App, eventually
from scheduler import config, partitions, tally, wipe
from scheduler.clock import Clock
from scheduler.counting import BY_MINUTE_MS, HOUR, LATE_MS, MINUTE, Counting, _next_wide
from scheduler.db import Database, utc
from scheduler.tally import Span
from test_bulk import unheld
from test_queue import ALICE, BOB

DAY = 24 * HOUR
NUMBERS = itertools.count()


class Set(Clock):
    """A clock that shows what it is told to."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def now_ms(self) -> int:
        return self.at


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, config.Database())
    yield made
    await made.close()


@pytest.fixture
async def clock(conn: asyncpg.Connection) -> Set:
    """Ten past an hour of this week: the minutes before lie in the same week."""
    now = int(await conn.fetchval("SELECT extract(epoch FROM now()) * 1000"))
    return Set(now - now % HOUR + 10 * MINUTE + 30_000)


def counting(database: Database, clock: Clock, held_back_ms: int = 0) -> Counting:
    """One replica's."""
    return Counting(database, clock, fresh_ms=0, held_back_ms=held_back_ms)


async def end(conn: asyncpg.Connection, at: int, state: str = "succeeded", **changes: Any) -> UUID:
    """A row of history that ended at `at` (ms), by default started on time a second before."""
    due = changes.pop("due", at - 1000)
    reason = changes.pop("reason", None if state == "succeeded" else "why")
    row = {
        "id": uuid4(),
        "bucket": 0,
        "service_id": ALICE,
        "kind": "task",
        "version": 1,
        "scheduled_for": utc(due),
        "state": state,
        "reason": reason,
        "attempts": "[]",
        "attempts_n": 1,
        "created_at": utc(changes.pop("made", due)),
        "started_at": utc(due + changes.pop("lag", 4)),
        "finished_at": utc(at),
        "truncated": False,
        "count": 1,
    } | changes
    places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
    await conn.execute(
        f"INSERT INTO history ({', '.join(row)}) VALUES ({places})", *row.values()
    )  # fmt: skip
    return row["id"]


async def day(database: Database, clock: Set, service: UUID = ALICE) -> Span:
    """What the tally says of the last 24 hours."""
    async with database.api.connect() as conn:
        until = clock.at - clock.at % MINUTE + MINUTE
        spans, day = await tally.series(conn, service, until - DAY, until, 3600, until - DAY)
        whole = {state: sum(each.counts[state] for each in spans) for state in tally.STATES}
        assert whole == day.counts  # drawn in steps it is the same
        return day


def seen(span: Span) -> dict[str, int]:
    return {state: count for state, count in span.counts.items() if count}


async def true_to_history(conn: asyncpg.Connection) -> None:
    """Each state, and each minute of each service, as history has it."""
    rows = await conn.fetch("""
        SELECT service_id, date_trunc('hour', finished_at) AS hour, state, sum(count)::bigint
        FROM history GROUP BY 1, 2, 3 ORDER BY 1, 2, 3""")
    counted = await conn.fetch("""
        SELECT service_id, date_trunc('hour', at) AS hour, w.state, sum(w.n)::bigint
        FROM tally, LATERAL (VALUES ('succeeded', succeeded), ('failed', failed),
             ('expired', expired), ('cancelled', cancelled), ('skipped', skipped)) AS w (state, n)
        WHERE w.n > 0 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3""")
    assert [tuple(row) for row in counted] == [tuple(row) for row in rows]


async def test_what_ended_is_counted_by_service_and_state(database, conn, clock):
    for state in ("succeeded", "succeeded", "failed", "expired", "cancelled"):
        await end(conn, clock.at - 2 * MINUTE, state)
    await end(conn, clock.at - 100, "failed")  # the minute is not over
    await end(conn, clock.at - 2 * MINUTE, "failed", service_id=BOB)
    await counting(database, clock).step()
    found = seen(await day(database, clock))
    assert found == {"succeeded": 2, "failed": 2, "expired": 1, "cancelled": 1}
    assert seen(await day(database, clock, BOB)) == {"failed": 1}
    await true_to_history(conn)


async def test_a_row_of_many_instants_counts_for_all_of_them(database, conn, clock):
    gap = {"started_at": None, "attempts_n": 0, "gap_from": utc(0), "gap_to": utc(1)}
    for reason, count in (("paused", 604_800), ("overlap", 3), ("a word of a later version", 2)):
        await end(conn, clock.at, "skipped", reason=reason, count=count, **gap)
    await counting(database, clock).step()
    found = await day(database, clock)
    assert seen(found) == {"skipped": 604_805}
    assert found.reasons == {"paused": 604_800, "overlap": 3, "other": 2}


async def test_what_is_written_late_is_counted_and_what_is_replayed_is_taken_back(
    database, conn, clock
):
    replica = counting(database, clock)
    gone = await end(conn, clock.at - MINUTE, "failed")
    await replica.step()
    await conn.execute("DELETE FROM history WHERE id = $1", gone)
    await end(conn, clock.at - LATE_MS + MINUTE)
    clock.at += MINUTE
    await replica.step()
    assert seen(await day(database, clock)) == {"succeeded": 1}


async def test_the_last_minutes_are_counted_once_a_minute_and_the_newest_always(
    database, conn, clock
):
    replica = counting(database, clock)
    await replica.step()
    await end(conn, clock.at - 3 * MINUTE)
    await end(conn, clock.at)
    await replica.step()
    assert seen(await day(database, clock)) == {"succeeded": 1}
    clock.at += MINUTE
    await replica.step()
    assert seen(await day(database, clock)) == {"succeeded": 2}


async def test_two_replicas_at_once_count_nothing_twice(database, conn, clock):
    for n in range(50):
        await end(conn, clock.at - n * 20_000)
    replicas = [counting(database, clock) for _ in range(4)]
    for _ in range(3):
        await asyncio.gather(*(each.step() for each in replicas))
        clock.at += 20_000
    assert seen(await day(database, clock)) == {"succeeded": 50}
    await true_to_history(conn)


async def test_what_another_replica_has_just_counted_is_left_to_it(database, conn, clock):
    await counting(database, clock).step()
    await end(conn, clock.at)
    clock.at += 5000
    await Counting(database, clock).step()
    assert seen(await day(database, clock)) == {}
    clock.at += 5000
    await Counting(database, clock).step()
    assert seen(await day(database, clock)) == {"succeeded": 1}


async def test_a_downtime_is_caught_up_with_in_bounded_steps(database, conn, clock):
    await conn.execute("UPDATE tally_mark SET until = $1", utc(clock.at - 3 * HOUR - 30_000))
    for minutes in (170, 100, 3):
        await end(conn, clock.at - minutes * MINUTE)
    replica, found = Counting(database, clock, fresh_ms=0, held_back_ms=0, pieces=1), []
    for _ in range(20):
        await replica.step()
        found.append(sum((await day(database, clock)).counts.values()))
    assert found[0] < 3 and found[-1] == 3
    await true_to_history(conn)


async def test_a_piece_that_cannot_be_counted_is_counted_later(database, conn, clock):
    replica = counting(database, clock)
    await replica.step()
    await end(conn, clock.at)
    await conn.execute("ALTER TABLE tally RENAME TO away")
    clock.at += MINUTE
    with pytest.raises(DBAPIError):
        await replica.step()
    await conn.execute("ALTER TABLE away RENAME TO tally")
    await replica.step()
    assert seen(await day(database, clock)) == {"succeeded": 1}


@given(st.integers(1, 120), st.floats(0, 100))
def test_pieces_are_whole_minutes_and_bounded(minutes, took_s):
    found = _next_wide(minutes * MINUTE, took_s)
    assert MINUTE <= found <= 2 * HOUR
    assert found % MINUTE == 0


async def test_what_was_held_back_while_nobody_counted_is_waited_for(database, conn, clock):
    await conn.execute("UPDATE tally_mark SET until = $1", utc(clock.at - HOUR - 30_000))
    replica = counting(database, clock, held_back_ms=20_000)
    await replica.step()
    await end(conn, clock.at - 40 * MINUTE)  # written only now
    await replica.step()
    assert seen(await day(database, clock)) == {}
    clock.at += 20_000
    await replica.step()
    assert seen(await day(database, clock)) == {"succeeded": 1}


async def test_what_is_old_is_told_by_the_hour_and_says_the_same(database, conn, clock):
    before = clock.at
    for n in range(20):
        await end(conn, before - n * 7 * MINUTE, "failed" if n % 3 else "succeeded", lag=n * 10)
    replica = counting(database, clock)
    await replica.step()
    assert await conn.fetchval("SELECT count(*) FROM tally") == 20
    was = await day(database, clock)
    clock.at += BY_MINUTE_MS + 2 * HOUR
    await replica.step()
    assert await conn.fetchval("SELECT array_agg(DISTINCT seconds) FROM tally") == [3600]
    async with database.api.connect() as api:
        _, now = await tally.series(api, ALICE, before - DAY, clock.at, 3600, before - DAY)
    assert (now.counts, now.lags) == (was.counts, was.lags)
    await true_to_history(conn)


MANY = """
INSERT INTO history (id, bucket, service_id, kind, version, scheduled_for, state, attempts,
                     attempts_n, created_at, started_at, finished_at, truncated, count)
SELECT gen_random_uuid(), 0, md5('s' || s)::uuid, 'task', 1, at, 'succeeded', '[]', 1, at, at, at,
       false, 1
FROM generate_series(1, 1000) AS s, unnest(CAST($1 AS timestamptz[])) AS at
"""
"""In some minutes, a row of each of a thousand services."""


async def test_very_many_services_are_counted_without_holding_the_loop(database, conn, clock):
    minutes = [utc(clock.at - n * MINUTE) for n in range(9)]
    await conn.execute(MANY, minutes)

    async def count() -> None:
        await conn.execute("UPDATE tally_mark SET until = NULL")
        await counting(database, clock).step()

    await unheld(count, most_ms=20)
    assert await conn.fetchval("SELECT count(*) FROM tally") == 9000
    await conn.execute("DELETE FROM history WHERE get_byte(uuid_send(service_id), 5) < 100")
    await conn.execute("DELETE FROM history WHERE finished_at = $1", minutes[1])
    await count()
    await true_to_history(conn)


async def test_a_clock_that_was_stepped_back_does_not_keep_it_from_counting(database, conn, clock):
    clock.at += DAY
    await counting(database, clock).step()
    clock.at -= DAY
    await end(conn, clock.at)
    await Counting(database, clock).step()
    assert seen(await day(database, clock)) == {"succeeded": 1}
    until, _ = await conn.fetchrow("SELECT until, counted_at FROM tally_mark")
    assert until <= utc(clock.at)


async def test_it_can_be_counted_again_of_history_alone(database, conn, clock):
    for n in range(30):
        await end(conn, clock.at - n * 17 * MINUTE, "skipped" if n % 4 else "succeeded")
    replica = counting(database, clock)
    await replica.step()
    kept = await conn.fetch("SELECT * FROM tally ORDER BY at")
    await conn.execute("UPDATE tally SET failed = 7")
    async with database.engine.begin() as at:
        await tally.forget(at, clock.at)
    for _ in range(20):
        await replica.step()
    assert await conn.fetch("SELECT * FROM tally ORDER BY at") == kept
    await true_to_history(conn)


async def test_it_goes_with_the_weeks_of_history(database, conn, clock):
    week = partitions.week_of(utc(clock.at))
    old = f"INSERT INTO tally SELECT $1, 0, $2, $3, {', '.join('1' * 9)}, array_fill(0, '{{36}}')"
    for seconds, away in ((60, -HOUR), (3600, -HOUR), (3600, -400 * DAY), (60, 90_000)):
        await conn.execute(old, ALICE, week, seconds)
        await conn.execute(
            "UPDATE tally SET at = at + $1 * interval '1 ms' WHERE at = $2", away, week
        )
    for name in await conn.fetch("""SELECT inhrelid::regclass::text FROM pg_inherits
                                 WHERE inhparent = 'history'::regclass"""):
        if name[0] < partitions.partition_of(week):
            await conn.execute(f"DROP TABLE {name[0]}")
    await conn.execute("UPDATE tally_mark SET until = $1", utc(clock.at))
    await counting(database, clock).step()
    assert await conn.fetchval("SELECT count(*) FROM tally WHERE at < $1", week) == 0


async def test_it_goes_with_its_service(database, conn, clock):
    for service in (ALICE, BOB):
        for n in range(5):
            await end(conn, clock.at - n * MINUTE, service_id=service)
    await counting(database, clock).step()
    await wipe.wipe(database.engine, ALICE, lambda _: None, ())
    assert seen(await day(database, clock)) == {}
    assert seen(await day(database, clock, BOB)) == {"succeeded": 5}
    async with database.engine.begin() as at:
        assert await tally.remove_service(at, BOB, 3) is True
        assert await tally.remove_service(at, BOB, 3) is False


# Lags --------------------------------------------------------------------------------------------


async def test_lags_are_of_runs_that_were_planned_ahead(database, conn, clock):
    at = clock.at - MINUTE
    await end(conn, at, lag=12)
    await end(conn, at, lag=90_000_000, made=at)  # a backfill
    await end(conn, at, lag=500, kind="manual")
    await end(conn, at, "expired", started_at=None)
    await counting(database, clock).step()
    found = await day(database, clock)
    assert sum(found.lags) == 1
    assert 10 <= (found.percentile(50) or 0) <= 15


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=200), st.sampled_from((50, 95, 99)))
def test_a_percentile_lies_in_the_bin_of_the_true_one(lags, share):
    bins = [0] * tally.BINS
    for lag in lags:
        bins[sum(lag >= bound for bound in tally.BOUNDS)] += 1
    found = Span(0, {}, {}, bins).percentile(share)
    true = sorted(lags)[-(-len(lags) * share // 100) - 1]
    low = max((b for b in tally.BOUNDS if b <= true), default=0)
    high = next(b for b in tally.BOUNDS if b > true)
    assert found is not None
    assert low <= found <= high


def test_of_no_starts_there_is_no_percentile():
    assert Span(0, {}, {}, [0] * tally.BINS).percentile(95) is None


# The whole ---------------------------------------------------------------------------------------


async def test_the_program_counts_what_it_ends(app: App, alice, receiver):
    task = {"name": "x", "id": "x", "url": receiver.url, "scheduled_at": "2099-01-01T00:00:00Z"}
    assert (await alice.post("/tasks", json=task)).status_code == 201
    assert (await alice.post("/tasks/x/execute")).status_code < 300
    counting = Counting(app.database, app.engine.clock, fresh_ms=0)

    async def counted() -> None:
        await counting.step()
        async with app.database.api.connect() as conn:
            now = app.engine.clock.now_ms()
            service = UUID(app.ids["alice"])
            _, day = await tally.series(conn, service, now - DAY, now + DAY, 3600, now - DAY)
            assert sum(day.counts.values()) >= 1

    await eventually(counted)
