"""The page of a run: the waterfall, what was sent and answered, replay and cancel."""

import asyncio
import json
import re

import httpx
import pytest

from conftest import App, eventually
from pages import field, safe, statements
from scheduler.dashboard import bodies
from scheduler.db import utc

QUICK = {"timeout_seconds": 5, "retry_backoff": {"initial_seconds": 0}}


async def ran(alice: httpx.AsyncClient, receiver, *, retry: bool = True, **fields) -> str:
    task = {"id": "t", "name": "T", "url": receiver.url + "/hook?token=planted", **QUICK, **fields}
    assert (await alice.post("/tasks", json=task)).status_code == 201
    answer = await alice.post(f"/tasks/t/execute?retry={'true' if retry else 'false'}")
    return str(answer.json()["run_id"])


async def page(visitor: httpx.AsyncClient, run: str) -> str:
    answer = await visitor.get(f"/dashboard/runs/{run}")
    assert answer.status_code == 200, answer.text
    safe(answer)
    return answer.text


# Where the time went -----------------------------------------------------------------------------


async def test_an_attempt_notes_when_it_was_connected_and_answered(alice, receiver):
    run = await ran(alice, receiver, retry=False)
    await alice.post("/tasks/t/execute")
    (first,) = (await alice.get(f"/runs/{run}")).json()["attempts"]
    assert 0 <= first["connected_ms"] <= first["answered_ms"] < 5000
    assert first["new_connection"] is True
    second = (await alice.get("/runs?task=t")).json()["runs"][0]["attempts"][0]
    assert second["new_connection"] is False


async def test_an_attempt_that_was_never_answered_notes_no_answer(alice, receiver):
    receiver.then(drop=True)
    run = await ran(alice, receiver, max_retries=0)
    (only,) = (await alice.get(f"/runs/{run}")).json()["attempts"]
    assert only["connected_ms"] is not None and only["answered_ms"] is None
    await alice.patch("/tasks/t", json={"url": "http://127.0.0.1:9/"})
    second = (await alice.post("/tasks/t/execute")).json()["run_id"]
    (none,) = (await alice.get(f"/runs/{second}")).json()["attempts"]
    assert none["connected_ms"] is None and none["new_connection"] is None


async def test_the_waterfall_has_a_row_for_each_attempt_and_a_table_of_its_parts(
    visitor, alice, receiver
):
    receiver.then(503, b'{"error": "soon"}')
    run = await ran(alice, receiver, max_retries=2)
    text = await page(visitor, run)
    assert text.count('<svg class="waterfall"') == 2
    for kind in ("waiting", "connecting", "answering", "backoff"):
        assert f'<rect class="{kind}' in text, kind
    assert "<title>Connected, " in text and "Tried again: 503 may be gone" in text
    assert "style=" not in text


async def test_a_row_from_before_shows_what_is_known(visitor, alice, receiver, conn):
    run = await ran(alice, receiver)
    await conn.execute("UPDATE history SET attempts = attempts #- '{0,timing}'")
    text = await page(visitor, run)
    assert '<rect class="whole"' in text and "connecting" not in re.findall(
        'rect class="(.*?)"', text
    )
    (attempt,) = (await alice.get(f"/runs/{run}")).json()["attempts"]
    assert attempt["connected_ms"] is None


# What was sent, and what came back ---------------------------------------------------------------


async def test_the_request_is_shown_with_its_secrets_masked(visitor, alice, receiver):
    secret = {"Authorization": "Bearer planted", "X-Plain": "seen"}
    run = await ran(alice, receiver, method="POST", header=secret, payload='{"month": "last"}')
    text = await page(visitor, run)
    assert "planted" not in text and "********" in text
    for shown in ("X-Plain", "seen", "/hook", "&#34;month&#34;", "Idempotency-Key", run):
        assert shown in text.replace("&quot;", "&#34;"), shown


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (b'{"sent":1.50,"of":[1]}', "JSON, 22 bytes"),
        (b"{broken", "text, 7 bytes"),
        (b"\x00\x01\xff" * 1000, "00 01 ff"),
        (b"", "The answer has no body."),
    ],
    ids=["json", "broken", "bytes", "nothing"],
)
async def test_an_answer_is_made_readable_and_can_be_downloaded(
    visitor, alice, receiver, sent, shown
):
    receiver.then(200, sent)
    run = await ran(alice, receiver)
    assert shown in await page(visitor, run)
    file = await visitor.get(f"/dashboard/runs/{run}/body")
    assert (file.status_code, file.content) == (200, sent)
    assert file.headers["Content-Disposition"].startswith(f'attachment; filename="{run}.')
    assert file.headers["Content-Type"] == "application/octet-stream"
    assert file.headers["Content-Security-Policy"].startswith("sandbox")
    assert file.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_long_answer_says_that_it_was_cut(visitor, alice, receiver):
    receiver.then(200, b'{"a": "' + b"x" * 200_000)
    run = await ran(alice, receiver)
    text = await page(visitor, run)
    assert "65,536 bytes, cut" in text and len(text) < 60_000
    assert len((await visitor.get(f"/dashboard/runs/{run}/body")).content) == 65_536


