"""Room for answers: so many bytes at once in a process, and somebody always goes on."""

import asyncio
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from conftest import eventually
from scheduler.answers import FREE, Answers
from scheduler.config import Egress, Http
from scheduler.egress import Rules
from scheduler.marks import Marks
from scheduler.outbound import Outbound, SendError
from scheduler.target import prepare

MIB = 1 << 20


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_short_answer_asks_for_nothing():
    answers, marks = Answers(0), Marks(0.0)
    await answers.take(marks, FREE, now())
    assert marks.held == 0 and marks.release is None
    assert marks.timing() is None


async def test_who_finds_no_room_waits_and_the_first_goes_on():
    answers = Answers(MIB)
    first, second, third, fourth = (Marks(0.0) for _ in range(4))
    await answers.take(first, MIB, now() + 5)
    await answers.take(second, MIB, now() + 5)
    await answers.take(second, 10 * MIB, now() + 5)
    assert second.held == 10 * MIB - FREE, "one goes on, beyond the bound"
    others = [asyncio.create_task(answers.take(m, MIB, now() + 60)) for m in (third, fourth)]
    await asyncio.sleep(0)
    first.let_go()
    await asyncio.sleep(0)
    assert (third.held, fourth.held) == (0, 0), "what it goes beyond by is taken from what is left"
    second.let_go()
    await asyncio.gather(*others)
    assert third.held == fourth.held == MIB - FREE
    assert first.waited == second.waited == 0
    for each in (third, fourth):
        each.let_go()
    assert answers._left == MIB and answers._beyond is None


async def test_who_waits_gives_up_when_its_time_is_up():
    answers = Answers(0)
    first, second, third = (Marks(0.0) for _ in range(3))
    await answers.take(first, MIB, now() + 5)
    with pytest.raises(TimeoutError):
        await answers.take(second, MIB, now())
    assert second.held == 0 and not answers._waiting
    waiting = asyncio.create_task(answers.take(third, MIB, now() + 60))
    await asyncio.sleep(0)
    answers.shrink(first, 0)
    await asyncio.sleep(0)
    assert not waiting.done(), "it is still on its way"
    first.let_go()
    await waiting


async def test_one_service_does_not_take_all_the_room_however_long_its_targets_dawdle():
    answers, greedy, other = Answers(8 * MIB), uuid4(), uuid4()
    dawdling = [Marks(0.0, greedy) for _ in range(20)]
    taking = [asyncio.create_task(answers.take(each, MIB, now() + 60)) for each in dawdling]
    await asyncio.sleep(0)
    assert sum(each.held > 0 for each in dawdling) == 7, "six in its share, and one beyond"
    await asyncio.sleep(0)
    mine = [Marks(0.0, other) for _ in range(3)]
    await answers.take(mine[0], MIB, now() + 5)
    late = asyncio.create_task(answers.take(mine[1], MIB, now() + 60))
    await asyncio.sleep(0)
    assert not late.done()
    dawdling[0].let_go()
    await asyncio.wait_for(late, 5)
    assert sum(each.held > 0 for each in dawdling) == 6, "who has none of its share left is passed"
    for each in (*mine, *dawdling):
        each.let_go()
        await asyncio.sleep(0)
    await asyncio.gather(*taking)
    for each in dawdling:
        each.let_go()
    assert answers._left == 8 * MIB
    assert not answers._held and not answers._waiting and answers._beyond is None


async def test_who_stops_waiting_leaves_no_trace():
    answers = Answers(0)
    first, second, third = (Marks(0.0, uuid4()) for _ in range(3))
    await answers.take(first, MIB, now() + 5)
    waiting = [asyncio.create_task(answers.take(m, MIB, now() + 60)) for m in (second, third)]
    await asyncio.sleep(0)
    first.let_go()
    waiting[0].cancel()  # it was given room, and does not know it yet
    waiting[1].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert second.held and not third.held
    second.let_go()
    third.let_go()
    assert answers._left == 0 and not answers._held
    assert not answers._waiting and answers._beyond is None


@asynccontextmanager
async def target(size: int, go: asyncio.Event):
    """A server that answers /slow in halves, the second when it may, and others at once."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        writer.write(b"x" * (size // 2))
        if b"/slow" in head:
            await go.wait()
        writer.write(b"x" * (size - size // 2))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def test_an_answer_is_read_on_when_there_is_room():
    go = asyncio.Event()
    async with target(MIB, go) as url, Outbound(Http(max_held_bytes=0), Rules(Egress())) as out:
        slow, other = Marks(now()), Marks(now())

        async def send(path: str, marks: Marks, seconds: float = 60):
            target = prepare("GET", url + path, {})
            response = await out.send(target, {}, now() + seconds, marks=marks)
            marks.let_go()
            return response

        async def held() -> None:
            assert slow.held > 0

        async def waiting() -> None:
            assert len(out.answers._waiting) == 1

        first = asyncio.create_task(send("/slow", slow))
        await eventually(held)
        with pytest.raises(SendError, match=r"found no room in memory \(http.max_held_bytes\)"):
            await send("/quick", Marks(now()), 0.2)
        second = asyncio.create_task(send("/quick", other))
        await eventually(waiting)
        go.set()
        assert len((await first).body) == len((await second).body) == MIB
        timing = other.timing()
        assert timing is not None and timing.waited > 0
        assert out.answers._left == 0
