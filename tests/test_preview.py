"""`preview`: what a trigger yields, in words and in instants, of tasks saved and not."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from conftest import App, running, url_of
from scheduler.clock import Slice
from scheduler.tasks import preview
from scheduler.triggers import zones
from test_bulk import unheld

HOURLY = (
    "Every hour, from 2999-01-01T00:00:00.000Z until 2999-02-01T00:00:00.000Z,"
    " at most 10 times, up to 30 s later"
)
NIGHT = {"cron": "30 2 * * *", "timezone": "Europe/Berlin"}


@pytest.fixture(scope="module")
async def app(
    postgres: Any, maintenance: asyncpg.Connection, template: str, tmp_path_factory: Any
) -> AsyncIterator[App]:
    """One program for all tests here: nothing in it is ever due."""
    await maintenance.execute(f"CREATE DATABASE preview TEMPLATE {template}")
    async with running(url_of(postgres, "preview"), tmp_path_factory.mktemp("preview")) as started:
        yield started
    await maintenance.execute("DROP DATABASE preview WITH (FORCE)")


@pytest.fixture
async def alice(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with app.client("alice") as client:
        yield client


async def create(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    body = {"id": uuid4().hex, "name": "a", "url": "http://127.0.0.1:9/", **fields}
    answer = await client.post("/tasks", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def unsaved(client: httpx.AsyncClient, query: str = "", **fields: Any) -> dict[str, Any]:
    answer = await client.post(f"/tasks/preview?{query}", json=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def instants(shown: dict[str, Any]) -> list[str]:
    return [one["at"] for one in shown["occurrences"]]


async def test_a_saved_task_shows_its_next_instants_in_its_own_zone(alice):
    task = await create(alice, **NIGHT)
    answer = await alice.get(f"/tasks/{task['id']}/preview?count=3&from=2027-03-26T12:00:00Z")
    assert answer.status_code == 200
    assert answer.json() == {
        "timezone": "Europe/Berlin",
        "description": "At 02:30 every day, Europe/Berlin time",
        "occurrences": [
            {"at": "2027-03-27T01:30:00.000Z", "local": "2027-03-27T02:30:00.000+01:00",
             "note": None},
            {"at": "2027-03-28T01:00:00.000Z", "local": "2027-03-28T03:00:00.000+02:00",
             "note": "02:30 does not exist on this day; fires at 03:00"},
            {"at": "2027-03-29T00:30:00.000Z", "local": "2027-03-29T02:30:00.000+02:00",
             "note": None},
        ],
    }  # fmt: skip


async def test_without_a_count_and_a_from_it_shows_ten_from_now(alice):
    task = await create(alice, **NIGHT)
    shown = (await alice.get(f"/tasks/{task['id']}/preview")).json()
    assert len(shown["occurrences"]) == 10
    assert shown["occurrences"][0]["at"] == task["scheduled_at"]


async def test_a_task_body_is_previewed_and_not_saved(alice):
    before = (await alice.get("/tasks")).json()
    shown = await unsaved(alice, "count=2&from=2027-10-30T12:00:00%2B02:00", **NIGHT)
    assert [(one["local"], one["note"]) for one in shown["occurrences"]] == [
        ("2027-10-31T02:30:00.000+02:00", "02:30 comes twice on this day; fires the first time"),
        ("2027-11-01T02:30:00.000+01:00", None),
    ]
    assert (await alice.get("/tasks")).json() == before


async def test_from_may_lie_in_the_past_and_is_included(alice):
    shown = await unsaved(alice, "count=2&from=2001-01-01T00:00:00Z", cron="@yearly")
    assert instants(shown) == ["2001-01-01T00:00:00.000Z", "2002-01-01T00:00:00.000Z"]
    assert shown["timezone"] == "UTC"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "By hand only"),
        ({"frequency": 5, "unit": "minute"}, "Every 5 minutes"),
        ({"frequency": 1, "unit": "day"}, "Every day"),
        ({"scheduled_at": "2999-01-01T00:00:00Z"}, "Once, at 2999-01-01T00:00:00.000Z"),
        ({"cron": "0 9 * * MON-FRI"}, "At 09:00 on Monday through Friday, UTC time"),
        ({"cron": "@hourly"}, "At the start of every hour, UTC time"),
        ({"frequency": 1, "unit": "hour", "start_at": "2999-01-01T00:00:00Z",
          "end_at": "2999-02-01T00:00:00Z", "max_runs": 10, "jitter_seconds": 30},
         HOURLY),
        ({"frequency": 2, "unit": "week", "end_at": "2999-02-01T00:00:00Z", "max_runs": 1,
          "jitter_seconds": 0.5},
         "Every 2 weeks, until 2999-02-01T00:00:00.000Z, at most once, up to 0.5 s later"),
    ],
)  # fmt: skip
async def test_every_trigger_is_described_in_words(alice, fields, words):
    assert (await unsaved(alice, **fields))["description"] == words
    task = await create(alice, **fields)
    assert (await alice.get(f"/tasks/{task['id']}/preview")).json()["description"] == words


async def test_a_task_that_runs_by_hand_has_no_instants(alice):
    shown = await unsaved(alice)
    assert shown == {"timezone": "UTC", "description": "By hand only", "occurrences": []}


async def test_bounds_cut_what_is_shown(alice):
    fields = {"frequency": 1, "unit": "hour", "start_at": "2999-01-01T00:00:00Z"}
    shown = await unsaved(alice, **fields, max_runs=3)
    assert instants(shown) == [f"2999-01-01T0{hour}:00:00.000Z" for hour in range(3)]
    shown = await unsaved(alice, **fields, end_at="2999-01-01T01:00:00Z")
    assert instants(shown) == [f"2999-01-01T0{hour}:00:00.000Z" for hour in range(2)]
    fields["start_at"] = f"{datetime.now(UTC).year + 50}-01-01T00:00:00Z"
    second = fields["start_at"].replace("T00", "T02")
    shown = await unsaved(alice, f"from={second}", **fields, max_runs=3)
    assert instants(shown) == [second.replace("Z", ".000Z")]


async def test_max_runs_counts_what_was_planned_already(alice, app, conn_of):
    task = await create(alice, cron="0 0 1 1 *", max_runs=5)
    path = f"/tasks/{task['id']}/preview"
    assert len((await alice.get(path)).json()["occurrences"]) == 5
    await conn_of(
        "UPDATE task_plan SET planned_runs = 3 WHERE key = (SELECT key FROM task WHERE id = $1)",
        task["id"],
    )
    assert len((await alice.get(path)).json()["occurrences"]) == 2
    past = (await alice.get(f"{path}?from=2020-01-01T00:00:00Z&count=100")).json()
    assert [at[:4] for at in instants(past)][:3] == ["2020", "2021", "2022"]
    soon = datetime.now(UTC).year
    assert instants(past)[-1][:4] == str(soon + 2)


@pytest.fixture
async def conn_of(postgres: Any, app: App) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url_of(postgres, "preview"))
    yield connection.execute
    await connection.close()


async def test_a_saved_task_is_shown_with_its_jitter_the_same_each_time(alice):
    start = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    plain = {"frequency": 1, "unit": "day", "start_at": start.isoformat()}
    offsets = set()
    for _ in range(4):
        task = await create(alice, **plain, jitter_seconds=3600)
        shown = instants((await alice.get(f"/tasks/{task['id']}/preview")).json())
        assert shown[0] == task["scheduled_at"]
        late = {
            datetime.fromisoformat(at) - start - n * timedelta(days=1) for n, at in enumerate(shown)
        }
        assert len(late) == 1
        offsets |= late
    assert len(offsets) > 1
    assert all(timedelta(0) <= offset <= timedelta(hours=1) for offset in offsets)
    assert (
        instants(await unsaved(alice, **plain, jitter_seconds=3600))[0][:19]
        == start.isoformat()[:19]
    )


@pytest.mark.parametrize("status", ["paused", "disabled"])
async def test_what_the_trigger_yields_is_shown_whatever_the_status(alice, status):
    task = await create(alice, **NIGHT, status=status)
    assert len((await alice.get(f"/tasks/{task['id']}/preview")).json()["occurrences"]) == 10


@pytest.mark.parametrize(
    ("query", "field"),
    [("count=0", "count"), ("count=1001", "count"), ("count=x", "count"), ("from=yesterday", "from"),
     ("from=2027-01-01T00:00:00", "from"), ("count=-1", "count"), ("from=%00", "from"),
     ("from=9990-01-01T00:00:00Z", "from"), ("from=1900-01-01T00:00:00Z", "from")],
)  # fmt: skip
async def test_a_wrong_query_is_refused(alice, query, field):
    task = await create(alice, **NIGHT)
    for answer in (
        await alice.get(f"/tasks/{task['id']}/preview?{query}"),
        await alice.post(f"/tasks/preview?{query}", json=NIGHT),
    ):
        assert answer.status_code == 400
        assert [one["field"] for one in answer.json()["error"]["details"]] == [field]


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"cron": "0 0 30 2 *"}, "cron"), ({"cron": "* * * * *", "timezone": "Mars/X"}, "timezone"),
     ({"frequency": 0, "unit": "hour"}, "frequency"), ({"name": ""}, "name"), ({"zzz": 1}, "zzz")],
)  # fmt: skip
async def test_a_wrong_body_is_refused_as_when_it_is_saved(alice, fields, field):
    answer = await alice.post("/tasks/preview", json=fields)
    assert answer.status_code == 400
    assert field in answer.json()["error"]["message"]


async def test_another_services_task_does_not_exist(alice, app):
    task = await create(alice, **NIGHT)
    async with app.client("bob") as bob:
        assert (await bob.get(f"/tasks/{task['id']}/preview")).status_code == 404
    assert (await alice.get("/tasks/none/preview")).status_code == 404
    answer = await alice.post("/tasks", json={"id": "preview", "name": "a", "url": "http://h/"})
    assert answer.status_code == 400


async def test_a_thousand_rare_instants_hold_the_loop_in_small_pieces_only(alice):
    fields = {"cron": "0 12 29 2 *", "timezone": "Europe/Berlin"}
    shown = await unheld(lambda: unsaved(alice, "count=1000", **fields))
    assert len(shown["occurrences"]) == 1000
    assert shown["occurrences"][-1]["at"] > "5900"


async def test_what_max_runs_leaves_far_ahead_is_counted_in_small_pieces(alice):
    far = (datetime.now(UTC) + timedelta(days=36_000)).replace(microsecond=0)
    fields = {"cron": "0 3 * * *", "max_runs": 999_999_999}
    sent = f"count=1&from={far:%Y-%m-%dT%H:%M:%SZ}"

    async def anew() -> dict[str, Any]:
        zones._block.cache_clear()
        return await unsaved(alice, sent, **fields, timezone="Europe/Berlin")

    assert len((await unheld(anew, 20))["occurrences"]) == 1
    fields["max_runs"] = 30_000
    assert instants(await unsaved(alice, sent, **fields, timezone="UTC")) == []


async def test_what_takes_too_long_is_refused(alice, monkeypatch):
    monkeypatch.setattr(preview, "BUDGET_S", 0.0)
    monkeypatch.setattr(Slice, "LENGTH_S", 0.0)
    answer = await alice.post("/tasks/preview", json=NIGHT)
    assert answer.status_code == 400
    assert "ask for fewer" in answer.json()["error"]["message"]