async def test_another_service_has_no_page_and_no_body(visitor, bob, receiver):
    await bob.post("/tasks", json={"id": "b", "name": "B", "url": receiver.url})
    run = (await bob.post("/tasks/b/execute")).json()["run_id"]
    for path in (f"/dashboard/runs/{run}", f"/dashboard/runs/{run}/body"):
        assert (await visitor.get(path)).status_code == 404
    assert (await visitor.get("/dashboard/processes/aaaaaaaaaaaaaaaa")).status_code == 404


def test_what_a_terminal_would_hide_is_read_as_it_would_show_it():
    shown = bodies.body(b"\x1b[31mred\x1b[0m 10%\rall\n\x1b]0;title\x07done\r\n", terminal=True)
    assert shown.text == "all\ndone\n" and "\x1b[31m" in shown.raw


def test_deep_json_is_not_indented_and_a_character_cut_off_is_text():
    deep = b"[" * 40 + b"]" * 40
    assert bodies.body(deep).kind == "text"
    assert bodies.body("für".encode()[:2]).text == "f\ufffd"
    long = b'{"a": "' + b"x" * 100_000 + b'"}'
    assert (bodies.body(long).size, len(bodies.body(long).text)) == (len(long), bodies.READ_MOST)
    assert json.loads(bodies.body(b'[{"x": "\\"}]"}]').text) == [{"x": '"}]'}]


# What can be done --------------------------------------------------------------------------------


async def test_a_finished_run_is_replayed_from_its_page(visitor, alice, receiver):
    receiver.then(404, b"gone")
    run = await ran(alice, receiver)
    text = await page(visitor, run)
    assert "There is nothing at this address" in text and "404 will not change" in text
    sent = {"form": field(text, "form")}
    led = await visitor.post(f"/dashboard/runs/{run}/replay", data=sent)
    assert led.headers["Location"] == f"/dashboard/runs/{run}?done=replay"
    assert "The run is live again" in (await visitor.get(led.headers["Location"])).text

    async def succeeded() -> None:
        assert (await alice.get(f"/runs/{run}")).json()["state"] == "succeeded"

    await eventually(succeeded)
    assert (await visitor.post(f"/dashboard/runs/{run}/replay")).status_code == 403
    stale = await visitor.post(f"/dashboard/runs/{run}/cancel", data=sent)
    assert stale.status_code == 409 and "the run has ended: succeeded" in stale.text
    assert (await visitor.post(f"/dashboard/runs/{run}/else", data=sent)).status_code == 400


async def test_a_running_one_is_followed_and_cancelled_from_its_page(visitor, alice, receiver):
    held = asyncio.Event()
    receiver.then(after=held)
    await alice.post("/tasks", json={"id": "t", "name": "T", "url": receiver.url, **QUICK})
    run = (await alice.post("/tasks/t/execute?async=true")).json()["id"]

    async def under_way() -> None:
        assert (await alice.get(f"/runs/{run}")).json()["state"] == "running"

    await eventually(under_way)
    text = await page(visitor, run)
    assert "data-follow" in text and f'data-slot="run:{run}:state"' in text
    led = await visitor.post(f"/dashboard/runs/{run}/cancel", data={"form": field(text, "form")})
    assert led.status_code == 303

    async def cancelled() -> None:
        assert "data-follow" not in await page(visitor, run)

    await eventually(cancelled)
    assert "see there, then replay" in await page(visitor, run)
    held.set()


async def test_the_runs_before_and_after_are_one_click_away(visitor, alice, receiver):
    first = await ran(alice, receiver)
    second = (await alice.post("/tasks/t/execute")).json()["run_id"]
    third = (await alice.post("/tasks/t/execute")).json()["run_id"]
    text = await page(visitor, second)
    assert f'href="/dashboard/runs/{first}" rel="prev"' in text
    assert f'href="/dashboard/runs/{third}" rel="next"' in text
    assert 'rel="prev"' not in await page(visitor, first)


async def test_a_run_says_which_version_of_its_task_it_was_in_five_statements(
    visitor, alice, receiver, app: App
):
    run = await ran(alice, receiver)
    await alice.patch("/tasks/t", json={"url": receiver.url + "/other"})
    with statements(app) as seen:
        text = await page(visitor, run)
    assert len(seen) <= 5, seen
    assert "1 of the task, which is at 2 now" in re.sub(r"\s+", " ", text)
    assert 'href="/dashboard/tasks/t#history"' in text and "/hook" in text


async def test_a_run_of_a_task_that_is_gone_offers_no_replay(visitor, alice, receiver, conn):
    run = await ran(alice, receiver)
    await alice.delete("/tasks/t")
    text = await page(visitor, run)
    assert "which is gone" in text and "Replay" not in text
    await conn.execute("UPDATE history SET scheduled_for = $1", utc(0))
    assert "1970-01-01" in await page(visitor, run)
