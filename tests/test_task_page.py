"""The page of a task: what it is and was, its runs, why it is paused, and what can be asked of it."""

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from conftest import App, RunApp, eventually
from pages import field, safe, signed_in, statements

AT = "/dashboard/tasks/t"
HOURLY = {"id": "t", "name": "Hourly", "url": "http://127.0.0.1:9/", "cron": "0 * * * *"}
MOST = 5
"""Statements of a page."""


async def act(visitor: httpx.AsyncClient, what: str, **fields: str) -> httpx.Response:
    text = (await visitor.get(AT)).text
    sent = {"form": field(text, "form"), **fields}
    return await visitor.post(f"{AT}/{what}", data=sent)


async def furnish(
    conn: asyncpg.Connection, app: App, runs: int, *, state: str = "succeeded"
) -> None:
    """Write runs of the task into history, one a second, the last just now."""
    row = await conn.fetchrow("SELECT key, bucket, service_id FROM task WHERE id = 't'")
    await conn.execute(
        """INSERT INTO history (id, bucket, service_id, task_key, task_id, kind, version,
                  scheduled_for, state, reason, attempts, attempts_n, created_at, started_at,
                  finished_at, truncated, count)
           SELECT gen_random_uuid(), $2, $3, $1, 't', 'task', 1, at, $4,
                  CASE WHEN $4 = 'succeeded' THEN NULL ELSE 'overlap' END,
                  CAST(format('[{"number": 1, "outcome": "succeeded", "started_at": %s, '
                      '"finished_at": %s}]', ms + 5, ms + 5 + n % 100) AS jsonb),
                  1, at, at + interval '5 ms', at + interval '100 ms', false, 1
           FROM (SELECT n, date_trunc('milliseconds', now()) - n * interval '1 s' AS at,
                        CAST(floor(extract(epoch FROM now()) * 1000) AS bigint) - n * 1000 AS ms
                 FROM generate_series(1, $5) AS n) AS s""",
        row["key"], row["bucket"], row["service_id"], state, runs,
    )  # fmt: skip


# What it shows -----------------------------------------------------------------------------------


KINDS: dict[str, dict[str, Any]] = {
    "cron": {"url": "http://127.0.0.1:9/", "cron": "0 9 * * *", "timezone": "Europe/Berlin"},
    "rrule": {"url": "http://127.0.0.1:9/", "rrule": "DTSTART:20270101T000000Z\nRRULE:FREQ=DAILY"},
    "interval": {"url": "http://127.0.0.1:9/", "frequency": 5, "unit": "minute"},
    "hand": {"url": "http://127.0.0.1:9/"},
    "disabled": {"url": "http://127.0.0.1:9/", "cron": "0 9 * * *", "status": "disabled"},
    "ended": {"url": "http://127.0.0.1:9/", "frequency": 1, "unit": "hour", "max_runs": 1,
              "start_at": "2020-01-01T00:00:00Z", "end_at": "2020-01-02T00:00:00Z"},
    "clear": {"url": "http://127.0.0.1:9/", "cron": "0 9 * * *", "calendars": ["holidays"],
              "max_runs": 7},
}  # fmt: skip
SAYS = {
    "cron": "Europe/Berlin", "rrule": "day", "interval": "Every 5 minutes", "hand": "By hand only",
    "disabled": "Disabled: nothing is due", "ended": "No instant is to come",
    "clear": "Not in the calendars",
}  # fmt: skip


async def test_every_kind_of_task_has_a_page_of_five_statements(visitor, alice, app: App, conn):
    await alice.post("/calendars", json={"name": "holidays", "dates": ["2027-03-29"]})
    for kind, fields in KINDS.items():
        made = await alice.post("/tasks", json={"id": kind, "name": f"A {kind}", **fields})
        assert made.status_code == 201, made.text
        with statements(app) as seen:
            page = await visitor.get(f"/dashboard/tasks/{kind}")
        assert page.status_code == 200 and SAYS[kind] in page.text, kind
        assert len(seen) <= MOST, seen
        safe(page)
        for link in ("/edit", "/copy", "/history"):
            assert f'href="/dashboard/tasks/{kind}{link}"' in page.text
        assert f'href="/dashboard/new?from={kind}"' in page.text
        assert f'href="/dashboard/bulk/delete?id={kind}"' in page.text
        for slot in ("state", "next"):
            assert f'data-slot="task:{kind}:{slot}"' in page.text
    await conn.execute("""UPDATE task SET action = '"broken"' WHERE id = 'cron'""")
    damaged = await visitor.get("/dashboard/tasks/cron")
    assert damaged.status_code == 200 and "cannot be read" in damaged.text


