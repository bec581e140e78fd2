"""The overview: what it counts, where its numbers lead, and what it costs."""

import html
import re
from typing import Any
from uuid import UUID

import pytest

from conftest import App, RunApp
from pages import safe, signed_in, statements
from scheduler import glance, history, tally
from scheduler.counting import Counting
from scheduler.dashboard.overview import overview
from scheduler.db import utc
from test_tally import HOUR, MINUTE, end

HOSTILE = "<script>alert(1)</script>\u202e & \"quotes' \x1b[31m"
TASK = {"name": "Nightly", "id": "nightly", "url": "http://127.0.0.1:9/", "frequency": 1,
        "unit": "week"}  # fmt: skip


async def make(client: Any, **changes: Any) -> None:
    answer = await client.post("/tasks", json=TASK | changes)
    assert answer.status_code == 201, answer.text


async def ended(app: App, conn: Any, *states: str, task: str = "nightly", **changes: Any) -> None:
    """Runs of a task that ended a minute ago, one after the other, and were counted."""
    key = await conn.fetchval("SELECT key FROM task WHERE id = $1", task)
    service, now = UUID(app.ids["alice"]), app.engine.clock.now_ms()
    for n, state in enumerate(states):
        of = {"task_key": key, "task_id": task, "service_id": service}
        await end(conn, now - MINUTE + n, state, **of, **changes)
    await counted(app)


async def counted(app: App) -> None:
    await Counting(app.database, app.engine.clock, fresh_ms=0, held_back_ms=0).step()


def tile(page: str, name: str) -> str:
    """What a number says, without its markup."""
    found = re.search(rf'data-slot="overview:{name}">(.*?)</span></a>', page, re.DOTALL)
    assert found, name
    return " ".join(re.sub(r"<[^>]+>", "", found[1]).split())


def leads(page: str, name: str) -> str:
    found = re.search(
        rf'<a href="([^"]+)"[^>]*>(?:(?!<a ).)*data-slot="overview:{name}"', page, re.DOTALL
    )
    assert found, name
    return html.unescape(found[1])


async def test_an_empty_installation_teaches_the_first_commands(visitor):
    answer = await visitor.get("/dashboard")
    safe(answer)
    assert "curl http" in answer.text and "scheduler tasks create" in answer.text
    assert "tile" not in re.sub(r"<style.*?</style>", "", answer.text)


async def test_the_numbers_of_a_day_are_those_of_history(app, alice, visitor, conn):
    await make(alice)
    await ended(app, conn, "succeeded", "succeeded", "failed", "failed", "failed", "expired")
    await ended(app, conn, "skipped", reason="overlap", count=1200, gap_from=utc(0), gap_to=utc(1))
    text = (await visitor.get("/dashboard")).text
    assert tile(text, "succeeded") == "2"
    assert tile(text, "failed") == "3 and 1 expired"
    assert tile(text, "skipped") == "1,200"
    assert "1,200 overlap" in text
    assert (tile(text, "running"), tile(text, "late")) == ("0", "0")


async def test_every_number_leads_to_a_page_that_answers(app, alice, visitor, conn):
    await make(alice)
    await ended(app, conn, "failed", "succeeded")
    await ended(app, conn, "skipped", reason="misfire")
    text = (await visitor.get("/dashboard")).text
    links = set(re.findall(r'href="(/dashboard/(?:runs|tasks)[^"]*)"', text))
    assert len(links) > 8
    for link in links:
        answer = await visitor.get(html.unescape(link))
        assert answer.status_code == 200, link
    assert "state=failed" in leads(text, "failed") and "from=20" in leads(text, "failed")


