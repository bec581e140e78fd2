"""The list of tasks, and acts on many of them: counted before, told after."""

import asyncio
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from conftest import App, RunApp, eventually
from pages import field, safe, signed_in, statements
from scheduler import undo
from scheduler.dashboard.tasks import bulk
from scheduler.tasks import choosing

HOURLY = {"name": "Hourly", "url": "http://127.0.0.1:9/", "frequency": 1, "unit": "hour"}


async def make(client: httpx.AsyncClient, *ids: str, **fields: Any) -> None:
    for task_id in ids:
        body = {**HOURLY, "id": task_id, "name": f"Task {task_id}", **fields}
        assert (await client.post("/tasks", json=body)).status_code == 201


async def statuses(client: httpx.AsyncClient) -> dict[str, str]:
    return {each["id"]: each["status"] for each in (await client.get("/tasks")).json()}


def rows(text: str) -> list[str]:
    """The ids of the tasks of a list, in its order."""
    return re.findall(r'<tr id="task-([^"]+)"', text)


async def act(visitor: httpx.AsyncClient, kind: str, *ids: str, **query: str) -> httpx.Response:
    """Ask about an act and confirm it, as a person does; where that leads."""
    params = [*(("id", each) for each in ids), *query.items()]
    asked = await visitor.get(f"/dashboard/bulk/{kind}", params=params)
    safe(asked)
    return await confirm(visitor, asked)


async def confirm(visitor: httpx.AsyncClient, asked: httpx.Response) -> httpx.Response:
    found = re.search(r'<form method="post" action="([^"]+)" class="acts">', asked.text)
    assert found, asked.text
    sent = {name: field(asked.text, name) for name in ("form", "act", "seen")}
    return await visitor.post(found[1].replace("&amp;", "&"), data=sent)


async def follow(visitor: httpx.AsyncClient, answer: httpx.Response) -> str:
    assert answer.status_code == 303, answer.text
    return (await visitor.get(answer.headers["Location"])).text


async def undone(visitor: httpx.AsyncClient, text: str) -> str:
    """Press Undo on a page; the page that it leads to."""
    found = re.search(r'action="(/dashboard/bulk/acts/[^/"]+/undo)"', text)
    assert found, text
    back = re.search(r'name="back" value="([^"]*)"', text)
    assert back
    sent = {"form": field(text, "form"), "back": back[1].replace("&amp;", "&")}
    return await follow(visitor, await visitor.post(found[1], data=sent))


# The list ----------------------------------------------------------------------------------------


async def test_a_filter_is_a_chip_that_can_be_taken_away(visitor, alice):
    await make(alice, "a", "b", tags=["x"])
    await make(alice, "c", status="paused", tags=["x"])
    text = (await visitor.get("/dashboard/tasks?tag=x&status=paused")).text
    assert rows(text) == ["c"]
    chips = re.findall(r'<li><a href="([^"]+)" aria-label="Take away the filter (\w+)', text)
    assert chips == [
        ("/dashboard/tasks?tag=x", "status"),
        ("/dashboard/tasks?status=paused", "tag"),
    ]
    assert sorted(rows((await visitor.get(chips[0][0])).text)) == ["a", "b", "c"]


FILTERS = {
    "q=needle": ["n"],
    "trigger=cron": ["n"],
    "trigger=none": ["m"],
    "action=http": ["m", "n", "o"],
    "action=command": [],
    "status=paused": ["o"],
    "state=created": ["m"],
    "status=created": ["m"],
    "state=pending&tag=t": ["n"],
    "status=active&trigger=cron&tag=t": ["n"],
    "state=running": [],
}


async def test_the_list_is_filtered_as_the_api_filters(visitor, alice):
    cron = {"cron": "0 0 1 1 *", "frequency": None, "unit": None}
    await make(alice, "n", tags=["t"], **{**cron, "name": "A needle"})
    await make(alice, "m", frequency=None, unit=None)
    await make(alice, "o", status="paused", scheduled_at="2999-01-01T00:00:00Z")
    for query, ids in FILTERS.items():
        text = (await visitor.get(f"/dashboard/tasks?{query}")).text
        assert sorted(rows(text)) == ids, query
    wrong = await visitor.get("/dashboard/tasks?trigger=weekly")
    assert wrong.status_code == 400 and "must be one of" in wrong.text


