"""What processes are answered: the target's bytes and content type exactly, and what stands for
them where there are none.
"""

import asyncio

from conftest import RunApp, eventually
from process_calls import AT, called, ended, ready
from scheduler import db

TYPES = {
    "text/html": b"<script>alert(1)</script>",
    "text/html; charset=iso-8859-1": "caf\u00e9".encode("latin-1"),
    "text/plain": "gr\u00fc\u00df".encode(),
    "application/json": b'{"n": 1.10, "big": 12345678901234567890123 }\n',
    "image/png": bytes(range(256)),
    "application/vnd.api+json;v=1": b"{}",
}


async def test_an_answer_has_its_bytes_and_its_content_type(app, alice, receiver):
    await ready(app, receiver.url, "GET /a")
    for kind, sent in TYPES.items():
        receiver.then(203, sent, {"Content-Type": kind})
        trace_id = await called(alice, cache=False)
        assert (await ended(alice, trace_id))["status"] == "SUCCESS"
        answer = await alice.get(f"{AT}/{trace_id}/response")
        assert (answer.status_code, answer.content) == (200, sent)
        given = [value for name, value in answer.headers.raw if name.lower() == b"content-type"]
        assert given == [kind.encode()]
        assert answer.headers["X-Upstream-Status"] == "203"
        assert answer.headers["Content-Security-Policy"] == "sandbox"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_an_answer_without_a_content_type_is_bytes(app, alice, receiver):
    await ready(app, receiver.url, "GET /a")
    for headers in ({}, {"Content-Type": ""}, {"Content-Type": "what\u00eb/ver"}):
        receiver.then(200, b"?", headers)
        trace_id = await called(alice, cache=False)
        await ended(alice, trace_id)
        answer = await alice.get(f"{AT}/{trace_id}/response")
        assert answer.content == b"?"
        assert answer.headers["Content-Type"] == "application/octet-stream"


async def test_an_answer_of_five_megabytes_comes_whole(app, alice, bob, receiver):
    await ready(app, receiver.url, "GET /a")
    large = bytes(range(256)) * (5 << 12)
    receiver.then(200, large, {"Content-Type": "application/x-tar"})
    trace_id = await called(alice)
    await ended(alice, trace_id)
    answer = await alice.get(f"{AT}/{trace_id}/response")
    assert answer.content == large
    assert answer.headers["Content-Type"] == "application/x-tar"
    assert (await bob.get(f"{AT}/{trace_id}/response")).status_code == 404


async def test_no_content_is_no_bytes(app, alice, receiver):
    await ready(app, receiver.url, "DELETE /a")
    receiver.then(204, b"")
    trace_id = await called(alice, "DELETE /a")
    await ended(alice, trace_id)
    answer = await alice.get(f"{AT}/{trace_id}/response")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["X-Upstream-Status"] == "204"


async def test_an_unexpected_status_is_a_failure(app, alice, receiver):
    await ready(app, receiver.url, "GET /a")
    receiver.then(404, b"no such thing")
    trace_id = await called(alice)
    status = await ended(alice, trace_id)
    assert status["status"] == "ERROR"
    assert "404" in status["error"]
    answer = await alice.get(f"{AT}/{trace_id}/response")
    assert answer.json() == {"error": True, "message": status["error"]}


async def test_a_get_is_retried_and_a_post_only_where_its_body_says_so(app, alice, receiver):
    await ready(app, receiver.url, "GET /a", "POST /a")
    receiver.then(500).then(200, b"at last")
    retried = await called(alice, max_retries=1)
    assert (await ended(alice, retried))["status"] == "SUCCESS"
    assert len(receiver.requests) == 2
    receiver.then(500)
    once = await called(alice, "POST /a", req_body={"a": 1})
    assert (await ended(alice, once))["status"] == "ERROR"
    assert len(receiver.requests) == 3
    receiver.then(500).then(201, b"made")
    asked = await called(alice, "POST /a", req_body={"a": 1}, max_retries=1)
    assert (await ended(alice, asked))["status"] == "SUCCESS"
    assert len(receiver.requests) == 5


