"""Calls through a spec: what is sent, what its answer means, and what is never sent."""

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import msgspec
import pytest
from sqlalchemy import event

from calling import ALICE, BOB, Calling, calling, helped, of, query
from conftest import eventually
from receiver import Receiver
from scheduler.actions import Expected, Operation
from scheduler.clock import database_ms
from scheduler.documents.client import Operation as Endpoint
from scheduler.run import run_id
from scheduler.specs import changes, model
from scheduler.specs.aide import Aides
from scheduler.specs.asked import field_of
from scheduler.specs.lookup import FRESH_S, Lookup
from scheduler.specs.way import Way

PREFIX = "Error executing API call: API call failed: "
GONE = "The command could not be executed because the service requested (filmot) is not available."

Make = Callable[..., Awaitable[Calling]]


@pytest.fixture(scope="module")
async def aides() -> AsyncIterator[Aides]:
    async with helped() as started:
        yield started


@pytest.fixture
async def make(database_url: str, receiver: Receiver, aides: Aides) -> AsyncIterator[Make]:
    """Make a performer with settings of the test's own."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(url: str = database_url, **environ: str) -> Calling:
            return await stack.enter_async_context(calling(url, receiver.url, aides, **environ))

        yield start


@pytest.fixture
async def bench(make: Make) -> Calling:
    return await make()


# What is sent -------------------------------------------------------------------------------------


async def test_a_call_goes_where_its_spec_says(bench, receiver):
    await bench.spec()
    receiver.then(200, b'{"pets": []}', {"Content-Type": "application/json; charset=utf-8"})
    got = await bench.call("GET /search", query_params='{"term": "hello world", "more": 5}')
    assert (got.succeeded, got.status_code, got.body) == (True, 200, b'{"pets": []}')
    assert got.content_type == "application/json; charset=utf-8"
    assert receiver.last.path == "/search?term=hello%20world&more=5"
    assert receiver.last.method == "GET"


async def test_of_our_headers_only_three_are_sent_and_the_callers_win(bench, receiver):
    await bench.spec(headers={"X-Key": "abc", "X-Host": "one"})
    run = run_id(uuid4(), 5, "process", 1)
    await bench.call(run=run, headers={"x-host": "two", "user-agent": "mine/1"})
    names = {name.lower() for name, _ in receiver.last.headers}
    assert {name for name in names if name.startswith(("webhook-", "x-scheduler"))} == set()
    assert names == {
        "host", "accept-encoding", "x-key", "x-host", "user-agent", "idempotency-key", "traceparent",
    }  # fmt: skip
    assert receiver.last.header("x-host") == "two"
    assert receiver.last.header("x-key") == "abc"
    assert receiver.last.header("user-agent") == "mine/1"
    assert receiver.last.header("idempotency-key") == str(run)


async def test_a_body_is_sent_with_its_type(bench, receiver):
    await bench.spec()
    got = await bench.call("POST /pets", req_body='{"name": "Rex"}')
    assert got.succeeded
    assert receiver.last.header("content-type") == "application/json"
    assert msgspec.json.decode(receiver.last.body) == {"name": "Rex"}


async def test_nothing_is_sent_by_a_process_that_may_not_any_more(bench, receiver):
    await bench.spec()
    assert await bench.call(may_send=False) is None
    assert receiver.requests == []


# What is not sent ---------------------------------------------------------------------------------


async def test_a_service_that_is_not_there_ends_the_call(bench, receiver):
    got = await bench.call()
    assert (got.succeeded, got.retryable, got.error) == (False, False, GONE)


async def test_another_services_spec_is_not_there(bench, receiver):
    await bench.spec(service=BOB)
    assert (await bench.call()).error == GONE
    assert (await bench.call(of=BOB)).succeeded


async def test_an_endpoint_that_is_not_there_ends_the_call(bench, receiver):
    await bench.spec()
    got = await bench.call("GET /nope")
    assert got.error == f"{PREFIX}GET /nope is not an endpoint of filmot"
    assert not got.retryable


async def test_a_missing_parameter_ends_the_call_before_anything_is_sent(bench, receiver):
    await bench.spec()
    got = await bench.call("GET /search")
    assert got.error == f"{PREFIX}term is required and must be specified"
    assert (got.succeeded, got.retryable, got.status_code) == (False, False, None)
    assert receiver.requests == []


async def test_a_wrong_value_ends_the_call_before_anything_is_sent(bench, receiver):
    await bench.spec()
    got = await bench.call("GET /search", query_params='{"term": "x", "page": "two"}')
    assert got.error.startswith(PREFIX)
    assert "page" in got.error
    assert not got.retryable
    assert receiver.requests == []


async def test_a_reason_is_short_however_long_the_names_of_a_document_are(bench, receiver):
    name = "n" * 5000
    await bench.spec(endpoints=[of("/long", "GET", query(name, "integer", required=True))])
    for given in ("{}", msgspec.json.encode({name: "x"}).decode()):
        got = await bench.call("GET /long", query_params=given)
        assert got.error.startswith(f"{PREFIX}nnnn")
        assert len(got.error) < 1100
    long = await bench.performer.check(ALICE, Operation("filmot", "/long"))
    assert [len(reason) < 1100 for _, reason in long] == [True]
    assert receiver.requests == []


async def test_an_endpoint_that_the_review_refused_says_why(bench, receiver):
    refused = msgspec.structs.replace(of("/odd"), refused="it has no server")
    await bench.spec(endpoints=[refused])
    got = await bench.call("GET /odd")
    assert got.error == f"{PREFIX}it has no server"
    assert receiver.requests == []


async def test_a_metadata_address_is_refused(bench):
    await bench.spec(url="http://169.254.169.254/")
    got = await bench.call()
    assert got.error.startswith(f"{PREFIX}egress: 169.254.169.254 is a link-local")
    assert (got.succeeded, got.retryable) == (False, False)


# A spec on its way --------------------------------------------------------------------------------


@pytest.mark.parametrize(("waited_s", "again_s"), [(0, 0.2), (4, 1.0), (100, 5.0), (298, 2.0)])
async def test_a_call_waits_for_a_spec_on_its_way(bench, receiver, waited_s, again_s):
    await bench.spec(ready=False)
    run = uuid4()
    await bench.call(run=run)
    got = await bench.call(later_s=waited_s, run=run)
    assert got.later_s == pytest.approx(again_s, abs=0.1)
    assert receiver.requests == []


async def test_a_call_does_not_wait_for_ever(bench):
    await bench.spec(ready=False)
    run = uuid4()
    await bench.call(run=run)
    got = await bench.call(later_s=301, run=run)
    assert (got.later_s, got.error, got.retryable) == (None, GONE, False)


async def test_a_spec_that_came_through_is_called_at_once(bench):
    spec = await bench.spec(ready=False)
    assert (await bench.call()).later_s is not None
    await bench.serve(spec)
    assert (await bench.call()).succeeded


async def test_a_spec_that_ended_in_error_ends_the_call(bench):
    spec = await bench.spec(ready=False)
    async with bench.database.engine.begin() as conn:
        await changes.fail(conn, spec, "paths: wrong", await database_ms(conn))
    assert (await bench.call()).error == GONE


async def test_what_was_changed_before_a_call_was_made_holds_for_it(bench, receiver):
    spec = await bench.spec(headers={"X-Key": "old"})
    assert (await bench.call()).succeeded
    async with bench.database.engine.begin() as conn:
        await changes.rename(
            conn, spec, name="filmot", headers={"X-Key": "new"}, url=bench.url,
            now=await database_ms(conn),
        )  # fmt: skip
    assert (await bench.call()).succeeded
    assert receiver.last.header("x-key") == "new"


async def test_what_is_too_old_to_be_used_is_not_kept(bench):
    await bench.spec()
    vault = bench.database.vault
    async with bench.database.engine.connect() as conn:
        called = await model.called(conn, vault, ALICE, "filmot", "GET /any")
    lookup = Lookup(Way(bench.database))
    for n in range(100):
        lookup._learn((ALICE, "filmot", f"GET /{n}"), n * FRESH_S / 2, called)
    assert [endpoint for _, _, endpoint in lookup._known] == ["GET /97", "GET /98", "GET /99"]


async def test_a_spec_whose_row_somebody_broke_breaks_no_other_call(bench, conn):
    broken = await bench.spec("broken")
    await bench.spec(service=BOB)
    await conn.execute("UPDATE spec_operation SET operation = '7' WHERE spec_key = $1", broken.key)
    got = await asyncio.gather(
        bench.call(service="broken"), bench.call(of=BOB), return_exceptions=True
    )
    assert isinstance(got[0], msgspec.ValidationError)
    assert got[1].succeeded


async def test_calls_together_ask_for_their_spec_together(bench):
    await bench.spec()
    await bench.call(cache=False)
    asked: list[str] = []

    def note(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    event.listen(bench.database.engine.sync_engine, "before_cursor_execute", note)
    got = await asyncio.gather(*(bench.call(cache=False) for _ in range(100)))
    assert all(each.succeeded for each in got)
    assert len(asked) <= 3
    await bench.call(cache=False, waited_s=0.5)
    assert len(asked) <= 3


# Answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 503, 408, 425, 429])
async def test_some_statuses_are_tried_again(bench, receiver, status):
    await bench.spec()
    receiver.then(status, b"no", {"Retry-After": "7"})
    got = await bench.call()
    assert got.error == f"{PREFIX}the target answered {status}, expected 200-299"
    assert (got.retryable, got.retry_after_s, got.body) == (True, 7, b"no")


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 410])
async def test_others_are_final_and_redirects_are_not_followed(bench, receiver, status):
    await bench.spec()
    receiver.then(status, b"there", {"Location": "/elsewhere"})
    got = await bench.call()
    assert (got.succeeded, got.retryable, got.status_code) == (False, False, status)
    assert [each.path for each in receiver.requests] == ["/any"]


async def test_a_task_may_expect_other_statuses(bench, receiver):
    await bench.spec()
    receiver.then(404, b"none")
    got = await bench.call(kind="task", expected=Expected(((404, 404),)))
    assert (got.succeeded, got.status_code) == (True, 404)


async def test_bytes_come_back_as_they_are_whatever_they_are_called(bench, receiver):
    body = bytes(range(256)) * 4
    await bench.spec()
    receiver.then(200, body, {"Content-Type": "application/json"})
    got = await bench.call()
    assert (got.body, got.content_type, got.kept) == (body, "application/json", None)


@pytest.mark.parametrize("sent", ["x" * 300, "text/\xe4", ""])
async def test_a_content_type_that_nobody_can_send_again_is_none(bench, receiver, sent):
    await bench.spec()
    receiver.then(200, b"x", {"Content-Type": sent})
    got = await bench.call()
    assert (got.succeeded, got.content_type) == (True, None)


async def test_a_long_answer_is_kept_whole(bench, receiver):
    body = bytes(range(256)) * 20_000
    await bench.spec()
    receiver.then(200, body)
    got = await bench.call()
    assert got.succeeded
    assert await bench.body(got.kept) == body
    assert await bench.body(got.kept, BOB) is None


async def test_of_a_tasks_answer_the_beginning_is_enough(bench, receiver):
    await bench.spec()
    receiver.then(200, bytes(2 << 20))
    got = await bench.call(kind="task")
    assert (got.succeeded, got.truncated, len(got.body), got.kept) == (True, True, 1 << 20, None)


async def test_an_answer_that_is_too_long_ends_the_call(make, receiver):
    bench = await make(PROCESSES_RESPONSE_MAX_BYTES="100000")
    await bench.spec()
    receiver.then(200, bytes(100_000)).then(200, bytes(100_001))
    assert (await bench.call(cache=False)).succeeded
    got = await bench.call(cache=False)
    assert got.error == (
        f"{PREFIX}the answer is longer than processes.response_max_bytes (100000 bytes)"
    )
    assert (got.succeeded, got.retryable, got.kept) == (False, False, None)


async def test_a_compressed_answer_is_unpacked(bench, receiver):
    await bench.spec()
    receiver.then(200, gzip.compress(b"hello"), {"Content-Encoding": "gzip"})
    assert (await bench.call()).body == b"hello"
    assert receiver.last.header("accept-encoding") == "identity"


async def test_a_compressed_refusal_can_be_read(bench, receiver):
    await bench.spec()
    receiver.then(404, gzip.compress(b"no such pet"), {"Content-Encoding": "gzip"})
    assert (await bench.call()).body == b"no such pet"


async def test_a_bomb_ends_the_call(make, receiver):
    bench = await make(PROCESSES_RESPONSE_MAX_BYTES="1000000")
    await bench.spec()
    receiver.then(200, gzip.compress(bytes(50_000_000)), {"Content-Encoding": "gzip"})
    got = await bench.call()
    assert "longer than processes.response_max_bytes" in got.error
    assert not got.retryable


async def test_an_answer_that_is_not_as_packed_as_it_says_is_tried_again(bench, receiver):
    await bench.spec()
    receiver.then(200, b"plain", {"Content-Encoding": "gzip"})
    got = await bench.call()
    assert got.error == f"{PREFIX}the answer is not the gzip it says"
    assert got.retryable


async def test_a_coding_that_is_not_known_ends_a_process_but_not_a_task(bench, receiver):
    await bench.spec()
    for _ in range(2):
        receiver.then(200, b"\x0b", {"Content-Encoding": "br"})
    got = await bench.call()
    assert "'br'" in got.error
    assert (got.succeeded, got.retryable) == (False, False)
    assert (await bench.call(kind="task")).succeeded


async def test_an_answer_without_a_body_may_say_that_it_is_packed(bench, receiver):
    await bench.spec()
    receiver.then(200, b"", {"Content-Encoding": "gzip"})
    assert (await bench.call("HEAD /pets")).succeeded


async def test_an_answer_in_pieces_is_put_together(bench):
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (b"5\r\nhello\r\n", b"6\r\n world\r\n", b"0\r\n\r\n"):
            writer.write(piece)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        await bench.spec(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert (await bench.call()).body == b"hello world"


async def test_a_target_that_hangs_up_is_tried_again(bench, receiver):
    await bench.spec()
    receiver.then(drop=True)
    got = await bench.call()
    assert got.error.startswith(PREFIX)
    assert "closed the connection without an answer" in got.error
    assert got.retryable


async def test_an_answer_that_breaks_off_is_tried_again(bench, receiver):
    await bench.spec()
    receiver.then(200, b"half", {"Content-Length": "4000"})
    got = await bench.call(seconds=0.5)
    assert (got.succeeded, got.retryable) == (False, True)


async def test_a_slow_target_is_given_the_time_there_is(bench, receiver):
    await bench.spec()
    await bench.call()
    receiver.then(after=asyncio.Event())
    got = await bench.call(seconds=0.3, cache=False)
    assert "did not answer in full before the time was up" in got.error
    assert got.retryable


@pytest.mark.parametrize("once", [True, False])
async def test_what_may_have_arrived_is_said_of_a_call_that_nobody_repeats(bench, receiver, once):
    await bench.spec()
    receiver.then(drop=True)
    got = await bench.call("POST /pets", req_body="{}", once=once)
    assert got.error.endswith("; the call may have arrived") is once
    assert got.retryable is not once


async def test_a_target_that_is_not_there_is_tried_again(bench):
    await bench.spec(url="http://127.0.0.1:1")
    got = await bench.call("POST /pets", req_body="{}", once=True)
    assert got.retryable
    assert "may have arrived" not in got.error


async def test_while_the_database_is_away_a_call_waits(make, line):
    bench = await make(line.url)
    await bench.spec()
    await line.cut()
    got = await bench.call(again=True)
    assert got.later_s == 1.0


async def test_an_answer_is_not_lost_while_the_database_is_away(make, line, receiver):
    bench = await make(line.url)
    await bench.spec()
    assert (await bench.call("POST /pets", req_body="{}")).succeeded
    answered = asyncio.Event()
    receiver.then(200, bytes(100_000), after=answered)
    under_way = asyncio.create_task(bench.call("POST /pets", req_body="{}", once=True))
    await eventually(lambda: receiver.requests[1])
    await line.cut()
    answered.set()
    done, _ = await asyncio.wait([under_way], timeout=0.3)
    assert not done
    await line.mend()
    got = await asyncio.wait_for(under_way, 10)
    assert got.succeeded
    assert await bench.body(got.kept) == bytes(100_000)


# Before it is stored ------------------------------------------------------------------------------


async def found(
    bench: Calling, endpoint: str, service: str = "filmot", **fields: str
) -> dict[str, str]:
    method, _, path = endpoint.partition(" ")
    action = Operation(service=service, endpoint=path, method=method, **fields)
    return dict(await bench.performer.check(ALICE, action))


async def test_what_can_be_called_is_taken(bench, receiver):
    await bench.spec()
    assert await found(bench, "GET /search", query_params='{"term": "x"}') == {}
    assert receiver.requests == []


async def test_a_spec_on_its_way_is_taken(bench):
    await bench.spec(ready=False)
    assert await found(bench, "GET /whatever") == {}


async def test_what_is_wrong_is_told_of_its_field(bench):
    await bench.spec()
    assert "no spec other" in (await found(bench, "GET /any", "other"))["service"]
    endpoint = (await found(bench, "GET /nope"))["endpoint"]
    assert "GET /search, GET /pets/{id}, POST /pets" in endpoint
    assert await found(bench, "GET /search") == {
        "query_params": "term is required and must be specified"
    }
    assert set(await found(bench, "GET /pets/{id}")) == {"url_params"}
    wrong = await found(bench, "GET /search", query_params='{"term": "x", "page": "two"}')
    assert set(wrong) == {"query_params"}
    assert set(await found(bench, "POST /pets", req_body='{"name": 5}')) == {"req_body"}


@pytest.mark.parametrize(
    ("finding", "field"),
    [
        ("the document names no server; send `url`, such as https://example.com", "service"),
        ("the server /v1 of the document is relative; send `url`", "service"),
        ("url: a URL begins with http:// or https://", "service"),
        ("headers: the value of a has a line break", "headers"),
        ("query_params must be an object", "query_params"),
        ("url_params must be an object", "url_params"),
    ],
)
def test_what_is_wrong_with_no_parameter_is_told_of_what_it_is_about(finding, field):
    assert field_of(Endpoint(method="GET", path="/"), finding) == field


async def test_a_call_whose_document_was_replaced_meanwhile_goes_through_the_next_one(
    bench, receiver
):
    """It was looked up a moment ago, and the child that checks has never heard of it."""
    spec = await bench.spec(endpoints=[of("/any"), of("/pets", "POST")])
    lookup = bench.performer._specs
    await lookup.called((ALICE, "filmot", "POST /pets"), asyncio.get_running_loop().time())
    async with bench.database.engine.begin() as conn:
        sent = changes.Sent(b"{}", "0" * 64)
        await changes.renew(conn, spec, sent, await database_ms(conn))
        again = await changes.by_key(conn, ALICE, spec.key)
    assert again is not None
    await bench.serve(again, [of("/any"), of("/pets", "POST", query("page", "integer"))])
    got = await bench.call("POST /pets", once=True, waited_s=1, query_params='{"page": 2}')
    assert (got.succeeded, got.error) == (True, None)
    assert receiver.last.path == "/pets?page=2"
