"""Processes that ask for the same: who is sent, who is given the answer of another, and who never."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from calling import BOB, Calling, calling, helped
from conftest import eventually
from receiver import Receiver
from scheduler.actions import Expected
from scheduler.clock import database_ms
from scheduler.specs import changes
from scheduler.specs.aide import Aides

Make = Callable[..., Awaitable[Calling]]


@pytest.fixture(scope="module")
async def aides() -> AsyncIterator[Aides]:
    async with helped() as started:
        yield started


@pytest.fixture
async def make(database_url: str, receiver: Receiver, aides: Aides) -> AsyncIterator[Make]:
    """Make a replica with settings of the test's own."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(url: str = database_url, **environ: str) -> Calling:
            return await stack.enter_async_context(calling(url, receiver.url, aides, **environ))

        yield start


@pytest.fixture
async def here(make: Make) -> Calling:
    """A replica, with a spec that can be called."""
    started = await make()
    await started.spec()
    return started


# One call for many --------------------------------------------------------------------------------


async def test_of_many_equal_calls_one_is_sent(here, receiver):
    receiver.otherwise.headers["Content-Type"] = "text/plain"  # type: ignore[index]
    first = await asyncio.gather(*(here.call() for _ in range(150)))
    later = await asyncio.gather(*(here.call() for _ in range(150)))
    assert {(o.succeeded, o.status_code, o.body, o.content_type) for o in first + later} == {
        (True, 200, b"ok", "text/plain")
    }
    assert len(receiver.requests) == 1


async def test_another_replica_is_given_the_answer_too(here, make, receiver):
    await here.call()
    there = await make()

    async def given():
        before = len(receiver.requests)
        assert (await there.call()).body == b"ok"
        assert len(receiver.requests) == before

    await eventually(given)
    assert len(receiver.requests) <= 2


async def test_after_its_time_an_answer_is_asked_for_again(make, receiver):
    here = await make(CACHE_TTL_SECONDS="0.2")
    await here.spec()
    await here.call()
    await here.call()
    assert len(receiver.requests) == 1

    async def again():
        await here.call()
        assert len(receiver.requests) == 2

    await eventually(again)


async def test_a_ttl_of_nothing_shares_nothing(make, receiver):
    here = await make(CACHE_TTL_SECONDS="0")
    await here.spec()
    await asyncio.gather(*(here.call() for _ in range(5)))
    assert len(receiver.requests) == 5


async def test_a_long_answer_is_kept_once_for_all(here, receiver, conn):
    body = bytes(range(256)) * 1000
    receiver.then(200, body)
    got = await asyncio.gather(*(here.call() for _ in range(20)))
    assert len(receiver.requests) == 1
    assert len({each.kept for each in got}) == 1
    assert all(each.succeeded and each.truncated for each in got[1:])
    assert await here.body(got[-1].kept) == body
    assert await conn.fetchval("SELECT count(*) FROM response") == 1


async def test_an_answer_that_is_too_long_to_be_shared_is_shared_only_in_flight(make, receiver):
    here = await make(CACHE_ENTRY_MAX_BYTES="10")
    await here.spec()
    receiver.then(200, b"x" * 11).then(200, b"y" * 11)
    got = await asyncio.gather(*(here.call() for _ in range(5)))
    assert {each.body for each in got} == {b"x" * 11}
    assert (await here.call()).body == b"y" * 11


# What is not the same -----------------------------------------------------------------------------


async def test_what_differs_is_asked_for_apart(here, receiver):
    for fields in (
        {"query_params": '{"term": "a"}'},
        {"query_params": '{"term": "b"}'},
        {"query_params": '{"term": "a"}', "headers": {"X-Key": "one"}},
        {"query_params": '{"term": "a"}', "headers": {"X-Key": "two"}},
        {"query_params": '{"term": "a"}', "headers": {"x-key": "two"}},
        {"query_params": '{"term": "b"}'},
    ):
        await here.call("GET /search", **fields)
    assert len(receiver.requests) == 4


async def test_another_service_is_never_given_the_answer(here, receiver):
    await here.spec(service=BOB)
    await here.call()
    await here.call(of=BOB)
    assert len(receiver.requests) == 2


async def test_a_spec_that_was_changed_is_asked_anew(make, here, receiver):
    spec = await here.spec("other")
    await here.call(service="other")
    async with here.database.engine.begin() as conn:
        await changes.rename(
            conn, spec, name="other", headers={}, url=here.url, now=await database_ms(conn)
        )
    await here.call(service="other")
    assert len(receiver.requests) == 2