async def test_the_list_is_sorted(visitor, alice, conn):
    await make(alice, "b", frequency=3)
    await make(alice, "a", frequency=2)
    await make(alice, "c", frequency=1, status="paused")
    await conn.execute("UPDATE task_state SET failures = 4, last_at = now() FROM task "
                       "WHERE task.key = task_state.key AND task.id = 'b'")  # fmt: skip
    for sort, ids in {
        "newest": "cab", "name": "abc", "next": "abc", "failing": "bca"
    }.items():  # fmt: skip
        text = (await visitor.get(f"/dashboard/tasks?sort={sort}")).text
        assert "".join(rows(text))[:2] == ids[:2], sort
        assert f'<option value="{sort}" selected>' in text
    assert (await visitor.get("/dashboard/tasks?sort=size")).status_code == 400


async def test_a_sort_says_where_it_does_not_reach(visitor, alice, monkeypatch):
    monkeypatch.setattr("scheduler.taskrows.MOST", 2)
    await make(alice, "a", "b", "c")
    text = (await visitor.get("/dashboard/tasks?sort=name")).text
    assert "only the newest of them are sorted" in text
    assert "are sorted" not in (await visitor.get("/dashboard/tasks")).text


async def test_a_page_of_the_list_takes_five_statements_at_most(app: App, visitor, alice):
    sundays = {"name": "sundays", "weekly": [{"days": ["SUN"]}]}
    assert (await alice.post("/calendars", json=sundays)).status_code == 201
    await make(alice, *(f"t{n}" for n in range(60)), tags=["x"], calendars=["sundays"])
    await make(alice, "limited", max_runs=5, tags=["x"], status="paused")
    for path in (
        "",
        "?page=1",
        "?q=task&tag=x&trigger=interval&status=paused",
        "?state=pending&tag=x",
        "?state=running",
        "?sort=next&tag=x",
        "?sort=failing&state=created",
        "?act=00000000-0000-0000-0000-000000000001&q=task&sort=name",
    ):
        with statements(app) as seen:
            answer = await visitor.get(f"/dashboard/tasks{path}")
        assert answer.status_code == 200
        assert len(seen) <= 5, (path, len(seen))


async def test_what_others_wrote_stays_text_in_the_list_and_before_an_act(visitor, alice):
    hostile = "<script>alert(1)</script>\u202e\"'><img src=x>"
    await make(alice, "h", name=hostile, tags=[hostile])
    pages = [
        await visitor.get("/dashboard/tasks", params={"q": hostile, "tag": hostile}),
        await visitor.get("/dashboard/tasks"),
        await visitor.get("/dashboard/bulk/delete?id=h"),
        await visitor.get("/dashboard/bulk/pause", params={"all": "1", "tag": hostile}),
    ]
    for answer in pages:
        assert answer.status_code == 200
        for raw in ("<script>alert", "<img src=x"):
            assert raw not in answer.text
    for answer in pages[1:]:  # the first has it in the field that it was typed into
        assert "\u202e" not in answer.text
    assert rows(pages[1].text) == ["h"]


async def test_nobody_sees_or_touches_the_tasks_of_others(app: App, visitor, alice, bob):
    await make(bob, "theirs")
    await make(alice, "mine")
    assert rows((await visitor.get("/dashboard/tasks")).text) == ["mine"]
    asked = await visitor.get("/dashboard/bulk/delete?id=theirs")
    assert "not there any more" in asked.text or "None of the tasks" in asked.text
    await follow(visitor, await act(visitor, "delete", "mine", "theirs"))
    assert await statuses(bob) == {"theirs": "active"} and await statuses(alice) == {}
    led = await visitor.get("/dashboard/tasks")
    assert rows(led.text) == []
    async with signed_in(app, "bob") as other:
        async with app.database.api.connect() as conn:
            mine = (await conn.exec_driver_sql("SELECT DISTINCT act FROM undo")).scalar_one()
        form = field((await other.get("/dashboard")).text, "form")
        refused = await other.post(f"/dashboard/bulk/acts/{mine}/undo", data={"form": form})
        assert refused.status_code == 404
        assert (await other.get(f"/dashboard/bulk/acts/{mine}")).status_code == 404


# One task from its line --------------------------------------------------------------------------


async def one(visitor: httpx.AsyncClient, task_id: str, do: str, **more: str) -> httpx.Response:
    text = (await visitor.get("/dashboard/tasks?tag=x")).text
    sent = {name: field(text, name) for name in ("form", "nonce")}
    sent |= {"id": task_id, "do": do, "back": "/dashboard/tasks?tag=x", **more}
    return await visitor.post("/dashboard/bulk/one", data=sent)


async def test_a_status_is_switched_in_the_line(visitor, alice):
    await make(alice, "a", tags=["x"])
    for do in ("paused", "disabled", "active", "paused", "active"):
        answer = await one(visitor, "a", do)
        assert answer.status_code == 303, answer.text
        assert answer.headers["Location"].startswith("/dashboard/tasks?tag=x")
        assert await statuses(alice) == {"a": do}
    assert (await one(visitor, "a", "broken")).status_code == 400
    assert (await one(visitor, "nothing", "paused")).status_code == 404