async def test_what_is_due_within_an_hour_is_counted_by_task(app, alice, visitor):
    soon = utc(app.engine.clock.now_ms() + HOUR // 2).isoformat()
    await make(alice)
    await make(alice, id="soon", scheduled_at=soon, frequency=None, unit=None)
    await make(alice, id="often", unit="second", frequency=30)
    await make(alice, id="asleep", unit="second", frequency=30, status="paused")
    text = (await visitor.get("/dashboard")).text
    assert tile(text, "due") == "2 tasks"


async def test_what_is_due_and_has_not_begun_is_late(app, alice, visitor, conn):
    await make(alice)
    now = app.engine.clock.now_ms()
    app.engine.dispatcher.halt("test", "for a test")
    await conn.execute(
        "INSERT INTO run (id, bucket, service_id, task_key, task_id, kind, version, overlap, "
        "priority, scheduled_for, due, attempts, attempts_n, created_at) SELECT gen_random_uuid(), "
        "bucket, service_id, key, id, 'manual', version, 'allow', 0, $1, $1, '[]', 0, $1 FROM task",
        utc(now - 3 * HOUR),
    )
    text = (await visitor.get("/dashboard")).text
    assert tile(text, "late").startswith("1 by up to 3 h")
    assert "1 run is due and not begun" in text
    assert "for a test" in text  # why nothing is started
    app.engine.dispatcher.halt("test", None)


async def test_what_needs_somebody_has_one_action_each(app, alice, visitor, conn):
    await make(alice, name=HOSTILE)
    await make(alice, id="rest")
    assert (await alice.patch("/tasks/rest", json={"status": "paused"})).status_code == 200
    await ended(app, conn, *["failed"] * 4, reason=HOSTILE)
    await conn.execute("UPDATE task_state SET failures = 4, last = 'failed' "
                       "WHERE key = (SELECT key FROM task WHERE id = 'nightly')")  # fmt: skip
    text = (await visitor.get("/dashboard")).text
    section = text[text.index("Needs attention") : text.index("that ended, ")]
    notices = re.findall(r"<li>.*?</li>", section, re.DOTALL)
    assert len(notices) == 2
    for each in notices:
        assert len(re.findall(r"<button|<a ", each)) == 1
    assert "failed 4 times in a row" in notices[0]
    resume = re.search(r'action="([^"]+)"', notices[1])
    form = re.search(r'name="form" value="([^"]+)"', notices[1])
    assert resume and form
    answer = await visitor.post(resume[1], data={"form": form[1]})
    assert answer.status_code == 303
    assert (await alice.get("/tasks/rest")).json()["status"] == "active"


async def test_hostile_names_and_reasons_are_text(app, alice, visitor, conn):
    await make(alice, name=HOSTILE)
    await ended(app, conn, "failed", "succeeded", reason=HOSTILE)
    text = (await visitor.get("/dashboard")).text
    assert "<script>alert" not in text and "\u202e" not in text and "\x1b" not in text


async def test_another_services_runs_are_not_seen(app, alice, conn):
    await make(alice, name="Nobody elses")
    await ended(app, conn, "failed")
    async with signed_in(app, "bob") as bob:
        text = (await bob.get("/dashboard")).text
    assert "Nobody elses" not in text and "Make the first task" in text
    said = await overview.slots(app.engine, UUID(app.ids["bob"]), app.engine.clock.now_ms())
    assert "<strong>0</strong>" in said["overview:failed"]


@pytest.mark.parametrize(("span", "bars"), [("1h", 60), ("24h", 48), ("7d", 56)])
async def test_the_address_says_how_much_is_drawn(app, alice, visitor, conn, span, bars):
    await make(alice)
    await ended(app, conn, "failed")
    text = (await visitor.get(f"/dashboard?span={span}")).text
    chart = text[text.index("<caption>Runs") :]
    assert chart[: chart.index("</table>")].count("<tr>") == bars + 1
    assert re.search(rf'span={span}" aria-current="true"', text)
    assert "1 failed" in text


async def test_a_span_that_is_none_says_which_there_are(visitor):
    answer = await visitor.get("/dashboard?span=1y")
    assert answer.status_code == 400
    assert "1h, 24h, 7d" in answer.text


async def test_it_takes_five_statements(app, alice, visitor, conn):
    await make(alice)
    await ended(app, conn, "failed", "succeeded")
    with statements(app) as seen:
        await visitor.get("/dashboard?span=7d")
    assert len(seen) == 5


@pytest.mark.parametrize(
    "name",
    ["glance.NOW", "glance.FAILING", "glance.SLOWEST", "tally.SERIES", "tally.REMOVE_OTHERS",
     "tally.ROLL", "tally.PRUNE", "tally.OLDEST", "history.ENDED_BY_MINUTE"],
)  # fmt: skip
async def test_no_look_walks_a_whole_table(app, conn, name):
    module, constant = name.split(".")
    statement = vars({"glance": glance, "tally": tally, "history": history}[module])[constant].text
    names = dict.fromkeys(re.findall(r"(?<!:):([a-z_]+)", statement))
    asked = re.sub(r"(?<!:):([a-z_]+)", lambda m: f"${[*names].index(m[1]) + 1}", statement)
    await conn.execute("SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan")
    await conn.execute(f"PREPARE looked AS {asked}")
    plan = await conn.fetch(f"EXPLAIN EXECUTE looked ({', '.join(['NULL'] * len(names))})")
    assert not [row[0] for row in plan if "Seq Scan" in row[0]]


async def test_the_slots_say_what_the_page_says(app, alice, visitor, conn):
    await make(alice)
    await ended(app, conn, "failed", "succeeded", "skipped")
    text = (await visitor.get("/dashboard")).text
    said = await overview.slots(app.engine, UUID(app.ids["alice"]), app.engine.clock.now_ms())
    names = set(re.findall(r'data-slot="(overview:[a-z]+)"', text))
    assert names == set(said)
    for name in ("due", "running", "late", "succeeded", "failed", "skipped"):
        shown = " ".join(re.sub(r"<[^>]+>", "", said[f"overview:{name}"]).split())
        assert shown == tile(text, name)


async def test_a_number_that_reached_its_bound_says_so(app, alice, visitor, monkeypatch):
    monkeypatch.setattr(glance, "MOST", 2)
    for n in range(3):
        await make(alice, id=f"t{n}", frequency=30, unit="second")
    assert tile((await visitor.get("/dashboard")).text, "due") == "2+ tasks"


async def test_the_slowest_and_the_most_failing_are_named_of_what_was_looked_at(
    app, alice, visitor, conn
):
    await make(alice, id="slow", name="Sloth")
    await make(alice, id="bad", name="Broken")
    now = app.engine.clock.now_ms()
    await ended(app, conn, "succeeded", task="slow", due=now - HOUR)
    await ended(app, conn, "failed", "failed", task="bad", reason="the target answered 500")
    text = (await visitor.get("/dashboard")).text
    most = text[text.index("Fail most") : text.index("Slowest")]
    assert "Broken" in most and "answered 500" in most and "newest 2 failures" in most
    slowest = text[text.index("Slowest") :]
    assert slowest.index("Sloth") < slowest.index("Broken")
    assert "newest 3 runs" in slowest


async def test_it_shows_what_the_program_itself_did(run_app: RunApp, receiver):
    async with run_app() as app, app.client("alice") as alice, signed_in(app) as visitor:
        await make(alice, url=receiver.url)
        assert (await alice.post("/tasks/nightly/execute")).status_code < 300
        await app.engine.settler.drained()
        text = ""
        for _ in range(100):
            await counted(app)
            text = (await visitor.get("/dashboard?span=1h")).text
            if tile(text, "succeeded") == "1":
                break
        assert tile(text, "succeeded") == "1"
