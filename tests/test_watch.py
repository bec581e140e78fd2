"""A look: what changed among runs is told, also of those that newer ones hide."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from scheduler import config, watch
from scheduler.db import Database, utc
from scheduler.run import run_id
from scheduler.watch import Memory, News
from test_queue import ALICE, BOB, now_ms
from test_tally import end

RUN = """
INSERT INTO run (id, bucket, service_id, kind, version, overlap, priority, scheduled_for, due,
                 attempts, attempts_n, claimed_by, created_at)
SELECT id, 0, $2, 'task', 1, 'allow', 0, $3, $3, '[]', 0, gen_random_uuid(), $3
FROM unnest(CAST($1 AS uuid[])) AS id
"""


async def begun(conn: Any, many: int, due: datetime) -> list[UUID]:
    """Runs that are under way."""
    runs = [run_id(uuid4(), 0, "task", 0) for _ in range(many)]
    await conn.execute(RUN, runs, ALICE, due)
    return runs


@pytest.fixture
async def database(database_url: str) -> Any:
    made = Database(database_url, config.Database())
    yield made
    await made.close()


async def look(database: Database, memory: Memory, now: int, last: int) -> News:
    async with database.api.connect() as conn:
        return (await watch.look(conn, {ALICE: memory}, now, last))[ALICE]


def told(news: News) -> set[UUID]:
    return {each.run.id for each in news.changed}


async def test_the_end_of_a_long_run_is_told_though_many_newer_ones_hid_it(database, conn):
    start, memory = now_ms(), Memory()
    (long,) = await begun(conn, 1, utc(start))
    assert told(await look(database, memory, start, start)) == {long}
    await begun(conn, watch.MOST + 10, utc(start + 20_000))
    for second in (21, 22):
        news = await look(database, memory, start + second * 1000, start + second * 1000 - 1000)
        assert long not in told(news)
    await conn.execute("DELETE FROM run WHERE id = $1", long)
    await end(conn, start + 60_500, id=long, due=start)
    news = await look(database, memory, start + 61_000, start + 60_000)
    assert long in told(news)
    assert long not in told(await look(database, memory, start + 62_000, start + 61_000))


async def test_what_never_is_seen_to_end_is_forgotten(database, conn):
    start, memory = now_ms(), Memory()
    for n in range(4):
        await begun(conn, watch.MOST, utc(start + n * 1000))
        await look(database, memory, start + n * 1000, start + n * 1000 - 1000)
        await conn.execute("DELETE FROM run")
    await look(database, memory, start + 4000, start + 3000)
    assert len(memory.lost) == watch.LOST_MOST
    later = start + 4000 + watch.LOST_MS
    await look(database, memory, later, later - 1000)
    assert not memory.lost


async def test_what_began_and_ended_unseen_long_after_it_was_due_is_told_once(database, conn):
    start, memory = now_ms(), Memory()
    await look(database, memory, start, start)
    old = start - 86_400_000
    gap = await end(
        conn, start + 500, "skipped", reason="misfire", due=old, count=9, gap_from=utc(old),
        gap_to=utc(start),
    )  # fmt: skip
    theirs = await end(conn, start + 500, due=old, service_id=BOB)
    seen = await end(conn, start + 600, due=start - 100)
    assert told(await look(database, memory, start + 1000, start)) == {seen}
    async with database.api.connect() as asked:
        news = await watch.late(asked, {ALICE: memory}, start + 2000, start)
        again = await watch.late(asked, {ALICE: memory}, start + 7000, start + 2000)
        anew = {service: Memory(began=start) for service in (ALICE, BOB)}
        both = await watch.late(asked, anew, start + 2000, start)
    assert told(news[ALICE]) == {gap}
    assert not again[ALICE].changed
    assert theirs in told(both[BOB]) and theirs not in told(both[ALICE])