@pytest.mark.parametrize("endpoint", ["POST /pets", "PUT /pets"])
async def test_what_changes_something_is_never_shared(here, receiver, endpoint):
    await asyncio.gather(*(here.call(endpoint, req_body="{}", cache=True) for _ in range(3)))
    assert len(receiver.requests) == 3


async def test_a_head_is_shared_but_not_with_a_get(here, receiver):
    await here.call("HEAD /pets")
    await here.call("HEAD /pets")
    assert [each.method for each in receiver.requests] == ["HEAD"]


async def test_who_says_so_neither_reads_nor_fills(here, receiver):
    await here.call(cache=False)
    await here.call()
    await here.call(cache=False)
    await here.call()
    assert len(receiver.requests) == 3


async def test_tasks_share_only_where_they_say_so(here, receiver):
    await here.call(kind="task")
    await here.call(kind="task")
    assert len(receiver.requests) == 2
    await here.call()
    assert len(receiver.requests) == 3
    await here.call(kind="task")
    assert len(receiver.requests) == 4
    await here.call(kind="task", cache=True)
    assert len(receiver.requests) == 4


async def test_a_retry_is_sent_and_what_it_gets_is_shared(here, receiver):
    receiver.then(200, b"old").then(200, b"new")
    await here.call()
    assert (await here.call(again=True)).body == b"new"
    assert (await here.call()).body == b"new"
    assert (await here.call(again=True, cache=True)).body == b"new"
    assert len(receiver.requests) == 2


# What fails ---------------------------------------------------------------------------------------


async def test_a_failure_is_not_shared_and_the_next_one_leads(here, receiver):
    answered = asyncio.Event()
    receiver.then(500, b"no", after=answered)
    under_way = [asyncio.create_task(here.call()) for _ in range(50)]
    await eventually(lambda: receiver.requests[0])
    answered.set()
    got = await asyncio.gather(*under_way)
    assert sorted(each.status_code for each in got) == [200] * 49 + [500]
    assert len(receiver.requests) == 2


async def test_nobody_waits_for_more_than_two(here, receiver):
    first, second = asyncio.Event(), asyncio.Event()
    receiver.then(500, b"no", after=first).then(500, b"no", after=second)
    under_way = [asyncio.create_task(here.call()) for _ in range(10)]
    await eventually(lambda: receiver.requests[0])
    first.set()
    await eventually(lambda: receiver.requests[1])
    second.set()
    got = await asyncio.gather(*under_way)
    assert sorted(each.status_code for each in got) == [200] * 8 + [500] * 2
    assert len(receiver.requests) == 10


async def test_where_the_one_that_leads_is_cancelled_another_leads(here, receiver):
    never = asyncio.Event()
    receiver.then(200, b"never", after=never)
    leader = asyncio.create_task(here.call())
    await eventually(lambda: receiver.requests[0])
    follower = asyncio.create_task(here.call())
    assert not (await asyncio.wait([follower], timeout=0.1))[0]
    leader.cancel()
    assert (await follower).body == b"ok"
    with pytest.raises(asyncio.CancelledError):
        await leader


async def test_one_that_waits_has_its_own_deadline_and_its_own_end(here, receiver):
    answered = asyncio.Event()
    receiver.then(200, b"late", after=answered)
    leader = asyncio.create_task(here.call())
    await eventually(lambda: receiver.requests[0])
    got = await here.call(seconds=0.1)
    assert (got.succeeded, got.retryable) == (False, True)
    assert "an equal call did not end before the time was up" in got.error
    cancelled = asyncio.create_task(here.call())
    assert not (await asyncio.wait([cancelled], timeout=0.1))[0]
    cancelled.cancel()
    await asyncio.wait([cancelled])
    answered.set()
    assert (await leader).body == b"late"
    assert len(receiver.requests) == 1


async def test_a_shared_answer_is_of_use_only_where_its_status_is_expected(here, receiver):
    receiver.then(404, b"none")
    assert (await here.call(expected=Expected(((404, 404),)))).succeeded
    assert (await here.call()).status_code == 200
    assert len(receiver.requests) == 2


async def test_a_wrong_call_waits_for_nobody_and_is_never_sent(here, receiver):
    got = await asyncio.gather(
        *(here.call("GET /search", query_params='{"page": 1}') for _ in "ab")
    )
    assert not any(each.succeeded for each in got)
    assert receiver.requests == []
