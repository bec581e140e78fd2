"""`POST /tasks/bulk`: all or none, errors that name the place, and a loop that stays free."""

import asyncio
import gc
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import App, eventually
from test_cancel import soon
from test_dispatcher import arrived

pytestmark = pytest.mark.alone

URL = "http://127.0.0.1:9/"
T = TypeVar("T")
HELD_MS = 5.0


def new(n: int, **more: Any) -> dict[str, Any]:
    return {"id": f"t{n}", "name": f"task {n}", "url": URL, **more}


def lines_of(tasks: list[dict[str, Any]]) -> str:
    return "\n".join(json.dumps(task) for task in tasks)


async def send(client: httpx.AsyncClient, body: Any, *, lined: bool = False) -> httpx.Response:
    if not isinstance(body, bytes | str):
        body = lines_of(body) if lined else json.dumps(body)
    kind = "application/x-ndjson" if lined else "application/json"
    return await client.post("/tasks/bulk", content=body, headers={"Content-Type": kind})


async def stored(conn) -> list[str]:
    return [r["id"] for r in await conn.fetch("SELECT id FROM task ORDER BY created_at")]


@pytest.mark.parametrize("lined", [False, True])
async def test_many_tasks_are_created_at_once_in_the_order_of_the_body(alice, conn, lined):
    tasks = [new(n, frequency=1, unit="minute") for n in range(1200)]
    answer = await send(alice, tasks, lined=lined)
    assert answer.status_code == 201
    assert answer.json() == {"created": 1200, "ids": [task["id"] for task in tasks]}
    assert await stored(conn) == [task["id"] for task in tasks]
    listed = (await alice.get("/tasks?count=3")).json()
    assert [task["id"] for task in listed] == ["t1199", "t1198", "t1197"]
    assert await conn.fetchval("SELECT count(*) FROM task_plan") == 1200
    assert await conn.fetchval("SELECT count(*) FROM run") == 1200


async def test_they_fire_like_any_other(alice, receiver):
    tasks = [new(n, url=f"{receiver.url}/{n}") for n in range(5)]
    tasks[0]["scheduled_at"], tasks[1]["scheduled_at"] = soon(0.1), "2020-01-01T00:00:00Z"
    tasks[2] |= {"frequency": 1, "unit": "second"}
    assert (await send(alice, tasks)).status_code == 201
    await eventually(arrived(receiver, 3))
    assert {"/0", "/1", "/2"} >= {r.path for r in receiver.requests}


async def test_ids_are_made_where_there_are_none(alice, conn):
    made = (await send(alice, [{"name": "a", "url": URL}, {"name": "b", "url": URL}])).json()
    assert made["created"] == len(set(made["ids"])) == 2
    assert await stored(conn) == made["ids"]


@pytest.mark.parametrize("lined", [False, True])
async def test_an_empty_body_of_tasks_creates_nothing(alice, lined):
    answer = await send(alice, [], lined=lined)
    assert (answer.status_code, answer.json()) == (201, {"created": 0, "ids": []})


@pytest.mark.parametrize("lined", [False, True])
async def test_one_wrong_task_stops_all_and_every_wrong_field_is_named(alice, conn, lined):
    tasks = [new(n) for n in range(6)]
    tasks[1]["url"] = "ftp://x/"
    tasks[3] |= {"frequency": -1, "unit": "minute", "name": ""}
    tasks[4]["frequncy"] = 5
    answer = await send(alice, tasks, lined=lined)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "validation_failed"
    fields = [detail["field"] for detail in error["details"]]
    assert {"[1].url", "[3].frequency", "[3].name"} <= set(fields)
    assert any(field.startswith("[4]") for field in fields)
    assert await stored(conn) == []
    assert await conn.fetchval("SELECT count(*) FROM task_plan") == 0


async def test_an_id_that_is_in_the_body_twice_is_named(alice, conn):
    answer = await send(alice, [new(1), new(2), new(1)])
    (detail,) = answer.json()["error"]["details"]
    assert (answer.status_code, detail["field"]) == (400, "[2].id")
    assert "[0]" in detail["message"]
    assert await stored(conn) == []