async def test_a_schedule_and_a_command_have_a_page(run_app: RunApp, commands_on):
    async with run_app(**commands_on) as app, app.client("alice") as alice, signed_in(app) as page:
        rule = {"rrule": "FREQ=DAILY", "callback_url": "http://127.0.0.1:9/", "name": "Daily"}
        made = await alice.post("/api/schedules", json=rule)
        text = (await page.get(f"/dashboard/tasks/{made.json()['id']}")).text
        assert "POST" in text and "Every day" in text
        body = {"id": "c", "name": "c", "command": "echo 1", "env": {"TOKEN": "planted"}}
        await alice.post("/tasks", json=body)
        text = (await page.get("/dashboard/tasks/c")).text
        assert "echo 1" in text and "exit code" in text and "planted" not in text


async def test_the_last_runs_are_a_strip_and_lines_and_come_in_pages(visitor, alice, app, conn):
    await alice.post("/tasks", json=HOURLY)
    empty = (await visitor.get(AT)).text
    assert "No runs yet" in empty and "scheduler tasks execute t" in empty and "chart" not in empty
    await furnish(conn, app, 130)
    with statements(app) as seen:
        text = (await visitor.get(AT)).text
    assert len(seen) <= MOST
    assert text.count("data-run=") == 25 and 'data-list="runs" data-of="t"' in text
    strip = set(re.findall(r'href="/dashboard/runs/([\w-]{36})"', text))
    assert len(strip) == 100 and "started after" in text
    listed: list[str] = []
    path = AT
    while path:
        with statements(app) as seen:
            text = (await visitor.get(path)).text
        assert len(seen) <= MOST
        listed += re.findall(r'data-run="([\w-]+)"', text)
        more = re.search(r'href="([^"]*\?after=[^"]*)" rel="next"', text)
        path = more[1] if more else ""
    runs = (await alice.get("/runs?task=t&limit=500&state=succeeded")).json()["runs"]
    assert listed == [run["id"] for run in runs] and len(listed) == 130
    one = next(run for run in runs if run["id"] == listed[3])
    assert one["lag_ms"] == 5 and one["duration_ms"] == 4


async def test_a_run_that_someone_damaged_leaves_the_page_whole(visitor, alice, app, conn):
    await alice.post("/tasks", json=HOURLY)
    await furnish(conn, app, 3)
    for broken in ('{"a": 1}', "[1, 2]", '"x"', '[{"started_at": "x"}]'):
        await conn.execute("UPDATE history SET attempts = $1::jsonb", broken)
        page = await visitor.get(AT)
        assert page.status_code == 200 and page.text.count("data-run=") == 3


async def test_a_task_stands_on_its_page_as_in_the_api(visitor, alice, app, conn, receiver):
    async def words() -> tuple[str, list[str]]:
        text = (await visitor.get(AT)).text
        shown = re.findall(r'class="state (\w+)"', text.partition('class="acts"')[0])
        return (await alice.get("/tasks/t")).json()["state"], shown

    await alice.post("/tasks", json={"id": "t", "name": "t", "url": receiver.url})
    assert await words() == ("created", ["created"])
    await alice.post("/tasks/t/execute")
    assert await words() == ("completed", ["completed"])
    receiver.then(500, "no")
    await alice.post("/tasks/t/execute")
    assert await words() == ("failed", ["failed"])
    await alice.patch("/tasks/t", json={"cron": "0 0 1 1 *", "status": "paused"})
    assert await words() == ("pending", ["pending", "paused"])


async def test_another_services_task_has_no_page_of_any_kind(app: App, alice, conn):
    await alice.post("/tasks", json=HOURLY)
    await alice.delete("/tasks/t")
    await alice.post("/tasks", json={**HOURLY, "name": "Secret name"})
    async with signed_in(app, "bob") as bobs:
        for path in (
            "",
            "/history",
            "/explain?at=2026-01-01T00:00",
            "/backfill?from=2026-01-01T00:00Z&to=2026-01-01T01:00Z",
        ):
            page = await bobs.get(f"{AT}{path}")
            assert (
                "Secret" not in page.text
                and "Hourly" not in page.text
                and "API" not in page.text.partition("<main>")[2]
            )
            assert page.status_code == (200 if path == "/history" else 404)


# What can be done --------------------------------------------------------------------------------


