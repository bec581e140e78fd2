"""Answers that processes share, and long ones: in memory, and in the database of all replicas."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from conftest import eventually
from scheduler.config import Cache
from scheduler.config import Database as Settings
from scheduler.db import Database
from scheduler.run import bucket_in, bucket_of, run_id
from scheduler.specs import responses, sharing
from scheduler.specs.responses import Shared
from scheduler.specs.sharing import Sharing
from scheduler.specs.way import Way

ALICE, BOB = UUID(int=1), UUID(int=2)
ANSWER = Shared(200, "text/plain", b"hello")


def key(number: int, service: UUID = ALICE) -> tuple[UUID, bytes]:
    return service, number.to_bytes(16, "big") + service.bytes


@pytest.fixture
async def database(database_url):
    database = Database(database_url, Settings())
    yield database
    await database.close()


async def rows(conn) -> int:
    return await conn.fetchval("SELECT count(*) FROM response_cache")


# Shared -------------------------------------------------------------------------------------------


async def test_an_answer_is_at_hand_where_it_was_put(database):
    cache = Sharing(Cache(), Way(database))
    cache.put(key(1), ANSWER, 5)
    assert cache.at_hand(key(1)) == ANSWER
    assert cache.at_hand(key(2)) is None


async def test_replicas_that_share_the_same_answers_wait_for_each_other_in_no_ring(database, conn):
    first, second = key(1), key(2)
    answers = {second: (ANSWER, 60.0), first: (ANSWER, 60.0)}
    async with database.auto.connect() as one:
        await responses.share(one, answers)
    again = dict.fromkeys(answers, (ANSWER, 90.0))
    touch = "UPDATE response_cache SET size = size WHERE key = $1"

    async def blocked() -> None:
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        assert await conn.fetchval(f"{waits} AND datname = current_database()") == 1

    async def share() -> None:
        async with database.auto.connect() as one:
            await responses.share(one, again)

    async with conn.transaction():
        await conn.execute(touch, first[1])
        sharing_again = asyncio.create_task(share())
        await eventually(blocked)
        await conn.execute("SET LOCAL lock_timeout = '2s'")
        await conn.execute(touch, second[1])
    await sharing_again
    async with database.auto.connect() as one:
        assert (await responses.find(one, [first]))[first][1] > 60


async def test_another_replica_finds_it(database):
    here, there = Sharing(Cache(), Way(database)), Sharing(Cache(), Way(database))
    kept = Shared(203, None, b"\x00\xff", uuid4())
    here.put(key(1), ANSWER, 5)
    here.put(key(2), kept, 100_000)

    async def found():
        assert [await there.find(key(1)), await there.find(key(2))] == [ANSWER, kept]

    await eventually(found)
    assert there.at_hand(key(1)) == ANSWER


async def test_another_service_never_finds_it(database, conn):
    here, there = Sharing(Cache(), Way(database)), Sharing(Cache(), Way(database))
    here.put(key(1), ANSWER, 5)
    await eventually(lambda: _some(conn))
    assert await there.find((BOB, key(1)[1])) is None
    assert here.at_hand((BOB, key(1)[1])) is None


async def _some(conn) -> None:
    assert await rows(conn)


async def test_an_answer_is_given_no_longer_than_its_time(database, conn):
    here, there = Sharing(Cache(ttl_seconds=0.3), Way(database)), Sharing(Cache(), Way(database))
    here.put(key(1), ANSWER, 5)

    async def found():
        assert await there.find(key(1)) == ANSWER

    async def gone():
        assert [here.at_hand(key(1)), there.at_hand(key(1))] == [None, None]
        assert await there.find(key(1)) is None

    await eventually(found, 0.25)
    await eventually(gone, 1)
    await there.prune()
    assert await rows(conn) == 0


async def test_many_that_are_wanted_together_are_asked_for_together(database, conn):
    here, there = Sharing(Cache(), Way(database)), Sharing(Cache(), Way(database))
    for number in range(300):
        here.put(key(number), Shared(200, None, b"%d" % number), 3)

    async def all_there():
        assert await rows(conn) == 300

    await eventually(all_there)
    found = await asyncio.gather(*(there.find(key(number)) for number in range(310)))
    assert [each and each.body for each in found] == [b"%d" % n for n in range(300)] + [None] * 10


async def test_a_long_answer_is_not_shared(database, conn):
    cache = Sharing(Cache(entry_max_bytes=10), Way(database))
    cache.put(key(1), Shared(200, None, b"x" * 11), 11)
    assert cache.at_hand(key(1)) is None
    cache.put(key(2), Shared(200, None, b"x" * 10), 10)
    assert cache.at_hand(key(2)) is not None


async def test_what_is_kept_in_memory_is_bounded(database):
    cache = Sharing(Cache(max_bytes=0), Way(database))
    large = Shared(200, None, bytes(sharing.MEMORY_BYTES // 10))
    for number in range(30):
        cache.put(key(number), large, 1)
        assert cache.at_hand(key(0)) is not None  # the one used last stays
    there = [n for n in range(30) if cache.at_hand(key(n)) is not None]
    assert there == [0, *range(22, 30)]


async def test_what_takes_too_much_room_goes_the_oldest_first(database, conn):
    each = 1000 + responses.BESIDE
    filling = Sharing(Cache(max_bytes=1 << 30), Way(database))
    for number in range(0, 400, 50):  # one after the other
        for n in range(number, number + 50):
            filling.put(key(n), Shared(200, None, bytes(1000)), 1000)
        await eventually(lambda n=number: _has(conn, n + 50))
    other = Sharing(Cache(max_bytes=160 * each), Way(database))
    await other.prune()
    assert 90 <= await rows(conn) <= 140  # an eighth of the room is free again; equals go together
    assert await other.find(key(399)) is not None
    assert await other.find(key(0)) is None


async def _has(conn, number: int) -> None:
    assert await rows(conn) == number


async def test_nothing_more_is_written_where_the_table_is_full(database, conn):
    cache = Sharing(Cache(max_bytes=8 * 1000), Way(database))
    for number in range(50):
        cache.put(key(number), Shared(200, None, bytes(100)), 100)
    await eventually(lambda: _has(conn, 3))
    assert cache.at_hand(key(49)) is not None


async def test_while_the_database_is_away_nothing_is_shared_and_nothing_fails(line):
    database = Database(line.url, Settings())
    cache = Sharing(Cache(), Way(database))
    assert await cache.find(key(1)) is None
    await line.cut()
    assert await cache.find(key(1)) is None
    cache.put(key(1), ANSWER, 5)
    assert await cache.find(key(1)) == ANSWER
    await database.close()


# Kept ---------------------------------------------------------------------------------------------


def of_a_run() -> UUID:
    run = run_id(uuid4(), bucket_of(ALICE, "x"), "process", 1000)
    kept = responses.response_id(run, 1)
    assert bucket_in(kept) == bucket_in(run)
    assert kept != responses.response_id(run, 2)
    assert kept == responses.response_id(run, 1)
    return kept


async def test_a_long_answer_is_kept_once_and_only_for_its_service(database):
    place, body = of_a_run(), bytes(range(256)) * 1000
    async with database.auto.connect() as conn:
        await responses.keep(conn, ALICE, place, body)
        await responses.keep(conn, ALICE, place, body)
        assert await responses.body(conn, ALICE, place) == body
        assert await responses.body(conn, BOB, place) is None
        assert await responses.body(conn, ALICE, uuid4()) is None


async def test_old_answers_go_in_pieces(database, conn):
    places = [of_a_run() for _ in range(5)]
    async with database.auto.connect() as engine:
        for place in places:
            await responses.keep(engine, ALICE, place, b"x")
        await conn.execute(
            """
            UPDATE response SET created_at = now() - interval '40 days' * n
            FROM unnest($1::uuid[]) WITH ORDINALITY AS u (place, n) WHERE id = place
            """,
            places[1:],
        )
        assert await responses.prune(engine, timedelta(days=39), 2)
        assert await responses.prune(engine, timedelta(days=39), 2)
        assert not await responses.prune(engine, timedelta(days=39), 2)
        assert [row["id"] for row in await conn.fetch("SELECT id FROM response")] == [places[0]]


async def test_a_services_answers_go_with_it(database, conn):
    mine, theirs = [of_a_run() for _ in range(3)], of_a_run()
    cache = Sharing(Cache(), Way(database))
    cache.put(key(1), ANSWER, 5)
    cache.put(key(1, BOB), ANSWER, 5)
    await eventually(lambda: _has(conn, 2))
    async with database.auto.connect() as engine:
        for place in mine:
            await responses.keep(engine, ALICE, place, b"x")
        await responses.keep(engine, BOB, theirs, b"x")
        assert await responses.remove_service(engine, ALICE, 2)
        assert not await responses.remove_service(engine, ALICE, 2)
        assert await responses.body(engine, BOB, theirs) == b"x"
        assert await rows(conn) == 1
