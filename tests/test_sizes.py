"""How much a task may hold, and how much of what it holds is in memory at once."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import eventually
from scheduler import tasklist
from scheduler.actions.http import Http
from scheduler.task import get, outlines_of_all
from scheduler.tasks import pages
from test_queue import definition

pytestmark = pytest.mark.alone

KB = 1024
SMALL = {"TASKS_PAYLOAD_MAX_BYTES": "2048", "TASKS_HEADER_MAX_BYTES": "1024"}


def task(receiver: Any, **more: Any) -> dict[str, Any]:
    return {"id": "t", "name": "a", "url": receiver.url + "/t", "method": "POST", **more}


def wrong(answer: Any) -> list[tuple[str, str]]:
    """The fields that were refused, and why."""
    assert answer.status_code == 400, answer.text
    return [(each["field"], each["message"]) for each in answer.json()["error"]["details"]]


# What a task may hold ----------------------------------------------------------------------------

MOST = 256 * KB
FITS = {
    "a text": "x" * MOST,
    "two bytes a character": "\u00e4" * (MOST // 2),
    "an object, without the spaces": {"a": "x" * (MOST - 8)},
}


@pytest.mark.parametrize("payload", FITS.values(), ids=FITS)
async def test_a_payload_of_the_size_that_is_allowed_arrives(alice, receiver, payload):
    made = await alice.post("/tasks", json=task(receiver, payload=payload))
    assert made.status_code == 201
    assert (await alice.post("/tasks/t/execute")).json()["status"] == "success"
    assert len(receiver.last.body) == MOST


TOO_MUCH = {
    "a text": "x" * (MOST + 1),
    "two bytes a character": "\u00e4" * (MOST // 2) + "x",
    "an object": {"a": "x" * (MOST - 7)},
}


@pytest.mark.parametrize("payload", TOO_MUCH.values(), ids=TOO_MUCH)
async def test_a_larger_one_is_refused_with_the_setting_and_what_would_be_right(
    alice, receiver, payload
):
    refused = [("payload", f"must have at most {MOST} bytes (tasks.payload_max_bytes), has 262145")]
    assert wrong(await alice.post("/tasks", json=task(receiver, payload=payload))) == refused
    bulk = await alice.post("/tasks/bulk", json=[task(receiver, payload=payload)])
    assert wrong(bulk) == [("[0].payload", refused[0][1])]
    await alice.post("/tasks", json=task(receiver, payload="small"))
    assert wrong(await alice.patch("/tasks/t", json={"payload": payload})) == refused
    assert (await alice.get("/tasks/t")).json()["payload"] == "small"


def headers(size: int) -> dict[str, str]:
    """Headers of so many bytes together."""
    return {f"h{n:07}": "x" * 248 for n in range(size // 256)}


async def test_all_headers_together_have_a_limit(alice, receiver):
    most = 16 * KB
    assert (
        await alice.post("/tasks", json=task(receiver, header=headers(most)))
    ).status_code == 201
    assert (await alice.post("/tasks/t/execute")).json()["status"] == "success"
    too_much = headers(most) | {"a": ""}
    why = f"must have at most {most} bytes (tasks.header_max_bytes), has {most + 1}"
    assert wrong(await alice.patch("/tasks/t", json={"header": too_much})) == [("header", why)]
    pairs = [{"key": key, "value": value} for key, value in too_much.items()]
    assert wrong(await alice.patch("/tasks/t", json={"headers": pairs})) == [("headers", why)]
    names = {"secret_headers": ["x" * (most + 1)]}
    assert wrong(await alice.patch("/tasks/t", json=names)) == [("secret_headers", why)]


async def test_what_was_stored_before_a_limit_runs_and_can_be_edited(run_app, receiver):
    more = {"payload": "x" * 10_000, "header": {"a": "b" * 2000, "token": "c"}}
    async with run_app() as app, app.client("alice") as alice:
        assert (await alice.post("/tasks", json=task(receiver, **more))).status_code == 201
    async with run_app(**SMALL) as app, app.client("alice") as alice:
        assert (await alice.post("/tasks/t/execute")).json()["status"] == "success"
        assert receiver.last.body == b"x" * 10_000
        assert receiver.last.header("token") == "c"
        there = (await alice.get("/tasks/t")).json()
        answer = await alice.put("/tasks/t", json={**there, "name": "b"})
        assert answer.status_code == 200
        assert [answer.json()[name] for name in ("name", "payload")] == ["b", "x" * 10_000]
        assert wrong(await alice.patch("/tasks/t", json={"payload": "y" * 10_000}))
        assert wrong(await alice.patch("/tasks/t", json={"header": {"a": "c" * 2000}}))
        smaller = {"payload": "y" * 2048, "header": {"a": "c" * 1023}}
        assert (await alice.patch("/tasks/t", json=smaller)).status_code == 200


# What is in memory at once -----------------------------------------------------------------------


async def test_a_task_that_was_paused_resumes_with_all_it_holds(app, alice, receiver):
    more = {"description": "d", "payload": "x" * 10_000, "header": {"a": "b"}}
    more |= {"frequency": 1, "unit": "second", "status": "paused"}
    at = datetime.now(UTC) + timedelta(seconds=1)
    made = await alice.post("/tasks", json=task(receiver, paused_until=at.isoformat(), **more))

    def check() -> None:
        assert receiver.last.body == b"x" * 10_000
        assert receiver.last.header("a") == "b"

    await eventually(check)
    there = (await alice.get("/tasks/t")).json()
    assert {name: there[name] for name in ("description", "payload", "header")} == {
        name: made.json()[name] for name in ("description", "payload", "header")
    }
    async with app.database.engine.connect() as conn:
        (of,) = (
            await outlines_of_all(conn, [(await get(conn, UUID(app.ids["alice"]), "t")).key])
        ).values()
    assert (of.status, of.description, of.action.payload, of.action.header) == (
        "active", None, None, {},
    )  # fmt: skip


LARGE = 50
"""Tasks of 250 KB, 12.5 MB together: more than fills a page."""


@pytest.fixture
async def large(alice, receiver):
    """The tasks, the newest first; the newest is the first that fires."""
    for start in range(0, LARGE, 10):
        body = [
            task(
                receiver, id=f"t{n}", payload="x" * 250_000, tags=["a"], scheduled_at=hours(60 - n)
            )
            for n in range(start, start + 10)
        ]
        assert (await alice.post("/tasks/bulk", json=body)).status_code == 201
    return [f"t{n}" for n in reversed(range(LARGE))]


def hours(n: int) -> str:
    return (datetime.now(UTC) + timedelta(hours=n / 10)).isoformat()


PATHS = [
    "/tasks", "/tasks?count=40", "/tasks?q=a", "/tasks?tag=a&count=49", "/tasks?state=pending",
    "/tasks/scheduled", "/tasks/scheduled?count=37",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_a_list_of_large_tasks_comes_in_short_pages_that_hold_every_one(alice, large, path):
    found, read, following = [], 0, path
    while following:
        answer = await alice.get(following)
        assert answer.status_code == 200
        assert len(answer.content) < 9 << 20
        found += [each["id"] for each in answer.json()]
        read += 1
        following = answer.links["next"]["url"] if "next" in answer.links else None
        assert following is None or urlsplit(following).path == urlsplit(path).path
    assert found == large
    assert 2 <= read <= 3


async def test_no_more_is_read_for_a_page_than_it_may_hold(app, large):
    async with app.database.api.connect() as conn:
        service = UUID(app.ids["alice"])
        found = await tasklist.page(conn, service, tasklist.Filter(), offset=0, count=1000)
        assert sum(of.size for of in found.tasks) < 2 * tasklist.PAGE_BYTES
        (again,) = (await tasklist.page(conn, service, tasklist.Filter(), offset=49, count=9)).tasks
    assert (found.total, again.id) == (LARGE, "t0")


HELD = {size: "x" * size for size in (1, 250_000, 3 << 20, 8 << 20)}


@given(st.lists(st.sampled_from(sorted(HELD)), max_size=60), st.integers(1, 50))
def test_pages_hold_every_task_once_whatever_they_hold(sizes, count):
    blank = definition()
    there = [
        msgspec.structs.replace(blank, key=uuid4(), action=Http(url="", payload=HELD[size]))
        for size in sizes
    ]
    found, following = [], (0, count)
    while following is not None:
        number, most = following
        page = pages.cut(there[number * most : (number + 1) * most + 1], number, most)
        assert page.tasks or not there[len(found) :]
        assert sum(of.size for of in page.tasks[:-1]) < tasklist.PAGE_BYTES
        found += page.tasks
        following = page.following
    assert [of.key for of in found] == [of.key for of in there]