async def test_a_pause_has_a_reason_and_an_end_and_both_are_shown(visitor, alice):
    await alice.post("/tasks", json=HOURLY)
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    sent = {"reason": "The target <b>moves</b>\u202e", "for": "until",
            "until": until.strftime("%Y-%m-%dT%H:%M")}  # fmt: skip
    done = await act(visitor, "pause", **sent)
    assert done.headers["Location"].startswith(f"{AT}?done=pause&act=")
    task = (await alice.get("/tasks/t")).json()
    assert (task["status"], task["paused_until"][:16]) == ("paused", sent["until"])
    for _ in range(8):  # however many edits there are since
        await alice.patch("/tasks/t", json={"description": str(uuid.uuid4())})
    text = (await visitor.get(AT)).text
    assert "The target &lt;b&gt;moves&lt;/b&gt;" in text and "\u202e" not in text
    assert "Paused until" in text and "by dashboard" in text and sent["until"] in text
    assert (await act(visitor, "resume")).status_code == 303
    text = (await visitor.get(AT)).text
    assert "Paused" not in text.partition("<h2>Runs")[0] and "resumed" in text


async def test_a_pause_is_undone_from_the_tasks_own_page_and_an_edit_since_stays(visitor, alice):
    await alice.post("/tasks", json=HOURLY)
    nonce = uuid.uuid4().hex
    for _ in range(2):  # a form that is sent twice acts once
        paused = await act(visitor, "pause", nonce=nonce, reason="why")
    text = (await visitor.get(paused.headers["Location"])).text
    undo = re.search(r'action="(/dashboard/bulk/acts/[^"]+/undo)"', text)
    assert undo and (await alice.get("/tasks/t")).json()["status"] == "paused"
    sent = {"form": field(text, "form"), "back": field(text, "back")}
    after = (await visitor.post(undo[1], data=sent)).headers["Location"]
    text = (await visitor.get(after)).text
    assert "as it was before" in text and "/undo" not in text
    assert (await alice.get("/tasks/t")).json()["status"] == "active"
    paused = (await act(visitor, "pause", **{"for": "1h"})).headers["Location"]
    text = (await visitor.get(paused)).text
    await alice.patch("/tasks/t", json={"description": "edited"})
    undo = re.search(r'action="(/dashboard/bulk/acts/[^"]+/undo)"', text)
    assert undo
    refused = await visitor.post(undo[1], data=sent)
    assert "changed since" in (await visitor.get(refused.headers["Location"])).text
    assert (await alice.get("/tasks/t")).json()["status"] == "paused"


@pytest.mark.parametrize(
    ("span", "hours"), [("1h", 1), ("1d", 24), ("7d", 168), ("", None), ("x", None)]
)
async def test_a_pause_lasts_as_long_as_was_chosen(visitor, alice, span, hours):
    await alice.post("/tasks", json=HOURLY)
    assert (await act(visitor, "pause", **{"for": span})).status_code == 303
    until = (await alice.get("/tasks/t")).json()["paused_until"]
    if hours is None:
        assert until is None
    else:
        away = datetime.fromisoformat(until) - datetime.now(UTC)
        assert abs(away - timedelta(hours=hours)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "sent",
    [
        {"for": "until"},
        {"for": "until", "until": "soon"},
        {"for": "until", "until": "2001-01-01T00:00"},
        {"for": "", "reason": "x" * 501},
    ],
    ids=["none", "word", "past", "long"],
)
async def test_a_pause_that_cannot_be_says_why_and_keeps_what_was_typed(visitor, alice, sent):
    await alice.post("/tasks", json=HOURLY)
    page = await act(visitor, "pause", **{"reason": "kept & shown", **sent})
    assert page.status_code == 400 and "said wrong" in page.text
    assert ("kept &amp; shown" in page.text) == ("reason" not in sent)
    assert (await alice.get("/tasks/t")).json()["status"] == "active"


async def test_a_backfill_is_counted_before_it_is_made(visitor, alice, app, receiver, conn):
    until = datetime.now(UTC).replace(minute=30, second=30, microsecond=0) - timedelta(hours=2)
    made = {**HOURLY, "url": receiver.url, "cron": f"* {until.hour} * * *", "misfire": "skip"}
    await alice.post("/tasks", json=made)
    await conn.execute("UPDATE task SET created_at = created_at - interval '1 day'")
    await conn.execute("DELETE FROM history")
    span = {"from": f"{until - timedelta(minutes=5):%Y-%m-%dT%H:%M:%S}",
            "to": f"{until:%Y-%m-%dT%H:%M:%S}", "pace": "60000"}  # fmt: skip
    assert "Count" in (await visitor.get(f"{AT}/backfill")).text
    page = await visitor.get(f"{AT}/backfill", params=span)
    assert "5 runs to make" in page.text and "Make 5 runs" in page.text
    assert (await alice.get("/runs?task=t&state=succeeded")).json()["runs"] == []
    sent = {name: field(page.text, name) for name in ("form", *span)}
    done = await visitor.post(f"{AT}/backfill", data=sent)
    assert done.headers["Location"] == f"{AT}?done=backfill"
    await eventually(lambda: assert_length(receiver.requests, 5))
    again = await visitor.get(f"{AT}/backfill", params=span)
    assert "0 runs to make" in again.text and "Make 0" not in again.text
    text = (await visitor.get(done.headers["Location"])).text
    assert "backfilled" in text and "fall due one after the other" in text


