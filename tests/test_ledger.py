"""The ledger's list: one order, cursors that lose and double nothing, filters, bounded walks."""

import json
import random
import uuid
from typing import Any

import asyncpg
import httpx
import pytest

from conftest import App, eventually
from scheduler import ledger
from scheduler.db import utc
from scheduler.ledger import END_STATES
from scheduler.run import bucket_in
from test_queue import now_ms


async def create(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    body = {"name": "a task", "url": "http://127.0.0.1:9/", **fields}
    answer = await client.post("/tasks", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def key_of(conn: asyncpg.Connection, task_id: str) -> uuid.UUID:
    return await conn.fetchval("SELECT key FROM task WHERE id = $1", task_id)


async def fill(conn: asyncpg.Connection, task_id: str, n: int, start: int, **columns: str) -> None:
    """Rows of history, a second apart; columns are SQL, with `n` for the number."""
    values = {
        "kind": "'task'",
        "at": f"timestamptz '{utc(start).isoformat()}' + n * interval '1 second'",
        "state": "'succeeded'",
        "reason": "CASE WHEN {state} <> 'succeeded' THEN 'why' END",
        **columns,
    }
    values = {name: sql.replace("{state}", values["state"]) for name, sql in values.items()}
    await conn.execute(
        f"""INSERT INTO history (id, bucket, service_id, task_key, task_id, kind, version,
               scheduled_for, state, reason, attempts, attempts_n, created_at, started_at,
               finished_at, response, truncated, count)
            SELECT gen_random_uuid(), t.bucket, t.service_id, t.key, t.id, {values["kind"]}, 1,
                   {values["at"]}, {values["state"]}, {values["reason"]}, '[]', 0, now(), now(),
                   now(), 'body', false, 1
            FROM task t, generate_series(1, $2::int) AS n WHERE t.id = $1""",
        task_id, n,
    )  # fmt: skip


async def walk(client: httpx.AsyncClient, query: str = "", limit: int = 7) -> list[dict[str, Any]]:
    """Every page of a list."""
    found, cursor = [], ""
    for _ in range(1000):
        answer = await client.get(f"/runs?limit={limit}&{query}{cursor}")
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page["runs"]) <= limit
        found += page["runs"]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"
    raise AssertionError("the list has no end")


async def test_runs_live_and_finished_are_one_list_the_newest_first(alice, bob, conn):
    await create(alice, id="far", frequency=1, unit="second")
    await create(alice, id="past", name="other")
    await fill(conn, "past", 20, now_ms() - 60_000)
    await fill(conn, "far", 20, now_ms() - 60_000)
    runs = await walk(alice, f"to={utc(now_ms() + 20_000).isoformat().replace('+', '%2B')}")
    order = [(run["scheduled_for"], run["id"]) for run in runs]
    assert order == sorted(order, reverse=True)
    assert len({run["id"] for run in runs}) == len(runs) > 50
    assert {"scheduled", "succeeded"} <= {run["state"] for run in runs}
    assert all(run["response"] is None and run["request"] is None for run in runs)
    assert {run["trigger"] for run in runs if run["task_id"] == "far"} == {"interval"}
    assert await walk(bob) == []


async def test_runs_at_one_instant_are_neither_lost_nor_doubled_between_pages(alice, conn):
    await create(alice, id="t")
    await fill(conn, "t", 50, now_ms() - 1000, at="timestamptz '2026-11-20T00:00:00Z'")
    runs = await walk(alice)
    assert len({run["id"] for run in runs}) == len(runs) == 50


async def test_a_run_that_ends_between_two_pages_keeps_its_place(app: App, alice, conn, receiver):
    await create(alice, id="t")
    await fill(conn, "t", 10, now_ms() - 60_000)
    held = await alice.post("/tasks", json={
        "name": "later", "url": receiver.url, "id": "later", "frequency": 1, "unit": "hour"})  # fmt: skip
    assert held.status_code == 201
    first = (await alice.get("/runs?limit=5")).json()
    made = await alice.post("/tasks/later/execute")
    assert made.status_code == 200
    rest = await walk(alice, f"cursor={first['next_cursor']}&x=")
    assert len({run["id"] for run in [*first["runs"], *rest]}) == 10


async def test_filters_narrow_the_list(alice, conn):
    now = now_ms()
    await create(alice, id="a", name="Nightly backup")
    await create(alice, id="b", url="http://127.0.0.1:9/report/daily")
    words = ", ".join(f"'{word}'" for word in END_STATES)
    states = f"(ARRAY[{words}])[1 + n % 5]"
    await fill(conn, "a", 50, now - 100_000, state=states)
    await fill(conn, "b", 50, now - 100_000, state="'failed'", kind="'manual'")
    await fill(conn, "a", 3, now - 50_000, state="'skipped'", reason="'overlap'")

    async def count(query: str) -> int:
        return len(await walk(alice, query, limit=9))

    assert await count("") == 103
    assert await count("task=a") == 53
    assert await count("task=nobody") == 0
    assert await count("state=failed") == 60
    assert await count("state=failed,expired") == 70
    assert await count("state=succeeded&task=a") == 10
    assert await count("state=running") == 0
    assert await count("kind=manual") == 50
    assert await count("kind=manual,task&state=succeeded") == 10
    assert await count("reason=overlap") == 3
    assert await count("reason=overlap&state=succeeded") == 0
    assert await count("q=NIGHT") == 53
    assert await count("q=report+dai") == 50
    assert await count("q=report&task=a") == 0
    assert await count("q=ightly") == 0
    one = (await walk(alice, "task=b"))[0]
    key = uuid.UUID(one["id"])
    await conn.execute("UPDATE history SET bucket = $2 WHERE id = $1", key, bucket_in(key))
    assert [run["id"] for run in await walk(alice, f"q={one['id']}")] == [one["id"]]
    at = one["scheduled_for"]
    assert await count(f"task=b&to={at}") == 49
    assert await count(f"task=b&from={at}") == 1
    assert await count(f"task=b&from={at}&to={at}") == 0


async def test_runs_of_a_deleted_task_are_found_by_the_id_it_had(alice, conn):
    await create(alice, id="gone")
    await fill(conn, "gone", 5, now_ms() - 60_000)
    assert (await alice.delete("/tasks/gone")).status_code == 204
    assert len(await walk(alice, "task=gone")) == 5
    await create(alice, id="gone")
    assert await walk(alice, "task=gone") == []


async def test_a_gap_shows_how_many_instants_it_stands_for(alice, conn):
    await create(alice, id="t", frequency=1, unit="minute", status="paused")
    await conn.execute("UPDATE task_plan SET planned_until = now() - interval '1 hour'")
    await conn.execute("UPDATE task SET trigger = jsonb_set(trigger, '{anchor}', '0')")
    assert (await alice.put("/tasks/t", json={"status": "active"})).status_code == 200
    (gap,) = await walk(alice, "state=skipped")
    assert gap["reason"] == "paused" and gap["count"] in (59, 60) and gap["from"] < gap["to"]
    whole = (await alice.get(f"/runs/{gap['id']}")).json()
    assert [whole[k] for k in ("count", "from", "to")] == [gap[k] for k in ("count", "from", "to")]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "state=done", "kind=x", "from=2026-01-01", "to=x",
     "cursor=x", "cursor=" + "A" * 40, "cursor=%00", "task=%00", "q=%00",
     "cursor=f" + "_" * 31],
)  # fmt: skip
async def test_what_a_list_cannot_be_asked_is_refused(alice, query):
    answer = await alice.get(f"/runs?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["field"] == query.split("=")[0]


@pytest.mark.parametrize("scan", [1, 3, 10, 40])
async def test_a_walk_that_is_cut_short_goes_on_and_loses_nothing(alice, conn, scan, monkeypatch):
    monkeypatch.setattr(ledger, "SCAN", scan)
    chance = random.Random(scan)
    for name in ("a", "b", "c"):
        await create(alice, id=name, name=f"word {name}")
        for state in ("succeeded", "failed", "skipped"):
            start = now_ms() - chance.randrange(100_000, 200_000)
            await fill(conn, name, 7, start, state=f"'{state}'", reason="'r' || n % 3")
    for query in ("", "reason=r1", "task=a&state=failed", "q=word&state=skipped,failed",
                  "state=failed,skipped&reason=r2", "kind=task&state=succeeded"):  # fmt: skip
        monkeypatch.setattr(ledger, "SCAN", 20_000)
        wanted = [run["id"] for run in await walk(alice, query, limit=1000)]
        monkeypatch.setattr(ledger, "SCAN", scan)
        assert [run["id"] for run in await walk(alice, query, limit=4)] == wanted


@pytest.mark.parametrize("most", [1, 4, 20])
async def test_a_page_that_ends_by_its_attempts_goes_on_and_loses_nothing(
    alice, conn, most, monkeypatch
):
    for name in ("a", "b", "c"):
        await create(alice, id=name, name=f"word {name}", frequency=1, unit="second")
        for state in ("succeeded", "failed", "cancelled"):
            await fill(conn, name, 7, now_ms() - 60_000, state=f"'{state}'", reason="'r' || n % 3")
    await conn.execute("UPDATE history SET attempts_n = bucket % 7")  # more than can be read
    until = utc(now_ms() + 20_000).isoformat().replace("+", "%2B")
    for query in (f"to={until}", "reason=r1", "task=a&state=failed", "q=word&state=failed",
                  "state=failed,succeeded&reason=r2", "kind=task&state=succeeded"):  # fmt: skip
        monkeypatch.setattr(ledger, "ATTEMPTS", 5_000)
        wanted = [run["id"] for run in await walk(alice, query, limit=1000)]
        monkeypatch.setattr(ledger, "ATTEMPTS", most)
        assert [run["id"] for run in await walk(alice, query, limit=5)] == wanted


@pytest.mark.parametrize("query", ["", "&q=word", "&state=failed&reason=why"])
async def test_a_page_of_runs_that_were_tried_very_often_ends_early(
    alice, conn, query, monkeypatch
):
    monkeypatch.setattr("scheduler.runs.which.TASKS_MOST", 0)
    await create(alice, id="a", name="word")
    await fill(conn, "a", 250, now_ms() - 600_000, state="'failed'")
    tried = [
        {"number": n, "outcome": "failed", "error": "e" * 50, "response": "x" * 1024}
        for n in range(1, 102)
    ]
    await conn.execute("UPDATE history SET attempts = $1, attempts_n = 101", json.dumps(tried))
    page = (await alice.get(f"/runs?limit=1000{query}")).json()
    assert len(page["runs"]) == 50
    assert {len(run["attempts"]) for run in page["runs"]} == {101}
    runs = await walk(alice, query, limit=1000)
    assert len({run["id"] for run in runs}) == len(runs) == 250


async def test_words_that_very_many_tasks_have_find_the_same_runs(alice, conn, monkeypatch):
    monkeypatch.setattr("scheduler.runs.which.TASKS_MOST", 2)
    for n in range(5):
        await create(alice, id=f"t{n}", name=f"many {n}")
        await fill(conn, f"t{n}", 5, now_ms() - 60_000)
    await create(alice, id="other")
    await fill(conn, "other", 5, now_ms() - 60_000)
    runs = await walk(alice, "q=many", limit=3)
    assert len({run["id"] for run in runs}) == len(runs) == 25
    assert {run["task_id"] for run in runs} == {f"t{n}" for n in range(5)}


async def test_a_run_that_waits_for_its_retry_stands_at_its_instant(alice, receiver):
    receiver.then(500)
    await create(alice, url=receiver.url, id="r", scheduled_at="2020-01-01T00:00:00Z",
                 retry_backoff={"initial_seconds": 60, "factor": 1})  # fmt: skip

    async def waits() -> None:
        assert [r["attempt"] for r in await walk(alice, "state=retrying")] == [1]

    await eventually(waits)
    assert len(await walk(alice)) == 1
    assert await walk(alice, "state=scheduled,succeeded") == []
