"""`/runs/verify`: nothing is reported that is right, and whatever is lost or doubled is."""

import asyncio
import base64
import uuid
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from scheduler.db import utc
from scheduler.instant import FIRST, LAST
from scheduler.runs import verify
from test_ledger import create
from test_queue import now_ms


async def verified(client, query: str = "") -> dict[str, Any]:
    """All pages as one."""
    whole, cursor = None, ""
    while True:
        answer = await client.get(f"/runs/verify?{query}{cursor}")
        assert answer.status_code == 200, answer.text
        page = answer.json()
        if whole is None:
            whole = page
        else:
            assert (page["from"], page["to"]) == (whole["from"], whole["to"])
            for name in ("missing", "doubled", "checked"):
                whole[name] += page[name]
        if page["next_cursor"] is None:
            return whole
        cursor = f"&cursor={page['next_cursor']}"


async def made_earlier(conn, task_id: str, seconds: int) -> None:
    """Make a task older, as though it had been planned all along."""
    await conn.execute(
        "UPDATE task SET created_at = created_at - $2::int * interval '1 second', "
        "updated_at = updated_at - $2::int * interval '1 second', trigger = jsonb_set(trigger, "
        "'{anchor}', to_jsonb((trigger ->> 'anchor')::bigint - $2::int * 1000)) WHERE id = $1",
        task_id, seconds,
    )  # fmt: skip


async def test_what_is_planned_and_what_ran_is_right(alice, bob, receiver):
    await create(alice, url=receiver.url, id="t", frequency=1, unit="second")
    await create(alice, url=receiver.url, id="once", scheduled_at="2020-01-01T00:00:00Z")
    await create(alice, id="paused", frequency=1, unit="second", status="paused")
    await create(alice, id="edited", frequency=1, unit="second")
    await alice.put("/tasks/edited", json={"frequency": 2})
    found = await verified(alice)
    assert (found["missing"], found["doubled"]) == ([], [])
    assert found["checked"] > 30
    assert found["from"] < found["to"]
    assert (await verified(bob))["checked"] == 0


def text_of(at: Any) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.mark.parametrize("query", ["", "to=2100-01-01T00:00:00Z"])
async def test_it_names_no_more_than_it_covered(run_app, conn, query):
    async with (
        run_app(PREQUEUER_TICKER_INTERVAL_SECONDS="3600") as app,
        app.client("alice") as alice,
        app.client("bob") as bob,
    ):
        for n in range(3):
            await create(alice, id=f"t{n}", frequency=1, unit="hour")
        window, began = app.engine.window_ms, now_ms()
        idle = (await verified(alice, query))["to"]
        assert text_of(utc(began + window)) <= idle <= text_of(utc(now_ms() + window))
        # The planner is behind with one of them: nothing is known from there on.
        behind = await conn.fetchval(
            "UPDATE task_plan SET next_plan_at = date_trunc('second', now()) - interval '1 h' "
            "WHERE key = (SELECT key FROM task WHERE id = 't1') RETURNING next_plan_at"
        )
        last = behind - timedelta(milliseconds=1)
        assert (await verified(alice, query))["to"] == text_of(last)
        early = text_of(last - timedelta(hours=1))
        assert (await verified(alice, f"to={early}"))["to"] == early
        assert (await verified(bob, query))["to"] > text_of(utc(now_ms()))


async def test_what_begins_after_what_is_planned_covers_nothing(alice):
    await create(alice, id="t", frequency=1, unit="second")
    found = await verified(alice, "from=2100-01-01T00:00:00Z&to=2101-01-01T00:00:00Z")
    assert (found["from"], found["to"]) == ("2100-01-01T00:00:00.000Z",) * 2
    assert found["checked"] == 0


async def test_a_lost_run_and_a_doubled_one_are_reported(alice, conn):
    await create(alice, id="t", frequency=10, unit="second")
    lost, twice = await conn.fetch(
        "SELECT * FROM run WHERE scheduled_for > now() + interval '15 s' ORDER BY due LIMIT 2"
    )
    await conn.execute("DELETE FROM run WHERE id = $1", lost["id"])
    await conn.execute(
        "INSERT INTO history SELECT id, bucket, service_id, task_key, task_id, kind, version, "
        "scheduled_for, 'succeeded', NULL, '[]', 0, now(), now(), now(), NULL, false, 1 FROM run "
        "WHERE id = $1",
        twice["id"],
    )
    found = await verified(alice)

    assert found["missing"] == [{"task_id": "t", "at": text_of(lost["scheduled_for"])}]
    assert found["doubled"] == [{"task_id": "t", "at": text_of(twice["scheduled_for"]), "runs": 2}]
    until = text_of(lost["scheduled_for"])
    assert len((await verified(alice, f"to={until}"))["missing"]) == 1
    assert (await verified(alice, f"from={until}"))["missing"] == []


