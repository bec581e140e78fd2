"""What hostile targets answer, and what it may cost: bytes, and the time of the loop."""

import asyncio
import contextlib
import itertools
import socket
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.target import prepare
from test_outbound import OK, door, failure, on_both_loops, read_request, send, serving

pytestmark = pytest.mark.alone

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
INTERIM = b"HTTP/1.1 103 E\r\n\r\n"
ENDLESS = {
    "interim answers": (b"", INTERIM * 10_000),
    "one byte a chunk": (CHUNKED, b"1\r\na\r\n" * 40_000),
    "chunk extensions": (CHUNKED, b"1;" + b"x" * 60_000 + b"\r\na\r\n"),
}
HELD_MOST_S = 0.010


@contextlib.contextmanager
def flood(start: bytes, again: bytes):
    """Serve from a thread, as fast as the socket takes it; yields the URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with contextlib.suppress(OSError), connection:
                    connection.recv(65536)
                    connection.sendall(start)
                    while True:
                        connection.sendall(again)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


async def held_by(call) -> float:
    """Return the most CPU time that one turn of the loop took during the call."""
    loop, turns = asyncio.get_running_loop(), [time.thread_time()]

    def turn():
        turns.append(time.thread_time())
        nonlocal handle
        handle = loop.call_soon(turn)

    handle = loop.call_soon(turn)
    await call
    handle.cancel()
    return max(after - before for before, after in itertools.pairwise(turns))


@on_both_loops
async def test_an_answer_without_end_is_a_failed_try_that_may_have_arrived():
    says = {"interim answers": "more than 20 interim"}
    for kind, (start, again) in ENDLESS.items():
        with flood(start, again) as url:
            async with door(max_response_bytes=300_000) as out:
                e = await failure(send(out, url))

                assert says.get(kind, "many times as long") in e.message, kind
                assert e.may_have_arrived
                assert e.retryable
                assert out.open == 0


@on_both_loops
async def test_no_answer_holds_the_loop():
    for kind, (start, again) in ENDLESS.items():
        with flood(start, again) as url:
            async with door(max_response_bytes=300_000) as out:
                held = [await held_by(failure(send(out, url))) for _ in range(3)]

                assert min(held) < HELD_MOST_S, kind


@on_both_loops
async def test_twenty_interim_answers_are_not_too_many():
    async with serving(INTERIM * 20 + OK) as server, door() as out:
        assert (await send(out, server.url())).body == b"ok"
        assert out.open == 1

    async with serving(INTERIM * 21 + OK) as server, door() as out:
        assert "interim" in (await failure(send(out, server.url()))).message


@on_both_loops
async def test_a_target_that_goes_on_after_its_answer_loses_the_connection():
    answered, cut = asyncio.Event(), asyncio.Event()

    async def raw(reader, writer):
        await read_request(reader)
        writer.write(OK)
        await answered.wait()
        try:
            while True:
                writer.write(INTERIM * 100)
                await writer.drain()
        except ConnectionError:
            cut.set()

    async with serving(raw=raw) as server, door() as out, asyncio.timeout(5):
        target = prepare("GET", server.url(), {})
        await out.send(target, {}, asyncio.get_running_loop().time() + 5)
        answered.set()
        await cut.wait()


@on_both_loops
async def test_a_body_over_the_limit_is_cut_however_much_comes_at_once():
    body = b"line\n" * 50_000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    for limit in (0, 1000):
        async with serving(answer) as server, door(max_response_bytes=limit) as out:
            got = await send(out, server.url())
            assert (got.body, got.truncated) == (body[:limit], True)


@on_both_loops
async def test_a_body_that_comes_two_bytes_a_chunk_is_read_to_its_end():
    body = b"ab" * 50_000
    async with (
        serving(CHUNKED + b"2\r\nab\r\n" * 50_000 + b"0\r\n\r\n") as server,
        door(max_response_bytes=len(body)) as out,
    ):
        got = await send(out, server.url())
        assert (got.body, got.truncated) == (body, False)
        assert out.open == 1


def in_chunks(body: bytes, sizes: list[int]) -> bytes:
    pieces, at, turn = [], 0, 0
    while at < len(body):
        piece = body[at : at + sizes[turn % len(sizes)]]
        pieces.append(b"%x\r\n%b\r\n" % (len(piece), piece))
        at, turn = at + len(piece), turn + 1
    return CHUNKED + b"".join(pieces) + b"0\r\n\r\n"


@settings(deadline=None, max_examples=40)
@given(
    length=st.integers(0, 3000) | st.integers(100_000, 2_000_000),
    sizes=st.lists(st.integers(200, 20_000), min_size=1, max_size=4),
    reads=st.lists(st.integers(1000, 300_000), min_size=1, max_size=4),
    chunked=st.booleans(),
)
def test_an_answer_is_the_same_however_it_is_cut(length, sizes, reads, chunked):
    body = (b"%d\n" * 1000 % tuple(range(1000))) * (length // 3890 + 1)
    body = body[:length]
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length
    answer = in_chunks(body, sizes) if chunked else head + body

    async def raw(reader, writer):
        for _ in range(2):
            await read_request(reader)
            at = turn = 0
            while at < len(answer):
                writer.write(answer[at : at + reads[turn % len(reads)]])
                await writer.drain()
                await asyncio.sleep(0)
                at, turn = at + reads[turn % len(reads)], turn + 1

    async def twice():
        async with serving(raw=raw) as server, door(max_response_bytes=2_000_000) as out:
            for _ in range(2):
                assert (await send(out, server.url(), within=20)).body == body
            assert server.connections == 1

    asyncio.run(twice())