@pytest.mark.parametrize("place", [0, 3, 1100])
async def test_an_id_that_is_taken_is_a_conflict_that_names_its_place(alice, bob, conn, place):
    taken = await alice.post("/tasks", json=new(place))
    assert taken.status_code == 201
    tasks = [new(n) for n in range(1101)]
    answer = await send(alice, tasks)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
    assert answer.json()["error"]["message"].startswith(f"[{place}]")
    assert await stored(conn) == [f"t{place}"]
    assert (await send(bob, tasks)).status_code == 201  # another service's ids are its own


async def test_two_at_once_with_the_same_ids_in_other_order_end_as_one(alice, conn):
    tasks = [new(n) for n in range(800)]
    answers = await asyncio.gather(*(send(alice, tasks[::step]) for step in (1, -1, 1, -1)))
    assert sorted(a.status_code for a in answers) == [201, 409, 409, 409]
    assert await conn.fetchval("SELECT count(*) FROM task") == 800


async def test_more_than_ten_thousand_are_refused(alice, conn):
    answer = await send(alice, [{"name": "n", "url": URL}] * 10_001)
    assert answer.status_code == 400
    assert "10000" in answer.json()["error"]["message"]
    assert await stored(conn) == []


async def test_a_great_many_wrong_ones_are_named_up_to_a_hundred(alice):
    answer = await send(alice, [{"name": "n"}] * 5000)
    assert answer.status_code == 400
    assert 100 <= len(answer.json()["error"]["details"]) < 110


TASK = json.dumps(new(1))
HOSTILE: dict[str, tuple[bytes, bool]] = {
    "nothing": (b"", False),
    "white space": (b" \n", False),
    "an object": (TASK.encode(), False),
    "a string": (b'"x"', False),
    "null": (b"null", False),
    "half an array": (b"[", False),
    "an array cut short": (f"[{TASK}".encode(), False),
    "an array cut in a task": (f"[{TASK[:-1]}".encode(), False),
    "a comma too many": (f"[{TASK},]".encode(), False),
    "a comma first": (f"[,{TASK}]".encode(), False),
    "no comma": (f"[{TASK} {TASK}]".encode(), False),
    "something behind": (f"[{TASK}] x".encode(), False),
    "two arrays": (f"[{TASK}][{TASK}]".encode(), False),
    "a null in it": (b"[null]", False),
    "a number in it": (b"[1]", False),
    "an array in it": (f"[[{TASK}]]".encode(), False),
    "a very long number": (b"[" + b"1" * 10_000 + b"]", False),
    "a very long number in a task": (b'[{"frequency": ' + b"1" * 10_000 + b"}]", False),
    "nan": (b'[{"frequency": NaN}]', False),
    "infinity": (b"[-Infinity]", False),
    "deep arrays": (b"[" * 100_000, False),
    "deep arrays that end": (b"[" * 50_000 + b"]" * 50_000, False),
    "deep objects": (b"[" + b'{"a":' * 50_000, False),
    "deep in a payload": (b'[{"payload":' + b"[" * 50_000 + b"]" * 50_000 + b"}]", False),
    "no UTF-8": (b'[{"name": "\xff"}]', False),
    "no UTF-8 behind": (f"[{TASK}]".encode() + b"\xff", False),
    "a byte order mark": (b"\xef\xbb\xbf[]", False),
    "half a surrogate": (b'[{"name": "\\ud800", "url": "http://127.0.0.1:9/"}]', False),
    "a control character": (b'[{"name": "\x01", "url": "x"}]', False),
    "UTF-16": ("[]".encode("utf-16"), False),
    "lines of garbage": (b"x\ny\n", True),
    "a line that is no UTF-8": (b'{"name": "\xff"}\n', True),
    "a deep line": (b"[" * 100_000, True),
    "a line that is an array": (f"[{TASK}]".encode(), True),
    "two tasks a line": (f"{TASK} {TASK}".encode(), True),
    "a task over two lines": (TASK.replace(",", ",\n", 1).encode(), True),
    "NUL": (b"\x00", True),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_body_is_refused_and_creates_nothing(alice, conn, name):
    body, lined = HOSTILE[name]
    answer = await send(alice, body, lined=lined)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["code"] in ("invalid_request", "validation_failed")
    assert len(answer.content) < 2000
    assert await stored(conn) == []


@pytest.mark.parametrize(
    ("body", "lined", "place"),
    [
        (f"{TASK}\n{TASK[:-1]}\n{TASK}", True, 1),
        (f"{TASK}\n\n" + '{"payload":' + "[" * 100_000, True, 1),
        (f'{TASK}\n{{"name": "\xff"}}'.encode("latin-1"), True, 1),
        (f"[{TASK}, {TASK[:-1]}", False, 1),
        (f"[{TASK}, {TASK},]", False, 2),
        (f"[{TASK} {TASK}]", False, 1),
        (f"[{TASK}, {TASK}, nul, {TASK}]", False, 2),
        (f"[{TASK}, {TASK}, NaN]", False, 2),
        (f"[{TASK}", False, 1),
        (f"[{TASK}, " + "[" * 100_000, False, 1),
    ],
)
async def test_what_is_no_json_is_named_by_its_place(alice, conn, body, lined, place):
    answer = await send(alice, body, lined=lined)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_request")
    assert error["message"].startswith(f"[{place}] is "), error
    assert "JSON" in error["message"]
    assert await stored(conn) == []


@pytest.mark.parametrize("lined", [False, True])
async def test_an_unknown_field_and_what_is_no_task_are_named_by_their_places(alice, lined):
    answer = await send(alice, [new(0), {**new(1), "frequncy": 1}, 5, None], lined=lined)
    details = answer.json()["error"]["details"]
    assert [detail["field"] for detail in details] == ["[1].frequncy", "[2]", "[3]"]
    assert details[0]["message"] == "there is no such field; did you mean frequency?"


async def test_lines_may_end_in_any_way_and_be_empty(alice, conn):
    body = f"\r\n{json.dumps(new(1))}\r\n\n  \n{json.dumps(new(2))}"
    assert (await send(alice, body, lined=True)).json()["ids"] == ["t1", "t2"]


async def test_a_body_that_is_too_large_is_refused(alice):
    answer = await send(alice, b"[" + b" " * (5 << 20))
    assert answer.status_code == 413


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(JSON.map(lambda v: json.dumps(v).encode()), st.binary(max_size=50)), st.booleans())
async def test_no_body_breaks_it(alice, body, lined):
    answer = await send(alice, body, lined=lined)
    assert answer.status_code in (201, 400)
    if answer.status_code == 201:
        assert answer.json() == {"created": 0, "ids": []}


