"""Replicas: beats, who is taken for dead, and what becomes of its runs."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from conftest import eventually
from scheduler import config, queue
from scheduler.db import Database, ms, utc
from scheduler.planning import new_run
from scheduler.replicas import BEAT_S, FRESH_S, STILL_S, Membership
from test_queue import claim, definition, enqueue, now_ms


class Member:
    """A replica with a monotonic clock of its own."""

    def __init__(self, database: Database) -> None:
        self.at = 1000.0
        self.database = database
        self.membership = Membership("test", lambda: self.at)

    async def join(self) -> "Member":
        async with self.database.engine.begin() as conn:
            await self.membership.join(conn)
        return self

    async def beat(self) -> bool:
        async with self.database.engine.begin() as conn:
            return await self.membership.beat(conn)

    async def watch(self) -> list[tuple[object, int]]:
        async with self.database.engine.begin() as conn:
            return await self.membership.watch(conn)

    async def bury(self, dead, beat: int) -> int | None:
        async with self.database.engine.begin() as conn:
            return await self.membership.bury(conn, dead, beat)

    async def watch_for(self, seconds: float) -> list[tuple[object, int]]:
        """Watch at each beat for so long; return what the last look said."""
        found: list[tuple[object, int]] = []
        for _ in range(round(seconds / BEAT_S)):
            self.at += BEAT_S
            await self.beat()
            found = await self.watch()
        return found


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, config.Database())
    yield made
    await made.close()


@pytest.fixture
async def one(database: Database) -> Member:
    return await Member(database).join()


@pytest.fixture
async def two(database: Database) -> Member:
    return await Member(database).join()


async def test_a_process_is_fresh_for_eight_seconds_after_a_beat(one):
    assert one.membership.fresh
    one.at += FRESH_S - 0.001
    assert one.membership.fresh
    one.at += 0.001
    assert not one.membership.fresh
    assert await one.beat()
    assert one.membership.fresh


async def test_a_beat_counts_from_before_it_was_sent(database, database_url, conn):
    one = Member(database)
    await one.join()
    one.at += 2
    async with conn.transaction():
        await conn.execute("SELECT FROM replica FOR UPDATE")
        beating = asyncio.create_task(one.beat())

        async def waiting() -> None:
            assert await conn.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")

        await eventually(waiting)
        one.at += 5  # the answer takes so long
    assert await beating
    one.at += FRESH_S - 5 - 0.001
    assert one.membership.fresh
    one.at += 0.002
    assert not one.membership.fresh


async def test_a_process_that_never_joined_is_not_fresh(database):
    assert not Member(database).membership.fresh


async def test_a_replica_that_beats_is_never_taken_for_dead(one, two):
    for _ in range(30):
        one.at += BEAT_S
        await two.beat()
        assert await one.watch() == []
    assert set(one.membership.others) == {two.membership.me}
    assert not one.membership.alone


async def test_a_beat_watched_standing_still_for_ten_seconds_belongs_to_nobody(one, two):
    await one.watch()
    assert await one.watch_for(STILL_S - BEAT_S) == []
    ((dead, beat),) = await one.watch_for(BEAT_S)
    assert dead == two.membership.me
    assert await one.bury(dead, beat) == 0
    assert one.membership.alone
    assert not await two.beat()
    assert not two.membership.fresh


async def test_a_beat_that_moved_between_the_look_and_the_burial_is_believed(one, two):
    await one.watch()
    ((dead, beat),) = await one.watch_for(STILL_S)
    assert await two.beat()
    assert await one.bury(dead, beat) is None
    assert await two.beat()
    assert await one.watch() == []


async def test_a_pause_in_its_own_reading_proves_nothing(one, two):
    await one.watch()
    one.at += 60  # this process was stopped, or the database was away
    await one.beat()
    assert await one.watch() == []
    assert await one.watch_for(STILL_S - BEAT_S) == []
    assert len(await one.watch_for(BEAT_S)) == 1


async def test_a_replica_seen_for_the_first_time_has_ten_seconds(one, database):
    await one.watch_for(30)
    await Member(database).join()
    assert await one.watch() == []
    assert await one.watch_for(STILL_S - BEAT_S) == []


async def test_one_that_was_buried_goes_on_under_a_new_name(one, two):
    await one.watch()
    ((dead, beat),) = await one.watch_for(STILL_S)
    await one.bury(dead, beat)
    before = two.membership.me
    assert not await two.beat()
    await two.join()
    assert two.membership.me != before
    assert two.membership.fresh
    assert await two.beat()


async def test_only_what_was_claimed_under_the_present_name_may_be_sent(one, two):
    before = two.membership.me
    assert two.membership.may_send(before)
    assert not two.membership.may_send(one.membership.me)
    await two.join()
    assert not two.membership.may_send(before)
    assert two.membership.may_send(two.membership.me)
    two.at += FRESH_S
    assert not two.membership.may_send(two.membership.me)


async def test_two_watchers_bury_a_replica_once(one, two, database, conn):
    third = await Member(database).join()
    now = now_ms()
    await enqueue(database, new_run(definition(), now - 60_000))
    await conn.execute("UPDATE run SET claimed_by = $1", third.membership.me)
    for watcher in (one, two):
        await watcher.watch()
    for _ in range(5):
        for watcher in (one, two):
            watcher.at += BEAT_S
            await watcher.beat()
            found = await watcher.watch()
    ((dead, beat),) = found
    freed = await asyncio.gather(one.bury(dead, beat), two.bury(dead, beat))
    assert sorted(freed, key=str) == [1, None]
    assert await conn.fetchval("SELECT attempts_n FROM run") == 1


async def test_what_the_dead_held_beyond_its_last_possible_call_was_never_sent(
    one, two, database, conn
):
    now = now_ms()
    await enqueue(
        database, new_run(definition("past"), now - 100), new_run(definition("future"), now + 900)
    )
    held = await claim(database, now, me=two.membership.me)
    assert len(held) == 2
    # Its last beat was so long ago that it may have sent up to now.
    await conn.execute(
        "UPDATE replica SET beat_at = $1 WHERE id = $2",
        utc(now - int(FRESH_S * 1000)), two.membership.me,
    )  # fmt: skip
    await one.watch()
    ((dead, beat),) = await one.watch_for(STILL_S)
    assert await one.bury(dead, beat) == 2
    rows = {row["task_id"]: row for row in await conn.fetch("SELECT * FROM run")}
    assert (rows["past"]["attempts_n"], rows["past"]["claimed_by"]) == (1, None)
    assert (rows["future"]["attempts_n"], rows["future"]["claimed_by"]) == (0, None)
    assert ms(rows["future"]["due"]) == now + 900


async def test_runs_of_nobody_are_freed_and_those_of_the_living_stay(one, two, database, conn):
    now = now_ms()
    names = {"mine": one.membership.me, "other": two.membership.me, "orphan": definition().key}
    for name, holder in names.items():
        await enqueue(database, new_run(definition(name), now))
        await conn.execute("UPDATE run SET claimed_by = $1 WHERE task_id = $2", holder, name)
    async with database.engine.begin() as c:
        assert await one.membership.free_orphans(c) == 1
    free = await conn.fetch("SELECT task_id FROM run WHERE claimed_by IS NULL")
    assert [row["task_id"] for row in free] == ["orphan"]


async def test_who_knows_to_be_alone_buries_all_the_others_at_once(one, two, database, conn):
    now = now_ms()
    await enqueue(database, *(new_run(definition(f"t{n}"), now) for n in range(3)))
    await claim(database, now, me=two.membership.me)
    async with database.engine.begin() as c:
        assert await one.membership.bury_all(c) == 3
        assert await queue.holders(c) == []
    assert not await two.beat()
    assert await one.beat()


async def test_who_leaves_is_gone_at_once(one, two, database):
    await one.watch()
    async with database.engine.begin() as c:
        await two.membership.leave(c)
    assert await one.watch() == []
    assert one.membership.alone