async def test_instants_in_a_gap_are_accounted_for_and_others_are_not(app, alice, conn):
    await create(alice, id="t", frequency=1, unit="minute")
    await made_earlier(conn, "t", 7200)
    found = await verified(alice)
    assert len(found["missing"]) in (119, 120)
    of = await conn.fetchrow("SELECT * FROM task")
    first = utc(now_ms() - 7_200_000)
    await conn.execute(
        "INSERT INTO history (id, bucket, service_id, task_key, task_id, kind, version, "
        "scheduled_for, state, reason, attempts, attempts_n, created_at, finished_at, truncated, "
        "count, gap_from, gap_to) VALUES ($1, $2, $3, $4, 't', 'task', 1, $5, 'skipped', 'misfire', "
        "'[]', 0, now(), now(), false, 60, $5::timestamptz, $5::timestamptz + interval '1 hour')",
        uuid.uuid4(), of["bucket"], of["service_id"], of["key"], first,
    )  # fmt: skip
    left = await verified(alice)
    assert len(left["missing"]) in (59, 60)
    assert set(map(str, left["missing"])) < set(map(str, found["missing"]))
    # Also where the gap began before what is asked for.
    half = utc(now_ms() - 5_400_000).isoformat().replace("+", "%2B")
    assert len((await verified(alice, f"from={half}"))["missing"]) in (59, 60)


async def test_a_long_answer_comes_in_pieces(alice, conn):
    for n in range(3):
        await create(alice, id=f"t{n}", frequency=1, unit="minute")
        await made_earlier(conn, f"t{n}", 3 * 86_400)
    since = utc(now_ms() - 4 * 86_400_000).isoformat().replace("+", "%2B")
    found = await verified(alice, f"from={since}")
    assert 12_950 <= len(found["missing"]) <= 12_970 and found["checked"] >= len(found["missing"])
    assert len({str(each) for each in found["missing"]}) == len(found["missing"])


async def test_max_runs_that_are_used_up_are_no_finding(alice, conn):
    await create(alice, id="t", frequency=1, unit="second")
    await conn.execute("""UPDATE task SET bounds = '{"max_runs": 5}'""")
    await conn.execute("UPDATE task_plan SET planned_runs = 5")
    await conn.execute(
        "DELETE FROM run WHERE scheduled_for > (SELECT min(scheduled_for) FROM run) "
        "+ interval '4 s'"
    )
    assert (await verified(alice))["missing"] == []


@pytest.mark.parametrize(
    "query",
    [
        "from=x",
        "to=2026-01-01",
        "cursor=x",
        "cursor=e30=",
        "to=9999-12-31T23:59:59Z",
        "from=1800-01-01T00:00:00Z",
    ],
)
async def test_what_cannot_be_verified_is_refused(alice, query):
    answer = await alice.get(f"/runs/verify?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["field"] == query.split("=")[0]


FAR = 10**18
AT = "2020-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("since", "until", "created_at", "after"),
    [
        (-(10**30), 10**30, AT, None),
        (-FAR, 0, AT, None),
        (0, 9 * FAR, AT, None),
        (0, 1, AT, -FAR),
        (0, 1, AT, FAR),
        (0, 1, "2020-01-01T00:00:00", None),
        (0, 1, "0001-01-01T00:00:00+23:59", None),
        (0, 1, "9999-12-31T23:59:59-23:59", None),
    ],
)
async def test_a_forged_cursor_is_refused_like_any_other(alice, since, until, created_at, after):
    start = {"created_at": created_at, "key": str(uuid.uuid4()), "after": after}
    forged = msgspec.json.encode({"since": since, "until": until, "start": start})
    cursor = base64.urlsafe_b64encode(forged).decode()
    answer = await alice.get("/runs/verify", params={"cursor": cursor})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["details"][0]["field"] == "cursor"


async def test_a_cursor_of_the_last_times_there_are_is_answered(alice):
    start = {"created_at": "9999-12-31T23:59:59.999Z", "key": str(uuid.uuid4()), "after": LAST}
    made = msgspec.json.encode({"since": FIRST, "until": LAST, "start": start})
    cursor = base64.urlsafe_b64encode(made).decode()
    answer = await alice.get("/runs/verify", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["checked"]) == (200, 0)


async def test_one_verify_at_a_time_and_the_others_are_told_to_wait(alice, monkeypatch):
    monkeypatch.setattr(verify, "WAIT_S", 0.01)
    await verify._one.acquire()
    try:
        answer = await alice.get("/runs/verify")
    finally:
        verify._one.release()
    assert answer.status_code == 429 and int(answer.headers["Retry-After"]) > 0


async def test_a_child_that_takes_too_long_is_ended(alice, monkeypatch):
    monkeypatch.setattr(verify, "TIMEOUT_S", 0.01)
    answer = await alice.get("/runs/verify")
    assert answer.status_code == 503
    assert not verify._one.locked()


async def test_a_child_ends_with_its_parent():
    child = await asyncio.create_subprocess_exec(
        verify.sys.executable, "-c",
        "import threading, time; from scheduler.runs import verify; "
        "threading.Thread(target=verify._end_with_parent, daemon=True).start(); print('up', "
        "flush=True); time.sleep(60)",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert (await child.stdout.readline()) == b"up\n"
    child.stdin.close()
    await asyncio.wait_for(child.wait(), 5)