async def test_a_task_is_run_from_its_line_once_however_often_the_form_is_sent(
    visitor, alice, receiver
):
    await make(alice, "a", tags=["x"], url=receiver.url)
    text = (await visitor.get("/dashboard/tasks?tag=x")).text
    sent = {name: field(text, name) for name in ("form", "nonce")}
    sent |= {"id": "a", "do": "run", "back": "/dashboard/tasks?tag=x"}
    answers = await asyncio.gather(
        *(visitor.post("/dashboard/bulk/one", data=sent) for _ in range(4))
    )
    assert {answer.status_code for answer in answers} == {303}

    async def ran() -> None:
        assert len((await alice.get("/runs?state=succeeded")).json()["runs"]) == 1

    await eventually(ran)
    assert len(receiver.requests) == 1
    assert "Started <bdi>Task a</bdi>." in await follow(visitor, answers[0])


async def test_where_a_form_leads_back_to_is_ours(visitor, alice):
    await make(alice, "a", tags=["x"])
    answer = await one(visitor, "a", "disabled", back="https://evil.example/")
    assert answer.headers["Location"] == "/dashboard/tasks"


# Many --------------------------------------------------------------------------------------------


async def test_many_are_paused_and_resumed_and_the_others_are_not(visitor, alice):
    await make(alice, "a", "b", "c")
    text = await follow(visitor, await act(visitor, "pause", "a", "b", tag=""))
    assert "Paused 2 tasks." in text
    assert await statuses(alice) == {"a": "paused", "b": "paused", "c": "active"}
    text = await follow(visitor, await act(visitor, "resume", "a", "b"))
    assert "Resumed 2 tasks." in text and ">Undo<" not in text
    assert set((await statuses(alice)).values()) == {"active"}


async def test_before_it_is_said_how_many_and_which(visitor, alice):
    await make(alice, *(f"t{n:02}" for n in range(14)))
    text = (await visitor.get("/dashboard/bulk/delete?all=1&q=task")).text
    assert "Delete 14 tasks?" in text and "Task t13" in text and "and 4 more" in text
    assert len(await statuses(alice)) == 14
    assert "Nothing to pause" in (await visitor.get("/dashboard/bulk/pause")).text
    gone = (await visitor.get("/dashboard/bulk/pause?id=t00&id=gone")).text
    assert "Pause 1 task?" in gone and "1 task that you chose is not there" in gone
    assert (await visitor.get("/dashboard/bulk/paint?id=t00")).status_code == 404
    many = [("id", str(n)) for n in range(bulk.CHOSEN_MOST + 1)]
    assert (await visitor.get("/dashboard/bulk/pause", params=many)).status_code == 400


async def test_all_that_fit_a_filter_are_bound_to_those_that_were_counted(visitor, alice):
    await make(alice, "a", "b", tags=["x"])
    await make(alice, "other")
    asked = await visitor.get("/dashboard/bulk/delete?all=1&tag=x")
    await make(alice, "c", tags=["x"])
    again = await confirm(visitor, asked)
    assert again.status_code == 409
    assert "It was 2 tasks when you were asked, and is 3 now." in again.text
    assert len(await statuses(alice)) == 4
    await alice.delete("/tasks/a")
    swapped = await visitor.get("/dashboard/bulk/delete?all=1&tag=x")
    await alice.delete("/tasks/b")
    await make(alice, "b", tags=["x"])
    again = await confirm(visitor, swapped)
    assert again.status_code == 409 and "other tasks" in again.text
    text = await follow(visitor, await confirm(visitor, again))
    assert "Deleted 2 tasks." in text
    assert list(await statuses(alice)) == ["other"]


async def test_by_filter_there_is_an_end(visitor, alice, monkeypatch):
    monkeypatch.setattr(choosing, "MOST", 2)
    await make(alice, "a", "b", "c", tags=["x"])
    for query in ("all=1", "all=1&tag=x", "all=1&state=pending"):
        refused = await visitor.get(f"/dashboard/bulk/delete?{query}")
        assert refused.status_code == 409 and "narrow the filter" in refused.text
    await alice.delete("/tasks/a")
    assert "Delete 2 tasks?" in (await visitor.get("/dashboard/bulk/delete?all=1&tag=x")).text