# The loop ----------------------------------------------------------------------------------------


async def ticking(over: asyncio.Event) -> list[float]:
    """How long the loop was held each time, in ms of its own CPU time.

    What other processes take meanwhile is no finding.
    """
    held, last = [], time.thread_time()
    while not over.is_set():
        await asyncio.sleep(0)
        now = time.thread_time()
        held.append((now - last) * 1000)
        last = now
    return held


TRIES = 5
"""What else the machine does shows in CPU time too; what is held for long is held each time."""


async def unheld(act: Callable[[], Awaitable[T]], most_ms: float = 50, but: int = 0) -> T:
    """Return what an act, which may be repeated, returns; it holds the loop for no longer.

    `but` so many times, which are not the act's.
    """
    longest: list[float] = []
    while len(longest) < TRIES:
        over = asyncio.Event()
        gc.disable()  # its pauses are the interpreter's, and grow with all that is alive
        watching = asyncio.create_task(ticking(over))
        try:
            await asyncio.sleep(0)
            answer = await act()
        finally:
            over.set()
            longest.append(sorted(await watching)[-1 - but])
            gc.enable()
        if longest[-1] <= most_ms:
            return answer
    raise AssertionError(f"the loop was held for {longest} ms")


@pytest.mark.parametrize("lined", [False, True])
async def test_the_loop_is_not_held_while_ten_thousand_are_created(app: App, lined):
    tasks = [
        {**new(n, frequency=1, unit="minute", tags=["a"], payload={"n": n}), "id": None}
        for n in range(10_000)
    ]
    body = (lines_of(tasks) if lined else json.dumps(tasks)).encode()
    kind = "application/x-ndjson" if lined else "application/json"
    async with app.client("alice") as alice:

        async def create() -> httpx.Response:
            return await alice.post("/tasks/bulk", content=body, headers={"Content-Type": kind})

        answer = await unheld(create, HELD_MS, but=1)  # the client's own sending of the body
    assert answer.status_code == 201, answer.text
    assert answer.json()["created"] == 10_000