async def test_one_under_way_that_is_cancelled_says_that_it_may_have_arrived(app, alice, receiver):
    await ready(app, receiver.url, "GET /a")
    receiver.then(200, after=asyncio.Event())
    trace_id = await called(alice)
    await eventually(lambda: receiver.last)
    (run,) = (await alice.get("/runs?kind=process")).json()["runs"]
    assert run["trace_id"] == trace_id
    assert (await alice.post(f"/runs/{run['id']}/cancel")).status_code == 202
    status = await ended(alice, trace_id)
    assert status["step"] == ["Received in the API", "Received in the worker"]
    assert status["error"] == "someone cancelled it; the call may have arrived"


async def test_an_answer_can_be_waited_for(app, alice, receiver):
    await ready(app, receiver.url, "GET /a")
    answers = asyncio.Event()
    receiver.then(200, b"late", after=answers)
    trace_id = await called(alice)
    waiting = asyncio.create_task(alice.get(f"{AT}/{trace_id}/response?wait=20"))
    await eventually(lambda: receiver.last)
    assert (await alice.get(f"{AT}/{trace_id}/status?wait=1")).json()["status"] == "IN_PROGRESS"
    answers.set()
    assert (await waiting).content == b"late"
    assert (await alice.get(f"{AT}/{trace_id}/status?wait=20")).json()["status"] == "SUCCESS"
    for bad in ("61", "-1", "x"):
        assert (await alice.get(f"{AT}/{trace_id}/status?wait={bad}")).status_code == 400


async def test_it_is_called_when_it_is_due_and_not_before(app, alice, receiver):
    await ready(app, receiver.url, "GET /a")
    at = app.engine.clock.now_ms() + 700
    trace_id = await called(alice, scheduled_at=rfc3339(at))
    assert (await alice.get(f"{AT}/{trace_id}/status")).json()["status"] == "WAITING"
    await ended(alice, trace_id)
    assert receiver.last.at * 1000 >= at


async def test_a_time_that_has_passed_is_now(app, alice, receiver):
    await ready(app, receiver.url, "GET /a")
    trace_id = await called(alice, scheduled_at="2020-01-01T00:00:00+01:00")
    assert (await ended(alice, trace_id))["status"] == "SUCCESS"


async def test_higher_priority_goes_first_among_what_is_due(run_app: RunApp, receiver):
    async with run_app(WORKER_COUNT="1") as app, app.client("alice") as alice:
        await ready(app, receiver.url, "GET /first", "GET /a")
        begun = asyncio.Event()
        receiver.then(200, after=begun)
        await called(alice, "GET /first")
        await eventually(lambda: receiver.last)
        wanted = [-100, 100, 0, 7, -3]
        made = [await called(alice, priority=n, query_params={"n": n}) for n in wanted]
        await eventually(lambda: held(app, len(wanted)))
        begun.set()
        for trace_id in made:
            await ended(alice, trace_id)
        went = [int(each.path.partition("n=")[2]) for each in receiver.requests[1:]]
        assert went == sorted(wanted, reverse=True)


async def test_what_is_called_through_a_spec_that_is_gone_fails(app, alice, receiver):
    await ready(app, receiver.url, "GET /a")
    trace_id = await called(alice, scheduled_at=rfc3339(app.engine.clock.now_ms() + 800))
    (spec,) = (await alice.get("/v1/api/spec/0/10")).json()["results"]
    assert (await alice.delete(f"/v1/api/spec/{spec['trace_id']}")).status_code == 204
    status = await ended(alice, trace_id)
    assert status["error"].endswith("the service requested (filmot) is not available.")
    assert receiver.requests == []


async def test_an_answer_that_is_kept_no_more_says_so(app, alice, receiver, conn):
    await ready(app, receiver.url, "GET /a")
    trace_id = await called(alice)
    await ended(alice, trace_id)
    await conn.execute("DELETE FROM history")
    for what in ("", "/status", "/response"):
        answer = await alice.get(f"{AT}/{trace_id}{what}")
        assert answer.status_code == 404
        assert "history.retention_days" in answer.json()["error"]["message"]


async def test_a_row_that_someone_broke_fails_and_says_so(app, alice, receiver, conn):
    await ready(app, receiver.url, "GET /a")
    trace_id = await called(alice, scheduled_at=rfc3339(app.engine.clock.now_ms() + 1500))
    await conn.execute("""UPDATE process SET headers = '{"a": 7}'""")
    status = await ended(alice, trace_id)
    assert "headers on the process's row cannot be read" in status["error"]


def rfc3339(at: int) -> str:
    text = db.rfc3339(at)
    assert text is not None
    return text


def held(app, count: int) -> None:
    assert app.engine.dispatcher.held == count