async def test_by_state_and_filter_it_is_those_of_the_list(visitor, alice):
    await make(alice, "a", "b", tags=["x"])
    await make(alice, "m", frequency=None, unit=None, tags=["x"])
    for query, count in {"state=pending": 2, "state=created&tag=x": 1, "status=created": 1}.items():
        text = (await visitor.get(f"/dashboard/bulk/run?all=1&{query}")).text
        assert f"Run {count} task" in text, query
    running = (await visitor.get("/dashboard/bulk/run?all=1&state=running")).text
    assert "Nothing to run" in running


async def test_what_is_refused_is_told_with_why_and_where(visitor, alice):
    await make(alice, "a")
    await make(alice, "p", status="paused")
    await make(alice, "d", status="disabled")
    answer = await act(visitor, "pause", "a", "p", "d")
    assert answer.headers["Location"].startswith("/dashboard/bulk/acts/")
    text = await follow(visitor, answer)
    assert "Paused 1 task" in text and "Refused: 2 tasks" in text
    assert "It is paused already." in text and "It is disabled" in text
    assert 'href="/dashboard/tasks/p"' in text
    text = await follow(visitor, await act(visitor, "resume", "a", "d"))
    assert "Refused: 1 task" in text
    text = await follow(visitor, await act(visitor, "run", "d"))
    assert "Refused: 1 task" in text and "disabled" in text


async def test_runs_by_hand_are_within_the_quota(run_app: RunApp):
    async with (
        run_app(QUOTAS_MAX_RUNS_PER_MINUTE="2") as app,
        app.client("alice") as alice,
        signed_in(app) as visitor,
    ):
        await make(alice, "a", "b", "c")
        text = await follow(visitor, await act(visitor, "run", "a", "b", "c"))
        assert "Started 2 tasks" in text and "max_runs_per_minute" in text


async def test_an_act_goes_on_where_one_request_left_it(visitor, alice, monkeypatch):
    monkeypatch.setattr("scheduler.tasks.undoing.SPAN_S", 0.0)
    monkeypatch.setattr("scheduler.tasks.undoing.PIECE", 1)
    await make(alice, "a", "b", "c")
    answer = await act(visitor, "delete", "a", "b", "c")
    at = answer.headers["Location"]
    text = (await visitor.get(at)).text
    assert "data-go-on" in text and "Go on with the other" in text
    monkeypatch.setattr("scheduler.tasks.undoing.SPAN_S", 4.0)
    assert len(await statuses(alice)) > 0
    sent = {"form": field(text, "form"), "back": "/dashboard/tasks"}
    led = await visitor.post(f"{urlsplit(at).path}/on", data=sent)
    assert "Deleted 3 tasks." in await follow(visitor, led)
    assert await statuses(alice) == {}


async def test_a_form_that_is_sent_twice_acts_once(visitor, alice):
    await make(alice, "a", "b")
    asked = await visitor.get("/dashboard/bulk/delete?id=a&id=b")
    answers = await asyncio.gather(*(confirm(visitor, asked) for _ in range(4)))
    for answer in answers:
        assert "Deleted 2 tasks." in await follow(visitor, answer)
    assert await statuses(alice) == {}


@pytest.mark.parametrize(
    "path", ["pause?id=a", "one", "acts/00000000-0000-0000-0000-000000000001/undo"]
)
async def test_an_act_is_asked_for_by_our_own_forms_alone(visitor, alice, path):
    await make(alice, "a")
    for sent in ({}, {"form": "other", "act": "x", "id": "a", "do": "paused"}):
        answer = await visitor.post(f"/dashboard/bulk/{path}", data=sent)
        assert answer.status_code == 403
    assert await statuses(alice) == {"a": "active"}


async def test_nothing_is_known_of_an_act_after_an_hour(app: App, visitor, alice, conn):
    await make(alice, "a")
    await act(visitor, "delete", "a")
    async with app.database.engine.begin() as connection:
        assert not await undo.prune(connection, await _ago(conn, "59 min"))
    assert await conn.fetchval("SELECT count(*) FROM undo") == 1
    async with app.database.engine.begin() as connection:
        await undo.prune(connection, await _ago(conn, "-1 s"))
    assert await conn.fetchval("SELECT count(*) FROM undo") == 0


async def _ago(conn: Any, span: str) -> Any:
    return await conn.fetchval(f"SELECT now() - interval '{span}'")


async def test_the_address_of_the_list_is_kept_over_an_act(visitor, alice):
    await make(alice, "a", tags=["x"])
    answer = await act(visitor, "pause", "a", tag="x", sort="name")
    kept = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert (kept["tag"], kept["sort"]) == (["x"], ["name"]) and kept["act"]
    text = await undone(visitor, await follow(visitor, answer))
    assert "Active again: <bdi>Task a</bdi>." in text and rows(text) == ["a"]