def assert_length(things: list[Any], length: int) -> None:
    assert len(things) == length


@pytest.mark.parametrize(
    "sent",
    [
        {"from": "", "to": ""},
        {"from": "yesterday", "to": "2026-01-01T00:00"},
        {"from": "2026-01-02T00:00", "to": "2026-01-01T00:00"},
        {"from": "2026-01-01T00:00", "to": "2090-01-01T00:00"},
        {"from": "2026-01-01T00:00", "to": "2026-01-01T01:00", "pace": "fast"},
        {"from": "2026-01-01T00:00", "to": "2026-01-01T01:00", "pace": "0"},
    ],
    ids=["none", "word", "turned", "future", "word-pace", "no-pace"],
)
async def test_a_backfill_that_cannot_be_says_why(visitor, alice, sent):
    await alice.post("/tasks", json=HOURLY)
    page = await visitor.get(f"{AT}/backfill", params=sent)
    assert page.status_code == 400 and "said wrong" in page.text
    assert all(f'value="{each}"' in page.text for each in sent.values() if each)


async def test_a_time_is_explained(visitor, alice):
    await alice.post("/tasks", json=HOURLY)
    ahead = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=5)
    text = (await visitor.get(f"{AT}/explain", params={"at": f"{ahead:%Y-%m-%dT%H:%M}"})).text
    assert ">fires<" in text and "The trigger yields it" in text
    beside = f"{ahead + timedelta(minutes=7):%Y-%m-%dT%H:%M:%SZ}"
    text = (await visitor.get(f"{AT}/explain", params={"at": beside})).text
    assert (
        "does not fire" in text and "no instant of it" in text and f'value="{beside[:16]}' in text
    )
    wrong = await visitor.get(f"{AT}/explain", params={"at": "noon"})
    assert wrong.status_code == 400 and "RFC 3339" in wrong.text and 'value="noon"' in wrong.text
    assert (await visitor.get(f"{AT}/explain")).status_code == 200


# What it was -------------------------------------------------------------------------------------


async def test_who_changed_what_is_on_the_page_and_all_of_it_on_its_own(visitor, alice, app):
    await alice.post("/tasks", json=HOURLY)
    for n in range(30):
        await alice.patch("/tasks/t", json={"name": f"Name {n} <i>"})
    text = (await visitor.get(AT)).text
    assert "Name 28 &lt;i&gt;" in text and "Name 29 &lt;i&gt;" in text and "Name 3 " not in text
    assert "API" in text and 'title="Id of the token"' in text
    with statements(app) as seen:
        first = (await visitor.get(f"{AT}/history")).text
    assert len(seen) <= MOST and "Name 5 " in first and "created" not in first
    older = re.search(r'href="([^"]*history\?before=[^"]*)" rel="next"', first)
    assert older
    second = (await visitor.get(older[1])).text
    assert "created" in second and "Name 3 " in second and 'rel="next"' not in second
    assert (await visitor.get(f"{AT}/history?before=x")).status_code == 400


async def test_a_task_that_is_gone_shows_its_runs_and_who_deleted_it(visitor, alice, app, receiver):
    await alice.post("/tasks", json={**HOURLY, "url": receiver.url})
    run = (await alice.post("/tasks/t/execute")).json()["run_id"]
    await alice.delete("/tasks/t")
    with statements(app) as seen:
        page = await visitor.get(AT)
    assert page.status_code == 404 and len(seen) <= MOST
    assert "It was deleted" in page.text and f"/dashboard/runs/{run}" in page.text
    assert 'href="/dashboard/runs?task=t"' in page.text
    never = await visitor.get("/dashboard/tasks/never")
    assert never.status_code == 404 and 'href="/dashboard/runs?task=never"' in never.text
    assert "It was deleted" not in never.text
